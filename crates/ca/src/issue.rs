//! The root of a swarm, and what it signs.

use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SerialNumber,
};
use skep_model::{Authority, ClusterId, NodeId, PrivateKey, Timestamp};

use crate::identity::word;
use crate::roots::parse;
use crate::{CaError, NodeKeys, PeerIdentity, RootCertificate, SigningRequest};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a root certificate is valid.
const ROOT_LIFE: Duration = DAY.saturating_mul(20 * 365 + 5);
/// How long a node's certificate is valid, from now.
const NODE_LIFE: Duration = DAY.saturating_mul(90);
/// Certificates are valid from before they were made: the clocks of nodes differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// The root certificate of a swarm with its private key. `Debug` does not show the key.
#[derive(Clone)]
pub struct RootCa {
    certificate: RootCertificate,
    keys: NodeKeys,
}

impl RootCa {
    /// A new one, valid for twenty years from `now`.
    ///
    /// # Errors
    /// [`CaError::Key`] or [`CaError::Issue`] when the system gives no random numbers.
    pub fn generate(now: Timestamp) -> Result<Self, CaError> {
        let keys = NodeKeys::generate()?;
        let mut params = params(now, ROOT_LIFE);
        params.distinguished_name.push(DnType::CommonName, "skep-ca");
        // It signs the certificates of nodes, and nothing that signs others.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(keys.pair()).map_err(|e| CaError::Issue(e.to_string()))?;
        Ok(Self { certificate: RootCertificate::from_der(certificate.der().clone()), keys })
    }

    /// The one that a swarm issues its certificates under.
    ///
    /// # Errors
    /// [`CaError::Certificate`], [`CaError::Key`], or [`CaError::OtherKey`] when the two do not belong together.
    pub fn of(authority: &Authority) -> Result<Self, CaError> {
        let certificate = RootCertificate::from_pem(&authority.certificate)?;
        let keys = NodeKeys::from_pem(&authority.key.0)?;
        if parse(certificate.der())?.public_key().raw != keys.pair().subject_public_key_info() {
            return Err(CaError::OtherKey);
        }
        Ok(Self { certificate, keys })
    }

    /// What a swarm with this root stores of it. It is the only root that is trusted.
    #[must_use]
    pub fn authority(&self) -> Authority {
        let certificate = self.certificate.to_pem();
        Authority { trusted: vec![certificate.clone()], certificate, key: PrivateKey(self.keys.to_pem()) }
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &RootCertificate {
        &self.certificate
    }

    /// Signs a node's certificate, valid for 90 days from `now` and since an hour before. Who the node is comes from the caller alone. Returns the
    /// chain in PEM: the node's certificate, then the root's.
    ///
    /// # Errors
    /// [`CaError::Issue`].
    pub fn sign(&self, request: &SigningRequest, identity: &PeerIdentity, now: Timestamp) -> Result<String, CaError> {
        let certificate = self.issue(request.key(), identity, params(now, NODE_LIFE))?;
        Ok(crate::roots::to_pem(certificate.der()) + &self.certificate.to_pem())
    }

    /// As [`Self::sign`], for a node that has the root at hand: the first manager.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_own(&self, keys: &NodeKeys, identity: &PeerIdentity, now: Timestamp) -> Result<String, CaError> {
        let certificate = self.issue(keys.pair(), identity, params(now, NODE_LIFE))?;
        Ok(crate::roots::to_pem(certificate.der()) + &self.certificate.to_pem())
    }

    pub(crate) fn issue(
        &self,
        key: &impl PublicKeyData,
        PeerIdentity { cluster, node, role }: &PeerIdentity,
        mut params: CertificateParams,
    ) -> Result<Certificate, CaError> {
        let issued = |e: rcgen::Error| CaError::Issue(e.to_string());
        let role = word(*role);
        params.distinguished_name = subject(cluster, node, role);
        for name in [node.as_str(), role] {
            let name = name.try_into().map_err(issued)?;
            params.subject_alt_names.push(rcgen::SanType::DnsName(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(self.certificate.der(), self.keys.pair()).map_err(issued)?;
        params.signed_by(key, &issuer).map_err(issued)
    }
}

impl fmt::Debug for RootCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootCa({:?})", self.certificate)
    }
}

fn subject(cluster: &ClusterId, node: &NodeId, role: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, cluster.as_str());
    subject.push(DnType::OrganizationalUnitName, role);
    subject.push(DnType::CommonName, node.as_str());
    subject
}

/// What all certificates have: a time and a number of their own.
pub(crate) fn params(now: Timestamp, life: Duration) -> CertificateParams {
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let mut serial: [u8; 16] = rand::random();
    // Positive, and not shorter than others.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
}
