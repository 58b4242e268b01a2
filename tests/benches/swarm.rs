//! How fast a swarm of three nodes reacts, and what its daemons weigh: `cargo xtask bench swarm` (root; about two minutes).
//!
//! Times begin when the API is asked, and end when the client outside has had an answer from *every* node. Medians of
//! [`ROUNDS`] rounds, with the lowest and the highest; machines differ, and so do their numbers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{EndpointPortConfig, EndpointPortConfigPublishModeEnum, ServiceSpec};
use bollard::query_parameters::{InspectServiceOptions, UpdateServiceOptionsBuilder};
use serde_json::json;
use skep_e2e::Swarm;

const ROUNDS: u16 = 9;
const NODES: u8 = 3;
const SERVICES: u16 = 100;
/// Published all at once.
const MANY_PORTS: std::ops::Range<u16> = 40_000..50_000;
/// Asked again after this long. Short, because it is the resolution of what is measured.
const LOOK: Duration = Duration::from_millis(2);
/// Nothing here takes that long unless it does not work.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let swarm = Swarm::start("bench");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&swarm))
}

async fn measure(swarm: &Swarm) -> Result<()> {
    let socket = swarm.lab.socket(1);
    let api = Docker::connect_with_unix(&socket.to_string_lossy(), 30, bollard::API_DEFAULT_VERSION)?;
    let api = api.negotiate_version().await?;
    println!("\n{:<58} {:>9} {:>9} {:>9}", "", "median", "lowest", "highest");

    let mut created = Vec::new();
    let mut removed = Vec::new();
    for round in 0..ROUNDS {
        let name = format!("web{round}");
        created.push(create(swarm, &api, &name, 9000 + round).await?);
        removed.push(remove(swarm, &api, &name, 9000 + round).await?);
    }
    row("create to serving on all nodes, 2 replicas", &mut created);
    row("remove to refused on all nodes", &mut removed);

    create(swarm, &api, "web", 8080).await?;
    let (mut added, mut withdrawn) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        added.push(republish(swarm, &api, &[8080, 9100 + round]).await?);
        withdrawn.push(republish(swarm, &api, &[8080]).await?);
    }
    row("publish-add to serving on all nodes", &mut added);
    row("publish-rm to refused on all nodes", &mut withdrawn);
    println!();
    weigh(swarm, "1 service, 2 tasks")?;
    for number in 0..SERVICES {
        api.create_service(web(&format!("s{number}"), 20_000 + number, 1)?, None).await?;
    }
    for number in 0..SERVICES {
        until(swarm, 20_000 + number, Served::ByAll)?;
    }
    weigh(swarm, "101 services, 102 tasks, all published")?;

    println!();
    publish_many(swarm, &api).await
}

/// 10,000 ports in one update. Last, for what it takes the allocator keeps.
async fn publish_many(swarm: &Swarm, api: &Docker) -> Result<()> {
    let (mut many, mut none) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let ports: Vec<u16> = std::iter::once(8080).chain(MANY_PORTS).collect();
        many.push(republish(swarm, api, &ports).await?);
        MANY_PORTS.step_by(1000).try_for_each(|port| until(swarm, port, Served::ByAll))?;
        none.push(republish(swarm, api, &[8080]).await?);
    }
    row("publish-add of 10,000 ports to serving on all nodes", &mut many);
    row("publish-rm of 10,000 ports to refused on all nodes", &mut none);
    Ok(())
}

/// Whether a port is answered.
#[derive(Clone, Copy)]
enum Served {
    ByAll,
    ByNone,
}

async fn create(swarm: &Swarm, api: &Docker, name: &str, port: u16) -> Result<Duration> {
    let began = Instant::now();
    api.create_service(web(name, port, 2)?, None).await?;
    until(swarm, port, Served::ByAll)?;
    Ok(began.elapsed())
}

async fn remove(swarm: &Swarm, api: &Docker, name: &str, port: u16) -> Result<Duration> {
    let began = Instant::now();
    api.delete_service(name).await?;
    until(swarm, port, Served::ByNone)?;
    Ok(began.elapsed())
}

/// Gives the service `web` these ports; the time until the last of them answers, or one that it had does not any more.
async fn republish(swarm: &Swarm, api: &Docker, ports: &[u16]) -> Result<Duration> {
    let service = api.inspect_service("web", None::<InspectServiceOptions>).await?;
    let version = service.version.and_then(|v| v.index).context("a version")?;
    let mut spec = service.spec.context("a spec")?;
    let endpoint = spec.endpoint_spec.as_mut().context("an endpoint")?;
    let had = endpoint.ports.replace(ports.iter().map(|port| published(*port)).collect()).unwrap_or_default();
    let lost = had.iter().filter_map(|p| u16::try_from(p.published_port?).ok()).find(|p| !ports.contains(p));
    let options = UpdateServiceOptionsBuilder::default().version(i32::try_from(version)?).build();
    let began = Instant::now();
    api.update_service("web", spec, options, None).await?;
    match lost {
        Some(lost) => until(swarm, lost, Served::ByNone)?,
        None => until(swarm, *ports.last().context("a port")?, Served::ByAll)?,
    }
    Ok(began.elapsed())
}

fn published(port: u16) -> EndpointPortConfig {
    EndpointPortConfig {
        protocol: Some(bollard::models::EndpointPortConfigProtocolEnum::TCP),
        target_port: Some(80),
        published_port: Some(port.into()),
        publish_mode: Some(EndpointPortConfigPublishModeEnum::INGRESS),
        ..EndpointPortConfig::default()
    }
}

fn web(name: &str, port: u16, replicas: u16) -> Result<ServiceSpec> {
    Ok(serde_json::from_value(json!({
        "Name": name,
        "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}},
        "Mode": {"Replicated": {"Replicas": replicas}},
        "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": port}]},
    }))?)
}

/// Asks all nodes from the client outside until all or none of them answer on the port.
fn until(swarm: &Swarm, port: u16, served: Served) -> Result<()> {
    let nodes: Vec<SocketAddr> = (1..=NODES).map(|n| SocketAddr::new(swarm.lab.address(n), port)).collect();
    let done = || {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let reached = match served {
                Served::ByAll => nodes.iter().all(|node| answers(*node)),
                Served::ByNone => !nodes.iter().any(|node| answers(*node)),
            };
            if reached {
                return true;
            }
            std::thread::sleep(LOOK);
        }
        false
    };
    ensure!(swarm.lab.run("client", done)?, "port {port}: waited {PATIENCE:?}\n{}", swarm.words());
    Ok(())
}

fn answers(node: SocketAddr) -> bool {
    let asked = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&node, Duration::from_millis(200))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /client HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200"))
    };
    asked().unwrap_or(false)
}

fn row(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
    let ms = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1000.0);
    println!("{what:<58} {:>9} {:>9} {:>9}", ms(median), ms(times[0]), ms(last));
}

/// What the daemons keep in memory.
fn weigh(swarm: &Swarm, with: &str) -> Result<()> {
    for node in 1..=NODES {
        let pid = swarm.lab.daemon_pid(node).context("a daemon")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("the kernel says so")?;
        let kib: u32 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        let what = format!("daemon of node{node}, {with}");
        println!("{what:<58} {:>6.1} MB", f64::from(kib) / 1024.0);
    }
    Ok(())
}
