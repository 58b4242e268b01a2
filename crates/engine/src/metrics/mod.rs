//! `GET /metrics`: what Prometheus scrapes. [`page`] is a pure function of what the backend says at that moment; there is no state of its
//! own, so counters are the kernel's, and go on where they were when the daemon is replaced.
//!
//! Series are bounded by what is published: a constant number per node, and some per published port, per task behind one, and per task
//! of the node.

mod mesh;
mod text;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use skep_model::seen::MeshReport;

use self::text::{Kind, Page};
use crate::backend::Backend;
use crate::backend::node::ProcessInfo;
use crate::error::ErrorKind;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is served at a metrics address.
pub(crate) fn router(backend: Arc<dyn Backend>) -> Router {
    Router::new().route("/metrics", get(scrape)).fallback(elsewhere).with_state(backend)
}

async fn elsewhere() -> Response {
    (StatusCode::NOT_FOUND, "metrics are at /metrics\n").into_response()
}

async fn scrape(State(backend): State<Arc<dyn Backend>>) -> Response {
    let mesh = match backend.mesh().await {
        Ok(mesh) => Some(mesh),
        // A node in no swarm, or in none yet, has a process all the same.
        Err(error) if error.kind == ErrorKind::Unavailable => None,
        Err(error) => return (StatusCode::INTERNAL_SERVER_ERROR, error.message + "\n").into_response(),
    };
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], page(&backend.process(), mesh.as_ref())).into_response()
}

/// The page. Without a mesh its families are not there.
#[must_use]
pub fn page(process: &ProcessInfo, mesh: Option<&MeshReport>) -> String {
    let mut page = Page::default();
    page.family("skep_build_info", Kind::Gauge, "Always 1; the version is in the label.")
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("process_resident_memory_bytes", Kind::Gauge, "Memory of the daemon, without its tasks' shims.")
        .sample(&[], process.resident_bytes);
    page.family("process_cpu_seconds_total", Kind::Counter, "Processor time of the daemon.")
        .sample(&[], process.cpu.as_secs_f64());
    page.family("process_open_fds", Kind::Gauge, "Files that the daemon has open.").sample(&[], process.open_files);
    page.family("process_start_time_seconds", Kind::Gauge, "When the daemon started, in seconds since 1970.")
        .sample(&[], process.started.as_second());
    page.family("skep_mesh_up", Kind::Gauge, "Whether this node is in a swarm and its mesh is up.")
        .sample(&[], u8::from(mesh.is_some()));
    if let Some(mesh) = mesh {
        mesh::write(&mut page, mesh);
    }
    page.finish()
}
