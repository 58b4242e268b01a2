//! The flows that somebody asks for.

use std::collections::BTreeMap;

use skep_mesh::{Desired, Flow};
use skep_model::seen::{FlowFilter, FlowList, FlowRole, FlowState, SeenFlow, SeenNode, SeenService};
use skep_model::{EndpointKey, TaskId};

use super::report;

/// Who a task is.
struct Whose {
    service: Option<SeenService>,
    node: SeenNode,
}

/// Those of `flows` that `filter` asks for.
pub(super) fn select(desired: &Desired, flows: Vec<Flow>, filter: &FlowFilter) -> FlowList {
    let tasks = whose(desired);
    let known = flows.len() as u64;
    let mut wanted: Vec<_> = flows.into_iter().filter(|flow| is_wanted(flow, &tasks, filter)).collect();
    wanted.sort_by_key(|flow| (flow.idle, flow.client));
    let matched = wanted.len() as u64;
    wanted.truncate(filter.limit);
    FlowList { known, matched, flows: wanted.into_iter().map(|flow| seen(flow, &tasks)).collect() }
}

fn whose(desired: &Desired) -> BTreeMap<TaskId, Whose> {
    let nodes = report::nodes(desired);
    let names: BTreeMap<_, _> = desired.services.iter().map(|s| (&s.id, &s.name)).collect();
    let of = |endpoint: &skep_mesh::LocatedEndpoint| {
        let EndpointKey { task, .. } = &endpoint.key;
        let id = &endpoint.record.service;
        let service = names.get(id).map(|name| SeenService { id: id.clone(), name: (*name).clone() });
        (task.clone(), Whose { service, node: report::node(&nodes, &endpoint.owner) })
    };
    desired.endpoints.iter().map(of).collect()
}

fn is_wanted(flow: &Flow, tasks: &BTreeMap<TaskId, Whose>, filter: &FlowFilter) -> bool {
    let task = flow.task.as_ref();
    let service = task.and_then(|t| tasks.get(t)).and_then(|w| w.service.as_ref());
    filter.port.is_none_or(|port| flow.asked.port() == port)
        && filter.protocol.is_none_or(|protocol| flow.protocol == protocol)
        && filter.client.is_none_or(|net| net.contains(&flow.client.ip()))
        && filter.client_port.is_none_or(|port| flow.client.port() == port)
        && filter.state.is_none_or(|wanted| state(flow) == wanted)
        && filter.task.as_ref().is_none_or(|wanted| task.is_some_and(|t| t.as_str().starts_with(wanted)))
        && filter
            .service
            .as_ref()
            .is_none_or(|wanted| service.is_some_and(|s| s.name == *wanted || s.id.as_str().starts_with(wanted)))
}

fn state(flow: &Flow) -> FlowState {
    match flow.state {
        skep_mesh::FlowState::Opening => FlowState::Opening,
        skep_mesh::FlowState::Open => FlowState::Open,
        skep_mesh::FlowState::Closing => FlowState::Closing,
        skep_mesh::FlowState::Closed => FlowState::Closed,
    }
}

fn seen(flow: Flow, tasks: &BTreeMap<TaskId, Whose>) -> SeenFlow {
    let whose = flow.task.as_ref().and_then(|task| tasks.get(task));
    SeenFlow {
        protocol: flow.protocol,
        client: flow.client,
        asked: flow.asked,
        service: whose.and_then(|w| w.service.clone()),
        node: whose.map(|w| w.node.clone()),
        role: match flow.role {
            skep_mesh::FlowRole::Asked => FlowRole::Asked,
            skep_mesh::FlowRole::Served => FlowRole::Served,
        },
        state: state(&flow),
        idle: flow.idle,
        task: flow.task,
    }
}
