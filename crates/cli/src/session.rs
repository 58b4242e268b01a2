//! What every command works with: the daemon, and where to write.

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use anyhow::bail;

use crate::client::Client;

/// A command's surroundings.
pub(crate) struct Session {
    /// The daemon.
    pub(crate) client: Client,
    /// Where results go.
    pub(crate) out: Box<dyn Write + Send>,
    /// Whether `out` is a terminal, where lines can be drawn again.
    pub(crate) tty: bool,
    /// The exit code, where it is not this program's own.
    pub(crate) exit: Option<ExitCode>,
    /// How many things of a list failed; each was reported when it happened.
    failed: usize,
}

impl Session {
    /// Results to this process's stdout.
    pub(crate) fn of_terminal(client: Client) -> Self {
        Self { client, tty: std::io::stdout().is_terminal(), out: Box::new(std::io::stdout()), exit: None, failed: 0 }
    }

    /// Results to a writer that is no terminal.
    #[cfg(test)]
    pub(crate) fn to_writer(client: Client, out: Box<dyn Write + Send>) -> Self {
        Self { client, out, tty: false, exit: None, failed: 0 }
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> std::io::Result<()> {
        writeln!(self.out, "{}", text.as_ref())
    }

    /// Reports that one thing of several failed; the others go on and the command fails at its end.
    pub(crate) fn report(&mut self, error: &anyhow::Error) {
        eprintln!("{error:#}");
        self.failed += 1;
    }

    /// Flushes; the exit code.
    ///
    /// # Errors
    /// When something was [reported](Self::report).
    pub(crate) fn finish(&mut self) -> anyhow::Result<ExitCode> {
        self.out.flush()?;
        if self.failed > 0 {
            bail!("{} of the things asked for failed, see above", self.failed);
        }
        Ok(self.exit.unwrap_or(ExitCode::SUCCESS))
    }
}
