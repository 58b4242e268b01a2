//! A program of the machine that makes containers: an OCI runtime, such as runc or crun.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// First processes for containers that ask for one, as Debian calls them.
const INITS: [&str; 2] = ["docker-init", "tini-static"];

/// An OCI runtime that makes containers instead of the one that is built in. A container stays with the one that it was prepared for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciRuntime {
    /// Its file.
    pub(crate) program: PathBuf,
    /// The file of a first process for containers that ask for one (`--init`): a program that needs nothing of the container.
    pub(crate) init: Option<PathBuf>,
}

/// Why a runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadOciRuntime {
    /// There is no such program.
    #[error("there is no program {0}: install it, or give the path of its file")]
    Missing(String),
    /// It does not answer as an OCI runtime does.
    #[error("{program} is no OCI runtime that runs here: `{program} --version` {reason}")]
    Foreign {
        /// Its file.
        program: String,
        /// What happened.
        reason: String,
    },
}

impl OciRuntime {
    /// The runtime called `name`, a file or the name of one on the `PATH`. `init` is the same for the first process; without it the usual
    /// names are looked for, and containers that ask for one are refused where there is none.
    ///
    /// # Errors
    /// When a program is not there, or the runtime's cannot be run.
    pub fn find(name: &str, init: Option<&str>) -> Result<Self, BadOciRuntime> {
        let program = located(name).ok_or_else(|| BadOciRuntime::Missing(name.to_owned()))?;
        let init = match init {
            Some(init) => Some(located(init).ok_or_else(|| BadOciRuntime::Missing(init.to_owned()))?),
            None => INITS.into_iter().find_map(located),
        };
        let foreign = |reason: String| BadOciRuntime::Foreign { program: program.display().to_string(), reason };
        let tried = Command::new(&program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output();
        let tried = tried.map_err(|e| foreign(format!("cannot be run: {e}")))?;
        if !tried.status.success() || !String::from_utf8_lossy(&tried.stdout).contains("spec") {
            return Err(foreign("does not tell the version of the specification that it follows".to_owned()));
        }
        Ok(Self { program, init })
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.program
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }
}

/// The file that a name means: itself where it is a path, and otherwise what the `PATH` leads to.
fn located(name: &str) -> Option<PathBuf> {
    let executable = |path: &Path| path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if name.contains('/') {
        return std::fs::canonicalize(name).ok().filter(|path| executable(path));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Where runtimes lie is not on everybody's.
    let places = std::env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    places.map(|dir| dir.join(name)).find(|path| executable(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_is_named_with_the_way_out() {
        let why = |name: &str, init: Option<&str>| OciRuntime::find(name, init).unwrap_err().to_string();
        let missing = "there is no program nosuch-runtime: install it, or give the path of its file";
        assert_eq!(why("nosuch-runtime", None), missing);
        assert!(why("/etc/passwd", None).contains("no program /etc/passwd"));
        assert!(why("true", None).contains("is no OCI runtime"), "{}", why("true", None));
        assert!(why("true", Some("/no/init")).contains("no program /no/init"));
    }
}
