//! Published ports.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use skep_model::{Node, PortConfig, Protocol, PublishMode, PublishedPort, Service, ServiceId, ServiceSpec};
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
    #[error("port '{port}' cannot be published: the nodes use it for {what}; publish another one")]
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

/// Who has a port: another service, or with `None` the service itself.
type Taken<'a> = HashMap<(Protocol, u16), (PublishMode, Option<&'a Service>)>;

/// The ports of `spec` with every choice made, in the spec's order. Host ports that are left to the node are not among them.
///
/// Takes time for each port of `spec` and of the other services once, however many there are: a publish may have tens of thousands.
pub(super) fn choose(
    tables: &Tables,
    before: Option<&Service>,
    spec: &ServiceSpec,
) -> Result<Vec<PublishedPort>, PortError> {
    let mut taken = taken(tables, before.map(|service| &service.id));
    let reserved = Reserved::of(tables);
    // What was asked for by number goes first, whatever its place in the list.
    for port in spec.ports() {
        if let Some(number) = port.published {
            reserved.check(number)?;
            claim(&mut taken, port, number)?;
        }
    }
    let mut kept = before.map(chosen_before).unwrap_or_default();
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
    let mut free = Free::default();
    for (port, number) in spec.ports().iter().zip(numbers) {
        let number = match number {
            Some(number) => number,
            None if left_to_us(port) => free.next(port.protocol, &taken)?,
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
fn taken<'a>(tables: &'a Tables, own: Option<&ServiceId>) -> Taken<'a> {
    let others = tables.all::<Service>().filter(|service| Some(&service.id) != own);
    let ports = others.flat_map(|service| service.endpoint.ports.iter().map(move |port| (port, &**service)));
    ports.map(|(port, service)| ((port.protocol, port.published.get()), (port.mode, Some(service)))).collect()
}

fn claim(taken: &mut Taken<'_>, port: &PortConfig, number: NonZeroU16) -> Result<(), PortError> {
    match taken.insert((port.protocol, number.get()), (port.mode, None)) {
        None => Ok(()),
        Some((_, None)) => Err(PortError::Duplicate),
        // Two services that publish on the nodes of their tasks can live on different nodes: the scheduler sees to it.
        Some((PublishMode::Host, Some(_))) if port.mode == PublishMode::Host => Ok(()),
        Some((mode, Some(other))) => {
            let how = match mode {
                PublishMode::Ingress => "an ingress port",
                PublishMode::Host => "a host-published port",
            };
            let (name, id) = (other.spec.name.to_string(), other.id.clone());
            Err(PortError::InUse { port: number.get(), name, id, how })
        }
    }
}

/// Ports that nodes answer on themselves.
struct Reserved {
    overlay: u16,
    managers: Vec<u16>,
}

impl Reserved {
    fn of(tables: &Tables) -> Self {
        let managers = tables.all::<Node>().filter_map(|node| Some(node.manager.as_ref()?.addr.port()));
        Self { overlay: tables.cluster().map_or(4789, |cluster| cluster.data_path_port), managers: managers.collect() }
    }

    fn check(&self, number: NonZeroU16) -> Result<(), PortError> {
        let what = match number.get() {
            22 => "SSH",
            2375 | 2376 => "the Docker API",
            2377 => "the managers",
            7946 => "their talk about each other",
            4789 => "the overlay network",
            port if port == self.overlay => "the overlay network",
            port if self.managers.contains(&port) => "the managers",
            _ => return Ok(()),
        };
        Err(PortError::Reserved { port: number.get(), what })
    }
}

/// What was chosen for a service before, by what was asked for: protocol and target.
type Kept = HashMap<(Protocol, NonZeroU16), VecDeque<NonZeroU16>>;

fn chosen_before(service: &Service) -> Kept {
    let asked = service.endpoint.spec.as_ref().map_or(&[][..], |spec| &spec.ports);
    let listed = asked.iter().filter(|port| port.published.is_some() || port.mode == PublishMode::Ingress);
    let mut kept = Kept::new();
    for (asked, port) in listed.zip(&service.endpoint.ports).filter(|(asked, _)| asked.published.is_none()) {
        kept.entry((asked.protocol, asked.target)).or_default().push_back(port.published);
    }
    kept
}

fn take_again(kept: &mut Kept, port: &PortConfig, taken: &Taken<'_>) -> Option<NonZeroU16> {
    let numbers = kept.get_mut(&(port.protocol, port.target))?;
    std::iter::from_fn(|| numbers.pop_front()).find(|number| !taken.contains_key(&(port.protocol, number.get())))
}

/// Ports to choose from, the lowest first. None is looked at twice.
#[derive(Default)]
struct Free(BTreeMap<Protocol, RangeInclusive<u16>>);

impl Free {
    fn next(&mut self, protocol: Protocol, taken: &Taken<'_>) -> Result<NonZeroU16, PortError> {
        let left = self.0.entry(protocol).or_insert(CHOSEN);
        let free = left.find(|port| !taken.contains_key(&(protocol, *port)));
        free.and_then(NonZeroU16::new).ok_or(PortError::NoneFree { protocol })
    }
}
