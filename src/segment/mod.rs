//! Room 3, segments: from the journal to sealed, verified Parquet files.
//!
//! Owns: the files below `segments/` ([`SegmentDir`] alone creates and removes them), when to cut, and every byte of
//! Parquet that is written or read. Does not own: the mark, the journal, which segments exist (the ledger), what is kept
//! (retention), what is delivered (upload).
//! Invariants: a file is complete under its final name or absent; a segment is read back and compared before it gets its
//! name; the journal lets go of a range only in the transaction that records its segments, and a segment that is merged goes
//! after the one that its rows are in is recorded; damage is moved aside, never deleted.
//! On failure: `Full` and `Corrupt` leave the readings in the journal and are tried again; `Broken` asks for an orderly
//! exit, and [`recover`] sorts out what is left at the next start.
//!
//! The way of a cut: `policy` says when, `gather` reads the journal, `order` sorts and splits by day, `writer` and
//! `encoding` make the files, `verify` reads them back, `seal` takes them through their steps, `sealer` is the worker.
//! The way of a merge, of files that are delivered or of cuts that wait: `merge_plan` says which, `merge_rows` puts their rows
//! in order, `merge` takes them through the same steps, `merger` is the worker, and `merger_cuts` its part for cuts.

mod directory;
mod encoding;
mod error;
mod gather;
mod gathered;
mod inspect;
mod layout;
mod merge;
mod merge_plan;
mod merge_rows;
mod merger;
mod merger_cuts;
mod order;
mod policy;
mod read;
mod readers;
mod recovery;
mod scrubber;
mod seal;
mod sealer;
mod state;
mod table;
mod verified;
mod verify;
mod wanted;
mod writer;

#[cfg(test)]
mod tests;

pub use directory::{Listing, Pin, Removal, SegmentDir};
pub use error::SegmentError;
pub use inspect::{Inspected, SeqRange, inspect_bytes, inspect_file};
pub use layout::{Origin, records_schema};
pub use merger::{Merged, Merger, MergerSetup};
pub use policy::Demand;
pub use read::{SegmentReader, read, read_foreign, read_where};
pub use readers::Readers;
pub use recovery::{Recovered, recover};
pub use scrubber::{Scrubber, condemn};
pub use sealer::{Sealer, SealerHandle};
pub use state::SealerState;
pub use table::TableWriter;
pub use verified::Verified;
pub use verify::digest_file;
pub use wanted::Wanted;
pub use writer::{ReadingsWriter, Written, write_readings};
