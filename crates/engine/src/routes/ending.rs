//! How containers of this node end: by a signal, by being stopped, and who waits for it. Their tasks have ended then, and the swarm replaces
//! them where it should.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use futures::StreamExt;
use futures::stream;

use super::answer::{Answer, Refusal};
use super::params::Params;
use super::{Shared, containers};
use crate::backend::container::{ContainerInfo, ContainerState};
use crate::error::{Error, ErrorKind};
use crate::types::container::WaitResponse;

/// What is sent when no signal is named.
const KILL: &str = "SIGKILL";

fn runs(container: &ContainerInfo) -> bool {
    matches!(container.state, ContainerState::Running { .. })
}

fn not_running(container: &ContainerInfo) -> Refusal {
    let message = format!("cannot kill container: {}: container {} is not running", container.name, container.id);
    Error::new(ErrorKind::Conflict, message).into()
}

pub(super) async fn kill(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let container = containers::find(app.backend.containers().await?, &id)?;
    if !runs(&container) {
        return Err(not_running(&container));
    }
    let signal = Some(params.text("signal")).filter(|signal| !signal.is_empty()).unwrap_or(KILL);
    app.backend.container_signal(&container.id, signal).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn stop(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let container = containers::find(app.backend.containers().await?, &id)?;
    if !runs(&container) {
        return Ok(StatusCode::NOT_MODIFIED.into_response());
    }
    let grace = match params.text("t") {
        "" => None,
        // Less than nothing is for ever.
        text => match text.parse::<i64>() {
            Ok(seconds) => Some(u64::try_from(seconds).map_or(Duration::MAX, Duration::from_secs)),
            Err(_) => return Err(Error::invalid(format!("t: {text:?} is no number of seconds")).into()),
        },
    };
    app.backend.container_stop(&container.id, grace).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn wait(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let container = containers::find(app.backend.containers().await?, &id)?;
    match params.text("condition") {
        // A task's container runs once: its next end is its only one.
        "" | "not-running" | "next-exit" | "removed" => {}
        other => return Err(Error::invalid(format!("invalid condition: {other:?}")).into()),
    }
    let closed = app.closed();
    // The head of the answer goes at once: that is how clients know that they wait.
    let end = async move {
        let code = app.backend.container_wait(&container.id).await;
        let response = match code {
            Ok(code) => WaitResponse { status_code: code.map_or(-1, i64::from), error: None },
            Err(error) => WaitResponse { status_code: -1, error: Some(error.message.into()) },
        };
        crate::stream::line(&response)
    };
    Ok(crate::stream::chunked("application/json", stream::once(end).boxed().take_until(Box::pin(closed))))
}
