//! The link between a node and one of its tasks.

use std::net::IpAddr;
use std::path::Path;

use skep_model::mesh_ipv6;

use crate::driver::Netlink;
use crate::error::NetworkError;
use crate::namespace::Namespace;
use crate::node::{Attachment, GATEWAY, GATEWAY6, HOST_MAC, TaskLink, host_link_name, task_mac};
use crate::sysctl;

const TASK_SIDE: &str = "eth0";

/// An address of a task, and what its default route of that family goes to.
type Family = (IpAddr, IpAddr);

/// Makes the link if it is not there or not right, then everything on it, which is idempotent.
pub(super) async fn attach(node: &Netlink, wanted: &Attachment) -> Result<TaskLink, NetworkError> {
    let namespace = Namespace::open(Path::new(&wanted.netns))?;
    namespace.run(sysctl::prepare_task)??;
    let inside = Netlink::inside(&namespace)?;
    let name = host_link_name(&wanted.task);
    let mac = task_mac(wanted.address);
    if !is_connected(node, &inside, &name).await? {
        node.delete_by_name(&name).await?;
        inside.delete_by_name(TASK_SIDE).await?;
        namespace.run(sysctl::enable_ipv6)??;
        node.add_task_pair(&name, TASK_SIDE, &namespace, wanted.mtu, mac).await?;
    }
    let host = node.require(&name).await?.link;
    sysctl::prepare_own_device(&name)?;
    node.set_alias(host.index, &name, wanted.task.as_str()).await?;
    node.set(&host, wanted.mtu, HOST_MAC).await?;
    let task = inside.require(TASK_SIDE).await?.link;
    inside.raise("lo").await?;
    inside.set(&task, wanted.mtu, mac).await?;
    let ipv6 = namespace.run(|| sysctl::prepare_task_device(TASK_SIDE))??;
    address(&inside, task.index, &families(wanted, ipv6)).await?;
    Ok(TaskLink { host_ifindex: host.index, host_mac: HOST_MAC, task_mac: mac, task_ifindex: task.index, ipv6 })
}

/// Whether the two ends are there and are each other's.
async fn is_connected(node: &Netlink, inside: &Netlink, name: &str) -> Result<bool, NetworkError> {
    let (Some(host), Some(task)) = (node.find(name).await?, inside.find(TASK_SIDE).await?) else {
        return Ok(false);
    };
    Ok(host.peer == Some(task.link.index) && task.peer == Some(host.link.index))
}

fn families(wanted: &Attachment, ipv6: bool) -> Vec<Family> {
    let v4 = (wanted.address.into(), GATEWAY.into());
    let v6 = (mesh_ipv6(wanted.address).into(), GATEWAY6.into());
    [v4].into_iter().chain(ipv6.then_some(v6)).collect()
}

/// Gives the task's side these addresses, and no others, and a way out by each.
async fn address(inside: &Netlink, eth0: u32, families: &[Family]) -> Result<(), NetworkError> {
    let wanted = |ip: IpAddr| families.iter().any(|(address, _)| *address == ip);
    for old in inside.addresses().await?.iter().filter(|a| a.link == eth0 && !wanted(a.ip)) {
        inside.remove_address(eth0, TASK_SIDE, old.ip).await?;
    }
    for (address, gateway) in families {
        let host = if address.is_ipv4() { 32 } else { 128 };
        inside.add_address(eth0, TASK_SIDE, *address, host).await?;
        inside.add_neighbour(eth0, TASK_SIDE, *gateway, HOST_MAC).await?;
        inside.add_default_route(eth0, *gateway).await?;
    }
    Ok(())
}
