//! The uploader against upstreams that fail in every way, and the promises that every upstream keeps.

mod conformance;
pub(super) mod fixture;
mod memory;
mod merging;
mod modes;
mod processes;
mod reconcile;
mod refusals;
mod remote;
mod server;
mod shipments;
mod waiting;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Writes a file that only we may read, as secrets must be kept.
pub(super) fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
