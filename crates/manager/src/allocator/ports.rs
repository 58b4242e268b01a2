//! Published ports.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use skep_model::{PortConfig, Protocol, PublishMode, PublishedPort, Service, ServiceId, ServiceSpec};
use skep_store::Tables;

/// Ports that are chosen for services that did not ask for one.
const CHOSEN: RangeInclusive<u16> = 30_000..=32_767;

/// Why a port cannot be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Another service has it.
    #[error("port '{port}' is already in use by service '{name}' ({id}) as {how}")]
    InUse {
        /// The port.
        port: u16,
        /// The other service's name.
        name: String,
        /// The other service.
        id: ServiceId,
        /// `an ingress port` or `a host-published port`.
        how: &'static str,
    },
    /// The service asks twice for the same.
    #[error("EndpointSpec: duplicate published ports provided")]
    Duplicate,
    /// The nodes need it themselves.
    #[error("port '{port}' cannot be published: the nodes use it for {what}")]
    Reserved {
        /// The port.
        port: u16,
        /// What for.
        what: &'static str,
    },
    /// All ports to choose from are taken.
    #[error(
        "no port between {first} and {last} is free for {protocol}: name a published port",
        first = CHOSEN.start(),
        last = CHOSEN.end()
    )]
    NoneFree {
        /// The protocol.
        protocol: Protocol,
    },
}

type Taken = HashMap<(Protocol, u16), (PublishMode, Option<ServiceId>)>;

/// The ports of `spec` with every choice made, in the spec's order. Host ports that are left to the node are not among them.
pub(super) fn choose(
    tables: &Tables,
    before: Option<&Service>,
    spec: &ServiceSpec,
) -> Result<Vec<PublishedPort>, PortError> {
    let mut taken = taken(tables, before.map(|service| &service.id));
    // What was asked for by number goes first, whatever its place in the list.
    for port in spec.ports() {
        if let Some(number) = port.published {
            reserved(tables, number)?;
            claim(tables, &mut taken, port, number)?;
        }
    }
    let mut kept: Vec<_> = before.map(chosen_before).unwrap_or_default().into_iter().map(Some).collect();
    // Then what was chosen before: what is new must not push it away.
    let mut numbers = Vec::new();
    for port in spec.ports() {
        let mut number = port.published;
        if left_to_us(port) {
            number = take_again(&mut kept, port, &taken);
            taken.extend(number.map(|number| ((port.protocol, number.get()), (port.mode, None))));
        }
        numbers.push(number);
    }
    let mut ports = Vec::new();
    for (port, number) in spec.ports().iter().zip(numbers) {
        let number = match number {
            Some(number) => number,
            None if left_to_us(port) => {
                let number = lowest_free(&taken, port.protocol);
                let number = number.ok_or(PortError::NoneFree { protocol: port.protocol })?;
                taken.insert((port.protocol, number.get()), (port.mode, None));
                number
            }
            None => continue,
        };
        let PortConfig { protocol, target, mode, .. } = *port;
        ports.push(PublishedPort { protocol, target, published: number, mode });
    }
    Ok(ports)
}

/// Whether the number is for the managers to choose: a host port without one is for the node.
fn left_to_us(port: &PortConfig) -> bool {
    port.published.is_none() && port.mode == PublishMode::Ingress
}

/// The ports that other services have.
fn taken(tables: &Tables, own: Option<&ServiceId>) -> Taken {
    let others = tables.all::<Service>().filter(|service| Some(&service.id) != own);
    let ports = others.flat_map(|service| service.endpoint.ports.iter().map(|port| (port, service.id.clone())));
    ports.map(|(port, id)| ((port.protocol, port.published.get()), (port.mode, Some(id)))).collect()
}

fn claim(tables: &Tables, taken: &mut Taken, port: &PortConfig, number: NonZeroU16) -> Result<(), PortError> {
    let key = (port.protocol, number.get());
    match taken.get(&key) {
        Some((_, None)) => Err(PortError::Duplicate),
        // Two services that publish on the nodes of their tasks can live on different nodes: the scheduler sees to it.
        Some((PublishMode::Host, Some(_))) if port.mode == PublishMode::Host => {
            taken.insert(key, (port.mode, None));
            Ok(())
        }
        Some((mode, Some(id))) => {
            let name = tables.get::<Service>(id).map(|service| service.spec.name.to_string()).unwrap_or_default();
            let how = match mode {
                PublishMode::Ingress => "an ingress port",
                PublishMode::Host => "a host-published port",
            };
            Err(PortError::InUse { port: number.get(), name, id: id.clone(), how })
        }
        None => {
            taken.insert(key, (port.mode, None));
            Ok(())
        }
    }
}

fn reserved(tables: &Tables, number: NonZeroU16) -> Result<(), PortError> {
    let overlay = tables.cluster().map_or(4789, |cluster| cluster.data_path_port);
    let what = match number.get() {
        22 => "SSH",
        2377 => "the managers",
        7946 => "the nodes' talk about each other",
        port if port == overlay || port == 4789 => "the overlay network",
        _ => return Ok(()),
    };
    Err(PortError::Reserved { port: number.get(), what })
}

/// What was chosen for a service before: the port as it was asked for, and the number.
fn chosen_before(service: &Service) -> Vec<(PortConfig, NonZeroU16)> {
    let asked = service.endpoint.spec.as_ref().map_or(&[][..], |spec| &spec.ports);
    let listed = asked.iter().filter(|port| port.published.is_some() || port.mode == PublishMode::Ingress);
    let pairs = listed.zip(&service.endpoint.ports);
    pairs.filter(|(asked, _)| asked.published.is_none()).map(|(a, p)| (a.clone(), p.published)).collect()
}

fn take_again(kept: &mut [Option<(PortConfig, NonZeroU16)>], port: &PortConfig, taken: &Taken) -> Option<NonZeroU16> {
    let same = kept.iter_mut().find(|kept| {
        kept.as_ref().is_some_and(|(asked, number)| {
            (asked.protocol, asked.target) == (port.protocol, port.target)
                && !taken.contains_key(&(port.protocol, number.get()))
        })
    });
    same?.take().map(|(_, number)| number)
}

fn lowest_free(taken: &Taken, protocol: Protocol) -> Option<NonZeroU16> {
    CHOSEN.into_iter().find(|port| !taken.contains_key(&(protocol, *port))).and_then(NonZeroU16::new)
}
