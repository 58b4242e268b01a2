//! Which of the nodes that fit comes first.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use skep_model::{Node, NodeId, ServiceId, SpreadOver};

use super::load::Loads;

/// Fewest tasks of the service, then fewest tasks, then chance; less is better.
type Rank = (u64, u64, u64);

/// Nodes that fit, by the values of the properties to spread over. Within a branch a heap whose ranks are checked when they come up,
/// because only this service's tasks are placed meanwhile.
pub(super) struct Spread {
    service: ServiceId,
    branches: BTreeMap<Vec<String>, BinaryHeap<Reverse<(Rank, NodeId)>>>,
    nodes: BTreeMap<NodeId, (Vec<String>, Arc<Node>)>,
    seed: u64,
    /// Tasks of the service below each prefix of a branch, on the nodes that fit.
    counts: BTreeMap<Vec<String>, u64>,
    /// The node that was offered last, until it is clear what became of it.
    offered: Option<NodeId>,
}

impl Spread {
    pub(super) fn new(
        preferences: &[SpreadOver],
        service: &ServiceId,
        nodes: Vec<Arc<Node>>,
        loads: &Loads,
        seed: u64,
    ) -> Self {
        let mut spread = Self {
            service: service.clone(),
            branches: BTreeMap::new(),
            nodes: BTreeMap::new(),
            seed,
            counts: BTreeMap::new(),
            offered: None,
        };
        for node in nodes {
            let branch: Vec<_> = preferences.iter().map(|preference| property(&node, preference)).collect();
            let rank = spread.rank(&node.id, loads);
            for depth in 1..=branch.len() {
                *spread.counts.entry(branch[..depth].to_vec()).or_default() += rank.0;
            }
            spread.branches.entry(branch.clone()).or_default().push(Reverse((rank, node.id.clone())));
            spread.nodes.insert(node.id.clone(), (branch, node));
        }
        spread
    }

    fn rank(&self, node: &NodeId, loads: &Loads) -> Rank {
        let load = loads.get(node);
        let mut chance = DefaultHasher::new();
        (self.seed, node).hash(&mut chance);
        (load.of_service(&self.service), load.tasks, chance.finish())
    }

    /// The best node now. Calling it again says that the one before was taken, unless it was excluded.
    pub(super) fn best(&mut self, loads: &Loads) -> Option<Arc<Node>> {
        self.put_back(loads);
        let key = |branch: &Vec<String>| -> Vec<u64> {
            (1..=branch.len()).map(|depth| self.counts.get(&branch[..depth]).copied().unwrap_or_default()).collect()
        };
        let ranked = self.branches.iter().filter_map(|(branch, heap)| Some((key(branch), heap.peek()?.0.0, branch)));
        let branch = ranked.min().map(|(_, _, branch)| branch.clone())?;
        let Reverse((_, id)) = self.branches.get_mut(&branch)?.pop()?;
        self.offered = Some(id.clone());
        self.nodes.get(&id).map(|(_, node)| node.clone())
    }

    fn put_back(&mut self, loads: &Loads) {
        let Some(taken) = self.offered.take() else { return };
        let rank = self.rank(&taken, loads);
        let Some((branch, _)) = self.nodes.get(&taken) else { return };
        for depth in 1..=branch.len() {
            *self.counts.entry(branch[..depth].to_vec()).or_default() += 1;
        }
        if let Some(heap) = self.branches.get_mut(branch) {
            heap.push(Reverse((rank, taken)));
        }
    }

    /// Takes a node that turned out not to fit out of the running.
    pub(super) fn exclude(&mut self, node: &NodeId) {
        if self.offered.as_ref() == Some(node) {
            self.offered = None;
        }
    }
}

/// A node without the property is in the branch of those without.
fn property(node: &Node, over: &SpreadOver) -> String {
    let description = node.description.as_ref();
    let value = if let Some(label) = over.0.strip_prefix("node.labels.") {
        node.spec.labels.get(label).cloned()
    } else if let Some(label) = over.0.strip_prefix("engine.labels.") {
        description.and_then(|d| d.engine.labels.get(label).cloned())
    } else {
        match over.0.as_str() {
            "node.id" => Some(node.id.to_string()),
            "node.hostname" => description.map(|d| d.hostname.clone()),
            "node.platform.os" => description.map(|d| d.platform.os.clone()),
            "node.platform.arch" => description.map(|d| d.platform.architecture.clone()),
            _ => None,
        }
    };
    value.unwrap_or_default()
}
