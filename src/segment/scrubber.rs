//! The scrubber: checks the digests of all segments, once after the start and then once a day, and of one that a query could
//! not read at once.
//!
//! Owns: what is in [`super::Verified`] beside the files sealed since the start. Does not own: the files, the losses.
//! Invariants: a segment is verified only after its bytes on the medium had the digest that the ledger knows; newest
//! first; it reads slowly, so that it is not felt.
//! On failure: a wrong digest moves the file to quarantine and then tells the ledger; what can't be read twice in a row
//! counts as damaged, but for want of descriptors or a permission, which is tried again; an error of the ledger ends the
//! pass, and the task is started again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::directory::SegmentDir;
use super::error::SegmentError;
use super::sealer::blocking;
use super::state::SealerState;
use super::verify::digest_file;
use crate::error::ErrorKind;
use crate::ledger::Ledger;
use crate::model::{Segment, SegmentName};

/// Between two full passes.
const PASS_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// Before the next pass when a file could not be opened, or the ledger could not be told of a damage yet.
const AGAIN: Duration = Duration::from_secs(60);

/// Bytes a second after the start, when queries wait for it: half of what an ordinary card reads.
const FIRST_RATE: u64 = 16 << 20;

/// Bytes a second on ordinary days: a full gigabyte takes under ten minutes.
const DAILY_RATE: u64 = 2 << 20;

/// The worker. Cheap to clone, for a task that may be started again.
#[derive(Clone)]
pub struct Scrubber {
    ledger: Ledger,
    dir: SegmentDir,
    state: Arc<SealerState>,
}

impl Scrubber {
    /// A scrubber.
    pub fn new(ledger: Ledger, dir: SegmentDir, state: Arc<SealerState>) -> Self {
        Self { ledger, dir, state }
    }

    /// Checks until `stop`.
    ///
    /// # Errors
    /// The ledger or the quarantine failed. A side task: start it again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SegmentError> {
        let work = async {
            let verified = self.dir.verified();
            let mut done = self.pass(FIRST_RATE, |name| !verified.contains(name)).await?;
            let mut next = Instant::now() + if done { PASS_INTERVAL } else { AGAIN };
            loop {
                tokio::select! {
                    () = tokio::time::sleep_until(next.into()) => {
                        let all = done;
                        done = self.pass(DAILY_RATE, |name| all || !verified.contains(name)).await?;
                        next = Instant::now() + if done { PASS_INTERVAL } else { AGAIN };
                    }
                    () = verified.doubted() => {
                        if !self.pass(FIRST_RATE, |name| !verified.contains(name)).await? {
                            (done, next) = (false, Instant::now() + AGAIN);
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            outcome = work => outcome,
        }
    }

    /// Checks the segments that are here now and `wanted`, newest first, at most `rate` bytes a second. Whether
    /// each could be read and the ledger told of every damage.
    pub(super) async fn pass(&self, rate: u64, wanted: impl Fn(&SegmentName) -> bool) -> Result<bool, SegmentError> {
        let begun = Instant::now();
        let (mut checked, mut damaged, mut done) = (0_u64, 0_u64, true);
        for segment in self.segments().await?.into_iter().filter(|segment| wanted(&segment.name)) {
            let read = Instant::now();
            match self.check(&segment).await? {
                Finding::Right => {
                    self.dir.verified().insert(segment.name);
                    self.state.note_verified();
                }
                Finding::Gone => {}
                Finding::Unknown(why) => {
                    done = false;
                    tracing::warn!(segment = %segment.name, why, "a segment can't be checked now; it is tried again");
                }
                Finding::Wrong(why) => {
                    damaged += 1;
                    done &= condemn(&self.ledger, &self.dir, &self.state, segment.name, why).await?;
                }
            }
            checked += 1;
            let share = Duration::from_secs_f64(segment.bytes as f64 / rate as f64);
            tokio::time::sleep(share.saturating_sub(read.elapsed())).await;
        }
        if checked > 0 {
            tracing::info!(checked, damaged, took_s = begun.elapsed().as_secs(), "verified the segments on disk");
        }
        Ok(done)
    }

    async fn segments(&self) -> Result<Vec<Segment>, SegmentError> {
        let ledger = self.ledger.clone();
        blocking(move || Ok(ledger.reader()?.segments()?)).await
    }

    async fn check(&self, segment: &Segment) -> Result<Finding, SegmentError> {
        let _pin = self.dir.pin(std::slice::from_ref(&segment.name));
        let mut finding = self.digest(segment).await;
        if finding.is_err() {
            finding = self.digest(segment).await;
        }
        match finding {
            Ok(true) => Ok(Finding::Right),
            Ok(false) => Ok(Finding::Wrong("its digest is not the one it was sealed with".to_owned())),
            // Evicted since the pass began, or really missing.
            Err(SegmentError::Missing(why)) => {
                let here = self.segments().await?.iter().any(|present| present.name == segment.name);
                Ok(if here { Finding::Wrong(why) } else { Finding::Gone })
            }
            Err(error) if error.lies_with_the_file() => Ok(Finding::Wrong(error.to_string())),
            Err(error) => Ok(Finding::Unknown(error.to_string())),
        }
    }

    async fn digest(&self, segment: &Segment) -> Result<bool, SegmentError> {
        let path = self.dir.path(&segment.name);
        let found = blocking(move || digest_file(&path)).await?;
        Ok(found == (segment.sha256, segment.bytes))
    }
}

enum Finding {
    Right,
    Gone,
    Unknown(String),
    Wrong(String),
}

/// Takes a damaged segment out: its file to quarantine first, then the ledger, so that a crash in between leaves a
/// segment that is missing, which the next start finds. Whether the ledger took note: while the segment's cut is being
/// shipped it does not, and is to be told again.
///
/// # Errors
/// The file can't be moved, or the ledger failed.
pub async fn condemn(ledger: &Ledger, dir: &SegmentDir, state: &SealerState, name: SegmentName, why: String) -> Result<bool, SegmentError> {
    let (place, moved, reason) = (dir.clone(), name.clone(), why.clone());
    match blocking(move || place.quarantine(&moved, &reason)).await {
        Ok(path) => tracing::error!(segment = %name, why, quarantine = %path.display(), "a segment is damaged"),
        Err(SegmentError::Missing(_)) => tracing::error!(segment = %name, why, "a segment is missing"),
        Err(error) => return Err(error),
    }
    match ledger.mark_damaged(name.clone(), why).await {
        Ok(()) => {
            state.note_damaged();
            Ok(true)
        }
        Err(error) if error.kind() == ErrorKind::Invalid => {
            tracing::warn!(segment = %name, %error, "the ledger takes no note of the damage yet");
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
