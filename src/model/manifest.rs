//! The manifest: what one shipment brings, put last, so that with it the shipment is delivered.

use serde::{Deserialize, Serialize};

use super::ids::{CutNumber, Digest, InstanceId, Seq, ShipmentNumber};
use super::loss::Loss;
use super::segment::FileKind;
use super::time::Timestamp;

/// The version of the format written here.
pub const MANIFEST_VERSION: u32 = 1;

/// What one shipment brings. Its bytes are in the ledger before they are put, so a retry writes the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format version, [`MANIFEST_VERSION`].
    pub forebay_manifest: u32,
    /// The gateway's id.
    pub gateway: String,
    /// Whose seqs and shipments these are.
    pub instance: InstanceId,
    /// The instance before, where this one began as a fork.
    pub forked_from: Option<InstanceId>,
    /// 1, 2, 3 ... in the order of delivery.
    pub shipment: ShipmentNumber,
    /// The cut it brings; `None` in a shipment of losses alone.
    pub cut: Option<CutNumber>,
    /// First seq of the cut; `None` without readings.
    pub first_seq: Option<Seq>,
    /// Last seq of the cut.
    pub last_seq: Option<Seq>,
    /// Readings in its files.
    pub readings: u64,
    /// Records in its files.
    pub records: u64,
    /// Its files.
    pub files: Vec<ManifestFile>,
    /// Losses known now and not told before.
    pub losses: Vec<Loss>,
    /// SHA-256 of the manifest before; `None` in shipment 1.
    pub previous: Option<Digest>,
    /// When the shipment was begun.
    pub created: Timestamp,
}

/// One file of a shipment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// Its key below the lake's root.
    pub key: String,
    /// What it holds.
    pub kind: FileKind,
    /// Its size.
    pub bytes: u64,
    /// Of the whole file.
    pub sha256: Digest,
    /// Rows in it.
    pub rows: u64,
    /// Oldest event time in it.
    pub min_time: Timestamp,
    /// Newest event time in it.
    pub max_time: Timestamp,
}

impl Manifest {
    /// The key of the manifest in the lake.
    pub fn key(gateway: &str, instance: &InstanceId, shipment: ShipmentNumber) -> String {
        format!("manifests/gateway={gateway}/{instance}-{shipment:010}.json")
    }
}

/// A shipment as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shipment {
    /// Whose.
    pub instance: InstanceId,
    /// Its number.
    pub number: ShipmentNumber,
    /// The cut it brings.
    pub cut: Option<CutNumber>,
    /// The first that was merged into that cut; else `cut`. It tells the cut from what it was before it was merged.
    pub first_cut: Option<CutNumber>,
    /// The bytes of its manifest, exactly as they are put.
    pub manifest: Vec<u8>,
    /// The losses it tells of.
    pub losses: Vec<u64>,
}
