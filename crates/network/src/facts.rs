//! What a node has: links, addresses, destinations.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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
    /// Index of the device that it is a port of: a bridge, a bond, a team, a VRF.
    pub master: Option<u32>,
}

/// An address of the node. Link-local IPv6 addresses are none: they mean nothing without a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// Length of its network's prefix, 0 to 32, or to 128.
    pub prefix_len: u8,
    /// Index of the link that has it.
    pub link: u32,
    /// Valid beyond the link and the host.
    pub global: bool,
    /// There to stay: not one that the kernel makes for privacy and drops within days (RFC 8981), and not on its way out.
    pub lasting: bool,
}

/// What a node has at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Devices by index.
    pub links: Vec<Link>,
    /// Addresses that can be used, in the kernel's order, IPv4 first.
    pub addresses: Vec<Address>,
    /// Destinations of the main table's routes without link-local and multicast ones; default routes are `0.0.0.0/0` and `::/0`.
    pub routes: Vec<IpNet>,
    /// Those of them that lead somewhere, the best for each destination.
    pub ways: Vec<Way>,
    /// Whether packets that leave or arrive may have to be encrypted: policies of IPsec are there for them.
    pub ipsec: bool,
}

/// Where the best route to a destination leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// The destination.
    pub to: IpNet,
    /// Index of the link; of several the first.
    pub link: u32,
    /// The node's address that the route says to use, if it says so.
    pub source: Option<IpAddr>,
}

/// The most routes that a node tells managers of: a full table of the Internet's would be a burden to all of them.
const TOLD_ROUTES: usize = 256;

impl Facts {
    /// The routes of each family that lead somewhere in particular, the widest first, and no more of them than a manager should have to keep.
    #[must_use]
    pub fn telling_routes(&self) -> (Vec<Ipv4Net>, Vec<Ipv6Net>) {
        let mut telling = (Vec::new(), Vec::new());
        for route in &self.routes {
            match route {
                // Two halves are a default route too, and so is all of what the Internet has.
                IpNet::V4(route) if route.prefix_len() > 1 => telling.0.push(*route),
                IpNet::V6(route) if route.prefix_len() > 3 => telling.1.push(*route),
                _ => (),
            }
        }
        telling.0.sort_by_key(|route| (route.prefix_len(), *route));
        telling.1.sort_by_key(|route| (route.prefix_len(), *route));
        telling.0.truncate(TOLD_ROUTES);
        telling.1.truncate(TOLD_ROUTES);
        telling
    }

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

    /// By which of the node's addresses something goes that goes a way: as the route says, or the first of the link of that family.
    #[must_use]
    pub fn source_of(&self, way: &Way) -> Option<IpAddr> {
        let of_link = |lasting: bool| {
            let fits = move |a: &&Address| a.link == way.link && a.global && a.lasting == lasting;
            self.addresses.iter().filter(fits).map(|a| a.ip).find(|ip| ip.is_ipv4() == way.to.addr().is_ipv4())
        };
        way.source.or_else(|| of_link(true)).or_else(|| of_link(false))
    }

    /// Whether the address is one of the node's.
    #[must_use]
    pub fn has_address(&self, ip: IpAddr) -> bool {
        self.addresses.iter().any(|a| a.ip == ip)
    }

    /// The MTU in bytes of the link that has the address.
    ///
    /// # Errors
    /// When none has it.
    pub fn mtu_of(&self, ip: IpAddr) -> Result<u32, NetworkError> {
        let address = self.addresses.iter().find(|a| a.ip == ip);
        let link = address.and_then(|a| self.link_by_index(a.link));
        link.map(|l| l.mtu).ok_or(NetworkError::NotOurAddress(ip))
    }

    /// Whether packets come through the device itself, and not through the bridge, bond or team that it is a port of. Ports of a VRF
    /// stay what they are.
    #[must_use]
    pub fn is_enslaved(&self, link: &Link) -> bool {
        let master = link.master.and_then(|index| self.link_by_index(index));
        master.is_some_and(|master| master.kind.as_deref() != Some("vrf"))
    }

    /// The address that other nodes are told when the operator names none: the only IPv4 address there is, or, on a node without any, the
    /// only IPv6 address.
    ///
    /// # Errors
    /// When there is none, or more than one: then the operator must choose.
    pub fn choose_advertise_addr(&self) -> Result<IpAddr, NetworkError> {
        match self.only_address(IpAddr::is_ipv4) {
            Err(NetworkError::NoAddress) => self.only_address(IpAddr::is_ipv6),
            chosen => chosen,
        }
    }

    fn only_address(&self, family: fn(&IpAddr) -> bool) -> Result<IpAddr, NetworkError> {
        let mut found: Option<(IpAddr, &Link)> = None;
        for link in self.links.iter().filter(|l| l.up && !l.loopback && !l.own) {
            for ip in self.global_addresses(link).filter(family) {
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

    /// The one address of the named interface; of its IPv4 address and its IPv6 address, the former.
    ///
    /// # Errors
    /// When there is no such interface, or it has no address or several.
    pub fn interface_addr(&self, name: &str) -> Result<IpAddr, NetworkError> {
        let link = self.link(name).ok_or_else(|| NetworkError::NoInterface(name.to_owned()))?;
        let of_family = |family: fn(&IpAddr) -> bool| self.global_addresses(link).filter(family);
        let first = of_family(IpAddr::is_ipv4).next().or_else(|| of_family(IpAddr::is_ipv6).next());
        let first = first.ok_or_else(|| NetworkError::InterfaceWithoutAddress(name.to_owned()))?;
        match self.global_addresses(link).find(|ip| *ip != first && ip.is_ipv4() == first.is_ipv4()) {
            None => Ok(first),
            Some(second) => Err(NetworkError::SeveralOnInterface { interface: name.to_owned(), first, second }),
        }
    }

    fn global_addresses(&self, link: &Link) -> impl Iterator<Item = IpAddr> {
        let index = link.index;
        self.addresses.iter().filter(move |a| a.link == index && a.global && a.lasting).map(|a| a.ip)
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
            master: None,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn address(text: &str, link: u32) -> Address {
        let ip = ip(text);
        Address { ip, prefix_len: 24, link, global: !ip.is_loopback(), lasting: true }
    }

    fn facts(addresses: Vec<Address>) -> Facts {
        let links = vec![link(1, "lo"), link(2, "eth0"), link(3, "d1"), link(4, "sktabc")];
        Facts { links, addresses, ..Facts::default() }
    }

    #[test]
    fn the_only_address_is_chosen_and_loopback_and_own_links_do_not_count() {
        let facts = facts(vec![address("127.0.0.1", 1), address("10.77.0.2", 2), address("10.0.0.3", 4)]);
        assert_eq!(facts.choose_advertise_addr().unwrap(), ip("10.77.0.2"));
        assert_eq!(facts.mtu_of(ip("10.77.0.2")).unwrap(), 1498);
        assert!(matches!(facts.mtu_of(ip("1.1.1.1")), Err(NetworkError::NotOurAddress(_))));
    }

    #[test]
    fn routes_that_say_something_are_told_the_widest_first_and_not_without_end() {
        let mut facts = facts(Vec::new());
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        facts.routes =
            ["0.0.0.0/0", "128.0.0.0/1", "10.9.0.0/24", "10.8.0.0/16", "fd01::/64", "2000::/3", "::/0", "fd00::/56"]
                .map(net)
                .to_vec();
        let (routes, routes6) = facts.telling_routes();
        assert_eq!(routes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.8.0.0/16", "10.9.0.0/24"]);
        assert_eq!(routes6.iter().map(ToString::to_string).collect::<Vec<_>>(), ["fd00::/56", "fd01::/64"]);
        facts.routes.extend((0..1000).map(|n| net(&format!("10.{}.{}.0/24", n / 256, n % 256))));
        let (routes, _) = facts.telling_routes();
        assert_eq!((routes.len(), routes[0].to_string()), (256, "10.8.0.0/16".to_owned()));
    }

    #[test]
    fn ipv6_is_chosen_where_there_is_nothing_else() {
        let both = facts(vec![address("10.77.0.2", 2), address("fd00::2", 2), address("fd00::3", 2)]);
        assert_eq!(both.choose_advertise_addr().unwrap(), ip("10.77.0.2"));
        assert_eq!(both.interface_addr("eth0").unwrap(), ip("10.77.0.2"));
        let mut only = facts(vec![address("::1", 1), address("fd00::2", 2), address("fd00::9", 2)]);
        only.addresses[2].lasting = false;
        assert_eq!(only.choose_advertise_addr().unwrap(), ip("fd00::2"));
        assert_eq!(only.interface_addr("eth0").unwrap(), ip("fd00::2"));
        assert_eq!(only.mtu_of(ip("fd00::9")).unwrap(), 1498);
        only.addresses[2].lasting = true;
        assert!(matches!(only.choose_advertise_addr(), Err(NetworkError::AmbiguousInterface { .. })));
        assert_eq!(
            only.interface_addr("eth0").unwrap_err().to_string(),
            "interface eth0 has more than one IPv6 address (fd00::2 and fd00::9)"
        );
    }

    #[test]
    fn several_addresses_are_named() {
        let two = facts(vec![address("10.77.0.2", 2), address("10.78.0.2", 3)]);
        assert_eq!(
            two.choose_advertise_addr().unwrap_err().to_string(),
            "could not choose an IP address to advertise since this system has multiple addresses on different interfaces (10.77.0.2 on eth0 and 10.78.0.2 on d1)"
        );
        assert_eq!(two.interface_addr("d1").unwrap(), ip("10.78.0.2"));
        let same = facts(vec![address("10.77.0.2", 2), address("10.77.0.22", 2)]);
        assert_eq!(
            same.interface_addr("eth0").unwrap_err().to_string(),
            "interface eth0 has more than one IPv4 address (10.77.0.2 and 10.77.0.22)"
        );
        assert!(matches!(same.choose_advertise_addr(), Err(NetworkError::AmbiguousInterface { .. })));
    }

    #[test]
    fn no_address_and_no_interface_are_said() {
        let none = facts(vec![address("127.0.0.1", 1)]);
        assert!(matches!(none.choose_advertise_addr(), Err(NetworkError::NoAddress)));
        assert!(matches!(none.interface_addr("eth7"), Err(NetworkError::NoInterface(_))));
        let without = none.interface_addr("eth0").unwrap_err();
        assert_eq!(without.to_string(), "interface eth0 has no usable IPv4 or IPv6 address");
    }

    #[test]
    fn a_port_of_a_bridge_is_enslaved_and_one_of_a_vrf_is_not() {
        let mut facts = facts(Vec::new());
        for (kind, enslaved) in [("bridge", true), ("bond", true), ("team", true), ("vrf", false)] {
            facts.links[2].kind = Some(kind.to_owned());
            facts.links[1].master = Some(3);
            assert_eq!(facts.is_enslaved(&facts.links[1]), enslaved, "{kind}");
        }
        assert!(!facts.is_enslaved(&facts.links[2]));
    }
}
