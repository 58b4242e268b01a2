//! Which request goes where.
//!
//! [`entry`] is the whole API: it takes the version off the path, refuses versions that are not served, passes the rest to the
//! table of endpoints, and puts the headers on the answer that clients negotiate by.

pub(crate) mod answer;
mod containers;
mod data;
mod elsewhere;
mod ending;
mod exec;
pub(crate) mod filters;
pub(crate) mod forward;
mod images;
mod mesh;
mod networks;
mod nodes;
mod params;
mod pin;
mod registry;
mod resolve;
mod services;
mod swarm;
mod system;
mod tasks;
mod usage;
mod version;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::sync::watch;
use tower::ServiceExt;

use crate::backend::Backend;
use crate::events::EventLog;
use crate::execs::Execs;
use answer::Refusal;
pub use version::{NEWEST, OLDEST};

/// What every endpoint has at hand.
pub(crate) struct App {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) events: EventLog,
    pub(crate) execs: Execs,
    closing: watch::Receiver<bool>,
}

impl App {
    pub(crate) fn new(backend: Arc<dyn Backend>, events: EventLog, closing: watch::Receiver<bool>) -> Arc<Self> {
        Arc::new(Self { backend, events, execs: Execs::default(), closing })
    }

    /// Completes when the server stops: endless streams end then.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closing = self.closing.clone();
        async move {
            // An error means that the server is gone, which is the same.
            let _ = closing.wait_for(|closing| *closing).await;
        }
    }
}

/// The application as endpoints take it.
type Shared = State<Arc<App>>;

/// The whole API.
pub(crate) fn entry(app: Arc<App>) -> Router {
    let endpoints = endpoints(&app).with_state(app);
    Router::new().fallback(move |request: Request| negotiate(endpoints.clone(), request))
}

async fn negotiate(endpoints: Router, mut request: Request) -> Response {
    let mut response = match version::split(request.uri().path()) {
        Err(refusal) => refusal.into_response(),
        Ok((version, rest)) => match with_path(request.uri(), rest) {
            None => Refusal::page_not_found().into_response(),
            Some(uri) => {
                let archive = matches!(uri.path(), "/images/load" | "/images/create" | "/build");
                *request.uri_mut() = uri;
                request.extensions_mut().insert(version);
                if !archive {
                    request = match whole(request).await {
                        Ok(request) => request,
                        Err(refusal) => return refusal.into_response(),
                    };
                }
                match endpoints.oneshot(request).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                }
            }
        },
    };
    let headers = response.headers_mut();
    headers.insert("Api-Version", HeaderValue::from_static(NEWEST));
    headers.insert("Docker-Experimental", HeaderValue::from_static("false"));
    headers.insert("Ostype", HeaderValue::from_static("linux"));
    headers.insert("Server", HeaderValue::from_static(concat!("skep/", env!("CARGO_PKG_VERSION"), " (linux)")));
    response
}

/// Reads the body first, archives apart: whoever is refused while still sending may see a broken connection instead of the
/// refusal.
async fn whole(request: Request) -> Result<Request, Refusal> {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, params::LARGEST)
        .await
        .map_err(|e| Refusal::new(axum::http::StatusCode::BAD_REQUEST, format!("cannot read the request: {e}")))?;
    Ok(Request::from_parts(parts, bytes.into()))
}

fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    match uri.query() {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

/// The table of endpoints.
fn endpoints(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .merge(of_the_swarm().route_layer(from_fn_with_state(app.clone(), forward::to_leader)))
        .merge(
            of_one_network()
                .route_layer(from_fn_with_state(app.clone(), forward::to_leader))
                .route_layer(from_fn_with_state(app.clone(), networks::own_containers)),
        )
        .merge(of_membership())
        .merge(of_the_node())
        .merge(of_skep())
        .merge(elsewhere::routes())
        .fallback(async || Refusal::page_not_found())
        .method_not_allowed_fallback(async || Refusal::page_not_found())
}

/// What a node is to a swarm, it says itself.
fn of_membership() -> Router<Arc<App>> {
    Router::new()
        .route("/swarm/init", post(swarm::init))
        .route("/swarm/join", post(swarm::join))
        .route("/swarm/leave", post(swarm::leave))
        .route("/swarm/unlock", post(swarm::unlock))
}

/// What the leader answers, whichever manager is asked.
fn of_the_swarm() -> Router<Arc<App>> {
    Router::new()
        .route("/swarm", get(swarm::inspect))
        .route("/swarm/update", post(swarm::update))
        .route("/swarm/unlockkey", get(swarm::unlock_key))
        .route("/nodes", get(nodes::list))
        .route("/nodes/{id}", get(nodes::inspect).delete(nodes::remove))
        .route("/nodes/{id}/update", post(nodes::update))
        .route("/services", get(services::list))
        .route("/services/create", post(services::create))
        .route("/services/{id}", get(services::inspect).delete(services::remove))
        .route("/services/{id}/update", post(services::update))
        .route("/services/{id}/logs", get(services::logs))
        .route("/tasks", get(tasks::list))
        .route("/tasks/{id}", get(tasks::inspect))
        .route("/tasks/{id}/logs", get(tasks::logs))
        .route("/secrets", get(data::secrets))
        .route("/secrets/create", post(data::create_secret))
        .route("/secrets/{id}", get(data::secret).delete(data::remove_secret))
        .route("/secrets/{id}/update", post(data::update_secret))
        .route("/configs", get(data::configs))
        .route("/configs/create", post(data::create_config))
        .route("/configs/{id}", get(data::config).delete(data::remove_config))
        .route("/configs/{id}/update", post(data::update_config))
        .route("/networks", get(networks::list))
        .route("/networks/create", post(networks::create))
        .route("/networks/prune", post(networks::prune))
}

/// What the leader answers, with the containers of the manager that is asked.
fn of_one_network() -> Router<Arc<App>> {
    Router::new().route("/networks/{id}", get(networks::inspect).delete(networks::remove))
}

fn of_the_node() -> Router<Arc<App>> {
    Router::new()
        .route("/_ping", get(system::ping).head(system::ping_head))
        .route("/version", get(system::version))
        .route("/info", get(system::info))
        .route("/events", get(system::events))
        .route("/system/df", get(system::disk_usage))
        .route("/images/json", get(images::list))
        .route("/images/load", post(images::load))
        .route("/images/create", post(images::create))
        .route("/images/prune", post(images::prune))
        .route("/auth", post(registry::login))
        .route("/distribution/{*rest}", get(registry::distribution))
        .route("/images/{*rest}", get(images::get).post(images::post).merge(delete(images::remove)))
        .route("/volumes", get(volumes::list))
        .route("/volumes/create", post(volumes::create))
        .route("/volumes/prune", post(volumes::prune))
        .route("/volumes/{name}", get(volumes::inspect).delete(volumes::remove))
        .route("/containers/json", get(containers::list))
        .route("/containers/{id}", delete(containers::remove))
        .route("/containers/{id}/json", get(containers::inspect))
        .route("/containers/{id}/logs", get(containers::logs))
        .route("/containers/{id}/stats", get(usage::stats))
        .route("/containers/{id}/top", get(usage::top))
        .route("/containers/{id}/exec", post(exec::create))
        .route("/containers/{id}/kill", post(ending::kill))
        .route("/containers/{id}/stop", post(ending::stop))
        .route("/containers/{id}/wait", post(ending::wait))
        .route("/exec/{id}/start", post(exec::start))
        .route("/exec/{id}/resize", post(exec::resize))
        .route("/exec/{id}/json", get(exec::inspect))
}

/// What Docker does not have. The number is skep's own, whatever version of Docker's API is in front of it.
fn of_skep() -> Router<Arc<App>> {
    Router::new()
        .route("/skep/v1/mesh", get(mesh::report))
        .route("/skep/v1/mesh/flows", get(mesh::flows))
        .route("/skep/v1/mesh/trace", get(mesh::trace))
}
