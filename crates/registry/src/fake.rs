//! A source that has nothing, for tests of those who want images.

use std::future::pending;
use std::sync::Arc;

use async_trait::async_trait;
use skep_model::{ImageRef, RegistryAuth};
use tokio::sync::watch;

use crate::error::RegistryError;
use crate::flight::Outcome;
use crate::source::ImageSource;

/// What somebody has asked for.
type Asked = Vec<(ImageRef, Option<RegistryAuth>)>;

/// A registry that takes its time for ever, or refuses.
#[derive(Debug, Default)]
pub struct FakeSource {
    refusal: Option<String>,
    asked: watch::Sender<Asked>,
}

impl FakeSource {
    /// One that never comes to an end.
    #[must_use]
    pub fn slow() -> Self {
        Self::default()
    }

    /// One that refuses everything, for this reason.
    #[must_use]
    pub fn refusing(reason: &str) -> Self {
        Self { refusal: Some(reason.to_owned()), ..Self::default() }
    }

    /// Everything that was asked for, as it comes.
    #[must_use]
    pub fn asked(&self) -> watch::Receiver<Asked> {
        self.asked.subscribe()
    }
}

#[async_trait]
impl ImageSource for FakeSource {
    async fn fetch(&self, reference: &ImageRef, auth: Option<&RegistryAuth>) -> Outcome {
        self.asked.send_modify(|asked| asked.push((reference.clone(), auth.cloned())));
        match &self.refusal {
            None => pending().await,
            Some(reason) => {
                Err(Arc::new(RegistryError::NoManifest { reference: reference.familiar(), reason: reason.clone() }))
            }
        }
    }
}
