//! The doors: HTTP on the Unix socket and on TCP, and Flight SQL. No logic: a handler reads the request, asks a room, writes the answer.
//!
//! Owns: the sockets, the connections, the bounds on requests.
//! Does not own: anything that is asked for.
//! Invariants: readings are answered with 200 only when they are settled as committed; every error has the same shape;
//! on TCP nothing is answered before the guard; sizes, times and numbers of requests are bounded.
//! On failure: a request that fails costs that request alone; doors that end are opened again on the same sockets.

mod bind;
mod body;
mod docs;
mod error;
mod export;
mod flight;
mod flush;
mod guard;
mod health;
mod import;
mod listing;
mod params;
mod query;
mod range;
mod readings;
mod reads;
mod refusal;
mod routes;
mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use bind::{Bound, bind, check};
pub use error::ApiError;
pub use flush::{FlushAnswer, FlushRequest};
pub use import::Imported;
pub use query::{AnswerSql, INCOMPLETE, QueryRequest, Rows};
pub use refusal::{Fault, FaultBody};
pub use serve::serve;

use axum::body::Bytes;

use crate::clock::SharedClock;
use crate::ingest::Latest;
use crate::ingest::files::Importer;
use crate::ingest::http::Desk;
use crate::ledger::Ledger;
use crate::segment::{SealerHandle, SegmentDir};
use crate::status::Sources;
use crate::upload::UploaderHandle;
use readings::Scale;
use reads::Reads;

/// The rooms behind the doors.
pub struct Doors {
    /// For status, health and metrics.
    pub sources: Arc<Sources>,
    /// For what it keeps.
    pub ledger: Ledger,
    /// The files of sealed readings.
    pub dir: SegmentDir,
    /// The series in memory.
    pub latest: Arc<Latest>,
    /// Where readings are handed in.
    pub desk: Desk,
    /// Where files are handed in.
    pub importer: Importer,
    /// For their arrival.
    pub clock: SharedClock,
    /// Seals on demand.
    pub sealer: SealerHandle,
    /// Ships on demand, if there is an upstream.
    pub uploader: Option<UploaderHandle>,
    /// Answers SQL.
    pub engine: Arc<dyn AnswerSql>,
}

/// Exports, and pieces of imports, at a time: each holds some tens of megabytes.
const MAX_TRANSFERS: usize = 2;

/// What handlers share: the rooms, and the bounds on how much is asked of them at a time.
struct Hall {
    rooms: Doors,
    reads: Reads,
    scale: Scale,
    exports: Arc<Semaphore>,
    imports: Arc<Semaphore>,
    /// What can be asked, as JSON.
    description: Bytes,
}

impl Hall {
    fn new(rooms: Doors) -> Self {
        let reads = Reads::new(rooms.ledger.clone());
        let seats = || Arc::new(Semaphore::new(MAX_TRANSFERS));
        let description = docs::describe().into();
        Self { rooms, reads, scale: Scale::new(), exports: seats(), imports: seats(), description }
    }
}
