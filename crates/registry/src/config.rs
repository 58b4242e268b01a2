//! What the operator says of registries.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::url::{Scheme, Url};

/// What the operator says of registries.
#[derive(Debug, Clone, Default)]
pub struct RegistryConfig {
    /// Registries that may be spoken with over plain HTTP, or by TLS with whatever certificate. Those on this machine's own loopback
    /// addresses are among them always.
    pub insecure: Vec<Insecure>,
    /// Asked for Docker's own images before Docker's registry is.
    pub mirrors: Vec<Mirror>,
    /// Directories of certificates: of each, `<host>/*.crt` or `<host:port>/*.crt` are trusted for that registry besides the system's.
    pub certificates: Vec<PathBuf>,
    /// How long things may take.
    pub patience: Patience,
}

/// How long things may take, and how often they are tried.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Until a connection is there, names looked up and TLS agreed on.
    pub connect: Duration,
    /// Until an answer begins.
    pub answer: Duration,
    /// Until more of an answer comes.
    pub stall: Duration,
    /// Tries in a row without getting any further.
    pub tries: u32,
    /// The pause before the second try; doubled for each one after.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            tries: 5,
            pause: Duration::from_millis(500),
        }
    }
}

/// A text that names no registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no registry: use HOST, HOST:PORT or an address range such as 10.0.0.0/8")]
pub struct BadInsecure(pub String);

/// Registries that are not to be mistrusted for want of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Insecure {
    /// The one that is called so, with its port where it is given.
    Host(String),
    /// All at these addresses.
    Net(IpNet),
}

impl std::fmt::Display for Insecure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Net(net) => net.fmt(f),
        }
    }
}

impl FromStr for Insecure {
    type Err = BadInsecure;

    fn from_str(text: &str) -> Result<Self, BadInsecure> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(Self::Net(net));
        }
        match Url::at(Scheme::Https, text) {
            Some(_) if !text.contains('/') => Ok(Self::Host(text.to_ascii_lowercase())),
            _ => Err(BadInsecure(text.to_owned())),
        }
    }
}

/// A text that is no mirror's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no mirror's address: use https://HOST or https://HOST:PORT, without a path")]
pub struct BadMirror(pub String);

/// The address of a registry that has copies of Docker's own images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror(pub(crate) Url);

impl FromStr for Mirror {
    type Err = BadMirror;

    fn from_str(text: &str) -> Result<Self, BadMirror> {
        let url = Url::parse(text).filter(|url| url.path == "/");
        url.map(Self).ok_or_else(|| BadMirror(text.to_owned()))
    }
}

impl std::fmt::Display for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the operator has said of a server, or of one of its addresses, that it need not prove who it is.
pub(crate) fn is_insecure(list: &[Insecure], server: &Url, addresses: &[IpAddr]) -> bool {
    let loopback = server.host == "localhost" || addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty();
    let with_port = format!("{}:{}", server.host, server.port);
    loopback
        || list.iter().any(|entry| match entry {
            Insecure::Host(host) => *host == server.host || *host == server.authority() || *host == with_port,
            Insecure::Net(net) => !addresses.is_empty() && addresses.iter().all(|address| net.contains(address)),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_insecure() {
        let list: Vec<Insecure> =
            ["reg.example:5000", "other", "10.1.0.0/16"].iter().map(|text| text.parse().unwrap()).collect();
        let insecure = |authority: &str, addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|a| a.parse().unwrap()).collect();
            is_insecure(&list, &Url::at(Scheme::Https, authority).unwrap(), &addresses)
        };
        assert!(insecure("reg.example:5000", &[]) && !insecure("reg.example:5001", &["192.0.2.1"]));
        assert!(insecure("other:77", &[]) && insecure("other", &[]));
        assert!(insecure("x:1", &["10.1.2.3"]) && !insecure("x:1", &["10.1.2.3", "10.2.0.1"]));
        assert!(insecure("localhost:5000", &[]) && insecure("[::1]:5000", &["::1"]) && !insecure("x", &[]));
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["", "http://a", "a/b", "a:x"] {
            assert_eq!(bad.parse::<Insecure>(), Err(BadInsecure(bad.to_owned())));
        }
        for bad in ["mirror", "https://m/path", "ftp://m", ""] {
            assert_eq!(bad.parse::<Mirror>(), Err(BadMirror(bad.to_owned())));
        }
        assert_eq!("http://m:5000/".parse::<Mirror>().unwrap().to_string(), "http://m:5000/");
    }
}
