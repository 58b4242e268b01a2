//! The flags of `service create` and `service update`.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::publish::{self, Port};
use crate::values::{
    DataFile, host_entry, parse_attachment, parse_bytes, parse_cpus, parse_data_file, parse_duration, parse_generic,
    parse_mount, parse_ulimit, split_command,
};

/// Words of a command in one flag.
#[derive(Debug, Clone)]
pub(super) struct Words(pub(super) Vec<String>);

/// The ports of one `--publish`.
#[derive(Debug, Clone)]
pub(super) struct Ports(pub(super) Vec<Port>);

fn words(text: &str) -> Result<Words, String> {
    split_command(text).map(Words)
}

fn ports(text: &str) -> Result<Ports, publish::BadPublish> {
    publish::parse(text).map(Ports)
}

/// Whether to stay until a service has converged.
#[derive(Debug, Default, Args)]
pub struct Wait {
    /// Return at once, and let the service converge by itself
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(super) detach: bool,
    /// Wait, but show no progress
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// Flags with one value, which create and update have alike.
#[derive(Debug, Default, Args)]
pub(super) struct Scalars {
    /// How the service is reached: vip or dnsrr
    #[arg(long, value_parser = ["vip", "dnsrr"])]
    pub(super) endpoint_mode: Option<String>,
    /// The command that begins the container, in place of the image's
    #[arg(long, value_parser = words)]
    pub(super) entrypoint: Option<Words>,
    /// The containers' host name
    #[arg(long)]
    pub(super) hostname: Option<String>,
    /// Run a small init as the container's first process
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) init: Option<bool>,
    /// CPUs that a task may use, such as 0.5
    #[arg(long, value_parser = parse_cpus)]
    pub(super) limit_cpu: Option<i64>,
    /// Memory that a task may use, such as 512m
    #[arg(long, value_parser = parse_bytes)]
    pub(super) limit_memory: Option<i64>,
    /// Processes that a task may have; 0 is no limit
    #[arg(long)]
    pub(super) limit_pids: Option<i64>,
    /// CPUs that a node must have left for a task
    #[arg(long, value_parser = parse_cpus)]
    pub(super) reserve_cpu: Option<i64>,
    /// Memory that a node must have left for a task
    #[arg(long, value_parser = parse_bytes)]
    pub(super) reserve_memory: Option<i64>,
    /// Number of tasks
    #[arg(long)]
    pub(super) replicas: Option<u64>,
    /// Most tasks on one node; 0 is no limit
    #[arg(long, alias = "max-replicas-per-node")]
    pub(super) replicas_max_per_node: Option<u64>,
    /// Mount the container's root read-only
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) read_only: Option<bool>,
    /// When to restart a task: none, on-failure or any
    #[arg(long, value_parser = ["none", "on-failure", "any"])]
    pub(super) restart_condition: Option<String>,
    /// How long to wait before a restart
    #[arg(long, value_parser = parse_duration)]
    pub(super) restart_delay: Option<i64>,
    /// How often to restart before giving up
    #[arg(long)]
    pub(super) restart_max_attempts: Option<u64>,
    /// Over how long restarts are counted
    #[arg(long, value_parser = parse_duration)]
    pub(super) restart_window: Option<i64>,
    /// How long a container may take to stop before it is killed
    #[arg(long, value_parser = parse_duration)]
    pub(super) stop_grace_period: Option<i64>,
    /// The signal that stops a container
    #[arg(long)]
    pub(super) stop_signal: Option<String>,
    /// Give the containers a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) tty: Option<bool>,
    /// The user, and group: name or number
    #[arg(short, long)]
    pub(super) user: Option<String>,
    /// The directory that the command starts in
    #[arg(short, long)]
    pub(super) workdir: Option<String>,
    /// Do not ask the registry which digest the image's tag has now: each node does for itself
    #[arg(long)]
    pub(super) no_resolve_image: bool,
    /// Hand this person's login at the image's registry to the nodes that run it
    #[arg(long)]
    pub(super) with_registry_auth: bool,
}

/// How the health of containers is checked.
#[derive(Debug, Default, Args)]
pub(super) struct Health {
    /// A line of shell that says whether a container is healthy
    #[arg(long)]
    pub(super) health_cmd: Option<String>,
    /// How long between two checks
    #[arg(long, value_parser = parse_duration)]
    pub(super) health_interval: Option<i64>,
    /// How many failures in a row make a container unhealthy
    #[arg(long)]
    pub(super) health_retries: Option<u32>,
    /// How long between two checks in the start period
    #[arg(long, value_parser = parse_duration)]
    pub(super) health_start_interval: Option<i64>,
    /// How long after its start a container may fail
    #[arg(long, value_parser = parse_duration)]
    pub(super) health_start_period: Option<i64>,
    /// How long a check may take
    #[arg(long, value_parser = parse_duration)]
    pub(super) health_timeout: Option<i64>,
    /// Check nothing, whatever the image says
    #[arg(long)]
    pub(super) no_healthcheck: bool,
}

/// How updates roll out and roll back.
#[derive(Debug, Default, Args)]
pub(super) struct Rollout {
    /// How many tasks are updated at a time; 0 is all
    #[arg(long)]
    pub(super) update_parallelism: Option<u64>,
    /// How long between one update and the next
    #[arg(long, value_parser = parse_duration)]
    pub(super) update_delay: Option<i64>,
    /// How long to watch a task after its update
    #[arg(long, value_parser = parse_duration)]
    pub(super) update_monitor: Option<i64>,
    /// What to do when an update fails: pause, continue or rollback
    #[arg(long, value_parser = ["pause", "continue", "rollback"])]
    pub(super) update_failure_action: Option<String>,
    /// Which share of tasks may fail, 0 to 1
    #[arg(long)]
    pub(super) update_max_failure_ratio: Option<f64>,
    /// Stop the old task first, or start the new one first
    #[arg(long, value_parser = ["start-first", "stop-first"])]
    pub(super) update_order: Option<String>,
    /// As for updates, when rolling back
    #[arg(long)]
    pub(super) rollback_parallelism: Option<u64>,
    /// As for updates, when rolling back
    #[arg(long, value_parser = parse_duration)]
    pub(super) rollback_delay: Option<i64>,
    /// As for updates, when rolling back
    #[arg(long, value_parser = parse_duration)]
    pub(super) rollback_monitor: Option<i64>,
    /// What to do when a rollback fails: pause or continue
    #[arg(long, value_parser = ["pause", "continue"])]
    pub(super) rollback_failure_action: Option<String>,
    /// As for updates, when rolling back
    #[arg(long)]
    pub(super) rollback_max_failure_ratio: Option<f64>,
    /// As for updates, when rolling back
    #[arg(long, value_parser = ["start-first", "stop-first"])]
    pub(super) rollback_order: Option<String>,
}

/// Flags of `service create`.
#[derive(Debug, Default, Args)]
pub struct CreateFlags {
    #[command(flatten)]
    pub(super) scalars: Scalars,
    #[command(flatten)]
    pub(super) health: Health,
    #[command(flatten)]
    pub(super) rollout: Rollout,
    #[command(flatten)]
    pub(super) wait: Wait,
    /// The service's name
    #[arg(long)]
    pub(super) name: Option<String>,
    /// How many tasks there are: replicated, or one per node: global
    #[arg(long, default_value = "replicated", value_parser = ["replicated", "global"])]
    pub(super) mode: String,
    /// Publish a port on every node: [published:]target[/protocol], or published=…,target=…
    #[arg(short, long, value_parser = ports)]
    pub(super) publish: Vec<Ports>,
    /// Set a variable; a bare name takes our own value
    #[arg(short, long)]
    pub(super) env: Vec<String>,
    /// Read variables from a file
    #[arg(long)]
    pub(super) env_file: Vec<PathBuf>,
    /// Where tasks may run: node.role==worker
    #[arg(long)]
    pub(super) constraint: Vec<String>,
    /// How tasks are spread: spread=node.labels.zone
    #[arg(long)]
    pub(super) placement_pref: Vec<String>,
    /// Label the service
    #[arg(short, long)]
    pub(super) label: Vec<String>,
    /// Label the containers
    #[arg(long)]
    pub(super) container_label: Vec<String>,
    /// Mount something: type=bind,source=…,target=…
    #[arg(long, value_parser = parse_mount)]
    pub(super) mount: Vec<Value>,
    /// Give the containers a secret as a file: its name, or source=…,target=…,uid=…,gid=…,mode=…
    #[arg(long, value_parser = parse_data_file)]
    pub(super) secret: Vec<DataFile>,
    /// Give the containers a config as a file, likewise
    #[arg(long, value_parser = parse_data_file)]
    pub(super) config: Vec<DataFile>,
    /// Attach to a network: its name, or name=…,alias=…
    #[arg(long, value_parser = parse_attachment)]
    pub(super) network: Vec<Value>,
    /// Know a host by name: name:address
    #[arg(id = "known-host", long = "host", value_parser = host_entry)]
    pub(super) hosts: Vec<String>,
    /// Ask this DNS server
    #[arg(long)]
    pub(super) dns: Vec<String>,
    /// A DNS option
    #[arg(long)]
    pub(super) dns_option: Vec<String>,
    /// A DNS search domain
    #[arg(long)]
    pub(super) dns_search: Vec<String>,
    /// Add a capability
    #[arg(long)]
    pub(super) cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long)]
    pub(super) cap_drop: Vec<String>,
    /// Set a kernel parameter in the container
    #[arg(long)]
    pub(super) sysctl: Vec<String>,
    /// Ask for a number of a kind that nodes say they have: gpu=2
    #[arg(long, value_name = "KIND=NUMBER", value_parser = parse_generic)]
    pub(super) generic_resource: Vec<Value>,
    /// Set a ulimit: nofile=1024:2048
    #[arg(long, value_parser = parse_ulimit)]
    pub(super) ulimit: Vec<Value>,
    /// The image
    pub(super) image: String,
    /// The command's words, in place of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) args: Vec<String>,
}

/// Flags of `service update`.
#[derive(Debug, Default, Args)]
pub struct UpdateFlags {
    #[command(flatten)]
    pub(super) scalars: Scalars,
    #[command(flatten)]
    pub(super) health: Health,
    #[command(flatten)]
    pub(super) rollout: Rollout,
    #[command(flatten)]
    pub(super) wait: Wait,
    /// Another image
    #[arg(long)]
    pub(super) image: Option<String>,
    /// Other words of the command
    #[arg(long, value_parser = words)]
    pub(super) args: Option<Words>,
    /// Replace the tasks although nothing has changed
    #[arg(long)]
    pub(super) force: bool,
    /// Go back to what the service was before
    #[arg(long)]
    pub(super) rollback: bool,
    /// Publish a port, or change how it is published
    #[arg(long, value_parser = ports)]
    pub(super) publish_add: Vec<Ports>,
    /// Stop to publish a target port: 80, or 53/udp
    #[arg(long, value_parser = ports)]
    pub(super) publish_rm: Vec<Ports>,
    /// Attach to a network: its name, or name=…,alias=…
    #[arg(long, value_parser = parse_attachment)]
    pub(super) network_add: Vec<Value>,
    /// Take off a network
    #[arg(long)]
    pub(super) network_rm: Vec<String>,
    /// Set a variable
    #[arg(long)]
    pub(super) env_add: Vec<String>,
    /// Remove a variable
    #[arg(long)]
    pub(super) env_rm: Vec<String>,
    /// Add a constraint
    #[arg(long)]
    pub(super) constraint_add: Vec<String>,
    /// Remove a constraint
    #[arg(long)]
    pub(super) constraint_rm: Vec<String>,
    /// Add a placement preference
    #[arg(long)]
    pub(super) placement_pref_add: Vec<String>,
    /// Remove a placement preference
    #[arg(long)]
    pub(super) placement_pref_rm: Vec<String>,
    /// Add or change a label of the service
    #[arg(long)]
    pub(super) label_add: Vec<String>,
    /// Remove a label of the service
    #[arg(long)]
    pub(super) label_rm: Vec<String>,
    /// Add or change a label of the containers
    #[arg(long)]
    pub(super) container_label_add: Vec<String>,
    /// Remove a label of the containers
    #[arg(long)]
    pub(super) container_label_rm: Vec<String>,
    /// Add a mount, or change the one at its target
    #[arg(long, value_parser = parse_mount)]
    pub(super) mount_add: Vec<Value>,
    /// Remove the mount at a target
    #[arg(long)]
    pub(super) mount_rm: Vec<String>,
    /// Give the containers a secret as a file
    #[arg(long, value_parser = parse_data_file)]
    pub(super) secret_add: Vec<DataFile>,
    /// Take a secret away, by its name
    #[arg(long)]
    pub(super) secret_rm: Vec<String>,
    /// Give the containers a config as a file
    #[arg(long, value_parser = parse_data_file)]
    pub(super) config_add: Vec<DataFile>,
    /// Take a config away, by its name
    #[arg(long)]
    pub(super) config_rm: Vec<String>,
    /// Add a known host
    #[arg(long, value_parser = host_entry)]
    pub(super) host_add: Vec<String>,
    /// Remove a known host
    #[arg(long, value_parser = host_entry)]
    pub(super) host_rm: Vec<String>,
    /// Add a DNS server
    #[arg(long)]
    pub(super) dns_add: Vec<String>,
    /// Remove a DNS server
    #[arg(long)]
    pub(super) dns_rm: Vec<String>,
    /// Add a DNS option
    #[arg(long)]
    pub(super) dns_option_add: Vec<String>,
    /// Remove a DNS option
    #[arg(long)]
    pub(super) dns_option_rm: Vec<String>,
    /// Add a DNS search domain
    #[arg(long)]
    pub(super) dns_search_add: Vec<String>,
    /// Remove a DNS search domain
    #[arg(long)]
    pub(super) dns_search_rm: Vec<String>,
    /// Add a capability
    #[arg(long)]
    pub(super) cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long)]
    pub(super) cap_drop: Vec<String>,
    /// Set a kernel parameter
    #[arg(long)]
    pub(super) sysctl_add: Vec<String>,
    /// Leave a kernel parameter alone again
    #[arg(long)]
    pub(super) sysctl_rm: Vec<String>,
    /// Ask for a number of a kind that nodes say they have: gpu=2
    #[arg(long, value_name = "KIND=NUMBER", value_parser = parse_generic)]
    pub(super) generic_resource_add: Vec<Value>,
    /// Ask for a kind no more
    #[arg(long, value_name = "KIND")]
    pub(super) generic_resource_rm: Vec<String>,
    /// Set a ulimit
    #[arg(long, value_parser = parse_ulimit)]
    pub(super) ulimit_add: Vec<Value>,
    /// Remove a ulimit by its name
    #[arg(long)]
    pub(super) ulimit_rm: Vec<String>,
    /// The service
    pub(super) service: String,
}
