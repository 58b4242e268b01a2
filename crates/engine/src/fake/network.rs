//! The networks of the fake's swarm.

use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use skep_model::{IpamConfig, Ipv6Subnet, Network, NetworkId, NetworkSpec, NewNetwork, Prefix6, Service};

use super::state::State;
use crate::error::{Error, ErrorKind};

fn ipv6(new: &NewNetwork, gateway: Ipv4Addr) -> Option<Ipv6Subnet> {
    let subnet = new.subnet6?;
    Some(Ipv6Subnet {
        subnet,
        gateway: new.gateway6.unwrap_or_else(|| Prefix6::of(subnet).unwrap_or_default().with(gateway)),
    })
}

impl State {
    pub(super) fn create_network(&mut self, new: NewNetwork) -> Result<NetworkId, Error> {
        let meta = self.meta();
        let view = self.view()?;
        if let Some(present) = view.networks.values().find(|network| network.spec.ingress && new.ingress) {
            let message = format!("ingress network ({}) is already present", present.id);
            return Err(Error::new(ErrorKind::AlreadyExists, message));
        }
        let number = u8::try_from(view.networks.len()).unwrap_or(u8::MAX);
        let subnet = new.subnet.unwrap_or_else(|| Ipv4Net::new_assert(Ipv4Addr::new(10, 0, number, 0), 24));
        let gateway = new.gateway.unwrap_or_else(|| Ipv4Addr::from(u32::from(subnet.network()) + 1));
        let ipv6 = ipv6(&new, gateway);
        let spec = NetworkSpec {
            name: new.name,
            labels: new.labels,
            ipam: IpamConfig { subnet, gateway, range: new.range, ipv6 },
            ingress: new.ingress,
            internal: new.internal,
            attachable: new.attachable,
            ipv6: new.ipv6,
            options: new.options,
        };
        let id = NetworkId::random();
        let network = Network { id: id.clone(), meta, spec, vni: 4096 + u32::from(number), last: None, retired: false };
        view.networks.insert(id.clone(), Arc::new(network));
        Ok(id)
    }

    pub(super) fn remove_network(&mut self, id: &NetworkId) -> Result<(), Error> {
        let view = self.view()?;
        let reached = |s: &&Arc<Service>| s.is_on(id) || s.endpoint.virtual_ips.iter().any(|vip| vip.network == *id);
        if let Some(service) = view.services.values().find(reached) {
            let message = match view.networks.get(id).is_some_and(|network| network.spec.ingress) {
                true => format!("ingress network cannot be removed because service {} depends on it", service.id),
                false => format!("network {id} is in use by service {}", service.id),
            };
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        }
        view.networks.remove(id).map(drop).ok_or_else(|| Error::not_found("network", id))
    }
}
