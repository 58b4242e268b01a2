//! What containers of this node use: `/containers/{id}/stats` and `/containers/{id}/top`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use futures::stream;
use skep_model::Timestamp;
use tokio::time::{MissedTickBehavior, interval};

use super::answer::{Answer, Json};
use super::params::Params;
use super::{App, Shared, containers};
use crate::backend::container::{ContainerInfo, ContainerState};
use crate::error::{Error, ErrorKind};
use crate::stream::{chunked, line};
use crate::translate::usage::{self, Moment, Sample};

/// How often what a container uses is told.
const PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn top(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let container = containers::find(app.backend.containers().await?, &id)?;
    if !matches!(container.state, ContainerState::Running { .. }) {
        let message = format!("container {} is not running", container.id);
        return Err(Error::new(ErrorKind::Conflict, message).into());
    }
    let processes = app.backend.container_processes(&container.id).await?;
    let moment = Moment { now: Timestamp::now(), memory: app.backend.info().await?.memory };
    Ok(Json::ok(usage::top(&processes, params.text("ps_args"), moment)?).into_response())
}

async fn sample(app: &App, container: &ContainerInfo) -> Result<Sample, Error> {
    let usage = app.backend.container_usage(&container.id).await?;
    Ok(Sample { at: Timestamp::now(), usage })
}

pub(super) async fn stats(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let container = containers::find(app.backend.containers().await?, &id)?;
    if params.text("stream").is_empty() || params.flag("stream") {
        return Ok(follow(app, container));
    }
    let mut before = None;
    if !params.flag("one-shot") {
        // What it uses of the processors shows between two looks only.
        before = Some(sample(&app, &container).await?);
        tokio::time::sleep(PERIOD).await;
    }
    let now = sample(&app, &container).await?;
    Ok(Json::ok(usage::stats(&container, &now, before.as_ref())).into_response())
}

/// A line each second, for as long as the container is there.
fn follow(app: Arc<App>, container: ContainerInfo) -> Response {
    let closed = app.closed();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let lines = stream::unfold((app, container, ticks, None), |(app, container, mut ticks, before)| async move {
        ticks.tick().await;
        let now = sample(&app, &container).await.ok()?;
        let told = line(&usage::stats(&container, &now, before.as_ref()));
        Some((told, (app, container, ticks, Some(now))))
    });
    chunked("application/json", futures::StreamExt::take_until(lines, Box::pin(closed)))
}
