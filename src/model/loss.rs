//! Losses: which readings are not kept in full, and why.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ids::{InstanceId, Seq, ShipmentNumber};
use super::time::Timestamp;

/// Why readings are not kept in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossReason {
    /// Replaced by aggregates to stay within the cap.
    Thinned,
    /// Removed undelivered to stay within the cap or an age.
    Dropped,
    /// The only copy failed its checksum.
    Damaged,
    /// The ledger was rebuilt and could not recover them.
    Rebuilt,
}

impl LossReason {
    /// The word used in tables, files and status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Thinned => "thinned",
            Self::Dropped => "dropped",
            Self::Damaged => "damaged",
            Self::Rebuilt => "rebuilt",
        }
    }

    /// The reason named `word`, if there is one.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Thinned, Self::Dropped, Self::Damaged, Self::Rebuilt].into_iter().find(|reason| reason.as_str() == word)
    }
}

/// One durable row of the loss ledger. The seq range is closed: `first_seq` through `last_seq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Loss {
    /// 1, 2, 3 ... in the order of notice; unique in one data folder.
    pub id: u64,
    /// Whose seqs these are.
    pub instance: InstanceId,
    /// First seq lost.
    #[schema(value_type = u64)]
    pub first_seq: Seq,
    /// Last seq lost.
    #[schema(value_type = u64)]
    pub last_seq: Seq,
    /// How many readings of the range are lost; all of them unless it says less.
    pub readings: u64,
    /// Why.
    pub reason: LossReason,
    /// When it was noticed.
    pub noted: Timestamp,
    /// What exactly happened, for a person.
    pub detail: String,
}

/// A loss with the shipment that told upstream of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct LossStatus {
    /// The loss.
    #[serde(flatten)]
    pub loss: Loss,
    /// The shipment that carries it; `None` until one does.
    #[schema(value_type = Option<u64>)]
    pub shipment: Option<ShipmentNumber>,
}
