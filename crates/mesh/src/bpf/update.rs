//! What one apply has to do, found out before anything is done, and the order to do it in. Pure.

use std::collections::BTreeMap;

use super::encode::{self, Frontends, Lists};
use super::layout::{Addr, Address, Backend, Frontend, FrontendKey, LocalKey, Node, PortBits, Table, Vip, Way};
use super::maps::{Changes, NetworkKey, WayKey};
use super::slots::{self, Plan};
use crate::datapath::DatapathError;
use crate::table::Tables;

/// What the maps hold, as far as it matters for what is to be written; the rest is compared when it is written.
#[derive(Default)]
pub(super) struct Found {
    pub(super) backends: Vec<Backend>,
    /// How many fit.
    pub(super) backends_room: u16,
    pub(super) frontends: BTreeMap<FrontendKey, Frontend>,
    pub(super) frontends_room: u32,
    pub(super) vips: BTreeMap<Vip, Frontend>,
    pub(super) prefixes: BTreeMap<u32, Addr>,
    pub(super) ways: BTreeMap<WayKey, Way>,
    pub(super) addresses: BTreeMap<Addr, Address>,
    pub(super) locals: BTreeMap<LocalKey, u32>,
    pub(super) networks: BTreeMap<NetworkKey, u32>,
}

/// Everything that one apply writes.
pub(super) struct Update {
    pub(super) node: Node,
    pub(super) ports: [PortBits; 3],
    pub(super) tables: BTreeMap<u32, Table>,
    pub(super) backends: Plan,
    /// The published ports as they will be, and numbers of new ones.
    pub(super) wanted_frontends: BTreeMap<FrontendKey, Frontend>,
    pub(super) fresh_frontends: Vec<u32>,
    pub(super) frontends: Changes<FrontendKey, Frontend>,
    pub(super) vips: Changes<Vip, Frontend>,
    pub(super) prefixes: Changes<u32, Addr>,
    pub(super) ways: Changes<WayKey, Way>,
    pub(super) addresses: Changes<Addr, Address>,
    pub(super) locals: Changes<LocalKey, u32>,
    pub(super) networks: Changes<NetworkKey, u32>,
}

/// A part of an apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Node,
    ResetCounters,
    PutPrefixes,
    WriteBackends,
    PutLocals,
    PutAddresses,
    PutNetworks,
    PutWays,
    WriteTables,
    PutFrontends,
    PutVips,
    WritePorts,
    DeleteFrontends,
    DeleteVips,
    PruneTables,
    DeleteWays,
    DeleteNetworks,
    DeleteLocals,
    DeleteAddresses,
    RetireBackends,
    DeletePrefixes,
}

/// What others refer to comes first, and goes last: whenever the daemon is killed, nothing refers to what is not there.
pub(super) const ORDER: [Step; 21] = [
    Step::Node,
    Step::ResetCounters,
    Step::PutPrefixes,
    Step::WriteBackends,
    Step::PutLocals,
    Step::PutAddresses,
    Step::PutNetworks,
    Step::PutWays,
    Step::WriteTables,
    Step::PutFrontends,
    Step::PutVips,
    Step::WritePorts,
    Step::DeleteFrontends,
    Step::DeleteVips,
    Step::PruneTables,
    Step::DeleteWays,
    Step::DeleteNetworks,
    Step::DeleteLocals,
    Step::DeleteAddresses,
    Step::RetireBackends,
    Step::DeletePrefixes,
];

impl Update {
    /// Compares what is there with what should be there. Fails when it does not fit.
    pub(super) fn plan(found: &Found, tables: &Tables) -> Result<Self, DatapathError> {
        let room = found.backends_room;
        let full = DatapathError::Full { what: "tasks", count: tables.backends.len(), room: usize::from(room) };
        let backends = slots::plan(&found.backends, &tables.backends, &tables.members, room).ok_or(full)?;
        let lists = Lists::of(tables);
        let ports = Frontends::plan(tables, &lists, &found.frontends, found.frontends_room)?;
        let locals = encode::locals(tables, &backends.slots);
        Ok(Self {
            node: encode::node(&tables.node),
            ports: encode::ports(tables),
            tables: encode::tables(tables, &backends.slots),
            frontends: Changes::between("frontends", &found.frontends, ports.entries.clone()),
            wanted_frontends: ports.entries,
            fresh_frontends: ports.fresh,
            vips: Changes::between("vips", &found.vips, encode::vips(tables)),
            prefixes: Changes::between("prefixes", &found.prefixes, encode::prefixes(tables)),
            ways: Changes::between("ways", &found.ways, encode::ways(tables)),
            addresses: Changes::between("addresses", &found.addresses, encode::addresses(tables)),
            locals: Changes::between("locals", &found.locals, locals),
            networks: Changes::between("networks", &found.networks, encode::networks(tables, &lists)),
            backends,
        })
    }
}

#[cfg(test)]
mod tests;
