//! Networks.

use skep_model::{
    Cluster, Meta, Network, NetworkId, NetworkSpec, NewNetwork, PublishMode, Service, ServiceName, Task, Timestamp,
};
use skep_store::{Change, Key, Tables};

use super::{Control, cluster};
use crate::ControlError;
use crate::allocator::{SubnetError, ipam, next_vni};
use crate::control::SpecError;

impl Control {
    /// Creates a network. Its addresses are chosen where the person has not said which.
    ///
    /// # Errors
    /// When its name or its addresses are taken or make no sense, it would be a second network of the routing mesh, or it cannot be written.
    pub async fn create_network(&self, new: NewNetwork) -> Result<NetworkId, ControlError> {
        self.write(|tables| create(tables, new, Timestamp::now())).await
    }

    /// Removes a network.
    ///
    /// # Errors
    /// When it is not there, a service or a task that is to run is on it, it is the routing mesh's, or it cannot be written.
    pub async fn remove_network(&self, id: &NetworkId) -> Result<(), ControlError> {
        self.write(|tables| {
            unused(tables, id)?;
            Ok(((), vec![Change::Delete(Key::Network(id.clone()))]))
        })
        .await
    }
}

pub(crate) fn create(
    tables: &Tables,
    new: NewNetwork,
    now: Timestamp,
) -> Result<(NetworkId, Vec<Change>), ControlError> {
    let cluster = cluster(tables)?;
    new.name.parse::<ServiceName>().map_err(SpecError::from)?;
    if tables.all::<Network>().any(|network| network.spec.name == new.name) {
        return Err(ControlError::NetworkNameTaken(new.name));
    }
    if let Some(present) = tables.ingress().filter(|_| new.ingress) {
        return Err(ControlError::IngressPresent(present.id.clone()));
    }
    let ipam = ipam(tables, cluster, &new)?;
    let vni = next_vni(tables, cluster).ok_or(SubnetError::NoNumber)?;
    let network = Network {
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
    };
    let cluster = Cluster { last_vni: vni, ..Cluster::clone(cluster) };
    Ok((network.id.clone(), vec![network.into(), cluster.into()]))
}

/// Refuses a network that is not there, or that somebody needs. Tasks that are only to end do not: `docker stack rm` removes services and
/// networks in one go.
pub(crate) fn unused(tables: &Tables, id: &NetworkId) -> Result<(), ControlError> {
    let not_found = || ControlError::NotFound { what: "network", id: id.to_string() };
    let network = tables.get::<Network>(id).ok_or_else(not_found)?;
    if network.spec.ingress {
        let meshed =
            |s: &&std::sync::Arc<Service>| s.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        return Err(match tables.all::<Service>().find(meshed) {
            Some(service) => ControlError::IngressInUse(service.id.clone()),
            None => ControlError::IngressRemoval,
        });
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
