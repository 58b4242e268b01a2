//! openraft's own test of storage.

use openraft::testing::{StoreBuilder, Suite};
use skep_store::Store;
use tempfile::TempDir;

use crate::log::{LogStore, Order};
use crate::machine::Machine;
use crate::types::{StorageError, Types};

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let (log, _closed) = LogStore::open(dir.path(), 1, None, Order::Any).unwrap();
        let machine = Machine::open(dir.path(), Store::default(), &log).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn log_and_machine_keep_what_openraft_demands() {
    Suite::test_all(Builder).unwrap();
}
