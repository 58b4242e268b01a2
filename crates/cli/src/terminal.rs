//! The terminal that this program was started from.

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Whether standard input is one.
pub(crate) fn is_one() -> bool {
    rustix::termios::isatty(std::io::stdin())
}

/// Its lines, and the characters in each.
pub(crate) fn size() -> Option<[u16; 2]> {
    let (terminal_size::Width(columns), terminal_size::Height(rows)) = terminal_size::terminal_size()?;
    Some([rows, columns])
}

/// As long as this lives, keys come as they are pressed, and nothing is done about them here.
pub(crate) struct Raw(Termios);

impl Raw {
    /// Begins.
    ///
    /// # Errors
    /// When standard input is no terminal.
    pub(crate) fn begin() -> std::io::Result<Self> {
        let before = tcgetattr(std::io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nothing left to do about a terminal that is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}
