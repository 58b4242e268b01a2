//! Registries: the API's words into the puller's, and back.

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use skep_engine::backend::image::{Distribution, LayerState, News, Pull, PullEvent};
use skep_engine::{Error, ErrorKind};
use skep_model::{ImageRef, RegistryAuth};
use skep_registry::{self as registry, Platform, PullRequest, Puller, RegistryError};

/// What kind of refusal an error of a registry is.
fn refusal(error: &RegistryError) -> Error {
    let kind = match error {
        RegistryError::NoManifest { .. } | RegistryError::Denied { .. } | RegistryError::NoPlatform { .. } => {
            ErrorKind::NotFound
        }
        _ => ErrorKind::Unknown,
    };
    Error::new(kind, error.to_string())
}

/// Pulls for as long as the stream is listened to.
pub(super) fn pull(puller: &Puller, pull: Pull) -> Result<BoxStream<'static, Result<PullEvent, Error>>, Error> {
    let unknown =
        |text: &str| Error::invalid(format!("{text:?} is no platform: use OS/ARCHITECTURE, as in linux/arm64"));
    let platform =
        pull.platform.as_deref().map(|text| Platform::parse(text).ok_or_else(|| unknown(text))).transpose()?;
    let pulling = puller.pull(PullRequest { reference: pull.reference, auth: pull.auth, platform });
    let events = stream::unfold(Some(pulling), |pulling| async move {
        let mut pulling = pulling?;
        match pulling.next().await {
            Some(event) => Some((Ok(told(event)), Some(pulling))),
            None => pulling.outcome().await.err().map(|e| (Err(refusal(&e)), None)),
        }
    });
    Ok(events.boxed())
}

fn told(event: registry::PullEvent) -> PullEvent {
    match event {
        registry::PullEvent::Found { repository, wanted } => PullEvent::Found { repository, wanted },
        registry::PullEvent::Layer { id, state } => PullEvent::Layer { id, state: layer(state) },
        registry::PullEvent::Pulled { digest, news } => {
            let news = match news {
                registry::News::UpToDate => News::UpToDate,
                registry::News::Newer => News::Newer,
            };
            PullEvent::Pulled { digest: digest.to_string(), news }
        }
    }
}

fn layer(state: registry::LayerState) -> LayerState {
    match state {
        registry::LayerState::Exists => LayerState::Exists,
        registry::LayerState::Queued => LayerState::Queued,
        registry::LayerState::Downloading { done, total } => LayerState::Downloading(done, total),
        registry::LayerState::Downloaded => LayerState::Downloaded,
        registry::LayerState::Extracting { done, total } => LayerState::Extracting(done, total),
        registry::LayerState::Complete => LayerState::Complete,
    }
}

/// Asks a registry what a reference means.
pub(super) async fn distribution(
    puller: &Puller,
    reference: &ImageRef,
    auth: Option<RegistryAuth>,
) -> Result<Distribution, Error> {
    let found = puller.inspect(reference, auth).await.map_err(|e| refusal(&e))?;
    Ok(Distribution {
        media_type: found.media_type,
        digest: found.digest.to_string(),
        size: found.size,
        platforms: found.platforms.into_iter().map(|p| (p.os, p.architecture, p.variant)).collect(),
    })
}

/// Tries credentials.
pub(super) async fn login(puller: &Puller, registry: &str, auth: RegistryAuth) -> Result<(), Error> {
    puller.login(registry, auth).await.map_err(|e| match e {
        RegistryError::Unauthorized { .. } => Error::new(ErrorKind::Unauthenticated, e.to_string()),
        e => refusal(&e),
    })
}
