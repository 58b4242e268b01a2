//! `/secrets` and `/configs`

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use skep_model::DataSpec;

use super::answer::{Answer, Json, Refusal};
use super::params::{Body, Params};
use super::{Shared, resolve};
use crate::translate::data as translate;
use crate::types::data::{Created, DataSpec as WireSpec};

const FILTERS: [&str; 4] = ["id", "label", "name", "names"];

fn read(spec: WireSpec) -> Result<DataSpec, Refusal> {
    translate::from_wire(spec).map_err(Refusal::of_cluster)
}

/// Which of them a list is to show.
struct Wanted(super::filters::Filters);

impl Wanted {
    fn of(params: &Params) -> Result<Self, Refusal> {
        params.filters(&FILTERS).map(Self)
    }

    fn takes(&self, id: &str, spec: &DataSpec) -> bool {
        self.0.begins("id", id)
            && self.0.begins("name", spec.name.as_str())
            && self.0.is("names", spec.name.as_str())
            && self.0.labels("label", &spec.labels)
    }
}

pub(super) async fn secrets(State(app): Shared, params: Params) -> Answer {
    let wanted = Wanted::of(&params)?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let shown = view.secrets.values().filter(|s| wanted.takes(s.id.as_str(), &s.spec));
    Ok(Json::ok(shown.map(|s| translate::secret(s)).collect::<Vec<_>>()).into_response())
}

pub(super) async fn configs(State(app): Shared, params: Params) -> Answer {
    let wanted = Wanted::of(&params)?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let shown = view.configs.values().filter(|c| wanted.takes(c.id.as_str(), &c.spec));
    Ok(Json::ok(shown.map(|c| translate::config(c)).collect::<Vec<_>>()).into_response())
}

pub(super) async fn create_secret(State(app): Shared, Body(spec): Body<WireSpec>) -> Answer {
    let id = app.backend.create_secret(read(spec)?).await.map_err(Refusal::of_cluster)?;
    Ok(Json(StatusCode::CREATED, Created { id: id.to_string() }).into_response())
}

pub(super) async fn create_config(State(app): Shared, Body(spec): Body<WireSpec>) -> Answer {
    let id = app.backend.create_config(read(spec)?).await.map_err(Refusal::of_cluster)?;
    Ok(Json(StatusCode::CREATED, Created { id: id.to_string() }).into_response())
}

pub(super) async fn secret(State(app): Shared, Path(name): Path<String>) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    Ok(Json::ok(translate::secret(resolve::secret(&view, &name)?)).into_response())
}

pub(super) async fn config(State(app): Shared, Path(name): Path<String>) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    Ok(Json::ok(translate::config(resolve::config(&view, &name)?)).into_response())
}

pub(super) async fn update_secret(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    Body(spec): Body<WireSpec>,
) -> Answer {
    let version = params.version("secret")?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let id = resolve::secret(&view, &name)?.id.clone();
    app.backend.update_secret(&id, version, read(spec)?).await.map_err(Refusal::of_cluster)?;
    Ok(super::answer::empty())
}

pub(super) async fn update_config(
    State(app): Shared,
    Path(name): Path<String>,
    params: Params,
    Body(spec): Body<WireSpec>,
) -> Answer {
    let version = params.version("config")?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let id = resolve::config(&view, &name)?.id.clone();
    app.backend.update_config(&id, version, read(spec)?).await.map_err(Refusal::of_cluster)?;
    Ok(super::answer::empty())
}

pub(super) async fn remove_secret(State(app): Shared, Path(name): Path<String>) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let id = resolve::secret(&view, &name)?.id.clone();
    app.backend.remove_secret(&id).await.map_err(Refusal::of_cluster)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn remove_config(State(app): Shared, Path(name): Path<String>) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let id = resolve::config(&view, &name)?.id.clone();
    app.backend.remove_config(&id).await.map_err(Refusal::of_cluster)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
