//! `/tasks`

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use skep_model::Task;

use super::Shared;
use super::answer::{Answer, Json, Refusal};
use super::filters::Filters;
use super::params::Params;
use super::resolve;
use super::services::params_of;
use crate::backend::cluster::ClusterView;
use crate::backend::log::LogSource;
use crate::stream::logs;
use crate::translate::task::to_wire;

const FILTERS: [&str; 8] = ["_up-to-date", "desired-state", "id", "label", "name", "node", "runtime", "service"];
const DESIRED: [&str; 3] = ["running", "shutdown", "accepted"];

/// A filter on services or nodes, turned from names and beginnings of ids into ids.
struct Wanted(Option<Vec<String>>);

impl Wanted {
    fn new<'a>(filters: &'a Filters, name: &str, id: impl Fn(&'a str) -> Option<String>) -> Self {
        let mut given = filters.values(name).peekable();
        if given.peek().is_none() {
            return Self(None);
        }
        Self(Some(given.map(|text| id(text).unwrap_or_else(|| text.to_owned())).collect()))
    }

    fn has(&self, id: Option<&str>) -> bool {
        self.0.as_ref().is_none_or(|ids| id.is_some_and(|id| ids.iter().any(|i| i == id)))
    }
}

/// Whether the task is of its service's current spec: what the progress display of the docker CLI waits for.
fn up_to_date(view: &ClusterView, task: &Task) -> bool {
    view.services.get(&task.service).is_some_and(|s| s.task_version == task.service_version)
}

pub(super) async fn list(State(app): Shared, params: Params) -> Answer {
    let filters = params.filters(&FILTERS)?;
    filters.words("desired-state", &DESIRED)?;
    let current = filters.flag("_up-to-date")?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let own = match filters.values("node").any(|n| n == "self") {
        true => app.backend.info().await?.swarm.node.map(|n| n.to_string()),
        false => None,
    };
    let services = Wanted::new(&filters, "service", |n| resolve::service(&view, n).ok().map(|s| s.id.to_string()));
    let nodes = Wanted::new(&filters, "node", |n| match n {
        "self" => own.clone(),
        name => resolve::node(&view, name).ok().map(|n| n.id.to_string()),
    });
    let shown = view.tasks.values().filter(|t| {
        let name = format!("{}.{}", t.display_name(), t.id);
        services.has(Some(t.service.as_str()))
            && nodes.has(t.node.as_ref().map(skep_model::NodeId::as_str))
            && filters.begins("id", t.id.as_str())
            && filters.begins("name", &name)
            && filters.is("desired-state", t.desired.as_str())
            && filters.is("runtime", "container")
            && filters.labels("label", &t.spec.container.labels)
            && current.is_none_or(|wanted| wanted == up_to_date(&view, t))
    });
    let tasks: Vec<_> = shown.map(|t| to_wire(t, &view)).collect();
    Ok(Json::ok(tasks).into_response())
}

pub(super) async fn inspect(State(app): Shared, Path(id): Path<String>) -> Answer {
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let task = resolve::task(&view, &id)?;
    Ok(Json::ok(to_wire(task, &view)).into_response())
}

pub(super) async fn logs(State(app): Shared, Path(id): Path<String>, params: Params) -> Answer {
    let options = params.logs()?;
    let view = app.backend.cluster().await.map_err(Refusal::of_cluster)?;
    let task = resolve::task(&view, &id)?;
    let shape = logs::Shape::of(&params_of(&params), task.spec.container.tty);
    let lines = app.backend.task_logs(LogSource::Task(task.id.clone()), options).await.map_err(Refusal::of_cluster)?;
    Ok(logs::response(lines, shape, app.closed()))
}
