//! Chooses nodes for tasks. Pure: the same draft and seed give the same choice.
//!
//! Tasks of one service and version want the same of a node, so they are placed together: the nodes are looked through once, and each
//! task then takes the best one that is left.

mod filter;
mod generic;
mod load;
mod spread;

use std::collections::BTreeMap;
use std::sync::Arc;

use skep_model::{GenericResources, Node, NodeId, ServiceId, Task, TaskState, Version};

use self::filter::{Misfit, Needs};
use self::load::Loads;
use self::spread::Spread;
use crate::draft::Draft;

/// What tasks that go together have in common: service and version, and the node for tasks of global services.
type Group = (ServiceId, Version, Option<NodeId>);

/// Gives a node to every task that waits for one, or says why none fits.
pub(crate) fn schedule(draft: &mut Draft<'_>) {
    let mut groups: BTreeMap<Group, Vec<Arc<Task>>> = BTreeMap::new();
    for task in draft.all_tasks().filter(|task| waits(task)) {
        let group = (task.service.clone(), task.service_version, task.node.clone());
        groups.entry(group).or_default().push(task.clone());
    }
    if groups.is_empty() {
        return;
    }
    let seed = draft.random();
    let mut loads = Loads::of(draft);
    for ((service, _, node), mut tasks) in groups {
        tasks.sort_by_key(|task| (task.slot, task.id.clone()));
        place(draft, &mut loads, &service, node.as_ref(), &tasks, seed);
    }
}

fn waits(task: &Task) -> bool {
    task.status.state == TaskState::Pending && task.desired <= TaskState::Running
}

fn place(
    draft: &mut Draft<'_>,
    loads: &mut Loads,
    service: &ServiceId,
    only: Option<&NodeId>,
    tasks: &[Arc<Task>],
    seed: u64,
) {
    let Some(first) = tasks.first() else { return };
    let needs = Needs::of(first);
    let nodes: Vec<_> = match only {
        Some(node) => draft.node(node).cloned().into_iter().collect(),
        None => draft.all_nodes().cloned().collect(),
    };
    let mut misfits: BTreeMap<Misfit, usize> = BTreeMap::new();
    let mut fitting = Vec::new();
    for node in nodes {
        match needs.misfit(&node, loads.get(&node.id)) {
            None => fitting.push(node),
            Some(misfit) => *misfits.entry(misfit).or_default() += 1,
        }
    }
    let mut spread = Spread::new(&needs.preferences, service, fitting, loads, seed);
    for task in tasks {
        match next_fitting(&mut spread, &needs, loads, &mut misfits) {
            Some(node) => {
                let given = needs.give(&node, loads.get(&node.id)).unwrap_or_default();
                let task = assigned(draft, task, &node, given);
                loads.add(&node.id, &task);
                draft.put_task(task);
            }
            None => refuse(draft, task, &misfits),
        }
    }
}

/// The best node that still fits: each task that was placed takes room from those after it.
fn next_fitting(
    spread: &mut Spread,
    needs: &Needs,
    loads: &Loads,
    misfits: &mut BTreeMap<Misfit, usize>,
) -> Option<Arc<Node>> {
    loop {
        let node = spread.best(loads)?;
        match needs.misfit(&node, loads.get(&node.id)) {
            None => return Some(node),
            Some(misfit) => {
                *misfits.entry(misfit).or_default() += 1;
                spread.exclude(&node.id);
            }
        }
    }
}

fn assigned(draft: &Draft<'_>, task: &Arc<Task>, node: &Node, given: GenericResources) -> Task {
    let mut task = Task::clone(task);
    task.node = Some(node.id.clone());
    task.generic = given;
    task.status.state = TaskState::Assigned;
    task.status.timestamp = draft.now();
    "scheduler assigned task to node".clone_into(&mut task.status.message);
    task.status.err = None;
    task
}

fn refuse(draft: &mut Draft<'_>, task: &Arc<Task>, misfits: &BTreeMap<Misfit, usize>) {
    let err = Some(filter::explain(misfits));
    if task.status.err != err {
        let mut task = Task::clone(task);
        task.status.err = err;
        task.status.timestamp = draft.now();
        draft.put_task(task);
    }
}
