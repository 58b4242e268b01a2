//! References to images: `nginx`, `nginx:1.27`, `registry.example:5000/team/app@sha256:…`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that names no image. The fragments in front are what clients look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadImageRef {
    /// Nothing at all.
    #[error("image reference must be provided")]
    Empty,
    /// Letters of the wrong case.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    NotLowercase(String),
    /// Anything else.
    #[error("invalid reference format: {0:?} is not a valid repository/tag")]
    Malformed(String),
}

/// A reference to an image, normalised: `nginx` is `docker.io/library/nginx:latest`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageRef {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

const DEFAULT_DOMAIN: &str = "docker.io";
const OFFICIAL: &str = "library/";

impl ImageRef {
    /// The registry, `docker.io` by default.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry, `library/nginx` for `nginx`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag; `latest` when neither tag nor digest was given.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, `sha256:` and 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Whether both name the same repository.
    #[must_use]
    pub fn same_repository(&self, other: &Self) -> bool {
        (&self.domain, &self.path) == (&other.domain, &other.path)
    }

    /// The content with this digest, `sha256:…`, in the same repository, under no tag.
    #[must_use]
    pub fn by_digest(&self, digest: &str) -> Self {
        Self { tag: None, digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// The same reference with this digest, `sha256:…`: what its tag means now.
    #[must_use]
    pub fn pinned(&self, digest: &str) -> Self {
        Self { digest: Some(digest.to_owned()), ..self.clone() }
    }

    /// The repository as people write it: `nginx`, not `docker.io/library/nginx`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.domain != DEFAULT_DOMAIN {
            return format!("{}/{}", self.domain, self.path);
        }
        self.path.strip_prefix(OFFICIAL).unwrap_or(&self.path).to_owned()
    }

    /// As people write it, with tag and digest.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest);
        }
        text
    }
}

fn is_domain(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn valid_component(part: &str) -> bool {
    let ends = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = part.as_bytes();
    ends(bytes.first().copied())
        && ends(bytes.last().copied())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
        && !part.contains("..")
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = domain.rsplit_once(':').map_or((domain, None), |(h, p)| (h, Some(p)));
    let host_ok = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-[]:".contains(&b));
    host_ok && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    (1..=128).contains(&bytes.len()) && word(bytes[0]) && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

fn valid_digest(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)))
}

impl FromStr for ImageRef {
    type Err = BadImageRef;

    fn from_str(text: &str) -> Result<Self, BadImageRef> {
        if text.is_empty() {
            return Err(BadImageRef::Empty);
        }
        let malformed = || BadImageRef::Malformed(text.to_owned());
        let (rest, digest) = text.split_once('@').map_or((text, None), |(r, d)| (r, Some(d)));
        let slash = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[slash..].split_once(':') {
            Some((_, tag)) => (&rest[..rest.len() - tag.len() - 1], Some(tag)),
            None => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (first, path.to_owned()),
            Some(_) => (DEFAULT_DOMAIN, name.to_owned()),
            None => (DEFAULT_DOMAIN, format!("{OFFICIAL}{name}")),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(BadImageRef::NotLowercase(name.to_owned()));
        }
        let well_formed = valid_domain(domain)
            && path.len() <= 255
            && path.split('/').all(valid_component)
            && tag.is_none_or(valid_tag)
            && digest.is_none_or(valid_digest);
        if !well_formed {
            return Err(malformed());
        }
        let tag = tag.or(if digest.is_none() { Some("latest") } else { None });
        Ok(Self { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest: digest.map(str::to_owned) })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = BadImageRef;
    fn try_from(text: String) -> Result<Self, BadImageRef> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(image: ImageRef) -> String {
        image.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(format!("{}/{}", self.domain, self.path)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_completed_and_shown_short() {
        for (given, full, familiar) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("team/app:2", "docker.io/team/app:2", "team/app:2"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("reg.example:5000/a/b:1", "reg.example:5000/a/b:1", "reg.example:5000/a/b:1"),
        ] {
            let image: ImageRef = given.parse().unwrap();
            assert_eq!(image.to_string(), full);
            assert_eq!(image.familiar(), familiar);
        }
    }

    #[test]
    fn a_digest_stands_without_a_tag() {
        let text = format!("nginx@sha256:{}", "0".repeat(64));
        let image: ImageRef = text.parse().unwrap();
        assert_eq!((image.tag(), image.familiar()), (None, text));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!("".parse::<ImageRef>(), Err(BadImageRef::Empty));
        assert!(matches!("WEB:1".parse::<ImageRef>(), Err(BadImageRef::NotLowercase(_))));
        for bad in ["web:1:2", "a//b", "-a", "a:", "a@sha256:12", "a b", "a..b", ":1", "a/../b"] {
            assert!(matches!(bad.parse::<ImageRef>(), Err(BadImageRef::Malformed(_))), "{bad}");
        }
    }
}
