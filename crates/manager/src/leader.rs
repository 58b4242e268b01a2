//! The leader's loop: calls the planner whenever something may have changed, and commits what it says.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{ServiceId, Timestamp};
use skep_store::{Event, Events, Lagged, Writer};
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::plan::{Dirty, plan};

/// Pause after a commit failed: the leader has changed, or will.
const RETRY: Duration = Duration::from_millis(200);
/// Everything is looked at again this often, in case an event did not say all.
const SWEEP: Duration = Duration::from_secs(60);

/// Plans for as long as this manager leads, again and again. Ends when nobody can say any more whether it does.
pub(crate) async fn run(writer: Arc<Writer>, mut leading: watch::Receiver<bool>) {
    while leading.wait_for(|leads| *leads).await.is_ok() {
        debug!("leading: everything is looked at");
        lead(&writer, &mut leading).await;
    }
}

async fn lead(writer: &Writer, leading: &mut watch::Receiver<bool>) {
    let mut events = writer.store().watch();
    let mut dirty = Dirty::All;
    let mut wakes: BTreeMap<ServiceId, Timestamp> = BTreeMap::new();
    loop {
        if !dirty.is_clean() {
            match round(writer, &dirty, &mut wakes).await {
                Ok(()) => dirty = Dirty::none(),
                Err(error) => {
                    warn!("cannot write what was decided: {error}");
                    dirty = Dirty::All;
                    tokio::time::sleep(RETRY).await;
                    if *leading.borrow() {
                        continue;
                    }
                    return;
                }
            }
        }
        tokio::select! {
            lost = leading.wait_for(|leads| !*leads) => {
                drop(lost);
                return;
            }
            next = events.next() => match next {
                Some(batch) => mark(&mut dirty, batch),
                None => return,
            },
            () = sleep_until(wakes.values().min().copied()) => mark_due(&mut dirty, &mut wakes),
            () = tokio::time::sleep(SWEEP) => dirty = Dirty::All,
        }
        drain(&mut dirty, &mut events);
    }
}

async fn round(
    writer: &Writer,
    dirty: &Dirty,
    wakes: &mut BTreeMap<ServiceId, Timestamp>,
) -> Result<(), skep_store::UpdateError<Infallible>> {
    let planned = writer.update(|tables| {
        let plan = plan(tables, dirty, Timestamp::now(), rand::random());
        Ok((plan.wakes, plan.changes))
    });
    for (service, wake) in planned.await? {
        match wake {
            Some(at) => wakes.insert(service, at),
            None => wakes.remove(&service),
        };
    }
    Ok(())
}

fn mark(dirty: &mut Dirty, batch: Result<Arc<[Event]>, Lagged>) {
    match batch {
        Ok(events) => events.iter().for_each(|event| dirty.mark(event)),
        Err(Lagged) => *dirty = Dirty::All,
    }
}

/// Takes in what else has happened already: one plan serves for all of it.
fn drain(dirty: &mut Dirty, events: &mut Events) {
    use futures::FutureExt;
    while let Some(Some(batch)) = events.next().now_or_never() {
        mark(dirty, batch);
    }
}

fn mark_due(dirty: &mut Dirty, wakes: &mut BTreeMap<ServiceId, Timestamp>) {
    let now = Timestamp::now();
    wakes.retain(|service, at| {
        if *at <= now {
            dirty.mark_service(service);
        }
        *at > now
    });
}

async fn sleep_until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
            tokio::time::sleep(left).await;
        }
        None => std::future::pending().await,
    }
}
