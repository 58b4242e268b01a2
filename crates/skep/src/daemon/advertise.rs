//! Which address of this node others are told.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use skep_engine::Error;
use skep_engine::backend::swarm::{Host, HostPort};
use skep_network::Facts;

/// The address that `given` means, or the node's only one when nothing is given.
pub(crate) fn resolve(facts: &Facts, given: Option<&HostPort>) -> Result<Ipv4Addr, Error> {
    let chosen = match given.map(|g| &g.host) {
        None => facts.choose_advertise_addr(),
        Some(Host::Interface(name)) => facts.interface_addr(name),
        Some(Host::Ip(IpAddr::V4(ip))) if !ip.is_unspecified() => return own(facts, *ip),
        Some(Host::Ip(IpAddr::V4(_))) => {
            return Err(Error::invalid(
                "advertise address must be a non-zero IP address or network interface (with optional port number)",
            ));
        }
        Some(Host::Ip(IpAddr::V6(ip))) => {
            return Err(Error::invalid(format!("cannot advertise {ip}: nodes reach each other by IPv4 for now")));
        }
    };
    chosen.map_err(|e| Error::invalid(e.to_string()))
}

/// The address that `given` means, for the data path.
pub(crate) fn resolve_host(facts: &Facts, given: &Host) -> Result<Ipv4Addr, Error> {
    resolve(facts, Some(&HostPort { host: given.clone(), port: 0 }))
}

/// A node behind address translation may advertise an address that is not its own; but then overlay packets do not come from the
/// address that other nodes know, and would be dropped there.
fn own(facts: &Facts, ip: Ipv4Addr) -> Result<Ipv4Addr, Error> {
    if facts.has_address(ip) {
        return Ok(ip);
    }
    Err(Error::invalid(format!("cannot advertise {ip}: no interface of this node has that address")))
}

/// Where the manager listens.
pub(crate) fn listen(facts: &Facts, given: &HostPort) -> Result<SocketAddr, Error> {
    let ip = match &given.host {
        Host::Ip(ip) => *ip,
        Host::Interface(name) => facts.interface_addr(name).map_err(|e| Error::invalid(e.to_string()))?.into(),
    };
    Ok(SocketAddr::new(ip, given.port))
}
