//! The data plane in the kernel.
//!
//! Division of labour: `pins` (what outlives the daemon), `links` (programs on devices), `layout` (bytes in maps), `slots` (numbers of
//! backends, pure), `maps` (from what a map holds to what it should hold), `read` (counters and flows), `traces` (what is in
//! the kernel). This file puts them in the order in which nothing ever refers to what is not there yet, or not there any more.

mod check;
mod layout;
mod links;
mod maps;
mod pins;
mod read;
mod slots;
pub mod traces;

use std::fmt;
use std::path::Path;

use aya::programs::SchedClassifier;
use aya::{Ebpf, EbpfLoader};
use skep_model::TaskId;

use self::layout::{LAYOUT, Node};
use self::links::{Attachment, Links, PROGRAMS, say};
use self::maps::{Maps, in_map};
use self::pins::Pins;
use crate::datapath::{Applied, Counters, Datapath, DatapathError};
use crate::table::{NodeFacts, Tables};

pub use check::check_kernel;

/// Network identifier of overlay packets on their way to a task ("sk" and a number).
pub const FORWARD_VNI: u32 = 0x73_6b01;
/// Network identifier of overlay packets on their way back to the node that the client asked.
pub const REPLY_VNI: u32 = 0x73_6b02;
/// Network identifier of packets that an owner passed on because its own task takes no new flows; never passed on again.
pub const SECOND_CHANCE_VNI: u32 = 0x73_6b03;

/// The programs, built from `bpf/` by `cargo xtask bpf`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("skep.bpf.o");

/// Headers of IPv4 and TCP: what a segment is smaller than its packet.
const TCP_HEADERS: u16 = 40;

/// How much fits, and thereby how much memory the kernel sets aside for one node: with the defaults about 19 MB, and 0.7 MB more for
/// each CPU. Maps that an earlier daemon left keep the sizes that it gave them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSizes {
    /// Directions of flows (two per flow on each node that it passes), about 136 bytes each, set aside at once. When full, the
    /// longest unused ones make room.
    pub flows: u32,
    /// Published ports, 8 KiB each while in use.
    pub frontends: u32,
    /// Backends of all frontends together plus the node's own tasks, 40 bytes each and 40 more per CPU.
    pub backends: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self { flows: 131_072, frontends: 16_384, backends: 16_384 }
    }
}

/// The data plane in the kernel: four programs, their maps, their attachments; all pinned.
pub struct Bpf {
    ebpf: Ebpf,
    maps: Maps,
    pins: Pins,
    attachment: Attachment,
    owners: read::Owners,
}

impl fmt::Debug for Bpf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bpf").field("pins", &self.pins).field("attachment", &self.attachment).finish_non_exhaustive()
    }
}

impl Bpf {
    /// Loads the programs, and adopts what an earlier daemon left in `dir`: flows and attachments stay, programs are replaced
    /// in place. Mounts a bpffs at `dir` if it lies in none. The calling thread's network namespace is the node's; all later
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
        let mut ebpf = load(&pins, sizes)?;
        let mut maps = Maps::take(&mut ebpf)?;
        let node = maps.node.get(&0, 0).map_err(in_map("node"))?;
        maps.write_node(&Node { layout: LAYOUT, ..node }, &mut Applied::default())?;
        Links { ebpf: &mut ebpf, pins: &pins, attachment }.adopt()?;
        Ok(Self { ebpf, maps, pins, attachment, owners: read::Owners::new() })
    }

    /// Runs a program on one packet (an Ethernet frame) without a device, and returns its verdict and what became of the packet.
    /// For tests of the programs.
    ///
    /// # Errors
    /// When there is no such program, or the kernel does not want to run it on this packet.
    pub fn test_run(&self, program: &'static str, frame: &[u8]) -> Result<(i32, Vec<u8>), DatapathError> {
        use aya::programs::{TestRun, TestRunOptions};
        let failed = |reason: String| DatapathError::Program { program, reason };
        let found = self.ebpf.program(program).ok_or_else(|| failed("not in the object".to_owned()))?;
        let found: &SchedClassifier = found.try_into().map_err(|e| failed(say(&e)))?;
        let mut out = vec![0; frame.len() + 256];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = found.test_run(options).map_err(|e| failed(say(&e)))?;
        out.truncate(result.data_size_out as usize);
        Ok((result.return_value.cast_signed(), out))
    }

    fn links(&mut self) -> Links<'_> {
        Links { ebpf: &mut self.ebpf, pins: &self.pins, attachment: self.attachment }
    }
}

fn load(pins: &Pins, sizes: MapSizes) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(pins.dir());
    loader.map_max_entries("flows", sizes.flows).map_max_entries("frontends", sizes.frontends);
    for map in ["backends", "counters", "locals"] {
        loader.map_max_entries(map, sizes.backends);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|e| DatapathError::Map { map: "(all)", reason: say(&e) })?;
    for (_, program) in PROGRAMS {
        let failed = |reason| DatapathError::Program { program, reason };
        let found = ebpf.program_mut(program).ok_or_else(|| failed("not in the object".to_owned()))?;
        let found: &mut SchedClassifier = found.try_into().map_err(|e| failed(say(&e)))?;
        found.load().map_err(|e| failed(say(&e)))?;
    }
    Ok(ebpf)
}

fn encode_node(facts: &NodeFacts) -> Node {
    Node {
        layout: LAYOUT,
        underlay: facts.underlay.into(),
        overlay: facts.overlay.into(),
        loopback: facts.loopback,
        overlay_ifindex: facts.overlay_ifindex,
        mss: u32::from(facts.overlay_mtu.saturating_sub(TCP_HEADERS)),
    }
}

impl Datapath for Bpf {
    fn apply(&mut self, tables: &Tables) -> Result<Applied, DatapathError> {
        let mut applied = Applied::default();
        let maps = &mut self.maps;
        let room = maps.backends.len();
        let full = DatapathError::Full { what: "backends", count: tables.backends.len(), room: room as usize };
        let plan = slots::plan(&maps.backends()?, &tables.backends, room).ok_or(full)?;
        let addresses = maps::addresses(tables);
        let locals = maps::locals(tables, &plan.slots);
        // What others refer to comes first.
        maps.write_node(&encode_node(&tables.node), &mut applied)?;
        maps.reset_counters(&plan.fresh)?;
        maps.write_backends(&plan.write, &mut applied)?;
        locals.write(&mut maps.locals, &mut applied)?;
        addresses.write(&mut maps.addresses, &mut applied)?;
        maps.write_frontends(tables, &plan.slots, &mut applied)?;
        maps.write_ports(tables, &mut applied)?;
        // And goes last.
        maps.prune_frontends(tables, &mut applied)?;
        locals.prune(&mut maps.locals, &mut applied)?;
        addresses.prune(&mut maps.addresses, &mut applied)?;
        maps.write_backends(&plan.retire, &mut applied)?;
        let owner = |(key, slot)| tables.backends.get(&key).map(|backend| (slot, (key, backend.place)));
        self.owners = plan.slots.into_iter().filter_map(owner).collect();
        self.links().apply(&tables.hooks, &mut applied)?;
        Ok(applied)
    }

    fn counters(&self) -> Result<Counters, DatapathError> {
        read::counters(&self.maps, &self.owners)
    }

    fn open_flows(&self, task: &TaskId) -> Result<u64, DatapathError> {
        read::open_flows(&self.maps, task)
    }

    fn close_and_remove(mut self: Box<Self>) -> Result<(), DatapathError> {
        let detached = self.links().remove();
        let Self { ebpf, maps, pins, .. } = *self;
        drop((ebpf, maps));
        detached.and(pins.remove())
    }
}
