//! Replaces the root of the swarm's certificates, once somebody has asked for that ([`skep_model::Rotation`]).
//!
//! First the nodes are told to trust the new root beside the old one. When all that are in reach say that they do, the new root issues, and every node
//! is told to get itself a certificate under it. When all of them say that they have one, also those that were away, the old root is forgotten.
//! What a node says of itself is in its description, so that a leader needs to know nothing of what the one before has seen.
//!
//! At no time is there a node that does not recognize another one: all trust the old root until nobody needs that any more, whatever a node
//! shows is under a root that it trusts, and what is under the new root comes with what the old one has said of it
//! ([`skep_model::Rotation::vouched`]).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use skep_ca::new_secret;
use skep_model::{Authority, Cluster, JoinSecrets, Node, NodeState, Rotation, RotationStage};
use skep_store::{Event, Events, Lagged, Object, Tables, Writer};
use tokio::sync::watch;
use tracing::{info, warn};

#[cfg(test)]
mod tests;

/// How often it is looked when nothing happens, and the log told who is waited for.
const LOOK: Duration = Duration::from_secs(10);
/// Nodes that are named before it becomes "and so many more".
const NAMED: usize = 5;
/// Pause after a commit failed.
const RETRY: Duration = Duration::from_millis(200);

/// The cluster one stage further; `None` while nodes are waited for, or when no root is being replaced.
pub(crate) fn next(tables: &Tables) -> Option<Cluster> {
    let cluster = tables.cluster()?;
    let rotation = cluster.authority.rotation.as_ref()?;
    if !awaited(tables, rotation).is_empty() {
        return None;
    }
    let cluster = Cluster::clone(cluster);
    Some(match rotation.stage {
        RotationStage::Announced => {
            let rotation = Some(Rotation { stage: RotationStage::Issuing, ..rotation.clone() });
            Cluster { authority: Authority { rotation, ..cluster.authority }, ..cluster }
        }
        RotationStage::Issuing => {
            let Rotation { certificate, key, .. } = rotation.clone();
            let authority = Authority { trusted: vec![certificate.clone()], certificate, key, rotation: None };
            // Whoever has seen a token of the old root has seen its secret too.
            let join = JoinSecrets { worker: new_secret(), manager: new_secret() };
            Cluster { authority, join, ..cluster }
        }
    })
}

/// Who has to say something before the next stage.
fn awaited<'a>(tables: &'a Tables, rotation: &Rotation) -> Vec<&'a Node> {
    let nodes = tables.all::<Node>().map(AsRef::as_ref);
    match rotation.stage {
        // One that is away has what the old root says of the new one, and goes by that when it is back.
        RotationStage::Announced => nodes.filter(|node| !is_away(node) && !rotation.is_trusted_by(node)).collect(),
        RotationStage::Issuing => nodes.filter(|node| !rotation.has_reached(node)).collect(),
    }
}

/// The names of those that are waited for.
fn names(tables: &Tables) -> Vec<String> {
    let rotation = tables.cluster().and_then(|cluster| cluster.authority.rotation.as_ref());
    let awaited = rotation.map(|rotation| awaited(tables, rotation)).unwrap_or_default();
    let mut names: Vec<_> = awaited.into_iter().map(|node| node.hostname().to_owned()).collect();
    names.sort();
    names
}

fn is_away(node: &Node) -> bool {
    matches!(node.status.state, NodeState::Down | NodeState::Disconnected)
}

/// Does what is due, while this manager leads. Ends when nobody can say any more whether it does.
pub(crate) async fn run(writer: Arc<Writer>, mut leading: watch::Receiver<bool>) {
    while leading.wait_for(|leads| *leads).await.is_ok() {
        let mut events = writer.store().watch();
        let mut said = Instant::now();
        loop {
            let failed = round(&writer).await;
            if said.elapsed() >= LOOK {
                say_who_is_awaited(&writer);
                said = Instant::now();
            }
            tokio::select! {
                // The guard that it returns must not be held over an await.
                lost = leading.wait_for(|leads| !*leads) => {
                    drop(lost);
                    break;
                }
                () = something_changes(&mut events), if !failed => {}
                () = tokio::time::sleep(if failed { RETRY } else { LOOK }) => {}
            }
        }
    }
}

/// Goes on as far as it can. Says whether it could not be written.
async fn round(writer: &Writer) -> bool {
    while writer.store().view(|tables| next(tables).is_some()) {
        let written = writer.update(|tables| {
            let next = next(tables);
            let stage = next.as_ref().map(|cluster| cluster.authority.rotation.as_ref().map(|rotation| rotation.stage));
            Ok::<_, Infallible>((stage, next.map(Into::into).into_iter().collect()))
        });
        match written.await {
            Ok(Some(Some(_))) => info!("the new root certificate issues: every node gets a certificate under it"),
            Ok(Some(None)) => info!("the root certificate is replaced: every node has a certificate under the new one"),
            Ok(None) => {}
            Err(error) => {
                warn!("cannot go on replacing the root certificate, trying again: {error}");
                return true;
            }
        }
    }
    false
}

fn say_who_is_awaited(writer: &Writer) {
    let awaited = writer.store().view(names);
    let named = awaited.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match awaited.len() {
        0 => {}
        1..=NAMED => info!("the root certificate is being replaced: waiting for {named}"),
        all => info!("the root certificate is being replaced: waiting for {named} and {} more nodes", all - NAMED),
    }
}

async fn something_changes(events: &mut Events) {
    let matters = |event: &Event| matches!(event.object, Object::Node(_) | Object::Cluster(_));
    loop {
        match events.next().await {
            Some(Ok(batch)) if !batch.iter().any(matters) => {}
            Some(Ok(_) | Err(Lagged)) | None => return,
        }
    }
}
