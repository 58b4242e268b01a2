//! Requests for a network.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use skep_model::NewNetwork;

use super::VXLAN_ID;
use crate::error::Error;
use crate::translate::unsupported;
use crate::types::meta::StringMap;
use crate::types::network as wire;

/// Reads a request for a network.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for what makes no sense and
/// [`ErrorKind::Unimplemented`](crate::ErrorKind::Unimplemented) for what skep cannot do, with what to do instead.
pub fn create_from_wire(request: &wire::CreateRequest) -> Result<NewNetwork, Error> {
    refuse_foreign(request)?;
    let mut new = NewNetwork {
        name: request.name.clone(),
        labels: request.labels.clone(),
        ingress: request.ingress,
        internal: request.internal,
        attachable: request.attachable,
        ipv6: request.enable_ipv6.unwrap_or_default(),
        options: options_from_wire(&request.options)?,
        ..NewNetwork::default()
    };
    if request.ingress && (request.internal || request.attachable) {
        return Err(Error::invalid("Ingress: the routing mesh's network is neither internal nor attachable"));
    }
    let Some(ipam) = &request.ipam else { return Ok(new) };
    if !matches!(ipam.driver.as_str(), "" | "default") || ipam.options.as_ref().is_some_and(|o| !o.is_empty()) {
        return Err(unsupported(
            "IPAM.Driver",
            "skep gives out addresses itself: leave --ipam-driver and --ipam-opt out",
        ));
    }
    ipam.config.iter().try_for_each(|config| addresses_from_wire(&mut new, config))?;
    Ok(new)
}

fn refuse_foreign(request: &wire::CreateRequest) -> Result<(), Error> {
    if request.config_only || request.config_from.as_ref().is_some_and(|from| !from.network.is_empty()) {
        return Err(unsupported(
            "ConfigOnly",
            "skep makes no networks of configurations: give the options with the network itself",
        ));
    }
    match request.driver.as_str() {
        "overlay" => {}
        "" | "bridge" => {
            return Err(unsupported("Driver", "skep makes overlay networks only: add --driver overlay (-d overlay)"));
        }
        other => {
            let why = format!("skep makes overlay networks only, not {other:?}: use --driver overlay");
            return Err(unsupported("Driver", &why));
        }
    }
    if !matches!(request.scope.as_str(), "" | "swarm") {
        let why = format!("an overlay network is of the whole swarm: leave --scope {} out", request.scope);
        return Err(Error::invalid(format!("Scope: {why}")));
    }
    if request.enable_ipv4 == Some(false) {
        return Err(Error::invalid(
            "EnableIPv4: every address of a task begins as an IPv4 one: leave --ipv4=false out",
        ));
    }
    Ok(())
}

/// Options are shown as they were given. Some say nothing to skep; those that somebody would rely on in vain are refused.
fn options_from_wire(options: &StringMap) -> Result<StringMap, Error> {
    if options.get("encrypted").is_some_and(|value| !matches!(value.as_str(), "false" | "0")) {
        return Err(unsupported(
            "Options.encrypted",
            "this version of skep does not encrypt what tasks say to each other: leave --opt encrypted out, and let the nodes reach each other through an encrypted network (WireGuard, say) or the services use TLS",
        ));
    }
    if options.contains_key(VXLAN_ID) {
        return Err(unsupported(&format!("Options.{VXLAN_ID}"), "skep numbers its networks itself: leave it out"));
    }
    skep_model::network_mtu(options).map_err(|e| Error::invalid(format!("Options: {e}")))?;
    Ok(options.clone())
}

/// One subnet of each family.
fn addresses_from_wire(new: &mut NewNetwork, config: &wire::IpamConfig) -> Result<(), Error> {
    if !config.aux_address.is_empty() {
        return Err(unsupported(
            "IPAM.Config.AuxiliaryAddresses",
            "skep sets no single addresses aside: keep tasks in a part of the subnet with --ip-range",
        ));
    }
    let subnet = read("Subnet", &config.subnet)?;
    let range = read("IPRange", &config.ip_range)?;
    let gateway: Option<IpAddr> = read("Gateway", &config.gateway)?;
    match subnet {
        Some(IpNet::V6(subnet)) if new.subnet6.replace(subnet).is_some() => return Err(several("IPv6")),
        Some(IpNet::V4(subnet)) if new.subnet.replace(subnet).is_some() => return Err(several("IPv4")),
        _ => (),
    }
    match range {
        Some(IpNet::V4(range)) => new.range = Some(range),
        Some(IpNet::V6(range)) => {
            let why = format!(
                "{range} is IPv6, and tasks' IPv6 addresses are made of their IPv4 ones: give --ip-range a part of the IPv4 subnet"
            );
            return Err(unsupported("IPAM.Config.IPRange", &why));
        }
        None => (),
    }
    match (gateway, subnet) {
        (Some(gateway), Some(subnet)) if gateway.is_ipv4() != subnet.addr().is_ipv4() => {
            return Err(Error::invalid(format!(
                "IPAM.Config.Gateway: {gateway} is no address of the subnet {subnet}: give each subnet its own"
            )));
        }
        (Some(IpAddr::V4(gateway)), _) => new.gateway = Some(gateway),
        (Some(IpAddr::V6(gateway)), _) => new.gateway6 = Some(gateway),
        (None, _) => (),
    }
    Ok(())
}

fn several(family: &str) -> Error {
    Error::invalid(format!("IPAM.Config: a network has one {family} subnet: leave the others out"))
}

fn read<T: FromStr>(field: &str, text: &str) -> Result<Option<T>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let example = match field {
        "Gateway" => "an address, like 10.9.0.1 or 2001:db8:9::1",
        _ => "a network, like 10.9.0.0/24 or 2001:db8:9::/64",
    };
    text.parse()
        .map(Some)
        .map_err(|_| Error::invalid(format!("IPAM.Config.{field}: {text:?} is none: write {example}")))
}
