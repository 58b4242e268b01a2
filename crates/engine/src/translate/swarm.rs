//! The swarm's own object, and how nodes start, join and leave one.

use std::net::IpAddr;

use skep_model::{CertificateSpec, ClusterSpec, Dispatcher, PrivateKey};

use super::node::tls_info;
use super::{amount, duration, nanoseconds, node, signed, unsupported};
use crate::backend::cluster::{ClusterView, GivenRoot};
use crate::backend::swarm::{Host, HostPort, InitOptions, JoinOptions};
use crate::error::Error;
use crate::types::meta::ObjectVersion;
use crate::types::swarm as wire;

/// Where managers listen unless told otherwise.
const MANAGER_PORT: u16 = 2377;
/// What Docker shows and skep has no knob for.
const RAFT: wire::Raft = wire::Raft {
    snapshot_interval: 10_000,
    keep_old_snapshots: Some(0),
    log_entries_for_slow_followers: 500,
    election_tick: 10,
    heartbeat_tick: 1,
};

/// Reads the swarm's spec. Zero is the default for everything but the task history, where only absence is.
///
/// # Errors
/// [`ErrorKind::Unimplemented`](crate::ErrorKind::Unimplemented) for settings that skep has no use for, naming them.
pub fn spec_from_wire(spec: &wire::Spec) -> Result<ClusterSpec, Error> {
    if !matches!(spec.name.as_str(), "" | "default") {
        return Err(Error::invalid("the swarm's name is \"default\" and cannot be changed"));
    }
    if spec.task_defaults.log_driver.is_some() {
        return Err(unsupported("TaskDefaults.LogDriver", "this version of skep keeps logs itself"));
    }
    refuse_raft(&spec.raft)?;
    let default = ClusterSpec::default();
    let task_history_limit = match spec.orchestration.task_history_retention_limit {
        None => default.task_history_limit,
        Some(limit) => amount("Orchestration.TaskHistoryRetentionLimit", limit)?,
    };
    let heartbeat = duration("Dispatcher.HeartbeatPeriod", spec.dispatcher.heartbeat_period)?;
    let heartbeat = if heartbeat.is_zero() { default.dispatcher.heartbeat } else { heartbeat };
    Ok(ClusterSpec {
        name: default.name,
        labels: spec.labels.clone(),
        task_history_limit,
        dispatcher: Dispatcher { heartbeat },
        autolock: spec.encryption_config.auto_lock_managers,
        certificates: certificates(&spec.ca_config)?,
    })
}

fn certificates(ca: &wire::CaConfig) -> Result<CertificateSpec, Error> {
    if !ca.external_cas.is_empty() {
        return Err(unsupported(
            "CAConfig.ExternalCAs",
            "skep's managers sign the nodes' certificates themselves and ask no external CA; with --ca-cert and --ca-key they sign them with a root of yours",
        ));
    }
    let expiry = duration("CAConfig.NodeCertExpiry", ca.node_cert_expiry)?;
    let expiry = if expiry.is_zero() { CertificateSpec::default().expiry } else { expiry };
    Ok(CertificateSpec { expiry, force_rotate: ca.force_rotate })
}

/// Reads the root certificate that a change of the swarm's spec brings along, if it does. It is nothing that the spec keeps.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for half of one.
pub fn given_root(spec: &wire::Spec) -> Result<Option<GivenRoot>, Error> {
    let ca = &spec.ca_config;
    match (ca.signing_ca_cert.trim(), ca.signing_ca_key.trim()) {
        ("", "") => Ok(None),
        ("", _) => Err(Error::invalid("if a signing CA key is provided, the signing CA cert must also be provided")),
        (_, "") => Err(Error::invalid(
            "CAConfig.SigningCAKey: skep's managers sign the nodes' certificates themselves, and need the key of the root certificate: give --ca-key too",
        )),
        (certificate, key) => {
            Ok(Some(GivenRoot { certificate: certificate.to_owned(), key: PrivateKey(key.to_owned()) }))
        }
    }
}

fn refuse_raft(raft: &wire::Raft) -> Result<(), Error> {
    let unchanged = |given: u64, fixed: u64| given == 0 || given == fixed;
    let ticks = |given: i64, fixed: i64| given == 0 || given == fixed;
    let all = unchanged(raft.snapshot_interval, RAFT.snapshot_interval)
        && unchanged(raft.keep_old_snapshots.unwrap_or(0), 0)
        && unchanged(raft.log_entries_for_slow_followers, RAFT.log_entries_for_slow_followers)
        && ticks(raft.election_tick, RAFT.election_tick)
        && ticks(raft.heartbeat_tick, RAFT.heartbeat_tick);
    if all { Ok(()) } else { Err(unsupported("Raft", "skep has no such settings; leave them as they are")) }
}

/// Writes the swarm's spec.
#[must_use]
pub fn spec_to_wire(spec: &ClusterSpec) -> wire::Spec {
    wire::Spec {
        name: spec.name.clone(),
        labels: spec.labels.clone(),
        orchestration: wire::Orchestration { task_history_retention_limit: Some(signed(spec.task_history_limit)) },
        raft: RAFT,
        dispatcher: wire::Dispatcher { heartbeat_period: nanoseconds(spec.dispatcher.heartbeat) },
        ca_config: wire::CaConfig {
            node_cert_expiry: nanoseconds(spec.certificates.expiry),
            force_rotate: spec.certificates.force_rotate,
            ..wire::CaConfig::default()
        },
        encryption_config: wire::EncryptionConfig { auto_lock_managers: spec.autolock },
        ..wire::Spec::default()
    }
}

/// Writes the swarm without its join tokens.
#[must_use]
pub fn to_wire(view: &ClusterView) -> wire::ClusterInfo {
    let cluster = &view.cluster;
    let pools = cluster.default_pools.iter().map(ToString::to_string).collect::<Vec<_>>();
    wire::ClusterInfo {
        id: cluster.id.to_string(),
        version: ObjectVersion { index: cluster.meta.version.0 },
        created_at: cluster.meta.created.into(),
        updated_at: cluster.meta.updated.into(),
        spec: spec_to_wire(&cluster.spec),
        tls_info: tls_info(&cluster.authority.trust().roots, cluster.authority.wanted(), &view.issuers),
        root_rotation_in_progress: cluster.authority.rotation.is_some(),
        default_addr_pool: (!pools.is_empty()).then_some(pools),
        subnet_size: cluster.subnet_size.into(),
        data_path_port: cluster.data_path_port.into(),
        join_tokens: None,
    }
}

/// Writes the swarm with its join tokens.
#[must_use]
pub fn to_wire_with_tokens(view: &ClusterView) -> wire::ClusterInfo {
    let join_tokens = wire::JoinTokens { worker: view.tokens.worker.clone(), manager: view.tokens.manager.clone() };
    wire::ClusterInfo { join_tokens: Some(join_tokens), ..to_wire(view) }
}

/// Reads a request to start a swarm.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for addresses and numbers that are none.
pub fn init_from_wire(request: &wire::InitRequest) -> Result<InitOptions, Error> {
    if given_root(&request.spec)?.is_some() {
        return Err(unsupported(
            "CAConfig.SigningCACert",
            "a swarm begins with a root certificate of its own: `docker swarm ca --rotate --ca-cert FILE --ca-key FILE` puts yours in its place",
        ));
    }
    let mut spec = spec_from_wire(&request.spec)?;
    spec.autolock |= request.auto_lock_managers;
    let pools = request.default_addr_pool.iter().map(|pool| {
        pool.parse()
            .map_err(|_| Error::invalid(format!("DefaultAddrPool: {pool:?} is no IPv4 network like 10.0.0.0/8 (tasks' IPv6 addresses are made from their IPv4 ones)")))
    });
    let subnet_size = match request.subnet_size {
        0 => None,
        size @ 8..=29 => u8::try_from(size).ok(),
        size => return Err(Error::invalid(format!("SubnetSize: {size} is not within 8 and 29"))),
    };
    Ok(InitOptions {
        listen_addr: listen_addr(&request.listen_addr)?,
        advertise_addr: advertise_addr(&request.advertise_addr)?,
        data_path_addr: data_path_addr(&request.data_path_addr)?,
        data_path_port: data_path_port(request.data_path_port)?,
        force_new_cluster: request.force_new_cluster,
        spec,
        availability: node::availability(&request.availability)?,
        default_addr_pool: pools.collect::<Result<_, _>>()?,
        subnet_size,
    })
}

/// Reads a request to join a swarm.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) for addresses that are none.
pub fn join_from_wire(request: &wire::JoinRequest) -> Result<JoinOptions, Error> {
    if request.remote_addrs.iter().all(String::is_empty) {
        return Err(Error::invalid("at least 1 RemoteAddr is required to join"));
    }
    let remote_addrs = request.remote_addrs.iter().map(|a| remote_addr(a)).collect::<Result<_, _>>()?;
    Ok(JoinOptions {
        remote_addrs,
        token: request.join_token.clone(),
        advertise_addr: advertise_addr(&request.advertise_addr)?,
        listen_addr: listen_addr(&request.listen_addr)?,
        data_path_addr: data_path_addr(&request.data_path_addr)?,
        availability: node::availability(&request.availability)?,
    })
}

fn remote_addr(text: &str) -> Result<String, Error> {
    let (host, port) = split(text).filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
        Error::invalid(format!("RemoteAddrs: {text:?} is no address of a manager: expected host or host:port"))
    })?;
    let port = port.unwrap_or(MANAGER_PORT);
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// `host`, `host:port`, `[v6]:port` or a bare IPv6 address.
fn split(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<IpAddr>().is_ok() {
        return Some((text, None));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok().filter(|p| *p != 0)?))),
            None => port.is_empty().then_some((host, None)),
        };
    }
    match text.split_once(':') {
        None => Some((text, None)),
        Some((host, port)) => Some((host, Some(port.parse().ok().filter(|p| *p != 0)?))),
    }
}

fn host(text: &str) -> Host {
    text.parse().map_or_else(|_| Host::Interface(text.to_owned()), Host::Ip)
}

fn listen_addr(text: &str) -> Result<HostPort, Error> {
    let text = if text.is_empty() { "0.0.0.0" } else { text };
    let (name, port) = split(text).filter(|(name, _)| plausible(name)).ok_or_else(|| {
        Error::invalid(format!(
            "ListenAddr: {text:?} must be an IP address or network interface (with optional port number)"
        ))
    })?;
    Ok(HostPort { host: host(name), port: port.unwrap_or(MANAGER_PORT) })
}

fn advertise_addr(text: &str) -> Result<Option<HostPort>, Error> {
    if text.is_empty() {
        return Ok(None);
    }
    let bad = || {
        Error::invalid(
            "advertise address must be a non-zero IP address or network interface (with optional port number)",
        )
    };
    let (name, port) = split(text).filter(|(name, _)| plausible(name)).ok_or_else(bad)?;
    match host(name) {
        Host::Ip(ip) if ip.is_unspecified() => Err(bad()),
        host => Ok(Some(HostPort { host, port: port.unwrap_or(MANAGER_PORT) })),
    }
}

fn data_path_addr(text: &str) -> Result<Option<Host>, Error> {
    match host(text) {
        _ if text.is_empty() => Ok(None),
        Host::Ip(ip) if ip.is_unspecified() => {
            Err(Error::invalid("data path address must be a non-zero IP address or network interface"))
        }
        Host::Interface(name) if !plausible(&name) => {
            Err(Error::invalid("data path address must be a non-zero IP address or network interface"))
        }
        host => Ok(Some(host)),
    }
}

/// An address, or what the kernel would take for an interface's name.
fn plausible(name: &str) -> bool {
    let interface = |n: &str| (1..16).contains(&n.len()) && !n.bytes().any(|b| b.is_ascii_whitespace() || b == b'/');
    name.parse::<IpAddr>().is_ok() || interface(name)
}

fn data_path_port(port: u32) -> Result<Option<u16>, Error> {
    match port {
        0 => Ok(None),
        1024..=49151 => Ok(u16::try_from(port).ok()),
        _ => Err(Error::invalid(format!("invalid data path port: {port} is not within 1024 and 49151"))),
    }
}
