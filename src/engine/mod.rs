//! Side room, the engine: SQL over everything that is kept, by DuckDB in a process of its own: a child, or that of a unit.
//!
//! Owns: that process ([`Engine`]), what it has been told, and the way of a query and its answer ([`EngineHandle`]). `duckdb`
//! is spoken in `child` and `table_file` alone. Does not own: any reading. DuckDB is a lens: in memory only, and built again from the
//! ledger and the segments at every start.
//! Invariants: an answer sees each reading kept here exactly once, and the books of the same moment; it sees everything
//! that was acknowledged before the query began; ingest never waits for the engine.
//! On failure: the process is ended and started again. Queries under way get an error, readings are not touched.
//!
//! The supervisor starts it (`process`) and a `session`; the session's `feed` pulls from the ledger and sends `orders`; the
//! child applies them in one transaction each, and answers each query on a socket of its own, on a thread of its own.
//! `protocol` and `frame` are the language between them, `format` is what the user gets. `table_file` has nothing to do with
//! the child: it makes a DuckDB file of an export.

mod binding;
#[cfg(feature = "engine")]
mod child;
mod error;
mod feed;
mod format;
mod frame;
#[cfg(any(feature = "engine", test))]
mod gate;
mod handle;
mod hot;
mod limits;
mod orders;
mod process;
mod protocol;
mod session;
#[cfg(any(feature = "engine", test))]
mod sql;
mod state;
mod supervisor;
#[cfg(feature = "engine")]
mod table_file;
mod tables;
#[cfg(all(test, feature = "engine"))]
mod tests;

pub use binding::{Binding, Param};
#[cfg(feature = "engine")]
pub use child::child_main;
pub use error::QueryError;
pub use format::Format;
pub use handle::{Answer, AnswerBody, EngineHandle};
pub use process::Program;
pub use state::{EngineReport, EngineState, Phase};
pub use supervisor::Engine;
#[cfg(feature = "engine")]
pub use table_file::TableFile;

/// A DuckDB file of an export, which a build without the engine can't make.
#[cfg(not(feature = "engine"))]
pub enum TableFile {}

#[cfg(not(feature = "engine"))]
impl TableFile {
    /// Says what is missing.
    ///
    /// # Errors
    /// Always.
    pub fn create(_: &std::path::Path) -> Result<Self, String> {
        Err(handle::NO_ENGINE.to_owned())
    }

    /// There is none.
    ///
    /// # Errors
    /// None.
    pub fn append(&mut self, _: &arrow::array::RecordBatch) -> Result<(), String> {
        match *self {}
    }

    /// There is none.
    ///
    /// # Errors
    /// None.
    pub fn finish(self) -> Result<(), String> {
        match self {}
    }
}

/// What the hidden command `engine` does in a build without one.
#[cfg(not(feature = "engine"))]
pub fn child_main() -> std::process::ExitCode {
    eprintln!("{}", handle::NO_ENGINE);
    std::process::ExitCode::FAILURE
}
