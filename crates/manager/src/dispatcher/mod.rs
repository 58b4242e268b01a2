//! Sessions with nodes: tells them what to run and what to know, takes in what became of it, and notices when one is lost.

mod assign;
mod liveness;
mod logs;
mod membership;
mod published;
mod service;
mod session;
mod silence;
mod status;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use skep_model::NodeId;
use skep_rpc::proto::manager_message::Message;
use skep_store::Writer;
use tokio::sync::{mpsc, watch};
use tonic::Status;

use self::liveness::Liveness;
pub use self::liveness::{Found, Presence};
pub(crate) use self::logs::Logs;
pub use self::logs::{LogLine, LogStream};
pub use self::membership::MembershipService;
pub use self::service::DispatcherService;
use self::silence::Silence;
use self::status::StatusQueue;
use crate::group::Group;

/// What the sessions share.
pub(crate) struct Hub {
    writer: Arc<Writer>,
    leading: watch::Receiver<bool>,
    /// Where the manager answers that leads, as far as this one knows.
    leader: watch::Receiver<Option<SocketAddr>>,
    /// Where this manager answers.
    addr: SocketAddr,
    group: Arc<dyn Group>,
    presence: Arc<dyn Presence>,
    closed: watch::Sender<bool>,
    sessions: Mutex<Sessions>,
    liveness: Liveness,
    silence: Silence,
    statuses: StatusQueue,
    pub(crate) logs: Logs,
}

/// The one session of each node. A newer one takes the place of an older one, which ends because nobody speaks to it any more.
#[derive(Default)]
struct Sessions {
    last: u64,
    open: HashMap<NodeId, (u64, mpsc::Sender<Message>)>,
}

/// Messages for a node that wait for its session to take them.
const COMMANDS: usize = 64;

impl Hub {
    pub(crate) fn new(
        writer: Arc<Writer>,
        leading: watch::Receiver<bool>,
        leader: watch::Receiver<Option<SocketAddr>>,
        addr: SocketAddr,
        (group, presence): (Arc<dyn Group>, Arc<dyn Presence>),
    ) -> Self {
        Self {
            writer,
            leading,
            leader,
            addr,
            group,
            presence,
            closed: watch::Sender::new(false),
            sessions: Mutex::default(),
            liveness: Liveness::default(),
            silence: Silence::default(),
            statuses: StatusQueue::default(),
            logs: Logs::default(),
        }
    }

    /// Ends all sessions, and takes no new ones.
    pub(crate) fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Resolves once this manager does not lead.
    pub(crate) async fn leads_no_more(&self) {
        let mut leading = self.leading.clone();
        // The guard that it returns must not be held over an await; an error says that nobody can say any more.
        drop(leading.wait_for(|leads| !*leads).await);
    }

    /// Refuses on a manager that does not lead, and says who does.
    fn leads(&self) -> Result<(), Status> {
        if *self.leading.borrow() && !*self.closed.borrow() {
            return Ok(());
        }
        Err(skep_rpc::not_leader(self.leader.borrow().filter(|leader| *leader != self.addr)))
    }

    fn open(&self, node: &NodeId) -> (u64, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(COMMANDS);
        let mut sessions = lock(&self.sessions);
        sessions.last += 1;
        let number = sessions.last;
        sessions.open.insert(node.clone(), (number, sender));
        self.silence.heard(node);
        (number, receiver)
    }

    fn ended(&self, node: &NodeId, number: u64) {
        let mut sessions = lock(&self.sessions);
        if sessions.open.get(node).is_some_and(|(open, _)| *open == number) {
            sessions.open.remove(node);
            // A node whose power is gone breaks no connection, but one whose daemon is killed does.
            self.silence.hung_up(node);
            drop(sessions);
            self.logs.node_gone(node);
        }
    }

    /// Says something to a node. `false` when it has no session, or one that takes nothing at present.
    pub(crate) fn tell(&self, node: &NodeId, message: Message) -> bool {
        lock(&self.sessions).open.get(node).is_some_and(|(_, sender)| sender.try_send(message).is_ok())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
