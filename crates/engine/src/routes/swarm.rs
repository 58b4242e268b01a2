//! `/swarm`

use axum::extract::State;
use axum::response::IntoResponse;

use super::Shared;
use super::answer::{Answer, Json, Refusal, empty};
use super::params::{Body, Params};
use crate::backend::cluster::Rotate;
use crate::backend::node::SwarmState;
use crate::backend::swarm::Leave;
use crate::error::{Error, ErrorKind};
use crate::translate::swarm as translate;
use crate::types::swarm as wire;

pub(super) async fn inspect(State(app): Shared) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    Ok(Json::ok(translate::to_wire_with_tokens(&view)).into_response())
}

pub(super) async fn init(State(app): Shared, Body(request): Body<wire::InitRequest>) -> Answer {
    // Before anything else is found wrong: nothing in the request would help.
    if app.backend.swarm_state() != SwarmState::Inactive && !request.force_new_cluster {
        return Err(Error::already_in_swarm().into());
    }
    let options = translate::init_from_wire(&request)?;
    let node = app.backend.swarm_init(options).await?;
    Ok(Json::ok(node.to_string()).into_response())
}

pub(super) async fn join(State(app): Shared, Body(request): Body<wire::JoinRequest>) -> Answer {
    if app.backend.swarm_state() != SwarmState::Inactive {
        return Err(Error::already_in_swarm().into());
    }
    let options = translate::join_from_wire(&request)?;
    app.backend.swarm_join(options).await.map_err(Refusal::of_cluster)?;
    Ok(empty())
}

pub(super) async fn leave(State(app): Shared, params: Params) -> Answer {
    let leave = if params.flag("force") { Leave::Force } else { Leave::Gently };
    app.backend.swarm_leave(leave).await?;
    Ok(empty())
}

pub(super) async fn update(State(app): Shared, params: Params, Body(asked): Body<wire::Spec>) -> Answer {
    let version = params.version("swarm")?;
    app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let spec = translate::spec_from_wire(&asked).map_err(Refusal::of_cluster)?;
    let root = translate::given_root(&asked).map_err(Refusal::of_cluster)?;
    let rotate = Rotate {
        root,
        worker: params.flag("rotateWorkerToken"),
        manager: params.flag("rotateManagerToken"),
        unlock_key: params.flag("rotateManagerUnlockKey"),
    };
    app.backend.update_cluster(version, spec, rotate).await.map_err(Refusal::of_cluster)?;
    Ok(empty())
}

pub(super) async fn unlock_key(State(app): Shared) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    // Empty when none is set: that is what clients look for.
    let unlock_key = view.cluster.unlock_key.as_ref().map(|key| key.0.clone()).unwrap_or_default();
    Ok(Json::ok(wire::UnlockKeyResponse { unlock_key }).into_response())
}

pub(super) async fn unlock(State(app): Shared, Body(request): Body<wire::UnlockRequest>) -> Answer {
    match app.backend.swarm_state() {
        SwarmState::Inactive => return Err(Error::not_in_swarm().into()),
        SwarmState::Locked => app.backend.swarm_unlock(&request.unlock_key).await?,
        _ => return Err(Error::new(ErrorKind::FailedPrecondition, "swarm is not locked").into()),
    }
    Ok(empty())
}
