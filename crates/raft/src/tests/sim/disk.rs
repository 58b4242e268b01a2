//! A disk under redb that forgets at a crash what was not synced.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::Rng;
use rand::rngs::StdRng;

/// What is written together or torn.
const SECTOR: usize = 512;

/// A disk. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<Platter>>);

#[derive(Debug, Default)]
struct Platter {
    /// What a reader sees.
    current: Vec<u8>,
    /// What is there after a crash.
    durable: Vec<u8>,
    /// What is not synced, in order.
    unsynced: Vec<Change>,
    /// How often the machine has crashed: what was opened before is of no use.
    crashes: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Length(length) => to.resize(*length, 0),
            Self::Bytes(at, bytes) => {
                let end = at + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*at..end].copy_from_slice(bytes);
            }
        }
    }
}

impl Disk {
    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as redb uses it, until the next crash.
    pub(super) fn open(&self) -> Open {
        Open { disk: self.clone(), crashes: self.platter().crashes }
    }

    /// Power is lost. Of what was not synced each change is there, or is not, or is there up to some sector.
    pub(super) fn crash(&self, rng: &mut StdRng) {
        let mut platter = self.platter();
        platter.crashes += 1;
        for mut change in std::mem::take(&mut platter.unsynced) {
            if let Change::Bytes(_, bytes) = &mut change
                && rng.random_bool(0.2)
            {
                bytes.truncate(rng.random_range(0..=bytes.len() / SECTOR) * SECTOR);
            }
            if rng.random_bool(0.5) {
                change.apply(&mut platter.durable);
            }
        }
        platter.current = platter.durable.clone();
    }
}

/// A disk that is in use.
#[derive(Debug)]
pub(super) struct Open {
    disk: Disk,
    crashes: u64,
}

impl Open {
    fn platter(&self) -> io::Result<MutexGuard<'_, Platter>> {
        let platter = self.disk.platter();
        if platter.crashes == self.crashes { Ok(platter) } else { Err(io::Error::other("the power is gone")) }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut platter = self.platter()?;
        change.apply(&mut platter.current);
        platter.unsynced.push(change);
        Ok(())
    }
}

impl redb::StorageBackend for Open {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter()?.current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let at = usize::try_from(offset).unwrap();
        let platter = self.platter()?;
        let bytes = platter.current.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(usize::try_from(len).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter()?;
        for change in std::mem::take(&mut platter.unsynced) {
            change.apply(&mut platter.durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Bytes(usize::try_from(offset).unwrap(), data.to_vec()))
    }
}
