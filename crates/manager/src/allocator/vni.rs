//! Numbers of networks: what tells their packets apart between nodes.

use std::collections::HashSet;

use skep_model::{Cluster, Network};
use skep_store::Tables;

/// The number of the first routing mesh's network, as in Docker.
pub(crate) const INGRESS_VNI: u32 = 4096;
/// The highest number that fits into a VXLAN header (RFC 7348).
const HIGHEST: u32 = 0x00ff_ffff;
/// Numbers by which the data plane tells its own kinds of packets apart.
const OWN: std::ops::RangeInclusive<u32> = 0x0073_6b00..=0x0073_6bff;

/// The number of the next network: onward from the last one, so that nothing which is still said of a removed network is taken for its
/// successor's. `None` when all are in use.
pub(crate) fn next_vni(tables: &Tables, cluster: &Cluster) -> Option<u32> {
    let used: HashSet<u32> = tables.all::<Network>().map(|network| network.vni).collect();
    let first = INGRESS_VNI + 1;
    let start = cluster.last_vni.max(INGRESS_VNI) + 1;
    (start..=HIGHEST).chain(first..start.min(HIGHEST)).find(|vni| !OWN.contains(vni) && !used.contains(vni))
}
