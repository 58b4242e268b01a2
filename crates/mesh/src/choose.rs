//! Which task a new flow is given to, by the same arithmetic as in the kernel (`bpf/frontends.h`): for people who ask why.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use skep_model::{EndpointKey, TaskId};

use crate::maglev::SLOTS;
use crate::table::{Frontend, FrontendKey, Group};

/// Tasks that are asked for before one that is passed over is taken after all.
const TRIES: u32 = 16;

/// The task that a client's new flow gets. `passed_over` are those that do not answer at present ([`Datapath::passed_over`]): where the
/// first choices are all among them, the very first stands. `None` when nobody is ready.
///
/// [`Datapath::passed_over`]: crate::Datapath::passed_over
#[must_use]
pub fn choose<'a>(
    key: FrontendKey,
    frontend: &Frontend,
    group: &'a Group,
    client: SocketAddr,
    passed_over: &BTreeSet<TaskId>,
) -> Option<&'a EndpointKey> {
    let hash = hash(key, frontend.affinity, client);
    let choice = |n: u32| {
        let slot = if n == 0 { hash } else { mix(hash.wrapping_add(n)) } as usize % SLOTS;
        group.ready.get(*group.slots.get(slot)? as usize)
    };
    (0..TRIES).find_map(|n| choice(n).filter(|endpoint| !passed_over.contains(&endpoint.task))).or_else(|| choice(0))
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
