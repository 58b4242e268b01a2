//! `swarm leave`: out of a swarm, and everything of it forgotten.

use skep_engine::backend::node::SwarmState;
use skep_engine::backend::swarm::Leave;
use skep_engine::{Error, ErrorKind};
use tracing::{info, warn};

use super::node::{LocalNode, Member, unknown};
use super::seat::Seat;

impl LocalNode {
    /// Leaves the swarm and forgets it.
    pub(crate) async fn leave(&self, leave: Leave) -> Result<(), Error> {
        let mut member = self.try_write()?;
        let Some(current) = member.as_ref() else { return Err(Error::not_in_swarm()) };
        if current.membership.manager.is_some() && leave == Leave::Gently {
            return Err(manages_still(current.seat.as_ref().map_or(1, Seat::managers)));
        }
        // The file first: a daemon killed in the middle must not come back as a member.
        self.file.remove().map_err(unknown)?;
        if let Some(Member { agent, seat, role, renewal, .. }) = member.take() {
            drop(role);
            // It must not write a certificate that is being removed.
            renewal.abort();
            for e in agent.leave().await {
                warn!("leaving the swarm: {e}");
            }
            if let Some(seat) = seat {
                if seat.managers() > 1 {
                    seat.parted().await;
                }
                self.give_up(seat).await;
            }
        }
        self.forget();
        self.set_state(SwarmState::Inactive);
        info!("left the swarm");
        Ok(())
    }
}

/// Why a manager does not leave by the way.
fn manages_still(managers: usize) -> Error {
    let then = match managers {
        0 | 1 => "Removing the last manager erases all current state of the swarm.".to_owned(),
        2 => "Of two managers one cannot decide anything alone: promote another node first, or demote this one."
            .to_owned(),
        many => format!(
            "{} of {many} managers would be left; `docker node demote` on this node makes it a worker, which leaves without more ado.",
            many - 1
        ),
    };
    let message = format!(
        "You are attempting to leave the swarm on a node that is participating as a manager. {then} Use `--force` to ignore this message."
    );
    Error::new(ErrorKind::Unavailable, message)
}
