//! The data plane in the kernel.
//!
//! Division of labour: `pins` (what outlives the daemon), `programs` (loaded or found), `links` (programs on devices), `layout` (bytes in maps), `slots` (numbers of
//! backends, pure), `encode` (from tables to bytes, pure), `update` (what one apply writes, and the order in which nothing ever refers to what is not there
//! yet, or not there any more; pure), `maps` (from what a map holds to what it should hold), `read` (counters and flows), `traces` (what is in the kernel).

mod check;
mod encode;
mod layout;
mod links;
mod maps;
mod pins;
mod programs;
mod read;
mod slots;
pub mod traces;
mod update;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use skep_model::TaskId;

use self::layout::{LAYOUT, Node};
use self::links::{Attachment, Links, say};
use self::maps::{Maps, in_map};
use self::pins::Pins;
use self::programs::Programs;
use self::read::Owners;
use self::update::{ORDER, Update};
use crate::datapath::{Applied, Counters, Datapath, DatapathError};
use crate::flow::{FlowTable, Usage};
use crate::table::Tables;

pub use check::check_kernel;

/// Network identifier of overlay packets on their way to a task ("sk" and a number).
pub const FORWARD_VNI: u32 = 0x73_6b01;
/// Network identifier of overlay packets on their way back to the node that the client asked.
pub const REPLY_VNI: u32 = 0x73_6b02;
/// Network identifier of packets that an owner passed on because its own task takes no new flows; never passed on again.
pub const SECOND_CHANCE_VNI: u32 = 0x73_6b03;

/// Network identifier of packets from one task to another.
pub const DIRECT_VNI: u32 = 0x73_6b04;

/// Where probes go that prove a node able to answer another's clients (`bpf/probe.h`): UDP from the other node's underlay address to the
/// same address, from and to this port, with the prober's own underlay address as payload (16 bytes, IPv4 ones mapped).
pub const PROBE_PORT: u16 = 7946;

/// How much fits, and thereby how much memory the kernel sets aside for one node: with the defaults about 200 MB, and 11 MB more for
/// each CPU. Maps that an earlier daemon left keep the sizes that it gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSizes {
    /// Flows: one for each connection that this node was asked for, and one for each that its tasks have; about 176 bytes each, set aside
    /// at once. When full, the longest unused ones make room.
    pub flows: u32,
    /// Published ports, about 100 bytes each while in use; and the services behind them and on the networks of this node's tasks, 4 KiB each.
    pub frontends: u32,
    /// Tasks on their networks: those behind published ports, and those that tasks of this node may talk to; 60 bytes each and 80 more per
    /// CPU. At most 65,535.
    pub backends: u16,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self { flows: 1 << 20, frontends: 16_384, backends: u16::MAX }
    }
}

impl MapSizes {
    /// The default, or less on a machine with less memory (in bytes): flows take a sixty-fourth of it at most.
    #[must_use]
    pub fn for_memory(bytes: u64) -> Self {
        let flows = u32::try_from(bytes / 64 / 176).unwrap_or(u32::MAX);
        Self { flows: flows.clamp(1 << 14, 1 << 20), ..Self::default() }
    }
}

/// The data plane in the kernel: five programs, their maps, their attachments; all pinned.
pub struct Bpf {
    programs: Programs,
    maps: Maps,
    pins: Pins,
    attachment: Attachment,
    owners: Owners,
}

impl fmt::Debug for Bpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bpf").field("pins", &self.pins).field("attachment", &self.attachment).finish_non_exhaustive()
    }
}

impl Bpf {
    /// Loads the programs, unless an earlier daemon of the same build did, and adopts what it left in `dir`: flows and attachments stay,
    /// programs are replaced in place. Mounts a bpffs at `dir` if it lies in none. The calling thread's network namespace is the node's; all later
    /// calls must come from the same one.
    ///
    /// # Errors
    /// What [`check_kernel`] says; pins of another layout that are in use; a kernel that refuses a program.
    pub fn open(dir: &Path, sizes: MapSizes) -> Result<Self, DatapathError> {
        let attachment = if check::has_tcx() { Attachment::Tcx } else { Attachment::Clsact };
        Self::open_with(dir, sizes, attachment)
    }

    /// As [`Self::open`], but attaches in the way of kernels before 6.6, which newer ones know too.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_clsact(dir: &Path, sizes: MapSizes) -> Result<Self, DatapathError> {
        Self::open_with(dir, sizes, Attachment::Clsact)
    }

    fn open_with(dir: &Path, sizes: MapSizes, attachment: Attachment) -> Result<Self, DatapathError> {
        check_kernel()?;
        let pins = Pins::open(dir)?;
        pins.check_layout()?;
        let mut programs = Programs::open(&pins, sizes)?;
        let mut maps = Maps::open(&pins)?;
        let node = maps.node.get(&0, 0).map_err(in_map("node"))?;
        maps.write_node(&Node { layout: LAYOUT, ..node }, &mut Applied::default())?;
        Links { programs: &mut programs, pins: &pins, attachment }.adopt()?;
        Ok(Self { programs, maps, pins, attachment, owners: Owners::default() })
    }

    /// Runs a program on one packet (an Ethernet frame) that seems to come through `lo`, and returns its verdict and what became of the
    /// packet. For tests of the programs.
    ///
    /// # Errors
    /// When there is no such program, or the kernel does not want to run it on this packet.
    pub fn test_run(&self, program: &'static str, frame: &[u8]) -> Result<(i32, Vec<u8>), DatapathError> {
        self.test_run_on(program, 1, 0, frame)
    }

    /// As [`Self::test_run`], through the device `ifindex` of the calling thread's namespace. With a `gso_size` other than 0 the packet
    /// stands for several that carry so many bytes each.
    ///
    /// # Errors
    /// As [`Self::test_run`]; and when there is no such device.
    pub fn test_run_on(
        &self,
        program: &'static str,
        ifindex: u32,
        gso_size: u32,
        frame: &[u8],
    ) -> Result<(i32, Vec<u8>), DatapathError> {
        use aya::programs::{TestRun, TestRunOptions};
        let failed = |reason: String| DatapathError::Program { program, reason };
        let hook = programs::hook(program).ok_or_else(|| failed("not in the object".to_owned()))?;
        let found = self.programs.get(hook).map_err(failed)?;
        // As `struct __sk_buff` has them; all else must be zero.
        let mut context = [0; 184];
        context[40..44].copy_from_slice(&ifindex.to_ne_bytes());
        context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = found.test_run(options).map_err(|e| failed(say(&e)))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value.cast_signed(), out))
    }

    fn links(&mut self) -> Links<'_> {
        Links { programs: &mut self.programs, pins: &self.pins, attachment: self.attachment }
    }
}

impl Datapath for Bpf {
    fn apply(&mut self, tables: &Tables) -> Result<Applied, DatapathError> {
        let mut applied = Applied::default();
        let update = Update::plan(&self.maps.found()?, tables)?;
        self.owners = Owners::new(&update.backends.slots, &update.wanted_frontends, tables);
        for step in ORDER {
            self.maps.carry_out(step, &update, &mut applied)?;
        }
        self.links().apply(&tables.hooks, &mut applied)?;
        Ok(applied)
    }

    fn counters(&self) -> Result<Counters, DatapathError> {
        read::counters(&self.maps, &self.owners)
    }

    fn flow_table(&self) -> Result<Box<dyn FlowTable>, DatapathError> {
        let entries = self.maps.backends()?;
        Ok(Box::new(read::Flows::open(self.pins.dir(), entries, self.owners.clone())?))
    }

    fn usage(&self) -> Result<Vec<Usage>, DatapathError> {
        read::usage(&self.maps)
    }

    fn passed_over(&self) -> Result<BTreeSet<TaskId>, DatapathError> {
        read::passed_over(&self.maps, &self.owners)
    }

    fn proofs(&self) -> Result<BTreeMap<IpAddr, Duration>, DatapathError> {
        read::proofs(&self.maps)
    }

    fn close_and_remove(mut self: Box<Self>) -> Result<(), DatapathError> {
        let detached = self.links().remove();
        let Self { programs, maps, pins, .. } = *self;
        drop((programs, maps));
        detached.and(pins.remove())
    }
}
