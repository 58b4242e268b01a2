//! File systems mounted into containers.

use std::collections::BTreeSet;

use skep_model::{Mount, MountKind, TmpfsOptions, check_volume_name};
use skep_template::is_template;

use super::volume::{options_from_wire, options_to_wire};
use super::{amount, optional, signed, text, unsupported};
use crate::error::Error;
use crate::types::container_spec as wire;

const PROPAGATIONS: [&str; 6] = ["rprivate", "private", "rshared", "shared", "rslave", "slave"];

/// Reads `Mounts`.
///
/// # Errors
/// Naming the field: paths that are not absolute, targets given twice, drivers of volumes, and kinds that skep has not.
pub fn mounts_from_wire(mounts: &[wire::Mount]) -> Result<Vec<Mount>, Error> {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        if !targets.insert(mount.target.trim_end_matches('/')) {
            return Err(Error::invalid(format!("ContainerSpec: duplicate mount point: {}", mount.target)));
        }
    }
    mounts.iter().map(mount_from_wire).collect()
}

fn mount_from_wire(mount: &wire::Mount) -> Result<Mount, Error> {
    if !mount.target.starts_with('/') && !is_template(&mount.target) {
        return Err(Error::invalid(format!(
            "ContainerSpec.Mounts: the target {:?} must be an absolute path in the container",
            mount.target
        )));
    }
    refuse_options(mount)?;
    let kind = match mount.kind.as_str() {
        "bind" => bind(mount)?,
        "volume" | "" => volume(mount)?,
        "tmpfs" => tmpfs(mount)?,
        "npipe" | "cluster" | "image" => {
            return Err(unsupported("ContainerSpec.Mounts.Type", &format!("skep mounts no {}", mount.kind)));
        }
        other => {
            return Err(Error::invalid(format!(
                "ContainerSpec.Mounts: unknown type {other:?}: expected bind, volume or tmpfs"
            )));
        }
    };
    Ok(Mount { kind, target: mount.target.clone(), read_only: mount.read_only })
}

fn refuse_options(mount: &wire::Mount) -> Result<(), Error> {
    let foreign = [
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
    ];
    let kind = if mount.kind.is_empty() { "volume" } else { &mount.kind };
    for (option, given, owner) in foreign {
        if given && kind != owner {
            return Err(Error::invalid(format!("ContainerSpec.Mounts: {option} is for mounts of type {owner}")));
        }
    }
    if !matches!(mount.consistency.as_str(), "" | "default" | "consistent") {
        return Err(unsupported("ContainerSpec.Mounts.Consistency", "it means nothing on Linux; leave it out"));
    }
    Ok(())
}

fn bind(mount: &wire::Mount) -> Result<MountKind, Error> {
    if !mount.source.starts_with('/') && !is_template(&mount.source) {
        return Err(Error::invalid(format!(
            "ContainerSpec.Mounts: invalid mount config for type \"bind\": the source {:?} must be an absolute path of the node",
            mount.source
        )));
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    if options.non_recursive || options.create_mountpoint {
        return Err(unsupported("ContainerSpec.Mounts.BindOptions", "only Propagation is supported"));
    }
    if options.read_only_non_recursive || options.read_only_force_recursive {
        return Err(unsupported("ContainerSpec.Mounts.BindOptions", "only Propagation is supported"));
    }
    let propagation = optional(&options.propagation);
    if let Some(word) = &propagation
        && !PROPAGATIONS.contains(&word.as_str())
    {
        return Err(Error::invalid(format!(
            "ContainerSpec.Mounts.BindOptions.Propagation: {word:?} is none of {}",
            PROPAGATIONS.join(", ")
        )));
    }
    Ok(MountKind::Bind { source: mount.source.clone(), propagation })
}

fn volume(mount: &wire::Mount) -> Result<MountKind, Error> {
    let (source, options) = (optional(&mount.source), options_from_wire(mount.volume_options.as_ref())?);
    if let Some(name) = source.as_ref().filter(|name| !is_template(name)) {
        check_volume_name(name).map_err(|bad| Error::invalid(format!("ContainerSpec.Mounts: {bad}")))?;
    }
    Ok(MountKind::Volume { source, options })
}

fn tmpfs(mount: &wire::Mount) -> Result<MountKind, Error> {
    if !mount.source.is_empty() {
        return Err(Error::invalid("ContainerSpec.Mounts: a tmpfs has no source"));
    }
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    if !options.options.is_empty() {
        return Err(unsupported("ContainerSpec.Mounts.TmpfsOptions.Options", "only SizeBytes and Mode are supported"));
    }
    let size = amount("ContainerSpec.Mounts.TmpfsOptions.SizeBytes", options.size_bytes)?;
    Ok(MountKind::Tmpfs(TmpfsOptions {
        size: (size != 0).then_some(size),
        mode: (options.mode != 0).then_some(options.mode),
    }))
}

/// Writes a mount.
#[must_use]
pub fn mount_to_wire(mount: &Mount) -> wire::Mount {
    let base = wire::Mount { target: mount.target.clone(), read_only: mount.read_only, ..wire::Mount::default() };
    match &mount.kind {
        MountKind::Bind { source, propagation } => wire::Mount {
            kind: "bind".to_owned(),
            source: source.clone(),
            bind_options: propagation
                .as_ref()
                .map(|p| wire::BindOptions { propagation: p.clone(), ..wire::BindOptions::default() }),
            ..base
        },
        MountKind::Volume { source, options } => wire::Mount {
            kind: "volume".to_owned(),
            source: text(source.as_ref()),
            volume_options: options_to_wire(options),
            ..base
        },
        MountKind::Tmpfs(options) => {
            let given = wire::TmpfsOptions {
                size_bytes: options.size.map_or(0, signed),
                mode: options.mode.unwrap_or(0),
                options: Vec::new(),
            };
            let tmpfs_options = (given != wire::TmpfsOptions::default()).then_some(given);
            wire::Mount { kind: "tmpfs".to_owned(), tmpfs_options, ..base }
        }
    }
}
