//! How a command fails: one sentence that names the thing and what to do, and the exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::error::explain;

/// Wrong use of the command line.
pub const WRONG_USE: u8 = 2;
/// The daemon can't be reached (`EX_UNAVAILABLE` of sysexits.h).
pub const UNREACHABLE: u8 = 69;
/// The configuration is wrong (`EX_CONFIG` of sysexits.h).
pub const WRONG_CONFIGURATION: u8 = 78;

/// A command that failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct CliError {
    message: String,
    code: u8,
}

impl CliError {
    /// It did not work.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// It did not work because of `error`.
    pub fn because(error: impl std::error::Error) -> Self {
        Self::failed(explain(&error))
    }

    /// It was asked wrongly.
    pub fn wrong_use(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: WRONG_USE }
    }

    /// The daemon can't be reached.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: UNREACHABLE }
    }

    /// The configuration is wrong.
    pub fn configuration(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: WRONG_CONFIGURATION }
    }

    /// The exit code.
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Says it on stderr, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if self.message.is_empty() {
            return ExitCode::from(self.code);
        }
        // Nothing can be done about a stderr that is gone.
        let _ = writeln!(std::io::stderr(), "forebay: {}", self.message);
        ExitCode::from(self.code)
    }
}

/// Output that can't be written.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // Whoever reads has enough, as `| head` does.
            io::ErrorKind::BrokenPipe => Self { message: String::new(), code: 0 },
            _ => Self::failed(format!("the output could not be written: {error}")),
        }
    }
}
