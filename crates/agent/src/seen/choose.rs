//! Which backend the data plane would choose for a new flow: the same number as `bpf/frontends.h` comes to.

use std::net::{IpAddr, SocketAddr};

use skep_mesh::Frontend;
use skep_model::seen::SeenPort;

/// Chooses the slot of a port's Maglev table for a client; `None` when nobody is ready or the client cannot be served.
pub(super) type Choose = fn(&Frontend, &SeenPort, SocketAddr) -> Option<usize>;

/// As the data plane does.
pub(super) fn choose(frontend: &Frontend, port: &SeenPort, client: SocketAddr) -> Option<usize> {
    let IpAddr::V4(addr) = client.ip() else { return None };
    // The data plane hashes the bytes as they are on the wire.
    let addr = u32::from_ne_bytes(addr.octets());
    let wire = |number: u16| u32::from(u16::from_ne_bytes(number.to_be_bytes()));
    let own = if port.client_affinity { 0 } else { client.port() };
    let ports = wire(own) << 16 | wire(port.published);
    let hash = mix(mix(addr ^ 0x736b_6570).wrapping_add(mix(ports)).wrapping_add(port.protocol.number().into()));
    (hash as usize).checked_rem(frontend.slots.len())
}

/// The finalizer of MurmurHash3.
fn mix(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    let hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}
