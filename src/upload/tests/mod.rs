//! The uploader against upstreams that fail in every way, and the promises that every upstream keeps.

mod conformance;
pub(super) mod fixture;
mod memory;
mod modes;
mod processes;
mod reconcile;
mod remote;
mod server;
mod shipments;
