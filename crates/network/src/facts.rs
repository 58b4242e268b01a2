//! What a node has: links, addresses, destinations.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::error::NetworkError;
use crate::node::MacAddr;

/// A device of the node's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What the kernel calls its kind (`veth`, `bridge`, `vxlan`, ...); nothing for hardware and loopback.
    pub kind: Option<String>,
    /// Its Ethernet address, if it has one.
    pub mac: Option<MacAddr>,
    /// Bytes that a packet may have.
    pub mtu: u32,
    /// Switched on.
    pub up: bool,
    /// The loopback device.
    pub loopback: bool,
    /// Made by skep: the overlay device or a task link.
    pub own: bool,
}

/// An IPv4 address of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Length of its network's prefix, 0 to 32.
    pub prefix_len: u8,
    /// Index of the link that has it.
    pub link: u32,
    /// Valid beyond the link and the host.
    pub global: bool,
}

/// What a node has at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Devices by index.
    pub links: Vec<Link>,
    /// IPv4 addresses, in the kernel's order.
    pub addresses: Vec<Address>,
    /// Destinations of the main table's IPv4 routes; the default route is `0.0.0.0/0`.
    pub routes: Vec<Ipv4Net>,
}

impl Facts {
    /// A device by its name.
    #[must_use]
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.iter().find(|l| l.name == name)
    }

    /// A device by its index.
    #[must_use]
    pub fn link_by_index(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|l| l.index == index)
    }

    /// Whether the address is one of the node's.
    #[must_use]
    pub fn has_address(&self, ip: Ipv4Addr) -> bool {
        self.addresses.iter().any(|a| a.ip == ip)
    }

    /// The MTU in bytes of the link that has the address.
    ///
    /// # Errors
    /// When none has it.
    pub fn mtu_of(&self, ip: Ipv4Addr) -> Result<u32, NetworkError> {
        let address = self.addresses.iter().find(|a| a.ip == ip);
        let link = address.and_then(|a| self.link_by_index(a.link));
        link.map(|l| l.mtu).ok_or(NetworkError::NotOurAddress(ip))
    }

    /// The address that other nodes are told when the operator names none: the only one there is.
    ///
    /// # Errors
    /// When there is none, or more than one: then the operator must choose.
    pub fn choose_advertise_addr(&self) -> Result<Ipv4Addr, NetworkError> {
        let mut found: Option<(Ipv4Addr, &Link)> = None;
        for link in self.links.iter().filter(|l| l.up && !l.loopback && !l.own) {
            for ip in self.global_addresses(link) {
                match found {
                    None => found = Some((ip, link)),
                    Some((first, on)) if on.index == link.index => {
                        let interface = link.name.clone();
                        return Err(NetworkError::AmbiguousInterface { interface, first, second: ip });
                    }
                    Some((first, on)) => {
                        let (first, second) = ((first, on.name.clone()), (ip, link.name.clone()));
                        return Err(NetworkError::AmbiguousSystem { first, second });
                    }
                }
            }
        }
        found.map(|(ip, _)| ip).ok_or(NetworkError::NoAddress)
    }

    /// The one address of the named interface.
    ///
    /// # Errors
    /// When there is no such interface, or it has no address or several.
    pub fn interface_addr(&self, name: &str) -> Result<Ipv4Addr, NetworkError> {
        let link = self.link(name).ok_or_else(|| NetworkError::NoInterface(name.to_owned()))?;
        let mut addresses = self.global_addresses(link);
        let first = addresses.next().ok_or_else(|| NetworkError::InterfaceWithoutAddress(name.to_owned()))?;
        match addresses.next() {
            None => Ok(first),
            Some(second) => Err(NetworkError::SeveralOnInterface { interface: name.to_owned(), first, second }),
        }
    }

    fn global_addresses(&self, link: &Link) -> impl Iterator<Item = Ipv4Addr> {
        let index = link.index;
        self.addresses.iter().filter(move |a| a.link == index && a.global).map(|a| a.ip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link {
            index,
            name: name.into(),
            kind: None,
            mac: None,
            mtu: 1500 - index,
            up: true,
            loopback: name == "lo",
            own: name.starts_with("sk"),
        }
    }

    fn address(ip: [u8; 4], link: u32) -> Address {
        Address { ip: ip.into(), prefix_len: 24, link, global: ip[0] != 127 }
    }

    fn facts(addresses: Vec<Address>) -> Facts {
        let links = vec![link(1, "lo"), link(2, "eth0"), link(3, "d1"), link(4, "sktabc")];
        Facts { links, addresses, routes: Vec::new() }
    }

    #[test]
    fn the_only_address_is_chosen_and_loopback_and_own_links_do_not_count() {
        let facts = facts(vec![address([127, 0, 0, 1], 1), address([10, 77, 0, 2], 2), address([10, 0, 0, 3], 4)]);
        assert_eq!(facts.choose_advertise_addr().unwrap(), Ipv4Addr::new(10, 77, 0, 2));
        assert_eq!(facts.mtu_of(Ipv4Addr::new(10, 77, 0, 2)).unwrap(), 1498);
        assert!(matches!(facts.mtu_of(Ipv4Addr::new(1, 1, 1, 1)), Err(NetworkError::NotOurAddress(_))));
    }

    #[test]
    fn several_addresses_are_named() {
        let two = facts(vec![address([10, 77, 0, 2], 2), address([10, 78, 0, 2], 3)]);
        assert_eq!(
            two.choose_advertise_addr().unwrap_err().to_string(),
            "could not choose an IP address to advertise since this system has multiple addresses on different interfaces (10.77.0.2 on eth0 and 10.78.0.2 on d1)"
        );
        assert_eq!(two.interface_addr("d1").unwrap(), Ipv4Addr::new(10, 78, 0, 2));
        let same = facts(vec![address([10, 77, 0, 2], 2), address([10, 77, 0, 22], 2)]);
        assert_eq!(
            same.interface_addr("eth0").unwrap_err().to_string(),
            "interface eth0 has more than one IPv4 address (10.77.0.2 and 10.77.0.22)"
        );
        assert!(matches!(same.choose_advertise_addr(), Err(NetworkError::AmbiguousInterface { .. })));
    }

    #[test]
    fn no_address_and_no_interface_are_said() {
        let none = facts(vec![address([127, 0, 0, 1], 1)]);
        assert!(matches!(none.choose_advertise_addr(), Err(NetworkError::NoAddress)));
        assert!(matches!(none.interface_addr("eth7"), Err(NetworkError::NoInterface(_))));
        assert!(matches!(none.interface_addr("eth0"), Err(NetworkError::InterfaceWithoutAddress(_))));
    }
}
