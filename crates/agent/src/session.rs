//! The life line between this node and a manager.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_ca::NodeCredentials;
use skep_model::{Node, NodeDescription, PortConflict, Trust};
use skep_netdb::NetDb;
use skep_rpc::proto::manager_message::Message as FromManager;
use skep_rpc::proto::{self, AgentMessage, agent_message::Message as ToManager};
use skep_rpc::{NodeIdentity, RpcError};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, info, warn};

use crate::assignments::decode;
use crate::logs::LogPusher;
use crate::report::{Reporter, Reports};
use crate::{AgentError, Assignments};

/// Messages on their way to the manager. The newest state is made when there is room, so a slow manager costs no memory.
const OUTBOX: usize = 16;
/// The manager speaks first after Hello, and at once.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a status waits at the most until other nodes have been sent word of the endpoints that belong to it. It takes a millisecond; but a node
/// that cannot speak with its peers must still report.
const WORD_OF_ENDPOINTS: Duration = Duration::from_millis(200);
/// Pauses between tries: short at first, because a manager that restarts is back soon.
const BACKOFF: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// What a session needs to know and to tell.
pub(crate) struct Session {
    pub(crate) identity: NodeIdentity,
    pub(crate) description: NodeDescription,
    /// Managers to turn to, the last one that answered first.
    pub(crate) managers: watch::Sender<Vec<String>>,
    pub(crate) assignments: watch::Sender<Arc<Assignments>>,
    pub(crate) reporter: Reporter,
    /// Published ports that processes of this node have; `None` until it was looked at.
    pub(crate) port_conflicts: watch::Receiver<Option<Vec<PortConflict>>>,
    pub(crate) netdb: NetDb,
    pub(crate) logs: LogPusher,
    /// Whether a manager holds a session with this node, and if not why not.
    pub(crate) connected: watch::Sender<Result<(), String>>,
    /// What the manager says of this node itself.
    pub(crate) told: watch::Sender<Option<Node>>,
    /// What the manager says of certificates.
    pub(crate) trust: watch::Sender<Option<Trust>>,
    /// This node's part among the managers: number, and where its manager port answers.
    pub(crate) manages: watch::Receiver<Option<(u64, SocketAddr)>>,
}

impl Session {
    /// Holds a session with one manager after the other. Ends only by being dropped.
    pub(crate) async fn run(self) {
        let mut failures = 0;
        loop {
            let mut ahead: VecDeque<String> = self.managers.borrow().iter().cloned().collect();
            let mut asked = BTreeSet::new();
            while let Some(addr) = ahead.pop_front() {
                if !asked.insert(addr.clone()) {
                    continue;
                }
                let began = Instant::now();
                let Err(ended) = self.hold(&addr).await;
                if began.elapsed() > WELCOME_TIMEOUT {
                    failures = 0;
                }
                // The one that leads is asked next.
                if let AgentError::Rpc(RpcError::NoLeader { leader: Some(leader), .. }) = &ended {
                    ahead.push_front(leader.clone());
                }
                self.without(&addr, &ended.to_string());
            }
            tokio::time::sleep(BACKOFF[failures.min(BACKOFF.len() - 1)]).await;
            failures += 1;
        }
    }

    /// There is no session with that manager, or none any more.
    fn without(&self, addr: &str, why: &str) {
        debug!(%addr, "no session: {why}");
        // Whoever was silent may be back, and nobody would say so.
        self.netdb.set_silent(BTreeSet::new());
        if self.connected.send_replace(Err(why.to_owned())).is_ok() {
            warn!(%addr, "lost the session with the manager: {why}");
        }
        // The others are asked first from now on: this one may not be there any more, and that takes time to find out.
        self.managers.send_if_modified(|managers| {
            let last = managers.iter().position(|known| known == addr);
            last.is_some_and(|at| {
                managers[at..].rotate_left(1);
                at + 1 < managers.len()
            })
        });
    }

    async fn hold(&self, addr: &str) -> Result<std::convert::Infallible, AgentError> {
        let mut client = skep_rpc::dispatcher_client(addr, &self.identity).await?;
        let (outbox, outgoing) = mpsc::channel(OUTBOX);
        let mut live = Live {
            session: self,
            outbox,
            client: client.clone(),
            reports: self.reporter.watch(),
            port_conflicts: self.port_conflicts.clone(),
            manages: self.manages.clone(),
            shown: self.identity.credentials(),
            seen: 0,
            heartbeat: ticks(Duration::from_secs(1)),
        };
        live.say_hello().await?;
        let answer = timeout(WELCOME_TIMEOUT, client.session(ReceiverStream::new(outgoing))).await;
        let answer = answer.map_err(|_| RpcError::Timeout { addr: addr.to_owned() })?;
        let mut incoming = answer.map_err(|status| RpcError::from_status(addr, &status))?.into_inner();
        live.reports.mark_changed();
        live.port_conflicts.mark_changed();
        loop {
            let shown = live.shown.clone();
            tokio::select! {
                message = incoming.message() => {
                    let message = message.map_err(|status| RpcError::from_status(addr, &status))?;
                    let message = message.ok_or_else(|| AgentError::SessionEnded("it closed the stream".to_owned()))?;
                    live.take(addr, message)?;
                }
                Ok(()) = live.reports.changed() => {
                    // A task that is said to run lets another one stop: others should hear first that this one takes connections.
                    let _ = timeout(WORD_OF_ENDPOINTS, self.netdb.told()).await;
                    live.send_statuses().await?;
                }
                Ok(()) = live.port_conflicts.changed() => live.send_port_conflicts().await?,
                Ok(()) = live.manages.changed() => live.say_hello().await?,
                _ = self.identity.changed_from(&shown) => live.say_hello().await?,
                _ = live.heartbeat.tick() => live.send(ToManager::Heartbeat(proto::Heartbeat {})).await?,
            }
        }
    }
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// A session that a manager has accepted.
struct Live<'a> {
    session: &'a Session,
    outbox: mpsc::Sender<AgentMessage>,
    client: skep_rpc::DispatcherClient,
    reports: watch::Receiver<Reports>,
    port_conflicts: watch::Receiver<Option<Vec<PortConflict>>>,
    manages: watch::Receiver<Option<(u64, SocketAddr)>>,
    /// The certificate that the manager knows of.
    shown: NodeCredentials,
    /// The number of the last change of a status that was sent.
    seen: u64,
    heartbeat: Interval,
}

impl Live<'_> {
    async fn send(&self, message: ToManager) -> Result<(), AgentError> {
        let message = AgentMessage { message: Some(message) };
        self.outbox.send(message).await.map_err(|_| AgentError::SessionEnded("the connection broke".to_owned()))
    }

    /// Who this node is, what certificate it has, and whether it is a manager.
    async fn say_hello(&mut self) -> Result<(), AgentError> {
        let manages = *self.manages.borrow_and_update();
        self.shown = self.session.identity.credentials();
        let description = NodeDescription { tls: Some(self.shown.tls()), ..self.session.description.clone() };
        let hello = proto::Hello {
            description: skep_rpc::encode(&description),
            addr: manages.map(|(_, addr)| addr.to_string()).unwrap_or_default(),
            raft_id: manages.map(|(raft_id, _)| raft_id).unwrap_or_default(),
        };
        self.send(ToManager::Hello(hello)).await
    }

    async fn send_statuses(&mut self) -> Result<(), AgentError> {
        let statuses: Vec<_> = {
            let reports = self.reports.borrow_and_update();
            let changed = reports.since(self.seen).map(|(task, status)| proto::TaskStatus {
                task_id: task.to_string(),
                status: skep_rpc::encode(status),
            });
            let changed = changed.collect();
            self.seen = reports.last();
            changed
        };
        if statuses.is_empty() {
            return Ok(());
        }
        self.send(ToManager::Statuses(proto::TaskStatuses { statuses })).await
    }

    async fn send_port_conflicts(&mut self) -> Result<(), AgentError> {
        let conflicts = self.port_conflicts.borrow_and_update().clone();
        // What an earlier daemon has told is true until this one has looked.
        let Some(conflicts) = conflicts else { return Ok(()) };
        let conflicts = conflicts.iter().map(skep_rpc::encode).collect();
        self.send(ToManager::PortConflicts(proto::PortConflicts { conflicts })).await
    }

    fn take(&mut self, addr: &str, message: proto::ManagerMessage) -> Result<(), AgentError> {
        match message.message {
            Some(FromManager::Welcome(welcome)) => self.welcomed(addr, welcome),
            Some(FromManager::Assignments(assignments)) => self.assigned(&assignments)?,
            Some(FromManager::Silent(silent)) => {
                let silent = silent.node_ids.iter().filter_map(|id| id.parse().ok()).collect();
                self.session.netdb.set_silent(silent);
            }
            Some(FromManager::Logs(request)) => self.session.logs.push(self.client.clone(), request),
            Some(FromManager::LogCancel(cancel)) => self.session.logs.cancel(cancel.subscription),
            // A kind of message that this version does not know.
            None => {}
        }
        Ok(())
    }

    fn welcomed(&mut self, addr: &str, welcome: proto::Welcome) {
        if self.session.connected.borrow().is_err() {
            info!(%addr, "in session with the manager");
        }
        self.heartbeat = ticks(Duration::from_millis(welcome.heartbeat_ms.clamp(50, 60_000)));
        let others = welcome.managers.into_iter().filter(|m| m != addr);
        let managers: Vec<_> = std::iter::once(addr.to_owned()).chain(others).collect();
        self.session.managers.send_if_modified(|known| {
            let changed = *known != managers;
            *known = managers;
            changed
        });
        let _before = self.session.connected.send_replace(Ok(()));
    }

    fn assigned(&self, message: &proto::Assignments) -> Result<(), AgentError> {
        let mut next = Assignments::clone(&self.session.assignments.borrow());
        next.apply(message)?;
        if !message.node.is_empty() {
            self.session.told.send_replace(next.node.clone());
        }
        if let Some(trust) = &message.trust {
            self.session.trust.send_replace(Some(decode(&trust.trust)?));
        }
        self.session.assignments.send_if_modified(|known| {
            let changed = **known != next;
            *known = Arc::new(next);
            changed
        });
        Ok(())
    }
}
