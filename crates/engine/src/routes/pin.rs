//! Fixes what a service's image means, so that every node runs the same.
//!
//! Docker's command line does that itself before it creates a service, since version 1.30 of the API. For older clients the daemon does.

use skep_model::{ImageRef, Platform, ServiceSpec};

use super::App;
use super::version::ApiVersion;

/// From here on clients pin images themselves, or do not want them pinned.
const CLIENTS_PIN: ApiVersion = ApiVersion::new(1, 30);

/// Puts the digest of the image into the spec, and the machines that there is one for. A registry that does not answer is no reason to refuse:
/// the nodes may have the image. Then it is said.
pub(super) async fn image(app: &App, version: ApiVersion, spec: &mut ServiceSpec) -> Option<String> {
    if version >= CLIENTS_PIN {
        return None;
    }
    let reference: ImageRef = spec.task.container.image.parse().ok()?;
    if reference.digest().is_some() {
        return None;
    }
    match app.backend.distribution(&reference, spec.task.registry_auth.clone()).await {
        Ok(found) => {
            spec.task.container.image = reference.pinned(&found.digest).familiar();
            if spec.task.placement.platforms.is_empty() {
                let platform = |(os, architecture, _)| Platform { architecture, os };
                spec.task.placement.platforms = found.platforms.into_iter().map(platform).collect();
            }
            None
        }
        Err(error) => Some(format!("unable to pin image {} to digest: {}", reference.familiar(), error.message)),
    }
}
