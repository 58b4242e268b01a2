//! `skep lab`: several nodes on this machine, to play with.

use std::net::IpAddr;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use skep_lab::{Families, Lab, LabConfig};

/// A swarm of several nodes on this machine, in network namespaces.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start nodes and a client, each in a network namespace of its own
    Up {
        #[command(flatten)]
        name: Name,
        /// How many nodes
        #[arg(long, default_value_t = 3)]
        nodes: u8,
        /// Give nodes and client IPv6 addresses only, instead of IPv4 and IPv6
        #[arg(long)]
        ipv6_only: bool,
        /// Flags of every node's `skep daemon`, such as `-- --reply direct`
        #[arg(last = true, value_name = "FLAGS")]
        daemon_flags: Vec<String>,
    },
    /// Run a command inside a node, or inside `client`
    Exec {
        #[command(flatten)]
        name: Name,
        /// node1, node2, …, or client
        place: String,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// List labs
    Ls,
    /// Remove everything that `up` and the nodes have made
    Down {
        #[command(flatten)]
        name: Name,
    },
}

/// Which lab.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// Name of the lab
    #[arg(long = "name", default_value = "lab")]
    name: String,
}

/// Runs a command on a lab.
pub(crate) fn main(command: Command) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("a lab needs root: it makes network namespaces, containers and eBPF programs");
    }
    match command {
        Command::Up { name, nodes, ipv6_only, daemon_flags } => {
            up(name.name, nodes, if ipv6_only { Families::Ipv6 } else { Families::Both }, daemon_flags)?;
        }
        Command::Exec { name, place, command } => return exec(&name.name, &place, &command),
        Command::Ls => {
            for name in Lab::list()? {
                println!("{name}");
            }
        }
        Command::Down { name } => Lab::open(&name.name)?.down()?,
    }
    Ok(ExitCode::SUCCESS)
}

fn up(name: String, nodes: u8, families: Families, daemon_flags: Vec<String>) -> Result<()> {
    skep_mesh::check_kernel()?;
    let binary = std::env::current_exe().context("where is this program?")?;
    let lab = Lab::up(LabConfig { name, nodes, binary, data_dir: None, families, daemon_flags })?;
    let row = |place: &str, known_by: IpAddr, ipv6: String, rest: &str| {
        let ipv4 = if known_by.is_ipv4() { known_by.to_string() } else { "-".to_owned() };
        println!("{place:<8} {ipv4:<16} {ipv6:<20} {rest}");
    };
    println!("{:<8} {:<16} {:<20} API", "NODE", "IPV4", "IPV6");
    for node in 1..=nodes {
        let api = format!("unix://{}", lab.socket(node).display());
        row(&format!("node{node}"), lab.address(node), lab.ipv6(node)[0].to_string(), &api);
    }
    row("client", lab.client_address(), lab.client_ipv6().to_string(), "outside the swarm");
    println!();
    println!("docker -H unix://{} swarm init --advertise-addr {}", lab.socket(1).display(), lab.address(1));
    Ok(())
}

/// Runs as a shell would: its output is ours, and so is its exit code.
fn exec(name: &str, place: &str, command: &[String]) -> Result<ExitCode> {
    let lab = Lab::open(name)?;
    let status = lab.exec(place, command)?.status().with_context(|| format!("cannot run {}", command[0]))?;
    let code = status.code().and_then(|c| u8::try_from(c).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
