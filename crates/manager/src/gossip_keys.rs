//! The keys of the nodes' talk: made, handed out, taken into use, and forgotten again.
//!
//! A new key is handed out first, and used only when every node in reach has had it for a while; the one before it is known for one period
//! more, so that nobody who lags is shut out.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use skep_model::{Cluster, GossipKey, GossipKeys, Timestamp};
use skep_store::{Tables, Writer};
use tokio::sync::watch;
use tracing::warn;

/// How long a key is the newest. Random nonces allow 2^32 messages with one key (see `netdb`).
const PERIOD: Duration = Duration::from_hours(12);
/// From when a key is handed out to when it is used.
const HAND_OUT: Duration = Duration::from_mins(1);
/// How often it is looked whether something is due.
const LOOK: Duration = Duration::from_secs(5);

/// The first key of a swarm.
pub(crate) fn first(now: Timestamp) -> GossipKeys {
    GossipKeys { keys: vec![fresh(1)], primary: 1, rotated: now }
}

fn fresh(id: u32) -> GossipKey {
    GossipKey { id, secret: rand::random() }
}

/// The keys as they should be from now on; `None` to leave them. `make` makes a key.
fn next(keys: &GossipKeys, now: Timestamp, make: impl FnOnce(u32) -> GossipKey) -> Option<GossipKeys> {
    let newest = keys.keys.last().map_or(0, |key| key.id);
    let age = Duration::try_from(now.duration_since(keys.rotated)).unwrap_or_default();
    if newest != keys.primary {
        return (age >= HAND_OUT).then(|| GossipKeys { primary: newest, ..keys.clone() });
    }
    (age >= PERIOD).then(|| {
        let mut known: Vec<_> = keys.keys.iter().filter(|key| key.id == keys.primary).cloned().collect();
        known.push(make(newest.wrapping_add(1)));
        GossipKeys { keys: known, primary: keys.primary, rotated: now }
    })
}

/// The cluster with the keys that it should have; `None` to leave it.
fn plan(tables: &Tables, now: Timestamp) -> Option<Cluster> {
    let cluster = tables.cluster()?;
    let keys = match &cluster.gossip_keys {
        Some(keys) => next(keys, now, fresh)?,
        None => first(now),
    };
    Some(Cluster { gossip_keys: Some(keys), ..Cluster::clone(cluster) })
}

/// Does what is due, while this manager leads. Ends when nobody can say any more whether it does.
pub(crate) async fn run(writer: Arc<Writer>, mut leading: watch::Receiver<bool>) {
    while leading.wait_for(|leads| *leads).await.is_ok() {
        if writer.store().view(|tables| plan(tables, Timestamp::now())).is_some() {
            let written = writer.update(|tables| {
                let changes = plan(tables, Timestamp::now()).map(Into::into).into_iter().collect();
                Ok::<_, Infallible>(((), changes))
            });
            if let Err(error) = written.await {
                warn!("cannot change the keys of the nodes' talk, trying again: {error}");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(keys: &GossipKeys) -> (Vec<u32>, u32) {
        (keys.keys.iter().map(|key| key.id).collect(), keys.primary)
    }

    #[test]
    fn a_key_is_known_before_it_is_used_and_for_a_period_after() {
        let begin = Timestamp::UNIX_EPOCH;
        let at = |since: Duration| begin + since;
        let second = Duration::from_secs(1);
        let keys = first(begin);
        assert_eq!(next(&keys, at(PERIOD - second), fresh), None);
        let keys = next(&keys, at(PERIOD), fresh).unwrap();
        assert_eq!(ids(&keys), (vec![1, 2], 1));
        assert_eq!(next(&keys, at(PERIOD + HAND_OUT - second), fresh), None);
        let keys = next(&keys, at(PERIOD + HAND_OUT), fresh).unwrap();
        assert_eq!(ids(&keys), (vec![1, 2], 2));
        assert_eq!(next(&keys, at(PERIOD * 2 - second), fresh), None);
        let keys = next(&keys, at(PERIOD * 2), fresh).unwrap();
        assert_eq!(ids(&keys), (vec![2, 3], 2));
        // Two leaders with different clocks: nothing happens too early, nothing is lost.
        assert_eq!(next(&keys, begin, fresh), None);
    }
}
