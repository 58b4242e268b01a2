//! One member goes on alone when the others are lost.

use std::time::Duration;

use openraft::SnapshotPolicy;
use skep_model::{Node, NodeId};
use skep_store::{ProposeError, Store, Tables};
use tempfile::tempdir;

use super::group::{IDS, three};
use super::rig::{Member, PATIENCE, config, propose};
use crate::{Leadership, Raft, RaftError};

#[tokio::test(flavor = "multi_thread")]
async fn the_last_member_recovers_everything_and_grows_to_three_again() {
    for policy in [SnapshotPolicy::Never, SnapshotPolicy::LogsSinceLast(10)] {
        let (mut dirs, mut members) = three(&policy).await;
        let mut nodes = Vec::new();
        for _ in 0..30 {
            nodes.push(propose(&members[0].raft).await.unwrap().0);
        }
        for lost in members.split_off(1) {
            lost.stop().await;
            drop(dirs.pop());
        }
        // It leads still, as far as it knows, and has this in its log alone.
        assert_eq!(propose(&members[0].raft).await.unwrap_err(), ProposeError::Unknown);
        members.pop().unwrap().stop().await;

        recover(dirs[0].path(), &nodes).await;
        let first = Member::start(dirs[0].path(), IDS[0], None, policy.clone()).await;
        first.leads().await;
        let mut members = vec![first];
        for id in [44, 55] {
            let dir = tempdir().unwrap();
            let member = Member::start(dir.path(), id, None, policy.clone()).await;
            members[0].raft.add_member(id, member.addr).await.unwrap();
            dirs.push(dir);
            members.push(member);
        }
        let (after, _) = propose(&members[0].raft).await.unwrap();
        for member in &members {
            for node in nodes.iter().chain([&after]) {
                member.knows(node).await;
            }
        }
        for member in members {
            member.stop().await;
        }
    }
}

/// Recovers the member and checks that it leads with all these nodes and the one that nobody acknowledged.
async fn recover(dir: &std::path::Path, nodes: &[NodeId]) {
    let store = Store::default();
    let config = config(dir, IDS[0], "127.0.0.1:1".parse().unwrap());
    let raft = Raft::recover_alone(config, store.clone()).await.unwrap();
    assert_eq!(raft.members().into_keys().collect::<Vec<_>>(), [IDS[0]]);
    let known = |tables: &Tables| nodes.iter().filter(|id| tables.get::<Node>(id).is_some()).count();
    assert_eq!(store.view(known), nodes.len());
    assert_eq!(store.view(|tables| tables.all::<Node>().len()), nodes.len() + 1);
    propose(&raft).await.unwrap();
    raft.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn former_members_that_come_back_do_not_disturb_the_recovered_one() {
    let (dirs, mut members) = three(&SnapshotPolicy::Never).await;
    let (before, _) = propose(&members[0].raft).await.unwrap();
    let addrs: Vec<_> = members.iter().map(|member| member.addr).collect();
    for member in &members {
        member.knows(&before).await;
    }
    for member in members.drain(..) {
        member.stop().await;
    }
    let config = config(dirs[0].path(), IDS[0], addrs[0]);
    Raft::recover_alone(config, Store::default()).await.unwrap().shutdown().await;
    let recovered = Member::start(dirs[0].path(), IDS[0], Some(addrs[0]), SnapshotPolicy::Never).await;
    let term = recovered.leads().await;

    // The other two are a majority of the old group: they elect a leader in a later term, who calls all three.
    for (dir, (id, addr)) in dirs.iter().zip(IDS.into_iter().zip(&addrs)).skip(1) {
        members.push(Member::start(dir.path(), id, Some(*addr), SnapshotPolicy::Never).await);
    }
    let leads = futures::future::select_all(members.iter().map(|member| Box::pin(member.leads())));
    let (_, theirs, rest) = tokio::time::timeout(PATIENCE, leads).await.unwrap();
    drop(rest);
    let (stranger, _) = propose(&members[theirs].raft).await.unwrap();
    // Long enough for a few elections and dozens of calls, if they were listened to.
    let disturbed =
        async { recovered.raft.leadership().wait_for(|l| *l != (Leadership::Leader { term })).await.map(drop) };
    assert!(tokio::time::timeout(Duration::from_secs(3), disturbed).await.is_err(), "it should lead on");
    let (own, _) = propose(&recovered.raft).await.unwrap();
    assert!(recovered.store.view(|tables| tables.get::<Node>(&stranger).is_none()));
    for member in members {
        assert!(member.store.view(|tables| tables.get::<Node>(&own).is_none()));
        member.stop().await;
    }
    recovered.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_no_member_or_runs_is_not_recovered() {
    let dir = tempdir().unwrap();
    let own = config(dir.path(), 7, "127.0.0.1:1".parse().unwrap());
    let nothing = Some(RaftError::NothingToRecover { path: dir.path().to_owned() });
    assert_eq!(Raft::recover_alone(own.clone(), Store::default()).await.err(), nothing);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it should not have made anything");
    let raft = Raft::start(own.clone(), Store::default()).await.unwrap();
    let path = dir.path().join("log.redb");
    assert_eq!(Raft::recover_alone(own.clone(), Store::default()).await.err(), Some(RaftError::LogInUse { path }));
    raft.shutdown().await;
    assert_eq!(Raft::recover_alone(own, Store::default()).await.err(), nothing);
}
