//! `log.redb`: the entries by their index, and a few facts beside them.
//!
//! Every value carries a digest of itself and of its key, and the last log id is noted with every change of the log. When the file is opened
//! everything is read: what is torn, swapped, missing in the middle or missing at the end does not go unnoticed.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::writer::Change;
use crate::RaftError;
use crate::types::{Entry, LogId, Vote};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// The facts.
const MEMBER: &str = "member";
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const LAST: &str = "last";
const COMMITTED: &str = "committed";
const GROUP: &str = "group";

/// Digests are cut to this many bytes: they find damage, they need not withstand an attacker.
const SEAL: usize = 8;
/// The log is read once at start and then only by members that lag.
const CACHE_BYTES: usize = 4 << 20;

/// Why a read or write of the file failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{0}")]
    Redb(Box<redb::Error>),
    #[error("{0} is damaged: its checksum does not match")]
    Seal(String),
    #[error("{0} cannot be read: {1}")]
    Json(String, serde_json::Error),
    #[error("{0}")]
    Order(String),
}

impl<E: Into<redb::Error>> From<E> for FileError {
    fn from(error: E) -> Self {
        Self::Redb(Box::new(error.into()))
    }
}

/// An entry as it is written.
pub(super) struct Encoded {
    pub(super) index: u64,
    pub(super) id: LogId,
    value: Vec<u8>,
}

/// Entries as they are written.
pub(super) fn encode(entries: &[Entry]) -> Result<Vec<Encoded>, serde_json::Error> {
    let encode = |entry: &Entry| {
        let index = entry.log_id.index;
        Ok(Encoded { index, id: entry.log_id, value: seal(&index.to_be_bytes(), serde_json::to_vec(entry)?) })
    };
    entries.iter().map(encode).collect()
}

fn digest(key: &[u8], body: &[u8]) -> [u8; SEAL] {
    let digest = Sha256::new().chain_update(key).chain_update(body).finalize();
    *digest.first_chunk().expect("a SHA-256 is longer")
}

fn seal(key: &[u8], mut body: Vec<u8>) -> Vec<u8> {
    let digest = digest(key, &body);
    body.extend_from_slice(&digest);
    body
}

fn open_sealed<T: DeserializeOwned>(key: &[u8], value: &[u8], what: &dyn Fn() -> String) -> Result<T, FileError> {
    let (body, seal) = value.split_last_chunk::<SEAL>().ok_or_else(|| FileError::Seal(what()))?;
    if digest(key, body) != *seal {
        return Err(FileError::Seal(what()));
    }
    serde_json::from_slice(body).map_err(|why| FileError::Json(what(), why))
}

/// What the file says when it is opened.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) last: Option<LogId>,
    pub(super) committed: Option<LogId>,
    pub(super) group: Option<u64>,
}

/// The open file.
pub(super) struct LogFile {
    // Dropped first: whoever waits for `closed` may open the file again.
    database: Database,
    closed: watch::Sender<()>,
}

impl LogFile {
    /// Opens or makes the file for `member` and checks all of it.
    pub(super) fn open(path: &Path, member: u64) -> Result<(Self, State), RaftError> {
        // A damaged file may make the library panic; that is an answer too.
        let opening = AssertUnwindSafe(|| Self::open_checked(path, member));
        catch_unwind(opening).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(RaftError::log(path, &text.unwrap_or_else(|| "it cannot be opened".to_owned())))
        })
    }

    fn open_checked(path: &Path, member: u64) -> Result<(Self, State), RaftError> {
        let database = open_database(path)?;
        let damaged = |why: FileError| RaftError::log(path, &why);
        let stored = claim(&database, member).map_err(damaged)?;
        if stored != member {
            return Err(RaftError::OtherMember { path: path.to_owned(), stored, given: member });
        }
        let state = check(&database).map_err(damaged)?;
        Ok((Self { database, closed: watch::Sender::new(()) }, state))
    }

    /// Closed when the file is.
    pub(super) fn closed(&self) -> watch::Receiver<()> {
        self.closed.subscribe()
    }

    /// Entries of a range in order, and whether these are all. Stops after `limit` bytes, not before the first entry.
    pub(super) fn entries(&self, range: Range<u64>, limit: usize) -> Result<(Vec<Entry>, bool), FileError> {
        let log = self.database.begin_read()?.open_table(LOG)?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for item in log.range(range)? {
            let (index, value) = item?;
            if bytes >= limit {
                return Ok((entries, false));
            }
            bytes += value.value().len();
            entries.push(open_entry(index.value(), value.value())?);
        }
        Ok((entries, true))
    }

    /// Writes all changes in order, all or none. When it returns they are on disk.
    pub(super) fn write<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), FileError> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut facts = transaction.open_table(FACTS)?;
            let mut note = |name: &'static str, fact: Vec<u8>| -> Result<(), FileError> {
                facts.insert(name, seal(name.as_bytes(), fact).as_slice())?;
                Ok(())
            };
            for change in changes {
                match change {
                    Change::Append { entries, last } => {
                        for entry in entries {
                            log.insert(entry.index, entry.value.as_slice())?;
                        }
                        note(LAST, json(last))?;
                    }
                    Change::Truncate { from, last } => {
                        log.retain_in(*from.., |_, _| false)?;
                        note(LAST, json(last))?;
                    }
                    Change::Purge { upto, last } => {
                        log.retain_in(..=upto.index, |_, _| false)?;
                        note(PURGED, json(upto))?;
                        note(LAST, json(last))?;
                    }
                    Change::Vote(vote) => note(VOTE, json(vote))?,
                    Change::Committed(id) => note(COMMITTED, json(id))?,
                    Change::Group(id) => note(GROUP, json(id))?,
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn json(fact: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(fact).expect("ids and votes are representable in JSON")
}

fn open_database(path: &Path) -> Result<Database, RaftError> {
    let fresh = !path.exists();
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|why| match why {
        DatabaseError::DatabaseAlreadyOpen => RaftError::LogInUse { path: path.to_owned() },
        DatabaseError::Storage(redb::StorageError::Io(why)) if why.kind() != std::io::ErrorKind::InvalidData => {
            RaftError::io(path, &why)
        }
        why => RaftError::log(path, &why),
    })?;
    if fresh {
        sync_parent(path)?;
    }
    Ok(database)
}

/// A new file's name is durable when its directory is.
fn sync_parent(path: &Path) -> Result<(), RaftError> {
    let parent = path.parent().map_or_else(PathBuf::new, Path::to_owned);
    std::fs::File::open(&parent).and_then(|dir| dir.sync_all()).map_err(|why| RaftError::io(&parent, &why))
}

/// Writes in a new file whose it is; says whose it is.
fn claim(database: &Database, member: u64) -> Result<u64, FileError> {
    let transaction = database.begin_write()?;
    let stored = {
        // Both tables exist from now on, so that a reader need not care.
        transaction.open_table(LOG)?;
        let mut facts = transaction.open_table(FACTS)?;
        let stored = read_fact(&facts, MEMBER)?;
        if stored.is_none() {
            facts.insert(MEMBER, seal(MEMBER.as_bytes(), json(&member)).as_slice())?;
        }
        stored
    };
    if stored.is_none() {
        transaction.commit()?;
    }
    Ok(stored.unwrap_or(member))
}

fn read_fact<T: DeserializeOwned>(
    facts: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<T>, FileError> {
    let Some(value) = facts.get(name)? else { return Ok(None) };
    open_sealed(name.as_bytes(), value.value(), &|| format!("the fact {name:?}")).map(Some)
}

fn open_entry(index: u64, value: &[u8]) -> Result<Entry, FileError> {
    open_sealed(&index.to_be_bytes(), value, &|| format!("entry {index}"))
}

/// Reads everything.
fn check(database: &Database) -> Result<State, FileError> {
    let transaction = database.begin_read()?;
    let facts = transaction.open_table(FACTS)?;
    let purged: Option<LogId> = read_fact(&facts, PURGED)?;
    let noted: Option<LogId> = read_fact::<Option<LogId>>(&facts, LAST)?.flatten();
    let mut last = purged;
    for item in transaction.open_table(LOG)?.iter()? {
        let (index, value) = item?;
        let (index, entry) = (index.value(), open_entry(index.value(), value.value())?);
        let expected = last.map_or(0, |id| id.index + 1);
        if index != expected || entry.log_id.index != index {
            return Err(FileError::Order(format!(
                "entry {expected} is missing: entry {index} follows the one before it"
            )));
        }
        last = Some(entry.log_id);
    }
    if last != noted {
        let (last, noted) = (last.map(|id| id.index), noted.map(|id| id.index));
        return Err(FileError::Order(format!("its last entry is {last:?}, and should be {noted:?}")));
    }
    let (vote, committed) = (read_fact(&facts, VOTE)?, read_fact(&facts, COMMITTED)?);
    Ok(State { vote, purged, last, committed, group: read_fact(&facts, GROUP)? })
}
