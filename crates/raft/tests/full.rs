//! A disk that is full: on a small file system of the test's own, which takes root.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use skep_ca::{NodeCredentials, NodeKeys, PeerIdentity, RootCa, Roots};
use skep_model::{Availability, ClusterId, Meta, Node, NodeId, NodeSpec, NodeState, NodeStatus, Role, Timestamp};
use skep_raft::{Leadership, Raft, RaftConfig, RaftError};
use skep_rpc::NodeIdentity;
use skep_store::{Change, Log, Proposal, ProposeError, Store};
use tempfile::tempdir;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How large the file system is. A new log takes a good part of it.
const SIZE: &str = "size=4m";

/// Gives this thread, and all that it starts from now on, mounts of their own, and a small file system on `dir`.
fn small_disk(dir: &Path) {
    let root = "this test mounts a file system: run it as root";
    unshare(CloneFlags::CLONE_NEWNS).expect(root);
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect(root);
    mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), Some(SIZE)).expect(root);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn config(dir: &Path) -> RaftConfig {
    let root = RootCa::generate(Timestamp::now()).unwrap();
    let keys = NodeKeys::generate().unwrap();
    let identity = PeerIdentity { cluster: ClusterId::random(), node: NodeId::random(), role: Role::Manager };
    let chain = root.sign_own(&keys, &identity, Timestamp::now()).unwrap();
    let roots = Roots::new(vec![root.certificate().clone()]).unwrap();
    let identity = NodeIdentity::new(NodeCredentials::new(keys, &chain, roots).unwrap()).unwrap();
    RaftConfig { dir: dir.join("raft"), raft_id: 7, addr: "127.0.0.1:1".parse().unwrap(), identity, unlock_key: None }
}

fn node() -> Node {
    // Nothing that could be compressed much.
    let credential = (0..800).map(|_| NodeId::random().to_string()).collect();
    let spec = NodeSpec { name: None, labels: [].into(), role: Role::Worker, availability: Availability::Active };
    let status = NodeStatus {
        state: NodeState::Unknown,
        message: String::new(),
        addr: None,
        port_conflicts: Vec::new(),
        machine_answers: false,
    };
    Node {
        id: NodeId::random(),
        meta: Meta::new(Timestamp::UNIX_EPOCH),
        spec,
        description: None,
        status,
        manager: None,
        overlay_addr: None,
        credential,
    }
}

async fn propose(raft: &Raft) -> Result<NodeId, ProposeError> {
    let node = node();
    let id = node.id.clone();
    let proposal = Proposal { base: None, now: Timestamp::UNIX_EPOCH, changes: vec![Change::from(node)] };
    raft.propose(proposal).await.map(|_| id)
}

async fn led(raft: &Raft) {
    let mut leadership = raft.leadership();
    let leading = leadership.wait_for(Leadership::is_leader);
    drop(tokio::time::timeout(PATIENCE, leading).await.expect("it should lead by now").unwrap());
}

/// Proposes nodes until the disk is full; those that were acknowledged, and the error.
async fn fill(raft: &Raft) -> (Vec<NodeId>, ProposeError) {
    let mut acknowledged = Vec::new();
    loop {
        match propose(raft).await {
            Ok(id) => acknowledged.push(id),
            Err(error) => return (acknowledged, error),
        }
        assert!(acknowledged.len() < 1000, "the disk should be full by now");
    }
}

/// Fills the disk while snapshots are made each so many entries, until there is no room for one of `what`; makes room, and starts again.
fn full_and_back(interval: u64, what: &[&str]) {
    let dir = tempdir().unwrap();
    small_disk(dir.path());
    // Room that can be made.
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let own = config(dir.path());

    let acknowledged = runtime().block_on(async {
        let interval = NonZeroU64::new(interval).unwrap();
        let raft = Raft::start_with_snapshots(own.clone(), Store::default(), interval).await.unwrap();
        raft.initialize().await.unwrap();
        let (acknowledged, error) = fill(&raft).await;
        let said = |text: &str| {
            text.starts_with("no space is left for")
                && what.iter().any(|what| text.contains(what))
                && text.contains("make room and restart")
        };
        assert!(matches!(&error, ProposeError::Fatal(why) if said(why)), "{error}");
        let mut leadership = raft.leadership();
        let stopping = leadership.wait_for(|l| matches!(l, Leadership::Stopped(why) if said(why)));
        drop(tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap());
        raft.shutdown().await;
        acknowledged
    });
    assert!(!acknowledged.is_empty());

    std::fs::remove_file(&ballast).unwrap();
    runtime().block_on(async {
        let store = Store::default();
        let raft = Raft::start(own, store.clone()).await.unwrap();
        led(&raft).await;
        for id in &acknowledged {
            assert!(store.view(|tables| tables.get::<Node>(id).is_some()), "{id} was acknowledged and is gone");
        }
        propose(&raft).await.unwrap();
        raft.shutdown().await;
    });
    println!("{} acknowledged proposals survived a full disk", acknowledged.len());
}

#[test]
fn a_disk_that_fills_up_with_the_log_stops_the_member_and_loses_nothing() {
    full_and_back(10_000, &["log.redb"]);
}

#[test]
fn a_disk_that_fills_up_with_snapshots_stops_the_member_and_loses_nothing() {
    // A snapshot is written beside the log: which of the two meets the end of the disk is decided by the moment.
    full_and_back(5, &["snap.new", "log.redb"]);
}

#[test]
fn a_member_that_finds_no_room_at_its_start_says_so() {
    let dir = tempdir().unwrap();
    small_disk(dir.path());
    let ballast = dir.path().join("ballast");
    // From nothing, by enough for the key and a part of the log, to enough.
    let mut refused = 0;
    for room in (0..128).step_by(8).map(|kib| kib << 10) {
        let full = std::fs::write(&ballast, vec![0; 5 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
        let file = std::fs::File::options().write(true).open(&ballast).unwrap();
        file.set_len(file.metadata().unwrap().len() - room).unwrap();
        drop(file);
        let own = config(dir.path());
        let started = runtime().block_on(async {
            let raft = Raft::start(own.clone(), Store::default()).await?;
            raft.shutdown().await;
            Ok(())
        });
        if let Err(error) = started {
            assert!(matches!(error, RaftError::DiskFull { .. }), "{room} bytes: {error}");
            refused += 1;
        }
        std::fs::remove_file(&ballast).unwrap();
        runtime().block_on(async {
            let raft = Raft::start(own.clone(), Store::default()).await.unwrap();
            raft.initialize().await.unwrap();
            raft.shutdown().await;
        });
        std::fs::remove_dir_all(&own.dir).unwrap();
    }
    assert!(refused > 1, "{refused}");
}
