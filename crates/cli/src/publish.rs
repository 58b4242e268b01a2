//! `--publish`: which port of every node leads to which port of a service.
//!
//! Two ways to write it: short, `[[address:]published:]target[/protocol]`, where both may be ranges (`8000-8003:80-83`, or
//! `8000-8003:80` for four doors to one room); and long, `published=8080,target=80,protocol=udp,mode=host`.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use serde_json::{Value, json};

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

/// Who listens on a published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every node, for all tasks.
    Ingress,
    /// Only the nodes with a task, each for its own.
    Host,
}

/// One published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The transport.
    pub protocol: Protocol,
    /// The port in the container.
    pub target: NonZeroU16,
    /// The port on the nodes; `None` lets the swarm choose.
    pub published: Option<NonZeroU16>,
    /// Who listens.
    pub mode: Mode,
    /// The one address of the nodes that it is opened on; `None` is every one.
    pub address: Option<IpAddr>,
}

/// Why a `--publish` was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadPublish {
    /// A published port 0.
    Zero,
    /// The long form has no `target=`.
    NoTarget,
    /// Something that should be a port, 1 to 65535, or a range of them.
    Port(&'static str, String),
    /// Not tcp, udp or sctp.
    Protocol(String),
    /// Not ingress or host.
    Mode(String),
    /// A field that the long form does not have.
    Field(String),
    /// An address that is none.
    Address(String),
    /// An address with only one port behind it.
    AddressAlone(String),
    /// Two ranges of different lengths: target, published.
    Ranges(String, String),
}

impl std::fmt::Display for BadPublish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Zero => write!(
                f,
                "invalid published port \"0\": it must be a number from 1 to 65535; leave it out to have one chosen"
            ),
            Self::NoTarget => write!(f, "missing mandatory field \"target\""),
            Self::Port(which, text) => write!(
                f,
                "invalid {which} port {text:?}: it must be a number from 1 to 65535, or a range such as 8000-8003"
            ),
            Self::Protocol(text) => write!(f, "invalid protocol {text:?}: it must be tcp, udp or sctp"),
            Self::Mode(text) => write!(f, "invalid publish mode {text:?}: it must be either ingress or host"),
            Self::Field(text) => write!(
                f,
                "invalid field {text:?}: the fields are target, published, protocol and mode, each followed by = and a value"
            ),
            Self::Address(text) => write!(
                f,
                "invalid address {text:?}: it must be an IPv4 address, or an IPv6 address in brackets; \
                 to open a port on a network or a network device, set the service label skep.publish.<port>.addr"
            ),
            Self::AddressAlone(text) => write!(
                f,
                "an address ({text}) needs a published and a target port behind it, such as {text}:8080:80; \
                 for a port that is to be chosen, set the service label skep.publish.<port>.addr afterwards"
            ),
            Self::Ranges(target, published) => {
                write!(
                    f,
                    "invalid ranges: {published} published ports cannot lead to {target} target ports, they must be equally many, or one target"
                )
            }
        }
    }
}

impl std::error::Error for BadPublish {}

impl Port {
    /// The API's `PortConfig`.
    #[must_use]
    pub fn to_json(self) -> Value {
        let mut out =
            json!({ "Protocol": self.protocol.as_str(), "TargetPort": self.target, "PublishMode": self.mode.as_str() });
        if let Some(published) = self.published {
            out["PublishedPort"] = json!(published);
        }
        if let Some(address) = self.address {
            out["HostIP"] = json!(address);
        }
        out
    }
}

impl Protocol {
    /// As written in flags and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    fn parse(text: &str) -> Result<Self, BadPublish> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(BadPublish::Protocol(text.to_owned())),
        }
    }
}

impl Mode {
    /// As written in flags and in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Host => "host",
        }
    }
}

/// One `--publish`: one port, or those of a range.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse(text: &str) -> Result<Vec<Port>, BadPublish> {
    if text.contains('=') { long(text).map(|port| vec![port]) } else { short(text) }
}

fn long(text: &str) -> Result<Port, BadPublish> {
    let (mut protocol, mut mode, mut target, mut published) = (Protocol::Tcp, Mode::Ingress, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| BadPublish::Field(field.to_owned()))?;
        match key.trim().to_ascii_lowercase().as_str() {
            "target" => target = Some(port("target", value)?),
            "published" if value == "0" => return Err(BadPublish::Zero),
            "published" => published = Some(port("published", value)?),
            "protocol" => protocol = Protocol::parse(value)?,
            "mode" if value == "ingress" => mode = Mode::Ingress,
            "mode" if value == "host" => mode = Mode::Host,
            "mode" => return Err(BadPublish::Mode(value.to_owned())),
            _ => return Err(BadPublish::Field(field.to_owned())),
        }
    }
    Ok(Port { protocol, mode, published, target: target.ok_or(BadPublish::NoTarget)?, address: None })
}

fn short(text: &str) -> Result<Vec<Port>, BadPublish> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, protocol)) => (ports, Protocol::parse(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (front, target) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (address, front) = match front.rsplit_once(':') {
        Some((text, "")) => return Err(BadPublish::AddressAlone(text.to_owned())),
        Some((text, front)) => (Some(address(text)?), front),
        None => (None, front),
    };
    let targets = range("target", target)?;
    let make = |target, published| Port { protocol, target, published, mode: Mode::Ingress, address };
    if front == "0" {
        return Err(BadPublish::Zero);
    }
    if front.is_empty() {
        return Ok(targets.into_iter().map(|target| make(target, None)).collect());
    }
    if front.contains('.') {
        return Err(BadPublish::AddressAlone(front.to_owned()));
    }
    let doors = range("published", front)?;
    if targets.len() != 1 && targets.len() != doors.len() {
        return Err(BadPublish::Ranges(target.to_owned(), front.to_owned()));
    }
    Ok(doors.into_iter().zip(targets.into_iter().cycle()).map(|(door, target)| make(target, Some(door))).collect())
}

fn address(text: &str) -> Result<IpAddr, BadPublish> {
    let six = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match six {
        Some(six) => six.parse().ok().map(|address: Ipv6Addr| IpAddr::V6(address)),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    };
    address.ok_or_else(|| BadPublish::Address(text.to_owned()))
}

fn port(which: &'static str, text: &str) -> Result<NonZeroU16, BadPublish> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| BadPublish::Port(which, text.to_owned()))
}

fn range(which: &'static str, text: &str) -> Result<Vec<NonZeroU16>, BadPublish> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(which, first)?, port(which, last)?);
    if first > last {
        return Err(BadPublish::Port(which, text.to_owned()));
    }
    Ok((first.get()..=last.get()).filter_map(NonZeroU16::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(ports) => ports
                .iter()
                .map(|p| {
                    format!(
                        "{}{}>{}/{}{}",
                        p.address.map(|a| format!("{a} ")).unwrap_or_default(),
                        p.published.map_or(0, NonZeroU16::get),
                        p.target,
                        p.protocol.as_str(),
                        if p.mode == Mode::Host { "!" } else { "" }
                    )
                })
                .collect::<Vec<_>>()
                .join(" "),
            Err(e) => format!("{e}"),
        }
    }

    #[test]
    fn accepted() {
        for (text, want) in [
            ("80", "0>80/tcp"),
            (":80", "0>80/tcp"),
            ("8080:80", "8080>80/tcp"),
            ("53:53/UDP", "53>53/udp"),
            ("8000-8002:80-82", "8000>80/tcp 8001>81/tcp 8002>82/tcp"),
            ("8300-8302:80", "8300>80/tcp 8301>80/tcp 8302>80/tcp"),
            ("80-81/sctp", "0>80/sctp 0>81/sctp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080>80/tcp"),
            ("[::1]:53:53/udp", "::1 53>53/udp"),
            ("10.0.0.5:8000-8001:80", "10.0.0.5 8000>80/tcp 10.0.0.5 8001>80/tcp"),
            ("target=80", "0>80/tcp"),
            ("published=8080,target=80", "8080>80/tcp"),
            ("mode=host,published=53,target=5353,protocol=udp", "53>5353/udp!"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn refused_with_the_reason() {
        for (text, want) in [
            ("127.0.0.1::80", "address (127.0.0.1)"),
            ("[::1]::80", "skep.publish.<port>.addr"),
            ("eth0:80:80", "invalid address \"eth0\""),
            ("::1:80:80", "invalid address \"::1\""),
            ("[127.0.0.1]:80:80", "skep.publish.<port>.addr"),
            ("127.0.0.1:0:80", "leave it out"),
            ("10.0.0.1:80", "address (10.0.0.1)"),
            ("published=0,target=80", "leave it out to have one chosen"),
            ("0:80", "leave it out to have one chosen"),
            ("published=80", "missing mandatory field \"target\""),
            ("99999:80", "invalid published port \"99999\""),
            ("80:0", "invalid target port \"0\""),
            ("", "invalid target port \"\""),
            ("+80", "invalid target port"),
            ("82-80", "invalid target port \"82-80\""),
            ("published=foo,target=80", "invalid published port \"foo\""),
            ("published=80-81,target=80", "invalid published port \"80-81\""),
            ("80:80/icmp", "invalid protocol \"icmp\""),
            ("target=80,mode=foo", "invalid publish mode \"foo\""),
            ("target=80,colour=red", "invalid field \"colour=red\""),
            ("target=80,host", "invalid field \"host\""),
            ("8300-8303:80-81", "invalid ranges"),
            ("80:8000-8003", "invalid ranges"),
        ] {
            assert!(shown(text).contains(want), "{text}: {}", shown(text));
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[0-9a-z:=,/.\\-]{0,24}") {
            let _ = parse(&text);
        }

        #[test]
        fn short_and_long_agree(published in 1u16.., target in 1u16.., udp: bool) {
            let protocol = if udp { "udp" } else { "tcp" };
            let short = parse(&format!("{published}:{target}/{protocol}"));
            let long = parse(&format!("published={published},target={target},protocol={protocol}"));
            prop_assert_eq!(short, long);
        }

        #[test]
        fn a_range_has_as_many_ports_as_it_says(first in 1u16..60000, length in 0u16..100, target in 1u16..60000) {
            let ports = parse(&format!("{first}-{}:{target}-{}", first + length, target + length)).unwrap();
            prop_assert_eq!(ports.len(), usize::from(length) + 1);
            prop_assert!(ports.iter().all(|p| p.published.unwrap().get() - first == p.target.get() - target));
        }
    }
}
