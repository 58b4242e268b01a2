//! The file that says which process the daemon is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Pidfile(PathBuf);

impl Pidfile {
    /// Writes the file.
    ///
    /// # Errors
    /// When the process that it names is alive and is skep, or when it cannot be written.
    pub(crate) fn take(path: &Path) -> Result<Self> {
        if let Some(pid) = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok())
            && pid != std::process::id()
            && is_daemon(pid)
        {
            bail!(
                "{} names process {pid}, which runs: is another daemon running? Otherwise delete the file",
                path.display()
            );
        }
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        }
        fs::write(path, std::process::id().to_string()).with_context(|| path.display().to_string())?;
        Ok(Self(path.to_owned()))
    }
}

/// Whether `pid` is a process that runs the same program. A number may have been given to somebody else since.
fn is_daemon(pid: u32) -> bool {
    let name = |pid: &str| fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    name(&pid.to_string()).is_some_and(|other| Some(other) == name("self"))
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Nobody is there to be told, and a stale file does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_taken_over_and_removed_in_the_end() {
        let path = std::env::temp_dir().join(format!("skep-pidfile-{}", std::process::id()));
        // Process 1 is alive, and it is not skep.
        fs::write(&path, "1").unwrap();
        let taken = Pidfile::take(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), std::process::id().to_string());
        drop(taken);
        assert!(!path.exists());
    }
}
