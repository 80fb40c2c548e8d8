//! Progress, where someone looks.

use std::io::{self, IsTerminal as _, Write as _};

/// A line on a terminal's stderr that the next one replaces. It is gone with the meter.
pub struct Meter {
    terminal: bool,
    shown: bool,
}

impl Meter {
    /// Shows nothing yet.
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), shown: false }
    }

    /// Shows what `line` says, if someone looks.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        if self.terminal {
            self.shown = true;
            // A terminal that is gone is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[K{}", line());
        }
    }

    /// Makes the line empty, for other words to come.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}
