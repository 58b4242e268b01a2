//! Where the image of a task comes from: this node's store, or its registry.

use std::sync::Arc;

use skep_model::{ImageRef, Task};
use skep_registry::ImageSource;
use skep_runtime::images::{Held, Image, ImageError, Images};
use tracing::warn;

use crate::context::StepError;

/// The images of this node, and where others come from.
pub(crate) struct TaskImages {
    pub(crate) store: Arc<Images>,
    pub(crate) source: Arc<dyn ImageSource>,
}

/// An image that a container is about to be made of. It stays until the value is dropped.
pub(crate) type ReadyImage = Arc<Held>;

/// What this node has for a task.
pub(crate) enum Local {
    /// What the task wants.
    Image(ReadyImage),
    /// Perhaps something older: the tag came from a registry, and may mean something else there by now.
    Perhaps(ReadyImage),
    /// Nothing.
    Nothing(ImageError),
}

impl TaskImages {
    /// What is here. A digest means the same for ever, and what was loaded from an archive is nobody else's to change: no registry is asked about
    /// those.
    pub(crate) async fn local(&self, task: &Task) -> Local {
        let (images, name) = (self.store.clone(), task.spec.container.image.clone());
        let found = match tokio::task::spawn_blocking(move || images.hold(&name)).await {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        match found {
            Err(error) => Local::Nothing(error),
            Ok(held) if may_have_changed(&task.spec.container.image, &held) => Local::Perhaps(Arc::new(held)),
            Ok(held) => Local::Image(Arc::new(held)),
        }
    }

    /// Has the image brought from its registry. Where that cannot be, what is here is good enough.
    pub(crate) async fn pull(&self, task: &Task, local: Local) -> Result<ReadyImage, StepError> {
        let here = match local {
            Local::Image(image) => return Ok(image),
            Local::Perhaps(held) => Ok(held),
            Local::Nothing(error) => Err(error),
        };
        let name = &task.spec.container.image;
        let Ok(reference) = name.parse::<ImageRef>() else {
            return here.map_err(StepError::Image);
        };
        match (self.source.fetch(&reference, task.spec.registry_auth.as_ref()).await, here) {
            (Ok(held), _) => Ok(held),
            (Err(e), Ok(held)) => {
                warn!(task = %task.display_name(), "the image of {name} that is here is used: {e}");
                Ok(held)
            }
            (Err(reason), Err(ImageError::NotFound(_))) => Err(StepError::NoImage { name: name.clone(), reason }),
            (Err(_), Err(error)) => Err(StepError::Image(error)),
        }
    }

    /// The image that is here now.
    pub(crate) async fn find(&self, task: &Task) -> Option<Image> {
        match self.local(task).await {
            Local::Image(held) | Local::Perhaps(held) => Some(Image::clone(&held)),
            Local::Nothing(_) => None,
        }
    }
}

/// Whether a name without a digest came from a registry.
fn may_have_changed(name: &str, image: &Image) -> bool {
    let Ok(wanted) = name.parse::<ImageRef>() else { return false };
    let pulled = |name: &ImageRef| name.digest().is_some() && name.same_repository(&wanted);
    wanted.digest().is_none() && image.refs.iter().any(pulled)
}
