//! What the kernel has counted, and which flows it knows.

use std::collections::BTreeMap;

use skep_model::{Protocol, TaskId};

use super::layout::{self, BACKEND_GONE, FLOW_RESET, FLOW_REVERSE, Flow, FlowKey, OUT_TASK, PATH_TASK};
use super::maps::{Maps, in_map};
use crate::datapath::{Counters, DatapathError, DropReason, Traffic};
use crate::maglev;
use crate::table::{BackendKey, Place};

/// A UDP flow without a packet for this long, in the kernel's ticks of 2^20 ns, is not in use.
const UDP_IDLE: u32 = 5 * 954;

/// Whose entry of `backends` each is, as the last apply left it, and whether it runs here.
pub(super) type Owners = BTreeMap<u32, (BackendKey, Place)>;

pub(super) fn counters(maps: &Maps, owners: &Owners) -> Result<Counters, DatapathError> {
    let mut counters = Counters::default();
    for (slot, (key, place)) in owners {
        let traffic = traffic(maps, *slot)?;
        if matches!(place, Place::Here { .. }) {
            add(counters.tasks.entry(key.task.clone()).or_default(), &traffic);
        }
        if let Some(frontend) = key.frontend {
            add(counters.ports.entry(frontend).or_default(), &traffic);
            add(counters.backends.entry(key.task.clone()).or_default(), &traffic);
        }
    }
    for &reason in DropReason::ALL {
        let per_cpu = maps.drops.get(&reason.number(), 0).map_err(in_map("drops"))?;
        counters.drops.insert(reason, per_cpu.iter().sum());
    }
    Ok(counters)
}

fn traffic(maps: &Maps, slot: u32) -> Result<Traffic, DatapathError> {
    let mut sum = Traffic::default();
    for cpu in maps.counters.get(&slot, 0).map_err(in_map("counters"))?.iter() {
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
    let name = maglev::hash(task.as_str(), 0);
    let entries = maps.backends()?;
    let ours = |flow: &Flow| {
        let entry = entries.get(flow.slot as usize);
        entry.is_some_and(|e| e.task == name && e.generation == flow.generation && e.state != BACKEND_GONE)
    };
    let now = ticks();
    let mut open = 0;
    for (key, flow) in maps.flows.iter().flatten() {
        if flow.out == OUT_TASK && flow.flags & FLOW_REVERSE == 0 && ours(&flow) && is_open(maps, &key, &flow, now) {
            open += 1;
        }
    }
    Ok(open)
}

fn is_open(maps: &Maps, key: &FlowKey, flow: &Flow, now: u32) -> bool {
    if key.proto != Protocol::Tcp.number() {
        return now.wrapping_sub(flow.seen) < UDP_IDLE;
    }
    let answer = FlowKey {
        saddr: flow.daddr,
        daddr: flow.saddr,
        sport: flow.dport,
        dport: flow.sport,
        origin: flow.ifindex.to_ne_bytes(),
        proto: key.proto,
        path: PATH_TASK,
        pad: 0,
    };
    let ended = |flow: &Flow| flow.closing != 0;
    let reset = |flow: &Flow| flow.flags & FLOW_RESET != 0;
    match maps.flows.get(&answer, 0) {
        Ok(answer) => !(reset(flow) || reset(&answer) || ended(flow) && ended(&answer)),
        Err(_) => !(reset(flow) || ended(flow)),
    }
}

/// The kernel's clock as the programs read it.
fn ticks() -> u32 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of our own, which the call fills in; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    ((now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()) >> 20) as u32
}
