//! Networks.

use std::sync::Arc;

use skep_model::{
    Cluster, Meta, Network, NetworkId, NetworkSpec, NewNetwork, Node, PublishMode, Service, ServiceName, Task,
    Timestamp,
};
use skep_store::{Change, Key, Tables};

use super::{Control, cluster};
use crate::ControlError;
use crate::allocator::{EndpointError, SubnetError, first_of, ipam, is_unused, next_vni};
use crate::control::SpecError;

impl Control {
    /// Creates a network. Its addresses are chosen where the person has not said which.
    ///
    /// # Errors
    /// When its name or its addresses are taken or make no sense, it would be a second network of the routing mesh, or it cannot be written.
    pub async fn create_network(&self, new: NewNetwork) -> Result<NetworkId, ControlError> {
        self.write(|tables| create(tables, new, Timestamp::now())).await
    }

    /// Removes a network. Without the routing mesh's nothing can be published there, until another one is made.
    ///
    /// # Errors
    /// When it is not there, a service or a task that is to run is on it, or publishes a port on the routing mesh's; or when it cannot be written.
    pub async fn remove_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        self.write(|tables| Ok(((), remove(tables, id)?))).await
    }
}

pub(crate) fn create(
    tables: &Tables,
    new: NewNetwork,
    now: Timestamp,
) -> Result<(NetworkId, Vec<Change>), ControlError> {
    let cluster = cluster(tables)?;
    new.name.parse::<ServiceName>().map_err(SpecError::from)?;
    if shown(tables).any(|network| network.spec.name == new.name) {
        return Err(ControlError::NetworkNameTaken(new.name));
    }
    if let Some(present) = tables.ingress().filter(|_| new.ingress) {
        return Err(ControlError::IngressPresent(present.id.clone()));
    }
    let ipam = ipam(tables, cluster, &new)?;
    let vni = next_vni(tables, cluster).ok_or(SubnetError::NoNumber)?;
    let mut network = Network {
        id: NetworkId::random(),
        meta: Meta::new(now),
        spec: NetworkSpec {
            name: new.name,
            labels: new.labels,
            ipam,
            ingress: new.ingress,
            internal: new.internal,
            attachable: new.attachable,
            ipv6: new.ipv6,
            options: new.options,
        },
        vni,
        last: None,
        retired: false,
    };
    let cluster = Cluster { last_vni: vni, ..Cluster::clone(cluster) };
    let mut changes = vec![cluster.into()];
    if network.spec.ingress {
        changes.extend(succeed(tables, &mut network)?);
    }
    let id = network.id.clone();
    changes.push(network.into());
    Ok((id, changes))
}

/// The networks that people know of.
fn shown(tables: &Tables) -> impl Iterator<Item = &Arc<Network>> {
    tables.all::<Network>().filter(|network| !network.retired)
}

/// Gives every node an address on the network in place of the one it has. What was the routing mesh's network before goes at once when nobody is on it.
fn succeed(tables: &Tables, network: &mut Network) -> Result<Vec<Change>, ControlError> {
    let nodes = tables.all::<Node>();
    let addresses = first_of(&Arc::new(network.clone()), nodes.len()).map_err(EndpointError::from)?;
    network.last = addresses.last().copied();
    let moved = nodes.zip(addresses).map(|(node, addr)| Node { overlay_addr: Some(addr), ..Node::clone(node) }.into());
    let gone = tables.all::<Network>().filter(|before| before.retired && is_unused(tables, &before.id));
    Ok(moved.chain(gone.map(|before| Change::Delete(Key::Network(before.id.clone())))).collect())
}

pub(crate) fn remove(tables: &Tables, id: &NetworkId) -> Result<Vec<Change>, ControlError> {
    unused(tables, id)?;
    // Every node and every task has an address on it, and by it the way to the world outside.
    let ingress = tables.ingress().filter(|ingress| ingress.id == *id);
    Ok(vec![match ingress {
        Some(ingress) => Network { retired: true, ..Network::clone(ingress) }.into(),
        None => Change::Delete(Key::Network(id.clone())),
    }])
}

/// Refuses a network that is not there, or that somebody needs. Tasks that are only to end do not: `docker stack rm` removes services and
/// networks in one go.
pub(crate) fn unused(tables: &Tables, id: &NetworkId) -> Result<(), ControlError> {
    let not_found = || ControlError::NotFound { what: "network", id: id.to_string() };
    let network = tables.get::<Network>(id).filter(|network| !network.retired).ok_or_else(not_found)?;
    if network.spec.ingress {
        let meshed = |s: &&Arc<Service>| s.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        return match tables.all::<Service>().find(meshed) {
            Some(service) => Err(ControlError::IngressInUse(service.id.clone())),
            None => Ok(()),
        };
    }
    if let Some(service) = tables.all::<Service>().find(|service| service.is_on(id)) {
        let (service, name) = (service.id.clone(), service.spec.name.to_string());
        return Err(ControlError::NetworkInUse { network: id.clone(), service, name });
    }
    // The tasks of a service that is gone are to end, although nobody may have told them yet.
    let wanted = |task: &Task| task.is_live() && tables.get::<Service>(&task.service).is_some();
    match tables.all::<Task>().find(|task| task.spec.is_on(id) && wanted(task)) {
        Some(task) => {
            let (task, name) = (task.id.clone(), task.display_name());
            Err(ControlError::NetworkInUseByTask { network: id.clone(), task, name })
        }
        None => Ok(()),
    }
}
