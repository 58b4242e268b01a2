//! What a node's network must do, and the words for it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use ipnet::{Ipv4Net, Ipv6Net};
use skep_model::TaskId;

use crate::changes::Changes;
use crate::error::NetworkError;
use crate::facts::Facts;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The overlay device's address, the same on every node: whoever sends into the overlay needs to ask nobody.
pub const OVERLAY_MAC: MacAddr = MacAddr([0x02, 0x53, 0x4b, 0x45, 0x50, 0x01]);

/// The address of every task link's host side. A link has two ends only, so it need not be unique.
pub const HOST_MAC: MacAddr = MacAddr([0x02, 0x53, 0x4b, 0x45, 0x50, 0x02]);

/// What every task's default route goes to: link-local, so that it can be no one's address, and known by a permanent neighbour entry.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The same for IPv6.
pub const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// How the host side of every task link begins.
pub const TASK_LINK_PREFIX: &str = "skt";

/// The name of a task link's host side: the prefix and as much of the task's id as the kernel's 15 characters have room for.
#[must_use]
pub fn host_link_name(task: &TaskId) -> String {
    format!("{TASK_LINK_PREFIX}{:.12}", task.as_str())
}

/// The address of a task's `eth0`, made from its IPv4 address.
#[must_use]
pub fn task_mac(address: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = address.octets();
    MacAddr([0x02, 0x42, a, b, c, d])
}

/// The overlay device as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// The device's name, 1 to 15 characters.
    pub name: String,
    /// UDP port of the tunnel.
    pub port: u16,
    /// Bytes that a packet inside may have: the underlay's minus [`Self::overhead`].
    pub mtu: u32,
}

impl Overlay {
    /// `skep-vx` on port 4789, between nodes that know this one by `address`, over a link whose MTU is `underlay` bytes.
    #[must_use]
    pub fn over(address: IpAddr, underlay: u32) -> Self {
        Self { name: "skep-vx".into(), port: 4789, mtu: underlay.saturating_sub(Self::overhead(address)) }
    }

    /// What VXLAN to such an address adds to a packet, in bytes: Ethernet (14), VXLAN (8), UDP (8) and the IP header (20 or 40).
    #[must_use]
    pub fn overhead(address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(_) => 50,
            IpAddr::V6(_) => 70,
        }
    }
}

/// The overlay device as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayLink {
    /// Its index in the node's namespace.
    pub ifindex: u32,
    /// Its address: [`OVERLAY_MAC`].
    pub mac: MacAddr,
    /// Its MTU in bytes.
    pub mtu: u32,
}

/// A task's link as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Whose it is.
    pub task: TaskId,
    /// The task's network namespace.
    pub netns: PathBuf,
    /// Its addresses, one for each of its networks. The first is the one by which it talks to everybody else.
    pub addresses: Vec<TaskAddress>,
    /// Bytes that a packet may have: the overlay's.
    pub mtu: u32,
}

/// A task's address on one of its networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskAddress {
    /// The address.
    pub ip: Ipv4Addr,
    /// All addresses of the network: to them the task talks by this address.
    pub subnet: Ipv4Net,
    /// Its IPv6 address, with the length of the network's prefix: to all that begin so the task talks by it.
    pub ipv6: Ipv6Net,
    /// Bytes that a packet to them may have, where that is less than what the link has room for.
    pub mtu: Option<u32>,
}

/// A task's link as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskLink {
    /// Index of the side in the node's namespace.
    pub host_ifindex: u32,
    /// Address of that side: [`HOST_MAC`].
    pub host_mac: MacAddr,
    /// Address of the task's `eth0`.
    pub task_mac: MacAddr,
    /// Index of `eth0` in the task's namespace.
    pub task_ifindex: u32,
    /// Whether the task has an IPv6 address too: not when the kernel has no IPv6, the MTU is below the 1280 bytes that IPv6 needs, or the
    /// task has a sysctl against it.
    pub ipv6: bool,
}

/// The host side of a task link, as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: String,
    /// Its index in the node's namespace.
    pub ifindex: u32,
    /// Whose it is; unknown when skep was killed while it made the link.
    pub task: Option<TaskId>,
}

/// The network of one node. Every method may be called at any time and repeated.
#[async_trait]
pub trait NodeNetwork: Send + Sync {
    /// Kernel settings of the node's namespace that the mesh needs.
    async fn prepare(&self) -> Result<(), NetworkError>;

    /// Makes, repairs or replaces the overlay device.
    async fn ensure_overlay(&self, overlay: &Overlay) -> Result<OverlayLink, NetworkError>;

    /// Removes the overlay device.
    async fn remove_overlay(&self, name: &str) -> Result<(), NetworkError>;

    /// A task's namespace, pinned at `path`, its loopback up.
    async fn ensure_namespace(&self, path: &Path) -> Result<(), NetworkError>;

    /// Lets go of a task's namespace.
    async fn remove_namespace(&self, path: &Path) -> Result<(), NetworkError>;

    /// Makes or repairs a task's link.
    async fn attach(&self, attachment: &Attachment) -> Result<TaskLink, NetworkError>;

    /// Removes a task's link.
    async fn detach(&self, task: &TaskId) -> Result<(), NetworkError>;

    /// Removes a link that [`Self::task_links`] found, whoever it belonged to.
    async fn remove_link(&self, link: &HostLink) -> Result<(), NetworkError>;

    /// The task links that exist, by name.
    async fn task_links(&self) -> Result<Vec<HostLink>, NetworkError>;

    /// What the node has now.
    async fn facts(&self) -> Result<Facts, NetworkError>;

    /// Tells from now on when links or addresses may have changed.
    fn watch(&self) -> Result<Changes, NetworkError>;
}
