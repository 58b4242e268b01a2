//! What is not here: endpoints of Docker's that this version of skep answers with a sentence, and lists of things that cannot
//! exist here, which are empty.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::routing::{any, get, post};
use serde_json::Value;

use super::App;
use super::answer::{Json, Refusal};
use crate::error::{Error, ErrorKind};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/plugins", get(async || Json::ok(Value::Array(Vec::new()))))
        .route("/plugins/{*rest}", any(no_plugin))
        .route(
            "/containers/create",
            post(async || not_yet("containers are made for services: use docker service create")),
        )
        .route("/containers/prune", post(async || not_yet("containers go with their tasks; there is nothing to prune")))
        .route("/containers/{id}/{verb}", any(async |Path((_, verb)): Path<(String, String)>| of_container(&verb)))
        .route("/containers/{id}/attach/ws", get(async || of_container("attach")))
        .route("/networks/{id}/{verb}", post(async || not_yet("tasks are attached to networks by their services")))
        .route("/build", post(async || not_yet("skep builds no images: build elsewhere, push to a registry and pull")))
        .route("/build/{*rest}", any(async || not_yet("skep builds no images: build elsewhere and use docker load")))
        .route("/commit", post(async || not_yet("skep makes no images")))
        .route("/session", post(async || not_yet("skep builds no images: build elsewhere and use docker load")))
}

fn not_yet(what: &str) -> Refusal {
    Error::unimplemented(format!("not in this version of skep: {what}")).into()
}

/// What cannot be done with the container of a task.
fn of_container(verb: &str) -> Refusal {
    not_yet(match verb {
        "attach" => "there is no attaching to a container's own program: use docker logs, or docker exec",
        "start" | "restart" | "pause" | "unpause" => {
            "containers are the swarm's to start: stop or remove one, and its task is replaced, or update its service"
        }
        "rename" | "update" => "containers are as their service says: use docker service update",
        _ => "this cannot be asked of a container yet",
    })
}

async fn no_plugin(Path(rest): Path<String>) -> Refusal {
    let name = rest.strip_suffix("/json").unwrap_or(&rest);
    Error::new(ErrorKind::NotFound, format!("plugin {name:?} not found")).into()
}
