//! Secrets and configs, which obey the same rules.

use std::collections::BTreeSet;
use std::fmt::Display;

use skep_model::{
    Config, ConfigId, ContainerSpec, DataSpec, FileReference, Meta, Secret, SecretId, Service, ServiceSpec, Templating,
    Timestamp, Version,
};
use skep_store::{Change, Entity, Key, Tables};

use super::{Control, cluster, in_sequence};
use crate::ControlError;

/// What secrets and configs have in common.
trait Kept: Entity<Id: Clone + Display> + Into<Change> {
    /// What it is called.
    const WHAT: &str;
    /// How many bytes it may have: fewer than this.
    const LIMIT: usize;
    fn random() -> Self::Id;
    fn new(id: Self::Id, meta: Meta, spec: DataSpec) -> Self;
    fn spec(&self) -> &DataSpec;
    fn spec_mut(&mut self) -> &mut DataSpec;
    fn meta(&self) -> &Meta;
    fn key(id: Self::Id) -> Key;
    /// Those of a container.
    fn of(container: &ContainerSpec) -> &[FileReference<Self::Id>];
    fn path(reference: &FileReference<Self::Id>) -> String;
}

macro_rules! kept {
    ($type:ident, $id:ident, $what:literal, $field:ident) => {
        impl Kept for $type {
            const WHAT: &str = $what;
            const LIMIT: usize = $type::LIMIT;

            fn random() -> $id {
                $id::random()
            }

            fn new(id: $id, meta: Meta, spec: DataSpec) -> Self {
                Self { id, meta, spec }
            }

            fn spec(&self) -> &DataSpec {
                &self.spec
            }

            fn spec_mut(&mut self) -> &mut DataSpec {
                &mut self.spec
            }

            fn meta(&self) -> &Meta {
                &self.meta
            }

            fn key(id: $id) -> Key {
                Key::$type(id)
            }

            fn of(container: &ContainerSpec) -> &[FileReference<$id>] {
                &container.$field
            }

            fn path(reference: &FileReference<$id>) -> String {
                reference.path()
            }
        }
    };
}

kept!(Secret, SecretId, "secret", secrets);
kept!(Config, ConfigId, "config", configs);

impl Control {
    /// Keeps a secret.
    ///
    /// # Errors
    /// When its name is taken, it is empty or too large, or it cannot be written.
    pub async fn create_secret(&self, spec: DataSpec) -> Result<SecretId, ControlError> {
        self.write(|tables| create::<Secret>(tables, spec, Timestamp::now())).await
    }

    /// Replaces a secret's labels. `version` is that of the secret as the caller has seen it.
    ///
    /// # Errors
    /// When it is not there or has changed since, when anything but its labels is to change, or when it cannot be written.
    pub async fn update_secret(&self, id: &SecretId, version: Version, spec: DataSpec) -> Result<(), ControlError> {
        self.write(|tables| Ok(((), update::<Secret>(tables, id, version, spec)?))).await
    }

    /// Removes a secret.
    ///
    /// # Errors
    /// When it is not there, a service uses it, or it cannot be written.
    pub async fn remove_secret(&self, id: &SecretId) -> Result<(), ControlError> {
        self.write(|tables| Ok(((), remove::<Secret>(tables, id)?))).await
    }

    /// Keeps a config.
    ///
    /// # Errors
    /// As for [`Self::create_secret`].
    pub async fn create_config(&self, spec: DataSpec) -> Result<ConfigId, ControlError> {
        self.write(|tables| create::<Config>(tables, spec, Timestamp::now())).await
    }

    /// Replaces a config's labels.
    ///
    /// # Errors
    /// As for [`Self::update_secret`].
    pub async fn update_config(&self, id: &ConfigId, version: Version, spec: DataSpec) -> Result<(), ControlError> {
        self.write(|tables| Ok(((), update::<Config>(tables, id, version, spec)?))).await
    }

    /// Removes a config.
    ///
    /// # Errors
    /// As for [`Self::remove_secret`].
    pub async fn remove_config(&self, id: &ConfigId) -> Result<(), ControlError> {
        self.write(|tables| Ok(((), remove::<Config>(tables, id)?))).await
    }
}

fn create<K: Kept>(tables: &Tables, spec: DataSpec, now: Timestamp) -> Result<(K::Id, Vec<Change>), ControlError> {
    cluster(tables)?;
    let size = spec.data.0.len();
    if size == 0 || size >= K::LIMIT {
        return Err(ControlError::DataSize { what: K::WHAT, limit: K::LIMIT });
    }
    if spec.templating == Templating::Golang {
        skep_template::check_payload(&spec.data)?;
    }
    if tables.all::<K>().any(|other| other.spec().name == spec.name) {
        return Err(ControlError::DataNameTaken { what: K::WHAT, name: spec.name.to_string() });
    }
    let id = K::random();
    Ok((id.clone(), vec![K::new(id, Meta::new(now), spec).into()]))
}

fn find<'a, K: Kept>(tables: &'a Tables, id: &K::Id) -> Result<&'a K, ControlError> {
    let found = tables.get::<K>(id).map(AsRef::as_ref);
    found.ok_or_else(|| ControlError::NotFound { what: K::WHAT, id: id.to_string() })
}

fn update<K: Kept>(tables: &Tables, id: &K::Id, version: Version, spec: DataSpec) -> Result<Vec<Change>, ControlError> {
    let mut kept = find::<K>(tables, id)?.clone();
    in_sequence(version, kept.meta())?;
    // Clients need not send what they are never shown.
    let same = spec.data.0.is_empty() || spec.data == kept.spec().data;
    if spec.name != kept.spec().name || !same {
        return Err(ControlError::OnlyLabels);
    }
    kept.spec_mut().labels = spec.labels;
    Ok(vec![kept.into()])
}

fn remove<K: Kept>(tables: &Tables, id: &K::Id) -> Result<Vec<Change>, ControlError> {
    let kept = find::<K>(tables, id)?;
    let uses = |spec: &ServiceSpec| K::of(&spec.task.container).iter().any(|reference| reference.id == *id);
    let users = tables.all::<Service>().filter(|service| uses(&service.spec));
    let users: BTreeSet<String> = users.map(|service| service.spec.name.to_string()).collect();
    if !users.is_empty() {
        let users = users.into_iter().collect::<Vec<_>>().join(", ");
        return Err(ControlError::DataInUse { what: K::WHAT, name: kept.spec().name.to_string(), users });
    }
    Ok(vec![Change::Delete(K::key(id.clone()))])
}

/// Whether what a service's containers are to be given is there, and no two of it at one place.
pub(super) fn check(tables: &Tables, spec: &ServiceSpec) -> Result<(), ControlError> {
    let mut places = BTreeSet::new();
    check_kind::<Secret>(tables, &spec.task.container, &mut places)?;
    check_kind::<Config>(tables, &spec.task.container, &mut places)
}

fn check_kind<K: Kept>(
    tables: &Tables,
    container: &ContainerSpec,
    places: &mut BTreeSet<String>,
) -> Result<(), ControlError> {
    for reference in K::of(container) {
        if tables.get::<K>(&reference.id).is_none_or(|kept| kept.spec().name.as_str() != reference.name) {
            return Err(ControlError::NoSuchData { what: K::WHAT, name: reference.name.clone() });
        }
        let path = K::path(reference);
        if !places.insert(path.clone()) {
            return Err(ControlError::DataTarget { what: K::WHAT, name: reference.name.clone(), path });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
