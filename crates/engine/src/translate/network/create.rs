//! Requests for a network.

use std::str::FromStr;

use ipnet::Ipv4Net;
use skep_model::{NewNetwork, mesh_ipv6};

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
    match ipam.config.as_slice() {
        [] => {}
        [one] => addresses_from_wire(&mut new, one)?,
        several => {
            several.iter().try_for_each(|one| ipv4::<Ipv4Net>("Subnet", &one.subnet).map(drop))?;
            return Err(Error::invalid("IPAM.Config: a network has one subnet: leave the others out"));
        }
    }
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

fn addresses_from_wire(new: &mut NewNetwork, config: &wire::IpamConfig) -> Result<(), Error> {
    if !config.aux_address.is_empty() {
        return Err(unsupported(
            "IPAM.Config.AuxiliaryAddresses",
            "skep sets no single addresses aside: keep tasks in a part of the subnet with --ip-range",
        ));
    }
    new.subnet = ipv4("Subnet", &config.subnet)?;
    new.range = ipv4("IPRange", &config.ip_range)?;
    new.gateway = ipv4("Gateway", &config.gateway)?;
    Ok(())
}

fn ipv4<T: FromStr>(field: &str, text: &str) -> Result<Option<T>, Error> {
    match (text, text.parse()) {
        ("", _) => Ok(None),
        (_, Ok(value)) => Ok(Some(value)),
        (text, Err(_)) if text.contains(':') => Err(unsupported(
            &format!("IPAM.Config.{field}"),
            &format!(
                "{text:?} is IPv6, and tasks' IPv6 addresses cannot be chosen: they are made of their IPv4 ones, as {}; leave it out, --ipv6 is fine without",
                mesh_ipv6([10, 9, 0, 2].into()),
            ),
        )),
        (text, Err(_)) => Err(Error::invalid(format!(
            "IPAM.Config.{field}: {text:?} is none: write {}",
            match field {
                "Gateway" => "an address, like 10.9.0.1",
                _ => "a network, like 10.9.0.0/24",
            }
        ))),
    }
}
