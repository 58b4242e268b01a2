//! Decides which tasks there should be. Pure: each function reads the draft and writes what should be different.
//!
//! A service is a set of slots: numbers for replicated services, nodes for global ones. [`reconcile`] looks at every slot of one
//! service, whatever has happened to it: tasks that cannot go on are told to stop ([`evict`]), empty slots are filled again
//! ([`restart`]), slots with tasks of an older spec are replaced ([`update`]), and old history is forgotten ([`reaper`]).

mod evict;
mod global;
mod reaper;
mod replicated;
mod restart;
mod slot;
mod update;

use skep_model::{ServiceId, ServiceMode, Timestamp};

use self::slot::Slots;
pub(crate) use self::update::{changes_tasks, roll_back};
use crate::draft::{Draft, earlier};

/// Brings the tasks of one service nearer to what they should be. Returns when to look again, should nothing happen before.
pub(crate) fn reconcile(draft: &mut Draft<'_>, id: &ServiceId) -> Option<Timestamp> {
    evict::orphan(draft, id);
    let Some(service) = draft.service(id).cloned() else {
        reaper::remove_all(draft, id);
        return None;
    };
    let mut slots = Slots::of(draft, &service);
    evict::evict(draft, &mut slots);
    let filled = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicated::reconcile(draft, &service, &mut slots, replicas),
        ServiceMode::Global => global::reconcile(draft, &service, &mut slots),
    };
    let started = restart::start_waiting(draft, &service, &mut slots);
    let updated = update::supervise(draft, &service, &mut slots);
    reaper::reap(draft, &service, &slots);
    earlier(filled, earlier(started, updated))
}
