//! Which program runs on which device. Nothing is remembered but the pins: each is an attachment of the program and device that its name
//! says, and outlives the daemon.
//!
//! From Linux 6.6 on a pin is a TCX link: it can be given another program without a gap, and vanishes from its device when removed. Before
//! that a pin is the program itself, as a note that a filter of ours sits in the device's clsact qdisc.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use nix::net::if_::if_indextoname;

use super::pins::Pins;
use super::programs::{self, Programs};
use crate::datapath::{Applied, DatapathError};
use crate::table::Hook;

/// How programs are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attachment {
    Tcx,
    Clsact,
}

/// Where our filter sits in a clsact qdisc: a place that nobody takes by chance, so that a later daemon finds it.
const PRIORITY: u16 = 0x736b;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Reads and changes the attachments.
pub(super) struct Links<'a> {
    pub(super) programs: &'a mut Programs,
    pub(super) pins: &'a Pins,
    pub(super) attachment: Attachment,
}

impl Links<'_> {
    /// Gives the attachments that an earlier daemon left the programs of this one, each in one step. Those whose device has vanished are
    /// cleared away.
    pub(super) fn adopt(&mut self) -> Result<(), DatapathError> {
        for ((ifindex, hook), path) in self.pinned() {
            let adopted = match self.attachment {
                Attachment::Tcx => self.replace_tcx(hook, &path).is_ok(),
                Attachment::Clsact => device(ifindex).is_some() && self.attach_clsact(ifindex, hook).is_ok(),
            };
            if !adopted {
                unpin(&path, ifindex, hook)?;
            }
        }
        Ok(())
    }

    /// Attaches what is missing, detaches what is not wanted. A wanted device that does not exist (any more) is an error only after
    /// everything else has been done.
    pub(super) fn apply(&mut self, wanted: &BTreeMap<u32, Hook>, applied: &mut Applied) -> Result<(), DatapathError> {
        let mut first = Ok(());
        let mut pinned = self.pinned();
        let unwanted: Vec<_> =
            pinned.keys().filter(|(ifindex, hook)| wanted.get(ifindex) != Some(hook)).copied().collect();
        for key in unwanted {
            if let Some(path) = pinned.remove(&key) {
                first = first.and(self.detach(key.0, key.1, &path));
                applied.detached += 1;
            }
        }
        for (&ifindex, &hook) in wanted {
            let pin = pinned.remove(&(ifindex, hook));
            match self.ensure(ifindex, hook, pin) {
                Ok(new) => applied.attached += usize::from(new),
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// Detaches everything.
    pub(super) fn remove(&mut self) -> Result<(), DatapathError> {
        self.apply(&BTreeMap::new(), &mut Applied::default())
    }

    /// The pins, by what their names say. Names of no meaning to us are left alone.
    fn pinned(&self) -> BTreeMap<(u32, Hook), PathBuf> {
        let entries = fs::read_dir(self.pins.links()).into_iter().flatten().flatten();
        let parsed = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (program, ifindex) = name.rsplit_once('-')?;
            Some(((ifindex.parse().ok()?, programs::hook(program)?), entry.path()))
        });
        parsed.collect()
    }

    /// Returns whether it had to attach.
    fn ensure(&mut self, ifindex: u32, hook: Hook, pin: Option<PathBuf>) -> Result<bool, DatapathError> {
        let failed = |reason: String| DatapathError::Attach { ifindex, program: programs::name(hook), reason };
        let Some(name) = device(ifindex) else { return Err(failed("no such device".to_owned())) };
        match self.attachment {
            Attachment::Tcx => {
                if pin.is_some() && self.runs_on(&name, hook)? {
                    return Ok(false);
                }
                // A pin without an attachment is of a device that had this number before, or was detached by hand.
                if let Some(path) = pin {
                    unpin(&path, ifindex, hook)?;
                }
                self.attach_tcx(&name, hook, &self.pin_path(ifindex, hook)).map_err(failed)?;
                Ok(true)
            }
            Attachment::Clsact => {
                let new = self.attach_clsact(ifindex, hook)?;
                if pin.is_none() {
                    let path = self.pin_path(ifindex, hook);
                    self.programs.get_mut(hook).map_err(failed)?.pin(path).map_err(|e| failed(say(&e)))?;
                }
                Ok(new || pin.is_none())
            }
        }
    }

    fn detach(&mut self, ifindex: u32, hook: Hook, path: &PathBuf) -> Result<(), DatapathError> {
        if let (Attachment::Clsact, Some(name)) = (self.attachment, device(ifindex)) {
            // Detaches when dropped. That it is gone already is as good.
            drop(SchedClassifierLink::attached(&name, TcAttachType::Ingress, PRIORITY, HANDLE, None));
        }
        unpin(path, ifindex, hook)
    }

    fn pin_path(&self, ifindex: u32, hook: Hook) -> PathBuf {
        self.pins.links().join(format!("{}-{ifindex}", programs::name(hook)))
    }

    /// Whether the device runs the program of this daemon.
    fn runs_on(&self, name: &str, hook: Hook) -> Result<bool, DatapathError> {
        let failed = |reason| DatapathError::Program { program: programs::name(hook), reason };
        let own = self.programs.get(hook).map_err(failed)?.info().map_err(|e| failed(say(&e)))?.id();
        let (_, running) = SchedClassifier::query_tcx(name, TcAttachType::Ingress).map_err(|e| failed(say(&e)))?;
        Ok(running.iter().any(|program| program.id() == own))
    }

    fn attach_tcx(&mut self, name: &str, hook: Hook, pin: &PathBuf) -> Result<(), String> {
        let program = self.programs.get_mut(hook)?;
        // First: a program before ours may take packets away, and one after ours does not see those that we take.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(name, TcAttachType::Ingress, order).map_err(|e| say(&e))?;
        let link: FdLink = program.take_link(id).map_err(|e| say(&e))?.try_into().map_err(|e| say(&e))?;
        link.pin(pin).map_err(|e| say(&e))?;
        Ok(())
    }

    fn replace_tcx(&mut self, hook: Hook, pin: &PathBuf) -> Result<(), String> {
        let old = PinnedLink::from_pin(pin).map_err(|e| say(&e))?;
        let link: SchedClassifierLink = FdLink::from(old).try_into().map_err(|e| say(&e))?;
        let program = self.programs.get_mut(hook)?;
        let id = program.attach_to_link(link).map_err(|e| say(&e))?;
        // The pin keeps the attachment; this process need not.
        drop(program.take_link(id));
        Ok(())
    }

    /// Puts the program into our place in the qdisc, in one step if one of ours is there. Returns whether none was.
    fn attach_clsact(&mut self, ifindex: u32, hook: Hook) -> Result<bool, DatapathError> {
        let failed = |reason: String| DatapathError::Attach { ifindex, program: programs::name(hook), reason };
        let name = device(ifindex).ok_or_else(|| failed("no such device".to_owned()))?;
        // That it is there already is as good; anything else shows in the next step.
        let _ = qdisc_add_clsact(&name);
        let program = self.programs.get_mut(hook).map_err(failed)?;
        let old = SchedClassifierLink::attached(&name, TcAttachType::Ingress, PRIORITY, HANDLE, None);
        if let Ok(id) = program.attach_to_link(old.map_err(|e| failed(say(&e)))?) {
            std::mem::forget(program.take_link(id));
            return Ok(false);
        }
        let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
        let id = program.attach_with_options(&name, TcAttachType::Ingress, options).map_err(|e| failed(say(&e)))?;
        // Dropping it would detach it.
        std::mem::forget(program.take_link(id));
        Ok(true)
    }
}

fn device(ifindex: u32) -> Option<String> {
    if_indextoname(ifindex).ok()?.into_string().ok()
}

fn unpin(path: &PathBuf, ifindex: u32, hook: Hook) -> Result<(), DatapathError> {
    let failed =
        |e: std::io::Error| DatapathError::Attach { ifindex, program: programs::name(hook), reason: e.to_string() };
    fs::remove_file(path).map_err(failed)
}

/// An error with its causes: the library says what was tried, its source says what the kernel thought of it.
pub(super) fn say(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
