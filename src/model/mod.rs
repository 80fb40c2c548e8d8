//! The nouns: what the rooms hand to each other. No I/O.

mod batch;
mod books;
pub mod columns;
mod ids;
mod loss;
mod manifest;
mod marks;
mod reading;
mod segment;
mod series;
mod time;

pub use batch::{Batch, Committed, ImportedRows};
pub use books::{Books, Tally};
pub use ids::{CutNumber, Digest, InstanceId, NotA, Seq, ShipmentNumber};
pub use loss::{Loss, LossReason, LossStatus};
pub use manifest::{MANIFEST_VERSION, Manifest, ManifestFile, Shipment};
pub use marks::{MarkEvent, MessageDigest, SessionId, SessionMarks, message_digest};
pub use reading::{Reading, Record, StoredRecord};
pub use segment::{Cut, CutState, FileKind, MIXED, SealedCut, Segment, SegmentName, check_of, segment_path};
pub use series::{SeriesKey, SeriesSummary};
pub use time::{Day, MICROS_PER_DAY, MICROS_PER_SECOND, TimeSource, TimeUnit, Timestamp};
