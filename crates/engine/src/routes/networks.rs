//! `/networks`

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use skep_model::{Network, NetworkId};

use super::answer::{Answer, Json, Refusal, no_content};
use super::filters::Filters;
use super::forward::PassedOn;
use super::params::{Body, LARGEST, Params};
use super::{App, Shared, resolve};
use crate::backend::cluster::ClusterView;
use crate::backend::node::SwarmState;
use crate::error::{Error, ErrorKind};
use crate::translate::network as translate;
use crate::types::go_json;
use crate::types::network::{self as wire, CreateRequest, CreateResponse};

const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];
const PRUNE_FILTERS: [&str; 3] = ["label", "label!", "until"];

/// What this node knows: on a manager all of the swarm; on a worker the networks that concern it, as Docker's workers show.
enum Known {
    Swarm(Arc<ClusterView>),
    Here(Vec<Arc<Network>>),
}

impl Known {
    async fn of(app: &App) -> Result<Self, Refusal> {
        match app.backend.swarm_state() {
            SwarmState::Manager => Ok(Self::Swarm(app.backend.cluster().await.map_err(Refusal::of_cluster)?)),
            SwarmState::Worker => {
                let containers = app.backend.containers().await?;
                let used: BTreeSet<&NetworkId> =
                    containers.iter().flat_map(|c| &c.networks).map(|place| &place.attachment.network).collect();
                let mut networks = app.backend.known_networks().await;
                networks.retain(|n| !n.retired && (n.spec.ingress || used.contains(&n.id)));
                Ok(Self::Here(networks))
            }
            _ => Ok(Self::Here(Vec::new())),
        }
    }

    fn networks(&self) -> Vec<&Arc<Network>> {
        match self {
            Self::Swarm(view) => view.shown_networks().collect(),
            Self::Here(networks) => networks.iter().collect(),
        }
    }

    /// Whether nobody is on it: no service of the swarm, or, on a worker, no container here.
    fn is_dangling(&self, network: &Network) -> bool {
        match self {
            Self::Swarm(view) => !network.spec.ingress && !view.services.values().any(|s| s.is_on(&network.id)),
            Self::Here(_) => false,
        }
    }
}

pub(super) async fn list(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    filters.words("type", &["builtin", "custom"])?;
    let dangling = filters.flag("dangling")?;
    let known = Known::of(&app).await?;
    let passes = |n: &&&Arc<Network>| {
        filters.begins("id", n.id.as_str())
            && filters.any("name", |name| n.spec.name.contains(name.as_str()))
            && filters.is("driver", "overlay")
            && filters.is("scope", "swarm")
            && filters.is("type", if n.spec.ingress { "builtin" } else { "custom" })
            && filters.labels("label", &n.spec.labels)
            && dangling.is_none_or(|wanted| wanted == known.is_dangling(n))
    };
    let networks: Vec<_> = known.networks().iter().filter(passes).map(|n| translate::to_wire(n)).collect();
    Ok(Json::ok(networks).into_response())
}

pub(super) async fn inspect(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    if !matches!(params.text("scope"), "" | "swarm" | "global") {
        return Err(Error::not_found("network", &id).into());
    }
    let known = Known::of(&app).await?;
    let network = resolve::network(known.networks().into_iter(), &id)?;
    let containers = app.backend.containers().await?;
    let mut shown = translate::with_containers(network, &containers);
    if let Known::Swarm(view) = &known {
        shown.peers = translate::peers(network, view);
        if params.flag("verbose") {
            shown.services = translate::services(network, view);
        }
    }
    Ok(Json::ok(shown).into_response())
}

/// Shows this node's containers where another manager has answered with its own.
pub(super) async fn own_containers(State(app): Shared, request: Request, next: Next) -> Response {
    let theirs = request.method() == Method::GET
        && request.extensions().get::<PassedOn>().is_none()
        && app.backend.swarm_state() == SwarmState::Manager
        && !app.backend.leads();
    let answer = next.run(request).await;
    if !theirs || answer.status() != StatusCode::OK {
        return answer;
    }
    match with_own(&app, answer).await {
        Ok(network) => Json::ok(network).into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

async fn with_own(app: &App, answer: Response) -> Result<wire::Network, Refusal> {
    let unreadable = |e: String| Error::new(ErrorKind::Unknown, format!("the leader's answer cannot be read: {e}"));
    let body = axum::body::to_bytes(answer.into_body(), LARGEST).await.map_err(|e| unreadable(e.to_string()))?;
    let mut shown: wire::Network = go_json::from_slice(&body).map_err(|e| unreadable(e.to_string()))?;
    let containers = app.backend.containers().await?;
    let known = app.backend.known_networks().await;
    let network = known.iter().find(|network| network.id.as_str() == shown.id);
    shown.containers =
        network.and_then(|n| translate::with_containers(n, &containers).containers).or(Some(BTreeMap::new()));
    Ok(shown)
}

pub(super) async fn create(State(app): Shared, Body(request): Body<CreateRequest>) -> Answer {
    if request.name.is_empty() {
        return Err(Error::invalid("the network needs a name").into());
    }
    match app.backend.swarm_state() {
        SwarmState::Worker => {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "Cannot create a multi-host network from a worker node. Please create the network from a manager node.",
            )
            .into());
        }
        // Docker's status for this sentence is another here than elsewhere.
        SwarmState::Inactive => return Err(Error::new(ErrorKind::Unknown, Error::no_swarm().message).into()),
        _ => {}
    }
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let new = translate::create_from_wire(&request)?;
    if view.shown_networks().any(|n| n.spec.name == new.name) {
        let message = format!("network with name {} already exists", new.name);
        return Err(Error::new(ErrorKind::AlreadyExists, message).into());
    }
    let id = app.backend.create_network(new).await.map_err(Refusal::of_cluster)?;
    Ok(Json(StatusCode::CREATED, CreateResponse { id: id.to_string(), warning: String::new() }).into_response())
}

pub(super) async fn remove(State(app): Shared, Path(id): Path<String>) -> Answer {
    match app.backend.swarm_state() {
        SwarmState::Manager => {}
        SwarmState::Worker => {
            let known = Known::of(&app).await?;
            resolve::network(known.networks().into_iter(), &id)?;
            return Err(Error::not_a_manager().into());
        }
        _ => return Err(Error::not_found("network", &id).into()),
    }
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let network = resolve::network(view.shown_networks(), &id)?;
    app.backend.remove_network(&network.id).await.map_err(Refusal::of_cluster)?;
    Ok(no_content())
}

/// Removes the networks that nobody needs.
pub(super) async fn prune(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&PRUNE_FILTERS)?;
    let until = filters.values("until").map(super::params::until).collect::<Result<Vec<_>, _>>()?;
    let mut deleted = Vec::new();
    if app.backend.swarm_state() == SwarmState::Manager {
        let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
        let old = |network: &Network| until.iter().all(|until| network.meta.created < *until);
        for network in view.shown_networks().filter(|n| goes(n, &filters) && old(n)) {
            match app.backend.remove_network(&network.id).await {
                Ok(()) => deleted.push(network.spec.name.clone()),
                // Somebody is on it, or somebody else was faster.
                Err(error) if matches!(error.kind, ErrorKind::FailedPrecondition | ErrorKind::NotFound) => {}
                Err(error) => return Err(Refusal::of_cluster(error)),
            }
        }
    }
    let deleted = (!deleted.is_empty()).then_some(deleted);
    Ok(Json::ok(json!({ "NetworksDeleted": deleted })).into_response())
}

fn goes(network: &Network, filters: &Filters) -> bool {
    let spec = &network.spec;
    !spec.ingress && filters.labels("label", &spec.labels) && !filters.any_label("label!", &spec.labels)
}
