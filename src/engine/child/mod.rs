//! The child process: DuckDB, and nothing that matters.
//!
//! Owns: DuckDB, in memory. Does not own: the readings it shows, the segments it reads.
//! Invariants: orders are obeyed one after the other, each commit is one DuckDB transaction, and a query sees the state
//! after the last order before it; a query runs on a thread of its own and ends when its asker is gone.
//! On failure: it says why and ends. It ends with the daemon, too.

mod control;
mod database;
mod guard;
mod isolation;
mod planner;
mod query;
mod store;

use std::io;
use std::process::ExitCode;

use self::control::{Control, Events};
use self::database::{Database, failed};
pub(super) use self::isolation::Isolation;
use self::store::Store;
use super::protocol::{Event, ToEngine};

/// Why the child ends.
#[derive(Debug, thiserror::Error)]
enum ChildError {
    /// The control socket.
    #[error("the control socket failed: {0}")]
    Socket(#[from] io::Error),
    /// DuckDB.
    #[error("DuckDB failed while {doing}: {source}")]
    DuckDb { doing: &'static str, source: duckdb::Error },
    /// A setting does not hold.
    #[error("the setting {0} does not hold")]
    Unlocked(&'static str),
    /// A journal batch or a table.
    #[error("what it was told can't be read: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    /// The orders.
    #[error("it was not told what it must know: {0}")]
    Order(&'static str),
}

/// Whether SQL is judged, nested and read only, and DuckDB locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SqlLayer {
    On,
    /// What the system's own layers hold by themselves.
    #[cfg(test)]
    Off,
}

/// `forebay engine`: obeys the daemon on standard input until it is gone. Call it before any thread is started.
pub fn child_main() -> ExitCode {
    run(SqlLayer::On)
}

/// The same for a test, with nothing but the system's own layers.
#[cfg(test)]
pub fn child_without_sql_layer() -> ExitCode {
    run(SqlLayer::Off)
}

fn run(sql_layer: SqlLayer) -> ExitCode {
    isolation::close_what_was_inherited();
    isolation::leave_the_end_to_the_daemon();
    match Control::inherited().map_err(ChildError::from).and_then(|control| obey(control, sql_layer)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forebay engine: {error}");
            ExitCode::FAILURE
        }
    }
}

fn obey(mut control: Control, sql_layer: SqlLayer) -> Result<(), ChildError> {
    let isolation = Isolation::begin()?;
    isolation::end_with_the_daemon(&control)?;
    let events = control.events()?;
    serve(&mut control, &events, isolation, sql_layer).inspect_err(|error| {
        // Where the daemon is gone there is nobody to tell.
        let _ = events.send(&Event::Failed { message: error.to_string() });
    })
}

fn serve(control: &mut Control, events: &Events, isolation: Isolation, sql_layer: SqlLayer) -> Result<(), ChildError> {
    let Some((ToEngine::Open(opening), _)) = control.next()? else {
        return Err(ChildError::Order("the first order is not to open"));
    };
    let database = Database::open(&opening, sql_layer)?;
    events.send(&Event::Opened { isolation: isolation.complete(opening.memory_bytes)? })?;
    if opening.tells_memory {
        isolation.tell_memory(events.clone())?;
    } else {
        // With the descriptor that it holds.
        drop(isolation);
    }
    let mut store = Store::new(database.connect().map_err(failed("connecting"))?);
    while let Some((order, body)) = control.next()? {
        match order {
            ToEngine::Rows { first_seq } => store.add_rows(&body, first_seq)?,
            ToEngine::Table(table) => store.replace_table(table, &body)?,
            ToEngine::Commit(moment) => {
                let segments = store.commit(&moment)?;
                events.send(&Event::Committed { last_seq: moment.last_seq, segments })?;
            }
            ToEngine::Query(ask) => {
                let answer_on = control.take_descriptor().ok_or(ChildError::Order("a query came without its socket"))?;
                query::begin(&database, ask, answer_on, events.clone());
            }
            ToEngine::Open(_) => return Err(ChildError::Order("it is open already")),
        }
    }
    Ok(())
}
