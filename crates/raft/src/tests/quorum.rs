//! What is promised when members are lost: nobody hangs, and soon another one leads.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use openraft::SnapshotPolicy;
use skep_store::ProposeError;

use super::group::{IDS, three};
use super::rig::{Member, PATIENCE, propose};
use crate::{Leadership, RaftError, Reachability};

/// How long a proposal, or a question who leads, may be without an answer: promised to the API.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a group of three may be without a leader that commits after the one it had is lost.
const FAILOVER: Duration = Duration::from_secs(3);
const TRIES: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_whose_majority_is_lost_meanwhile_is_answered_soon_and_not_as_refused() {
    let (_dirs, mut members) = three(&SnapshotPolicy::Never).await;
    members[0].leads().await;
    for lost in members.split_off(1) {
        lost.stop().await;
    }
    let alone = &members[0].raft;
    let began = Instant::now();
    // It leads still, as far as it knows: the entry is in its log and may be committed one day.
    assert_eq!(propose(alone).await.unwrap_err(), ProposeError::Unknown);
    assert!(began.elapsed() < ANSWER, "{:?}", began.elapsed());
    assert_eq!(*alone.leadership().borrow(), Leadership::Unknown);
    assert_eq!(propose(alone).await.unwrap_err(), ProposeError::NoLeader);
    assert_eq!(alone.confirm().await.unwrap_err(), RaftError::NotLeader);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_without_a_leader_says_so() {
    let (_dirs, mut members) = three(&SnapshotPolicy::Never).await;
    let follower = members.pop().unwrap();
    let mut leadership = follower.raft.leadership();
    let follows = leadership.wait_for(|now| matches!(now, Leadership::Follower { .. }));
    drop(tokio::time::timeout(PATIENCE, follows).await.unwrap().unwrap());
    for lost in members {
        lost.stop().await;
    }
    let leaderless = leadership.wait_for(|now| *now == Leadership::Unknown);
    drop(tokio::time::timeout(PATIENCE, leaderless).await.unwrap().unwrap());
    assert_eq!(propose(&follower.raft).await.unwrap_err(), ProposeError::NoLeader);
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_knows_who_answers() {
    let (_dirs, mut members) = three(&SnapshotPolicy::Never).await;
    members[0].leads().await;
    reaches(&members[0], [Reachability::Reachable; 3]).await;
    // It is told of the others by the leader, and knows of itself alone whether it answers.
    reaches(&members[2], [Reachability::Unknown, Reachability::Unknown, Reachability::Reachable]).await;
    members.pop().unwrap().stop().await;
    reaches(&members[0], [Reachability::Reachable, Reachability::Reachable, Reachability::Unreachable]).await;
}

async fn reaches(member: &Member, expected: [Reachability; 3]) {
    let expected: BTreeMap<u64, Reachability> = IDS.into_iter().zip(expected).collect();
    let deadline = Instant::now() + PATIENCE;
    while member.raft.reachable() != expected {
        assert!(Instant::now() < deadline, "{:?}", member.raft.reachable());
        // There is nothing to wait for: that an answer is missing is told by the clock alone.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_again_and_again_whether_it_leads_does_not_connect_each_time() {
    let (_dirs, members) = three(&SnapshotPolicy::Never).await;
    members[0].leads().await;
    propose(&members[0].raft).await.unwrap();
    let before = connections(&members);
    for _ in 0..100 {
        members[0].raft.confirm().await.unwrap();
    }
    // What was closed is counted too: it lingers.
    let after = connections(&members);
    assert!(before > 0 && after < before + 20, "{before} connections before, {after} after");
}

/// How many TCP connections there are to these members, closed ones that linger among them.
fn connections(members: &[Member]) -> usize {
    let ports: Vec<String> = members.iter().map(|member| format!(":{:04X} ", member.addr.port())).collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    table.lines().filter(|line| ports.iter().any(|port| line.contains(port))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn soon_after_the_leader_is_lost_another_one_has_committed() {
    let (dirs, mut members) = three(&SnapshotPolicy::Never).await;
    members[0].leads().await;
    let mut leader = 0;
    let mut took = Vec::new();
    for _ in 0..TRIES {
        let lost = members.remove(leader);
        let (id, addr) = (lost.raft.raft_id(), lost.addr);
        let began = Instant::now();
        lost.stop().await;
        leader = committed_by(&members).await;
        took.push(began.elapsed());
        let dir = &dirs[IDS.iter().position(|known| *known == id).unwrap()];
        members.push(Member::start(dir.path(), id, Some(addr), SnapshotPolicy::Never).await);
        let (node, _) = propose(&members[leader].raft).await.unwrap();
        members.last().unwrap().knows(&node).await;
    }
    took.sort();
    let (median, worst) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "{TRIES} times the leader was lost: another one had committed after {median:?} (median), {worst:?} (worst)"
    );
    assert!(worst <= FAILOVER, "{took:?}");
}

/// Waits until one of the members has committed something; which.
async fn committed_by(members: &[Member]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let leads = members.iter().map(|member| Box::pin(member.leads()));
        let (_, leader, rest) = futures::future::select_all(leads).await;
        drop(rest);
        match propose(&members[leader].raft).await {
            Ok(_) => return leader,
            // It lost the office again at once.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}
