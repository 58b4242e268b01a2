//! The volumes of this node, as the API shows them.

use std::sync::Arc;

use skep_engine::backend::volume::{NewVolume, Sizes, VolumeInfo};
use skep_engine::{Error, ErrorKind};
use skep_model::BadVolume;
use skep_runtime::{self as runtime, Volume, VolumeError, Volumes};

/// Works on the volumes where it may block.
async fn blocking<T: Send + 'static>(
    volumes: &Arc<Volumes>,
    work: impl FnOnce(&Volumes) -> Result<T, VolumeError> + Send + 'static,
) -> Result<T, Error> {
    let volumes = volumes.clone();
    let done = tokio::task::spawn_blocking(move || work(&volumes)).await;
    done.map_err(|e| Error::new(ErrorKind::Unknown, e.to_string()))?.map_err(|e| refusal(&e))
}

fn refusal(error: &VolumeError) -> Error {
    let kind = match error {
        VolumeError::NotFound(_) => ErrorKind::NotFound,
        VolumeError::Bad(BadVolume::Driver(_)) => ErrorKind::Unimplemented,
        VolumeError::Bad(_) => ErrorKind::InvalidArgument,
        VolumeError::Differs(_) | VolumeError::InUse { .. } => ErrorKind::Conflict,
        VolumeError::Mount { .. } | VolumeError::Damaged { .. } | VolumeError::Io { .. } => ErrorKind::Unknown,
    };
    Error::new(kind, error.to_string())
}

fn info(volume: Volume, size: Option<u64>) -> VolumeInfo {
    let Volume { name, labels, options, created, mountpoint, users } = volume;
    let (mountpoint, users) = (mountpoint.display().to_string(), users.len());
    VolumeInfo { name, labels, options, created, mountpoint, users, size }
}

pub(super) async fn list(volumes: &Arc<Volumes>, sizes: Sizes) -> Result<Vec<VolumeInfo>, Error> {
    let described = move |volumes: &Volumes, volume: Volume| {
        let size = match sizes {
            Sizes::Unknown => None,
            // What is removed meanwhile takes nothing.
            Sizes::Measured => volumes.size(&volume).ok().flatten(),
        };
        info(volume, size)
    };
    blocking(volumes, move |all| Ok(all.list()?.into_iter().map(|volume| described(all, volume)).collect())).await
}

pub(super) async fn find(volumes: &Arc<Volumes>, name: &str) -> Result<VolumeInfo, Error> {
    let name = name.to_owned();
    blocking(volumes, move |volumes| Ok(info(volumes.find(&name)?, None))).await
}

pub(super) async fn create(volumes: &Arc<Volumes>, new: NewVolume) -> Result<VolumeInfo, Error> {
    let NewVolume { name, labels, options } = new;
    let new = runtime::NewVolume { name, labels, options };
    blocking(volumes, move |volumes| Ok(info(volumes.create(&new)?, None))).await
}

pub(super) async fn remove(volumes: &Arc<Volumes>, name: &str) -> Result<(), Error> {
    let name = name.to_owned();
    blocking(volumes, move |volumes| volumes.remove(&name)).await
}
