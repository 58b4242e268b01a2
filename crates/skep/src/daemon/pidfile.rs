//! The file that says which process the daemon is.

use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Locked as long as the daemon lives, however it ends; removed when dropped.
#[derive(Debug)]
pub(crate) struct Pidfile {
    path: PathBuf,
    _lock: File,
}

impl Pidfile {
    /// Takes the file. One that a daemon left behind, because it was killed, is taken over.
    ///
    /// # Errors
    /// When another daemon holds it, or when it cannot be written.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        let named = || path.display().to_string();
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        let mut file =
            File::options().create(true).read(true).write(true).truncate(false).open(path).with_context(named)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("another daemon holds {}: stop it, or give this one another --pidfile", named())
            }
            Err(TryLockError::Error(e)) => return Err(e).with_context(named),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).with_context(named)?;
        Ok(Self { path: path.to_owned(), _lock: file })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Nobody is there to be told, and a stale file does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_taken_over_and_a_held_one_is_not() {
        let path = std::env::temp_dir().join(format!("skep-pidfile-{}", std::process::id()));
        fs::write(&path, "4711 and more than a pid").unwrap();
        let taken = Pidfile::take(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        let refused = Pidfile::take(&path).unwrap_err().to_string();
        assert!(refused.contains("another daemon holds"), "{refused}");
        drop(taken);
        assert!(!path.exists());
    }
}
