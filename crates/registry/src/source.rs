//! Where tasks get their images from.

use std::sync::Arc;

use async_trait::async_trait;
use skep_model::{ImageRef, RegistryAuth};

use crate::flight::Outcome;
use crate::pull::{PullRequest, Puller};

/// Where tasks get their images from.
#[async_trait]
pub trait ImageSource: Send + Sync {
    /// Brings an image into this node's store. It is held as long as the result lives. Dropping the future ends the work, unless others wait for the same.
    ///
    /// # Errors
    /// Why it cannot be had.
    async fn fetch(&self, reference: &ImageRef, auth: Option<&RegistryAuth>) -> Outcome;
}

#[async_trait]
impl ImageSource for Puller {
    async fn fetch(&self, reference: &ImageRef, auth: Option<&RegistryAuth>) -> Outcome {
        self.pull(PullRequest { reference: reference.clone(), auth: auth.cloned(), platform: None }).outcome().await
    }
}

#[async_trait]
impl<T: ImageSource + ?Sized> ImageSource for Arc<T> {
    async fn fetch(&self, reference: &ImageRef, auth: Option<&RegistryAuth>) -> Outcome {
        (**self).fetch(reference, auth).await
    }
}
