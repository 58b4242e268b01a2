//! `/containers`: those of this node's tasks.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use skep_model::Timestamp;

use super::Shared;
use super::answer::{Answer, Json, Refusal};
use super::params::Params;
use super::services::params_of;
use crate::backend::container::{ContainerInfo, ContainerState};
use crate::error::{Error, ErrorKind};
use crate::stream::logs;
use crate::translate::{health, running};

const FILTERS: [&str; 9] = ["ancestor", "health", "id", "is-task", "label", "name", "network", "status", "volume"];
const HEALTH: [&str; 4] = ["healthy", "none", "starting", "unhealthy"];
const STATES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];

fn state(info: &ContainerInfo) -> &'static str {
    match info.state {
        ContainerState::Created => "created",
        ContainerState::Running { .. } => "running",
        ContainerState::Exited { .. } => "exited",
    }
}

pub(super) async fn list(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    filters.words("status", &STATES)?;
    filters.words("health", &HEALTH)?;
    let tasks = filters.flag("is-task")?;
    let everything = params.flag("all") || filters.values("status").next().is_some();
    let now = Timestamp::now();
    let mut containers = app.backend.containers().await?;
    containers.sort_by_key(|c| std::cmp::Reverse(c.created));
    containers.retain(|c| {
        (everything || matches!(c.state, ContainerState::Running { .. }))
            && tasks != Some(false)
            && filters.begins("id", &c.id)
            && filters.any("name", |name| format!("/{}", c.name).contains(name.as_str()))
            && filters.is("status", state(c))
            && filters.is("health", c.health.as_ref().map_or("none", |h| health::word(h.state)))
            && filters.labels("label", &c.labels)
            && filters.any("ancestor", |a| c.image == *a || c.image_id.starts_with(a.trim_start_matches("sha256:")))
            && filters.any("volume", |v| c.volumes.iter().any(|used| used.name == *v || used.target == *v))
            && filters
                .any("network", |n| c.networks.iter().any(|on| on.name == *n || on.attachment.network.as_str() == n))
    });
    let limit = params.text("limit").parse::<usize>().ok().filter(|n| *n > 0).unwrap_or(usize::MAX);
    let shown: Vec<_> = containers.iter().take(limit).map(|c| running::summary(c, now)).collect();
    Ok(Json::ok(shown).into_response())
}

/// A full id, a name with or without its slash, or the beginning of one id.
pub(super) fn find(containers: Vec<ContainerInfo>, name: &str) -> Result<ContainerInfo, Refusal> {
    let called = name.strip_prefix('/').unwrap_or(name);
    let exact = |c: &ContainerInfo| c.id == name || c.name == called;
    let matching = match containers.iter().any(exact) {
        true => containers.into_iter().filter(exact).collect::<Vec<_>>(),
        false => containers.into_iter().filter(|c| c.id.starts_with(name)).collect(),
    };
    let mut matching = matching.into_iter();
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(Error::invalid(format!("multiple containers have an id that begins with {name}")).into())
        }
        (None, _) => Err(Error::new(ErrorKind::NotFound, format!("No such container: {name}")).into()),
    }
}

pub(super) async fn inspect(State(app): Shared, Path(id): Path<String>) -> Answer {
    let container = find(app.backend.containers().await?, &id)?;
    let mut shown = running::inspect(&container);
    let programs = app.execs.running(&container.id);
    shown.exec_ids = (!programs.is_empty()).then_some(programs);
    Ok(Json::ok(shown).into_response())
}

pub(super) async fn remove(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let container = find(app.backend.containers().await?, &id)?;
    if matches!(container.state, ContainerState::Running { .. }) && !params.flag("force") {
        let message = format!(
            "cannot remove container \"/{}\": container is running: force its removal (its task is replaced), or scale the service",
            container.name
        );
        return Err(Error::new(ErrorKind::Conflict, message).into());
    }
    app.backend.container_remove(&container.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn logs(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let options = params.logs()?;
    let container = find(app.backend.containers().await?, &id)?;
    // Which task it is stands in the labels; a line of a container says nothing more about itself.
    let asked = logs::Asked { details: false, ..params_of(&params) };
    let shape = logs::Shape::of(&asked, container.spec.tty);
    let lines = app.backend.container_logs(&container.id, options).await?;
    Ok(logs::response(lines, shape, app.closed()))
}
