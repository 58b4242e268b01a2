//! What a task's container is to be.

use std::net::IpAddr;

use skep_model::{ContainerSpec, Dns, ImageRef, Ulimit};

use super::mount::{mount_to_wire, mounts_from_wire};
use super::{data, duration, health, nanoseconds, optional, text, unsupported};
use crate::error::Error;
use crate::types::container_spec as wire;

/// Reads `ContainerSpec`.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for what makes no sense and
/// [`ErrorKind::Unimplemented`](crate::ErrorKind::Unimplemented) for what skep cannot do, naming the field.
pub fn from_wire(spec: &wire::ContainerSpec) -> Result<ContainerSpec, Error> {
    refuse(spec)?;
    spec.image.parse::<ImageRef>().map_err(|e| Error::invalid(format!("ContainerSpec: {e}")))?;
    check_env(&spec.env)?;
    check_hosts(&spec.hosts)?;
    let grace = spec.stop_grace_period.map(|p| duration("ContainerSpec.StopGracePeriod", p)).transpose()?;
    Ok(ContainerSpec {
        image: spec.image.clone(),
        labels: spec.labels.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        env: spec.env.clone(),
        dir: optional(&spec.dir),
        user: optional(&spec.user),
        groups: spec.groups.clone(),
        hostname: optional(&spec.hostname),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        read_only: spec.read_only,
        init: spec.init,
        stop_signal: signal(&spec.stop_signal)?,
        stop_grace_period: grace,
        mounts: mounts_from_wire(&spec.mounts)?,
        hosts: spec.hosts.clone(),
        dns: dns(spec.dns_config.as_ref())?,
        cap_add: capabilities("ContainerSpec.CapabilityAdd", &spec.capability_add)?,
        cap_drop: capabilities("ContainerSpec.CapabilityDrop", &spec.capability_drop)?,
        sysctls: spec.sysctls.clone(),
        ulimits: spec.ulimits.iter().map(ulimit).collect::<Result<_, _>>()?,
        oom_score_adj: oom_score(spec.oom_score_adj)?,
        health: health::from_wire(spec.healthcheck.as_ref())?,
        secrets: data::secrets_from_wire(&spec.secrets)?,
        configs: data::configs_from_wire(&spec.configs)?,
    })
}

/// What this version cannot do.
fn refuse(spec: &wire::ContainerSpec) -> Result<(), Error> {
    let not_yet = |field: &str, what: &str| {
        Err(unsupported(&format!("ContainerSpec.{field}"), &format!("this version of skep has no {what} yet")))
    };
    if !matches!(spec.isolation.as_str(), "" | "default") {
        return not_yet("Isolation", "isolation besides the default (it is for Windows)");
    }
    let Some(privileges) = &spec.privileges else { return Ok(()) };
    let asked = [
        ("Privileges.CredentialSpec", privileges.credential_spec.is_some()),
        ("Privileges.SELinuxContext", privileges.selinux_context.is_some()),
        ("Privileges.Seccomp", privileges.seccomp.is_some()),
        ("Privileges.AppArmor", privileges.app_armor.is_some()),
        ("Privileges.NoNewPrivileges", privileges.no_new_privileges == Some(true)),
    ];
    match asked.iter().find(|(_, given)| *given) {
        Some((field, _)) => not_yet(field, "setting for it"),
        None => Ok(()),
    }
}

fn check_env(env: &[String]) -> Result<(), Error> {
    let nameless = |e: &&String| e.is_empty() || e.starts_with('=');
    match env.iter().find(nameless) {
        Some(bad) => Err(Error::invalid(format!("ContainerSpec.Env: invalid environment variable: {bad}"))),
        None => Ok(()),
    }
}

fn check_hosts(hosts: &[String]) -> Result<(), Error> {
    for line in hosts {
        let mut words = line.split_whitespace();
        let address = words.next().is_some_and(|a| a.parse::<IpAddr>().is_ok());
        if !address || words.next().is_none() {
            return Err(Error::invalid(format!(
                "ContainerSpec.Hosts: {line:?} is no line of a hosts file: expected an address and a name"
            )));
        }
    }
    Ok(())
}

fn signal(name: &str) -> Result<Option<String>, Error> {
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-".contains(&b)) {
        return Err(Error::invalid(format!("ContainerSpec.StopSignal: {name:?} is no signal")));
    }
    Ok(optional(name))
}

fn dns(config: Option<&wire::DnsConfig>) -> Result<Dns, Error> {
    let Some(config) = config else { return Ok(Dns::default()) };
    if let Some(bad) = config.nameservers.iter().find(|n| n.parse::<IpAddr>().is_err()) {
        return Err(Error::invalid(format!("ContainerSpec.DNSConfig.Nameservers: {bad:?} is no IP address")));
    }
    Ok(Dns { nameservers: config.nameservers.clone(), search: config.search.clone(), options: config.options.clone() })
}

fn capabilities(field: &str, names: &[String]) -> Result<Vec<String>, Error> {
    let known = |n: &&String| !n.is_empty() && n.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match names.iter().find(|n| !known(n)) {
        Some(bad) => Err(Error::invalid(format!("{field}: {bad:?} is no capability"))),
        None => Ok(names.to_vec()),
    }
}

fn ulimit(limit: &wire::Ulimit) -> Result<Ulimit, Error> {
    if limit.name.is_empty() {
        return Err(Error::invalid("ContainerSpec.Ulimits: a limit needs a name"));
    }
    if limit.hard != -1 && (limit.soft > limit.hard || limit.soft == -1) {
        return Err(Error::invalid(format!(
            "ContainerSpec.Ulimits: the soft limit of {} ({}) is above the hard one ({})",
            limit.name, limit.soft, limit.hard
        )));
    }
    Ok(Ulimit { name: limit.name.clone(), soft: limit.soft, hard: limit.hard })
}

fn oom_score(score: i64) -> Result<i64, Error> {
    if (-1000..=1000).contains(&score) {
        return Ok(score);
    }
    Err(Error::invalid(format!("ContainerSpec.OomScoreAdj: {score} is not within -1000 and 1000")))
}

/// Writes `ContainerSpec` as it was stored.
#[must_use]
pub fn to_wire(spec: &ContainerSpec) -> wire::ContainerSpec {
    wire::ContainerSpec {
        image: spec.image.clone(),
        labels: spec.labels.clone(),
        command: spec.command.clone(),
        args: spec.args.clone(),
        hostname: text(spec.hostname.as_ref()),
        env: spec.env.clone(),
        dir: text(spec.dir.as_ref()),
        user: text(spec.user.as_ref()),
        groups: spec.groups.clone(),
        privileges: None,
        init: spec.init,
        stop_signal: text(spec.stop_signal.as_ref()),
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        read_only: spec.read_only,
        mounts: spec.mounts.iter().map(mount_to_wire).collect(),
        stop_grace_period: spec.stop_grace_period.map(nanoseconds),
        healthcheck: spec.health.as_ref().map(health::to_wire),
        hosts: spec.hosts.clone(),
        dns_config: Some(wire::DnsConfig {
            nameservers: spec.dns.nameservers.clone(),
            search: spec.dns.search.clone(),
            options: spec.dns.options.clone(),
        }),
        secrets: data::secrets_to_wire(&spec.secrets),
        configs: data::configs_to_wire(&spec.configs),
        isolation: "default".to_owned(),
        sysctls: spec.sysctls.clone(),
        capability_add: spec.cap_add.clone(),
        capability_drop: spec.cap_drop.clone(),
        ulimits: spec.ulimits.iter().map(ulimit_to_wire).collect(),
        oom_score_adj: spec.oom_score_adj,
    }
}

/// Writes a ulimit.
#[must_use]
pub fn ulimit_to_wire(limit: &Ulimit) -> wire::Ulimit {
    wire::Ulimit { name: limit.name.clone(), hard: limit.hard, soft: limit.soft }
}
