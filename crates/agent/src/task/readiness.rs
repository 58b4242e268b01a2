//! Ready means listening: when a task may be given connections.

use std::collections::BTreeSet;
use std::time::Duration;

use skep_model::{Protocol, Task};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::debug;

use crate::context::Context;

/// How often the kernel is asked what the task listens on. It tells nobody by itself.
const ASK: Duration = Duration::from_millis(25);

/// After so long a task that still does not listen is given connections all the same, as Docker does at once: it may listen on some
/// of its published ports only.
const GRACE: Duration = Duration::from_secs(5);

/// Returns once the task listens on all its published ports, or after [`GRACE`].
pub(super) async fn until_ready(context: &Context, task: &Task) {
    let deadline = sleep_until(Instant::now() + GRACE);
    let listening = async {
        let mut ticks = interval(ASK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let wanted = context.target_ports(task);
            if wanted.is_empty() || listens(context, task, &wanted).await {
                return;
            }
        }
    };
    tokio::select! {
        () = listening => {}
        () = deadline => debug!(task = %task.display_name(), "does not listen on its published ports yet"),
    }
}

async fn listens(context: &Context, task: &Task, wanted: &BTreeSet<(Protocol, u16)>) -> bool {
    match context.open_ports(task).await {
        Ok(open) => wanted.is_subset(&open),
        Err(e) => {
            debug!(task = %task.display_name(), "cannot see what it listens on: {e}");
            false
        }
    }
}
