//! Room 4, upload: from segments to the lake, and the proof that the lake is complete.
//!
//! Owns: the link's mode, the shipment under way, the way to upstream. Does not own: segments ([`SegmentDir`] does),
//! which cuts and losses there are and what was shipped (the ledger), what is kept after delivery (retention).
//! Invariants: a manifest's bytes are in the ledger before anything of its shipment is put; names are a function of
//! gateway, instance and number; a put never replaces; one shipment at a time, and the next begins when the outcome of
//! the one before is known, so that none of its cut is dropped meanwhile; nothing is sent whose digest does not hold.
//! On failure: the shipment stays in the ledger and is taken up again, after a pause or a restart, byte by byte the same.
//!
//! The way of a shipment: `worker` has the link's modes and decides when to try, `staging` chooses and builds, `shipping`
//! takes a shipment through its steps, `patience` says how long to wait for an answer, `straggler` has the file that newer
//! ones have overtaken, `refusal` what becomes of a shipment that is refused, `reconcile` recognises what an earlier ledger
//! delivered, [`Upstream`] is the seam to where it goes: a folder in `file`, S3 and collectors in `remote`. [`verify()`]
//! reads a lake.
//!
//! [`SegmentDir`]: crate::segment::SegmentDir

mod error;
mod file;
mod key;
mod link;
mod network;
mod pace;
mod patience;
mod reconcile;
mod refusal;
mod remote;
mod shipping;
mod staging;
mod straggler;
mod uploader;
mod upstream;
mod verify;
mod worker;

#[cfg(test)]
mod tests;

pub use error::UploadError;
pub use file::{FileUpstream, MARK};
pub use key::LakeKey;
pub use link::{LinkMode, LinkState, LinkStatus, SetAside};
pub use network::watch_network;
pub use uploader::{Setup, Uploader, UploaderHandle};
pub use upstream::{Answer, Body, Content, Flow, Put, Upstream, UpstreamError, open};
pub use verify::{Finding, FindingKind, InstanceReport, Progress, Report, Verdict, verify, verify_watched};
