//! The source of files: rows of Parquet, CSV or JSON lines, as Arrow, into the journal, each file once.
//!
//! Owns: what a file's columns mean, and the turn of who imports. Does not own: the files and the door they come
//! through, the journal, the series.
//! Invariants: rows of a file go in in its order, and with them, in one transaction, how many of them are in; so a file
//! comes in once, whatever is cut off and repeated. A piece goes in whole or not at all.
//! On failure: a row that is no reading is named; while too much is hot, imports wait and sensors do not.

mod importer;
mod rows;
mod shape;
mod stream;
#[cfg(test)]
mod tests;

pub use importer::{ImportError, Importer, Piece};
pub use rows::{Arrival, Rows};
pub use shape::{BadFile, COLUMNS};
pub use stream::{MAX_ROWS, read_stream};
