//! What it takes to make, start and remove a container, beside runc: `cargo xtask bench containers` (root; a minute).
//!
//! skep's times are those of its runtime: from the call until the program has been executed, with the shim that will hold it; and from the call
//! until nothing is left of it, root file system and logs too. runc is run by itself on the same bundle: `runc run --detach`, `runc delete --force`.
//! They take turns.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use skep_e2e::{Rounds, TITLES, binary, busybox};
use skep_model::{ContainerSpec, Resources};
use skep_runtime::images::{ImageId, Images};
use skep_runtime::{Container, ContainerId, Embedded, EmbeddedConfig, NodeEvents, OciRuntime, Runtime, Shim, Volumes};

const ROUNDS: u64 = 30;
const NETNS: &str = "skep-bench";

/// What both have: a place, an image, a network namespace.
struct Bench {
    dir: PathBuf,
    images: Arc<Images>,
    image: ImageId,
}

/// Goes with everything that it made.
impl Drop for Bench {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", NETNS]).status();
        // The parent of the containers' control groups, on every hierarchy.
        let _ = Command::new("find").args(["/sys/fs/cgroup", "-type", "d", "-name", NETNS, "-delete"]).status();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("skep-bench-{}", std::process::id()));
        let images = Arc::new(Images::open(&dir.join("images")).context("the bench needs root")?);
        images.load(File::open(busybox())?, &mut |_| {})?;
        let image = images.find("box")?.id;
        ensure!(Command::new("ip").args(["netns", "add", NETNS]).status()?.success(), "the bench needs root");
        Ok(Self { dir, images, image })
    }

    fn runtime(&self, name: &str, oci_runtime: Option<OciRuntime>) -> Result<Embedded> {
        let events = NodeEvents::default();
        let volumes = Arc::new(Volumes::open(&self.dir.join(name).join("volumes"), events.clone())?);
        let images = self.images.clone();
        let (root, shim) = (self.dir.join(name).join("containers"), Shim::Program(binary()));
        let config = EmbeddedConfig { root, volumes, images, cgroup_parent: NETNS.into(), shim, oci_runtime, events };
        Ok(Embedded::open(config)?)
    }

    fn container(&self, number: u64) -> Result<Container> {
        let command = ["sleep", "1000"].map(str::to_owned).to_vec();
        Ok(Container {
            id: format!("{number:064x}").parse()?,
            image: self.image,
            spec: ContainerSpec { command, ..ContainerSpec::default() },
            resources: Resources::default(),
            netns: Path::new("/run/netns").join(NETNS),
            hostname: "box".to_owned(),
            addresses: Vec::new(),
            resolver: None,
            labels: BTreeMap::new(),
            env: Vec::new(),
            files: Vec::new(),
        })
    }
}

/// Times of one way.
#[derive(Default)]
struct Times {
    started: Rounds,
    removed: Rounds,
}

impl Times {
    fn print(&self, who: &str, beside: &Self) {
        println!("{}", self.started.row(&format!("{who}: make and start"), &beside.started));
        println!("{}", self.removed.row(&format!("{who}: remove while it runs"), &beside.removed));
    }
}

async fn round(bench: &Bench, runtime: &Embedded, number: u64, times: &mut Times) -> Result<()> {
    let container = bench.container(number)?;
    let id = container.id.clone();
    runtime.prepare(container).await?;
    times.started.add(timed(runtime.start(&id)).await?);
    times.removed.add(timed(runtime.remove(&id)).await?);
    Ok(())
}

async fn timed<T, E>(work: impl Future<Output = Result<T, E>>) -> Result<Duration, E> {
    let began = Instant::now();
    work.await?;
    Ok(began.elapsed())
}

/// runc by itself, on a bundle that it was given by skep.
struct Alone {
    runc: PathBuf,
    bundle: PathBuf,
}

impl Alone {
    /// Takes over the bundle of a container that runc makes for skep, and leaves that one as it is, for its root file system.
    async fn new(bench: &Bench, runtime: &Embedded, model: ContainerId) -> Result<Self> {
        let mut container = bench.container(0)?;
        container.id = model;
        let id = container.id.clone();
        runtime.prepare(container).await?;
        runtime.start(&id).await?;
        let made = bench.dir.join("runc/containers").join(id.as_str()).join("state/bundle/config.json");
        let mut spec: Value = serde_json::from_slice(&fs::read(made)?)?;
        spec["linux"]["cgroupsPath"] = format!("/{NETNS}/alone").into();
        let bundle = bench.dir.join("alone");
        fs::create_dir_all(&bundle)?;
        fs::write(bundle.join("config.json"), spec.to_string())?;
        Ok(Self { runc: OciRuntime::find("runc", None)?.path().to_owned(), bundle })
    }

    fn run(&self, args: &[&str]) -> Result<Duration> {
        let mut command = Command::new(&self.runc);
        command.arg("--root").arg(self.bundle.join("state")).args(args);
        // A pipe would be the container's, and never end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let began = Instant::now();
        ensure!(command.status()?.success(), "runc {args:?} failed");
        Ok(began.elapsed())
    }

    fn round(&self, times: &mut Times) -> Result<()> {
        let bundle = self.bundle.to_string_lossy();
        times.started.add(self.run(&["run", "--detach", "--bundle", &bundle, "alone"])?);
        times.removed.add(self.run(&["delete", "--force", "alone"])?);
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let bench = Bench::new()?;
    let own = bench.runtime("own", None)?;
    let by_runc = bench.runtime("runc", Some(OciRuntime::find("runc", None)?))?;
    let model: ContainerId = format!("{:064x}", u64::MAX).parse()?;
    let alone = Alone::new(&bench, &by_runc, model.clone()).await?;
    let [mut skep, mut shimmed, mut runc] = [Times::default(), Times::default(), Times::default()];
    for number in 0..ROUNDS {
        round(&bench, &own, number, &mut skep).await?;
        alone.round(&mut runc)?;
        round(&bench, &by_runc, number, &mut shimmed).await?;
    }
    by_runc.remove(&model).await?;
    println!("\n{ROUNDS} rounds, the ways in turns; the share is that of runc's time.\n\n{TITLES}");
    skep.print("skep", &runc);
    shimmed.print("skep, `--oci-runtime runc`", &runc);
    runc.print("runc alone", &runc);
    Ok(())
}
