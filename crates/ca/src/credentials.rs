//! What a node proves itself with.

use std::time::Duration;

use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use skep_model::Timestamp;

use crate::roots::{certificates, parse, to_pem};
use crate::{CaError, NodeKeys, PeerIdentity, Roots, provider};

/// A node's key, its certificate, and the roots that it trusts: all of it belongs together. `Debug` does not show the key.
#[derive(Debug, Clone)]
pub struct NodeCredentials {
    keys: NodeKeys,
    chain: Vec<CertificateDer<'static>>,
    roots: Roots,
    identity: PeerIdentity,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl NodeCredentials {
    /// Puts them together. `chain` is PEM: the node's own certificate, then its issuer's. That the certificate has expired is no error here: it says
    /// who the node is all the same.
    ///
    /// # Errors
    /// [`CaError::Certificate`] or [`CaError::Subject`] when the certificate cannot be read, [`CaError::OtherKey`] when it is for another key,
    /// [`CaError::Untrusted`] when none of `roots` has issued it.
    pub fn new(keys: NodeKeys, chain: &str, roots: Roots) -> Result<Self, CaError> {
        let chain = certificates(chain)?;
        let own = chain.first().ok_or_else(|| CaError::Certificate("it is missing".to_owned()))?;
        let certificate = parse(own)?;
        if certificate.public_key().raw != keys.pair().subject_public_key_info() {
            return Err(CaError::OtherKey);
        }
        let second = |time: x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|e| CaError::Certificate(e.to_string()))
        };
        let (not_before, not_after) =
            (second(certificate.validity().not_before)?, second(certificate.validity().not_after)?);
        let began = UnixTime::since_unix_epoch(Duration::from_secs(not_before.as_second().try_into().unwrap_or(0)));
        roots.have_issued(&chain, began)?;
        let identity = PeerIdentity::of(own)?;
        Ok(Self { keys, chain, roots, identity, not_before, not_after })
    }

    /// As [`Self::new`], with the one of `keys` that the certificate was issued for: while a certificate is replaced, a node has two.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_one_of(keys: Vec<NodeKeys>, chain: &str, roots: &Roots) -> Result<Self, CaError> {
        let mut last = CaError::OtherKey;
        for keys in keys {
            match Self::new(keys, chain, roots.clone()) {
                Err(CaError::OtherKey) => last = CaError::OtherKey,
                other => return other,
            }
        }
        Err(last)
    }

    /// Who the node is.
    #[must_use]
    pub fn identity(&self) -> &PeerIdentity {
        &self.identity
    }

    /// Its key pair.
    #[must_use]
    pub fn keys(&self) -> &NodeKeys {
        &self.keys
    }

    /// The roots that it trusts.
    #[must_use]
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// Its certificate and the issuer's, in PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| to_pem(certificate)).collect()
    }

    /// From when its certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// Until when its certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// Certificate and key for the TLS library.
    ///
    /// # Errors
    /// [`CaError::Key`].
    pub fn certified_key(&self) -> Result<CertifiedKey, CaError> {
        CertifiedKey::from_der(self.chain.clone(), self.keys.der(), &provider())
            .map_err(|e| CaError::Key(e.to_string()))
    }
}
