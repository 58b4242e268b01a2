//! What the node proves itself with: when it founds a swarm, when it joins one, and after a restart.

use anyhow::{Result, bail};
use skep_ca::{JoinToken, NodeCredentials, NodeKeys, PeerIdentity, RootCa, Roots};
use skep_model::{CertificateSpec, ClusterId, NodeId, Role, Timestamp};
use skep_rpc::{NodeIdentity, proto};
use tracing::warn;

use super::certificates::Certificates;
use super::node_file::Membership;

/// The root of a new swarm, and its first manager, with a certificate as is asked of them.
pub(crate) fn founded(spec: CertificateSpec) -> Result<(RootCa, NodeIdentity)> {
    let now = Timestamp::now();
    let (root, keys) = (RootCa::generate(now)?.issuing_for(spec.expiry), NodeKeys::generate()?);
    let identity = PeerIdentity { cluster: ClusterId::random(), node: NodeId::random(), role: Role::Manager };
    let chain = root.sign_own(&keys, &identity, now)?;
    let credentials = NodeCredentials::new(keys, &chain, Roots::new(vec![root.certificate().clone()])?)?;
    Ok((root, NodeIdentity::new(credentials)?))
}

/// What a manager has made of this node. That it is of the swarm of the token was seen when it was called.
pub(crate) fn joined(token: &JoinToken, keys: NodeKeys, answer: &proto::JoinResponse) -> Result<NodeIdentity> {
    let roots = Roots::from_pem(&answer.roots)?;
    if !roots.all().iter().any(|root| token.is_for(root)) {
        bail!("the root certificate of the join token is not among those that it trusts");
    }
    let credentials = NodeCredentials::new(keys, &answer.certificate, roots)?;
    if credentials.identity().node.as_str() != answer.node_id
        || credentials.identity().cluster.as_str() != answer.cluster_id
    {
        bail!("it is for another node than the one that joined");
    }
    Ok(NodeIdentity::new(credentials)?)
}

/// What the node proves itself with after a restart.
pub(crate) fn resumed(certificates: &Certificates, membership: &Membership) -> Result<NodeIdentity> {
    let credentials = certificates.load()?;
    let own = credentials.identity();
    if own.node != membership.node || own.cluster != membership.cluster {
        bail!(
            "the certificate on the disk is another node's ({}) than swarm.json says ({})",
            own.node,
            membership.node
        );
    }
    if credentials.not_after() < Timestamp::now() {
        warn!(
            "this node's certificate has expired on {}: check the clock; if it is right, leave the swarm and join again",
            credentials.not_after()
        );
    }
    Ok(NodeIdentity::new(credentials)?)
}
