//! Heartbeats beside a snapshot.
//!
//! openraft sends a member none while it sends it a snapshot. A voter that hears nothing for a second stands for election, in a term that the
//! leader of the snapshot is then too old for: the snapshot is refused, the leader has lost its office, and the next one begins
//! anew. So whoever sends a snapshot sends heartbeats beside it. They also tell soon when nobody is there any more.

use std::time::Duration;

use openraft::error::RaftError;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use skep_rpc::decode;
use tokio::time::Instant;

use super::{Caller, Link, Transport};
use crate::types::{Types, Vote};

/// As often as the leader's own heartbeats.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long one may take.
const WITHIN: Duration = Duration::from_millis(500);
/// After so long without an answer the snapshot is given up: it is begun anew then. Longer than a member needs to read one in.
const SILENCE: Duration = Duration::from_secs(5);

/// Why a snapshot need not be sent any further.
pub(super) enum Ended {
    /// The member knows of a later vote: this one leads no more.
    Outvoted(Vote),
    /// It does not answer any more.
    Silent,
}

type Answer = Result<AppendEntriesResponse<u64>, RaftError<u64>>;

impl<T: Transport> Caller<T> {
    /// Sends heartbeats until there is a reason to end.
    pub(super) async fn pulse(&self, mut link: T::Link, vote: Vote) -> Ended {
        // It asks for nothing: no entry before it has to match, none is committed by it.
        let heartbeat: AppendEntriesRequest<Types> =
            AppendEntriesRequest { vote, prev_log_id: None, entries: Vec::new(), leader_commit: None };
        let Ok(message) = self.message(heartbeat) else { return Ended::Silent };
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Ok(answer) = link.append_entries(message.clone(), WITHIN).await {
                heard = Instant::now();
                self.heard.from(self.target);
                if let Ok(Ok(AppendEntriesResponse::HigherVote(later))) = decode::<Answer>(&answer) {
                    return Ended::Outvoted(later);
                }
            }
            if heard.elapsed() > SILENCE {
                return Ended::Silent;
            }
        }
    }
}
