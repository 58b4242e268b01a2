//! Volumes of a node, as services and people ask for them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The one driver that there is.
pub const LOCAL_DRIVER: &str = "local";

/// The longest name: it is the name of a directory.
const LONGEST_NAME: usize = 255;

/// What a service says of a volume that it mounts. It counts when the volume is made, which happens on the node when a container first needs it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeOptions {
    /// Leave an empty volume empty, instead of filling it with what the image has at the mount's target.
    pub no_copy: bool,
    /// Labels of the volume.
    pub labels: BTreeMap<String, String>,
    /// What it is made by; `None` is the local driver without options.
    pub driver: Option<VolumeDriver>,
}

impl VolumeOptions {
    /// The options of its driver.
    #[must_use]
    pub fn driver_options(&self) -> BTreeMap<String, String> {
        self.driver.as_ref().map(|driver| driver.options.clone()).unwrap_or_default()
    }
}

/// What makes a volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeDriver {
    /// Its name; empty is [`LOCAL_DRIVER`].
    pub name: String,
    /// What it is told.
    pub options: BTreeMap<String, String>,
}

impl VolumeDriver {
    /// Whether there is such a driver and it knows what to do with its options.
    ///
    /// # Errors
    /// Saying which driver or option is wrong.
    pub fn check(&self) -> Result<(), BadVolume> {
        if !matches!(self.name.as_str(), "" | LOCAL_DRIVER) {
            return Err(BadVolume::Driver(self.name.clone()));
        }
        LocalVolume::of(&self.options).map(|_| ())
    }
}

/// A file system that the local driver mounts: mount(2)'s own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalVolume {
    /// The file system's type: `nfs`, `tmpfs`, `ext4`, or `none` for a bind mount.
    pub kind: String,
    /// What is mounted: `:/export`, `tmpfs`, `/dev/sdb1`, a directory for a bind mount.
    pub device: String,
    /// `addr=10.0.0.1,rw`, `size=100m`, `bind`, …
    pub options: String,
}

impl LocalVolume {
    /// What the local driver's options ask for; `None` for a plain directory.
    ///
    /// # Errors
    /// Saying which option is unknown, empty or missing.
    pub fn of(options: &BTreeMap<String, String>) -> Result<Option<Self>, BadVolume> {
        if options.is_empty() {
            return Ok(None);
        }
        if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o")) {
            return Err(BadVolume::Option(unknown.clone()));
        }
        let given = |key: &'static str| match options.get(key).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value.clone()),
            None => Err(BadVolume::Missing(key)),
        };
        let options = options.get("o").cloned().unwrap_or_default();
        Ok(Some(Self { kind: given("type")?, device: given("device")?, options }))
    }
}

/// Whether a volume can be called so.
///
/// # Errors
/// Saying what names look like.
pub fn check_volume_name(name: &str) -> Result<(), BadVolume> {
    let first = |b: u8| b.is_ascii_alphanumeric();
    let rest = |b: u8| first(b) || b"_.-".contains(&b);
    let good = name.bytes().next().is_some_and(first) && name.bytes().all(rest) && name.len() <= LONGEST_NAME;
    if good { Ok(()) } else { Err(BadVolume::Name(name.chars().take(LONGEST_NAME).collect())) }
}

/// A volume that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadVolume {
    /// A name that none can have.
    #[error(
        "{0:?} is no name of a volume: expected letters, digits, '_', '.' and '-', a letter or digit first, 255 at the most"
    )]
    Name(String),
    /// A driver that there is not.
    #[error(
        "there is no volume driver {0:?}: skep has \"local\" alone, which mounts what its options type, device and o say (nfs, cifs, tmpfs, bind, …)"
    )]
    Driver(String),
    /// An option that the local driver has not.
    #[error("invalid option: {0:?}: the local driver has type, device and o")]
    Option(String),
    /// An option that another one needs.
    #[error("missing required option: {0:?}: the local driver needs type and device to mount something")]
    Missing(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn options_of_the_local_driver() {
        assert_eq!(LocalVolume::of(&options(&[])), Ok(None));
        let nfs = options(&[("type", "nfs"), ("device", ":/data"), ("o", "addr=10.0.0.1,rw")]);
        let expected = LocalVolume { kind: "nfs".into(), device: ":/data".into(), options: "addr=10.0.0.1,rw".into() };
        assert_eq!(LocalVolume::of(&nfs), Ok(Some(expected)));
        for (pairs, error) in [
            (&[("type", "tmpfs")][..], BadVolume::Missing("device")),
            (&[("type", ""), ("device", "x")], BadVolume::Missing("type")),
            (&[("o", "bind")], BadVolume::Missing("type")),
            (&[("type", "tmpfs"), ("device", "tmpfs"), ("size", "1g")], BadVolume::Option("size".into())),
        ] {
            assert_eq!(LocalVolume::of(&options(pairs)), Err(error));
        }
    }

    #[test]
    fn drivers_and_names() {
        for (name, good) in [("", true), ("local", true), ("rexray", false)] {
            let driver = VolumeDriver { name: name.to_owned(), options: BTreeMap::new() };
            assert_eq!(driver.check().is_ok(), good, "{name}");
        }
        for name in ["db", "v", "a.b-c_1"] {
            check_volume_name(name).unwrap();
        }
        for name in ["", ".db", "a/b", "a b", "..", &"x".repeat(256)] {
            assert!(check_volume_name(name).is_err(), "{name}");
        }
    }
}
