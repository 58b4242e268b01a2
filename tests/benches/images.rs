//! What it takes until an image of a registry is a root file system, beside skopeo and umoci: `cargo xtask bench images` (root; a minute).
//!
//! Debian's docker-registry has the image. `skep pull` asks the daemon, which downloads, checks and unpacks; `skopeo copy` downloads and checks,
//! `umoci unpack` unpacks. They take turns, each from nothing.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use skep_e2e::{Registry, Rounds, Swarm, TITLES, nginx};

const ROUNDS: usize = 15;

fn main() -> Result<()> {
    let swarm = Swarm::alone("images-bench", &["--insecure-registry", "0.0.0.0/0"]);
    let registry = Registry::start(&swarm);
    registry.push(&swarm, &nginx(), "web:1");
    let image = format!("{}/web:1", registry.addr);
    ensure!(swarm.docker_with(1, &["login", "-u", "ann", "--password-stdin", &registry.addr], "secret").ok, "login");
    let (mut skep, mut tools) = (Rounds::default(), Rounds::default());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let said = swarm.skep(1, &["pull", "-q", &image]);
        skep.add(began.elapsed());
        ensure!(said.ok, "skep pull: {}", said.err);
        swarm.must(1, &["rmi", &image]);
        tools.add(by_tools(&swarm, &image)?);
    }
    println!("\n{ROUNDS} rounds, both in turns; the share is that of the tools' time.\n\n{TITLES}");
    println!("{}", skep.row("`skep pull`", &tools));
    println!("{}", tools.row("`skopeo copy` and `umoci unpack`", &tools));
    Ok(())
}

fn by_tools(swarm: &Swarm, image: &str) -> Result<Duration> {
    let dir = swarm.lab.dir().join("tools");
    fs::create_dir_all(&dir)?;
    let (from, layout) = (format!("docker://{image}"), format!("{}:web", dir.join("layout").display()));
    let (to, bundle) = (format!("oci:{layout}"), dir.join("bundle").display().to_string());
    let login = ["--src-tls-verify=false", "--src-creds", "ann:secret"];
    let copy = [&["skopeo", "copy", "--quiet", "--insecure-policy"], &login[..], &[&from, &to]].concat();
    let unpack = ["umoci", "unpack", "--image", &layout, &bundle];
    let began = Instant::now();
    for argv in [&copy[..], &unpack] {
        let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
        let said = swarm.lab.exec("node1", &argv)?.output()?;
        ensure!(said.status.success(), "{argv:?}: {}", String::from_utf8_lossy(&said.stderr));
    }
    let took = began.elapsed();
    fs::remove_dir_all(&dir)?;
    Ok(took)
}
