//! `/networks`

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use skep_model::Network;

use super::answer::{Answer, Json, Refusal};
use super::params::{Body, Params};
use super::{Shared, resolve};
use crate::backend::node::SwarmState;
use crate::error::{Error, ErrorKind};
use crate::translate::network as translate;

const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

pub(super) async fn list(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    filters.words("type", &["builtin", "custom"])?;
    let dangling = filters.flag("dangling")?;
    // Only managers know of networks; elsewhere there is none to show, and that is no error.
    let view = match app.backend.swarm_state() {
        SwarmState::Manager => Some(app.backend.cluster().await.map_err(Refusal::of_cluster)?),
        _ => None,
    };
    let passes = |n: &&std::sync::Arc<Network>| {
        filters.begins("id", n.id.as_str())
            && filters.any("name", |name| n.spec.name.contains(name.as_str()))
            && filters.is("driver", "overlay")
            && filters.is("scope", "swarm")
            && filters.is("type", if n.spec.ingress { "builtin" } else { "custom" })
            && filters.labels("label", &n.spec.labels)
            // The ingress network is never in nobody's use.
            && dangling != Some(true)
    };
    let networks: Vec<_> =
        view.iter().flat_map(|v| v.networks.values().filter(passes).map(|n| translate::to_wire(n))).collect();
    Ok(Json::ok(networks).into_response())
}

pub(super) async fn inspect(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let not_found = || Refusal::from(Error::not_found("network", &id));
    if app.backend.swarm_state() != SwarmState::Manager || !matches!(params.text("scope"), "" | "swarm" | "global") {
        return Err(not_found());
    }
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let network = resolve::network(&view, &id)?;
    let containers = app.backend.containers().await?;
    let nodes = view.nodes.values().map(AsRef::as_ref);
    Ok(Json::ok(translate::inspect(network, &containers, nodes)).into_response())
}

pub(super) async fn create(State(app): Shared, Body(request): Body<Value>) -> Answer {
    let name = request.get("Name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::invalid("the network needs a name").into());
    }
    match app.backend.swarm_state() {
        SwarmState::Manager => {
            let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
            if view.networks.values().any(|n| n.spec.name == name) {
                let message = format!("network with name {name} already exists");
                return Err(Error::new(ErrorKind::AlreadyExists, message).into());
            }
        }
        SwarmState::Worker => {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "Cannot create a multi-host network from a worker node. Please create the network from a manager node.",
            )
            .into());
        }
        _ => {}
    }
    Err(Error::unimplemented("this version of skep has the ingress network only; other networks come later").into())
}

pub(super) async fn remove(State(app): Shared, Path(id): Path<String>) -> Answer {
    if app.backend.swarm_state() != SwarmState::Manager {
        return Err(Error::not_found("network", &id).into());
    }
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let network = resolve::network(&view, &id)?;
    let user = view.services.values().find(|s| s.endpoint.virtual_ips.iter().any(|v| v.network == network.id));
    let refusal = match user {
        Some(service) => Error::new(
            ErrorKind::FailedPrecondition,
            format!("ingress network cannot be removed because service {} depends on it", service.id),
        ),
        None => Error::unimplemented("this version of skep cannot remove the ingress network"),
    };
    Err(Refusal::of_cluster(refusal))
}

pub(super) async fn prune() -> Answer {
    Ok(Json::ok(json!({ "NetworksDeleted": Value::Null })).into_response())
}
