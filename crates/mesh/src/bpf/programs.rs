//! The programs. They are pinned as their maps are: a daemon finds those of the one before it, when they are of the same object, and the kernel
//! need not verify them again, which takes it more than a second.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use aya::EbpfLoader;
use aya::programs::SchedClassifier;

use super::MapSizes;
use super::links::say;
use super::pins::Pins;
use crate::datapath::DatapathError;
use crate::table::Hook;

/// The programs, built from `bpf/` by `cargo xtask bpf`.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("skep.bpf.o");

const PROGRAMS: [Hook; 5] = [Hook::Uplink, Hook::Tunnel, Hook::Loopback, Hook::Task, Hook::Overlay];

/// What the program of a hook is called, in the object and in pins.
pub(super) fn name(hook: Hook) -> &'static str {
    match hook {
        Hook::Uplink => "from_uplink",
        Hook::Tunnel => "from_tunnel",
        Hook::Loopback => "from_loopback",
        Hook::Task => "from_task",
        Hook::Overlay => "from_overlay",
    }
}

/// The hook whose program is called so.
pub(super) fn hook(called: &str) -> Option<Hook> {
    PROGRAMS.into_iter().find(|hook| name(*hook) == called)
}

/// The programs, loaded.
pub(super) struct Programs(BTreeMap<Hook, SchedClassifier>);

impl Programs {
    /// Those that are pinned, when all of them and all maps are; otherwise new ones, which use the maps that are pinned and make the others.
    pub(super) fn open(pins: &Pins, sizes: MapSizes) -> Result<Self, DatapathError> {
        if !pins.has_all_maps() || PROGRAMS.iter().any(|hook| !pin(pins, *hook).exists()) {
            pins.remove_programs()?;
            load(pins, sizes)?;
        }
        let opened = PROGRAMS.into_iter().map(|hook| {
            let program = SchedClassifier::from_pin(pin(pins, hook)).map_err(|e| failed(hook, say(&e)))?;
            Ok((hook, program))
        });
        Ok(Self(opened.collect::<Result<_, DatapathError>>()?))
    }

    pub(super) fn get(&self, hook: Hook) -> Result<&SchedClassifier, String> {
        self.0.get(&hook).ok_or_else(|| "not loaded".to_owned())
    }

    pub(super) fn get_mut(&mut self, hook: Hook) -> Result<&mut SchedClassifier, String> {
        self.0.get_mut(&hook).ok_or_else(|| "not loaded".to_owned())
    }
}

/// Where the program is pinned. The name tells objects apart, by 64 bits of SipHash; a program that another compiler's hash calls
/// differently is only loaded once more.
fn pin(pins: &Pins, hook: Hook) -> PathBuf {
    let mut object = DefaultHasher::new();
    OBJECT.hash(&mut object);
    pins.programs().join(format!("{}-{:016x}", name(hook), object.finish()))
}

fn failed(hook: Hook, reason: String) -> DatapathError {
    DatapathError::Program { program: name(hook), reason }
}

/// Loads the object, and pins its programs and maps.
fn load(pins: &Pins, sizes: MapSizes) -> Result<(), DatapathError> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(pins.dir());
    let backends = u32::from(sizes.backends);
    loader.map_max_entries("flows", sizes.flows).map_max_entries("counters", backends * 2);
    for map in ["frontends", "tables", "port_counters"] {
        loader.map_max_entries(map, sizes.frontends);
    }
    for map in ["backends", "suspects"] {
        loader.map_max_entries(map, backends);
    }
    let mut ebpf = loader.load(OBJECT).map_err(|e| DatapathError::Map { map: "(all)", reason: say(&e) })?;
    fs::create_dir_all(pins.programs()).map_err(|e| pins.failed(e))?;
    for hook in PROGRAMS {
        let found = ebpf.program_mut(name(hook)).ok_or_else(|| failed(hook, "not in the object".to_owned()))?;
        let found: &mut SchedClassifier = found.try_into().map_err(|e| failed(hook, say(&e)))?;
        found.load().map_err(|e| failed(hook, say(&e)))?;
        found.pin(pin(pins, hook)).map_err(|e| failed(hook, say(&e)))?;
    }
    Ok(())
}
