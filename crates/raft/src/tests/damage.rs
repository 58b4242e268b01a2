//! Files that are not what was written.

use std::path::{Path, PathBuf};

use openraft::SnapshotPolicy;
use proptest::prelude::*;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use skep_model::Node;
use skep_store::{Store, Tables};
use tempfile::{TempDir, tempdir};

use super::rig::{config, node, propose};
use crate::log::{LogStore, Order};
use crate::machine::Machine;
use crate::types::{LogId, SnapshotMeta};
use crate::{Raft, RaftError, Vault, snapshot};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The directory of a member that has committed so many proposals, and what they made.
fn written(proposals: usize, policy: SnapshotPolicy) -> (TempDir, Vec<skep_model::NodeId>) {
    let dir = tempdir().unwrap();
    let nodes = runtime().block_on(async {
        let config = config(dir.path(), 7, "127.0.0.1:1".parse().unwrap());
        let raft = Raft::start_with(config, Store::default(), policy, 5).await.unwrap();
        raft.initialize().await.unwrap();
        let mut nodes = Vec::new();
        for _ in 0..proposals {
            nodes.push(propose(&raft).await.unwrap().0);
        }
        raft.shutdown().await;
        nodes
    });
    (dir, nodes)
}

fn snapshot_in(dir: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("snap-")).expect("there is a snapshot")
}

/// Starts a member on a copy of `dir` in which `file` holds `bytes`; what it then knows.
fn start_on(dir: &Path, file: &Path, bytes: &[u8]) -> Result<Vec<skep_model::NodeId>, RaftError> {
    let copy = tempdir().unwrap();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    std::fs::write(copy.path().join(file.file_name().unwrap()), bytes).unwrap();
    let store = Store::default();
    runtime().block_on(async {
        let raft = Raft::start(config(copy.path(), 7, "127.0.0.1:1".parse().unwrap()), store.clone()).await?;
        raft.led().await?;
        raft.shutdown().await;
        Ok(store.view(|t| t.all::<Node>().map(|node| node.id.clone()).collect()))
    })
}

#[test]
fn a_damaged_snapshot_that_the_log_cannot_replace_is_refused_by_name() {
    let (dir, _) = written(60, SnapshotPolicy::LogsSinceLast(20));
    let path = snapshot_in(dir.path());
    let good = std::fs::read(&path).unwrap();
    for at in [0, 25, 60, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let error = start_on(dir.path(), &path, &bad).unwrap_err();
        assert!(
            matches!(&error, RaftError::SnapshotDamaged { path: named, .. } if named.file_name() == path.file_name()),
            "{error}"
        );
    }
    for length in [0, 10, 40, good.len() / 2, good.len() - 1] {
        let error = start_on(dir.path(), &path, &good[..length]).unwrap_err();
        assert!(matches!(error, RaftError::SnapshotDamaged { .. }), "{error}");
    }
}

#[test]
fn a_missing_snapshot_is_noticed() {
    let (dir, _) = written(60, SnapshotPolicy::LogsSinceLast(20));
    std::fs::remove_file(snapshot_in(dir.path())).unwrap();
    let (log, _) = LogStore::open(dir.path(), 7, None, Order::Checked).unwrap();
    let error = Machine::open(dir.path(), Store::default(), &log).err().unwrap();
    assert!(matches!(error, RaftError::SnapshotMissing { .. }), "{error}");
}

#[test]
fn a_damaged_snapshot_is_done_without_when_the_log_is_complete() {
    let (dir, mut nodes) = written(10, SnapshotPolicy::Never);
    let path = dir.path().join("snap-00000000000000000003");
    let mut known = start_on(dir.path(), &path, b"skep-raft-snapshot 2\nrubbish").unwrap();
    nodes.sort();
    known.sort();
    assert_eq!(known, nodes);
}

#[test]
fn what_a_crash_left_of_a_snapshot_is_ignored_and_removed() {
    let dir = tempdir().unwrap();
    let aside = dir.path().join("snap.new");
    std::fs::write(&aside, b"half a snapsh").unwrap();
    let vault = Vault::open_or_make(dir.path(), None).unwrap();
    assert!(snapshot::newest(dir.path(), &vault, None).unwrap().is_none());
    assert!(!aside.exists());
}

#[test]
fn of_two_snapshots_the_newer_good_one_is_used() {
    let dir = tempdir().unwrap();
    let at = |index| SnapshotMeta {
        last_log_id: Some(LogId::new(openraft::CommittedLeaderId::new(1, 7), index)),
        ..SnapshotMeta::default()
    };
    let vault = Vault::open_or_make(dir.path(), None).unwrap();
    let mut tables = Tables::default();
    for index in [10, 20] {
        tables.apply(super::rig::proposal(&node())).unwrap();
        let file = snapshot::encode(&at(index), &tables).unwrap();
        // In a directory of its own, because `save` removes the older one.
        let aside = tempdir().unwrap();
        let path = snapshot::save(aside.path(), &vault, &at(index), &file).unwrap();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let found = snapshot::newest(dir.path(), &vault, Some(5)).unwrap().unwrap();
    assert_eq!((found.meta, found.tables.all::<Node>().len()), (at(20), 2));
    std::fs::write(dir.path().join(format!("snap-{:020}", 20)), b"rubbish").unwrap();
    let found = snapshot::newest(dir.path(), &vault, Some(5)).unwrap().unwrap();
    assert_eq!((found.meta, found.tables.all::<Node>().len()), (at(10), 1));
    // The older one does not reach the log's beginning.
    let error = snapshot::newest(dir.path(), &vault, Some(15)).err().unwrap();
    assert!(matches!(error, RaftError::SnapshotDamaged { .. }), "{error}");
}

#[test]
fn a_log_that_is_none_or_is_cut_off_is_refused_by_name() {
    let (dir, _) = written(20, SnapshotPolicy::Never);
    let path = dir.path().join("log.redb");
    let good = std::fs::read(&path).unwrap();
    let rubbish = vec![0x5a; good.len()];
    for bad in [&rubbish[..], &b"not a log"[..], &good[..good.len() / 2], &good[..4096]] {
        let error = start_on(dir.path(), &path, bad).unwrap_err();
        assert!(matches!(&error, RaftError::LogDamaged { path, .. } if path.ends_with("log.redb")), "{error}");
    }
}

#[test]
fn a_log_that_is_missing_beside_its_snapshot_is_noticed() {
    let (dir, _) = written(60, SnapshotPolicy::LogsSinceLast(20));
    let path = dir.path().join("log.redb");
    std::fs::remove_file(&path).unwrap();
    let error = LogStore::open(dir.path(), 7, None, Order::Checked).err().unwrap();
    assert!(matches!(&error, RaftError::LogDamaged { path: named, .. } if *named == path), "{error}");
}

#[test]
fn a_snapshot_under_the_name_of_another_is_refused() {
    let (dir, _) = written(60, SnapshotPolicy::LogsSinceLast(20));
    let path = snapshot_in(dir.path());
    let other = dir.path().join("snap-00000000000000000999");
    std::fs::rename(&path, &other).unwrap();
    let error = Raft::start(config(dir.path(), 7, "127.0.0.1:1".parse().unwrap()), Store::default());
    let error = runtime().block_on(error).err().unwrap();
    assert!(matches!(&error, RaftError::SnapshotDamaged { path, .. } if *path == other), "{error}");
}

#[test]
fn two_values_that_changed_places_are_refused() {
    const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
    const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
    let (dir, _) = written(20, SnapshotPolicy::Never);
    let path = dir.path().join("log.redb");
    let swap_entries = |transaction: &WriteTransaction| {
        let mut log = transaction.open_table(LOG).unwrap();
        let [one, other] = [6, 7].map(|index| log.get(index).unwrap().unwrap().value().to_vec());
        log.insert(6, &*other).unwrap();
        log.insert(7, &*one).unwrap();
    };
    // Both are log ids, so that one could be read as the other.
    let swap_facts = |transaction: &WriteTransaction| {
        let mut facts = transaction.open_table(FACTS).unwrap();
        let last = facts.get("last").unwrap().unwrap().value().to_vec();
        facts.insert("committed", &*last).unwrap();
    };
    for swap in [&swap_entries as &dyn Fn(&WriteTransaction), &swap_facts] {
        let copy = tempdir().unwrap();
        let changed = copy.path().join("log.redb");
        std::fs::copy(&path, &changed).unwrap();
        let database = redb::Database::open(&changed).unwrap();
        let transaction = database.begin_write().unwrap();
        swap(&transaction);
        transaction.commit().unwrap();
        drop(database);
        let error = start_on(dir.path(), &path, &std::fs::read(&changed).unwrap()).unwrap_err();
        assert!(matches!(&error, RaftError::LogDamaged { path, .. } if path.ends_with("log.redb")), "{error}");
    }
}

/// redb keeps two states and falls back to the older one after a crash; damage must not pass for a crash.
#[test]
fn a_flipped_byte_in_the_logs_header_never_brings_back_an_older_state() {
    let (dir, _) = written(20, SnapshotPolicy::Never);
    let path = dir.path().join("log.redb");
    let good = std::fs::read(&path).unwrap();
    let last = |path: &Path| LogStore::open(path, 7, None, Order::Checked).map(|(log, _)| log.last());
    let whole = last(dir.path()).unwrap();
    for at in 0..320 {
        let copy = tempdir().unwrap();
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        std::fs::write(copy.path().join("log.redb"), bad).unwrap();
        std::fs::copy(dir.path().join("key.json"), copy.path().join("key.json")).unwrap();
        match last(copy.path()) {
            Ok(found) => assert_eq!(found, whole, "byte {at}"),
            Err(error) => assert!(error.to_string().contains("log.redb"), "byte {at}: {error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_log_with_flipped_bits_is_refused_or_whole(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..6),
    ) {
        use std::sync::LazyLock;
        static WRITTEN: LazyLock<(TempDir, Vec<skep_model::NodeId>)> = LazyLock::new(|| {
            let (dir, mut nodes) = written(20, SnapshotPolicy::Never);
            nodes.sort();
            (dir, nodes)
        });
        let (dir, nodes) = &*WRITTEN;
        let path = dir.path().join("log.redb");
        let mut bytes = std::fs::read(&path).unwrap();
        // Most of the file is room for more; damage there is none.
        let used: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        for (at, mask) in flips {
            bytes[*at.get(&used)] ^= mask;
        }
        match start_on(dir.path(), &path, &bytes) {
            Ok(mut known) => {
                known.sort();
                prop_assert_eq!(&known, nodes);
            }
            Err(error) => prop_assert!(error.to_string().contains("log.redb"), "{}", error),
        }
    }
}
