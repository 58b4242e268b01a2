//! A group of one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use openraft::SnapshotPolicy;
use skep_model::Node;
use skep_store::{Log, Proposal, ProposeError, Store};
use tempfile::tempdir;

use super::rig::{Member, config, eventually, node, proposal, propose, start_when_free};
use crate::{Leadership, Raft, RaftError};

fn nowhere() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_alone_leads_at_once_and_commits() {
    let dir = tempdir().unwrap();
    let store = Store::default();
    let raft = Raft::start(config(dir.path(), 7, nowhere()), store.clone()).await.unwrap();
    assert!(!raft.is_initialized().await.unwrap());
    assert_eq!(propose(&raft).await.unwrap_err(), ProposeError::NoLeader);
    let began = Instant::now();
    raft.initialize().await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    let (id, version) = propose(&raft).await.unwrap();
    assert_eq!(store.view(|t| (t.get::<Node>(&id).is_some(), t.version())), (true, version));
    assert_eq!(raft.members().into_iter().collect::<Vec<_>>(), [(7, nowhere().to_string())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_initialisation_is_refused_also_after_a_restart() {
    let dir = tempdir().unwrap();
    let config = config(dir.path(), 7, nowhere());
    let raft = Raft::start(config.clone(), Store::default()).await.unwrap();
    raft.initialize().await.unwrap();
    assert_eq!(raft.initialize().await.unwrap_err(), RaftError::AlreadyInitialized);
    raft.shutdown().await;
    let raft = Raft::start(config, Store::default()).await.unwrap();
    assert!(raft.is_initialized().await.unwrap());
    assert_eq!(raft.initialize().await.unwrap_err(), RaftError::AlreadyInitialized);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_without_shutdown_it_still_has_every_acknowledged_proposal() {
    let dir = tempdir().unwrap();
    let config = config(dir.path(), 7, nowhere());
    let raft = Raft::start(config.clone(), Store::default()).await.unwrap();
    raft.initialize().await.unwrap();
    let mut acknowledged = Vec::new();
    let mut last = None;
    for round in 0..5 {
        let store = Store::default();
        let raft = if round == 0 {
            raft.clone()
        } else {
            let began = Instant::now();
            let raft = start_when_free(config.clone(), store.clone()).await.unwrap();
            let mut leadership = raft.leadership();
            leadership.wait_for(Leadership::is_leader).await.unwrap();
            tracing::info!(took = ?began.elapsed(), "restarted");
            // What leads shows everything: no waiting here.
            for id in &acknowledged {
                assert!(store.view(|t| t.get::<Node>(id).is_some()), "round {round} lost a node");
            }
            assert_eq!(Some(store.view(skep_store::Tables::version)), last);
            raft
        };
        for _ in 0..20 {
            let (id, version) = propose(&raft).await.unwrap();
            acknowledged.push(id);
            last = Some(version);
        }
        if round == 0 {
            raft.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_alone_it_leads_well_before_an_election_could_time_out() {
    let dir = tempdir().unwrap();
    let config = config(dir.path(), 7, nowhere());
    let raft = Raft::start(config.clone(), Store::default()).await.unwrap();
    raft.initialize().await.unwrap();
    propose(&raft).await.unwrap();
    raft.shutdown().await;
    let raft = Raft::start(config, Store::default()).await.unwrap();
    let began = Instant::now();
    raft.leadership().wait_for(Leadership::is_leader).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_replace_the_log_and_a_restart_begins_with_one() {
    let dir = tempdir().unwrap();
    let policy = || SnapshotPolicy::LogsSinceLast(20);
    let member = Member::start(dir.path(), 7, None, policy()).await;
    member.raft.initialize().await.unwrap();
    let mut nodes = Vec::new();
    for _ in 0..95 {
        nodes.push(propose(&member.raft).await.unwrap().0);
    }
    let version = member.store.view(skep_store::Tables::version);
    let addr = member.addr;
    member.stop().await;
    let snapshots = std::fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("snap-"));
    assert_eq!(snapshots.count(), 1, "older snapshots should be gone");

    let member = Member::start(dir.path(), 7, Some(addr), policy()).await;
    member.leads().await;
    assert_eq!(member.store.view(skep_store::Tables::version), version);
    assert!(nodes.iter().all(|id| member.store.view(|t| t.get::<Node>(id).is_some())));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_was_planned_on_another_version_is_not_applied() {
    let dir = tempdir().unwrap();
    let store = Store::default();
    let raft = Raft::start(config(dir.path(), 7, nowhere()), store.clone()).await.unwrap();
    raft.initialize().await.unwrap();
    let base = store.view(skep_store::Tables::version);
    propose(&raft).await.unwrap();
    let late = node();
    let outdated = raft.propose(Proposal { base: Some(base), ..proposal(&late) }).await;
    assert_eq!(outdated.unwrap_err(), ProposeError::Outdated(skep_store::Outdated));
    propose(&raft).await.unwrap();
    eventually(&store, |t| t.all::<Node>().len() == 2).await;
    assert!(store.view(|t| t.get::<Node>(&late.id).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_serves_one_member_at_a_time_and_only_its_own() {
    let dir = tempdir().unwrap();
    let raft = Raft::start(config(dir.path(), 7, nowhere()), Store::default()).await.unwrap();
    let path = dir.path().join("log.redb");
    let second = Raft::start(config(dir.path(), 7, nowhere()), Store::default()).await;
    assert_eq!(second.err(), Some(RaftError::LogInUse { path: path.clone() }));
    raft.shutdown().await;
    let other = Raft::start(config(dir.path(), 8, nowhere()), Store::default()).await;
    assert_eq!(other.err(), Some(RaftError::OtherMember { path, stored: 7, given: 8 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_was_shut_down_says_so() {
    let dir = tempdir().unwrap();
    let raft = Raft::start(config(dir.path(), 7, nowhere()), Store::default()).await.unwrap();
    raft.initialize().await.unwrap();
    raft.shutdown().await;
    let mut leadership = raft.leadership();
    let stopped = leadership.wait_for(|l| matches!(l, Leadership::Stopped(_)));
    tokio::time::timeout(super::rig::PATIENCE, stopped).await.unwrap().unwrap();
    assert!(matches!(propose(&raft).await, Err(ProposeError::Fatal(_))));
}
