//! `/services`

use axum::extract::{Extension, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use skep_model::{RegistryAuth, Service};

use super::Shared;
use super::answer::{Answer, Json, Refusal, empty};
use super::params::{Body, Params};
use super::version::ApiVersion;
use super::{pin, registry, resolve};
use crate::backend::cluster::ClusterView;
use crate::backend::log::LogSource;
use crate::error::ErrorKind;
use crate::stream::logs;
use crate::translate::conflict;
use crate::translate::service::{self as translate, Defaults};
use crate::types::meta::Created;
use crate::types::service as wire;

const FILTERS: [&str; 5] = ["id", "name", "label", "mode", "runtime"];

fn defaults(params: &Params) -> Defaults {
    if params.flag("insertDefaults") { Defaults::Insert } else { Defaults::Omit }
}

pub(super) async fn list(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    filters.words("mode", &["replicated", "global", "replicated-job", "global-job"])?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let mode = |s: &Service| match s.spec.mode {
        skep_model::ServiceMode::Replicated { .. } => "replicated",
        skep_model::ServiceMode::Global => "global",
    };
    let shown = view.services.values().filter(|s| {
        filters.begins("id", s.id.as_str())
            && filters.begins("name", s.spec.name.as_str())
            && filters.labels("label", &s.spec.labels)
            && filters.is("mode", mode(s))
            && filters.is("runtime", "container")
    });
    let with_status = params.flag("status");
    let to_wire = |s: &std::sync::Arc<Service>| {
        let mut wire = translate::to_wire(s, defaults(&params));
        if with_status {
            wire.service_status = Some(translate::status(s, view.tasks_of(&s.id).map(AsRef::as_ref)));
        }
        wire
    };
    Ok(Json::ok(shown.map(to_wire).collect::<Vec<_>>()).into_response())
}

pub(super) async fn inspect(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let service = resolve::service(&view, &id)?;
    Ok(Json::ok(translate::to_wire(service, defaults(&params))).into_response())
}

pub(super) async fn create(
    State(app): Shared,
    Extension(version): Extension<ApiVersion>,
    headers: HeaderMap,
    Body(spec): Body<wire::ServiceSpec>,
) -> Answer {
    // Who cannot create services at all should hear that first.
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let mut spec = read(&spec, &view)?;
    spec.task.registry_auth = registry::auth(&headers)?;
    let unpinned = pin::image(&app, version, &mut spec).await;
    let id = app.backend.create_service(spec).await.map_err(Refusal::of_cluster)?;
    let mut warnings = warnings(&app, &id).await;
    warnings.extend(unpinned);
    Ok(Json(StatusCode::CREATED, Created { id: id.to_string(), warnings }).into_response())
}

/// A spec, with names of networks as ids. What becomes of those names, the node that is asked says itself: without the managers' prefix.
fn read(spec: &wire::ServiceSpec, view: &ClusterView) -> Result<skep_model::ServiceSpec, Refusal> {
    translate::spec_from_wire(spec, &view.networks).map_err(|error| match error.kind {
        ErrorKind::Unknown => Refusal::from(error),
        _ => Refusal::of_cluster(error),
    })
}

/// What is known of the service that whoever has just changed it should hear.
async fn warnings(app: &super::App, id: &skep_model::ServiceId) -> Vec<String> {
    // It has been done: that it cannot be looked at is no reason to say that it has not.
    let Ok(view) = app.backend.cluster().await else { return Vec::new() };
    view.services.get(id).map(|service| conflict::of_service(service, &view)).unwrap_or_default()
}

pub(super) async fn update(
    State(app): Shared,
    Path(id): Path<String>,
    Extension(api): Extension<ApiVersion>,
    params: Params,
    headers: HeaderMap,
    Body(spec): Body<wire::ServiceSpec>,
) -> Answer {
    let version = params.version("service")?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let service = resolve::service(&view, &id)?;
    let mut unpinned = None;
    match params.text("rollback") {
        "" => {
            let mut spec = read(&spec, &view)?;
            spec.task.registry_auth = match registry::auth(&headers)? {
                None => kept_auth(service, params.text("registryAuthFrom"))?,
                given => given,
            };
            unpinned = pin::image(&app, api, &mut spec).await;
            translate::check_update(&service.spec, &spec).map_err(Refusal::of_cluster)?;
            app.backend.update_service(&service.id, version, spec).await.map_err(Refusal::of_cluster)?;
        }
        "previous" => {
            app.backend.rollback_service(&service.id, version).await.map_err(Refusal::of_cluster)?;
        }
        other => {
            let message = format!("unrecognized rollback option {other}: expected previous");
            return Err(Refusal::of_cluster(crate::Error::invalid(message)));
        }
    }
    let mut warnings = warnings(&app, &service.id).await;
    warnings.extend(unpinned);
    let warnings = Some(warnings).filter(|warnings| !warnings.is_empty());
    Ok(Json::ok(wire::ServiceUpdateResponse { warnings }).into_response())
}

/// Whose credentials stay when an update brings none.
fn kept_auth(service: &Service, from: &str) -> Result<Option<RegistryAuth>, Refusal> {
    let invalid = |message: &str| Refusal::of_cluster(crate::Error::invalid(message));
    match (from, &service.previous_spec) {
        ("" | "spec", _) => Ok(service.spec.task.registry_auth.clone()),
        ("previous-spec", Some(previous)) => Ok(previous.task.registry_auth.clone()),
        ("previous-spec", None) => Err(invalid("service does not have a previous spec")),
        _ => Err(invalid("unsupported registryAuthFrom value: expected spec or previous-spec")),
    }
}

pub(super) async fn remove(State(app): Shared, Path(id): Path<String>) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let service = resolve::service(&view, &id)?;
    app.backend.remove_service(&service.id).await.map_err(Refusal::of_cluster)?;
    Ok(empty())
}

pub(super) async fn logs(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer<Response> {
    let options = params.logs()?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let service = resolve::service(&view, &id)?;
    let shape = logs::Shape::of(&params_of(&params), service.spec.task.container.tty);
    let source = LogSource::Service(service.id.clone());
    let lines = app.backend.task_logs(source, options).await.map_err(Refusal::of_cluster)?;
    Ok(logs::response(lines, shape, app.closed()))
}

/// What of a query decides how lines look.
pub(super) fn params_of(params: &Params) -> logs::Asked {
    logs::Asked { details: params.flag("details"), timestamps: params.flag("timestamps") }
}
