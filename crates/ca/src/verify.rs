//! How a client checks whom it has called.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use skep_model::{ClusterId, NodeId, Role};

use crate::identity::word;
use crate::{CaError, JoinToken, PeerIdentity, RootCertificate, Roots, provider};

/// The DNS name that all managers' certificates are valid for: what clients call, whatever the address is.
#[must_use]
pub fn manager_name() -> ServerName<'static> {
    ServerName::try_from(word(Role::Manager)).expect("it is a DNS name")
}

/// Whom a member means to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The swarm.
    pub cluster: ClusterId,
    /// The node, when it must be that one and not just any manager.
    pub node: Option<NodeId>,
}

/// Accepts managers of one swarm, by the roots that a member trusts.
#[derive(Debug)]
pub struct ManagerVerifier {
    inner: Arc<WebPkiServerVerifier>,
    expected: Expected,
}

impl ManagerVerifier {
    /// For one call, or many.
    ///
    /// # Errors
    /// [`CaError::Certificate`].
    pub fn new(roots: &Roots, expected: Expected) -> Result<Self, CaError> {
        Ok(Self { inner: by_roots(roots)?, expected })
    }
}

fn by_roots(roots: &Roots) -> Result<Arc<WebPkiServerVerifier>, CaError> {
    WebPkiServerVerifier::builder_with_provider(roots.store()?, provider())
        .build()
        .map_err(|e| CaError::Certificate(e.to_string()))
}

impl ServerCertVerifier for ManagerVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = manager(&self.inner, own, others, ocsp, now)?;
        let PeerIdentity { cluster, node, .. } = PeerIdentity::of(own).map_err(told)?;
        if cluster != self.expected.cluster {
            return Err(told(CaError::OtherCluster));
        }
        match &self.expected.node {
            Some(expected) if *expected != node => {
                Err(told(CaError::OtherNode { expected: expected.clone(), found: node }))
            }
            _ => Ok(verified),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Accepts managers of the swarm that a join token is for: the joining machine trusts no root yet, and knows the right one by the digest in
/// the token. The managers send it along.
#[derive(Debug)]
pub struct TokenVerifier {
    token: JoinToken,
    provider: Arc<CryptoProvider>,
}

impl TokenVerifier {
    /// For the swarm of `token`.
    #[must_use]
    pub fn new(token: JoinToken) -> Self {
        Self { token, provider: provider() }
    }
}

impl ServerCertVerifier for TokenVerifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = others.iter().map(|other| RootCertificate::from_der(other.clone().into_owned()));
        let root = roots.into_iter().find(|root| self.token.is_for(root)).ok_or_else(|| told(CaError::OtherRoot))?;
        let roots = Roots::new(vec![root]).map_err(told)?;
        manager(by_roots(&roots).map_err(told)?.as_ref(), own, others, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks that a manager of the swarm of these roots shows its certificate.
fn manager(
    by_roots: &WebPkiServerVerifier,
    own: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    ocsp: &[u8],
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let verified =
        by_roots.verify_server_cert(own, others, &manager_name(), ocsp, now).map_err(|error| match error {
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            ) => told(CaError::NotManager),
            Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                told(CaError::Untrusted)
            }
            other => other,
        })?;
    match PeerIdentity::of(own).map_err(told)?.role {
        Role::Manager => Ok(verified),
        Role::Worker => Err(told(CaError::NotManager)),
    }
}

fn told(error: CaError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
