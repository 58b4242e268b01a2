//! Volumes of the fake's node.

use skep_model::{Timestamp, check_volume_name};

use super::node::hex;
use super::state::State;
use crate::backend::volume::{NewVolume, VolumeInfo};
use crate::error::{Error, ErrorKind};

fn missing(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("get {name}: no such volume"))
}

impl State {
    pub(super) fn create_volume(&mut self, new: NewVolume) -> Result<VolumeInfo, Error> {
        let NewVolume { name, labels, options } = new;
        let name = name.unwrap_or_else(|| hex(&format!("volume {}", self.volumes.len())));
        check_volume_name(&name).map_err(|e| Error::invalid(e.to_string()))?;
        let made = || VolumeInfo {
            name: name.clone(),
            labels,
            options,
            created: Timestamp::now(),
            mountpoint: format!("/var/lib/skep/volumes/{name}/_data"),
            users: 0,
            size: Some(0),
        };
        Ok(self.volumes.entry(name.clone()).or_insert_with(made).clone())
    }

    pub(super) fn volume(&self, name: &str) -> Result<VolumeInfo, Error> {
        self.volumes.get(name).cloned().ok_or_else(|| missing(name))
    }

    pub(super) fn remove_volume(&mut self, name: &str) -> Result<(), Error> {
        self.volumes.remove(name).map(drop).ok_or_else(|| missing(name))
    }
}
