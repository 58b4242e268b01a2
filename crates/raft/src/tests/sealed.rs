//! What is on the disk can be read with the right key alone.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use openraft::SnapshotPolicy;
use skep_model::{Node, NodeId};
use skep_store::Store;
use tempfile::{TempDir, tempdir};

use super::rig::{config, propose};
use skep_ca::{CaError, UnlockKey};

use crate::{Raft, RaftConfig, RaftError, Vault};

fn own(dir: &Path, unlock_key: Option<&UnlockKey>) -> RaftConfig {
    RaftConfig { unlock_key: unlock_key.cloned(), ..config(dir, 7, "127.0.0.1:1".parse().unwrap()) }
}

/// A directory with a log and a snapshot, and the nodes in it.
async fn written(unlock_key: Option<&UnlockKey>) -> (TempDir, Vec<NodeId>) {
    let dir = tempdir().unwrap();
    let policy = SnapshotPolicy::LogsSinceLast(20);
    let raft = Raft::start_with(own(dir.path(), unlock_key), Store::default(), policy, 5).await.unwrap();
    raft.initialize().await.unwrap();
    let mut nodes = Vec::new();
    for _ in 0..70 {
        nodes.push(propose(&raft).await.unwrap().0);
    }
    raft.shutdown().await;
    (dir, nodes)
}

async fn known(config: RaftConfig) -> Result<Vec<NodeId>, RaftError> {
    let store = Store::default();
    let raft = Raft::start(config, store.clone()).await?;
    raft.led().await?;
    raft.shutdown().await;
    Ok(store.view(|tables| tables.all::<Node>().map(|node| node.id.clone()).collect()))
}

/// Everything that is in the files of a directory.
fn bytes_in(dir: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.collect::<Vec<_>>().concat()
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_state_is_on_the_disk_in_plain_text_and_the_key_is_roots_alone() {
    let (dir, nodes) = written(None).await;
    let bytes = bytes_in(dir.path());
    assert!(contains(&bytes, b"skep-raft-snapshot 2\n"), "there should be a snapshot");
    for plain in nodes.iter().map(|id| id.as_str().as_bytes()).chain([b"term".as_slice(), b"skep-raft-state"]) {
        assert!(!contains(&bytes, plain), "{}", String::from_utf8_lossy(plain));
    }
    let mode = std::fs::metadata(dir.path().join("key.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!Vault::is_locked(dir.path()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_member_starts_with_the_unlock_key_alone() {
    let unlock = UnlockKey::random();
    let (dir, mut nodes) = written(Some(&unlock)).await;
    nodes.sort();
    assert!(Vault::is_locked(dir.path()).unwrap());
    assert_eq!(known(own(dir.path(), None)).await.unwrap_err(), RaftError::Locked);
    let other = UnlockKey::random();
    assert_eq!(known(own(dir.path(), Some(&other))).await.unwrap_err(), RaftError::WrongUnlockKey);
    assert_eq!(known(own(dir.path(), Some(&unlock))).await.unwrap(), nodes);
    let recovered = Raft::recover_alone(own(dir.path(), None), Store::default()).await;
    assert_eq!(recovered.err(), Some(RaftError::Locked));
}

#[tokio::test(flavor = "multi_thread")]
async fn locking_rotating_and_unlocking_keep_everything_and_end_the_key_before() {
    let (dir, mut nodes) = written(None).await;
    nodes.sort();
    let [first, second] = [UnlockKey::random(), UnlockKey::random()];
    for (before, after) in [(None, Some(&first)), (Some(&first), Some(&second)), (Some(&second), None)] {
        let raft = Raft::start(own(dir.path(), before), Store::default()).await.unwrap();
        raft.vault().rewrap(after).unwrap();
        raft.led().await.unwrap();
        nodes.push(propose(&raft).await.unwrap().0);
        nodes.sort();
        raft.shutdown().await;
        assert_eq!(Vault::is_locked(dir.path()).unwrap(), after.is_some());
        assert_eq!(known(own(dir.path(), after)).await.unwrap(), nodes);
        if after.is_some() {
            let refused = if before.is_some() { RaftError::WrongUnlockKey } else { RaftError::Locked };
            assert_eq!(known(own(dir.path(), before)).await.unwrap_err(), refused);
        }
    }
    assert!(!dir.path().join("key.new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_is_missing_foreign_damaged_or_newer_is_refused_by_name() {
    let ((dir, _), (other, _)) = (written(None).await, written(None).await);
    let path = dir.path().join("key.json");
    let good = std::fs::read(&path).unwrap();
    let refused = || async { known(own(dir.path(), None)).await.unwrap_err() };

    std::fs::remove_file(&path).unwrap();
    assert_eq!(refused().await, RaftError::KeyMissing { path: path.clone() });
    std::fs::copy(other.path().join("key.json"), &path).unwrap();
    assert_eq!(refused().await, RaftError::OtherKey { path: path.clone() });
    // What a crash leaves of a key file that was being replaced.
    std::fs::write(path.with_extension("new"), b"half a k").unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x01;
        std::fs::write(&path, bad).unwrap();
        let error = Vault::open(dir.path(), None).err();
        let named = matches!(&error, Some(RaftError::KeyDamaged { .. } | RaftError::Format { .. }));
        // Some bytes only lay the text out.
        assert!(named || error.is_none(), "byte {at}: {error:?}");
    }
    std::fs::write(&path, String::from_utf8_lossy(&good).replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert_eq!(refused().await, RaftError::Format { path: path.clone(), found: 2, known: 1 });
    std::fs::write(&path, &good).unwrap();
    assert_eq!(known(own(dir.path(), None)).await.unwrap().len(), 70);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_format_are_refused_by_name() {
    const FACTS: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("facts");
    let (dir, _) = written(None).await;
    let snapshot = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = snapshot.into_iter().find(|path| path.to_string_lossy().contains("snap-")).unwrap();
    let good = std::fs::read(&snapshot).unwrap();
    std::fs::write(&snapshot, [b"skep-raft-snapshot 3\n".as_slice(), &good[21..]].concat()).unwrap();
    let refused = || async { known(own(dir.path(), None)).await.unwrap_err() };
    assert_eq!(refused().await, RaftError::Format { path: snapshot.clone(), found: 3, known: 2 });
    std::fs::write(&snapshot, good).unwrap();

    // The first format did not say what it was.
    let path = dir.path().join("log.redb");
    let database = redb::Database::open(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(FACTS).unwrap().remove("format").unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(refused().await, RaftError::Format { path, found: 1, known: 2 });
}

#[test]
fn unlock_keys_are_written_as_dockers() {
    let key = UnlockKey::random();
    let text = key.to_string();
    assert_eq!((text.len(), &text[..9]), (9 + 43, "SWMKEY-1-"));
    assert_eq!(text.parse(), Ok(key.clone()));
    assert_eq!(format!("{key:?}"), "UnlockKey(…)");
    let docker = "SWMKEY-1-7c37Cc8654o6p38HnroywCi19pllOnGtbdZEgtKxZu8";
    assert_eq!(docker.parse::<UnlockKey>().unwrap().to_string(), docker);
    for bad in ["", "SWMKEY-1-", "SWMTKN-1-abc", &text[..50], &format!("{text}A"), &format!("{text}=")] {
        assert_eq!(bad.parse::<UnlockKey>(), Err(CaError::UnlockKey), "{bad}");
    }
}
