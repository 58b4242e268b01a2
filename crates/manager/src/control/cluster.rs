//! The swarm's own object.

use std::ops::RangeInclusive;
use std::time::Duration;

use skep_ca::{CaError, JoinToken, RootCa, RootCertificate, UnlockKey, new_secret};
use skep_model::{Cluster, ClusterSpec, PrivateKey, Timestamp, UnlockSecret, Version};

use super::{Control, cluster, in_sequence};
use crate::{ControlError, SpecError};

/// How long a node's certificate may be valid: not so short that it is renewed all the time, and not longer than a root.
const CERTIFICATE_LIFE: RangeInclusive<Duration> = Duration::from_hours(1)..=Duration::from_hours(20 * 365 * 24);

/// The texts that `docker swarm join --token` takes. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinTokens {
    /// Admits workers.
    pub worker: String,
    /// Admits managers.
    pub manager: String,
}

impl std::fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokens(…)")
    }
}

/// What to replace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotate {
    /// The one for workers.
    pub worker: bool,
    /// The one for managers.
    pub manager: bool,
    /// The unlock key too, when the swarm is locked.
    pub unlock_key: bool,
    /// The root certificate, by this one.
    pub root: Option<GivenRoot>,
}

/// A root certificate that somebody brings, and its private key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenRoot {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: PrivateKey,
}

impl Control {
    /// What lets a node in now.
    ///
    /// # Errors
    /// [`ControlError::NoCluster`]; [`ControlError::Certificates`] when what is stored was not written by skep.
    pub fn join_tokens(&self) -> Result<JoinTokens, ControlError> {
        self.store().view(|tables| {
            let cluster = cluster(tables)?;
            let root = RootCertificate::from_pem(&cluster.authority.certificate)?;
            let token = |secret: &str| JoinToken::new(&root, secret).map(|token| token.to_string());
            let join = &cluster.join;
            Ok(JoinTokens { worker: token(&join.worker)?, manager: token(&join.manager)? })
        })
    }

    /// Changes the swarm's spec, its join tokens, or both, and begins to replace its root certificate when the spec or the caller asks for that.
    /// `version` is that of the swarm as the caller has seen it.
    ///
    /// # Errors
    /// When the swarm's spec has changed since, it makes no sense, or a root that is given cannot be used; or when it cannot be written.
    pub async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: Rotate,
    ) -> Result<(), ControlError> {
        let now = Timestamp::now();
        self.write(|tables| {
            let mut cluster = Cluster::clone(cluster(tables)?);
            in_sequence(version, &cluster.meta)?;
            check(&spec)?;
            let forced = spec.certificates.force_rotate != cluster.spec.certificates.force_rotate;
            if let Some(root) = next_root(rotate.root.as_ref(), forced, now)? {
                cluster.authority = root.succeed(&cluster.authority, now)?;
            }
            cluster.spec = spec;
            if rotate.worker {
                cluster.join.worker = new_secret();
            }
            if rotate.manager {
                cluster.join.manager = new_secret();
            }
            cluster.unlock_key = match cluster.unlock_key.take() {
                _ if !cluster.spec.autolock => None,
                Some(key) if !rotate.unlock_key => Some(key),
                _ => Some(new_unlock_key()),
            };
            Ok(((), vec![cluster.into()]))
        })
        .await
    }
}

/// The root that is to take the place of the present one, if one is.
fn next_root(given: Option<&GivenRoot>, forced: bool, now: Timestamp) -> Result<Option<RootCa>, CaError> {
    match given {
        Some(given) => RootCa::given(&given.certificate, &given.key.0, now).map(Some),
        None if forced => RootCa::generate(now).map(Some),
        None => Ok(None),
    }
}

pub(super) fn new_unlock_key() -> UnlockSecret {
    UnlockSecret(UnlockKey::random().to_string())
}

pub(super) fn check(spec: &ClusterSpec) -> Result<(), SpecError> {
    if spec.name != "default" {
        return Err(SpecError::ClusterName);
    }
    if spec.dispatcher.heartbeat < Duration::from_secs(1) {
        return Err(SpecError::Heartbeat);
    }
    if !CERTIFICATE_LIFE.contains(&spec.certificates.expiry) {
        return Err(SpecError::CertificateExpiry);
    }
    Ok(())
}
