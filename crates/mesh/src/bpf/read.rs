//! What the kernel has counted, and which flows it knows.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aya::maps::{MapData, PerCpuArray};
use skep_model::{Protocol, TaskId};

use super::encode;
use super::layout::{
    self, BACKEND_GONE, FLOW_ANSWERED, FLOW_CHANGED, FLOW_CLIENT_FIN, FLOW_RESET, FLOW_TASK_FIN, FlowKey, KIND_ASKED,
    KIND_SERVED, OUT_DIRECT, OUT_TUNNEL,
};
use super::maps::{Maps, in_map};
use super::slots;
use crate::datapath::{Counters, DatapathError, DropReason, Event, Traffic};
use crate::flow::{Flow, FlowRole, FlowState, Usage};
use crate::table::{FrontendKey, Place, Tables};

/// A UDP flow without a packet for this long, in the kernel's ticks of 2^20 ns, is not in use.
const UDP_IDLE: u32 = 5 * 954;

/// Whose entries of `backends` and `port_counters` are which, as the last apply left them.
#[derive(Default)]
pub(super) struct Owners {
    tasks: BTreeMap<u32, (TaskId, Place)>,
    ports: BTreeMap<u32, FrontendKey>,
}

impl Owners {
    pub(super) fn new(
        slots: &BTreeMap<TaskId, u16>,
        frontends: &BTreeMap<layout::FrontendKey, layout::Frontend>,
        tables: &Tables,
    ) -> Self {
        let task = |(task, slot): (&TaskId, &u16)| {
            tables.backends.get(task).map(|backend| (u32::from(*slot), (task.clone(), backend.place)))
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
            counters.tasks.insert(task.clone(), all);
        }
        counters.backends.insert(task.clone(), asked);
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

/// Counts the flows that end in the task and have not ended. The table changes while it is read; that may cost an entry.
pub(super) fn open_flows(maps: &Maps, task: &TaskId) -> Result<u64, DatapathError> {
    let entries = maps.backends()?;
    let name = slots::name(task);
    let now = ticks();
    let mut open = 0;
    for (key, flow) in maps.flows.iter().flatten().filter(|(key, _)| key.kind == KIND_SERVED) {
        let entry = entries.get(flow.slot as usize);
        let ours = entry.is_some_and(|e| e.task == name && e.generation == flow.generation && e.state != BACKEND_GONE);
        if ours && is_open(&key, &flow, now) {
            open += 1;
        }
    }
    Ok(open)
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

/// All flows that begin or end at this node, each once.
pub(super) fn flows(maps: &Maps, owners: &Owners) -> Result<Vec<Flow>, DatapathError> {
    let generations: Vec<u32> = maps.backends()?.iter().map(|entry| entry.generation).collect();
    let now = ticks();
    let describe = |(key, flow): (FlowKey, layout::Flow)| {
        let current = generations.get(flow.slot as usize) == Some(&flow.generation);
        let owner = owners.tasks.get(&flow.slot).filter(|_| current);
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| p.number() == key.proto)?;
        let (role, client, asked) = ends(&key, &flow)?;
        Some(Flow {
            protocol,
            client,
            asked,
            task: owner.map(|(task, _)| task.clone()),
            place: owner.map(|(_, place)| *place),
            role,
            state: state(&flow),
            idle: Duration::from_nanos(u64::from(now.wrapping_sub(flow.seen)) << 20),
        })
    };
    Ok(maps.flows.iter().flatten().filter_map(describe).collect())
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

/// How full the tables are that can fill up.
pub(super) fn usage(maps: &Maps) -> Result<Vec<Usage>, DatapathError> {
    let used = |table, used: usize, room: u32| Usage { table, used: used as u64, room: u64::from(room) };
    let backends = maps.backends()?.iter().filter(|entry| entry.state != BACKEND_GONE).count();
    Ok(vec![
        used("flows", maps.flows.keys().count(), maps.flows_room),
        used("frontends", maps.frontends.keys().count(), maps.port_counters.len()),
        used("backends", backends, maps.backends.len()),
    ])
}

/// The kernel's clock as the programs read it.
fn ticks() -> u32 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own, which the call fills in; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    ((now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()) >> 20) as u32
}
