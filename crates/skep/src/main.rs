//! skep: a swarm in one binary. This file chooses what the process is; everything else is wiring in `daemon/` and showing in `demo/`.

#![forbid(unsafe_code)]

mod daemon;
mod demo;
mod lab;
mod telemetry;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A swarm of Linux machines: publish a service's port, and every node answers on it.
#[derive(Parser)]
#[command(name = "skep", version, propagate_version = true, arg_required_else_help = true)]
struct Args {
    /// The daemon to talk to: unix:///path or tcp://host:port
    #[arg(short = 'H', global = true, value_name = "HOST")]
    host: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon of a node
    Daemon(Box<daemon::Flags>),
    /// Show the mesh at work: a swarm of three nodes on this machine, and its own end
    Demo(demo::Flags),
    /// A swarm of several nodes on this machine, in network namespaces, to play with
    #[command(subcommand)]
    Lab(lab::Command),
    /// The demo's web service, inside its container
    #[command(hide = true)]
    Answer,
    /// The demo's client
    #[command(hide = true)]
    Probe(demo::probe::Flags),
    #[command(flatten)]
    Client(Box<skep_cli::Command>),
}

/// The hidden command that holds a container. It must run before anything makes a thread.
const SHIM: &str = "shim";

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|a| a == SHIM) {
        return skep_runtime::shim_main(std::env::args_os().skip(2));
    }
    let args = Args::parse();
    let outcome = match args.command {
        Command::Daemon(flags) => daemon::main(*flags, args.host),
        Command::Demo(flags) => demo::main(&flags),
        Command::Answer => demo::answer::main().map(|()| ExitCode::SUCCESS),
        Command::Probe(flags) => demo::probe::main(&flags).map(|()| ExitCode::SUCCESS),
        Command::Lab(command) => lab::main(command),
        Command::Client(command) => client(args.host, *command),
    };
    outcome.unwrap_or_else(|e| {
        eprintln!("skep: {e:#}");
        ExitCode::FAILURE
    })
}

fn client(host: Option<String>, command: skep_cli::Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(skep_cli::run(host, command));
    // Something may still wait for standard input, which nobody wants any more.
    runtime.shutdown_background();
    outcome
}
