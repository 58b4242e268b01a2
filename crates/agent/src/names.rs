//! A resolver for every task, and for programs outside of tasks; what they know follows managers and nodes.

mod policy;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_dns::{
    Asked, Asker, Became, Counters, DnsError, Forwarder, NodeResolvers, Resolver, Scope, Sockets, Unknown, Zone,
};
use skep_dns::{inside, outside};
use skep_model::seen::SeenQuestions;
use skep_model::{NetworkId, Task, TaskId};
use skep_netdb::View;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use crate::Assignments;

/// After a look at what has changed there is a rest of so many times as long as it took: names of large networks may change all the time.
const REST: u32 = 5;
/// How often a port that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Makes the sockets of a resolver in the network namespace at a path.
pub type SocketsAt = fn(&Path) -> Result<Sockets, DnsError>;

/// Where programs outside of tasks may ask, and for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outside {
    /// Addresses of the node.
    pub listen: Vec<SocketAddr>,
    /// Networks whose names they are told; all when there are none.
    pub networks: Vec<String>,
}

/// The resolvers of this node. Cheap to clone: all clones are the same.
#[derive(Clone)]
pub(crate) struct Names(Arc<Shared>);

struct Shared {
    sockets: SocketsAt,
    node: Arc<Forwarder>,
    outside: Outside,
    counters: Arc<Counters>,
    assignments: watch::Receiver<Arc<Assignments>>,
    view: watch::Receiver<Arc<View>>,
    known: Mutex<Known>,
}

/// What is named, and who asks.
struct Known {
    assignments: Arc<Assignments>,
    view: Arc<View>,
    zones: BTreeMap<NetworkId, Arc<Zone>>,
    tasks: BTreeMap<TaskId, Asking>,
    outside: watch::Sender<Scope>,
}

struct Asking {
    resolver: Resolver,
    scope: watch::Sender<Scope>,
    networks: Vec<NetworkId>,
}

impl Names {
    /// Nobody asks yet.
    pub(crate) fn new(
        sockets: SocketsAt,
        resolv_conf: &Path,
        outside: Outside,
        (assignments, view): (watch::Receiver<Arc<Assignments>>, watch::Receiver<Arc<View>>),
    ) -> Self {
        let known = Known {
            assignments: assignments.borrow().clone(),
            view: view.borrow().clone(),
            zones: BTreeMap::new(),
            tasks: BTreeMap::new(),
            outside: watch::Sender::default(),
        };
        Self(Arc::new(Shared {
            sockets,
            node: Arc::new(Forwarder::node(Arc::new(NodeResolvers::of(resolv_conf)))),
            outside,
            counters: Arc::default(),
            assignments,
            view,
            known: Mutex::new(known),
        }))
    }

    /// Begins to answer a task's questions. Nothing happens when it is answered already.
    ///
    /// # Errors
    /// When the namespace is not there, or a process in it has the port.
    pub(crate) fn open(&self, task: &Task, netns: &Path) -> Result<(), DnsError> {
        let mut known = self.known();
        if known.tasks.contains_key(&task.id) {
            return Ok(());
        }
        let sockets = (self.0.sockets)(netns)?;
        known.learn(self.0.assignments.borrow().clone(), self.0.view.borrow().clone());
        let unknown = policy::unknown(task, &known.assignments.networks, netns, &self.0.node);
        let scope = watch::Sender::default();
        let resolver = Resolver::start(sockets, self.asker(&scope, unknown))?;
        let networks = policy::networks(task, &known.assignments.networks);
        known.tasks.insert(task.id.clone(), Asking { resolver, scope, networks });
        known.tell();
        Ok(())
    }

    /// What was asked, and what became of it.
    pub(crate) fn questions(&self) -> Vec<SeenQuestions> {
        let of = |asked: Asked, became: Became| SeenQuestions {
            kind: asked.as_str(),
            answer: became.as_str(),
            count: self.0.counters.of(asked, became),
        };
        Asked::ALL.into_iter().flat_map(|asked| Became::ALL.map(|became| of(asked, became))).collect()
    }

    /// Answers a task no more; returns once its sockets are closed.
    pub(crate) async fn close(&self, task: &TaskId) {
        let asking = self.known().tasks.remove(task);
        if let Some(asking) = asking {
            asking.resolver.stop().await;
        }
    }

    /// Keeps true what resolvers know, and answers outside of tasks. Ends only by being dropped.
    pub(crate) async fn run(self) {
        let (mut assignments, mut view) = (self.0.assignments.clone(), self.0.view.clone());
        let outside: Vec<_> = self.0.outside.listen.iter().map(|address| self.answer_outside(*address)).collect();
        let _outside = futures::future::join(futures::future::join_all(outside), async {
            loop {
                let began = Instant::now();
                let now = (assignments.borrow_and_update().clone(), view.borrow_and_update().clone());
                let names = self.clone();
                let looked = tokio::task::spawn_blocking(move || names.look(now));
                if let Err(e) = looked.await {
                    error!("names are not those of now: {e}");
                }
                sleep(began.elapsed() * REST).await;
                tokio::select! {
                    Ok(()) = assignments.changed() => {}
                    Ok(()) = view.changed() => {}
                }
            }
        })
        .await;
    }

    fn look(&self, (assignments, view): (Arc<Assignments>, Arc<View>)) {
        let mut known = self.known();
        known.learn(assignments, view);
        known.tell();
        if !self.0.outside.listen.is_empty() {
            known.tell_outside(&self.0.outside.networks);
        }
    }

    async fn answer_outside(&self, address: SocketAddr) {
        let scope = self.known().outside.clone();
        let mut said = None;
        loop {
            let asker = self.asker(&scope, Unknown::Deny);
            match Sockets::bind(address).and_then(|sockets| Resolver::start(sockets, asker)) {
                Ok(_answering) => {
                    info!("names are answered at {address} for programs outside of tasks");
                    std::future::pending::<()>().await;
                }
                Err(e) => {
                    let e = e.to_string();
                    if said.as_ref() != Some(&e) {
                        error!("{e}; trying again");
                    }
                    said = Some(e);
                }
            }
            sleep(RETRY).await;
        }
    }

    fn asker(&self, scope: &watch::Sender<Scope>, unknown: Unknown) -> Asker {
        Asker { scope: scope.subscribe(), unknown, counters: self.0.counters.clone() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Forgets what is not named any more as it was.
    fn learn(&mut self, assignments: Arc<Assignments>, view: Arc<View>) {
        let services =
            Arc::ptr_eq(&assignments, &self.assignments) || assignments.services == self.assignments.services;
        let same = |network: &NetworkId| {
            let told =
                |assignments: &Assignments| assignments.networks.get(network).map(|network| network.spec.clone());
            let (before, now) = (&self.view.endpoints, &view.endpoints);
            services
                && told(&assignments) == told(&self.assignments)
                && before.of_network(network).eq(now.of_network(network))
        };
        let changed: Vec<_> = self.zones.keys().filter(|network| !same(network)).cloned().collect();
        changed.iter().for_each(|network| drop(self.zones.remove(network)));
        (self.assignments, self.view) = (assignments, view);
    }

    /// Tells all tasks what is named now on their networks.
    fn tell(&mut self) {
        let Self { assignments, view, zones, tasks, .. } = self;
        zones.retain(|network, _| tasks.values().any(|asking| asking.networks.contains(network)));
        for (task, asking) in tasks {
            let named = asking.networks.iter().filter_map(|id| {
                let network = assignments.networks.get(id)?;
                let make =
                    || Arc::new(inside::zone(network, assignments.services.values(), view.endpoints.of_network(id)));
                Some(zones.entry(id.clone()).or_insert_with(make).clone())
            });
            let scope = Scope { zones: named.collect(), own: Some(task.clone()) };
            asking.scope.send_if_modified(|known| {
                let news = known.own != scope.own
                    || !known.zones.iter().map(Arc::as_ptr).eq(scope.zones.iter().map(Arc::as_ptr));
                if news {
                    *known = scope;
                }
                news
            });
        }
    }

    fn tell_outside(&mut self, networks: &[String]) {
        let Assignments { services, networks: all, .. } = self.assignments.as_ref();
        let world = outside::World { services, networks: all, view: &self.view };
        self.outside.send_replace(Scope { zones: outside::zones(world, networks), own: None });
    }
}

/// Where a node says which resolvers it asks.
pub(crate) fn resolv_conf() -> PathBuf {
    PathBuf::from("/etc/resolv.conf")
}
