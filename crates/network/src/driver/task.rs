//! The link between a node and one of its tasks.

use std::path::Path;

use crate::driver::Netlink;
use crate::error::NetworkError;
use crate::namespace::Namespace;
use crate::node::{Attachment, GATEWAY, HOST_MAC, TaskLink, host_link_name, task_mac};
use crate::sysctl;

const TASK_SIDE: &str = "eth0";

/// Makes the link if it is not there or not right, then everything on it, which is idempotent.
pub(super) async fn attach(node: &Netlink, wanted: &Attachment) -> Result<TaskLink, NetworkError> {
    let namespace = Namespace::open(Path::new(&wanted.netns))?;
    namespace.run(sysctl::prepare_task)??;
    let inside = Netlink::inside(&namespace)?;
    let name = host_link_name(&wanted.task);
    if !is_connected(node, &inside, &name).await? {
        node.delete_by_name(&name).await?;
        inside.delete_by_name(TASK_SIDE).await?;
        node.add_task_pair(&name, TASK_SIDE, &namespace, wanted.mtu, task_mac(wanted.address)).await?;
    }
    let host = node.require(&name).await?.link;
    sysctl::prepare_own_device(&name)?;
    node.set_alias(host.index, &name, wanted.task.as_str()).await?;
    node.set(host.index, &name, wanted.mtu, Some(HOST_MAC)).await?;
    let task = inside.require(TASK_SIDE).await?.link;
    set_up_inside(&inside, task.index, wanted).await?;
    Ok(TaskLink {
        host_ifindex: host.index,
        host_mac: HOST_MAC,
        task_mac: task_mac(wanted.address),
        task_ifindex: task.index,
    })
}

/// Whether the two ends are there and are each other's.
async fn is_connected(node: &Netlink, inside: &Netlink, name: &str) -> Result<bool, NetworkError> {
    let (Some(host), Some(task)) = (node.find(name).await?, inside.find(TASK_SIDE).await?) else {
        return Ok(false);
    };
    Ok(host.peer == Some(task.link.index) && task.peer == Some(host.link.index))
}

async fn set_up_inside(inside: &Netlink, eth0: u32, wanted: &Attachment) -> Result<(), NetworkError> {
    inside.raise("lo").await?;
    inside.set(eth0, TASK_SIDE, wanted.mtu, Some(task_mac(wanted.address))).await?;
    for old in inside.addresses().await?.iter().filter(|a| a.link == eth0 && a.ip != wanted.address) {
        inside.remove_address(eth0, TASK_SIDE, old.ip).await?;
    }
    inside.add_address(eth0, TASK_SIDE, wanted.address, 32).await?;
    inside.add_neighbour(eth0, TASK_SIDE, GATEWAY, HOST_MAC).await?;
    inside.add_default_route(eth0, GATEWAY).await
}
