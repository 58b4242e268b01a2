//! `/_ping`, `/version`, `/info`, `/events`, `/system/df`

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use skep_model::Timestamp;

use super::answer::{Answer, Json};
use super::params::Params;
use super::{App, NEWEST, OLDEST, Shared};
use crate::backend::node::SwarmState;
use crate::backend::volume::Sizes;
use crate::stream::events as stream;
use crate::translate::{image, info as translate, running, volume};
use crate::types::system::DiskUsage;

fn ping_headers(app: &App) -> HeaderMap {
    let swarm = match app.backend.swarm_state() {
        SwarmState::Inactive => "inactive",
        SwarmState::Pending => "pending",
        SwarmState::Worker => "active/worker",
        SwarmState::Manager => "active/manager",
        SwarmState::Error => "error",
        SwarmState::Locked => "locked",
    };
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set("cache-control", "no-cache, no-store, must-revalidate");
    set("pragma", "no-cache");
    set("content-type", "text/plain; charset=utf-8");
    // The builder that a client should expect; skep builds nothing, and "2" keeps clients from asking for the old one.
    set("builder-version", "2");
    set("swarm", swarm);
    headers
}

pub(super) async fn ping(State(app): Shared) -> Response {
    (ping_headers(&app), "OK").into_response()
}

pub(super) async fn ping_head(State(app): Shared) -> Response {
    (ping_headers(&app), [(header::CONTENT_LENGTH, "0")]).into_response()
}

pub(super) async fn version(State(app): Shared) -> Answer {
    let node = app.backend.info().await?;
    Ok(Json::ok(translate::version(&node, NEWEST, OLDEST)).into_response())
}

pub(super) async fn info(State(app): Shared) -> Answer {
    let mut node = app.backend.info().await?;
    let state = app.backend.swarm_state();
    let containers = app.backend.containers().await?;
    let images = app.backend.images().await?;
    let mut view = None;
    if state == SwarmState::Manager {
        match app.backend.cluster().await {
            Ok(seen) => view = Some(seen),
            // Without a leader the node still has much to say about itself.
            Err(error) if node.swarm.error.is_empty() => node.swarm.error = error.message,
            Err(_) => {}
        }
    }
    let counts = translate::Counts::of(&containers, images.len(), app.events.listeners());
    Ok(Json::ok(translate::info(&node, state, counts, view.as_deref())).into_response())
}

pub(super) async fn events(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&stream::FILTERS)?;
    let (since, until) = (params.time("since")?, params.time("until")?);
    Ok(stream::response(&app.events, filters, stream::Span { since, until }, app.closed()))
}

pub(super) async fn disk_usage(State(app): Shared) -> Answer {
    let containers = app.backend.containers().await?;
    let images = app.backend.images().await?;
    let volumes = app.backend.volumes(Sizes::Measured).await?;
    let users = |id: &str| {
        let count = containers.iter().filter(|c| c.image_id == id).count();
        i64::try_from(count).unwrap_or(i64::MAX)
    };
    let images: Vec<_> = images
        .iter()
        .map(|i| {
            let mut summary = image::summary(i, users(&i.id));
            // Layers that images share are counted with each of them.
            summary.shared_size = 0;
            summary
        })
        .collect();
    let now = Timestamp::now();
    Ok(Json::ok(DiskUsage {
        layers_size: images.iter().map(|i| i.size).sum(),
        images,
        containers: containers.iter().map(|c| running::summary(c, now)).collect(),
        volumes: volumes.iter().map(volume::measured).collect(),
        build_cache: Vec::new(),
    })
    .into_response())
}
