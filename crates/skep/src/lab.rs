//! `skep lab`: several nodes on this machine, to play with.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use skep_lab::{Lab, LabConfig};

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
        Command::Up { name, nodes } => up(name.name, nodes)?,
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

fn up(name: String, nodes: u8) -> Result<()> {
    skep_mesh::check_kernel()?;
    let binary = std::env::current_exe().context("where is this program?")?;
    let lab = Lab::up(LabConfig { name, nodes, binary, data_dir: None })?;
    println!("{:<8} {:<16} API", "NODE", "ADDRESS");
    for node in 1..=nodes {
        println!("{:<8} {:<16} unix://{}", format!("node{node}"), lab.address(node), lab.socket(node).display());
    }
    println!("{:<8} {:<16} outside the swarm", "client", lab.client_address());
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
