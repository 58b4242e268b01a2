//! What the mesh needs to know of this node's devices, kept true while devices and addresses come and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use skep_model::NodeId;
use skep_network::{Changes, Facts, NetworkError, NodeNetwork, Overlay};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::Assignments;

/// How often devices are compared with what they should be when nothing is heard of a change.
const REPAIR: Duration = Duration::from_secs(5);

/// This node's devices and addresses as the mesh needs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Underlay {
    /// Every address that clients may ask by, without loopback ones, and the device that has it.
    pub(crate) addresses: BTreeMap<IpAddr, String>,
    /// Devices that clients may come through.
    pub(crate) uplinks: BTreeSet<u32>,
    /// The device that has the address by which other nodes reach this one.
    pub(crate) device: Option<u32>,
    /// Index of `lo`.
    pub(crate) loopback: u32,
    /// Index of the overlay device; `None` until there is one.
    pub(crate) overlay: Option<u32>,
    /// Bytes that fit into a packet of the overlay.
    pub(crate) overlay_mtu: u16,
}

/// Keeps an [`Underlay`] true.
pub(crate) struct Driver {
    pub(crate) own: NodeId,
    pub(crate) network: Arc<dyn NodeNetwork>,
    /// UDP port of the overlay.
    pub(crate) port: u16,
    pub(crate) assignments: watch::Receiver<Arc<Assignments>>,
    pub(crate) underlay: watch::Sender<Underlay>,
}

impl Driver {
    /// Ends only by being dropped.
    pub(crate) async fn run(mut self) {
        let mut changes = self.network.watch().map_err(|e| warn!("devices are looked at only now and then: {e}")).ok();
        let mut repair = interval(REPAIR);
        repair.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match self.look().await {
                Ok(now) => {
                    self.underlay.send_if_modified(|known| {
                        let changed = *known != now;
                        *known = now;
                        changed
                    });
                }
                Err(e) => warn!("the overlay is not as it should be, trying again: {e}"),
            }
            tokio::select! {
                heard = next(&mut changes) => if heard.is_err() { changes = self.network.watch().ok() },
                Ok(()) = self.assignments.changed() => {}
                _ = repair.tick() => {}
            }
        }
    }

    async fn look(&mut self) -> Result<Underlay, NetworkError> {
        let facts = self.network.facts().await?;
        let address = self.assignments.borrow_and_update().members.get(&self.own).map(|m| m.underlay);
        let address = address.and_then(|a| if let IpAddr::V4(a) = a { Some(a) } else { None });
        let mut underlay = describe(&facts);
        if let Some(address) = address {
            underlay.device = facts.addresses.iter().find(|a| a.ip == address).map(|a| a.link);
            let overlay = Overlay { port: self.port, ..Overlay::over(facts.mtu_of(address)?) };
            let link = self.network.ensure_overlay(&overlay).await?;
            underlay.overlay = Some(link.ifindex);
            underlay.overlay_mtu = u16::try_from(link.mtu).unwrap_or(u16::MAX);
        }
        Ok(underlay)
    }
}

async fn next(changes: &mut Option<Changes>) -> Result<(), NetworkError> {
    match changes {
        Some(changes) => changes.next().await,
        None => std::future::pending().await,
    }
}

fn describe(facts: &Facts) -> Underlay {
    // Devices without hardware addresses (tunnels) carry no Ethernet frames, which is what the programs read.
    let uplinks =
        facts.links.iter().filter(|l| l.up && !l.loopback && !l.own && l.mac.is_some()).map(|l| l.index).collect();
    let own: BTreeSet<u32> = facts.links.iter().filter(|l| l.own).map(|l| l.index).collect();
    let device = |index| facts.link_by_index(index).map(|l| l.name.clone()).unwrap_or_default();
    let foreign = facts.addresses.iter().filter(|a| !own.contains(&a.link) && !a.ip.is_loopback());
    Underlay {
        addresses: foreign.map(|a| (IpAddr::V4(a.ip), device(a.link))).collect(),
        uplinks,
        loopback: facts.links.iter().find(|l| l.loopback).map_or(1, |l| l.index),
        device: None,
        overlay: None,
        overlay_mtu: 0,
    }
}
