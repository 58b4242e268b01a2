//! Registries: credentials, and what they say of images.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use skep_model::{ImageRef, RegistryAuth};

use super::Shared;
use super::answer::{Answer, Json, Refusal};
use super::params::Body;
use crate::error::Error;
use crate::translate::registry as translate;
use crate::types::registry as wire;

/// Who asks the registry, as the request's header says.
pub(super) fn auth(headers: &HeaderMap) -> Result<Option<RegistryAuth>, Error> {
    let header = headers.get("x-registry-auth").map(|header| header.to_str().unwrap_or("?"));
    translate::auth_from_header(header.unwrap_or_default())
}

/// `docker login`: are these good?
pub(super) async fn login(State(app): Shared, Body(config): Body<wire::AuthConfig>) -> Answer {
    let registry = translate::registry(&config.serveraddress)?;
    let auth = translate::auth(&config)?.ok_or_else(|| Error::invalid("a user name and a password are needed"))?;
    app.backend.registry_login(&registry, auth).await?;
    let answer = wire::AuthResponse { identity_token: String::new(), status: "Login Succeeded".to_owned() };
    Ok(Json::ok(answer).into_response())
}

/// `name/json`
pub(super) async fn distribution(State(app): Shared, headers: HeaderMap, Path(rest): Path<String>) -> Answer {
    let name = rest.strip_suffix("/json").ok_or_else(Refusal::page_not_found)?;
    let reference: ImageRef =
        name.parse().map_err(|e: skep_model::BadImageRef| Refusal::new(StatusCode::BAD_REQUEST, e.to_string()))?;
    let found = app.backend.distribution(&reference, auth(&headers)?).await?;
    Ok(Json::ok(translate::distribution(&found)).into_response())
}
