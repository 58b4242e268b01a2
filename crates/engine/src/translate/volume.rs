//! Volumes of the node, and what services ask of volumes.

use skep_model::{BadVolume, LOCAL_DRIVER, Timestamp, VolumeDriver, VolumeOptions};

use super::{optional, signed, unsupported};
use crate::backend::volume::{NewVolume, VolumeInfo};
use crate::error::Error;
use crate::types::container_spec as container;
use crate::types::meta::Driver;
use crate::types::volume as wire;

/// A driver that skep has not is not the same as a driver that makes no sense.
fn refusal(field: &str, bad: &BadVolume) -> Error {
    match bad {
        BadVolume::Driver(_) => unsupported(field, &bad.to_string()),
        _ => Error::invalid(format!("{field}: {bad}")),
    }
}

/// Reads what a service asks of a volume.
///
/// # Errors
/// Naming the field: drivers that skep has not, options that the local one has not, subpaths.
pub fn options_from_wire(options: Option<&container::VolumeOptions>) -> Result<VolumeOptions, Error> {
    let Some(options) = options else { return Ok(VolumeOptions::default()) };
    if !options.subpath.is_empty() {
        let why =
            "volumes are mounted whole; mount it whole and use the directory in it, or make it a volume of its own";
        return Err(unsupported("ContainerSpec.Mounts.VolumeOptions.Subpath", why));
    }
    let driver = options.driver_config.as_ref();
    let driver = driver.map(|driver| VolumeDriver { name: driver.name.clone(), options: driver.options.clone() });
    if let Some(driver) = &driver {
        driver.check().map_err(|bad| refusal("ContainerSpec.Mounts.VolumeOptions.DriverConfig", &bad))?;
    }
    Ok(VolumeOptions { no_copy: options.no_copy, labels: options.labels.clone(), driver })
}

/// Writes what a service asks of a volume.
#[must_use]
pub fn options_to_wire(options: &VolumeOptions) -> Option<container::VolumeOptions> {
    let driver = options.driver.as_ref();
    let written = container::VolumeOptions {
        no_copy: options.no_copy,
        labels: options.labels.clone(),
        subpath: String::new(),
        driver_config: driver.map(|driver| Driver { name: driver.name.clone(), options: driver.options.clone() }),
    };
    (*options != VolumeOptions::default()).then_some(written)
}

/// Reads a request for a volume.
///
/// # Errors
/// Drivers that skep has not, options that the local one has not, volumes of the cluster.
pub fn create_from_wire(request: &wire::CreateRequest) -> Result<NewVolume, Error> {
    if request.cluster_volume_spec.is_some() {
        return Err(unsupported("ClusterVolumeSpec", "skep has volumes of nodes, and none of the cluster"));
    }
    let driver = VolumeDriver { name: request.driver.clone(), options: request.driver_opts.clone() };
    driver.check().map_err(|bad| refusal("DriverOpts", &bad))?;
    let (name, labels) = (optional(&request.name), request.labels.clone());
    Ok(NewVolume { name, labels, options: driver.options })
}

/// Writes a volume.
#[must_use]
pub fn volume(info: &VolumeInfo) -> wire::Volume {
    let VolumeInfo { name, labels, options, created, mountpoint, .. } = info.clone();
    wire::Volume {
        // Docker's have no fraction of a second.
        created_at: Timestamp::from_second(created.as_second()).unwrap_or(created).into(),
        driver: LOCAL_DRIVER.to_owned(),
        labels: (!labels.is_empty()).then_some(labels),
        mountpoint,
        name,
        options: (!options.is_empty()).then_some(options),
        scope: "local".to_owned(),
        usage_data: None,
    }
}

/// Writes a volume with what it takes.
#[must_use]
pub fn measured(info: &VolumeInfo) -> wire::Volume {
    let ref_count = i64::try_from(info.users).unwrap_or(i64::MAX);
    let usage = wire::UsageData { ref_count, size: info.size.map_or(-1, signed) };
    wire::Volume { usage_data: Some(usage), ..volume(info) }
}
