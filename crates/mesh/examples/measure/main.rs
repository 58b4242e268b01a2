//! Measures the mesh beside its rivals, on namespaces of this machine (root): `cargo xtask bench mesh`.
//!
//! Everything takes turns in every round, so that whatever else the machine does hits all of it; medians are shown, and the lowest and
//! highest round. `plain` has the ways without skep, `skep` those with it, `paths` what is measured on both, `talks` the ways between tasks; `services`, `others` and
//! `memory` ask what many services cost, what traffic pays that is not skep's, and what the kernel sets aside; `tables`, `svg` and
//! `report` show it. `direct`, a client that asks the task's own address by plain routing, is what the others are compared with.

mod datagrams;
mod figures;
#[path = "../../tests/lab/mod.rs"]
mod lab;
mod memory;
mod others;
mod paced;
mod paths;
mod plain;
mod programs;
mod report;
mod services;
mod skep;
mod svg;
mod tables;
mod talks;
mod tools;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use skep_mesh::{Datapath as _, MapSizes};

use figures::Samples;
use lab::{Attach, Lab};
use others::Others;
use paths::Effort;
use plain::Plain;
use report::Report;
use services::Published;
use skep::{Reply, Swarm};
use talks::Talks;

#[derive(Parser)]
#[command(about = "Measures the mesh beside its rivals")]
struct Args {
    /// How often each figure is taken
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds for each figure in each round
    #[arg(long, default_value_t = 1)]
    seconds: u64,
    /// Requests per second where latency is taken at a fixed rate
    #[arg(long, default_value_t = 10_000)]
    rate: u32,
    /// Only these parts
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Only paths with this in their names; everything by default
    #[arg(long, value_name = "WORDS", value_delimiter = ',')]
    paths: Vec<String>,
    /// On each path, requests and connections alone
    #[arg(long)]
    requests: bool,
    /// Write the results into this page, and the picture beside it
    #[arg(long, value_name = "PAGE")]
    write: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Each path's requests, connections, latency, bulk and datagrams
    Paths,
    /// The same path with 1, 1,000 and 10,000 services
    Services,
    /// Traffic that is not skep's, without skep and with
    Others,
    /// The kernel's memory
    Memory,
    /// Between tasks of two nodes; only when it is asked for, and then a section of its own
    Talks,
}

fn main() {
    let args = Args::parse();
    let start = Instant::now();
    let wants = |part| args.only.is_empty() || args.only.contains(&part);
    let effort = Effort { seconds: args.seconds, rate: args.rate };
    let mut samples = Samples::default();
    if args.only == [Part::Talks] {
        return measure_talks(&args, start);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut lab = Lab::sized(8, Attach::Best, MapSizes::default());
    let swarm = Swarm::new(&mut lab, 0, 1);
    if wants(Part::Services) {
        let published = Published::all(&mut lab, 2);
        for round in 1..=args.rounds {
            eprintln!("services: round {round} of {}", args.rounds);
            published.iter().for_each(|p| p.measure(&lab, effort, &mut samples));
        }
    }
    swarm.apply(&mut lab);
    if wants(Part::Paths) {
        measure_paths(&args, &mut lab, &swarm, dir.path(), &mut samples);
    }
    if wants(Part::Others) {
        let plain = others::plain_node(&lab);
        let others = Others::new(&lab, &plain, swarm.asked);
        for round in 1..=args.rounds {
            eprintln!("others' traffic: round {round} of {}", args.rounds);
            others.measure(effort, &mut samples);
        }
    }
    let memory =
        if wants(Part::Memory) { memory::measure(&swarm.desired(&lab, swarm.asked), dir.path()) } else { vec![] };
    show_drops(&lab);
    let report = Report { args: &args, samples, memory, took: start.elapsed() };
    println!("{}", report.markdown(None));
    if let Some(page) = &args.write {
        report.write(page);
    }
}

/// In a lab of its own: nothing else is published there.
fn measure_talks(args: &Args, start: Instant) {
    let mut samples = Samples::default();
    let mut lab = Lab::sized(2, Attach::Best, MapSizes::default());
    let talks = Talks::new(&mut lab);
    for round in 1..=args.rounds {
        eprintln!("between tasks: round {round} of {}", args.rounds);
        talks.measure(Effort { seconds: args.seconds, rate: args.rate }, &mut samples);
    }
    show_drops(&lab);
    let report = Report { args, samples, memory: vec![], took: start.elapsed() };
    println!("{}", report.markdown(None));
    if let Some(page) = &args.write {
        report.write_talks(page);
    }
}

fn measure_paths(args: &Args, lab: &mut Lab, swarm: &Swarm, dir: &Path, samples: &mut Samples) {
    let effort = Effort { seconds: args.seconds, rate: args.rate };
    let plain = Plain::new(lab, dir);
    let server = swarm.server(lab);
    let remote = swarm.path(lab, skep::REMOTE, swarm.asked, &server, 101);
    let local = swarm.path(lab, skep::LOCAL, swarm.owner, &server, 102);
    swarm.set_reply(lab, Reply::Owner);
    let direct_reply = swarm.path(lab, skep::REPLY_DIRECT, swarm.asked, &server, 103);
    swarm.set_reply(lab, Reply::Asked);
    let wanted = |path: &paths::Path| args.paths.is_empty() || args.paths.iter().any(|word| path.name.contains(word));
    let measure = |path: &paths::Path, samples: &mut Samples| match (wanted(path), args.requests) {
        (true, true) => path.measure_requests(effort, samples),
        (true, false) => path.measure(effort, samples),
        (false, _) => (),
    };
    for round in 1..=args.rounds {
        eprintln!("paths: round {round} of {}", args.rounds);
        plain.paths.iter().chain([&remote, &local]).for_each(|path| measure(path, samples));
        swarm.set_reply(lab, Reply::Owner);
        measure(&direct_reply, samples);
        swarm.set_reply(lab, Reply::Asked);
    }
}

/// What the data planes have not passed on should be next to nothing.
fn show_drops(lab: &Lab) {
    for node in &lab.nodes {
        let mut drops = node.bpf().counters().unwrap().drops;
        drops.retain(|_, count| *count > 0);
        if !drops.is_empty() {
            eprintln!("{} dropped {drops:?}", node.underlay);
        }
    }
}
