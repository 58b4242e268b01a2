//! Secrets and configs of the fake's swarm.

use std::sync::Arc;

use skep_model::{Config, ConfigId, DataSpec, Secret, SecretId, Version};

use super::state::{State, in_sequence};
use crate::error::{Error, ErrorKind};

macro_rules! kept {
    ($type:ident, $id:ident, $what:literal, $table:ident, $create:ident, $update:ident, $remove:ident) => {
        impl State {
            pub(super) fn $create(&mut self, spec: DataSpec) -> Result<$id, Error> {
                if self.view()?.$table.values().any(|other| other.spec.name == spec.name) {
                    let message = format!(concat!($what, " {} already exists"), spec.name);
                    return Err(Error::new(ErrorKind::AlreadyExists, message));
                }
                let (id, meta) = ($id::random(), self.meta());
                self.view()?.$table.insert(id.clone(), Arc::new($type { id: id.clone(), meta, spec }));
                Ok(id)
            }

            pub(super) fn $update(&mut self, id: &$id, version: Version, spec: DataSpec) -> Result<(), Error> {
                let kept = self.view()?.$table.get(id).cloned().ok_or_else(|| Error::not_found($what, id))?;
                in_sequence(kept.meta.version, version)?;
                let mut kept = $type::clone(&kept);
                self.touch(&mut kept.meta);
                kept.spec.labels = spec.labels;
                self.view()?.$table.insert(id.clone(), Arc::new(kept));
                Ok(())
            }

            pub(super) fn $remove(&mut self, id: &$id) -> Result<(), Error> {
                self.view()?.$table.remove(id).map(drop).ok_or_else(|| Error::not_found($what, id))
            }
        }
    };
}

kept!(Secret, SecretId, "secret", secrets, create_secret, update_secret, remove_secret);
kept!(Config, ConfigId, "config", configs, create_config, update_config, remove_config);
