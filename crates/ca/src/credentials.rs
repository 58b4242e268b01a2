//! What a node proves itself with.

use std::time::Duration;

use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::sign::CertifiedKey;
use skep_model::{NodeTls, Timestamp};

use crate::issue::BACKDATED;
use crate::roots::{certificates, parse, to_pem};
use crate::{CaError, NodeKeys, PeerIdentity, RootCertificate, Roots, provider};

/// A node's key, its certificate, and the roots that it trusts: all of it belongs together. `Debug` does not show the key.
#[derive(Debug, Clone)]
pub struct NodeCredentials {
    keys: NodeKeys,
    chain: Vec<CertificateDer<'static>>,
    roots: Roots,
    issuer: RootCertificate,
    identity: PeerIdentity,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl NodeCredentials {
    /// Puts them together. `chain` is PEM: the node's own certificate, then its issuer's, then what else others recognize it by. That the certificate has expired is no error here: it says
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
        let began = UnixTime::since_unix_epoch(seconds(not_before));
        roots.have_issued(&chain, began)?;
        let issuer = issuer(&chain, &roots, began)?;
        let identity = PeerIdentity::of(own)?;
        Ok(Self { keys, chain, roots, issuer, identity, not_before, not_after })
    }

    /// The same certificate, of a node that trusts other roots.
    ///
    /// # Errors
    /// [`CaError::Untrusted`] when none of them has issued it.
    pub fn trusting(&self, roots: Roots) -> Result<Self, CaError> {
        let chain = match roots.all() {
            // There is nobody left who does not know the root, or knows it by another one that vouches for it.
            [only] => to_pem(&self.chain[0]) + &only.to_pem(),
            _ => self.chain_pem(),
        };
        Self::new(self.keys.clone(), &chain, roots)
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

    /// The one of them that its certificate is under.
    #[must_use]
    pub fn issuer(&self) -> &RootCertificate {
        &self.issuer
    }

    /// Whether this node takes what `other` shows for a certificate of the swarm.
    ///
    /// # Errors
    /// [`CaError::Untrusted`] when none of the roots that it trusts has issued it, nor one that such a root vouches for.
    pub fn recognizes(&self, other: &Self) -> Result<(), CaError> {
        let began = UnixTime::since_unix_epoch(seconds(other.not_before));
        self.roots.have_issued(&other.chain, began)
    }

    /// What the node says of them to managers.
    #[must_use]
    pub fn tls(&self) -> NodeTls {
        NodeTls { roots: self.roots.to_pem(), issuer: self.issuer.to_pem() }
    }

    /// Its certificate, the issuer's, and what others may need to recognize it by, in PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| to_pem(certificate)).collect()
    }

    /// From when its certificate is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// When its certificate was issued: it is valid from a little earlier on, for clocks that differ.
    #[must_use]
    pub fn issued(&self) -> Timestamp {
        self.not_before.checked_add(BACKDATED).unwrap_or(self.not_before).min(self.not_after)
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

/// Since 1970.
fn seconds(time: Timestamp) -> Duration {
    Duration::from_secs(time.as_second().try_into().unwrap_or(0))
}

/// The root that the node's certificate is under. Several may have the same name and key: then it is the one that goes along.
fn issuer(chain: &[CertificateDer<'_>], roots: &Roots, at: UnixTime) -> Result<RootCertificate, CaError> {
    let goes_along = |root: &&RootCertificate| chain.get(1) == Some(root.der());
    let (own, mut others) = (&chain[..1], roots.all().iter());
    let has_issued = |root: &&RootCertificate| {
        Roots::new(vec![RootCertificate::clone(root)]).is_ok_and(|root| root.have_issued(own, at).is_ok())
    };
    let along = roots.all().iter().find(goes_along).filter(has_issued);
    along.or_else(|| others.find(has_issued)).cloned().ok_or(CaError::Untrusted)
}
