//! The routing mesh, as the API shows it.

use skep_agent::AgentError;
use skep_engine::{Error, ErrorKind};
use skep_model::seen::{FlowFilter, FlowList, MeshReport, SeenTable, TraceQuestion, TraceReport};

use crate::daemon::node::LocalNode;

/// Everything but the flows one by one. A manager adds how new its store is.
pub(super) async fn report(node: &LocalNode) -> Result<MeshReport, Error> {
    let member = node.member().await;
    let member = member.as_ref().ok_or_else(Error::no_mesh)?;
    let mut report = member.agent.mesh().await.map_err(|e| refusal(&e))?;
    if let Some(seat) = &member.seat {
        // Managers hold one log; one of them that lags is not a node that differs.
        let version = seat.store().view(|tables| tables.version().0);
        report.tables.push(SeenTable { table: "store", version, fingerprint: None });
    }
    Ok(report)
}

/// Flows that the node remembers.
pub(super) async fn flows(node: &LocalNode, filter: FlowFilter) -> Result<FlowList, Error> {
    let member = node.member().await;
    member.as_ref().ok_or_else(Error::no_mesh)?.agent.flows(filter).await.map_err(|e| refusal(&e))
}

/// What would become of a connection.
pub(super) async fn trace(node: &LocalNode, question: TraceQuestion) -> Result<TraceReport, Error> {
    let member = node.member().await;
    member.as_ref().ok_or_else(Error::no_mesh)?.agent.trace(question).await.map_err(|e| refusal(&e))
}

fn refusal(error: &AgentError) -> Error {
    let kind = match error {
        AgentError::NoMesh => ErrorKind::Unavailable,
        _ => ErrorKind::Unknown,
    };
    Error::new(kind, error.to_string())
}
