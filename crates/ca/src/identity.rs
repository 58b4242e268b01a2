//! Who a certificate says that its owner is.

use rustls::pki_types::CertificateDer;
use skep_model::{ClusterId, NodeId, Role};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::CaError;
use crate::roots::parse;

/// What a node's certificate says: the subject has the node's id as its common name, the role as its organizational unit
/// (`swarm-manager`, `swarm-worker`) and the swarm's id as its organization, as in Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The swarm.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// What it was to the swarm when the certificate was issued.
    pub role: Role,
}

/// The word for a role in certificates; also a DNS name that the certificates are valid for.
pub(crate) fn word(role: Role) -> &'static str {
    match role {
        Role::Worker => "swarm-worker",
        Role::Manager => "swarm-manager",
    }
}

impl PeerIdentity {
    /// Reads a certificate. Its signature has to be checked before.
    ///
    /// # Errors
    /// [`CaError::Certificate`] when it is none, [`CaError::Subject`] when it names no node.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, CaError> {
        let certificate = parse(certificate)?;
        let subject = certificate.subject();
        let node = only(subject, X509Name::iter_common_name).ok_or(CaError::Subject("it has not one common name"))?;
        let unit = only(subject, X509Name::iter_organizational_unit);
        let role = match unit.ok_or(CaError::Subject("it has not one organizational unit"))? {
            unit if unit == word(Role::Worker) => Role::Worker,
            unit if unit == word(Role::Manager) => Role::Manager,
            _ => return Err(CaError::Subject("its organizational unit is no role of a swarm")),
        };
        let cluster = only(subject, X509Name::iter_organization);
        let cluster = cluster.ok_or(CaError::Subject("it has not one organization"))?;
        Ok(Self {
            cluster: cluster.parse().map_err(|_| CaError::Subject("its organization is no swarm's id"))?,
            node: node.parse().map_err(|_| CaError::Subject("its common name is no node's id"))?,
            role,
        })
    }
}

/// The one attribute of its kind. A subject with two would be read one way here and another way elsewhere.
fn only<'a, 'n, I>(subject: &'n X509Name<'a>, kind: impl Fn(&'n X509Name<'a>) -> I) -> Option<&'n str>
where
    'a: 'n,
    I: Iterator<Item = &'n AttributeTypeAndValue<'a>>,
{
    let mut found = kind(subject);
    match (found.next(), found.next()) {
        (Some(one), None) => one.as_str().ok(),
        _ => None,
    }
}
