//! `/volumes`: those of the node that is asked.

use axum::extract::{Extension, Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use skep_model::LOCAL_DRIVER;

use super::Shared;
use super::answer::{Answer, Json, Refusal, no_content};
use super::filters::Filters;
use super::params::{Body, Params};
use super::version::ApiVersion;
use crate::backend::volume::{Sizes, VolumeInfo};
use crate::error::ErrorKind;
use crate::translate::volume as translate;
use crate::types::volume as wire;

const FILTERS: [&str; 4] = ["dangling", "driver", "label", "name"];
const PRUNE_FILTERS: [&str; 3] = ["all", "label", "label!"];
/// From here on pruning leaves volumes alone that somebody has named.
const PRUNES_UNNAMED: ApiVersion = ApiVersion::new(1, 42);
/// The label of volumes whose names nobody chose.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

fn shown(volume: &VolumeInfo, dangling: Option<bool>, filters: &Filters) -> bool {
    dangling.is_none_or(|wanted| wanted == (volume.users == 0))
        && filters.any("driver", |driver| driver == LOCAL_DRIVER)
        && filters.labels("label", &volume.labels)
        && filters.any("name", |part| volume.name.contains(part))
}

pub(super) async fn list(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let volumes = app.backend.volumes(Sizes::Unknown).await?;
    let volumes = volumes.iter().filter(|v| shown(v, dangling, &filters)).map(translate::volume).collect();
    Ok(Json::ok(wire::VolumeList { volumes, warnings: None }).into_response())
}

pub(super) async fn create(State(app): Shared, Body(request): Body<wire::CreateRequest>) -> Answer {
    let made = app.backend.volume_create(translate::create_from_wire(&request)?).await?;
    Ok(Json(StatusCode::CREATED, translate::volume(&made)).into_response())
}

pub(super) async fn inspect(State(app): Shared, Path(name): Path<String>) -> Answer {
    Ok(Json::ok(translate::volume(&app.backend.volume(&name).await?)).into_response())
}

pub(super) async fn remove(State(app): Shared, Path(name): Path<String>, params: Params) -> Answer {
    match app.backend.volume_remove(&name).await {
        Err(error) if error.kind == ErrorKind::NotFound && params.flag("force") => Ok(no_content()),
        removed => removed.map(|()| no_content()).map_err(Refusal::from),
    }
}

/// Removes volumes that no container has.
pub(super) async fn prune(State(app): Shared, Extension(version): Extension<ApiVersion>, params: Params) -> Answer {
    let filters = params.filters(&PRUNE_FILTERS)?;
    let named_too = filters.flag("all")?.unwrap_or(version < PRUNES_UNNAMED);
    let goes = |volume: &VolumeInfo| {
        volume.users == 0
            && (named_too || volume.labels.contains_key(ANONYMOUS))
            && filters.labels("label", &volume.labels)
            && !filters.any_label("label!", &volume.labels)
    };
    let (mut deleted, mut space_reclaimed) = (Vec::new(), 0);
    for volume in app.backend.volumes(Sizes::Measured).await?.into_iter().filter(goes) {
        match app.backend.volume_remove(&volume.name).await {
            Ok(()) => {
                space_reclaimed += volume.size.unwrap_or(0);
                deleted.push(volume.name);
            }
            // A container has taken it, or somebody else was faster.
            Err(error) if matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let volumes_deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(Json::ok(wire::Pruned { volumes_deleted, space_reclaimed }).into_response())
}
