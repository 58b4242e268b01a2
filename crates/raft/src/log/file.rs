//! `log.redb`: the entries by their index, and a few facts beside them.
//!
//! Every value is sealed together with its key, and the last log id is noted with every change of the log. When the file is opened
//! everything is read: what is torn, swapped, missing in the middle or missing at the end does not go unnoticed.

mod format;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::writer::Change;
use crate::RaftError;
use crate::types::{Entry, LogId, Vote};
use crate::vault::{UnlockKey, Vault};

const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");

/// The facts. All but the first are sealed.
const FORMAT: &str = "format";
const MEMBER: &str = "member";
const VOTE: &str = "vote";
const PURGED: &str = "purged";
const LAST: &str = "last";
const COMMITTED: &str = "committed";
const GROUP: &str = "group";

/// The format of the file: which tables and facts there are and how they are written. The first one was not sealed.
const VERSION: u32 = 2;
/// The digest of the one fact that is not sealed is cut to this many bytes: it finds damage, it need not withstand an attacker.
const DIGEST: usize = 8;
/// The log is read once at start and then only by members that lag.
const CACHE_BYTES: usize = 4 << 20;

/// Why a read or write of the file failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("{0}")]
    Redb(Box<redb::Error>),
    #[error("{0} is not what was written there")]
    Seal(String),
    #[error("{0} cannot be read: {1}")]
    Json(String, serde_json::Error),
    #[error("{0}")]
    Order(String),
    #[error("it is in format {0}")]
    Format(u32),
}

impl FileError {
    /// What it means for the member whose log is at `path`.
    pub(super) fn of(&self, path: &Path) -> RaftError {
        match self {
            Self::Redb(error)
                if let redb::Error::Io(why) = &**error
                    && why.kind() != io::ErrorKind::InvalidData =>
            {
                RaftError::io(path, why)
            }
            Self::Format(found) => RaftError::Format { path: path.to_owned(), found: *found, known: VERSION },
            why => RaftError::log(path, why),
        }
    }
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
pub(super) fn encode(vault: &Vault, entries: &[Entry]) -> Result<Vec<Encoded>, serde_json::Error> {
    let encode = |entry: &Entry| {
        let index = entry.log_id.index;
        Ok(Encoded { index, id: entry.log_id, value: vault.seal(&entry_name(index), &serde_json::to_vec(entry)?) })
    };
    entries.iter().map(encode).collect()
}

/// What an entry is sealed as.
fn entry_name(index: u64) -> Vec<u8> {
    [b"log entry ".as_slice(), &index.to_be_bytes()].concat()
}

/// What a fact is sealed as.
fn fact_name(name: &str) -> Vec<u8> {
    [b"log fact ".as_slice(), name.as_bytes()].concat()
}

/// The value that was sealed as `name`; `what` it is, for the error.
fn unseal<T: DeserializeOwned>(
    vault: &Vault,
    name: &[u8],
    value: &[u8],
    what: &dyn Fn() -> String,
) -> Result<T, FileError> {
    let body = vault.unseal(name, value).ok_or_else(|| FileError::Seal(what()))?;
    serde_json::from_slice(&body).map_err(|why| FileError::Json(what(), why))
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
    vault: Vault,
    path: PathBuf,
    closed: watch::Sender<()>,
}

impl LogFile {
    /// Opens or makes the file for `member`, and the key beside it, and checks all of it.
    pub(super) fn open(path: &Path, member: u64, unlock: Option<&UnlockKey>) -> Result<(Self, State), RaftError> {
        // A damaged file may make the library panic; that is an answer too.
        let opening = AssertUnwindSafe(|| {
            if !path.exists() {
                format::make(path, member, unlock)?;
            }
            Self::check(open_database(path)?, path, member, unlock)
        });
        catch_unwind(opening).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(RaftError::log(path, &text.unwrap_or_else(|| "it cannot be opened".to_owned())))
        })
    }

    fn check(
        database: Database,
        path: &Path,
        member: u64,
        unlock: Option<&UnlockKey>,
    ) -> Result<(Self, State), RaftError> {
        let failed = |why: FileError| why.of(path);
        let dir = path.parent().unwrap_or(Path::new(""));
        let vault = format::read(&database).map_err(failed)?.vault(dir, unlock)?;
        let (stored, state) = read_all(&database, &vault).map_err(failed)?;
        if stored != member {
            return Err(RaftError::OtherMember { path: path.to_owned(), stored, given: member });
        }
        Ok((Self { database, vault, path: path.to_owned(), closed: watch::Sender::new(()) }, state))
    }

    /// The file of `member` on a simulated disk, which is checked or made; the key is in `dir`.
    #[cfg(test)]
    pub(super) fn simulated(
        disk: impl redb::StorageBackend,
        dir: &Path,
        member: u64,
    ) -> Result<(Self, State), RaftError> {
        let path = dir.join("log.redb");
        let database = Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(disk);
        let database = database.map_err(|why| FileError::from(why).of(&path))?;
        format::claim_simulated(&database, &path, member)?;
        Self::check(database, &path, member, None)
    }

    /// What its values are sealed with.
    pub(super) fn vault(&self) -> &Vault {
        &self.vault
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
            entries.push(open_entry(&self.vault, index.value(), value.value())?);
        }
        Ok((entries, true))
    }

    /// Writes all changes in order, all or none. When it returns they are on disk.
    pub(super) fn write<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), RaftError> {
        self.transact(changes).map_err(|why| why.of(&self.path))
    }

    fn transact<'a>(&self, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), FileError> {
        let transaction = self.database.begin_write()?;
        {
            let mut log = transaction.open_table(LOG)?;
            let mut facts = transaction.open_table(FACTS)?;
            let mut note = |name: &'static str, fact: Vec<u8>| -> Result<(), FileError> {
                facts.insert(name, self.vault.seal(&fact_name(name), &fact).as_slice())?;
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
    Database::builder().set_cache_size(CACHE_BYTES).open(path).map_err(|why| match why {
        DatabaseError::DatabaseAlreadyOpen => RaftError::LogInUse { path: path.to_owned() },
        why => FileError::from(why).of(path),
    })
}

fn read_fact<T: DeserializeOwned>(
    vault: &Vault,
    facts: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &'static str,
) -> Result<Option<T>, FileError> {
    let Some(value) = facts.get(name)? else { return Ok(None) };
    unseal(vault, &fact_name(name), value.value(), &|| format!("the fact {name:?}")).map(Some)
}

fn open_entry(vault: &Vault, index: u64, value: &[u8]) -> Result<Entry, FileError> {
    unseal(vault, &entry_name(index), value, &|| format!("entry {index}"))
}

/// Reads everything: whose it is, and what it says.
fn read_all(database: &Database, vault: &Vault) -> Result<(u64, State), FileError> {
    let transaction = database.begin_read()?;
    let facts = transaction.open_table(FACTS)?;
    let member = read_fact(vault, &facts, MEMBER)?;
    let member = member.ok_or_else(|| FileError::Order("it does not say whose it is".to_owned()))?;
    let purged: Option<LogId> = read_fact(vault, &facts, PURGED)?;
    let noted: Option<LogId> = read_fact::<Option<LogId>>(vault, &facts, LAST)?.flatten();
    let mut last = purged;
    for item in transaction.open_table(LOG)?.iter()? {
        let (index, value) = item?;
        let (index, entry) = (index.value(), open_entry(vault, index.value(), value.value())?);
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
    let (vote, committed) = (read_fact(vault, &facts, VOTE)?, read_fact(vault, &facts, COMMITTED)?);
    Ok((member, State { vote, purged, last, committed, group: read_fact(vault, &facts, GROUP)? }))
}
