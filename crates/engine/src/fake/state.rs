//! The swarm of the fake: one manager that does everything at once.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use ipnet::Ipv4Net;
use skep_model::{
    Authority, Cluster, ClusterId, ClusterSpec, ContainerStatus, Endpoint, EndpointMode, EngineDescription, IpamConfig,
    JoinSecrets, ManagerStatus, Meta, Network, NetworkAttachment, NetworkId, NetworkSpec, Node, NodeDescription,
    NodeId, NodeResources, NodeSpec, NodeState, NodeStatus, Platform, PortConflict, PrivateKey, PublishMode,
    PublishedPort, Reachability, Role, Service, ServiceId, ServiceMode, ServiceSpec, Task, TaskId, TaskState,
    TaskStatus, Timestamp, UpdateState, UpdateStatus, Version, VirtualIp, publish_options,
};

use super::node::hex;
use crate::backend::cluster::{Changed, ClusterView, JoinTokens, Pair, Rotate, SwarmChange};
use crate::backend::image::ImageInfo;
use crate::backend::node::SwarmState;
use crate::backend::swarm::{Host, InitOptions};
use crate::backend::volume::VolumeInfo;
use crate::error::{Error, ErrorKind};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) view: Option<ClusterView>,
    pub(super) joined: bool,
    pub(super) images: Vec<ImageInfo>,
    pub(super) volumes: BTreeMap<String, VolumeInfo>,
    version: u64,
    addresses: u8,
    rotations: u32,
    /// How the leader is reached, when it is another one.
    pub(super) leader: Option<crate::backend::leader::Tunnel>,
}

impl State {
    pub(super) fn swarm_state(&self) -> SwarmState {
        match (&self.view, self.joined) {
            (Some(_), _) => SwarmState::Manager,
            (None, true) => SwarmState::Worker,
            (None, false) => SwarmState::Inactive,
        }
    }

    pub(super) fn managed(&self) -> Result<ClusterView, Error> {
        match self.swarm_state() {
            SwarmState::Worker => Err(Error::not_a_manager()),
            _ => self.view.clone().ok_or_else(Error::no_swarm),
        }
    }

    pub(super) fn meta(&mut self) -> Meta {
        self.version += 1;
        Meta { version: Version(self.version), ..Meta::new(Timestamp::now()) }
    }

    pub(super) fn touch(&mut self, meta: &mut Meta) {
        self.version += 1;
        meta.version = Version(self.version);
        meta.updated = Timestamp::now();
    }

    pub(super) fn view(&mut self) -> Result<&mut ClusterView, Error> {
        self.view.as_mut().ok_or_else(Error::no_swarm)
    }

    fn tokens(&self) -> JoinTokens {
        JoinTokens {
            worker: format!("SWMTKN-1-{}-worker{}-good", &hex("digest")[..50], self.rotations),
            manager: format!("SWMTKN-1-{}-manager{}-good", &hex("digest")[..50], self.rotations),
        }
    }

    pub(super) fn start_swarm(&mut self, options: &InitOptions) -> NodeId {
        let addr = match options.advertise_addr.as_ref().map(|a| &a.host) {
            Some(Host::Ip(ip)) => *ip,
            _ => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let ingress = Network {
            id: NetworkId::random(),
            meta: self.meta(),
            spec: NetworkSpec {
                name: "ingress".to_owned(),
                labels: BTreeMap::new(),
                ipam: IpamConfig {
                    subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24),
                    gateway: Ipv4Addr::new(10, 0, 0, 1),
                    range: None,
                    ipv6: None,
                },
                ingress: true,
                internal: false,
                attachable: false,
                ipv6: false,
                options: BTreeMap::new(),
            },
            vni: 4096,
            last: None,
            retired: false,
        };
        let node = self.manager(addr, options);
        let cluster = Cluster {
            id: ClusterId::random(),
            meta: self.meta(),
            spec: options.spec.clone(),
            join: JoinSecrets { worker: String::new(), manager: String::new() },
            authority: Authority {
                certificate: String::new(),
                key: PrivateKey(String::new()),
                trusted: Vec::new(),
                rotation: None,
            },
            unlock_key: None,
            default_pools: options.default_addr_pool.clone(),
            subnet_size: options.subnet_size.unwrap_or(24),
            data_path_port: options.data_path_port.unwrap_or(4789),
            last_vni: 0,
            gossip_keys: None,
        };
        let id = node.id.clone();
        self.addresses = 2;
        self.view = Some(ClusterView {
            cluster: Arc::new(cluster),
            tokens: self.tokens(),
            issuers: BTreeMap::new(),
            nodes: BTreeMap::from([(id.clone(), Arc::new(node))]),
            networks: BTreeMap::from([(ingress.id.clone(), Arc::new(ingress))]),
            services: BTreeMap::new(),
            tasks: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
        });
        id
    }

    fn manager(&mut self, addr: IpAddr, options: &InitOptions) -> Node {
        Node {
            id: NodeId::random(),
            meta: self.meta(),
            spec: NodeSpec {
                name: None,
                labels: BTreeMap::new(),
                role: Role::Manager,
                availability: options.availability,
            },
            description: Some(NodeDescription {
                hostname: "node1".to_owned(),
                platform: Platform { architecture: "x86_64".to_owned(), os: "linux".to_owned() },
                resources: NodeResources { nano_cpus: 2_000_000_000, memory: 1 << 30, ..NodeResources::default() },
                engine: EngineDescription { version: env!("CARGO_PKG_VERSION").to_owned(), labels: BTreeMap::new() },
                routes: Vec::new(),
                routes6: Vec::new(),
                tls: None,
            }),
            status: NodeStatus {
                state: NodeState::Ready,
                message: String::new(),
                addr: Some(addr),
                port_conflicts: Vec::new(),
                machine_answers: false,
            },
            manager: Some(ManagerStatus {
                raft_id: 1,
                addr: SocketAddr::new(addr, 2377),
                leader: true,
                reachability: Reachability::Reachable,
            }),
            overlay_addr: Some(Ipv4Addr::new(10, 0, 0, 2)),
            credential: String::new(),
        }
    }

    pub(super) fn update_cluster(&mut self, version: Version, spec: ClusterSpec, rotate: &Rotate) -> Result<(), Error> {
        let mut cluster = (*self.view()?.cluster).clone();
        in_sequence(cluster.meta.version, version)?;
        self.touch(&mut cluster.meta);
        cluster.spec = spec;
        self.rotations += u32::from(rotate.worker || rotate.manager);
        let tokens = self.tokens();
        let view = self.view()?;
        view.cluster = Arc::new(cluster);
        if rotate.worker {
            view.tokens.worker = tokens.worker;
        }
        if rotate.manager {
            view.tokens.manager = tokens.manager;
        }
        Ok(())
    }

    pub(super) fn update_node(&mut self, id: &NodeId, version: Version, spec: NodeSpec) -> Result<(), Error> {
        if spec.role == Role::Worker {
            let last = "attempting to demote the last manager of the swarm";
            return Err(Error::new(ErrorKind::FailedPrecondition, last));
        }
        let mut node = (**self.view()?.nodes.get(id).ok_or_else(|| Error::not_found("node", id))?).clone();
        in_sequence(node.meta.version, version)?;
        self.touch(&mut node.meta);
        node.spec = spec;
        self.view()?.nodes.insert(id.clone(), Arc::new(node));
        Ok(())
    }

    pub(super) fn set_port_conflicts(&mut self, conflicts: &[PortConflict]) -> Result<(), Error> {
        for node in self.view()?.nodes.values_mut() {
            Arc::make_mut(node).status.port_conflicts = conflicts.to_vec();
        }
        Ok(())
    }

    pub(super) fn create_service(&mut self, spec: ServiceSpec) -> Result<ServiceId, Error> {
        let view = self.view()?;
        if view.services.values().any(|s| s.spec.name == spec.name) {
            let message = format!("name conflicts with an existing object: service {} already exists", spec.name);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let id = ServiceId::random();
        let endpoint = self.endpoint(&id, &spec, None)?;
        let meta = self.meta();
        let service = Service {
            id: id.clone(),
            meta,
            spec,
            previous_spec: None,
            task_version: meta.version,
            endpoint,
            update_status: None,
        };
        self.run(service)?;
        Ok(id)
    }

    pub(super) fn update_service(&mut self, id: &ServiceId, version: Version, spec: ServiceSpec) -> Result<(), Error> {
        let mut service = self.service(id)?;
        in_sequence(service.meta.version, version)?;
        service.endpoint = self.endpoint(id, &spec, Some(&service.endpoint))?;
        self.touch(&mut service.meta);
        let old = std::mem::replace(&mut service.spec, spec);
        let now = Timestamp::now();
        service.update_status = None;
        if old.task != service.spec.task {
            service.task_version = service.meta.version;
            service.update_status = Some(UpdateStatus {
                state: UpdateState::Completed,
                started: now,
                completed: Some(now),
                message: "update completed".to_owned(),
            });
        }
        service.previous_spec = Some(Box::new(old));
        self.run(service)
    }

    pub(super) fn rollback_service(&mut self, id: &ServiceId, version: Version) -> Result<(), Error> {
        let service = self.service(id)?;
        let previous = service.previous_spec.ok_or_else(|| {
            Error::new(ErrorKind::FailedPrecondition, format!("service {id} does not have a previous spec"))
        })?;
        self.update_service(id, version, *previous)?;
        let mut service = self.service(id)?;
        if let Some(status) = &mut service.update_status {
            status.state = UpdateState::RollbackCompleted;
            status.message = "rollback completed".to_owned();
        }
        self.view()?.services.insert(id.clone(), Arc::new(service));
        Ok(())
    }

    pub(super) fn remove_service(&mut self, id: &ServiceId) -> Result<(), Error> {
        let view = self.view()?;
        view.services.remove(id).ok_or_else(|| Error::not_found("service", id))?;
        view.tasks.retain(|_, task| task.service != *id);
        Ok(())
    }

    fn service(&mut self, id: &ServiceId) -> Result<Service, Error> {
        let found = self.view()?.services.get(id).ok_or_else(|| Error::not_found("service", id))?;
        Ok((**found).clone())
    }

    fn address(&mut self) -> Ipv4Net {
        self.addresses += 1;
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, self.addresses), 24)
    }

    fn ingress(&mut self) -> Result<NetworkId, Error> {
        let ingress = self.view()?.networks.values().find(|network| network.spec.ingress);
        ingress.map(|network| network.id.clone()).ok_or_else(Error::no_swarm)
    }

    fn endpoint(&mut self, id: &ServiceId, spec: &ServiceSpec, old: Option<&Endpoint>) -> Result<Endpoint, Error> {
        let taken: Vec<(PublishedPort, String)> = self
            .view()?
            .services
            .values()
            .filter(|s| s.id != *id)
            .flat_map(|s| s.endpoint.ports.iter().map(|p| (*p, format!("'{}' ({})", s.spec.name, s.id))))
            .collect();
        let mut ports: Vec<PublishedPort> = Vec::new();
        for port in spec.ports() {
            let number = match port.published {
                Some(number) => number,
                None if port.mode == PublishMode::Host => continue,
                None => (30_000..=32_767)
                    .filter_map(NonZeroU16::new)
                    .find(|n| !taken.iter().any(|(p, _)| p.published == *n))
                    .ok_or_else(|| Error::invalid("no port is left"))?,
            };
            if let Some((_, by)) = taken.iter().find(|(p, _)| p.published == number && p.protocol == port.protocol) {
                let message = format!("port '{number}' is already in use by service {by} as an ingress port");
                return Err(Error::invalid(message));
            }
            let (protocol, target, mode) = (port.protocol, port.target, port.mode);
            ports.push(PublishedPort { protocol, target, published: number, mode });
        }
        publish_options(&spec.labels, &ports).map_err(|e| Error::invalid(e.to_string()))?;
        let network = self.ingress()?;
        let kept = old.map(|o| o.virtual_ips.clone()).unwrap_or_default();
        let ingress = (!spec.ports().is_empty()).then_some(network);
        let networks = ingress.into_iter().chain(spec.task.networks.iter().map(|(network, _)| network.clone()));
        let vip = |network: NetworkId| match kept.iter().find(|vip| vip.network == network) {
            Some(kept) => kept.clone(),
            None => VirtualIp { network, addr: self.address() },
        };
        let dnsrr = spec.endpoint.as_ref().is_some_and(|e| e.mode == Some(EndpointMode::Dnsrr));
        let virtual_ips = networks.filter(|_| !dnsrr).map(vip).collect();
        Ok(Endpoint { spec: spec.endpoint.clone(), ports, virtual_ips })
    }

    /// Stores the service and makes its tasks what they should be, at once.
    fn run(&mut self, service: Service) -> Result<(), Error> {
        let replicas = match service.spec.mode {
            ServiceMode::Replicated { replicas } => replicas,
            ServiceMode::Global => 1,
        };
        let global = service.spec.mode == ServiceMode::Global;
        let mut current = 0;
        for task in self.view()?.tasks.values_mut().filter(|t| t.service == service.id) {
            let fits = task.service_version == service.task_version && task.slot.is_none_or(|s| s <= replicas);
            match fits && task.desired == TaskState::Running {
                true => current += 1,
                false => {
                    let task = Arc::make_mut(task);
                    task.desired = TaskState::Shutdown;
                    task.status.state = TaskState::Shutdown;
                }
            }
        }
        for slot in current + 1..=replicas {
            let task = self.task(&service, (!global).then_some(slot))?;
            self.view()?.tasks.insert(task.id.clone(), Arc::new(task));
        }
        self.view()?.services.insert(service.id.clone(), Arc::new(service));
        Ok(())
    }

    fn task(&mut self, service: &Service, slot: Option<u64>) -> Result<Task, Error> {
        let id = TaskId::random();
        let network = self.ingress()?;
        let node = self.view()?.nodes.keys().next().cloned();
        Ok(Task {
            meta: self.meta(),
            service: service.id.clone(),
            service_name: service.spec.name.clone(),
            service_labels: service.spec.labels.clone(),
            service_version: service.task_version,
            slot,
            node,
            spec: service.spec.task.clone(),
            generic: Default::default(),
            desired: TaskState::Running,
            status: TaskStatus {
                timestamp: Timestamp::now(),
                state: TaskState::Running,
                message: "started".to_owned(),
                err: None,
                container: Some(ContainerStatus { id: hex(id.as_str()), pid: 4242, exit_code: None }),
                host_ports: Vec::new(),
            },
            attachments: std::iter::once(network)
                .chain(service.spec.task.networks.iter().map(|(network, _)| network.clone()))
                .map(|network| NetworkAttachment { network, addr: self.address() })
                .collect(),
            host_ports: service.spec.host_ports().cloned().collect(),
            id,
        })
    }
}

pub(super) fn in_sequence(current: Version, named: Version) -> Result<(), Error> {
    if current == named { Ok(()) } else { Err(Error::out_of_sequence()) }
}

/// What is not as it was.
pub(super) fn differences(before: Option<&ClusterView>, after: Option<&ClusterView>) -> Vec<SwarmChange> {
    let (Some(before), Some(after)) = (before, after) else { return Vec::new() };
    let mut changes = Vec::new();
    collect(&before.nodes, &after.nodes, Changed::Node, &mut changes);
    collect(&before.networks, &after.networks, Changed::Network, &mut changes);
    collect(&before.services, &after.services, Changed::Service, &mut changes);
    collect(&before.tasks, &after.tasks, Changed::Task, &mut changes);
    collect(&before.secrets, &after.secrets, Changed::Secret, &mut changes);
    collect(&before.configs, &after.configs, Changed::Config, &mut changes);
    changes
}

fn collect<K: Ord, T: PartialEq>(
    before: &BTreeMap<K, Arc<T>>,
    after: &BTreeMap<K, Arc<T>>,
    object: impl Fn(Pair<T>) -> Changed,
    changes: &mut Vec<SwarmChange>,
) {
    let at = Timestamp::now();
    let mut push = |pair| changes.push(SwarmChange { at, object: object(pair) });
    for (key, new) in after {
        let old = before.get(key);
        if old != Some(new) {
            push(Pair { old: old.cloned(), new: Some(new.clone()) });
        }
    }
    for (_, old) in before.iter().filter(|(key, _)| !after.contains_key(key)) {
        push(Pair { old: Some(old.clone()), new: None });
    }
}
