//! Small files that are there whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::AgentError;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> AgentError + '_ {
    move |source| AgentError::Disk { path: path.to_owned(), source }
}

/// Reads a file written by [`write_json`]; `None` when there is none.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, AgentError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(path)(e)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| AgentError::Damaged { path: path.to_owned(), detail: e.to_string() })
}

/// Writes aside, syncs, renames. For nobody else to read: there are keys among it.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), AgentError> {
    let aside = path.with_extension("tmp");
    let bytes = serde_json::to_vec(value).map_err(|e| AgentError::Garbled(e.to_string()))?;
    // What a crash has left may be open to others.
    remove(&aside)?;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside);
    let mut file = file.map_err(failed(&aside))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed(&aside))?;
    fs::rename(&aside, path).map_err(failed(path))
}

/// Deletes; no error when there is nothing.
pub(crate) fn remove(path: &Path) -> Result<(), AgentError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(failed(path)(e)),
        _ => Ok(()),
    }
}
