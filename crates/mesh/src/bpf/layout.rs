//! Keys and values of the maps, byte for byte as in `bpf/layout.h`. Addresses and ports are in network byte order.

use std::net::Ipv4Addr;

use aya::Pod;

use crate::maglev::SLOTS;

/// Version of everything in this file. Maps of another version are never read.
pub(super) const LAYOUT: u32 = 1;

/// The only entry of `node`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) layout: u32,
    pub(super) underlay: Addr,
    pub(super) overlay: Addr,
    pub(super) loopback: u32,
    pub(super) overlay_ifindex: u32,
    pub(super) mss: u32,
}

/// An IPv4 address as it is in a packet.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Addr(pub(super) [u8; 4]);

impl From<Ipv4Addr> for Addr {
    fn from(addr: Ipv4Addr) -> Self {
        Self(addr.octets())
    }
}

/// Bits of the values of `addresses`.
pub(super) const ADDRESS_OWN: u32 = 1;
pub(super) const ADDRESS_MEMBER: u32 = 2;
pub(super) const ADDRESS_TRUSTED: u32 = 4;

/// Entries of `ports`: one for TCP, one for UDP.
pub(super) const PORTS_TCP: u32 = 0;
pub(super) const PORTS_UDP: u32 = 1;

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

pub(super) const FRONTEND_HOST: u32 = 1;

/// The only entry of each map in `frontends`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Frontend {
    pub(super) flags: u32,
    pub(super) count: u32,
    pub(super) slots: [u32; SLOTS],
}

pub(super) const BACKEND_GONE: u8 = 0;
pub(super) const BACKEND_READY: u8 = 1;
pub(super) const BACKEND_DRAINING: u8 = 2;

/// Entry of `backends`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Backend {
    pub(super) task: u64,
    pub(super) addr: Addr,
    pub(super) node: Addr,
    pub(super) ifindex: u32,
    pub(super) generation: u32,
    pub(super) port: [u8; 2],
    pub(super) published: [u8; 2],
    pub(super) state: u8,
    pub(super) proto: u8,
    pub(super) mac: [u8; 6],
    pub(super) pad: u32,
}

/// Key of `locals`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LocalKey {
    pub(super) addr: Addr,
    pub(super) port: [u8; 2],
    pub(super) proto: u8,
    pub(super) pad: u8,
}

pub(super) const PATH_TASK: u8 = 1;

/// Key of `flows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowKey {
    pub(super) saddr: Addr,
    pub(super) daddr: Addr,
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
    pub(super) origin: [u8; 4],
    pub(super) proto: u8,
    pub(super) path: u8,
    pub(super) pad: u16,
}

pub(super) const OUT_TASK: u8 = 0;
pub(super) const FLOW_REVERSE: u8 = 1;
pub(super) const FLOW_RESET: u8 = 2;

/// Entry of `flows`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) saddr: Addr,
    pub(super) daddr: Addr,
    pub(super) sport: [u8; 2],
    pub(super) dport: [u8; 2],
    pub(super) out: u8,
    pub(super) flags: u8,
    pub(super) tries: u8,
    pub(super) pad: u8,
    pub(super) ifindex: u32,
    pub(super) node: Addr,
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) seen: u32,
    pub(super) closing: u32,
    pub(super) published: [u8; 2],
    pub(super) mac: [u8; 6],
}

/// Entry of `counters`, per CPU.
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
    Node = 24, Addr = 4, PortBits = 8192, FrontendKey = 4, Frontend = 8164, Backend = 40, LocalKey = 8, FlowKey = 20, Flow = 48,
    Traffic = 40,
}
