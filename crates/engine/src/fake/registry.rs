//! Registries in memory: they have everything but what is called missing, and let in whoever knows that the password is `secret`. Nobody
//! reaches Docker's own to ask what a tag means.

use skep_model::{ImageRef, RegistryAuth};

use crate::backend::image::{Distribution, LayerState, News, Pull, PullEvent};
use crate::error::{Error, ErrorKind};

fn missing(reference: &ImageRef) -> Error {
    let message = format!("manifest for {} not found: manifest unknown: manifest unknown", reference.familiar());
    Error::new(ErrorKind::NotFound, message)
}

/// The digest of everything.
fn digest() -> String {
    format!("sha256:{}", "d".repeat(64))
}

/// Whether the credentials are wrong. None are needed.
fn is_wrong(auth: Option<&RegistryAuth>) -> bool {
    matches!(auth, Some(RegistryAuth::Password { password, .. }) if password != "secret")
}

/// What happens during a pull.
pub(super) fn pull(pull: &Pull) -> Vec<Result<PullEvent, Error>> {
    if pull.reference.path().ends_with("missing") {
        return vec![Err(missing(&pull.reference))];
    }
    let layer = |state| PullEvent::Layer { id: "5daed6db7a6f".to_owned(), state };
    let wanted = pull.reference.digest().or(pull.reference.tag()).unwrap_or_default().to_owned();
    let mut events = vec![
        Ok(PullEvent::Found { repository: pull.reference.path().to_owned(), wanted }),
        Ok(layer(LayerState::Queued)),
        Ok(layer(LayerState::Downloading(5, 9))),
    ];
    if is_wrong(pull.auth.as_ref()) {
        events.push(Err(Error::new(ErrorKind::Unknown, "unauthorized")));
    } else {
        events.push(Ok(layer(LayerState::Complete)));
        events.push(Ok(PullEvent::Pulled { digest: digest(), news: News::Newer }));
    }
    events
}

/// What a reference means.
pub(super) fn distribution(reference: &ImageRef, auth: Option<&RegistryAuth>) -> Result<Distribution, Error> {
    if reference.path().ends_with("missing") || reference.domain() == "docker.io" || is_wrong(auth) {
        return Err(missing(reference));
    }
    Ok(Distribution {
        media_type: "application/vnd.docker.distribution.manifest.v2+json".to_owned(),
        digest: digest(),
        size: 527,
        platforms: vec![("linux".to_owned(), "amd64".to_owned(), String::new())],
    })
}

/// Whether credentials are good.
pub(super) fn login(registry: &str, auth: &RegistryAuth) -> Result<(), Error> {
    if is_wrong(Some(auth)) {
        return Err(Error::new(
            ErrorKind::Unauthenticated,
            format!("unauthorized: {registry} refuses the credentials"),
        ));
    }
    Ok(())
}
