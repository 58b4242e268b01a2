//! Which address of this node others are told.

use std::net::{IpAddr, SocketAddr};

use skep_engine::Error;
use skep_engine::backend::swarm::{Host, HostPort};
use skep_network::Facts;

/// The address that `given` means, or the node's only one when nothing is given.
pub(crate) fn resolve(facts: &Facts, given: Option<&HostPort>) -> Result<IpAddr, Error> {
    let chosen = match given.map(|g| &g.host) {
        None => facts.choose_advertise_addr(),
        Some(Host::Interface(name)) => facts.interface_addr(name),
        Some(Host::Ip(ip)) if !ip.is_unspecified() => return own(facts, *ip),
        Some(Host::Ip(_)) => {
            return Err(Error::invalid(
                "advertise address must be a non-zero IP address or network interface (with optional port number)",
            ));
        }
    };
    chosen.map_err(|e| Error::invalid(e.to_string()))
}

/// The address that `given` means, for the data path.
pub(crate) fn resolve_host(facts: &Facts, given: &Host) -> Result<IpAddr, Error> {
    resolve(facts, Some(&HostPort { host: given.clone(), port: 0 }))
}

/// A node behind address translation may advertise an address that is not its own; but then overlay packets do not come from the
/// address that other nodes know, and would be dropped there.
fn own(facts: &Facts, ip: IpAddr) -> Result<IpAddr, Error> {
    if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
        return Err(Error::invalid(format!(
            "cannot advertise {ip}: a link-local address means nothing on other nodes; give another address of this node"
        )));
    }
    if facts.has_address(ip) {
        return Ok(ip);
    }
    Err(Error::invalid(format!("cannot advertise {ip}: no interface of this node has that address")))
}

/// Where the manager listens.
pub(crate) fn listen(facts: &Facts, given: &HostPort) -> Result<SocketAddr, Error> {
    let ip = match &given.host {
        Host::Ip(ip) => *ip,
        Host::Interface(name) => facts.interface_addr(name).map_err(|e| Error::invalid(e.to_string()))?,
    };
    Ok(SocketAddr::new(ip, given.port))
}

#[cfg(test)]
mod tests {
    use skep_network::{Address, Link};

    use super::*;

    fn facts() -> Facts {
        let link = |index, name: &str| Link {
            index,
            name: name.to_owned(),
            kind: None,
            mac: None,
            mtu: 1500,
            up: true,
            loopback: false,
            own: false,
            master: None,
        };
        let address =
            |ip: &str, link| Address { ip: ip.parse().unwrap(), prefix_len: 24, link, global: true, lasting: true };
        Facts {
            links: vec![link(1, "eth0"), link(2, "eth1")],
            addresses: vec![address("192.0.2.1", 1), address("2001:db8::1", 1), address("2001:db8:1::1", 2)],
            ..Facts::default()
        }
    }

    fn advertised(host: &str) -> Result<String, String> {
        let host = host.parse().map_or_else(|_| Host::Interface(host.to_owned()), Host::Ip);
        let found = resolve(&facts(), Some(&HostPort { host, port: 2377 }));
        found.map(|ip| ip.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn an_address_of_either_family_may_be_named() {
        assert_eq!(advertised("2001:db8::1").unwrap(), "2001:db8::1");
        assert_eq!(advertised("192.0.2.1").unwrap(), "192.0.2.1");
        assert_eq!(advertised("eth0").unwrap(), "192.0.2.1");
        assert_eq!(advertised("eth1").unwrap(), "2001:db8:1::1");
        assert_eq!(resolve(&facts(), None).unwrap().to_string(), "192.0.2.1");
    }

    #[test]
    fn what_others_cannot_reach_is_not_advertised() {
        for (host, why) in [
            ("2001:db8::9", "no interface of this node has that address"),
            ("fe80::1", "link-local"),
            ("::", "non-zero"),
            ("0.0.0.0", "non-zero"),
        ] {
            let refused = advertised(host).unwrap_err();
            assert!(refused.contains(why), "{host}: {refused}");
        }
    }

    #[test]
    fn a_manager_listens_where_it_is_told() {
        let at = |host: &str| {
            let host = host.parse().map_or_else(|_| Host::Interface(host.to_owned()), Host::Ip);
            listen(&facts(), &HostPort { host, port: 2377 }).unwrap().to_string()
        };
        assert_eq!(at("::"), "[::]:2377");
        assert_eq!(at("eth1"), "[2001:db8:1::1]:2377");
        assert_eq!(at("0.0.0.0"), "0.0.0.0:2377");
    }
}
