//! Daemons come and go, hands meddle, strangers knock: the data plane stays what it should be, and leaves nothing when it goes.

mod lab;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lab::{Answer, Attach, CLIENT, Lab, Netns, ask_on, ask_tcp, ask_udp, eventually, ingress};
use skep_mesh::{Applied, Datapath, DropReason};
use skep_model::Protocol;

fn lab() -> Lab {
    lab_with(Attach::Best)
}

fn lab_with(attach: Attach) -> Lab {
    let mut lab = Lab::with(2, attach);
    lab.service(&[Protocol::Tcp, Protocol::Udp].map(|p| ingress(p, 8080, 80)), &[1]);
    lab
}

fn works(lab: &Lab) {
    for node in &lab.nodes {
        let answer = lab.client.run(|| ask_tcp(node.underlay, 8080));
        assert_eq!(answer.unwrap_or_else(|e| panic!("{}: {e}", node.underlay)).peer_ip(), CLIENT);
        assert_eq!(lab.client.run(|| ask_udp(node.underlay, 8080, 3000)).unwrap().peer_ip(), CLIENT);
    }
}

#[test]
fn applying_again_changes_nothing() {
    let mut lab = lab();
    for node in 0..2 {
        assert_eq!(lab.apply_on(node).unwrap(), Applied::default());
    }
}

#[test]
fn a_new_daemon_adopts_everything_under_traffic() {
    adopts_under_traffic(Attach::Best);
}

#[test]
fn a_new_daemon_adopts_everything_under_traffic_with_clsact() {
    adopts_under_traffic(Attach::Clsact);
}

/// Connections that are in use all the time, new ones, and daemons that end without a word and start again.
fn adopts_under_traffic(attach: Attach) {
    let mut lab = lab_with(attach);
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicU64::new(0));
    let to = lab.nodes[0].underlay;
    let stream = lab.client.run(|| std::net::TcpStream::connect((to, 8080))).unwrap();
    let talk = |mut request: Box<dyn FnMut() -> Answer + Send>| {
        let (stop, asked) = (stop.clone(), asked.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(request().peer_ip(), CLIENT);
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    let mut kept = stream;
    let old = std::thread::spawn(talk(Box::new(move || Answer::parse(&ask_on(&mut kept).unwrap()))));
    let (failed, watch) = std::sync::mpsc::channel::<()>();
    let mut new = talk(Box::new(move || ask_tcp(to, 8080).unwrap()));
    lab.client.spawn(move || {
        let _until_done = failed;
        new();
    });
    for _ in 0..3 {
        for node in 0..2 {
            lab.nodes[node].bpf = None;
            lab.nodes[node].start(attach);
            assert_eq!(lab.apply_on(node).unwrap(), Applied::default(), "nothing had to be made again");
        }
        let before = asked.load(Ordering::Relaxed);
        while asked.load(Ordering::Relaxed) < before + 20 && !old.is_finished() {
            std::thread::yield_now();
        }
    }
    assert!(watch.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected), "a new connection failed");
    stop.store(true, Ordering::Relaxed);
    old.join().expect("the old connection failed");
    works(&lab);
}

/// The names and kernel's numbers of the programs that are pinned.
fn programs(pins: &Path) -> BTreeMap<String, String> {
    let number = |pin: &Path| {
        let shown = bpftool(&format!("prog show pinned {}", pin.display()));
        shown.split(':').next().expect("a number").to_owned()
    };
    let pinned = fs::read_dir(pins.join("programs")).unwrap().map(|entry| entry.unwrap());
    pinned.map(|entry| (entry.file_name().into_string().unwrap(), number(&entry.path()))).collect()
}

#[test]
fn programs_of_the_same_build_are_loaded_once_and_others_replaced() {
    let mut lab = lab();
    let pins = lab.nodes[0].pins.clone();
    let first = programs(&pins);
    assert_eq!(first.len(), 5);
    lab.nodes[0].start(Attach::Best);
    assert_eq!(programs(&pins), first, "found, not loaded");
    assert_eq!(lab.apply_on(0).unwrap(), Applied::default());
    works(&lab);
    // As if the daemon before had been of another build, or had died between two pins.
    let one = pins.join("programs").join(first.keys().next().unwrap());
    fs::rename(&one, pins.join("programs").join("from_loopback-of-another")).unwrap();
    lab.nodes[0].start(Attach::Best);
    let second = programs(&pins);
    assert!(second.keys().eq(first.keys()), "{second:?}");
    assert!(second.iter().all(|(name, number)| first[name] != *number), "all of them are new: {second:?}");
    lab.apply();
    works(&lab);
}

#[test]
fn traffic_goes_on_without_a_daemon() {
    let mut lab = lab();
    for node in &mut lab.nodes {
        node.bpf = None;
    }
    works(&lab);
    for node in &mut lab.nodes {
        node.start(Attach::Best);
    }
}

#[test]
fn what_hands_have_broken_is_repaired() {
    is_repaired(Attach::Best);
}

#[test]
fn what_hands_have_broken_is_repaired_with_clsact() {
    is_repaired(Attach::Clsact);
}

fn is_repaired(attach: Attach) {
    let mut lab = lab_with(attach);
    let pins = lab.nodes[0].pins.clone();
    let map = |name: &str| format!("map delete pinned {}/{name} key", pins.display());
    // The frontend of TCP port 8080: port, protocol, padding.
    bpftool(&format!("{} hex 1f 90 06 00", map("frontends")));
    bpftool(&format!("{} 0 0 0 0 0 0 0 0 0 0 255 255 10 99 0 1", map("addresses")));
    let link = pins.join(format!("links/from_uplink-{}", lab.nodes[0].ns.ifindex("eth0")));
    fs::remove_file(link).unwrap();
    // A link that nobody holds any more goes a moment later; clsact has none.
    let is_there = || attach == Attach::Best && attached(&lab.nodes[0].ns, "eth0").contains("from_uplink");
    eventually("the kernel to let go of the program", || !is_there());
    let repaired = lab.apply_on(0).unwrap();
    assert_eq!(repaired, Applied { written: 2, attached: 1, ..Applied::default() });
    works(&lab);
    let link = pins.join(format!("links/from_overlay-{}", lab.nodes[0].ns.ifindex("skep-vx")));
    let detached = Command::new("bpftool").args(["link", "detach", "pinned"]).arg(link).status().unwrap();
    // With clsact there is no link, but a filter.
    if !detached.success() {
        assert!(lab.nodes[0].ns.command("tc filter del dev skep-vx ingress").status().unwrap().success());
    }
    assert_eq!(lab.apply_on(0).unwrap(), Applied { attached: 1, ..Applied::default() });
    works(&lab);
}

#[test]
fn devices_come_and_go() {
    let mut lab = lab();
    let service = lab.services[0].id.clone();
    let task = lab.task(&service, 0);
    assert_eq!(lab.apply_on(0).unwrap().attached, 1);
    lab.nodes[0].ns.ip(&format!("link del {}", lab.tasks[task].veth));
    lab.tasks.pop();
    assert_eq!(lab.apply_on(0).unwrap().detached, 1);
    lab.apply();
    works(&lab);
}

#[test]
fn leaving_leaves_nothing() {
    let mut lab = lab();
    works(&lab);
    let pins: Vec<_> = lab.nodes.iter().map(|n| n.pins.clone()).collect();
    for node in &mut lab.nodes {
        let bpf = node.bpf.take().unwrap();
        node.ns.run(|| bpf.close_and_remove()).unwrap();
        // The kernel detaches a program a moment after the last reference to its link is gone.
        for device in ["lo", "eth0", "skep-vx"] {
            eventually(&format!("nothing on {device}"), || !attached(&node.ns, device).contains("from_"));
        }
    }
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    for dir in pins {
        assert!(!dir.exists(), "{}", dir.display());
        assert!(!mounts.contains(dir.to_str().unwrap()), "{}", dir.display());
    }
    assert!(lab.client.run(|| ask_tcp(lab.nodes[0].underlay, 8080)).is_err());
}

#[test]
fn maps_of_another_layout_are_refused_while_in_use_and_replaced_when_not() {
    let mut lab = lab();
    let pins = lab.nodes[0].pins.clone();
    lab.nodes[0].bpf = None;
    let node = format!("pinned {}/node", pins.display());
    bpftool(&format!("map update {node} key 0 0 0 0 value {}", "99 ".to_owned() + &"0 ".repeat(47)));
    let again = lab.nodes[0].ns.run(|| skep_mesh::Bpf::open(&pins, skep_mesh::MapSizes::default()));
    let error = again.expect_err("refused").to_string();
    assert!(error.contains("have layout 99, this skep knows layout 4"), "{error}");
    for link in fs::read_dir(pins.join("links")).unwrap() {
        fs::remove_file(link.unwrap().path()).unwrap();
    }
    lab.nodes[0].start(Attach::Best);
    lab.apply();
    works(&lab);
}

#[test]
fn a_task_can_send_only_from_its_own_address() {
    let lab = lab();
    let task = &lab.tasks[0];
    task.ns.ip("addr add 10.0.1.77/32 dev eth0");
    let from = || std::net::UdpSocket::bind("10.0.1.77:0").unwrap();
    task.ns.run(|| from().send_to(b"hello", (lab.nodes[0].underlay, 8080)).unwrap());
    task.ns.run(|| from().send_to(b"hello", (CLIENT, 9)).unwrap());
    assert_eq!(lab.nodes[1].bpf().counters().unwrap().drops[&DropReason::Spoofed], 2);
}

#[test]
fn overlay_packets_of_strangers_are_dropped() {
    let mut lab = lab();
    lab.nodes[1].ns.ip(&format!("route add {CLIENT}/32 dev eth0 src {}", lab.nodes[1].underlay));
    works(&lab);
    // To the second node, the first one is a member no more.
    let mut desired = lab.desired(1);
    desired.members.retain(|m| m.node == lab.nodes[1].id);
    let tables = skep_mesh::compile(&desired);
    let lab::Node { ns, bpf, .. } = &mut lab.nodes[1];
    ns.run(|| bpf.as_mut().unwrap().apply(&tables)).unwrap();
    let to = lab.nodes[0].underlay;
    let stranger = || std::net::TcpStream::connect_timeout(&(to, 8080).into(), std::time::Duration::from_millis(300));
    assert!(lab.client.run(stranger).is_err());
    assert!(lab.nodes[1].bpf().counters().unwrap().drops[&DropReason::NotAMember] > 0);
}

fn attached(ns: &Netns, device: &str) -> String {
    let shown = ns.command(&format!("bpftool net show dev {device}")).output().unwrap();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    String::from_utf8(shown.stdout).unwrap()
}

fn bpftool(words: &str) -> String {
    let output = Command::new("bpftool").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "bpftool {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
