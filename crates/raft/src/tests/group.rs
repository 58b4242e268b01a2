//! Three members over TCP.

use std::time::{Duration, Instant};

use openraft::SnapshotPolicy;
use skep_store::ProposeError;
use tempfile::{TempDir, tempdir};

use super::rig::{Member, PATIENCE, propose};
use crate::Leadership;

pub(super) const IDS: [u64; 3] = [11, 22, 33];

pub(super) async fn three(policy: &SnapshotPolicy) -> (Vec<TempDir>, Vec<Member>) {
    let dirs: Vec<_> = IDS.iter().map(|_| tempdir().unwrap()).collect();
    let mut members = Vec::new();
    for (dir, id) in dirs.iter().zip(IDS) {
        members.push(Member::start(dir.path(), id, None, policy.clone()).await);
    }
    members[0].raft.initialize().await.unwrap();
    for member in &members[1..] {
        members[0].raft.add_member(member.raft.raft_id(), member.addr).await.unwrap();
    }
    assert_eq!(members[0].raft.members().into_keys().collect::<Vec<_>>(), IDS);
    (dirs, members)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_leader_acknowledges_reaches_all_and_followers_say_who_leads() {
    let (_dirs, members) = three(&SnapshotPolicy::Never).await;
    let (node, _) = propose(&members[0].raft).await.unwrap();
    for member in &members {
        member.knows(&node).await;
    }
    let follows = Leadership::Follower { leader: IDS[0], addr: members[0].addr };
    for member in &members[1..] {
        let mut leadership = member.raft.leadership();
        tokio::time::timeout(PATIENCE, leadership.wait_for(|l| *l == follows)).await.unwrap().unwrap();
        let began = Instant::now();
        assert_eq!(propose(&member.raft).await.unwrap_err(), ProposeError::NoLeader);
        assert!(began.elapsed() < Duration::from_millis(100));
    }
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaders_loss_is_survived_and_the_lost_one_catches_up() {
    let (dirs, mut members) = three(&SnapshotPolicy::Never).await;
    let (before, _) = propose(&members[0].raft).await.unwrap();
    let lost = members.remove(0);
    let addr = lost.addr;
    lost.stop().await;

    let leads = futures::future::select_all(members.iter().map(|member| Box::pin(member.leads())));
    let (_, leader, rest) = leads.await;
    drop(rest);
    let (after, _) = propose(&members[leader].raft).await.unwrap();
    for member in &members {
        member.knows(&before).await;
        member.knows(&after).await;
    }

    let back = Member::start(dirs[0].path(), IDS[0], Some(addr), SnapshotPolicy::Never).await;
    back.knows(&before).await;
    back.knows(&after).await;
    members.push(back);
    for member in members {
        member.stop().await;
    }
}

/// What it knows as committed may be less than it acknowledged before: only an entry of a new term makes up for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_restarts_stands_for_election_before_it_leads() {
    let (dirs, mut members) = three(&SnapshotPolicy::Never).await;
    let term = members[0].leads().await;
    propose(&members[0].raft).await.unwrap();
    let lost = members.remove(0);
    let addr = lost.addr;
    lost.stop().await;
    members.push(Member::start(dirs[0].path(), IDS[0], Some(addr), SnapshotPolicy::Never).await);
    let leads = futures::future::select_all(members.iter().map(|member| Box::pin(member.leads())));
    let (later, _, rest) = leads.await;
    drop(rest);
    assert!(later > term, "{later}");
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_missed_more_than_the_log_keeps_is_sent_a_snapshot() {
    let policy = SnapshotPolicy::LogsSinceLast(10);
    let (dirs, mut members) = three(&policy).await;
    let lost = members.pop().unwrap();
    let addr = lost.addr;
    lost.stop().await;
    let mut nodes = Vec::new();
    for _ in 0..60 {
        nodes.push(propose(&members[0].raft).await.unwrap().0);
    }
    let mut back = Member::start(dirs[2].path(), IDS[2], Some(addr), SnapshotPolicy::Never).await;
    for node in &nodes {
        back.knows(node).await;
    }
    // It made no snapshot itself: whoever watches it is told of one only if it was sent one.
    let told = async { while back.events.next().await.unwrap().is_ok() {} };
    tokio::time::timeout(PATIENCE, told).await.expect("it should have been sent a snapshot");
    members.push(back);
    for member in members {
        member.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_without_a_majority_stops_leading_and_refuses_at_once() {
    let (_dirs, mut members) = three(&SnapshotPolicy::Never).await;
    for lost in members.split_off(1) {
        lost.stop().await;
    }
    let alone = &members[0].raft;
    let mut leadership = alone.leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(|l| *l == Leadership::Unknown)).await.unwrap().unwrap();
    let began = Instant::now();
    assert_eq!(propose(alone).await.unwrap_err(), ProposeError::NoLeader);
    assert!(began.elapsed() < Duration::from_millis(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_removes_itself_hands_over() {
    let (_dirs, members) = three(&SnapshotPolicy::Never).await;
    members[0].raft.remove_member(IDS[0]).await.unwrap();
    let leads = futures::future::select_all(members[1..].iter().map(|member| Box::pin(member.leads())));
    let (_, leader, rest) = leads.await;
    drop(rest);
    let (node, _) = propose(&members[1 + leader].raft).await.unwrap();
    for member in &members[1..] {
        member.knows(&node).await;
    }
    assert_eq!(members[1 + leader].raft.members().into_keys().collect::<Vec<_>>(), IDS[1..]);
    for member in members {
        member.stop().await;
    }
}
