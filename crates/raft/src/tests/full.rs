//! A disk that is full: on a small file system of the test's own, which takes root.

use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use openraft::SnapshotPolicy;
use skep_model::{Node, NodeId};
use skep_store::{Log, ProposeError, Store};
use tempfile::tempdir;

use super::rig::{PATIENCE, config, node, proposal};
use crate::{Leadership, Raft, RaftError};

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

/// Proposes nodes with long names until the disk is full; those that were acknowledged, and the error.
async fn fill(raft: &Raft) -> (Vec<NodeId>, ProposeError) {
    let mut acknowledged = Vec::new();
    loop {
        let node = Node { credential: "c".repeat(50_000), ..node() };
        let id = node.id.clone();
        match raft.propose(proposal(&node)).await {
            Ok(_) => acknowledged.push(id),
            Err(error) => return (acknowledged, error),
        }
        assert!(acknowledged.len() < 1000, "the disk should be full by now");
    }
}

/// Fills the disk while snapshots are made by this policy, makes room, and starts again.
fn full_and_back(policy: SnapshotPolicy) {
    let dir = tempdir().unwrap();
    small_disk(dir.path());
    // Room that can be made.
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let own = config(&dir.path().join("raft"), 7, "127.0.0.1:1".parse().unwrap());

    let acknowledged = runtime().block_on(async {
        let raft = Raft::start_with(own.clone(), Store::default(), policy, 5).await.unwrap();
        raft.initialize().await.unwrap();
        let (acknowledged, error) = fill(&raft).await;
        let said = |text: &str| text.starts_with("no space is left for") && text.contains("make room and restart");
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
        raft.led().await.unwrap();
        for id in &acknowledged {
            assert!(store.view(|tables| tables.get::<Node>(id).is_some()), "{id} was acknowledged and is gone");
        }
        raft.propose(proposal(&node())).await.unwrap();
        raft.shutdown().await;
    });
    println!("{} acknowledged proposals survived a full disk", acknowledged.len());
}

#[test]
fn a_disk_that_fills_up_with_the_log_stops_the_member_and_loses_nothing() {
    full_and_back(SnapshotPolicy::Never);
}

#[test]
fn a_disk_that_fills_up_with_snapshots_stops_the_member_and_loses_nothing() {
    full_and_back(SnapshotPolicy::LogsSinceLast(5));
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
        let own = config(&dir.path().join("raft"), 7, "127.0.0.1:1".parse().unwrap());
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
