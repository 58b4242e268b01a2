//! Reply direct: finds out, again and again, for whose clients this node can answer. It sends each other member a datagram in that member's
//! own name; if the underlay delivers it, the other's data plane sends it back through the tunnel, and this node's notes the proof.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_mesh::PROBE_PORT;
use skep_model::NodeId;
use skep_netdb::View;
use skep_network::send_in_anothers_name;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use crate::mesh::Mesh;

/// How often proofs are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Looks from one probe to the next.
const EVERY: u32 = 5;
/// How old a proof may be: two probes may be lost.
const FRESH: Duration = Duration::from_secs(16);

/// Keeps the set of members true for whose clients this node may answer.
pub(crate) struct Prober {
    pub(crate) own: NodeId,
    pub(crate) mesh: Mesh,
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) proven: watch::Sender<BTreeSet<IpAddr>>,
}

impl Prober {
    /// Ends only by being dropped.
    pub(crate) async fn run(self) {
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for look in 0_u32.. {
            looks.tick().await;
            let (own, members) = members(&self.view.borrow(), &self.own);
            let mesh = self.mesh.clone();
            let probing = look.is_multiple_of(EVERY);
            let looked = tokio::task::spawn_blocking(move || {
                if let (Some(own), true) = (own, probing) {
                    probe(own, &members);
                }
                mesh.read(|datapath| datapath.proofs())
            });
            let Ok(Some(Ok(proofs))) = looked.await else { continue };
            let fresh = fresh(&proofs);
            self.proven.send_if_modified(|proven| {
                let changed = *proven != fresh;
                if changed {
                    info!("this node answers clients of {} other nodes itself", fresh.len());
                    *proven = fresh;
                }
                changed
            });
        }
    }
}

/// This node's underlay address, and those of the others that are alive and of the same family.
fn members(view: &View, own: &NodeId) -> (Option<IpAddr>, Vec<IpAddr>) {
    let address = view.members.get(own).map(|m| m.underlay);
    let others = view.members.values().filter(|m| m.node != *own && m.alive).map(|m| m.underlay);
    let alike = others.filter(|other| address.is_some_and(|own| own.is_ipv4() == other.is_ipv4()));
    (address, alike.collect())
}

fn probe(own: IpAddr, members: &[IpAddr]) {
    for &member in members {
        if let Err(error) = send_in_anothers_name(member, PROBE_PORT, own) {
            debug!("{member} cannot be probed: {error}");
        }
    }
}

fn fresh(proofs: &BTreeMap<IpAddr, Duration>) -> BTreeSet<IpAddr> {
    proofs.iter().filter(|(_, age)| **age <= FRESH).map(|(member, _)| *member).collect()
}

#[cfg(test)]
mod tests {
    use skep_model::Member;

    use super::*;

    fn member(address: &str, alive: bool) -> Member {
        let hostname = address.to_owned();
        let underlay = address.parse().unwrap();
        Member { node: NodeId::random(), hostname, underlay, overlay: [10, 0, 0, 1].into(), alive, away: false }
    }

    #[test]
    fn those_are_probed_that_can_be_answered_for() {
        let all =
            [member("192.0.2.1", true), member("192.0.2.2", true), member("192.0.2.3", false), member("fd00::4", true)];
        let own = all[0].node.clone();
        let known = BTreeMap::from(all.map(|m| (m.node.clone(), m)));
        let view = View { members: known.into(), ..View::default() };
        let want: IpAddr = "192.0.2.2".parse().unwrap();
        assert_eq!(members(&view, &own), (Some("192.0.2.1".parse().unwrap()), vec![want]));
    }

    #[test]
    fn an_old_proof_proves_nothing() {
        let [young, old]: [IpAddr; 2] = [[192, 0, 2, 2].into(), [192, 0, 2, 3].into()];
        let proofs = BTreeMap::from([(young, FRESH), (old, FRESH + Duration::from_secs(1))]);
        assert_eq!(fresh(&proofs), BTreeSet::from([young]));
    }
}
