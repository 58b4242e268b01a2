//! The daemon of a node: wiring, and nothing else.

mod advertise;
mod backend;
mod certificates;
mod flags;
mod host;
mod identity;
mod init;
mod join;
mod leader;
mod leave;
mod lock;
mod node;
mod node_file;
mod pidfile;
mod promotion;
mod recover;
mod renewal;
mod role;
mod seat;

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use skep_engine::{Listeners, Server};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::info;

use self::backend::NodeBackend;
pub(crate) use self::flags::Flags;
use self::node::LocalNode;
use self::pidfile::Pidfile;

/// Runs the daemon until it is told to end. Tasks and traffic go on without it.
pub(crate) fn main(flags: Flags, host: Option<String>) -> Result<ExitCode> {
    crate::telemetry::start(&flags.log_level)?;
    if !nix::unistd::geteuid().is_root() {
        bail!("the daemon needs root: it makes network namespaces, containers and eBPF programs");
    }
    flags.check()?;
    skep_mesh::check_kernel()?;
    skep_network::raise_file_limit(FILES).context("cannot raise the number of files that may be open")?;
    for dir in [&flags.data_root, &flags.exec_root] {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    let default_pidfile = flags.exec_root.join("skep.pid");
    let pidfile = Pidfile::take(flags.pidfile.as_ref().unwrap_or(&default_pidfile))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()?;
    let ended = runtime.block_on(run(flags, host))?;
    // What still blocks on a disk must not hold up the end.
    runtime.shutdown_background();
    match ended {
        Ended::Told => Ok(ExitCode::SUCCESS),
        Ended::Again => Err(again(pidfile)),
    }
}

/// Why the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    /// It was told to.
    Told,
    /// Something in it has stopped that only a new start brings back.
    Again,
}

/// Puts the same program with the same arguments in this process's place. Returns only when that fails.
fn again(pidfile: Pidfile) -> anyhow::Error {
    drop(pidfile);
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    anyhow::Error::new(command.args(arguments).exec()).context("cannot start again")
}

/// Enough that a slow request does not hold up a heartbeat; the data plane needs none of them.
const WORKERS: usize = 4;

/// Files that may be open: every published port is one, and all ports of three protocols are as many as can be published.
const FILES: u64 = 1 << 18;

/// Requests of other managers that may wait to be taken.
const TUNNELS: usize = 16;

async fn run(flags: Flags, host: Option<String>) -> Result<Ended> {
    let address = host.unwrap_or_else(|| format!("unix://{}", flags.exec_root.join("skep.sock").display()));
    let metrics = flags.metrics_addr.into_iter().collect();
    let listeners = Listeners { metrics, ..listeners(&address)? };
    let (tunnels, passed_on) = mpsc::channel(TUNNELS);
    let node = Arc::new(LocalNode::open(flags, tunnels)?);
    node.resume().await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (why, told) = watch::channel(Ended::Told);
    let again = node.again.clone();
    let ended = async move {
        tokio::select! {
            _ = terminate.recv() => info!("told to end: tasks and traffic go on"),
            _ = interrupt.recv() => info!("told to end: tasks and traffic go on"),
            () = again.notified() => {
                info!("starting again: tasks and traffic go on");
                why.send_replace(Ended::Again);
            }
        }
    };
    let server = Server::bind(&listeners).await?.with_tunnels(passed_on);
    for at in server.metrics_addrs() {
        info!(%at, "metrics at /metrics");
    }
    info!(%address, "listening");
    server.serve(Arc::new(NodeBackend::new(node.clone())), ended).await?;
    node.suspend().await;
    let ended = *told.borrow();
    Ok(ended)
}

/// Where `-H` says that the API answers.
fn listeners(address: &str) -> Result<Listeners> {
    if let Some(path) = address.strip_prefix("unix://") {
        return Ok(Listeners { unix: vec![path.into()], tcp: Vec::new(), ..Listeners::default() });
    }
    if address.starts_with("tcp://") {
        bail!(
            "-H {address}: the API over tcp needs TLS with client certificates, which is not there yet: use unix:///path"
        );
    }
    bail!("-H {address:?}: use unix:///path")
}
