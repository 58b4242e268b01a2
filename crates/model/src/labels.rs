//! Service labels that begin with `skep.`: the options of published ports, `skep.publish.<port>[/<protocol>].<option>`.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use ipnet::IpNet;

use crate::{Balance, Constraint, ListenOn, Protocol, PublishOptions, PublishedPort};

/// What every label of skep's begins with.
const OURS: &str = "skep.";
const PUBLISH: &str = "skep.publish.";
/// How long an idle flow may be remembered: the data plane counts it in 16 bits of seconds.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(18 * 3600));
/// How long a task that is to stop may finish its flows.
const DRAIN: (Duration, Duration) = (Duration::ZERO, Duration::from_secs(3600));
/// Ports named in an error before it says "and so many more".
const NAMED: usize = 5;

/// What is wrong with a label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabel {
    /// It begins with `skep.` and means nothing.
    #[error(
        "label {0:?} means nothing: labels that begin with skep. are skep.publish.<port>[/<protocol>].<option>, with addr, nodes, sources, lb, affinity, idle-timeout or drain as the option"
    )]
    Unknown(String),
    /// What stands for the port is none.
    #[error(
        "label {label:?}: {port:?} is no published port: write a number from 1 to 65535 or a range such as 8000-8010, and /tcp, /udp or /sctp behind it for one protocol only"
    )]
    Port {
        /// The label.
        label: String,
        /// What stands for the port.
        port: String,
    },
    /// The service does not publish the port.
    #[error(
        "label {label:?}: the service does not publish port {port}, but {published}: publish it, or remove the label (--label-rm)"
    )]
    NotPublished {
        /// The label.
        label: String,
        /// The port, with its protocol if the label names one.
        port: String,
        /// What it publishes.
        published: String,
    },
    /// The value is none that the option can have.
    #[error("label {label:?}: {value:?} is not allowed: {allowed}")]
    Value {
        /// The label.
        label: String,
        /// Its value.
        value: String,
        /// What is.
        allowed: String,
    },
    /// Datagram by datagram makes sense for UDP only.
    #[error(
        "label {label:?}: datagram is for udp only, and the label is also about port {port}: put /udp behind the port"
    )]
    Datagram {
        /// The label.
        label: String,
        /// A port that is not UDP.
        port: String,
    },
    /// Two labels set the same option of the same port.
    #[error("labels {first:?} and {second:?} both set {option} of port {port}: remove one")]
    Twice {
        /// One label.
        first: String,
        /// The other.
        second: String,
        /// The option.
        option: &'static str,
        /// The port.
        port: String,
    },
}

/// A door of a service: its published port and its protocol.
type Door = (NonZeroU16, Protocol);

/// The options that the labels of a service give to its published ports. Ports without any are left out, and so are labels that do not begin
/// with `skep.`.
///
/// # Errors
/// The first label that is wrong, in the order of the labels.
pub fn publish_options(
    labels: &BTreeMap<String, String>,
    published: &[PublishedPort],
) -> Result<BTreeMap<(NonZeroU16, Protocol), PublishOptions>, BadLabel> {
    let mut options: BTreeMap<Door, PublishOptions> = BTreeMap::new();
    let mut ours = labels.iter().filter(|(label, _)| label.starts_with(OURS)).peekable();
    if ours.peek().is_none() {
        return Ok(options);
    }
    let published: BTreeSet<Door> = published.iter().map(|port| (port.published, port.protocol)).collect();
    let mut set: BTreeMap<(Door, Name), &str> = BTreeMap::new();
    for (label, value) in ours {
        let key = Key::parse(label)?;
        let option = Value::parse(label, key.name, value)?;
        for door in key.ports.among(label, &published)? {
            match set.entry((door, key.name)) {
                Entry::Occupied(first) => {
                    let (first, second) = ((*first.get()).to_owned(), label.clone());
                    return Err(BadLabel::Twice { first, second, option: key.name.as_str(), port: shown(door) });
                }
                Entry::Vacant(free) => free.insert(label),
            };
            option.put(label, door, options.entry(door).or_default())?;
        }
    }
    Ok(options)
}

fn shown((port, protocol): Door) -> String {
    format!("{port}/{protocol}")
}

/// Which ports a label is about.
struct Ports {
    first: NonZeroU16,
    last: NonZeroU16,
    protocol: Option<Protocol>,
}

impl Ports {
    fn parse(text: &str) -> Option<Self> {
        let (numbers, protocol) = match text.split_once('/') {
            Some((numbers, protocol)) => (numbers, Some(protocol.parse().ok()?)),
            None => (text, None),
        };
        let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
        // `parse` alone would take a sign.
        let number = |text: &str| if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None };
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(Self { first, last, protocol })
    }

    /// The published ports that are meant. Every number must be among them.
    fn among(&self, label: &str, published: &BTreeSet<Door>) -> Result<Vec<Door>, BadLabel> {
        let range = (self.first, Protocol::Tcp)..=(self.last, Protocol::Sctp);
        let meant = published.range(range).copied().filter(|door| self.protocol.is_none_or(|p| p == door.1));
        let meant: Vec<Door> = meant.collect();
        let numbers: BTreeSet<NonZeroU16> = meant.iter().map(|door| door.0).collect();
        let missing = (self.first.get()..=self.last.get()).filter_map(NonZeroU16::new).find(|n| !numbers.contains(n));
        let Some(missing) = missing else { return Ok(meant) };
        let protocol = self.protocol.map(|protocol| format!("/{protocol}")).unwrap_or_default();
        let (label, port) = (label.to_owned(), format!("{missing}{protocol}"));
        Err(BadLabel::NotPublished { label, port, published: listed(published) })
    }
}

fn listed(published: &BTreeSet<Door>) -> String {
    let mut names: Vec<String> = published.iter().take(NAMED).map(|door| shown(*door)).collect();
    match published.len().saturating_sub(NAMED) {
        0 if names.is_empty() => return "none".to_owned(),
        0 => {}
        more => names.push(format!("{more} more")),
    }
    names.join(", ")
}

/// Which option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Addr,
    Nodes,
    Sources,
    Lb,
    Affinity,
    IdleTimeout,
    Drain,
}

impl Name {
    const ALL: [Self; 7] =
        [Self::Addr, Self::Nodes, Self::Sources, Self::Lb, Self::Affinity, Self::IdleTimeout, Self::Drain];

    fn as_str(self) -> &'static str {
        match self {
            Self::Addr => "addr",
            Self::Nodes => "nodes",
            Self::Sources => "sources",
            Self::Lb => "lb",
            Self::Affinity => "affinity",
            Self::IdleTimeout => "idle-timeout",
            Self::Drain => "drain",
        }
    }
}

/// What a label says before its value.
struct Key {
    ports: Ports,
    name: Name,
}

impl Key {
    fn parse(label: &str) -> Result<Self, BadLabel> {
        let unknown = || BadLabel::Unknown(label.to_owned());
        let rest = label.strip_prefix(PUBLISH).ok_or_else(unknown)?;
        let (port, option) = rest.rsplit_once('.').ok_or_else(unknown)?;
        let name = Name::ALL.into_iter().find(|name| name.as_str() == option).ok_or_else(unknown)?;
        let ports =
            Ports::parse(port).ok_or_else(|| BadLabel::Port { label: label.to_owned(), port: port.to_owned() })?;
        Ok(Self { ports, name })
    }
}

/// What a label asks for.
enum Value {
    Addr(Vec<ListenOn>),
    Nodes(Vec<String>),
    Sources(Vec<IpNet>),
    Lb(Balance),
    Affinity,
    IdleTimeout(Duration),
    Drain(Duration),
}

impl Value {
    fn parse(label: &str, name: Name, value: &str) -> Result<Self, BadLabel> {
        let bad = |allowed: &dyn fmt::Display| BadLabel::Value {
            label: label.to_owned(),
            value: value.to_owned(),
            allowed: allowed.to_string(),
        };
        Ok(match name {
            Name::Addr => Self::Addr(list(value, listen).ok_or_else(|| {
                bad(&"write addresses, networks (10.0.0.0/8) or names of network devices, with commas between them")
            })?),
            Name::Nodes => {
                let constraint = |text: &str| match text.parse::<Constraint>() {
                    Ok(_) => Ok(text.to_owned()),
                    Err(e) => Err(bad(&format!("write node constraints such as node.labels.edge==true; {e}"))),
                };
                Self::Nodes(value.split(',').map(str::trim).map(constraint).collect::<Result<_, _>>()?)
            }
            Name::Sources => Self::Sources(
                list(value, network)
                    .ok_or_else(|| bad(&"write networks (10.0.0.0/8) or addresses, with commas between them"))?,
            ),
            Name::Lb => Self::Lb(match value {
                "maglev" => Balance::Maglev,
                "local-first" => Balance::LocalFirst,
                "datagram" => Balance::Datagram,
                _ => return Err(bad(&"write maglev, local-first or, for udp, datagram")),
            }),
            Name::Affinity if value == "client-ip" => Self::Affinity,
            Name::Affinity => return Err(bad(&"write client-ip")),
            Name::IdleTimeout => Self::IdleTimeout(
                between(value, IDLE).ok_or_else(|| bad(&"write a duration from 1s to 18h, such as 90s or 2h30m"))?,
            ),
            Name::Drain => Self::Drain(
                between(value, DRAIN).ok_or_else(|| bad(&"write a duration from 0s to 1h, such as 30s or 5m"))?,
            ),
        })
    }

    fn put(&self, label: &str, door: Door, options: &mut PublishOptions) -> Result<(), BadLabel> {
        match self {
            Self::Lb(Balance::Datagram) if door.1 != Protocol::Udp => {
                return Err(BadLabel::Datagram { label: label.to_owned(), port: shown(door) });
            }
            Self::Addr(listen) => options.listen.clone_from(listen),
            Self::Nodes(nodes) => options.nodes.clone_from(nodes),
            Self::Sources(sources) => options.sources.clone_from(sources),
            Self::Lb(balance) => options.balance = *balance,
            Self::Affinity => options.client_affinity = true,
            Self::IdleTimeout(timeout) => options.idle_timeout = Some(*timeout),
            Self::Drain(drain) => options.drain = Some(*drain),
        }
        Ok(())
    }
}

fn list<T>(value: &str, item: fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.split(',').map(|text| item(text.trim())).collect()
}

/// A network, or an address as a network of one.
fn network(text: &str) -> Option<IpNet> {
    match text.parse::<IpNet>() {
        Ok(network) => Some(network.trunc()),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical())),
    }
}

fn listen(text: &str) -> Option<ListenOn> {
    network(text).map(ListenOn::Net).or_else(|| interface(text).map(ListenOn::Interface))
}

/// A name that the kernel allows for a device, and that nobody can have meant as an address.
fn interface(text: &str) -> Option<String> {
    let allowed =
        (1..=15).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':');
    let address = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    (allowed && !address).then(|| text.to_owned())
}

fn between(text: &str, (least, most): (Duration, Duration)) -> Option<Duration> {
    go_duration(text).filter(|duration| (least..=most).contains(duration))
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `300ms`, `0`.
fn go_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let end = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |i| number + i);
        let unit = match &rest[number..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        let part: f64 = rest[..number].parse().ok()?;
        total = total.checked_add(Duration::try_from_secs_f64(part * unit).ok()?)?;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests;
