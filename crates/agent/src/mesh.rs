//! Feeds the data plane: whenever discovery, the service table, the tasks of this node or its devices change, the tables are compiled
//! anew and the data plane is brought to them; and every few seconds regardless, which repairs what somebody else broke.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use skep_mesh::{
    Applied, Datapath, DatapathError, Desired, Devices, LocalTask, LocatedEndpoint, Network, NetworkKind, OwnNode,
    compile,
};
use skep_model::{EndpointRecord, EndpointState, NodeId, PortConflict, Protocol, TaskId};
use skep_netdb::View;
use skep_network::NodePorts;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, warn};

use crate::Assignments;
use crate::reservations::{Reservations, Settled, wanted};
use crate::underlay::Underlay;

/// How often the data plane is compared with what it should be when nothing changes.
const REPAIR: Duration = Duration::from_secs(5);

/// How long the tasks of an earlier daemon may take to be in the mesh again.
const TAKE_OVER: Duration = Duration::from_secs(5);

/// The tasks of this node as its mesh knows them, and the data plane. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mesh {
    locals: watch::Sender<BTreeMap<TaskId, LocalTask>>,
    /// `None` once it was removed.
    datapath: Arc<Mutex<Option<Box<dyn Datapath>>>>,
    reservations: Arc<Mutex<Reservations>>,
    /// The locals that the data plane has: a task is out of the mesh when it is not among them any more.
    applied: watch::Sender<BTreeMap<TaskId, LocalTask>>,
    /// What the data plane was told to be; `None` until it has been told something.
    desired: watch::Sender<Option<Arc<Desired>>>,
    /// Tasks that an earlier daemon had in the mesh and that are not in it again yet.
    expected: watch::Sender<BTreeSet<TaskId>>,
}

/// The data plane is not as it should be.
#[derive(Debug)]
pub(crate) struct NotApplied;

/// What the mesh follows from besides the tasks of this node.
pub(crate) struct Inputs {
    pub(crate) own: NodeId,
    pub(crate) assignments: watch::Receiver<Arc<Assignments>>,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) underlay: watch::Receiver<Underlay>,
    /// Whether this node answers clients of others itself, and lets others answer its own.
    pub(crate) reply_direct: bool,
    /// The others for whom it has been proved that it can.
    pub(crate) direct: watch::Receiver<BTreeSet<std::net::IpAddr>>,
}

impl Mesh {
    pub(crate) fn new(datapath: Box<dyn Datapath>, ports: Arc<dyn NodePorts>) -> Self {
        Self {
            locals: watch::Sender::default(),
            datapath: Arc::new(Mutex::new(Some(datapath))),
            reservations: Arc::new(Mutex::new(Reservations::new(ports))),
            applied: watch::Sender::default(),
            desired: watch::Sender::default(),
            expected: watch::Sender::default(),
        }
    }

    /// These tasks ran before the daemon started. The data plane is left as it is until all of them are in the mesh again, or have
    /// ended: their flows must not notice.
    pub(crate) fn expect(&self, tasks: BTreeSet<TaskId>) {
        self.expected.send_replace(tasks);
    }

    fn settled_for(&self, task: &TaskId) {
        self.expected.send_if_modified(|expected| expected.remove(task));
    }

    /// A task runs here, or something about it has changed.
    pub(crate) fn put(&self, local: LocalTask) {
        let task = local.task.clone();
        self.locals.send_if_modified(|locals| {
            let changed = locals.get(&local.task) != Some(&local);
            locals.insert(local.task.clone(), local);
            changed
        });
        self.settled_for(&task);
    }

    /// Whether the task takes new flows has changed. Nothing happens for a task that is not in the mesh.
    pub(crate) fn set_state(&self, task: &TaskId, state: EndpointState) {
        self.locals.send_if_modified(|locals| match locals.get_mut(task) {
            Some(local) if local.state != state => {
                local.state = state;
                true
            }
            _ => false,
        });
    }

    /// A task does not run here any more.
    pub(crate) fn remove(&self, task: &TaskId) {
        self.locals.send_if_modified(|locals| locals.remove(task).is_some());
        self.settled_for(task);
    }

    /// The task as the mesh knows it.
    pub(crate) fn local(&self, task: &TaskId) -> Option<LocalTask> {
        self.locals.borrow().get(task).cloned()
    }

    /// Host-mode ports of all tasks in the mesh.
    pub(crate) fn locals(&self) -> BTreeMap<TaskId, LocalTask> {
        self.locals.borrow().clone()
    }

    /// Returns once the data plane knows the task as it is now, or cannot be told any more.
    pub(crate) async fn settled(&self, task: &TaskId) {
        let mut applied = self.applied.subscribe();
        // An error means that the driver is gone: there is nothing to wait for.
        let _ = applied.wait_for(|locals| locals.get(task) == self.local(task).as_ref()).await;
    }

    /// Whether the data plane knows the task as it is now.
    pub(crate) fn is_settled(&self, task: &TaskId) -> bool {
        self.applied.borrow().get(task) == self.local(task).as_ref()
    }

    /// Flows to the task that are not closed; 0 when that cannot be known. Takes as long as there are flows: never from an async task.
    pub(crate) fn open_flows(&self, task: &TaskId) -> u64 {
        let table = self.read(|datapath| datapath.flow_table());
        table.and_then(|table| table.ok()?.open_flows(task).ok()).unwrap_or(0)
    }

    /// Published ports that this node leaves to processes of its own, whenever that changes; `None` until it was looked at.
    pub(crate) fn port_conflicts(&self) -> watch::Receiver<Option<Vec<PortConflict>>> {
        self.reservations().watch()
    }

    /// Those of `ports` that a process of this node has.
    pub(crate) fn taken(&self, ports: impl Iterator<Item = (Protocol, NonZeroU16)>) -> Vec<PortConflict> {
        self.reservations().taken(ports)
    }

    fn reservations(&self) -> MutexGuard<'_, Reservations> {
        self.reservations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the data plane was told to be; `None` until it has been told something.
    pub(crate) fn desired(&self) -> Option<Arc<Desired>> {
        self.desired.borrow().clone()
    }

    /// Reads from the data plane, unless it has been taken away. Nothing else happens to it meanwhile: read what is quickly read, and never
    /// from an async task.
    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&dyn Datapath) -> Result<T, DatapathError>,
    ) -> Option<Result<T, DatapathError>> {
        let datapath = self.datapath.lock().unwrap_or_else(PoisonError::into_inner);
        datapath.as_deref().map(read)
    }

    /// Brings the data plane to what `inputs` say, whenever they change. Ends only by being dropped.
    pub(crate) async fn run(self, mut inputs: Inputs) {
        let mut expected = self.expected.subscribe();
        if timeout(TAKE_OVER, expected.wait_for(BTreeSet::is_empty)).await.is_err() {
            warn!("some tasks that ran before this daemon are not in the mesh again");
        }
        let mut locals = self.locals.subscribe();
        let mut repair = interval(REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = locals.borrow_and_update().clone();
            if let Some(desired) = inputs.desired(&now) {
                if self.bring_to(desired).await.is_ok() {
                    self.applied.send_replace(now);
                }
                if self.settle_ports().await == Settled::No {
                    continue;
                }
            }
            tokio::select! {
                Ok(()) = locals.changed() => {}
                Ok(()) = inputs.assignments.changed() => {}
                Ok(()) = inputs.view.changed() => {}
                Ok(()) = inputs.underlay.changed() => {}
                Ok(()) = inputs.direct.changed() => {}
                _ = repair.tick() => {}
            }
        }
    }

    /// Says itself what went wrong.
    pub(crate) async fn bring_to(&self, mut desired: Desired) -> Result<(), NotApplied> {
        let (datapath, mesh) = (self.datapath.clone(), self.clone());
        let apply = move || -> Result<Applied, DatapathError> {
            desired.node.taken = mesh.reservations().look(&wanted(&desired));
            let tables = compile(&desired);
            mesh.desired.send_replace(Some(Arc::new(desired)));
            let mut datapath = datapath.lock().unwrap_or_else(PoisonError::into_inner);
            datapath.as_mut().map_or(Ok(Applied::default()), |d| d.apply(&tables))
        };
        match tokio::task::spawn_blocking(apply).await {
            Ok(Ok(applied)) => {
                if applied.changed() {
                    debug!(?applied, "the mesh was brought up to date");
                }
                return Ok(());
            }
            Ok(Err(e)) => warn!("the mesh is not as it should be, trying again: {e}"),
            Err(e) => warn!("the mesh driver failed, trying again: {e}"),
        }
        Err(NotApplied)
    }

    /// After the data plane, which need not wait for it.
    async fn settle_ports(&self) -> Settled {
        let mesh = self.clone();
        let settled = tokio::task::spawn_blocking(move || mesh.reservations().settle()).await;
        settled.unwrap_or(Settled::Yes)
    }

    /// Takes the data plane away, for a node that leaves its swarm.
    pub(crate) async fn close(&self) -> Result<(), DatapathError> {
        let (datapath, mesh) = (self.datapath.clone(), self.clone());
        let close = move || {
            mesh.reservations().close();
            let taken = datapath.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.map_or(Ok(()), Datapath::close_and_remove)
        };
        tokio::task::spawn_blocking(close).await.unwrap_or(Ok(()))
    }
}

impl Inputs {
    /// What the mesh of this node should be; `None` until managers have given it an address.
    fn desired(&mut self, locals: &BTreeMap<TaskId, LocalTask>) -> Option<Desired> {
        let assignments = self.assignments.borrow_and_update().clone();
        let view = self.view.borrow_and_update().clone();
        let underlay = self.underlay.borrow_and_update().clone();
        let own = assignments.members.get(&self.own)?;
        let node = OwnNode {
            id: self.own.clone(),
            underlay: own.underlay,
            overlay: own.overlay,
            addresses: underlay.addresses,
            taken: BTreeSet::new(),
            reply_direct: self.reply_direct,
            direct: self.direct.borrow_and_update().clone(),
        };
        let devices = Devices {
            loopback: underlay.loopback,
            overlay: underlay.overlay?,
            underlay: underlay.device,
            overlay_mtu: underlay.overlay_mtu,
            overlay_port: underlay.overlay_port,
            ipsec: underlay.ipsec,
            uplinks: underlay.uplinks,
            tunnels: underlay.tunnels,
            ways: underlay.ways,
        };
        let located = |(key, located): (&_, &skep_netdb::Located)| LocatedEndpoint {
            key: Clone::clone(key),
            owner: located.owner.clone(),
            record: EndpointRecord::clone(&located.record),
        };
        Some(Desired {
            node,
            devices,
            members: view.members.values().cloned().collect(),
            member_addresses: BTreeSet::clone(&view.addresses),
            services: assignments.services.values().cloned().collect(),
            networks: networks(&assignments)?,
            endpoints: view.endpoints.iter().map(located).collect(),
            local_tasks: locals.values().map(|local| with_options(local, &assignments)).collect(),
        })
    }
}

/// The swarm's networks; nothing until managers have told which is the routing mesh's, or was it last.
fn networks(assignments: &Assignments) -> Option<Vec<Network>> {
    let kind = |network: &skep_model::Network| match &network.spec {
        _ if network.retired => NetworkKind::Retired,
        spec if spec.ingress => NetworkKind::Ingress,
        spec if spec.internal => NetworkKind::Internal,
        _ => NetworkKind::Open,
    };
    let networks: Vec<_> = (assignments.networks.values())
        .map(|n| Network {
            id: n.id.clone(),
            number: n.vni,
            subnet: n.spec.ipam.subnet.trunc(),
            subnet6: n.spec.ipam.ipv6.map(|ipv6| ipv6.subnet),
            kind: kind(n),
        })
        .collect();
    let home = |network: &Network| matches!(network.kind, NetworkKind::Ingress | NetworkKind::Retired);
    networks.iter().any(home).then_some(networks)
}

/// The task with the options of its host-mode ports as its service has them now. Those of a service that is gone stay as they were: what they keep out
/// stays out until the task is gone too.
fn with_options(local: &LocalTask, assignments: &Assignments) -> LocalTask {
    let mut local = local.clone();
    let service = assignments.tasks.get(&local.task).and_then(|task| assignments.services.get(&task.service));
    if let Some(service) = service {
        local.host_options = service.options_of(&local.host_ports);
    }
    local
}
