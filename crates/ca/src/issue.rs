//! The root of a swarm, and what it signs.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SubjectPublicKeyInfo,
};
use skep_model::{Authority, ClusterId, NodeId, PrivateKey, Rotation, RotationStage, Timestamp};

use crate::given::name_of;
use crate::identity::word;
use crate::{CaError, NodeKeys, PeerIdentity, RootCertificate, SigningRequest};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a root certificate is valid.
const ROOT_LIFE: Duration = DAY.saturating_mul(20 * 365 + 5);
/// How long a node's certificate is valid, from now, unless somebody says otherwise.
const NODE_LIFE: Duration = DAY.saturating_mul(90);
/// Certificates are valid from before they were made: the clocks of nodes differ.
pub(crate) const BACKDATED: Duration = Duration::from_secs(3600);

/// The root certificate of a swarm with its private key. `Debug` does not show the key.
#[derive(Clone)]
pub struct RootCa {
    certificate: RootCertificate,
    keys: Arc<KeyPair>,
    /// How long the certificates are valid that it issues.
    life: Duration,
    /// Goes along with each certificate, in PEM: by what others recognize it that do not know this root.
    beside: String,
}

impl RootCa {
    /// A new one, valid for twenty years from `now`.
    ///
    /// # Errors
    /// [`CaError::Key`] or [`CaError::Issue`] when the system gives no random numbers.
    pub fn generate(now: Timestamp) -> Result<Self, CaError> {
        let keys = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|e| CaError::Key(e.to_string()))?;
        let mut params = authority(now);
        params.distinguished_name.push(DnType::CommonName, "skep-ca");
        let certificate = params.self_signed(&keys).map_err(|e| CaError::Issue(e.to_string()))?;
        Ok(Self::new(RootCertificate::from_der(certificate.der().clone()), keys))
    }

    pub(crate) fn new(certificate: RootCertificate, keys: KeyPair) -> Self {
        Self { certificate, keys: Arc::new(keys), life: NODE_LIFE, beside: String::new() }
    }

    /// The one that a swarm issues its certificates under: while the root is replaced, the new one as soon as all know it.
    ///
    /// # Errors
    /// [`CaError::Certificate`], [`CaError::Key`], or [`CaError::OtherKey`] when the two do not belong together.
    pub fn of(authority: &Authority) -> Result<Self, CaError> {
        match &authority.rotation {
            Some(rotation) if rotation.stage == RotationStage::Issuing => {
                let root = Self::stored(&rotation.certificate, &rotation.key)?;
                // Who joins with a token that names the old root looks for that one.
                Ok(Self { beside: rotation.vouched.clone() + &authority.certificate, ..root })
            }
            _ => Self::stored(&authority.certificate, &authority.key),
        }
    }

    fn stored(certificate: &str, key: &PrivateKey) -> Result<Self, CaError> {
        let certificate = RootCertificate::from_pem(certificate)?;
        let keys = KeyPair::from_pem(&key.0).map_err(|e| CaError::Key(e.to_string()))?;
        if certificate.public_key()? != keys.subject_public_key_info() {
            return Err(CaError::OtherKey);
        }
        Ok(Self::new(certificate, keys))
    }

    /// It, issuing certificates that are valid for `life` instead of 90 days.
    #[must_use]
    pub fn issuing_for(self, life: Duration) -> Self {
        Self { life, ..self }
    }

    /// What a swarm with this root stores of it. It is the only root that is trusted.
    #[must_use]
    pub fn authority(&self) -> Authority {
        let certificate = self.certificate.to_pem();
        Authority { trusted: vec![certificate.clone()], certificate, key: self.key(), rotation: None }
    }

    fn key(&self) -> PrivateKey {
        PrivateKey(self.keys.serialize_pem())
    }

    /// What a swarm stores from when this root is to take the place of its present one, or of one that was to. Asked for the one that is taking it, or
    /// that has it, it is as it was.
    ///
    /// # Errors
    /// [`CaError::RootInUse`] when it was to take it before: nobody could tell which of the certificates under it are still in use.
    pub fn succeed(&self, before: &Authority, now: Timestamp) -> Result<Authority, CaError> {
        let certificate = self.certificate.to_pem();
        if before.wanted() == certificate {
            return Ok(before.clone());
        }
        let mut trusted = before.trusted.clone();
        if let Some(given_up) = before.rotation.as_ref().filter(|given_up| given_up.stage == RotationStage::Announced) {
            // It has issued nothing.
            trusted.retain(|root| *root != given_up.certificate);
        }
        if trusted.contains(&certificate) {
            return Err(CaError::RootInUse);
        }
        trusted.push(certificate.clone());
        let vouched = Self::stored(&before.certificate, &before.key)?.vouch_for(&self.certificate, now)?;
        let rotation = Rotation { certificate, key: self.key(), vouched, stage: RotationStage::Announced };
        Ok(Authority { trusted, rotation: Some(rotation), ..before.clone() })
    }

    /// A certificate, in PEM, by which who trusts this root alone recognizes what `other` has signed.
    fn vouch_for(&self, other: &RootCertificate, now: Timestamp) -> Result<String, CaError> {
        let mut params = authority(now);
        params.distinguished_name = name_of(other)?;
        let key = SubjectPublicKeyInfo::from_der(&other.public_key()?).map_err(|e| issued(&e))?;
        let certificate = params.signed_by(&key, &self.issuer()?).map_err(|e| issued(&e))?;
        Ok(crate::roots::to_pem(certificate.der()))
    }

    /// Its certificate.
    #[must_use]
    pub fn certificate(&self) -> &RootCertificate {
        &self.certificate
    }

    /// Signs a node's certificate, valid from an hour before `now`. Who the node is comes from the caller alone. Returns the chain in PEM: the node's
    /// certificate, then the root's, and what others need to recognize it by.
    ///
    /// # Errors
    /// [`CaError::Issue`].
    pub fn sign(&self, request: &SigningRequest, identity: &PeerIdentity, now: Timestamp) -> Result<String, CaError> {
        self.chain(request.key(), identity, now)
    }

    /// As [`Self::sign`], for a node that has the root at hand: the first manager.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub fn sign_own(&self, keys: &NodeKeys, identity: &PeerIdentity, now: Timestamp) -> Result<String, CaError> {
        self.chain(keys.pair(), identity, now)
    }

    fn chain(&self, key: &impl PublicKeyData, identity: &PeerIdentity, now: Timestamp) -> Result<String, CaError> {
        let certificate = self.issue(key, identity, params(now, self.life))?;
        Ok(crate::roots::to_pem(certificate.der()) + &self.certificate.to_pem() + &self.beside)
    }

    fn issuer(&self) -> Result<Issuer<'static, &KeyPair>, CaError> {
        Issuer::from_ca_cert_der(self.certificate.der(), &*self.keys).map_err(|e| issued(&e))
    }

    pub(crate) fn issue(
        &self,
        key: &impl PublicKeyData,
        PeerIdentity { cluster, node, role }: &PeerIdentity,
        mut params: CertificateParams,
    ) -> Result<Certificate, CaError> {
        let role = word(*role);
        params.distinguished_name = subject(cluster, node, role);
        for name in [node.as_str(), role] {
            let name = name.try_into().map_err(|e| issued(&e))?;
            params.subject_alt_names.push(rcgen::SanType::DnsName(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params.signed_by(key, &self.issuer()?).map_err(|e| issued(&e))
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

fn issued(error: &rcgen::Error) -> CaError {
    CaError::Issue(error.to_string())
}

/// What a certificate has that others are issued under.
fn authority(now: Timestamp) -> CertificateParams {
    let mut params = params(now, ROOT_LIFE);
    // It signs the certificates of nodes, and the root that will follow it, which signs no others than that.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
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
