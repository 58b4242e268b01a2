//! A demanding client, outside of the swarm: opens a connection every 5 ms, whatever became of the ones before, keeps long ones open, and
//! checks every byte that it is sent.

mod attempt;
mod kept;
mod pace;
mod report;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use skep_lab::Lab;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::Swarm;
use pace::Pace;

pub use attempt::{Attempt, Outcome};
pub use kept::{End, Kept, Usage};
pub use report::Report;

/// Between two new connections.
const EVERY: Duration = Duration::from_millis(5);
/// Connections that ask again and again.
const LONG: usize = 30;
/// Connections that ask when they are opened, and then not before the end. So many that nearly always some are at any one task.
const IDLE: usize = 60;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The image of [`crate::checker`].
    Checker,
    /// The image of [`crate::nginx`]: new connections alone.
    Nginx,
    /// The same behind a balancer, which is the client that it sees.
    Balanced,
}

/// A client at work. Dropping it ends it.
pub struct Load {
    stop: watch::Sender<bool>,
    running: Option<JoinHandle<Report>>,
}

impl Load {
    /// Begins to ask the nodes in turn. Returns once the connections that are to be kept are open.
    ///
    /// # Panics
    /// When there is no such lab.
    #[must_use]
    pub fn begin(swarm: &Swarm, server: Server, nodes: &[u8], port: u16) -> Self {
        Self::at(swarm, server, nodes.iter().map(|n| SocketAddr::from((swarm.lab.address(*n), port))).collect())
    }

    /// As [`Self::begin`], by any addresses.
    ///
    /// # Panics
    /// When there is no such lab.
    #[must_use]
    pub fn at(swarm: &Swarm, server: Server, targets: Vec<SocketAddr>) -> Self {
        let lab = Lab::open(swarm.lab.name()).expect("the lab is up");
        let (stop, stopped) = watch::channel(false);
        let (opened, all_opened) = mpsc::channel();
        let client = Client { server, targets, stopped };
        let work = move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(client.run(opened))
        };
        let running = thread::spawn(move || lab.run("client", work).expect("a place"));
        // Nothing is ever sent: it ends when all have let go of it.
        let _ = all_opened.recv();
        Self { stop, running: Some(running) }
    }

    /// Opens nothing any more, waits for what is under way, asks once more on all that was kept, and says what came of it all.
    ///
    /// # Panics
    /// When the client has panicked.
    #[must_use]
    pub fn end(mut self) -> Report {
        self.stop.send_replace(true);
        self.running.take().expect("it ends once").join().expect("the client does not panic")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Dropped when a connection that is to be kept is open.
type Opened = mpsc::Sender<()>;

struct Client {
    server: Server,
    targets: Vec<SocketAddr>,
    stopped: watch::Receiver<bool>,
}

impl Client {
    async fn run(mut self, opened: Opened) -> Report {
        let mut kept = JoinSet::new();
        if self.server == Server::Checker {
            let uses = std::iter::repeat_n(Usage::Long, LONG).chain(std::iter::repeat_n(Usage::Idle, IDLE));
            for (usage, target) in uses.zip(self.targets.iter().cycle()) {
                kept.spawn(kept::keep(usage, *target, self.stopped.clone(), opened.clone()));
            }
        }
        drop(opened);
        let began = Instant::now();
        let mut asked = JoinSet::new();
        // Those that come late come all at once: the schedule does not wait for anybody.
        let mut ticks = interval(EVERY);
        let mut pace = Pace::new(EVERY);
        for (seed, target) in (0..).zip(self.targets.iter().cycle()) {
            tokio::select! {
                _ = self.stopped.wait_for(|stopped| *stopped) => break,
                _ = ticks.tick() => pace.keep(),
            }
            asked.spawn(attempt::attempt(self.server, *target, seed, pace.clone()));
        }
        let mut asked = asked.join_all().await;
        asked.sort_by_key(|attempt| attempt.opened);
        Report { began, asked, kept: kept.join_all().await.into_iter().flatten().collect() }
    }
}
