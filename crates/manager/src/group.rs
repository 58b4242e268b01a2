//! Who the managers are: the group of those that agree follows the nodes' roles.
//!
//! A node's role says what is wanted, [`skep_model::ManagerStatus`] what the node has opened for it, and the group's own members what is.
//! The leader compares the three and changes the group, one member at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use skep_model::{ManagerStatus, Node, Reachability, Role};
use skep_store::{Change, Event, Events, Lagged, Object, Tables, Writer};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::ControlError;

/// How long one change of the group may take. A new member is brought up to date first, and what is not finished is gone on with later.
const STEP: Duration = Duration::from_secs(5);
/// How often the members are looked at when nothing happens.
const LOOK: Duration = Duration::from_secs(1);

/// A member of the group of managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupMember {
    /// Whether it counts for a majority; a new one is brought up to date before.
    pub votes: bool,
    /// Whether the leader has heard of it lately.
    pub answers: bool,
}

/// Why the group was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// This manager does not lead any more.
    #[error("this manager leads no more")]
    NotLeader,
    /// This manager's log has failed.
    #[error("{0}")]
    Failed(String),
}

/// The group of managers that agree on everything, as its leader sees and changes it.
#[async_trait]
pub trait Group: Send + Sync {
    /// This manager's own number in it.
    fn own(&self) -> u64;

    /// Its members by number.
    fn members(&self) -> BTreeMap<u64, GroupMember>;

    /// Adds one: it is brought up to date and votes then. Asked again, it goes on.
    async fn add(&self, raft_id: u64, addr: SocketAddr) -> Result<(), GroupError>;

    /// Removes one, which may be the leader itself: then another one leads.
    async fn remove(&self, raft_id: u64) -> Result<(), GroupError>;
}

/// A change of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Add { raft_id: u64, addr: SocketAddr },
    Remove { raft_id: u64 },
}

/// What has to change in the group, in order: first it grows, and the leader itself goes last.
pub(crate) fn steps(tables: &Tables, members: &BTreeMap<u64, GroupMember>, own: u64) -> Vec<Step> {
    let wanted: BTreeMap<u64, SocketAddr> = tables
        .all::<Node>()
        .filter(|node| node.spec.role == Role::Manager)
        .filter_map(|node| node.manager.as_ref().map(|manager| (manager.raft_id, manager.addr)))
        .collect();
    let votes = |raft_id: &u64| members.get(raft_id).is_some_and(|member| member.votes);
    let new = wanted.iter().filter(|(raft_id, _)| !votes(raft_id));
    let mut steps: Vec<_> = new.map(|(raft_id, addr)| Step::Add { raft_id: *raft_id, addr: *addr }).collect();
    let mut voters = members.values().filter(|member| member.votes).count();
    let mut past: Vec<u64> = members.keys().filter(|raft_id| !wanted.contains_key(raft_id)).copied().collect();
    past.sort_by_key(|raft_id| *raft_id == own);
    for raft_id in past {
        // Somebody must be left to say what is wanted.
        if votes(&raft_id) {
            if voters == 1 {
                break;
            }
            voters -= 1;
        }
        steps.push(Step::Remove { raft_id });
    }
    steps
}

/// What the nodes' objects should say of the group.
pub(crate) fn record(tables: &Tables, members: &BTreeMap<u64, GroupMember>, own: u64) -> Vec<Change> {
    let changed = tables.all::<Node>().filter_map(|node| {
        let manager = node.manager.as_ref()?;
        let member = members.get(&manager.raft_id);
        let now = match (node.spec.role, member) {
            (Role::Worker, None) => None,
            (_, member) => Some(ManagerStatus {
                leader: manager.raft_id == own,
                reachability: reachability(member, manager.raft_id == own),
                ..manager.clone()
            }),
        };
        (node.manager != now).then(|| Change::from(Node { manager: now, ..Node::clone(node) }))
    });
    changed.collect()
}

fn reachability(member: Option<&GroupMember>, own: bool) -> Reachability {
    match member {
        Some(member) if own || (member.votes && member.answers) => Reachability::Reachable,
        Some(member) if member.votes => Reachability::Unreachable,
        _ => Reachability::Unknown,
    }
}

/// Whether a manager can go and the others agree on things without it. Those that are going already do not count.
pub(crate) fn may_go(tables: &Tables, group: &dyn Group, node: &Node) -> Result<(), ControlError> {
    let stays = |other: &&Arc<Node>| other.spec.role == Role::Manager && other.id != node.id;
    let staying: BTreeSet<u64> =
        tables.all::<Node>().filter(stays).filter_map(|n| n.manager.as_ref()).map(|m| m.raft_id).collect();
    let members = group.members();
    if !members.iter().any(|(raft_id, member)| member.votes && staying.contains(raft_id)) {
        return Err(ControlError::LastManager);
    }
    let gone = members.keys().filter(|raft_id| !staying.contains(raft_id)).copied().collect();
    if holds_without(&members, group.own(), &gone) { Ok(()) } else { Err(ControlError::LosesQuorum(node.id.clone())) }
}

/// Whether the others still have a majority that answers when the members `without` are gone.
fn holds_without(members: &BTreeMap<u64, GroupMember>, own: u64, without: &BTreeSet<u64>) -> bool {
    let left = || members.iter().filter(|(raft_id, member)| member.votes && !without.contains(raft_id));
    let answering = left().filter(|(raft_id, member)| member.answers || **raft_id == own).count();
    answering > left().count() / 2
}

/// Keeps the group as the nodes' roles say for as long as this manager leads, again and again. Ends when nobody can say any more whether it
/// does.
pub(crate) async fn run(writer: Arc<Writer>, group: Arc<dyn Group>, mut leading: watch::Receiver<bool>) {
    while leading.wait_for(|leads| *leads).await.is_ok() {
        let mut events = writer.store().watch();
        loop {
            round(&writer, group.as_ref()).await;
            tokio::select! {
                // The guard that it returns must not be held over an await.
                lost = leading.wait_for(|leads| !*leads) => {
                    drop(lost);
                    break;
                }
                () = nodes_change(&mut events) => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }
}

async fn round(writer: &Writer, group: &dyn Group) {
    let own = group.own();
    let members = group.members();
    for step in writer.store().view(|tables| steps(tables, &members, own)) {
        let taking = tokio::time::timeout(STEP, take(group, step));
        let taken = match step {
            // Whoever asks for something meanwhile is told for sure that it was not done, and asks the next leader.
            Step::Remove { raft_id } if raft_id == own => writer.still(taking).await,
            _ => taking.await,
        };
        match taken {
            Ok(Ok(())) => info!(?step, "the group of managers has changed"),
            Ok(Err(GroupError::NotLeader)) => return,
            Ok(Err(error)) => warn!(?step, %error, "cannot change the group of managers"),
            Err(_) => warn!(?step, "the group of managers has not changed yet: is that manager in reach?"),
        }
    }
    let members = group.members();
    let recorded = writer.update(|tables| Ok::<_, Infallible>(((), record(tables, &members, own))));
    if let Err(error) = recorded.await {
        warn!("cannot write who the managers are: {error}");
    }
}

async fn take(group: &dyn Group, step: Step) -> Result<(), GroupError> {
    match step {
        Step::Add { raft_id, addr } => group.add(raft_id, addr).await,
        Step::Remove { raft_id } => group.remove(raft_id).await,
    }
}

async fn nodes_change(events: &mut Events) {
    let of_node = |event: &Event| matches!(event.object, Object::Node(_));
    loop {
        match events.next().await {
            Some(Ok(batch)) if !batch.iter().any(of_node) => {}
            Some(Ok(_) | Err(Lagged)) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use skep_model::NodeId;

    use super::*;
    use crate::tests::Sim;

    const ANSWERS: GroupMember = GroupMember { votes: true, answers: true };
    const SILENT: GroupMember = GroupMember { votes: true, answers: false };
    const LEARNS: GroupMember = GroupMember { votes: false, answers: true };

    /// Three nodes, the first of which began the swarm as member 1 of the group.
    fn sim() -> (Sim, Vec<NodeId>) {
        let sim = Sim::new(2);
        let mut nodes = sim.nodes();
        nodes.sort_by_key(|node| sim.tables.get::<Node>(node).unwrap().manager.is_none());
        (sim, nodes)
    }

    fn opens(sim: &mut Sim, node: &NodeId, raft_id: u64) {
        let addr = format!("192.0.2.{raft_id}:2377").parse().unwrap();
        let seat = ManagerStatus { raft_id, addr, leader: false, reachability: Reachability::Unknown };
        sim.node(node, |node| {
            node.spec.role = Role::Manager;
            node.manager = Some(seat.clone());
        });
    }

    #[test]
    fn a_promoted_node_is_added_once_it_has_opened_and_recorded_when_it_votes() {
        let (mut sim, nodes) = sim();
        let alone = BTreeMap::from([(1, ANSWERS)]);
        sim.node(&nodes[1], |node| node.spec.role = Role::Manager);
        assert_eq!(steps(&sim.tables, &alone, 1), [], "it has not opened yet");
        opens(&mut sim, &nodes[1], 2);
        let add = Step::Add { raft_id: 2, addr: "192.0.2.2:2377".parse().unwrap() };
        assert_eq!(steps(&sim.tables, &alone, 1), [add]);
        let learning = BTreeMap::from([(1, ANSWERS), (2, LEARNS)]);
        assert_eq!(steps(&sim.tables, &learning, 1), [add], "it goes on");
        sim.apply(record(&sim.tables, &learning, 1));
        let reach = |sim: &Sim| sim.tables.get::<Node>(&nodes[1]).unwrap().manager.as_ref().unwrap().reachability;
        assert_eq!(reach(&sim), Reachability::Unknown);
        let both = BTreeMap::from([(1, ANSWERS), (2, ANSWERS)]);
        assert_eq!(steps(&sim.tables, &both, 1), []);
        sim.apply(record(&sim.tables, &both, 1));
        assert_eq!(reach(&sim), Reachability::Reachable);
        assert_eq!(record(&sim.tables, &both, 1), []);
        sim.apply(record(&sim.tables, &BTreeMap::from([(1, ANSWERS), (2, SILENT)]), 1));
        assert_eq!(reach(&sim), Reachability::Unreachable);
    }

    #[test]
    fn who_leads_is_recorded_by_whoever_leads() {
        let (mut sim, nodes) = sim();
        opens(&mut sim, &nodes[1], 2);
        let both = BTreeMap::from([(1, SILENT), (2, ANSWERS)]);
        sim.apply(record(&sim.tables, &both, 2));
        let leads = |node: &NodeId| sim.tables.get::<Node>(node).unwrap().manager.as_ref().unwrap().leader;
        assert!(!leads(&nodes[0]) && leads(&nodes[1]));
    }

    #[test]
    fn a_demoted_node_leaves_the_group_first_and_the_leader_goes_last() {
        let (mut sim, nodes) = sim();
        opens(&mut sim, &nodes[1], 2);
        opens(&mut sim, &nodes[2], 3);
        let all = BTreeMap::from([(1, ANSWERS), (2, ANSWERS), (3, ANSWERS)]);
        for node in &nodes[..2] {
            sim.node(node, |node| node.spec.role = Role::Worker);
        }
        assert_eq!(steps(&sim.tables, &all, 1), [Step::Remove { raft_id: 2 }, Step::Remove { raft_id: 1 }]);
        sim.apply(record(&sim.tables, &all, 1));
        assert!(sim.tables.get::<Node>(&nodes[1]).unwrap().manager.is_some(), "it is in the group still");
        sim.apply(record(&sim.tables, &BTreeMap::from([(3, ANSWERS)]), 3));
        assert!(nodes[..2].iter().all(|node| sim.tables.get::<Node>(node).unwrap().manager.is_none()));
    }

    #[test]
    fn the_last_one_stays_and_a_number_that_nobody_has_goes() {
        let (mut sim, nodes) = sim();
        sim.node(&nodes[0], |node| node.spec.role = Role::Worker);
        assert_eq!(steps(&sim.tables, &BTreeMap::from([(1, ANSWERS)]), 1), []);
        // A manager that has lost its disk opens anew, with another number.
        sim.node(&nodes[0], |node| node.spec.role = Role::Manager);
        opens(&mut sim, &nodes[1], 4);
        let members = BTreeMap::from([(1, ANSWERS), (2, SILENT), (3, LEARNS)]);
        let add = Step::Add { raft_id: 4, addr: "192.0.2.4:2377".parse().unwrap() };
        let gone = [Step::Remove { raft_id: 2 }, Step::Remove { raft_id: 3 }];
        assert_eq!(steps(&sim.tables, &members, 1), [add, gone[0], gone[1]]);
    }

    #[test]
    fn a_majority_must_answer_without_those_that_go() {
        let three = BTreeMap::from([(1, ANSWERS), (2, ANSWERS), (3, SILENT)]);
        assert!(holds_without(&three, 1, &[].into()));
        assert!(holds_without(&three, 1, &[3].into()), "the silent one can go");
        assert!(!holds_without(&three, 1, &[2].into()), "of two that are left one is silent");
        assert!(holds_without(&BTreeMap::from([(1, SILENT)]), 1, &[].into()), "who leads answers");
        assert!(!holds_without(&BTreeMap::from([(1, ANSWERS), (2, LEARNS)]), 1, &[1].into()));
    }
}
