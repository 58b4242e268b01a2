//! Which task a new flow is given to, by the same arithmetic as in the kernel (`bpf/frontends.h`): for people who ask why.

use std::net::{IpAddr, SocketAddr};

use skep_model::TaskId;

use crate::maglev::SLOTS;
use crate::table::{Frontend, FrontendKey, Group};

/// The task that a client's new flow gets, if every node answers in time. `None` when nobody is ready.
#[must_use]
pub fn choose<'a>(key: FrontendKey, frontend: &Frontend, group: &'a Group, client: SocketAddr) -> Option<&'a TaskId> {
    let slot = hash(key, frontend.affinity, client) as usize % SLOTS;
    group.ready.get(*group.slots.get(slot)? as usize)
}

fn hash(key: FrontendKey, affinity: bool, client: SocketAddr) -> u32 {
    let address = match client.ip() {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    let mut hash = 0x736b_6570;
    for (i, word) in (0..).zip(address.octets().chunks_exact(4)) {
        hash = mix(hash ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]])).wrapping_add(i);
    }
    // Ports as the kernel reads them: two bytes in network order as a little-endian number.
    let (port, published) = (client.port().swap_bytes(), key.port.swap_bytes());
    if !affinity {
        hash ^= mix(u32::from(port) << 16 | u32::from(published));
    }
    mix(hash.wrapping_add(u32::from(key.protocol.number())))
}

/// The finalizer of MurmurHash3.
fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}
