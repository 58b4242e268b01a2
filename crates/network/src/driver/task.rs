//! The link between a node and one of its tasks.

use std::net::IpAddr;
use std::path::Path;

use ipnet::{IpNet, Ipv6Net};

use crate::driver::Netlink;
use crate::error::NetworkError;
use crate::namespace::Namespace;
use crate::node::{Attachment, GATEWAY, GATEWAY6, HOST_MAC, TaskLink, host_link_name, task_mac};
use crate::sysctl;

const TASK_SIDE: &str = "eth0";

/// What every IPv6 link has room for (RFC 8200).
const IPV6_LEAST: u32 = 1280;

/// An address of a task, and whom it talks to by it.
#[derive(Debug, Clone, Copy)]
struct Own {
    address: IpAddr,
    /// `None` for everybody whom no other address is for.
    to: Option<IpNet>,
    /// Bytes that a packet to them may have; `None` for as many as the link takes.
    mtu: Option<u32>,
}

/// Makes the link if it is not there or not right, then everything on it, which is idempotent.
pub(super) async fn attach(node: &Netlink, wanted: &Attachment) -> Result<TaskLink, NetworkError> {
    let namespace = Namespace::open(Path::new(&wanted.netns))?;
    namespace.run(sysctl::prepare_task)??;
    let inside = Netlink::inside(&namespace)?;
    let name = host_link_name(&wanted.task);
    let first = wanted.addresses.first().ok_or_else(|| NetworkError::NoTaskAddress(wanted.task.clone()))?;
    let mac = task_mac(first.ip);
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
    // A loose reverse path filter, as some distributions have it, takes nothing from a device without an address.
    node.add_address(host.index, &name, GATEWAY.into(), 32).await?;
    let task = inside.require(TASK_SIDE).await?.link;
    inside.raise("lo").await?;
    inside.set(&task, wanted.mtu, mac).await?;
    let ipv6 = namespace.run(|| sysctl::prepare_task_device(TASK_SIDE))??;
    address(&inside, task.index, &addresses(wanted, ipv6)).await?;
    Ok(TaskLink { host_ifindex: host.index, host_mac: HOST_MAC, task_mac: mac, task_ifindex: task.index, ipv6 })
}

/// Whether the two ends are there and are each other's.
async fn is_connected(node: &Netlink, inside: &Netlink, name: &str) -> Result<bool, NetworkError> {
    let (Some(host), Some(task)) = (node.find(name).await?, inside.find(TASK_SIDE).await?) else {
        return Ok(false);
    };
    Ok(host.peer == Some(task.link.index) && task.peer == Some(host.link.index))
}

/// All addresses of the task in both families; the first of each is for everybody.
fn addresses(wanted: &Attachment, ipv6: bool) -> Vec<Own> {
    let nets = (0..).zip(&wanted.addresses).flat_map(|(n, address)| {
        let to = |net: IpNet| Some(net).filter(|_| n > 0);
        let v4 = Own { address: address.ip.into(), to: to(address.subnet.into()), mtu: address.mtu };
        let mtu = address.mtu.map(|mtu| mtu.max(IPV6_LEAST));
        let v6 = Own { address: address.ipv6.addr().into(), to: to(address.ipv6.trunc().into()), mtu };
        [v4].into_iter().chain(ipv6.then_some(v6))
    });
    nets.collect()
}

/// Gives the task's side these addresses, and no others, and a way out by each.
async fn address(inside: &Netlink, eth0: u32, own: &[Own]) -> Result<(), NetworkError> {
    let wanted = |ip: IpAddr| own.iter().any(|own| own.address == ip);
    for old in inside.addresses().await?.iter().filter(|a| a.link == eth0 && !wanted(a.ip)) {
        inside.remove_address(eth0, TASK_SIDE, old.ip).await?;
    }
    for Own { address, to, mtu } in own {
        let (host, gateway, everywhere) = match address {
            IpAddr::V4(_) => (32, GATEWAY.into(), IpNet::V4(ipnet::Ipv4Net::default())),
            IpAddr::V6(_) => (128, GATEWAY6.into(), IpNet::V6(Ipv6Net::default())),
        };
        inside.add_address(eth0, TASK_SIDE, *address, host).await?;
        inside.add_neighbour(eth0, TASK_SIDE, gateway, HOST_MAC).await?;
        inside.add_route(eth0, to.unwrap_or(everywhere), gateway, *address, *mtu).await?;
    }
    Ok(())
}
