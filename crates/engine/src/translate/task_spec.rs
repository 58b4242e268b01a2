//! What each task of a service is to be: `TaskTemplate`.

use skep_model::{
    Constraint, Placement, Platform, ResourceLimits, ResourceReservations, Resources, SpreadOver, TaskSpec,
};

use super::{amount, container, generic, signed, unsupported, update};
use crate::error::Error;
use crate::types::node::Platform as WirePlatform;
use crate::types::service as wire;

/// The least memory that a container can be limited to.
const LEAST_MEMORY: u64 = 4 * 1024 * 1024;
/// The least share of a CPU: a thousandth.
const LEAST_CPU: u64 = 1_000_000;

/// Reads `TaskTemplate` without its networks, which a spec may have elsewhere.
///
/// # Errors
/// As [`container::from_wire`].
pub fn from_wire(spec: &wire::TaskSpec) -> Result<TaskSpec, Error> {
    let container = match (&spec.container_spec, spec.runtime.as_str()) {
        (Some(container), "" | "container") if !foreign(spec) => container::from_wire(container)?,
        (None, "" | "container") if !foreign(spec) => {
            return Err(Error::invalid("TaskTemplate.ContainerSpec is missing: image reference must be provided"));
        }
        _ if spec.runtime == "plugin" || spec.plugin_spec.is_some() => {
            return Err(unsupported("TaskTemplate.PluginSpec", "skep runs containers, not plugins"));
        }
        _ => return Err(Error::invalid("TaskTemplate: mismatched Runtime and *Spec fields")),
    };
    refuse_log_driver(spec)?;
    Ok(TaskSpec {
        container,
        resources: spec.resources.as_ref().map(resources).transpose()?.unwrap_or_default(),
        restart: spec.restart_policy.as_ref().map(update::restart_from_wire).transpose()?,
        placement: spec.placement.as_ref().map(placement).transpose()?.unwrap_or_default(),
        networks: Vec::new(),
        force_update: spec.force_update,
        // It does not come with the spec, and never leaves with one.
        registry_auth: None,
    })
}

fn foreign(spec: &wire::TaskSpec) -> bool {
    spec.plugin_spec.is_some() || spec.network_attachment_spec.is_some()
}

fn refuse_log_driver(spec: &wire::TaskSpec) -> Result<(), Error> {
    match &spec.log_driver {
        Some(driver) if !driver.options.is_empty() || !matches!(driver.name.as_str(), "" | "json-file") => Err(
            unsupported("TaskTemplate.LogDriver", "this version of skep keeps logs itself and takes no options for it"),
        ),
        _ => Ok(()),
    }
}

fn resources(wire: &wire::ResourceRequirements) -> Result<Resources, Error> {
    if wire.swap_bytes.is_some() || wire.memory_swappiness.is_some() {
        return Err(unsupported("TaskTemplate.Resources", "SwapBytes and MemorySwappiness are not supported"));
    }
    let limits = wire.limits.clone().unwrap_or_default();
    let reservations = wire.reservations.clone().unwrap_or_default();
    let field = |name: &str| format!("TaskTemplate.Resources.{name}");
    let resources = Resources {
        limits: ResourceLimits {
            nano_cpus: amount(&field("Limits.NanoCPUs"), limits.nano_cpus)?,
            memory: amount(&field("Limits.MemoryBytes"), limits.memory_bytes)?,
            pids: amount(&field("Limits.Pids"), limits.pids)?,
        },
        reservations: ResourceReservations {
            nano_cpus: amount(&field("Reservations.NanoCPUs"), reservations.nano_cpus)?,
            memory: amount(&field("Reservations.MemoryBytes"), reservations.memory_bytes)?,
            generic: generic::asked(&reservations.generic_resources)?,
        },
    };
    for memory in [resources.limits.memory, resources.reservations.memory] {
        if memory != 0 && memory < LEAST_MEMORY {
            return Err(Error::invalid(format!("invalid memory value {memory}: Must be at least 4MiB")));
        }
    }
    for cpus in [resources.limits.nano_cpus, resources.reservations.nano_cpus] {
        if cpus != 0 && cpus < LEAST_CPU {
            return Err(Error::invalid(format!("invalid cpu value {cpus}: Must be at least 0.001")));
        }
    }
    Ok(resources)
}

fn placement(wire: &wire::Placement) -> Result<Placement, Error> {
    for constraint in &wire.constraints {
        constraint.parse::<Constraint>().map_err(|e| Error::invalid(e.to_string()))?;
    }
    let preferences = wire.preferences.iter().map(preference).collect::<Result<_, _>>()?;
    let platforms =
        wire.platforms.iter().map(|p| Platform { architecture: p.architecture.clone(), os: p.os.clone() }).collect();
    Ok(Placement { constraints: wire.constraints.clone(), preferences, max_replicas: wire.max_replicas, platforms })
}

fn preference(wire: &wire::PlacementPreference) -> Result<SpreadOver, Error> {
    match &wire.spread {
        Some(spread) if !spread.spread_descriptor.is_empty() => Ok(SpreadOver(spread.spread_descriptor.clone())),
        _ => Err(Error::invalid("TaskTemplate.Placement.Preferences: only spreading over a property is known")),
    }
}

/// Writes `TaskTemplate` as it was stored, without its runtime: tasks show none, services show `container`.
#[must_use]
pub fn to_wire(spec: &TaskSpec) -> wire::TaskSpec {
    let networks = spec.networks.iter().map(|(network, aliases)| wire::NetworkAttachmentConfig {
        target: network.to_string(),
        aliases: aliases.clone(),
        driver_opts: Default::default(),
    });
    wire::TaskSpec {
        container_spec: Some(container::to_wire(&spec.container)),
        resources: Some(resources_to_wire(&spec.resources)),
        restart_policy: spec.restart.as_ref().map(update::restart_to_wire),
        placement: Some(placement_to_wire(&spec.placement)),
        networks: networks.collect(),
        force_update: spec.force_update,
        ..wire::TaskSpec::default()
    }
}

fn resources_to_wire(resources: &Resources) -> wire::ResourceRequirements {
    wire::ResourceRequirements {
        limits: Some(wire::Limits {
            nano_cpus: signed(resources.limits.nano_cpus),
            memory_bytes: signed(resources.limits.memory),
            pids: signed(resources.limits.pids),
        }),
        reservations: Some(wire::Reservations {
            nano_cpus: signed(resources.reservations.nano_cpus),
            memory_bytes: signed(resources.reservations.memory),
            generic_resources: generic::asked_to_wire(&resources.reservations.generic),
        }),
        swap_bytes: None,
        memory_swappiness: None,
    }
}

fn placement_to_wire(placement: &Placement) -> wire::Placement {
    let spread = |over: &SpreadOver| wire::PlacementPreference {
        spread: Some(wire::Spread { spread_descriptor: over.0.clone() }),
    };
    let platform = |p: &Platform| WirePlatform { architecture: p.architecture.clone(), os: p.os.clone() };
    wire::Placement {
        constraints: placement.constraints.clone(),
        preferences: placement.preferences.iter().map(spread).collect(),
        max_replicas: placement.max_replicas,
        platforms: placement.platforms.iter().map(platform).collect(),
    }
}
