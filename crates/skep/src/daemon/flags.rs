//! What `skep daemon` can be told. Names and meanings are dockerd's where dockerd has the same.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use skep_agent::Outside;
use skep_model::{GenericResource, GenericResources};
use skep_registry::{Insecure, Mirror, RegistryConfig};
use skep_runtime::OciRuntime;

/// Options of the daemon.
#[derive(Debug, Clone, Args)]
pub(crate) struct Flags {
    /// Where state, images and logs are kept
    #[arg(long, default_value = "/var/lib/skep", value_name = "DIR")]
    pub(crate) data_root: PathBuf,
    /// Where sockets, mounts and pinned eBPF objects live until the next boot
    #[arg(long, default_value = "/run/skep", value_name = "DIR")]
    pub(crate) exec_root: PathBuf,
    /// File that the process id is written to
    #[arg(short, long, value_name = "FILE")]
    pub(crate) pidfile: Option<PathBuf>,
    /// Parent cgroup of all containers
    #[arg(long, default_value = "/skep", value_name = "CGROUP")]
    pub(crate) cgroup_parent: String,
    /// A program that makes containers, such as runc, by its name on the PATH or its path; without it skep makes them itself
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) oci_runtime: Option<String>,
    /// With --oci-runtime, the program that is the first process of containers with --init; docker-init or tini-static on the PATH without it
    #[arg(long, value_name = "PROGRAM", requires = "oci_runtime")]
    pub(crate) init_path: Option<String>,
    /// debug, info, warn or error
    #[arg(short, long, default_value = "info", value_name = "LEVEL")]
    pub(crate) log_level: String,
    /// Where metrics for Prometheus are served, at /metrics; nowhere without it
    #[arg(long, value_name = "ADDR:PORT", value_parser = metrics_addr)]
    pub(crate) metrics_addr: Option<SocketAddr>,
    /// Address of this node at which programs outside of tasks may ask for the names of services (port 53 unless given); may be repeated
    #[arg(long, value_name = "ADDR[:PORT]", value_parser = dns_addr)]
    pub(crate) dns_listen: Vec<SocketAddr>,
    /// Network whose names are told there; may be repeated; all networks without it
    #[arg(long, value_name = "NETWORK", requires = "dns_listen")]
    pub(crate) dns_network: Vec<String>,
    /// The way of answers to clients that asked another node: through that node, or, where the network lets a node send from
    /// another's address (each proves it to itself), from the task's node at once
    #[arg(long, default_value = "through", value_name = "WAY")]
    pub(crate) reply: Reply,
    /// A registry that may be spoken with over plain HTTP, or by TLS with any certificate; those on loopback addresses may always
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]|CIDR")]
    pub(crate) insecure_registries: Vec<Insecure>,
    /// A registry that has copies of Docker's own images, asked before Docker's
    #[arg(long = "registry-mirror", value_name = "URL")]
    pub(crate) registry_mirrors: Vec<Mirror>,
    /// A resource that this node has for tasks that ask for it (--generic-resource): gpu=2, or gpu=UUID1 by name; may be repeated
    #[arg(long = "node-generic-resource", value_name = "KIND=NUMBER|KIND=NAME")]
    pub(crate) generic_resources: Vec<String>,
    /// Labels of this daemon, for constraints on engine.labels
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
}

/// Without an address in front of the colon it is any, as in dockerd.
fn metrics_addr(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("[::]{text}") } else { text.to_owned() };
    whole
        .parse()
        .map_err(|_| "use ADDR:PORT, as in 127.0.0.1:9323 or [::1]:9323, or :9323 for all addresses".to_owned())
}

/// Answers by UDP have to come from the address that was asked, so it has to be one of the node's.
fn dns_addr(text: &str) -> Result<SocketAddr, String> {
    let whole = text.parse().or_else(|_| {
        let address = text.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().map(|address| SocketAddr::new(address, 53))
    });
    match whole {
        Ok(address) if !address.ip().is_unspecified() => Ok(address),
        Ok(_) => Err("use an address of this node, and the flag again for another one".to_owned()),
        Err(_) => Err("use ADDR or ADDR:PORT, as in 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:5353".to_owned()),
    }
}

/// The way of answers to clients that asked another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Reply {
    /// Through the node that was asked.
    Through,
    /// From the task's node, where that is proved to work.
    Direct,
}

impl Flags {
    /// What is said of registries.
    pub(crate) fn registries(&self) -> RegistryConfig {
        RegistryConfig {
            insecure: self.insecure_registries.clone(),
            mirrors: self.registry_mirrors.clone(),
            certificates: vec![PathBuf::from("/etc/docker/certs.d"), self.data_root.join("certs.d")],
            ..RegistryConfig::default()
        }
    }

    /// Refuses what cannot be read or is not there, before anything is made.
    pub(crate) fn check(&self) -> Result<()> {
        self.label_map()?;
        self.generic()?;
        self.oci_runtime().map(drop)
    }

    /// What the node has for tasks that ask for it.
    pub(crate) fn generic(&self) -> Result<GenericResources> {
        GenericResource::parse_all(&self.generic_resources).context("--node-generic-resource")
    }

    /// What makes containers, where it is not skep itself.
    pub(crate) fn oci_runtime(&self) -> Result<Option<OciRuntime>> {
        let find = |name: &String| OciRuntime::find(name, self.init_path.as_deref());
        self.oci_runtime.as_ref().map(find).transpose().context("--oci-runtime")
    }

    /// Where names are answered outside of tasks, and which.
    pub(crate) fn outside(&self) -> Outside {
        Outside { listen: self.dns_listen.clone(), networks: self.dns_network.clone() }
    }

    /// The labels as a map.
    pub(crate) fn label_map(&self) -> Result<BTreeMap<String, String>> {
        let mut labels = BTreeMap::new();
        for label in &self.labels {
            match label.split_once('=') {
                Some((key, value)) if !key.is_empty() => labels.insert(key.to_owned(), value.to_owned()),
                _ => bail!("--label {label:?}: use KEY=VALUE"),
            };
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_answered_at_an_address_of_the_node() {
        for (given, address) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("::1", "[::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(dns_addr(given).unwrap().to_string(), address);
        }
        for bad in ["0.0.0.0", "[::]:53", "eth0", "53", ":53"] {
            assert!(dns_addr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metrics_have_an_address() {
        assert_eq!(metrics_addr(":9323").unwrap().to_string(), "[::]:9323");
        assert_eq!(metrics_addr("127.0.0.1:9323").unwrap().to_string(), "127.0.0.1:9323");
        for bad in ["9323", "localhost:9323", "127.0.0.1"] {
            assert!(metrics_addr(bad).unwrap_err().contains("ADDR:PORT"), "{bad}");
        }
    }
}
