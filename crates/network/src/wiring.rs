//! Cables between namespaces, for labs and tests.

use std::net::IpAddr;

use crate::driver::Netlink;
use crate::error::NetworkError;
use crate::namespace::Namespace;

/// Lays links inside one namespace and from it to others.
#[derive(Debug)]
pub struct Wiring {
    netlink: Netlink,
}

impl Wiring {
    /// Works in `namespace`. To be called within a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be entered.
    pub fn inside(namespace: &Namespace) -> Result<Self, NetworkError> {
        Ok(Self { netlink: Netlink::inside(namespace)? })
    }

    /// A bridge, switched on.
    ///
    /// # Errors
    /// When the kernel refuses, or the name is taken.
    pub async fn add_bridge(&self, name: &str) -> Result<(), NetworkError> {
        self.netlink.add_bridge(name).await?;
        self.netlink.raise(name).await
    }

    /// A cable from `name` here, plugged into `bridge`, to `peer` inside `other`.
    ///
    /// # Errors
    /// When the kernel refuses, or a name is taken.
    pub async fn add_cable(&self, name: &str, bridge: &str, other: &Namespace, peer: &str) -> Result<(), NetworkError> {
        self.netlink.add_pair(name, peer, other).await?;
        self.netlink.plug(name, bridge).await
    }

    /// Gives a link an address, which may be used at once, and switches it on.
    ///
    /// # Errors
    /// When there is no such link, or the kernel refuses.
    pub async fn add_address(&self, link: &str, ip: IpAddr, prefix_len: u8) -> Result<(), NetworkError> {
        let index = self.netlink.require(link).await?.link.index;
        self.netlink.raise(link).await?;
        self.netlink.add_address(index, link, ip, prefix_len).await
    }

    /// Switches a link on.
    ///
    /// # Errors
    /// When there is no such link, or the kernel refuses.
    pub async fn raise(&self, link: &str) -> Result<(), NetworkError> {
        self.netlink.raise(link).await
    }

    /// Switches a link off.
    ///
    /// # Errors
    /// When there is no such link, or the kernel refuses.
    pub async fn lower(&self, link: &str) -> Result<(), NetworkError> {
        self.netlink.lower(link).await
    }

    /// Takes a link away, and with a cable its other end. No error when there is none.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn remove(&self, link: &str) -> Result<(), NetworkError> {
        self.netlink.delete_by_name(link).await
    }
}
