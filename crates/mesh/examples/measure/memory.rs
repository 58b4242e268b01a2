//! How much of the kernel's memory the maps take: empty, with ten thousand services, with a million flows.

mod kernel;

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use skep_mesh::{Bpf, Datapath, Desired, MapSizes, compile};

use crate::lab::Netns;
use crate::skep::{FIRST_PORT, publish_more};
use crate::tables::grouped;

/// Flows that are opened, to so many services.
const MILLION: u32 = 1_000_000;
const SERVICES: u16 = 100;

/// What the maps of one node take.
pub(crate) struct Memory {
    /// In words.
    pub(crate) what: String,
    /// All maps.
    pub(crate) bytes: u64,
    /// The table of flows.
    pub(crate) flows: u64,
}

/// Of a node like this one, in a namespace apart, with programs that are attached nowhere.
pub(crate) fn measure(desired: &Desired, dir: &Path) -> Vec<Memory> {
    let ns = Netns::new("memory");
    let mut found = Vec::new();
    for services in [1, 10_000] {
        let what = format!("{} service{}", grouped(services.into(), 0), if services == 1 { "" } else { "s" });
        let mut desired = desired.clone();
        publish_more(&mut desired, services - 1);
        found.push(with_node(&ns, dir, MapSizes::default(), &desired, |_| what));
    }
    let room = MapSizes::default().flows.max(MILLION + MILLION / 20);
    let mut desired = desired.clone();
    publish_more(&mut desired, SERVICES);
    let asked = desired.node.underlay;
    let fill = |bpf: &Bpf| open_flows(bpf, asked);
    found.push(with_node(&ns, dir, MapSizes { flows: room, ..MapSizes::default() }, &desired, fill));
    found
}

/// A node that is brought to what it should be, and what its maps take after `work`, which says what it has done.
fn with_node(
    ns: &Netns,
    dir: &Path,
    sizes: MapSizes,
    desired: &Desired,
    work: impl FnOnce(&Bpf) -> String + Send,
) -> Memory {
    let mut tables = compile(desired);
    tables.hooks.clear();
    let pins = dir.join("memory");
    ns.run(|| {
        let mut bpf = Bpf::open(&pins, sizes).unwrap();
        bpf.apply(&tables).unwrap();
        let what = work(&bpf);
        let memory = Memory { what, bytes: kernel::pinned(&pins), flows: kernel::one(&pins.join("flows")) };
        Box::new(bpf).close_and_remove().unwrap();
        memory
    })
}

/// Opens them for real: a SYN each, through the program that clients' packets come to. Returns what came of it, in words.
///
/// Packets that the kernel is given in this way seem to come from the node itself, so a task sees one address for all of them: no more flows
/// to one task than there are ports.
fn open_flows(bpf: &Bpf, to: IpAddr) -> String {
    let IpAddr::V4(to) = to else { panic!("the lab's underlay is IPv4") };
    let from = Ipv4Addr::new(172, 16, 0, 1);
    for port in 0..u16::try_from(MILLION / u32::from(SERVICES)).unwrap() {
        for service in 0..SERVICES {
            bpf.test_run("from_uplink", &syn(from, 10_000 + port, to, FIRST_PORT + service)).unwrap();
        }
    }
    let opened: u64 = bpf.counters().unwrap().ports.values().map(|traffic| traffic.flows).sum();
    assert!(opened > u64::from(MILLION) * 99 / 100, "only {opened} flows were opened");
    let count = |number: u64| grouped(number as f64, 0);
    let usage = bpf.flow_table().unwrap().usage().unwrap();
    format!("{} flows opened, {} of {} entries in use", count(opened), count(usage.used), count(usage.room))
}

/// An Ethernet frame with a SYN. Its TCP checksum is nobody's concern: no task will see it.
fn syn(from: Ipv4Addr, port: u16, to: Ipv4Addr, published: u16) -> [u8; 54] {
    let mut frame = [0; 54];
    frame[12] = 8;
    let ip = &mut frame[14..34];
    ip[0] = 0x45;
    ip[3] = 40;
    ip[8] = 64;
    ip[9] = 6;
    ip[12..16].copy_from_slice(&from.octets());
    ip[16..20].copy_from_slice(&to.octets());
    let mut sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    sum = (sum & 0xffff) + (sum >> 16);
    let check = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let tcp = &mut frame[34..];
    tcp[..2].copy_from_slice(&port.to_be_bytes());
    tcp[2..4].copy_from_slice(&published.to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = 2;
    frame
}
