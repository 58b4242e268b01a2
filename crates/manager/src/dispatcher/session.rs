//! One session with one node.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use skep_model::{ManagerStatus, Node, NodeDescription, NodeId, NodeState, PortConflict, Reachability, Role, TaskId};
use skep_rpc::proto::agent_message::Message as FromAgent;
use skep_rpc::proto::manager_message::Message as ToAgent;
use skep_rpc::proto::{self, AgentMessage, ManagerMessage};
use skep_rpc::{Peer, Refusal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tonic::{Status, Streaming};

use super::Hub;
use super::assign::Told;
use super::liveness::{heartbeat, heartbeat_every};
use super::silence;

type Outbox = mpsc::Sender<Result<ManagerMessage, Status>>;

/// A session under way.
pub(super) struct Session {
    pub(super) hub: Arc<Hub>,
    pub(super) peer: Peer,
    pub(super) outbox: Outbox,
    told: Told,
    managers: Vec<String>,
}

impl Session {
    pub(super) fn new(hub: Arc<Hub>, peer: Peer, outbox: Outbox) -> Self {
        Self { hub, peer, outbox, told: Told::default(), managers: Vec::new() }
    }

    /// Holds the session until either side gives up.
    pub(super) async fn run(mut self, incoming: Streaming<AgentMessage>) {
        let node = self.peer.node.clone();
        let (number, commands) = self.hub.open(&node);
        let ended = self.hold(incoming, commands).await;
        self.hub.ended(&node, number);
        if let Err(status) = ended {
            tracing::debug!(%node, "the session ended: {}", status.message());
            // Nobody may be there to hear it.
            let _ = self.outbox.try_send(Err(status));
        }
    }

    async fn hold(
        &mut self,
        mut incoming: Streaming<AgentMessage>,
        mut commands: mpsc::Receiver<ToAgent>,
    ) -> Result<(), Status> {
        let hub = self.hub.clone();
        let mut events = hub.writer.store().watch();
        let mut silence = hub.silence.watch();
        // Who says nothing now is told like who does later.
        silence.mark_changed();
        let (mut leading, mut closed) = (hub.leading.clone(), hub.closed.subscribe());
        self.welcome().await?;
        self.assign().await?;
        let mut heard = Instant::now();
        loop {
            let patience = hub.writer.store().view(heartbeat);
            tokio::select! {
                message = incoming.message() => {
                    let Some(message) = message? else { return Ok(()) };
                    heard = Instant::now();
                    self.take(message).await?;
                }
                Some(_) = events.next() => {
                    self.assign().await?;
                    self.welcome().await?;
                }
                Ok(()) = silence.changed() => {
                    let silent = silence::message(&silence.borrow_and_update());
                    self.send(ToAgent::Silent(silent)).await?;
                }
                command = commands.recv() => match command {
                    Some(command) => self.send(command).await?,
                    None => return Err(Status::aborted("a newer session of the same node took over")),
                },
                () = becomes(&mut leading, false) => return Err(Status::unavailable("this manager leads no more")),
                () = becomes(&mut closed, true) => return Err(Status::unavailable("this manager is ending")),
                () = sleep_until(heard + patience) => return Err(Status::deadline_exceeded("no sign of life")),
            }
        }
    }

    async fn send(&self, message: ToAgent) -> Result<(), Status> {
        let message = ManagerMessage { message: Some(message) };
        self.outbox.send(Ok(message)).await.map_err(|_| Status::cancelled("the node hung up"))
    }

    /// Tells whom else the node may turn to, when that has changed.
    async fn welcome(&mut self) -> Result<(), Status> {
        let (period, managers) = self.hub.writer.store().view(|tables| {
            let addrs = tables.all::<Node>().filter_map(|node| Some(node.manager.as_ref()?.addr));
            (heartbeat(tables), addrs.collect::<Vec<_>>())
        });
        let mut managers: Vec<_> = managers.iter().map(ToString::to_string).collect();
        let own = self.hub.addr.to_string();
        if !managers.contains(&own) {
            managers.push(own);
        }
        if managers == self.managers {
            return Ok(());
        }
        self.managers.clone_from(&managers);
        let heartbeat_ms = u64::try_from(heartbeat_every(period).as_millis()).unwrap_or(1000);
        self.send(ToAgent::Welcome(proto::Welcome { heartbeat_ms, managers })).await
    }

    async fn assign(&mut self) -> Result<(), Status> {
        let Self { hub, peer, told, .. } = self;
        let next = hub.writer.store().view(|tables| match tables.get::<Node>(&peer.node) {
            Some(_) => Ok(told.next(tables, &peer.node)),
            None => Err(Status::from(Refusal::UnknownNode)),
        });
        match next? {
            Some(assignments) => self.send(ToAgent::Assignments(assignments)).await,
            None => Ok(()),
        }
    }

    async fn take(&mut self, message: AgentMessage) -> Result<(), Status> {
        let node = &self.peer.node;
        self.hub.liveness.heard(node);
        self.hub.silence.heard(node);
        match message.message {
            Some(FromAgent::Statuses(reports)) => {
                for report in reports.statuses {
                    let task: TaskId = report.task_id.parse().map_err(bad)?;
                    self.hub.statuses.put(node, task, skep_rpc::decode(&report.status)?);
                }
            }
            Some(FromAgent::PortConflicts(told)) => {
                let conflicts = told.conflicts.iter().map(|one| skep_rpc::decode(one)).collect::<Result<_, _>>()?;
                self.hub.port_conflicts(node, conflicts).await?;
            }
            Some(FromAgent::Hello(hello)) => self.hub.hello(&self.peer, &hello).await?,
            // A heartbeat, or a kind of message that this version does not know.
            _ => {}
        }
        // It was given up while this manager was held up, and speaks all the same.
        let store = self.hub.writer.store();
        let given_up = store.view(|t| t.get::<Node>(node).is_some_and(|n| n.status.state != NodeState::Ready));
        if given_up { self.hub.ready(&self.peer, None).await } else { Ok(()) }
    }
}

impl Hub {
    /// Takes in what a node says of itself: it is ready from then on.
    pub(super) async fn hello(&self, peer: &Peer, hello: &proto::Hello) -> Result<(), Status> {
        self.liveness.heard(&peer.node);
        self.ready(peer, Some(hello)).await
    }

    /// Takes in which published ports a node leaves to its own processes.
    async fn port_conflicts(&self, node: &NodeId, conflicts: Vec<PortConflict>) -> Result<(), Status> {
        let written = self.writer.update(|tables| {
            let changed = tables.get::<Node>(node).filter(|node| node.status.port_conflicts != conflicts);
            let changes = changed.map(|before| {
                let mut node = Node::clone(before);
                node.status.port_conflicts = conflicts;
                node.into()
            });
            Ok::<_, Infallible>(((), changes.into_iter().collect()))
        });
        written.await.map_err(|error| Status::unavailable(error.to_string()))
    }

    async fn ready(&self, peer: &Peer, hello: Option<&proto::Hello>) -> Result<(), Status> {
        let description: Option<NodeDescription> = hello.map(|h| skep_rpc::decode(&h.description)).transpose()?;
        let opened = hello.and_then(opened);
        let written = self.writer.update(|tables| {
            let Some(before) = tables.get::<Node>(&peer.node) else { return Ok((false, Vec::new())) };
            let mut node = Node::clone(before);
            node.description = description.or(node.description);
            // Of a node that is to be none, or none any more, it is a word from before.
            if let (Role::Manager, Some((raft_id, addr))) = (node.spec.role, opened)
                && node.manager.as_ref().is_none_or(|known| (known.raft_id, known.addr) != (raft_id, addr))
            {
                node.manager =
                    Some(ManagerStatus { raft_id, addr, leader: false, reachability: Reachability::Unknown });
            }
            node.status.state = NodeState::Ready;
            node.status.message.clear();
            node.status.machine_answers = false;
            node.status.addr = node.status.addr.or(Some(peer.addr.ip()));
            let changes = if node == **before { Vec::new() } else { vec![node.into()] };
            Ok::<_, Infallible>((true, changes))
        });
        match written.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::UnknownNode.into()),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

/// What a node says of its own part among the managers.
fn opened(hello: &proto::Hello) -> Option<(u64, SocketAddr)> {
    let addr = hello.addr.parse().ok()?;
    (hello.raft_id != 0).then_some((hello.raft_id, addr))
}

/// Resolves once `flag` is `value`, or nobody is left to set it.
async fn becomes(flag: &mut watch::Receiver<bool>, value: bool) {
    // The guard that it returns must not be held over an await.
    drop(flag.wait_for(|is| *is == value).await);
}

fn bad(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}
