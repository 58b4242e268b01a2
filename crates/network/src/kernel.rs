//! The real network.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::Path;

use async_trait::async_trait;
use ipnet::Ipv4Net;
use rtnetlink::packet_route::link::InfoKind;
use rtnetlink::{LinkVeth, LinkVxlan};
use skep_model::{Protocol, TaskId};

use crate::links::{Links, OVERLAY_DEVICE, TASK_PREFIX, TaskLink, TaskNet, task_device};
use crate::netlink::Netlink;
use crate::{Facts, NetworkError, listeners, namespace, sysctl};

/// The overlay device has the same hardware address on every node, so that no node need ask for another's.
const OVERLAY_MAC: [u8; 6] = [0x02, 0x73, 0x6b, 0x01, 0x00, 0x00];
/// What the host's side of every veth pair is addressed by: it is the only neighbour that a task has.
const GATEWAY_MAC: [u8; 6] = [0x02, 0x73, 0x6b, 0x02, 0x00, 0x00];
/// The task's side.
const TASK_DEVICE: &str = "eth0";

/// Devices of the network namespace in which it was made. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Kernel(Netlink);

impl Kernel {
    /// For the calling thread's network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses a netlink socket, or a parameter that the mesh needs.
    pub fn open() -> Result<Self, NetworkError> {
        sysctl::for_mesh()?;
        Ok(Self(Netlink::open()?))
    }

    async fn ensure_pair(&self, net: &TaskNet, name: &str) -> Result<(), NetworkError> {
        if self.0.link(name).await?.is_some() {
            if has_task_side(net.netns.clone()).await? {
                return Ok(());
            }
            // Half a pair: the other half went with a namespace.
            self.0.remove(name).await?;
        }
        let failed = |source| NetworkError::Namespace { path: net.netns.clone(), doing: "open", source };
        let netns = File::open(&net.netns).map_err(failed)?;
        // Made here with its peer in the task's namespace at once, so that no name of ours is ever taken here.
        let peer = LinkVeth::new(TASK_DEVICE, name).setns_by_fd(netns.as_raw_fd()).mtu(net.mtu).build();
        let made = self.0.add(name, peer).await;
        drop(netns);
        made
    }
}

#[async_trait]
impl Links for Kernel {
    async fn facts(&self) -> Result<Facts, NetworkError> {
        self.0.facts().await
    }

    async fn ensure_overlay(&self, port: u16, mtu: u32) -> Result<u32, NetworkError> {
        match self.0.link(OVERLAY_DEVICE).await? {
            Some(link) if link.kind == Some(InfoKind::Vxlan) => {}
            Some(_) => return Err(NetworkError::NotOurs { name: OVERLAY_DEVICE.to_owned(), expected: "VXLAN device" }),
            None => {
                // Without checksums outside: the inner packets have their own (RFC 7348, 5).
                let device = LinkVxlan::new(OVERLAY_DEVICE).collect_metadata(true).port(port).learning(false).udp_csum(false);
                self.0.add(OVERLAY_DEVICE, device.build()).await?;
            }
        }
        let link = self.0.existing(OVERLAY_DEVICE).await?;
        self.0.set_mac(&link, OVERLAY_MAC).await?;
        sysctl::for_own_device(OVERLAY_DEVICE)?;
        self.0.set_up(&link, mtu).await?;
        Ok(link.index)
    }

    async fn remove_overlay(&self) -> Result<(), NetworkError> {
        self.0.remove(OVERLAY_DEVICE).await
    }

    async fn create_namespace(&self, path: &Path) -> Result<(), NetworkError> {
        let path = path.to_owned();
        blocking(move || namespace::create(&path)).await
    }

    async fn remove_namespace(&self, path: &Path) -> Result<(), NetworkError> {
        let path = path.to_owned();
        blocking(move || namespace::remove(&path)).await
    }

    async fn attach(&self, net: &TaskNet) -> Result<TaskLink, NetworkError> {
        let name = task_device(&net.task);
        self.ensure_pair(net, &name).await?;
        let host = self.0.existing(&name).await?;
        self.0.set_mac(&host, GATEWAY_MAC).await?;
        sysctl::for_own_device(&name)?;
        self.0.set_up(&host, net.mtu).await?;
        let mac = configure_task_side(net.clone()).await?;
        Ok(TaskLink { host_ifindex: host.index, mac })
    }

    async fn detach(&self, task: &TaskId) -> Result<(), NetworkError> {
        self.0.remove(&task_device(task)).await
    }

    async fn task_devices(&self) -> Result<BTreeSet<String>, NetworkError> {
        let links = self.0.links().await?;
        Ok(links.into_iter().map(|l| l.name).filter(|name| name.starts_with(TASK_PREFIX)).collect())
    }

    async fn remove_device(&self, name: &str) -> Result<(), NetworkError> {
        self.0.remove(name).await
    }

    async fn listeners(&self, netns: &Path) -> Result<BTreeSet<(Protocol, u16)>, NetworkError> {
        let path = netns.to_owned();
        let failed = |source| NetworkError::Namespace { path: netns.to_owned(), doing: "ask what listens in it", source };
        blocking(move || namespace::inside(&path, listeners::here)).await?.map_err(failed)
    }
}

async fn has_task_side(netns: std::path::PathBuf) -> Result<bool, NetworkError> {
    in_namespace(netns, async |netlink| Ok(netlink.link(TASK_DEVICE).await?.is_some())).await
}

/// Address, neighbour, route and parameters of the task's side; its hardware address.
async fn configure_task_side(net: TaskNet) -> Result<[u8; 6], NetworkError> {
    in_namespace(net.netns.clone(), async move |netlink| {
        let link = netlink.existing(TASK_DEVICE).await?;
        netlink.set_up(&link, net.mtu).await?;
        netlink.add_address(&link, host_net(net.addr)).await?;
        netlink.add_neighbour(&link, net.gateway, GATEWAY_MAC).await?;
        netlink.add_default_route(&link, net.gateway).await?;
        let not_ethernet = || NetworkError::NotOurs { name: TASK_DEVICE.to_owned(), expected: "Ethernet device" };
        link.mac.try_into().map_err(|_| not_ethernet())
    })
    .await
}

fn host_net(addr: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::from(addr)
}

/// Runs requests in another namespace, on a thread with a runtime of its own.
async fn in_namespace<R: Send + 'static>(
    netns: std::path::PathBuf,
    work: impl AsyncFnOnce(Netlink) -> Result<R, NetworkError> + Send + 'static,
) -> Result<R, NetworkError> {
    let requests = move || -> Result<R, NetworkError> {
        let failed = |e: std::io::Error| NetworkError::Netlink { doing: "start a runtime".to_owned(), why: e.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        runtime.block_on(async move { work(Netlink::open()?).await })
    };
    blocking(move || namespace::inside(&netns, requests)).await?
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> R {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}
