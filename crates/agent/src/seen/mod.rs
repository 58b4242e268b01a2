//! What people and metrics see of the mesh. `report`, `trace` and `flows` are pure functions of what the node knows; the driver here
//! collects that, and keeps looking from costing much: maps are counted no more often than a twentieth of the time allows.

mod census;
mod flows;
mod report;
mod trace;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use skep_mesh::{Datapath, DatapathError, Desired, Flow, FlowTable, Usage};
use skep_model::seen::{FlowFilter, FlowList, MeshReport, TraceQuestion, TraceReport};
use skep_model::{TaskId, TaskState, Timestamp};
use skep_netdb::NetDb;

use self::census::Census;
use self::report::Seen;
use crate::mesh::Mesh;
use crate::report::Reporter;
use crate::{AgentError, Assignments};

/// After a walk over all flows the next one comes no sooner than this many times as long as it took.
const REST: u32 = 20;
/// Nor sooner than this.
const FRESH: Duration = Duration::from_secs(1);

/// What the node's mesh is looked at through. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Observer {
    mesh: Mesh,
    netdb: NetDb,
    reporter: Reporter,
    counted: Arc<Mutex<Option<Kept>>>,
}

/// What was counted, and until when that is good enough.
struct Kept {
    counted: Arc<Counted>,
    until: Instant,
}

/// What takes as long as there are entries in the maps.
struct Counted {
    census: Census,
    usage: Vec<Usage>,
}

impl Observer {
    pub(crate) fn new(mesh: Mesh, netdb: NetDb, reporter: Reporter) -> Self {
        Self { mesh, netdb, reporter, counted: Arc::default() }
    }

    /// Everything but the flows one by one.
    pub(crate) async fn report(&self, assignments: Arc<Assignments>) -> Result<MeshReport, AgentError> {
        let this = self.clone();
        blocking(move || this.reported(&*this.desired()?, &assignments)).await
    }

    fn reported(&self, desired: &Desired, assignments: &Assignments) -> Result<MeshReport, AgentError> {
        let counters = self.read(|datapath| datapath.counters())?;
        let counted = self.counted()?;
        let view = self.netdb.view().borrow().clone();
        Ok(report::report(&Seen {
            now: Timestamp::now(),
            desired,
            assignments,
            statuses: &self.statuses(),
            endpoints: &view.endpoints,
            versions: &self.netdb.versions(),
            counters: &counters,
            usage: &counted.usage,
            census: &counted.census,
        }))
    }

    /// The flows that `filter` asks for.
    pub(crate) async fn flows(&self, filter: FlowFilter) -> Result<FlowList, AgentError> {
        let this = self.clone();
        blocking(move || {
            let desired = this.desired()?;
            Ok(flows::select(&desired, this.all_flows()?, &filter))
        })
        .await
    }

    /// What would become of a connection.
    pub(crate) async fn trace(
        &self,
        assignments: Arc<Assignments>,
        question: TraceQuestion,
    ) -> Result<TraceReport, AgentError> {
        let this = self.clone();
        blocking(move || {
            let desired = this.desired()?;
            let known = match question.from {
                Some(_) => this.all_flows()?.into_iter().find(|flow| is_of(flow, &question)),
                None => None,
            };
            let ports = this.reported(&desired, &assignments)?.ports;
            let passed_over = this.read(|datapath| datapath.passed_over())?;
            Ok(trace::trace(&desired, &ports, &question, known.as_ref(), &passed_over))
        })
        .await
    }

    fn desired(&self) -> Result<Arc<Desired>, AgentError> {
        self.mesh.desired().ok_or(AgentError::NoMesh)
    }

    fn read<T>(&self, read: impl FnOnce(&dyn Datapath) -> Result<T, DatapathError>) -> Result<T, AgentError> {
        Ok(self.mesh.read(read).ok_or(AgentError::NoMesh)??)
    }

    fn flow_table(&self) -> Result<Box<dyn FlowTable>, AgentError> {
        self.read(|datapath| datapath.flow_table())
    }

    /// Takes as long as there are flows; the data plane does not wait for it.
    fn all_flows(&self) -> Result<Vec<Flow>, AgentError> {
        Ok(self.flow_table()?.flows()?)
    }

    /// Counted anew, or as counted a moment ago.
    fn counted(&self) -> Result<Arc<Counted>, AgentError> {
        let mut kept = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        if let Some(kept) = kept.as_ref().filter(|k| k.until > begun) {
            return Ok(kept.counted.clone());
        }
        let table = self.flow_table()?;
        let mut usage = vec![table.usage()?];
        usage.extend(self.read(|datapath| datapath.usage())?);
        let counted = Arc::new(Counted { census: Census::of(&table.flows()?), usage });
        let rest = (begun.elapsed() * REST).max(FRESH);
        *kept = Some(Kept { counted: counted.clone(), until: Instant::now() + rest });
        Ok(counted)
    }

    fn statuses(&self) -> BTreeMap<TaskId, TaskState> {
        let reports = self.reporter.watch();
        let reports = reports.borrow();
        reports.since(0).map(|(task, status)| (task.clone(), status.state)).collect()
    }
}

fn is_of(flow: &Flow, question: &TraceQuestion) -> bool {
    flow.protocol == question.protocol
        && flow.asked.port() == question.port
        && Some(flow.client) == question.from
        && question.to.is_none_or(|to| flow.asked.ip() == to)
}

async fn blocking<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, AgentError> + Send + 'static,
) -> Result<T, AgentError> {
    match tokio::task::spawn_blocking(look).await {
        Ok(seen) => seen,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

#[cfg(test)]
mod tests;
