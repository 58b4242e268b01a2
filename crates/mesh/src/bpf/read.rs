//! What the kernel has counted, and which flows it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use skep_model::{EndpointKey, Protocol, TaskId};

use super::encode;
use super::layout::{
    self, BACKEND_GONE, FLOW_ANSWERED, FLOW_CHANGED, FLOW_CLIENT_FIN, FLOW_RESET, FLOW_TASK_FIN, FlowKey, KIND_ASKED,
    KIND_SERVED, NO_PORT, OUT_DIRECT, OUT_TUNNEL,
};
use super::maps::{Maps, in_map};
use super::slots;
use crate::datapath::{Counters, DatapathError, DropReason, Event, Traffic};
use crate::flow::{Flow, FlowRole, FlowState, FlowTable, Usage};
use crate::table::{FrontendKey, Place, Tables};

/// A UDP flow without a packet for this long, in the kernel's ticks of 2^20 ns, is not in use.
const UDP_IDLE: u32 = 5 * 954;
/// As many as `bpf/maps.h` has room for.
const VIPS: u32 = 65_536;
const NETWORKS: u32 = 65_536;
/// For how long who did not answer is passed over.
const SUSPICION: u32 = 10 * 954;

/// Whose entries of `backends` and `port_counters` are which, as the last apply left them. A task has one on each of its networks.
#[derive(Clone, Default)]
pub(super) struct Owners {
    tasks: BTreeMap<u32, (TaskId, Place)>,
    ports: BTreeMap<u32, FrontendKey>,
}

impl Owners {
    pub(super) fn new(
        slots: &BTreeMap<EndpointKey, u16>,
        frontends: &BTreeMap<layout::FrontendKey, layout::Frontend>,
        tables: &Tables,
    ) -> Self {
        let task = |(key, slot): (&EndpointKey, &u16)| {
            tables.backends.get(key).map(|backend| (u32::from(*slot), (key.task.clone(), backend.place)))
        };
        let port = |(key, frontend): (&layout::FrontendKey, &layout::Frontend)| {
            encode::decode_key(*key).map(|key| (frontend.number, key))
        };
        Self { tasks: slots.iter().filter_map(task).collect(), ports: frontends.iter().filter_map(port).collect() }
    }
}

pub(super) fn counters(maps: &Maps, owners: &Owners) -> Result<Counters, DatapathError> {
    let mut counters = Counters::default();
    for (&slot, (task, place)) in &owners.tasks {
        let asked = traffic(&maps.counters, "counters", slot * 2)?;
        if matches!(place, Place::Here { .. }) {
            let mut all = asked;
            add(&mut all, &traffic(&maps.counters, "counters", slot * 2 + 1)?);
            add(counters.tasks.entry(task.clone()).or_default(), &all);
        }
        add(counters.backends.entry(task.clone()).or_default(), &asked);
    }
    for (&number, &key) in &owners.ports {
        counters.ports.insert(key, traffic(&maps.port_counters, "port_counters", number)?);
    }
    for &reason in DropReason::ALL {
        let per_cpu = maps.drops.get(&reason.number(), 0).map_err(in_map("drops"))?;
        counters.drops.insert(reason, per_cpu.iter().sum());
    }
    for &event in Event::ALL {
        let per_cpu = maps.events.get(&event.number(), 0).map_err(in_map("events"))?;
        counters.events.insert(event, per_cpu.iter().sum());
    }
    Ok(counters)
}

fn traffic(
    map: &PerCpuArray<MapData, layout::Traffic>,
    name: &'static str,
    index: u32,
) -> Result<Traffic, DatapathError> {
    let mut sum = Traffic::default();
    for cpu in map.get(&index, 0).map_err(in_map(name))?.iter() {
        let layout::Traffic { flows, packets_in, bytes_in, packets_out, bytes_out } = *cpu;
        add(&mut sum, &Traffic { flows, packets_in, bytes_in, packets_out, bytes_out });
    }
    Ok(sum)
}

fn add(sum: &mut Traffic, more: &Traffic) {
    sum.flows += more.flows;
    sum.packets_in += more.packets_in;
    sum.bytes_in += more.bytes_in;
    sum.packets_out += more.packets_out;
    sum.bytes_out += more.bytes_out;
}

/// The table of flows by a handle of its own.
pub(super) struct Flows {
    map: HashMap<MapData, FlowKey, layout::Flow>,
    room: u32,
    entries: Vec<layout::Backend>,
    owners: Owners,
}

impl Flows {
    pub(super) fn open(pins: &Path, entries: Vec<layout::Backend>, owners: Owners) -> Result<Self, DatapathError> {
        let data = MapData::from_pin(pins.join("flows")).map_err(in_map("flows"))?;
        let room = data.info().map_err(in_map("flows"))?.max_entries();
        let map = Map::from_map_data(data).and_then(HashMap::try_from).map_err(in_map("flows"))?;
        Ok(Self { map, room, entries, owners })
    }

    /// The task's entry, unless it has another owner by now.
    fn current(&self, flow: &layout::Flow) -> Option<&layout::Backend> {
        self.entries.get(flow.slot as usize).filter(|entry| entry.generation == flow.generation)
    }

    fn describe(&self, key: &FlowKey, flow: &layout::Flow, now: u32) -> Option<Flow> {
        let owner = self.current(flow).and_then(|_| self.owners.tasks.get(&flow.slot));
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == key.proto)?;
        let (role, client, asked) = ends(key, flow)?;
        Some(Flow {
            protocol,
            client,
            asked,
            vip: u32::from(flow.frontend) == NO_PORT,
            task: owner.map(|(task, _)| task.clone()),
            place: owner.map(|(_, place)| *place),
            role,
            state: state(flow),
            idle: since(flow.seen, now),
        })
    }
}

impl FlowTable for Flows {
    /// All that begin or end at this node, each once.
    fn flows(&self) -> Result<Vec<Flow>, DatapathError> {
        let now = ticks();
        Ok(self.map.iter().flatten().filter_map(|(key, flow)| self.describe(&key, &flow, now)).collect())
    }

    fn open_flows(&self, task: &TaskId) -> Result<u64, DatapathError> {
        let (name, now) = (slots::name(task), ticks());
        let served = self.map.iter().flatten().filter(|(key, _)| key.kind == KIND_SERVED);
        let ours = |flow: &layout::Flow| self.current(flow).is_some_and(|e| e.task == name && e.state != BACKEND_GONE);
        Ok(served.filter(|(key, flow)| ours(flow) && is_open(key, flow, now)).count() as u64)
    }

    fn usage(&self) -> Result<Usage, DatapathError> {
        Ok(Usage { table: "flows", used: self.map.keys().count() as u64, room: self.room.into() })
    }
}

fn is_open(key: &FlowKey, flow: &layout::Flow, now: u32) -> bool {
    if key.proto == Protocol::Udp.number() {
        return now.wrapping_sub(flow.seen) < UDP_IDLE;
    }
    state(flow) != FlowState::Closed
}

fn state(flow: &layout::Flow) -> FlowState {
    let ends = flow.flags & (FLOW_CLIENT_FIN | FLOW_TASK_FIN);
    match flow.flags {
        flags if flags & FLOW_RESET != 0 || ends == FLOW_CLIENT_FIN | FLOW_TASK_FIN => FlowState::Closed,
        _ if ends != 0 => FlowState::Closing,
        flags if flags & FLOW_ANSWERED != 0 => FlowState::Open,
        _ => FlowState::Opening,
    }
}

/// What the node does for a flow, its client, and what that asked; nothing for entries that only help another one.
fn ends(key: &FlowKey, flow: &layout::Flow) -> Option<(FlowRole, SocketAddr, SocketAddr)> {
    let socket = |addr: layout::Addr, port: [u8; 2]| SocketAddr::new(IpAddr::from(addr), u16::from_be_bytes(port));
    let tunneled = flow.out == OUT_TUNNEL || flow.out == OUT_DIRECT;
    match key.kind {
        KIND_ASKED if !tunneled => Some((FlowRole::Asked, socket(key.saddr, key.sport), socket(key.daddr, key.dport))),
        KIND_SERVED if tunneled => {
            // A task that asked itself by a detour is seen changed.
            let client = if flow.flags & FLOW_CHANGED != 0 { key.saddr } else { key.daddr };
            Some((FlowRole::Served, socket(client, flow.port), socket(flow.far, flow.far_port)))
        }
        _ => None,
    }
}

/// How full the other tables are that can fill up.
pub(super) fn usage(maps: &Maps) -> Result<Vec<Usage>, DatapathError> {
    let used = |table, used: usize, room: u32| Usage { table, used: used as u64, room: u64::from(room) };
    let backends = maps.backends()?.iter().filter(|entry| entry.state != BACKEND_GONE).count();
    Ok(vec![
        used("frontends", maps.frontends.keys().count(), maps.port_counters.len()),
        used("backends", backends, maps.backends.len()),
        used("vips", maps.vips.keys().count(), VIPS),
        used("networks", maps.networks.keys().count(), NETWORKS),
    ])
}

/// Members for whose clients a probe has come back, and how long ago.
pub(super) fn proofs(maps: &Maps) -> Result<BTreeMap<IpAddr, Duration>, DatapathError> {
    let now = ticks();
    let age = |(member, then): (layout::Addr, u32)| (IpAddr::from(member), since(then, now));
    maps.proofs.iter().map(|entry| entry.map(age)).collect::<Result<_, _>>().map_err(in_map("proofs"))
}

/// As `is_suspected` of the programs.
pub(super) fn passed_over(maps: &Maps, owners: &Owners) -> Result<BTreeSet<TaskId>, DatapathError> {
    let now = ticks();
    let is_recent = |then: u32| then != 0 && now.wrapping_sub(then) < SUSPICION;
    let mut found = BTreeSet::new();
    for (&slot, (task, place)) in &owners.tasks {
        let mut suspected = is_recent(maps.suspects.get(&slot, 0).map_err(in_map("suspects"))?);
        if let Place::There(_) = place {
            let peer = maps.backends.get(&slot, 0).map_err(in_map("backends"))?.peer;
            suspected |= is_recent(maps.peers.get(&peer, 0).map_err(in_map("peers"))?.suspected);
        }
        if suspected {
            found.insert(task.clone());
        }
    }
    Ok(found)
}

fn since(then: u32, now: u32) -> Duration {
    Duration::from_nanos(u64::from(now.wrapping_sub(then)) << 20)
}

/// The kernel's clock as the programs read it.
fn ticks() -> u32 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own, which the call fills in; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    ((now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()) >> 20) as u32
}
