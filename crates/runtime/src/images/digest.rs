//! SHA-256 digests, and the three things that images are named by.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A text that is no `sha256:` digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: sha256: and 64 lower-case hexadecimal digits are expected")]
pub struct BadDigest(pub String);

/// A SHA-256 digest; shown and stored as `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits, without the algorithm: the only form that becomes a file name.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// The first 12 hexadecimal digits, as people see them.
    #[must_use]
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = BadDigest;

    /// Takes the digits with and without `sha256:` in front.
    fn from_str(text: &str) -> Result<Self, BadDigest> {
        let bad = || BadDigest(text.chars().take(100).collect());
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = BadDigest;
    fn try_from(text: String) -> Result<Self, BadDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

macro_rules! named_by_digest {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl $name {
            /// The 64 hexadecimal digits.
            #[must_use]
            pub fn hex(&self) -> String {
                self.0.hex()
            }

            /// The first 12 hexadecimal digits.
            #[must_use]
            pub fn short(&self) -> String {
                self.0.short()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = BadDigest;
            fn from_str(text: &str) -> Result<Self, BadDigest> {
                text.parse().map(Self)
            }
        }
    };
}

named_by_digest! {
    /// An image: the digest of its configuration. Shown as `sha256:…`.
    ImageId
}
named_by_digest! {
    /// A layer's content: the digest of its uncompressed tar.
    DiffId
}
named_by_digest! {
    /// A layer on top of the layers below it: the same content on other parents is another chain.
    ChainId
}

impl ChainId {
    /// The chain that `diff` makes on top of `parent` (OCI image specification, "Layer ChainID").
    #[must_use]
    pub fn on(parent: Option<Self>, diff: DiffId) -> Self {
        match parent {
            None => Self(diff.0),
            Some(parent) => Self(Digest::of(format!("{parent} {diff}").as_bytes())),
        }
    }
}

/// Makes the digest of bytes that come piece by piece.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Hashes and counts what is read through it.
pub(super) struct Hashing<R> {
    inner: R,
    hash: Sha256,
    count: u64,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new(), count: 0 }
    }

    /// The digest and the number of the bytes read so far.
    pub(super) fn finish(self) -> (Digest, u64) {
        (Digest(self.hash.finalize().into()), self.count)
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strict_digests_are_taken() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").hex(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap().to_string(), format!("sha256:{empty}"));
        let upper = empty.to_uppercase();
        for bad in ["", "sha256:", "../../etc/passwd", &empty[1..], &format!("sha512:{empty}"), &upper] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_chain_depends_on_its_parents() {
        let (a, b) = (DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b")));
        let first = ChainId::on(None, a);
        assert_eq!(first.hex(), a.hex());
        assert_eq!(ChainId::on(Some(first), b).0, Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(ChainId::on(Some(first), b), ChainId::on(None, b));
    }
}
