//! `skep demo`: a swarm on this machine, the mesh at work before one's eyes, and nothing left afterwards.

pub(crate) mod answer;
mod image;
mod play;
pub(crate) mod probe;
mod stage;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::Args;
use skep_lab::{Families, Lab, LabConfig};
use tokio::signal::unix::{SignalKind, signal};

use self::stage::Stage;

/// Options of the demo.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// How many nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=9))]
    nodes: u8,
    /// Leave the swarm up, and print how to point a docker CLI at it
    #[arg(long)]
    keep: bool,
}

/// Somebody pressed Ctrl-C: no failure of the demo, but no success either.
const INTERRUPTED: u8 = 130;

/// Runs the demo.
pub(crate) fn main(flags: &Flags) -> Result<ExitCode> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the demo needs root: it makes network namespaces, containers and eBPF programs");
    }
    skep_mesh::check_kernel()?;
    let interrupted = interruption()?;
    let stage = Stage::new(interrupted.clone());
    let name = format!("demo-{}", std::process::id());
    let played = raise(&stage, &name, flags.nodes).and_then(|lab| play::play(&stage, &lab, flags.nodes).map(|()| lab));
    match played {
        Ok(lab) if flags.keep => {
            kept(&stage, &lab, &name);
            return Ok(ExitCode::SUCCESS);
        }
        Ok(_) => {}
        Err(e) if interrupted.load(Ordering::Relaxed) => stage.note(&format!("interrupted ({e:#})")),
        Err(e) => {
            let logs = stage::tail_of_logs(&name);
            clean(&stage, &name)?;
            return Err(e.context(logs));
        }
    }
    clean(&stage, &name)?;
    Ok(if interrupted.load(Ordering::Relaxed) { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
}

/// Set once Ctrl-C was pressed or the process was asked to end.
fn interruption() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Registered before anything is made that would have to be cleaned up.
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        set.store(true, Ordering::Relaxed);
    })?;
    Ok(flag)
}

fn raise(stage: &Stage, name: &str, nodes: u8) -> Result<Lab> {
    stage.title(&format!("{nodes} nodes on this machine, each in a network namespace of its own"));
    let binary = std::env::current_exe().context("where is this program?")?;
    let config = LabConfig {
        name: name.to_owned(),
        nodes,
        binary,
        data_dir: None,
        families: Families::Both,
        daemon_flags: vec![],
    };
    let lab = stage.step("start the nodes' daemons", || Ok(Lab::up(config)?))?;
    for node in 1..=nodes {
        stage.row(&format!("node{node}"), &lab.address(node).to_string());
    }
    stage.row("client", &format!("{} (outside the swarm)", lab.client_address()));
    Ok(lab)
}

fn clean(stage: &Stage, name: &str) -> Result<()> {
    stage.title("The end");
    stage.step_always("take everything down", || match Lab::open(name) {
        Ok(lab) => Ok(lab.down()?),
        // Interrupted before there was anything.
        Err(_) => Ok(()),
    })?;
    let left = skep_lab::leftovers(name);
    if left.is_empty() {
        stage.note("no process, namespace, mount, cgroup or eBPF program is left");
        return Ok(());
    }
    bail!("the demo left something behind:\n{}", left.join("\n"));
}

fn kept(stage: &Stage, lab: &Lab, name: &str) {
    stage.title("The swarm stays up");
    stage.note(&format!("docker -H unix://{} service ls", lab.socket(1).display()));
    stage.note(&format!("skep lab exec --name {name} client -- curl -s http://{}:8080", lab.address(1)));
    stage.note(&format!("skep lab down --name {name}"));
}
