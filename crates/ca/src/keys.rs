//! The key pair of a node, and what it asks a certificate with.

use std::fmt;
use std::sync::Arc;

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::CaError;

/// An ECDSA key pair on the curve P-256. `Debug` does not show it.
#[derive(Clone)]
pub struct NodeKeys(Arc<KeyPair>);

impl NodeKeys {
    /// A new one.
    ///
    /// # Errors
    /// [`CaError::Key`] when the system gives no random numbers.
    pub fn generate() -> Result<Self, CaError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Arc::new).map(Self).map_err(|e| CaError::Key(e.to_string()))
    }

    /// Reads one in PEM (PKCS #8).
    ///
    /// # Errors
    /// [`CaError::Key`] when it is none, or one of another kind.
    pub fn from_pem(text: &str) -> Result<Self, CaError> {
        let keys = KeyPair::from_pem(text).map_err(|e| CaError::Key(e.to_string()))?;
        if keys.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Key("it is not an ECDSA key on the curve P-256".to_owned()));
        }
        Ok(Self(Arc::new(keys)))
    }

    /// Reads all that are in a text, one after the other.
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    pub fn all_from_pem(text: &str) -> Result<Vec<Self>, CaError> {
        let sections = pem::parse_many(text).map_err(|e| CaError::Key(e.to_string()))?;
        sections.iter().map(|section| Self::from_pem(&pem::encode(section))).collect()
    }

    /// It as a text, which is a secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// What a node sends to get a certificate for this key: a signing request (PKCS #10) as DER, signed with the key. It says nothing else; who the
    /// node is, is for the managers to say.
    ///
    /// # Errors
    /// [`CaError::Issue`] when it cannot be signed.
    pub fn request(&self) -> Result<Vec<u8>, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&*self.0).map_err(|e| CaError::Issue(e.to_string()))?;
        Ok(request.der().to_vec())
    }

    /// SHA-256 of the public key in hexadecimal: what managers store of it, in [`skep_model::Node::credential`].
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&*self.0)
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    /// For the TLS library.
    pub(crate) fn der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKeys(…)")
    }
}

/// Whichever way somebody wrote the key, one key has one digest.
pub(crate) fn digest(key: &impl PublicKeyData) -> String {
    hex::encode(Sha256::digest(key.subject_public_key_info()))
}

/// A signing request whose sender has proved that the private key is its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningRequest(SubjectPublicKeyInfo);

impl SigningRequest {
    /// Reads what [`NodeKeys::request`] made, and checks its signature. Of all that it says only the public key is kept.
    ///
    /// # Errors
    /// [`CaError::Request`].
    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        let Ok(([], request)) = X509CertificationRequest::from_der(der) else {
            return Err(CaError::Request("it is not one (PKCS #10)"));
        };
        let key = request.certification_request_info.subject_pki.raw;
        let key = SubjectPublicKeyInfo::from_der(key).ok().filter(|key| key.algorithm() == &PKCS_ECDSA_P256_SHA256);
        let key = key.ok_or(CaError::Request("the key is not an ECDSA key on the curve P-256"))?;
        request.verify_signature().map_err(|_| CaError::Request("it is not signed with the key that it is for"))?;
        Ok(Self(key))
    }

    /// As [`NodeKeys::digest`].
    #[must_use]
    pub fn digest(&self) -> String {
        digest(&self.0)
    }

    pub(crate) fn key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}
