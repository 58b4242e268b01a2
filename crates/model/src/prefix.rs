//! How IPv6 addresses inside the mesh begin.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// How many bits that are.
const BITS: u8 = 96;

/// The first 96 bits of IPv6 addresses inside the mesh. The rest of each is the IPv4 address of the same task, service or node, so that nobody
/// has to give them out or tell them to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix6([u16; 6]);

impl Prefix6 {
    /// That of nodes, and of networks without an IPv6 subnet of their own (RFC 4193). No packet outside a tunnel carries it, so it need not be
    /// unique among swarms.
    pub const MESH: Self = Self([0xfd73, 0x6b65, 0x7000, 0, 0, 0]);

    /// That of a network with this subnet: the first of its addresses has it. A subnet with less than 32 bits left has none.
    #[must_use]
    pub fn of(subnet: Ipv6Net) -> Option<Self> {
        let [a, b, c, d, e, f, ..] = subnet.network().segments();
        (subnet.prefix_len() <= BITS).then_some(Self([a, b, c, d, e, f]))
    }

    /// The address that goes with an IPv4 address.
    #[must_use]
    pub fn with(self, address: Ipv4Addr) -> Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        let [w, x, y, z] = address.octets();
        Ipv6Addr::new(a, b, c, d, e, f, u16::from_be_bytes([w, x]), u16::from_be_bytes([y, z]))
    }

    /// The IPv4 address that goes with an address, if that begins so.
    #[must_use]
    pub fn ipv4_of(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        let [.., w, x, y, z] = address.octets();
        (address.segments()[..6] == self.0).then(|| [w, x, y, z].into())
    }

    /// All addresses that begin so.
    #[must_use]
    pub fn all(self) -> Ipv6Net {
        Ipv6Net::new_assert(self.with(Ipv4Addr::UNSPECIFIED), BITS)
    }

    /// Those that go with the addresses of an IPv4 network.
    #[must_use]
    pub fn net(self, net: Ipv4Net) -> Ipv6Net {
        Ipv6Net::new_assert(self.with(net.addr()), BITS + net.prefix_len())
    }
}

impl Default for Prefix6 {
    fn default() -> Self {
        Self::MESH
    }
}

/// The IPv6 address that goes with an address of a node, or of a task on a network that has no IPv6 subnet of its own.
#[must_use]
pub fn mesh_ipv6(address: Ipv4Addr) -> Ipv6Addr {
    Prefix6::MESH.with(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_two_families() {
        assert_eq!(mesh_ipv6([10, 0, 1, 2].into()).to_string(), "fd73:6b65:7000::a00:102");
        let own = Prefix6::of("2001:db8:9::/64".parse().unwrap()).unwrap();
        let address = own.with([10, 9, 0, 2].into());
        assert_eq!(address.to_string(), "2001:db8:9::a09:2");
        assert_eq!(own.ipv4_of(address), Some([10, 9, 0, 2].into()));
        assert_eq!((own.ipv4_of(mesh_ipv6([10, 9, 0, 2].into())), Prefix6::MESH.ipv4_of(address)), (None, None));
        assert_eq!(own.all().to_string(), "2001:db8:9::/96");
        assert_eq!(own.net("10.9.0.0/24".parse().unwrap()).to_string(), "2001:db8:9::a09:0/120");
    }

    #[test]
    fn a_subnet_needs_room_for_ipv4_addresses() {
        let of = |subnet: &str| Prefix6::of(subnet.parse().unwrap());
        assert_eq!(of("fd00:1:2:3:4:5::/96").unwrap().with([10, 0, 0, 1].into()).to_string(), "fd00:1:2:3:4:5:a00:1");
        assert_eq!(of("fd00:1:2:3:4:5::/97"), None);
    }
}
