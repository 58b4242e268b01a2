//! How long a task waits for the answer to a question for a name: part of `cargo xtask bench networks` (root; a minute and a half).
//!
//! One task of a node asks [`RATE`] questions a second for [`SECONDS`], each when it is due, whatever became of those before; names of services and of
//! their tasks in turns.

use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use skep_e2e::{Swarm, busybox};

/// Questions a second.
const RATE: u32 = 1_000;
/// For so long. All questions together have numbers of their own.
const SECONDS: u32 = 60;
const QUESTIONS: usize = (RATE * SECONDS) as usize;
/// Services on the network, with this many tasks each.
const SERVICES: usize = 20;
const TASKS: usize = 2;
/// What has no answer by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);

fn main() {
    let swarm = Swarm::managed("names-bench", 1, 1);
    swarm.load(&busybox());
    swarm.must(1, &["network", "create", "-d", "overlay", "app"]);
    let names: Vec<_> = (0..SERVICES).map(|n| format!("s{n}")).collect();
    for name in &names {
        let create = ["service", "create", "-d", "--no-resolve-image", "--network", "app", "--replicas"];
        swarm.must(1, &[&create[..], &[&TASKS.to_string(), "--name", name, "box"]].concat());
    }
    for name in &names {
        swarm.until("all tasks", || swarm.running(name).len() == TASKS);
    }
    let inside = File::open(swarm.namespace(1, &names[0])).expect("its namespace");
    let asked: Vec<_> = names.iter().flat_map(|name| [name.clone(), format!("tasks.{name}")]).collect();
    let asking = thread::spawn(move || {
        setns(inside, CloneFlags::CLONE_NEWNET).expect("into the namespace");
        ask(&asked)
    });
    let mut waited = asking.join().expect("all was asked");
    let lost = QUESTIONS - waited.len();
    waited.sort_unstable();
    let at = |share: usize| waited[(waited.len() - 1) * share / 1000].as_secs_f64() * 1e6;
    println!("\n| questions | answered | lost | p50 | p99 | p99.9 |\n|---|---|---|---|---|---|");
    println!(
        "| {RATE} a second for {SECONDS} s | {} | {lost} | **{:.0} µs** | **{:.0} µs** | {:.0} µs |",
        waited.len(),
        at(500),
        at(990),
        at(999)
    );
}

/// Asks when it is time to; how long each answer took.
fn ask(names: &[String]) -> Vec<Duration> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
    socket.connect((Ipv4Addr::new(127, 0, 0, 11), 53)).expect("the resolver");
    socket.set_read_timeout(Some(PATIENCE)).expect("set");
    let hearing = socket.try_clone().expect("a copy");
    let asked = Arc::new(AtomicBool::new(false));
    let all_asked = asked.clone();
    let heard = thread::spawn(move || hear(&hearing, &all_asked));
    let (began, gap) = (Instant::now(), Duration::from_secs(1) / RATE);
    let mut due = Vec::with_capacity(QUESTIONS);
    for (number, name) in (0..QUESTIONS).zip(names.iter().cycle()) {
        let time = began + gap * u32::try_from(number).expect("few enough");
        thread::sleep(time.saturating_duration_since(Instant::now()));
        due.push(time);
        // A full buffer loses it; that counts as lost.
        let _ = socket.send(&question(number, name));
    }
    asked.store(true, Ordering::Relaxed);
    let heard = heard.join().expect("all was heard");
    heard.into_iter().map(|(number, time)| time.saturating_duration_since(due[number])).collect()
}

/// The numbers of answers with records, and when each came: until nothing comes any more once all was asked.
fn hear(socket: &UdpSocket, all_asked: &AtomicBool) -> Vec<(usize, Instant)> {
    let (mut heard, mut reply) = (Vec::with_capacity(QUESTIONS), [0; 512]);
    while heard.len() < QUESTIONS {
        let Ok(length) = socket.recv(&mut reply) else {
            if all_asked.load(Ordering::Relaxed) {
                break;
            }
            continue;
        };
        // A reply without an error, and with at least one record.
        if length > 12 && reply[3] & 0x0f == 0 && reply[6..8] != [0, 0] {
            heard.push((u16::from_be_bytes([reply[0], reply[1]]).into(), Instant::now()));
        }
    }
    heard
}

/// A question for IPv4 addresses (RFC 1035, 4.1).
fn question(number: usize, name: &str) -> Vec<u8> {
    let id = u16::try_from(number).expect("few enough").to_be_bytes();
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a label"));
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}
