//! Certificates of members.

use skep_ca::{PeerIdentity, RootCa, SigningRequest};
use skep_model::{Cluster, Node, NodeId, Timestamp};
use skep_store::{Change, Tables};

use crate::ControlError;

/// Gives a member a certificate for another key, or for the same one again.
pub(crate) fn renew(
    tables: &Tables,
    node: &NodeId,
    request: &SigningRequest,
) -> Result<(Node, Vec<Change>), ControlError> {
    let known =
        tables.get::<Node>(node).ok_or_else(|| ControlError::NotFound { what: "node", id: node.to_string() })?;
    let mut node = Node::clone(known);
    node.credential = request.digest();
    let changes = if node == **known { Vec::new() } else { vec![node.clone().into()] };
    Ok((node, changes))
}

/// What a member proves itself with, and whom it may trust.
pub(crate) struct Issued {
    /// Its certificate, then its issuer's, then what others may need to recognize it by, in PEM.
    pub(crate) certificate: String,
    /// All trusted roots, in PEM.
    pub(crate) roots: String,
}

/// Issues the certificate of a member, for the role that it has now.
pub(crate) fn issue(
    cluster: &Cluster,
    node: &Node,
    request: &SigningRequest,
    now: Timestamp,
) -> Result<Issued, ControlError> {
    let identity = PeerIdentity { cluster: cluster.id.clone(), node: node.id.clone(), role: node.spec.role };
    let root = RootCa::of(&cluster.authority)?.issuing_for(cluster.spec.certificates.expiry);
    let certificate = root.sign(request, &identity, now)?;
    Ok(Issued { certificate, roots: cluster.authority.trusted.concat() })
}
