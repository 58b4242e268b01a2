//! The node's network in the kernel.

mod netlink;
mod task;

use std::path::Path;

use async_trait::async_trait;
use skep_model::TaskId;
use tracing::warn;

pub(crate) use netlink::Netlink;

use crate::changes::Changes;
use crate::error::NetworkError;
use crate::facts::Facts;
use crate::ipsec;
use crate::namespace::Namespace;
use crate::node::{
    Attachment, HostLink, NodeNetwork, OVERLAY_MAC, Overlay, OverlayLink, TASK_LINK_PREFIX, TaskLink, host_link_name,
};
use crate::sysctl;

/// The network of the namespace in which this process runs. Needs CAP_NET_ADMIN, and CAP_SYS_ADMIN for namespaces.
#[derive(Debug)]
pub struct KernelNetwork {
    netlink: Netlink,
}

impl KernelNetwork {
    /// Opens a netlink socket. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When the kernel has no netlink.
    pub fn new() -> Result<Self, NetworkError> {
        Ok(Self { netlink: Netlink::here()? })
    }
}

#[async_trait]
impl NodeNetwork for KernelNetwork {
    async fn prepare(&self) -> Result<(), NetworkError> {
        if !sysctl::has_ipv6() {
            warn!(
                "this kernel has no IPv6 (not built in, or switched off with ipv6.disable=1): services answer by IPv4 only"
            );
        }
        sysctl::prepare_node()
    }

    async fn ensure_overlay(&self, overlay: &Overlay) -> Result<OverlayLink, NetworkError> {
        let found = self.netlink.find(&overlay.name).await?;
        let usable = found.as_ref().is_some_and(|f| f.vxlan_port == Some(overlay.port));
        if let (Some(found), false) = (&found, usable) {
            self.netlink.delete(found.link.index).await?;
        }
        if !usable {
            self.netlink.add_overlay(overlay).await?;
        }
        let link = self.netlink.require(&overlay.name).await?.link;
        sysctl::prepare_own_device(&overlay.name)?;
        self.netlink.set(&link, overlay.mtu, OVERLAY_MAC).await?;
        Ok(OverlayLink { ifindex: link.index, mac: OVERLAY_MAC, mtu: overlay.mtu })
    }

    async fn remove_overlay(&self, name: &str) -> Result<(), NetworkError> {
        self.netlink.delete_by_name(name).await
    }

    async fn ensure_namespace(&self, path: &Path) -> Result<(), NetworkError> {
        Namespace::ensure(path).map(|_| ())
    }

    async fn remove_namespace(&self, path: &Path) -> Result<(), NetworkError> {
        Namespace::delete(path)
    }

    async fn attach(&self, attachment: &Attachment) -> Result<TaskLink, NetworkError> {
        task::attach(&self.netlink, attachment).await
    }

    async fn detach(&self, task: &TaskId) -> Result<(), NetworkError> {
        self.netlink.delete_by_name(&host_link_name(task)).await
    }

    async fn remove_link(&self, link: &HostLink) -> Result<(), NetworkError> {
        self.netlink.delete_by_name(&link.name).await
    }

    async fn task_links(&self) -> Result<Vec<HostLink>, NetworkError> {
        let mut found: Vec<HostLink> = (self.netlink.links().await?.into_iter())
            .filter(|f| f.link.name.starts_with(TASK_LINK_PREFIX))
            .map(|f| HostLink { task: f.alias.and_then(|a| a.parse().ok()), name: f.link.name, ifindex: f.link.index })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn facts(&self) -> Result<Facts, NetworkError> {
        let mut links: Vec<_> = self.netlink.links().await?.into_iter().map(|f| f.link).collect();
        links.sort_by_key(|l| l.index);
        let (routes, ways) = self.netlink.routes().await?;
        Ok(Facts { links, addresses: self.netlink.addresses().await?, routes, ways, ipsec: ipsec::has_policies()? })
    }

    fn watch(&self) -> Result<Changes, NetworkError> {
        Changes::of_this_namespace()
    }
}
