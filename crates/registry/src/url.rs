//! Addresses of HTTP servers, as registries and their messages write them.

use std::fmt;

/// An absolute `http` or `https` address. Without a fragment, a user or a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// A name or an address; one of IPv6 without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query, from the first slash.
    pub(crate) path: String,
}

/// How bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scheme {
    /// As they are.
    Http,
    /// By TLS.
    Https,
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Url {
    /// Reads an absolute address.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://")? {
            (scheme, rest) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            (scheme, rest) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        Self::at(scheme, authority)?.with_path(path)
    }

    /// The root of a server given as `host`, `host:port` or `[address]:port`.
    pub(crate) fn at(scheme: Scheme, authority: &str) -> Option<Self> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let known = |c: u8| c.is_ascii_alphanumeric() || b".-_:%".contains(&c);
        if host.is_empty() || !host.bytes().all(known) {
            return None;
        }
        let port = port.map_or(Some(scheme.default_port()), |port| port.parse().ok().filter(|port| *port != 0))?;
        Some(Self { scheme, host: host.to_ascii_lowercase(), port, path: "/".to_owned() })
    }

    /// The same server, another path.
    pub(crate) fn with_path(&self, path: &str) -> Option<Self> {
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let sound = path.bytes().all(|c| c.is_ascii_graphic());
        sound.then(|| Self { path, ..self.clone() })
    }

    /// Where a `Location` leads that was answered here: an absolute address, or a path from the root.
    pub(crate) fn follow(&self, location: &str) -> Option<Self> {
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
            return Self::parse(&format!("{scheme}://{rest}"));
        }
        if location.starts_with('/') {
            return self.with_path(location);
        }
        Self::parse(location)
    }

    /// Whether both are the same server by the same way.
    pub(crate) fn same_server(&self, other: &Self) -> bool {
        (self.scheme, &self.host, self.port) == (other.scheme, &other.host, other.port)
    }

    /// `host`, or `host:port` where the port is not the usual one.
    pub(crate) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }

    /// With a query parameter more.
    #[must_use]
    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(name);
        self.path.push('=');
        self.path.push_str(&percent(value));
        self
    }
}

/// Percent-encoding of a value (RFC 3986: all but the unreserved characters).
pub(crate) fn percent(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == Scheme::Https { "https" } else { "http" };
        // A query may hold what is nobody's business.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_meant() {
        for (text, authority, path) in [
            ("https://reg.example", "reg.example", "/"),
            ("https://Reg.Example:443/v2/", "reg.example", "/v2/"),
            ("http://reg.example:5000?x=1", "reg.example:5000", "/?x=1"),
            ("http://[fd00::1]:5000/a#b", "[fd00::1]:5000", "/a"),
            ("https://[fd00::1]/", "[fd00::1]", "/"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.authority().as_str(), url.path.as_str()), (authority, path), "{text}");
        }
        for bad in ["ftp://a", "a", "https://", "https://a:0", "https://a:x", "https://u:p@a/", "https://a/ b", "//a"] {
            assert_eq!(Url::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn locations_lead_where_they_say() {
        let from = Url::parse("https://a.example:5000/v2/x?y").unwrap();
        let to = |location: &str| from.follow(location).map(|url| format!("{}{}", url.authority(), url.path));
        assert_eq!(to("/z").as_deref(), Some("a.example:5000/z"));
        assert_eq!(to("http://b/z").as_deref(), Some("b/z"));
        assert_eq!(to("//b/z").as_deref(), Some("b/z"));
        assert_eq!(to("z"), None);
        assert!(!from.same_server(&from.follow("http://a.example:5000/").unwrap()));
    }

    #[test]
    fn what_a_query_holds_is_not_shown() {
        let url = Url::parse("https://a/b").unwrap().query("scope", "repository:x/y:pull");
        assert_eq!(url.path, "/b?scope=repository%3Ax%2Fy%3Apull");
        assert_eq!(url.to_string(), "https://a/b");
    }
}
