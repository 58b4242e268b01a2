//! Which nodes a task may run on.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use skep_model::{
    Availability, Constraint, GenericResources, Node, NodeResources, NodeState, Platform, Protocol,
    ResourceReservations, ServiceId, SpreadOver, Task,
};

use super::load::Load;

/// What keeps a task from a node. In the order in which it is looked for: the first that applies is the one that is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    NotReady,
    Resources,
    Constraints,
    Platform,
    HostPort,
    MaxReplicas,
}

impl Misfit {
    fn explain(self, count: usize) -> String {
        let nodes = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
        match self {
            Self::NotReady => format!("{nodes} not available for new tasks"),
            Self::Resources => format!("insufficient resources on {nodes}"),
            Self::Constraints => format!("scheduling constraints not satisfied on {nodes}"),
            Self::Platform => format!("unsupported platform on {nodes}"),
            Self::HostPort => format!("host-mode port already in use on {nodes}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// Why no node fits, the commonest reason first.
pub(super) fn explain(misfits: &BTreeMap<Misfit, usize>) -> String {
    if misfits.is_empty() {
        return "no suitable node".to_owned();
    }
    let mut reasons: Vec<_> = misfits.iter().collect();
    reasons.sort_by_key(|(_, count)| Reverse(**count));
    let reasons: Vec<_> = reasons.into_iter().map(|(misfit, count)| misfit.explain(*count)).collect();
    format!("no suitable node ({})", reasons.join("; "))
}

/// What a task asks of a node.
pub(super) struct Needs {
    service: ServiceId,
    reservations: ResourceReservations,
    /// `None` when one of them cannot be read: nothing meets it then.
    constraints: Option<Vec<Constraint>>,
    platforms: Vec<Platform>,
    host_ports: Vec<(Protocol, u16)>,
    max_replicas: u64,
    pub(super) preferences: Vec<SpreadOver>,
}

impl Needs {
    pub(super) fn of(task: &Task) -> Self {
        let placement = &task.spec.placement;
        Self {
            service: task.service.clone(),
            reservations: task.spec.resources.reservations.clone(),
            constraints: constraints(task),
            platforms: placement.platforms.clone(),
            host_ports: host_ports(task).collect(),
            max_replicas: placement.max_replicas,
            preferences: placement.preferences.clone(),
        }
    }

    /// What keeps the task from `node`, which carries `load` already.
    pub(super) fn misfit(&self, node: &Node, load: &Load) -> Option<Misfit> {
        let ready = node.status.state == NodeState::Ready && node.spec.availability == Availability::Active;
        let replicas = load.of_service(&self.service);
        let checks = [
            (Misfit::NotReady, ready),
            (Misfit::Resources, self.has_resources(node, load)),
            (Misfit::Constraints, self.constraints.as_ref().is_some_and(|all| all.iter().all(|c| c.matches(node)))),
            (Misfit::Platform, self.runs_on(node)),
            (Misfit::HostPort, !self.host_ports.iter().any(|port| load.host_ports.contains(port))),
            (Misfit::MaxReplicas, self.max_replicas == 0 || replicas < self.max_replicas),
        ];
        checks.into_iter().find(|(_, fits)| !fits).map(|(misfit, _)| misfit)
    }

    fn has_resources(&self, node: &Node, load: &Load) -> bool {
        let none = NodeResources::default();
        let has = node.description.as_ref().map_or(&none, |d| &d.resources);
        let wants = &self.reservations;
        let fits = |wanted: u64, has: u64, used: u64| wanted == 0 || wanted.saturating_add(used) <= has;
        fits(wants.nano_cpus, has.nano_cpus, load.nano_cpus)
            && fits(wants.memory, has.memory, load.memory)
            && self.give(node, load).is_some()
    }

    /// The generic resources that the task gets on `node`, which carries `load` already; `None` when there are too few.
    pub(super) fn give(&self, node: &Node, load: &Load) -> Option<GenericResources> {
        let none = GenericResources::default();
        let has = node.description.as_ref().map_or(&none, |d| &d.resources.generic);
        load.generic.give(has, &self.reservations.generic)
    }

    fn runs_on(&self, node: &Node) -> bool {
        let Some(own) = node.description.as_ref().map(|d| &d.platform) else { return true };
        let same = |wanted: &str, own: &str| wanted.is_empty() || architecture(wanted) == architecture(own);
        self.platforms.is_empty()
            || self.platforms.iter().any(|p| {
                same(&p.architecture, &own.architecture) && (p.os.is_empty() || p.os.eq_ignore_ascii_case(&own.os))
            })
    }
}

/// The kernel and Go have different words for the same processors.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The constraints of a task; `None` when one of them cannot be read.
pub(super) fn constraints(task: &Task) -> Option<Vec<Constraint>> {
    task.spec.placement.constraints.iter().map(|text| text.parse().ok()).collect()
}

/// The ports of the node that a task needs for itself.
pub(super) fn host_ports(task: &Task) -> impl Iterator<Item = (Protocol, u16)> + '_ {
    task.host_ports.iter().filter_map(|port| Some((port.protocol, port.published?.get())))
}
