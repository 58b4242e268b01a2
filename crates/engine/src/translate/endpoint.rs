//! What is published.

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use skep_model::{Endpoint, EndpointMode, EndpointSpec, PortConfig, Protocol, PublishMode, PublishedPort, VirtualIp};

use super::{optional, text};
use crate::error::Error;
use crate::types::service as wire;

/// Reads `EndpointSpec`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for ports that are none, words that mean nothing, and
/// ports that exclude one another.
pub fn spec_from_wire(spec: &wire::EndpointSpec) -> Result<EndpointSpec, Error> {
    let mode = match spec.mode.as_str() {
        "" => None,
        "vip" => Some(EndpointMode::Vip),
        "dnsrr" => Some(EndpointMode::Dnsrr),
        other => return Err(Error::invalid(format!("invalid resolution mode: {other:?}: expected vip or dnsrr"))),
    };
    let ports = spec.ports.iter().map(port_from_wire).collect::<Result<Vec<_>, _>>()?;
    if mode == Some(EndpointMode::Dnsrr) && ports.iter().any(|p| p.mode == PublishMode::Ingress) {
        return Err(Error::invalid("EndpointSpec: port published with ingress mode can't be used with dnsrr mode"));
    }
    let mut seen = BTreeSet::new();
    for port in &ports {
        if let Some(published) = port.published
            && !seen.insert((port.protocol, published))
        {
            return Err(Error::invalid(format!(
                "EndpointSpec: duplicate published ports provided: {published}/{}",
                port.protocol
            )));
        }
    }
    Ok(EndpointSpec { mode, ports })
}

fn number(field: &str, value: i64) -> Result<Option<NonZeroU16>, Error> {
    u16::try_from(value)
        .map(NonZeroU16::new)
        .map_err(|_| Error::invalid(format!("EndpointSpec: {field} {value} is no port: expected 1 to 65535")))
}

fn port_from_wire(port: &wire::PortConfig) -> Result<PortConfig, Error> {
    let protocol = match port.protocol.as_str() {
        // Compose files leave it out for ports in host mode.
        "" => Protocol::Tcp,
        word => word.parse().map_err(|e| Error::invalid(format!("EndpointSpec: {e}")))?,
    };
    let mode = match port.publish_mode.as_str() {
        "" | "ingress" => PublishMode::Ingress,
        "host" => PublishMode::Host,
        other => {
            return Err(Error::invalid(format!(
                "EndpointSpec: unknown publish mode {other:?}: expected ingress or host"
            )));
        }
    };
    let target = number("TargetPort", port.target_port)?.ok_or_else(|| {
        Error::invalid("EndpointSpec: TargetPort is missing: say which port the task listens on (1 to 65535)")
    })?;
    let published = number("PublishedPort", port.published_port)?;
    Ok(PortConfig { name: optional(&port.name), protocol, target, published, mode })
}

/// Writes `EndpointSpec`.
#[must_use]
pub fn spec_to_wire(spec: &EndpointSpec) -> wire::EndpointSpec {
    let mode = match spec.mode {
        None => "",
        Some(EndpointMode::Vip) => "vip",
        Some(EndpointMode::Dnsrr) => "dnsrr",
    };
    wire::EndpointSpec { mode: mode.to_owned(), ports: spec.ports.iter().map(port_to_wire).collect() }
}

/// Writes a port as it was asked for.
#[must_use]
pub fn port_to_wire(port: &PortConfig) -> wire::PortConfig {
    wire::PortConfig {
        name: text(port.name.as_ref()),
        protocol: port.protocol.to_string(),
        target_port: port.target.get().into(),
        published_port: port.published.map_or(0, |p| p.get().into()),
        publish_mode: mode_word(port.mode).to_owned(),
        host_ip: String::new(),
    }
}

/// Writes a port as it is published.
#[must_use]
pub fn published_to_wire(port: &PublishedPort) -> wire::PortConfig {
    wire::PortConfig {
        name: String::new(),
        protocol: port.protocol.to_string(),
        target_port: port.target.get().into(),
        published_port: port.published.get().into(),
        publish_mode: mode_word(port.mode).to_owned(),
        host_ip: String::new(),
    }
}

fn mode_word(mode: PublishMode) -> &'static str {
    match mode {
        PublishMode::Ingress => "ingress",
        PublishMode::Host => "host",
    }
}

/// Writes `Endpoint`. Docker shows an empty spec for a service that is reached on no network.
#[must_use]
pub fn endpoint_to_wire(endpoint: &Endpoint) -> wire::Endpoint {
    let virtual_ips: Vec<wire::VirtualIp> = endpoint.virtual_ips.iter().map(virtual_ip_to_wire).collect();
    let spec = endpoint.spec.as_ref().filter(|s| !s.ports.is_empty() || !virtual_ips.is_empty());
    wire::Endpoint { spec: spec.map(spec_to_wire).unwrap_or_default(), ports: resolved_ports(endpoint), virtual_ips }
}

/// The ports with every choice made, and between them, in their places, host ports that each node chooses for itself.
fn resolved_ports(endpoint: &Endpoint) -> Vec<wire::PortConfig> {
    let Some(spec) = &endpoint.spec else { return endpoint.ports.iter().map(published_to_wire).collect() };
    let mut resolved = endpoint.ports.iter();
    let chosen_by_node = |p: &PortConfig| p.mode == PublishMode::Host && p.published.is_none();
    let mut ports = Vec::new();
    for asked in &spec.ports {
        if chosen_by_node(asked) {
            ports.push(port_to_wire(asked));
        } else if let Some(port) = resolved.next() {
            ports.push(wire::PortConfig { name: text(asked.name.as_ref()), ..published_to_wire(port) });
        }
    }
    ports.extend(resolved.map(published_to_wire));
    ports
}

fn virtual_ip_to_wire(vip: &VirtualIp) -> wire::VirtualIp {
    wire::VirtualIp { network_id: vip.network.to_string(), addr: vip.addr.to_string() }
}
