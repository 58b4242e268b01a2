//! The swarm's own object.

use std::time::Duration;

use skep_ca::{JoinToken, RootCertificate, UnlockKey, new_secret};
use skep_model::{Cluster, ClusterSpec, UnlockSecret, Version};

use super::{Control, cluster, in_sequence};
use crate::{ControlError, SpecError};

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

/// Which join tokens to replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rotate {
    /// The one for workers.
    pub worker: bool,
    /// The one for managers.
    pub manager: bool,
    /// The unlock key too, when the swarm is locked.
    pub unlock_key: bool,
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

    /// Changes the swarm's spec, its join tokens, or both. `version` is that of the swarm as the caller has seen it.
    ///
    /// # Errors
    /// When the swarm has changed since, the spec makes no sense, or it cannot be written.
    pub async fn update_cluster(
        &self,
        version: Version,
        spec: ClusterSpec,
        rotate: Rotate,
    ) -> Result<(), ControlError> {
        self.write(|tables| {
            let mut cluster = Cluster::clone(cluster(tables)?);
            in_sequence(version, cluster.meta.version)?;
            check(&spec)?;
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
    Ok(())
}
