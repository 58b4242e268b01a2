//! What a task may ask for: names on a network that it is on.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use skep_model::{EndpointKey, EndpointRecord, EndpointState, Network, NetworkId, Prefix6, ServiceEntry, ServiceId};
use skep_netdb::Located;

use crate::zone::{Ports, Target, Zone};

/// How long an answer with a service's own address may be kept, in seconds: that stays as long as the service.
const SERVICE_TTL: u32 = 5;
/// And one with a task's address, in seconds.
pub(crate) const TASK_TTL: u32 = 1;

/// What is named on `network`, whose endpoints are `endpoints`. Names of services come first: no task can take one by its host name.
#[must_use]
pub fn zone<'a>(
    network: &Network,
    services: impl Iterator<Item = &'a ServiceEntry>,
    endpoints: impl Iterator<Item = (&'a EndpointKey, &'a Located)>,
) -> Zone {
    let mut naming = Naming {
        families: Families::of(network),
        tasks: HashMap::new(),
        zone: Zone {
            name: network.spec.name.to_ascii_lowercase(),
            subnet: Some(network.spec.ipam.subnet),
            subnet6: Some(network.spec.subnet6()),
            prefix6: network.spec.prefix6(),
            ..Zone::default()
        },
    };
    for (key, located) in endpoints {
        naming.tasks.entry(located.record.service.clone()).or_default().push((key, &located.record));
    }
    for service in services {
        if let Some(on) = service.networks.iter().find(|on| on.network == network.id) {
            naming.service(service, &network.id, &on.aliases);
        }
    }
    naming.single_tasks();
    naming.zone
}

/// Of which families addresses are told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Families {
    V4,
    /// IPv6 ones too, which begin so.
    Both(Prefix6),
}

impl Families {
    fn of(network: &Network) -> Self {
        if network.spec.ipv6 { Self::Both(network.spec.prefix6()) } else { Self::V4 }
    }

    fn addresses(self, address: Ipv4Addr) -> Vec<IpAddr> {
        match self {
            Self::V4 => vec![address.into()],
            Self::Both(prefix) => vec![address.into(), prefix.with(address).into()],
        }
    }
}

struct Naming<'a> {
    families: Families,
    tasks: HashMap<ServiceId, Vec<(&'a EndpointKey, &'a EndpointRecord)>>,
    zone: Zone,
}

impl Naming<'_> {
    fn service(&mut self, service: &ServiceEntry, network: &NetworkId, aliases: &[String]) {
        let records = self.tasks.get(&service.id).map(Vec::as_slice).unwrap_or_default();
        let open: Vec<_> = takers(records).map(|(key, record)| self.target(key, record)).collect();
        let own = service.virtual_ips.iter().find(|ip| ip.network == *network).map(|ip| ip.addr.addr());
        let own = own.map(|address| {
            let name = format!("{}.{}", service.name.to_ascii_lowercase(), self.zone.name);
            self.zone.addresses.insert(address.into(), name.clone());
            let addresses = self.families.addresses(address);
            Arc::new(Target { name, addresses, ports: Ports::Same, ttl: SERVICE_TTL, only_for: None })
        });
        for name in std::iter::once(&service.name).chain(aliases) {
            let tasks = format!("tasks.{name}");
            self.zone.claim(&tasks);
            open.iter().for_each(|target| self.zone.add(&tasks, target));
            self.zone.claim(name);
            match &own {
                Some(own) => self.zone.add(name, own),
                None => open.iter().for_each(|target| self.zone.add(name, target)),
            }
        }
    }

    /// Each task by its own names: with its identifier, without it, and the further ones that its node tells.
    fn single_tasks(&mut self) {
        let mut single = Zone::default();
        for (key, record) in self.tasks.values().flatten() {
            let target = self.target(key, record);
            single.add(&full_name(key, record), &target);
            record.aliases.iter().for_each(|alias| single.add(alias, &target));
            self.zone.addresses.insert(record.addr.into(), target.name.clone());
        }
        for (name, named) in single.names {
            self.zone.names.entry(name).or_insert(named);
        }
    }

    fn target(&self, key: &EndpointKey, record: &EndpointRecord) -> Arc<Target> {
        Arc::new(Target {
            name: format!("{}.{}", full_name(key, record), self.zone.name),
            addresses: self.families.addresses(record.addr),
            ports: Ports::Same,
            ttl: TASK_TTL,
            only_for: (record.state != EndpointState::Ready).then(|| key.task.clone()),
        })
    }
}

/// `web.1.<task id>`: the first of the names that the task's node tells is the one that people see.
fn full_name(key: &EndpointKey, record: &EndpointRecord) -> String {
    let seen = record.aliases.first().map_or("task", String::as_str);
    format!("{}.{}", seen.to_ascii_lowercase(), key.task)
}

/// Those that take new flows: ready ones, and of those the ones whose node is heard of, as long as there are such.
pub(crate) fn takers<'a, K: Copy + 'a>(
    records: &'a [(K, &'a EndpointRecord)],
) -> impl Iterator<Item = (K, &'a EndpointRecord)> {
    let ready = |record: &EndpointRecord| record.state == EndpointState::Ready;
    let heard_of = records.iter().any(|(_, record)| ready(record) && record.weight > 0);
    let takes = move |record: &EndpointRecord| ready(record) && (record.weight > 0 || !heard_of);
    records.iter().filter(move |(_, record)| takes(record)).copied()
}
