//! The root certificates that a node trusts.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::{CaError, provider};

const TAG: &str = "CERTIFICATE";

/// The certificates in a PEM text, in order. Other sections are skipped.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let sections = pem::parse_many(text).map_err(|e| CaError::Certificate(e.to_string()))?;
    Ok(sections.into_iter().filter(|s| s.tag() == TAG).map(|s| CertificateDer::from(s.into_contents())).collect())
}

/// A certificate as PEM.
pub(crate) fn to_pem(certificate: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(TAG, certificate), config)
}

/// The certificate in `der`, if that is nothing else.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CaError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(CaError::Certificate("something follows it".to_owned())),
        Err(e) => Err(CaError::Certificate(e.to_string())),
    }
}

/// One root certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct RootCertificate(CertificateDer<'static>);

impl RootCertificate {
    /// Reads it.
    ///
    /// # Errors
    /// [`CaError::Certificate`] unless `text` is one certificate in PEM.
    pub fn from_pem(text: &str) -> Result<Self, CaError> {
        let mut found = certificates(text)?;
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => {
                parse(&one)?;
                Ok(Self(one))
            }
            _ => Err(CaError::Certificate("expected one certificate in PEM".to_owned())),
        }
    }

    pub(crate) fn from_der(der: CertificateDer<'static>) -> Self {
        Self(der)
    }

    /// It as a text.
    #[must_use]
    pub fn to_pem(&self) -> String {
        to_pem(&self.0)
    }

    /// It as bytes.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0
    }

    /// SHA-256 of its DER: what join tokens name it by.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }

    /// Its subject as DER.
    ///
    /// # Errors
    /// [`CaError::Certificate`].
    pub fn subject(&self) -> Result<Vec<u8>, CaError> {
        Ok(parse(&self.0)?.subject().as_raw().to_vec())
    }

    /// Its public key as DER (`SubjectPublicKeyInfo`).
    ///
    /// # Errors
    /// [`CaError::Certificate`].
    pub fn public_key(&self) -> Result<Vec<u8>, CaError> {
        Ok(parse(&self.0)?.public_key().raw.to_vec())
    }
}

impl fmt::Debug for RootCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootCertificate({})", &hex::encode(self.digest())[..16])
    }
}

/// The root certificates that a node trusts: one or more. While a root is replaced, both the old and the new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots(Vec<RootCertificate>);

impl Roots {
    /// Trusts these.
    ///
    /// # Errors
    /// [`CaError::NoRoots`]; [`CaError::Certificate`] when one of them cannot be an issuer.
    pub fn new(roots: Vec<RootCertificate>) -> Result<Self, CaError> {
        if roots.is_empty() {
            return Err(CaError::NoRoots);
        }
        let roots = Self(roots);
        roots.store()?;
        Ok(roots)
    }

    /// Reads certificates in PEM, one after the other.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn from_pem(text: &str) -> Result<Self, CaError> {
        Self::new(certificates(text)?.into_iter().map(RootCertificate).collect())
    }

    /// All of them in PEM, one after the other.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.iter().map(RootCertificate::to_pem).collect()
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[RootCertificate] {
        &self.0
    }

    pub(crate) fn store(&self) -> Result<Arc<RootCertStore>, CaError> {
        let mut store = RootCertStore::empty();
        for root in &self.0 {
            store.add(root.0.clone()).map_err(|e| CaError::Certificate(e.to_string()))?;
        }
        Ok(Arc::new(store))
    }

    /// Checks the certificates of clients. Who shows none passes too: what a stranger may ask is for the server to say.
    ///
    /// # Errors
    /// [`CaError::Certificate`].
    pub fn client_verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, CaError> {
        WebPkiClientVerifier::builder_with_provider(self.store()?, provider())
            .allow_unauthenticated()
            // The names of the roots are all the same, and are nobody's business before he has proved himself.
            .clear_root_hint_subjects()
            .build()
            .map_err(|e| CaError::Certificate(e.to_string()))
    }

    /// Whether one of the roots has issued `chain`, the node's own certificate first, as of the time `at`.
    pub(crate) fn have_issued(&self, chain: &[CertificateDer<'_>], at: UnixTime) -> Result<(), CaError> {
        let Some((own, others)) = chain.split_first() else {
            return Err(CaError::Certificate("it is missing".to_owned()));
        };
        let checked = self.client_verifier()?.verify_client_cert(own, others, at);
        checked.map(drop).map_err(|_| CaError::Untrusted)
    }
}
