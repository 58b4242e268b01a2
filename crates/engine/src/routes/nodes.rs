//! `/nodes`

use axum::extract::{Path, State};
use axum::response::IntoResponse;

use super::Shared;
use super::answer::{Answer, Json, Refusal, empty};
use super::params::{Body, Params};
use super::resolve;
use crate::backend::cluster::NodeRemoval;
use crate::translate::node::{self as translate, words};
use crate::types::node as wire;

const FILTERS: [&str; 6] = ["id", "label", "membership", "name", "node.label", "role"];

pub(super) async fn list(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    filters.words("role", &["worker", "manager"])?;
    filters.words("membership", &["accepted", "pending"])?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let nothing = Default::default();
    let shown = view.nodes.values().filter(|n| {
        let engine = n.description.as_ref().map_or(&nothing, |d| &d.engine.labels);
        filters.begins("id", n.id.as_str())
            && filters.begins("name", n.hostname())
            && filters.labels("label", engine)
            && filters.labels("node.label", &n.spec.labels)
            && filters.is("role", words::role(n.spec.role))
            // Whoever is in has been accepted: there is no waiting room.
            && filters.is("membership", "accepted")
    });
    Ok(Json::ok(shown.map(|n| translate::to_wire(n, &view.issuers)).collect::<Vec<_>>()).into_response())
}

pub(super) async fn inspect(State(app): Shared, Path(id): Path<String>) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    Ok(Json::ok(translate::to_wire(resolve::node(&view, &id)?, &view.issuers)).into_response())
}

pub(super) async fn update(
    State(app): Shared,
    Path(id): Path<String>,
    params: Params,
    Body(spec): Body<wire::NodeSpec>,
) -> Answer {
    let version = params.version("node")?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let node = resolve::node(&view, &id)?;
    let spec = translate::spec_from_wire(&spec).map_err(Refusal::of_cluster)?;
    app.backend.update_node(&node.id, version, spec).await.map_err(Refusal::of_cluster)?;
    Ok(empty())
}

pub(super) async fn remove(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let node = resolve::node(&view, &id)?;
    let removal = if params.flag("force") { NodeRemoval::Force } else { NodeRemoval::IfDown };
    app.backend.remove_node(&node.id, removal).await.map_err(Refusal::of_cluster)?;
    Ok(empty())
}
