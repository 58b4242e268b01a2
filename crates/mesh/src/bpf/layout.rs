//! Keys and values of the maps, byte for byte as in `bpf/layout.h`. Addresses and ports are in network byte order.

use std::net::IpAddr;

use aya::Pod;

use crate::maglev::SLOTS;

/// Version of everything in this file. Maps of another version are never read.
pub(super) const LAYOUT: u32 = 4;

pub(super) const NODE_REPLY_DIRECT: u32 = 1;

/// The only entry of `node`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) layout: u32,
    pub(super) flags: u32,
    pub(super) underlay: Addr,
    pub(super) overlay: [u8; 4],
    pub(super) loopback: u32,
    pub(super) overlay_ifindex: u32,
    pub(super) mtu: u32,
    pub(super) uplink: u32,
    pub(super) tunnel_port: [u8; 2],
    pub(super) pad: u16,
}

/// An address of either family as in an IPv6 packet; IPv4 ones are mapped (RFC 4291, 2.5.5.2).
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Addr(pub(super) [u8; 16]);

impl From<IpAddr> for Addr {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self(addr.to_ipv6_mapped().octets()),
            IpAddr::V6(addr) => Self(addr.octets()),
        }
    }
}

impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        Self::from(addr.0).to_canonical()
    }
}

/// Entry of `addresses`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Address {
    pub(super) flags: u32,
    pub(super) ifindex: u32,
}

/// Its flags.
pub(super) const ADDRESS_OWN: u32 = 1;
pub(super) const ADDRESS_MEMBER: u32 = 2;
pub(super) const ADDRESS_TRUSTED: u32 = 4;
pub(super) const ADDRESS_DIRECT: u32 = 8;

/// One bit per port.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PortBits(pub(super) [u64; 1024]);

/// Key of `frontends`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FrontendKey {
    pub(super) port: [u8; 2],
    pub(super) proto: u8,
    pub(super) pad: u8,
}

pub(super) const FRONTEND_HOST: u16 = 1;
pub(super) const FRONTEND_SILENT: u16 = 2;
pub(super) const FRONTEND_AFFINITY: u16 = 4;
pub(super) const FRONTEND_PREFIX: u16 = 8;

pub(super) const IDLE_AT_ONCE: u16 = 0xffff;

/// The number of what nobody counts by port.
pub(super) const NO_PORT: u32 = 0xffff;

/// Entry of `frontends` and of `vips`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frontend {
    pub(super) table: u32,
    pub(super) number: u32,
    pub(super) sources: u32,
    pub(super) listen: u32,
    pub(super) network: u32,
    pub(super) target: [u8; 2],
    pub(super) flags: u16,
    pub(super) idle: u16,
    pub(super) pad: u16,
}

/// The list in `networks` of the swarm's own networks; the other lists have no number 0.
pub(super) const LIST_OVERLAYS: u32 = 0;

/// Key of `networks` behind the number of bits.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network {
    pub(super) list: u32,
    pub(super) addr: Addr,
}

/// Entry of `tables`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) number: u32,
    pub(super) count: u32,
    pub(super) slots: [u16; SLOTS + 1],
}

pub(super) const BACKEND_GONE: u8 = 0;
pub(super) const BACKEND_READY: u8 = 1;
pub(super) const BACKEND_DRAINING: u8 = 2;
pub(super) const BACKEND_STARTING: u8 = 3;

/// Of its flags: its kernel has no IPv6; it may talk to the world outside.
pub(super) const BACKEND_NO_IPV6: u8 = 1;
pub(super) const BACKEND_EGRESS: u8 = 2;
pub(super) const BACKEND_PREFIX: u8 = 4;

/// Entry of `backends`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backend {
    pub(super) task: u64,
    pub(super) node: Addr,
    pub(super) addr: [u8; 4],
    pub(super) ifindex: u32,
    pub(super) generation: u32,
    pub(super) peer: u32,
    pub(super) network: u32,
    pub(super) pad: u32,
    pub(super) state: u8,
    pub(super) mac: [u8; 6],
    pub(super) flags: u8,
}

/// Key of `vips`: a service's own address.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Vip(pub(super) [u8; 4]);

/// Entry of `ways`, whose keys are a number of bits and an [`Addr`].
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) source: Addr,
    pub(super) ifindex: u32,
    pub(super) mtu: u32,
}

/// Entry of `peers`: when a node was heard, and when it was suspected, in ticks; 0 for never.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) heard: u32,
    pub(super) suspected: u32,
}

/// Key of `locals`: a task's address, or with none the port and protocol that some task of the node serves on.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LocalKey {
    pub(super) addr: [u8; 4],
    pub(super) port: [u8; 2],
    pub(super) proto: u8,
    pub(super) pad: u8,
}

pub(super) const KIND_ASKED: u8 = 0;
pub(super) const KIND_SERVED: u8 = 1;

/// Key of `flows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowKey {
    pub(super) saddr: Addr,
    pub(super) daddr: Addr,
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
    pub(super) proto: u8,
    pub(super) kind: u8,
    pub(super) pad: u16,
}

pub(super) const OUT_TUNNEL: u8 = 3;
pub(super) const OUT_DIRECT: u8 = 4;

pub(super) const FLOW_ANSWERED: u8 = 0x01;
pub(super) const FLOW_CLIENT_FIN: u8 = 0x02;
pub(super) const FLOW_TASK_FIN: u8 = 0x04;
pub(super) const FLOW_RESET: u8 = 0x20;
pub(super) const FLOW_CHANGED: u8 = 0x40;

/// Entry of `flows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) far: Addr,
    pub(super) node: Addr,
    pub(super) far_port: [u8; 2],
    pub(super) port: [u8; 2],
    pub(super) ifindex: u32,
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) frontend: u16,
    pub(super) idle: u16,
    pub(super) seen: u32,
    pub(super) fin: u32,
    pub(super) out: u8,
    pub(super) flags: u8,
    pub(super) tries: u8,
    pub(super) pad: u8,
}

/// Entry of `counters` and `port_counters`, per CPU.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Traffic {
    pub(super) flows: u64,
    pub(super) packets_in: u64,
    pub(super) bytes_in: u64,
    pub(super) packets_out: u64,
    pub(super) bytes_out: u64,
}

macro_rules! pod {
    ($($name:ty = $size:literal),* $(,)?) => {$(
        // SAFETY: a `repr(C)` struct of integers and arrays of them, whose size says that there is no padding in it: every bit
        // pattern is a value and every byte is initialised.
        unsafe impl Pod for $name {}
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

pod! {
    Node = 48, Addr = 16, Address = 8, PortBits = 8192, FrontendKey = 4, Frontend = 28, Network = 20, Table = 4016, Backend = 56, Peer = 8, LocalKey = 8,
    FlowKey = 40, Vip = 4, Way = 24, Flow = 64, Traffic = 40,
}
