//! A root certificate that somebody brings.

use std::time::Duration;

use rcgen::{DistinguishedName, DnType, DnValue, KeyPair, PublicKeyData};
use rustls::pki_types::UnixTime;
use skep_model::{ClusterId, NodeId, Role, Timestamp};
use x509_parser::asn1_rs::Tag;
use x509_parser::x509::AttributeTypeAndValue;

use crate::roots::{certificates, parse};
use crate::{CaError, NodeKeys, PeerIdentity, RootCa, RootCertificate, Roots};

/// A root is replaced by hand: one that expires sooner would be forgotten.
const LEAST_LIFE: Duration = Duration::from_hours(365 * 24);
/// What a private key is called that is read: PKCS #8.
const KEY_TAG: &str = "PRIVATE KEY";

impl RootCa {
    /// The one that somebody brings: a certificate and its private key (PKCS #8), both in PEM. It is tried: what it issues has to be accepted.
    ///
    /// # Errors
    /// [`CaError::Root`] with what is wrong with it.
    pub fn given(certificate: &str, key: &str, now: Timestamp) -> Result<Self, CaError> {
        let certificate = given_certificate(certificate, now)?;
        let keys = given_key(key)?;
        if certificate.public_key()? != keys.subject_public_key_info() {
            return Err(unusable("the private key is not that of the certificate"));
        }
        let root = Self::new(certificate, keys);
        root.is_good_for_a_node(now).map_err(|error| unusable(format!("what it issues is not accepted: {error}")))?;
        Ok(root)
    }

    /// Whether a node's certificate that it issues is accepted, and what vouches for it too.
    fn is_good_for_a_node(&self, now: Timestamp) -> Result<(), CaError> {
        let identity = PeerIdentity { cluster: ClusterId::random(), node: NodeId::random(), role: Role::Manager };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(now.as_second().try_into().unwrap_or(0)));
        let chain = certificates(&self.sign_own(&NodeKeys::generate()?, &identity, now)?)?;
        Roots::new(vec![self.certificate().clone()])?.have_issued(&chain, at)?;
        let other = Self::generate(now)?;
        let succeeding = self.succeed(&other.authority(), now)?;
        let vouched = succeeding.rotation.map(|rotation| rotation.vouched).unwrap_or_default();
        let chain = [chain[..1].to_vec(), certificates(&vouched)?].concat();
        Roots::new(vec![other.certificate().clone()])?.have_issued(&chain, at)
    }
}

fn given_certificate(text: &str, now: Timestamp) -> Result<RootCertificate, CaError> {
    let found = certificates(text).map_err(|error| unusable(error.to_string()))?;
    let [one] = found.as_slice() else {
        return Err(unusable(format!("it must be one certificate in PEM, and there are {}", found.len())));
    };
    let parsed = parse(one).map_err(|error| unusable(error.to_string()))?;
    if !parsed.is_ca() {
        return Err(unusable("it must not issue others: its basic constraints do not say CA:TRUE"));
    }
    let left = parsed.validity().not_after.timestamp() - now.as_second();
    if left < i64::try_from(LEAST_LIFE.as_secs()).unwrap_or(i64::MAX) {
        return Err(unusable("CA certificate expires too soon: it must be valid for another year"));
    }
    if parsed.validity().not_before.timestamp() > now.as_second() {
        return Err(unusable("it is not valid yet"));
    }
    let certificate = RootCertificate::from_der(one.clone());
    name_of(&certificate)?;
    Ok(certificate)
}

fn given_key(text: &str) -> Result<KeyPair, CaError> {
    let sections = pem::parse_many(text).map_err(|error| unusable(format!("the private key is no PEM: {error}")))?;
    let as_it_should_be = "`openssl pkcs8 -topk8 -nocrypt -in KEY -out NEW` writes it as it should be";
    let key = sections.iter().find(|section| section.tag() == KEY_TAG).ok_or_else(|| {
        let found = sections.iter().map(|section| format!("{:?}", section.tag())).collect::<Vec<_>>().join(", ");
        let found = if found.is_empty() { "nothing".to_owned() } else { found };
        unusable(format!(
            "the private key must be in PEM as {KEY_TAG:?} (PKCS #8), and there is {found}: {as_it_should_be}"
        ))
    })?;
    KeyPair::try_from(key.contents()).map_err(|_| {
        unusable("the private key is neither an ECDSA one (on the curves P-256 or P-384), nor Ed25519, nor RSA of 2048 bits or more")
    })
}

/// The name of a root, to be written into other certificates.
pub(crate) fn name_of(certificate: &RootCertificate) -> Result<DistinguishedName, CaError> {
    let parsed = parse(certificate.der())?;
    let mut name = DistinguishedName::new();
    for part in parsed.subject().iter_rdn() {
        let mut attributes = part.iter();
        let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
            return Err(unusable("a part of its subject does not have one attribute"));
        };
        let kind = attribute.attr_type().iter().map(Iterator::collect).ok_or_else(|| unusable("its subject"))?;
        name.push(DnType::CustomDnType(kind), value(attribute)?);
    }
    Ok(name)
}

fn value(attribute: &AttributeTypeAndValue<'_>) -> Result<DnValue, CaError> {
    let other = || unusable("its subject has a text that is neither UTF-8, nor printable, nor IA5");
    let text = attribute.as_str().map_err(|_| other())?;
    Ok(match attribute.attr_value().tag() {
        Tag::Utf8String => DnValue::Utf8String(text.to_owned()),
        Tag::PrintableString => DnValue::PrintableString(text.try_into().map_err(|_| other())?),
        Tag::Ia5String => DnValue::Ia5String(text.try_into().map_err(|_| other())?),
        _ => return Err(other()),
    })
}

fn unusable(why: impl Into<String>) -> CaError {
    CaError::Root(why.into())
}
