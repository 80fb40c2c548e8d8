//! Room 2, the ledger: one SQLite database that makes a batch, and everything that belongs to it, true at once.
//!
//! Owns: `forebay.db` and its write connection (one thread), the next seq, the next cut, the next shipment.
//! Does not own: segment files, sessions in memory, the engine.
//! Invariants: WAL and synchronous=FULL at every open; the books balance after every transaction; a failed fsync is
//! never retried: the ledger latches its first `Broken` error and answers every later call with it.
//! Nobody in this process opens `forebay.db` but through SQLite, not even to copy it: POSIX drops a process's locks on a
//! file when any descriptor of it is closed, and a shell's `sqlite3` would then take the WAL away under the ledger.
//! On failure: `Full` changes nothing and may be tried again; `Broken` asks for an orderly exit. A file that is damaged
//! at the start is set aside in `quarantine/`, and a new one begins with what can be read of its journal and a loss that says so.

mod answers;
mod audit;
mod behind;
mod commit;
mod drops;
mod error;
mod imports;
mod instances;
mod keeping;
mod losses;
mod mark_log;
mod merge;
mod merge_cuts;
mod open;
mod prune;
mod reader;
mod readers;
mod refusals;
mod rows;
mod salvage;
mod schema;
mod seal;
mod segments;
mod sessions;
mod shipments;
mod state;
mod store;
mod suspicion;
#[cfg(test)]
mod tests;
mod wal;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

pub use self::answers::{
    Backlog, Droppable, Evictable, Fill, Gone, Group, Identity, JournalEntry, JournalSize, Progress, Recognised, Standing, StoredSession,
    Waiting,
};
pub use self::error::LedgerError;
pub use self::reader::Reader;
pub use self::refusals::{Refusals, Retry};

use self::readers::Readers;
use self::store::Store;
use crate::clock::SharedClock;
use crate::model::{
    Batch, Committed, CutNumber, ImportedRows, InstanceId, SealedCut, Segment, SegmentName, Shipment, ShipmentNumber, Timestamp,
};
use crate::owner::{self, Owner};

/// The name of the file in the data folder.
pub const FILE_NAME: &str = "forebay.db";

/// Calls that may wait for the thread: more than there are callers, so that none waits for its turn to wait.
const QUEUE: usize = 64;

/// Handle of the ledger's thread. Cheap to clone. Every call is one durable transaction.
#[derive(Clone)]
pub struct Ledger {
    thread: Owner<Store>,
    readers: Arc<Readers>,
    checkpoint_bytes: Arc<AtomicU64>,
    identity: watch::Receiver<Identity>,
    progress: watch::Receiver<Progress>,
}

/// What to open and as whom.
#[derive(Clone)]
pub struct Open {
    /// This host's id: with another one than recorded, a new instance is due ([`Ledger::begin_if_due`]).
    pub host_id: String,
    /// For the times of rows.
    pub clock: SharedClock,
}

impl Ledger {
    /// Opens or creates `forebay.db` in `data_dir` (which exists), checks it, migrates it and starts its thread. What it
    /// returns is durable, with its name. Blocking.
    ///
    /// # Errors
    /// `Invalid` where the file is of a newer forebay, `Full`, and `Broken` where it can't be read or written. A damaged
    /// file is none: it is set aside.
    pub fn open(data_dir: &Path, open: Open) -> Result<Self, LedgerError> {
        let store = open::open(data_dir, open)?;
        let (identity, progress) = store.watches();
        let checkpoint_bytes = store.checkpoint_bytes();
        let thread = Owner::start("ledger", store, QUEUE, Store::housekeep);
        let thread = thread.map_err(|error| LedgerError::Broken(format!("starting the ledger's thread: {error}")))?;
        Ok(Self { thread, readers: Readers::new(data_dir.join(FILE_NAME)), checkpoint_bytes, identity, progress })
    }

    /// Copies the WAL into the main file whenever it has `bytes`, from the next transaction on.
    pub fn checkpoint_at(&self, bytes: u64) {
        self.checkpoint_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Who this data folder is.
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// A hint after every transaction.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.clone()
    }

    /// A read-only connection of its own. Blocking; keep it on a blocking thread, for short reads.
    ///
    /// # Errors
    /// `Broken` where the file can't be read.
    pub fn reader(&self) -> Result<Reader, LedgerError> {
        Reader::new(&self.readers)
    }

    /// Commits a batch: returns when it is fsynced. A caller that may have to try again hands in an [`Arc`] of it.
    ///
    /// # Errors
    /// As every call here: `Full` changed nothing and may be tried again, `Invalid` changed nothing, `Broken` is final.
    pub async fn commit(&self, batch: impl Into<Arc<Batch>>) -> Result<Committed, LedgerError> {
        let batch = batch.into();
        self.call(move |store| store.commit(&batch)).await
    }

    /// Commits rows of a file: returns when they are fsynced, with how many of its rows are in by then.
    ///
    /// # Errors
    /// As [`Self::commit`]; `Invalid` also where they do not follow the rows of that file that are in.
    pub async fn import(&self, import: ImportedRows) -> Result<u64, LedgerError> {
        self.call(move |store| store.import(&import)).await
    }

    /// Finds or creates the session `name` (for example `listener/sensor-7`, `client/forebay-gw-1`). It outlives its
    /// connection by `expiry` (whole seconds), or until it is ended; one that has expired is not found.
    pub async fn open_session(&self, name: String, expiry: Option<Duration>) -> Result<StoredSession, LedgerError> {
        self.call(move |store| store.open_session(&name, expiry)).await
    }

    /// The same without creating it.
    pub async fn resume_session(&self, name: String, expiry: Option<Duration>) -> Result<Option<StoredSession>, LedgerError> {
        self.call(move |store| store.resume_session(&name, expiry)).await
    }

    /// The connection of the session `name` has ended: it expires `expiry` from now.
    pub async fn leave_session(&self, name: String, expiry: Duration) -> Result<(), LedgerError> {
        self.call(move |store| store.leave_session(&name, expiry)).await
    }

    /// All connections have ended, with the process before: sessions that may expire do so from now on.
    pub async fn leave_sessions(&self) -> Result<(), LedgerError> {
        self.call(Store::leave_sessions).await
    }

    /// Removes the session `name` and its marks; what batches still say of it is left out. Its number is not given again.
    pub async fn end_session(&self, name: String) -> Result<(), LedgerError> {
        self.call(move |store| store.end_session(&name)).await
    }

    /// The one transaction of a seal: segments in, journal range out, mark and series forward.
    ///
    /// # Errors
    /// `Invalid` where the cut does not follow the last one, splits a batch, or its files do not hold its range.
    pub async fn finish_seal(&self, cut: SealedCut) -> Result<(), LedgerError> {
        self.call(move |store| store.finish_seal(&cut)).await
    }

    /// Takes files that the ledger did not know (it is older than they are) and begins a new instance, unless the
    /// current one has taken nothing yet. `of_cuts` are all that were found of their cuts, which count as not delivered,
    /// under the instance of their name; journal batches that a complete one of them holds are removed. What was merged of
    /// several cuts after their delivery counts as `delivered`. Cuts and segments that a merged one holds give way to it.
    ///
    /// # Errors
    /// `Invalid` where a cut of that number is known already.
    pub async fn adopt(&self, of_cuts: Vec<Segment>, delivered: Vec<Segment>) -> Result<Identity, LedgerError> {
        self.call(move |store| store.adopt(&of_cuts, &delivered)).await
    }

    /// Whether durable commits are known to be lost, so that a cut the ledger does not know may have been delivered.
    /// Until [`Ledger::begin_if_due`].
    pub async fn is_behind(&self) -> Result<bool, LedgerError> {
        self.call(|store| Ok(store.is_behind())).await
    }

    /// Begins the new instance that is due where durable commits are lost (then a loss says so too) or the host is another
    /// one; where [`Ledger::adopt`] began one already, that is new enough. Does nothing where none is due. For the end of
    /// recovery, which has to compare the files of the old instance with the journal as it is numbered there.
    pub async fn begin_if_due(&self) -> Result<Identity, LedgerError> {
        self.call(Store::begin_if_due).await
    }

    /// Begins a new instance (the hot readings are numbered anew from 1), for the reason given.
    pub async fn fork(&self, reason: String) -> Result<Identity, LedgerError> {
        self.call(move |store| store.fork(&reason)).await
    }

    /// Records a shipment with its manifest's bytes, before anything of it is put. One at a time.
    ///
    /// # Errors
    /// `Invalid` where another is under way, the number does not follow, the cut is not waiting, or a loss is told already.
    pub async fn begin_shipment(&self, shipment: Shipment) -> Result<(), LedgerError> {
        self.call(move |store| store.begin_shipment(&shipment)).await
    }

    /// The shipment is delivered.
    ///
    /// # Errors
    /// `Invalid` where it is not under way.
    pub async fn finish_shipment(&self, instance: InstanceId, number: ShipmentNumber) -> Result<(), LedgerError> {
        self.call(move |store| store.finish_shipment(&instance, number)).await
    }

    /// The shipment under way is given up, and its number and losses are free again. Only for one whose manifest was
    /// surely never put: one of its files turned out to be damaged, or it makes way for another.
    ///
    /// # Errors
    /// `Invalid` where it is not under way.
    pub async fn abandon_shipment(&self, instance: InstanceId, number: ShipmentNumber) -> Result<(), LedgerError> {
        self.call(move |store| store.abandon_shipment(&instance, number)).await
    }

    /// Upstream refuses the shipment under way, and surely has nothing that counts of it: it is given up like an abandoned
    /// one, and its cut is passed over until `again`, or until [`Ledger::retry_refused`].
    ///
    /// # Errors
    /// `Invalid` where it is not under way or brings no cut.
    pub async fn refuse_shipment(
        &self,
        instance: InstanceId,
        number: ShipmentNumber,
        reason: String,
        again: Timestamp,
    ) -> Result<(), LedgerError> {
        self.call(move |store| store.refuse_shipment(&instance, number, &reason, again)).await
    }

    /// Refused cuts may be shipped again, in their order.
    pub async fn retry_refused(&self, which: Retry) -> Result<(), LedgerError> {
        self.call(move |store| store.retry_refused(which)).await
    }

    /// The shipment under way can never be delivered, because its names are taken upstream. It is given up, and nothing
    /// more of `instance` is shipped; its cuts stay sealed.
    ///
    /// # Errors
    /// `Invalid` where it is not under way, or `instance` is the current one.
    pub async fn set_aside_shipment(&self, instance: InstanceId, number: ShipmentNumber, reason: String) -> Result<(), LedgerError> {
        self.call(move |store| store.set_aside_shipment(&instance, number, &reason)).await
    }

    /// The name of the shipment under way is taken by a manifest that an earlier ledger of this folder put there, about the
    /// same files: that one is recorded as delivered instead, with its cut where it is known. The number after it is next.
    ///
    /// # Errors
    /// `Invalid` where no shipment of that number is under way, or `instance` is the current one.
    pub async fn recognise_shipment(&self, found: Recognised) -> Result<(), LedgerError> {
        self.call(move |store| store.recognise_shipment(&found)).await
    }

    /// What was set aside may be shipped again: whatever was in the way may be gone.
    pub async fn take_up_set_aside(&self) -> Result<(), LedgerError> {
        self.call(|store| store.take_up_set_aside()).await
    }

    /// Delivered segments are about to be removed: they leave the engine and `kept`.
    ///
    /// # Errors
    /// `Invalid` where one of them is not here or not delivered; then none left.
    pub async fn evict(&self, segments: Vec<SegmentName>) -> Result<(), LedgerError> {
        self.call(move |store| store.evict(&segments)).await
    }

    /// The one transaction of a merge: the merged segment in, its sources out. The books stay as they are.
    ///
    /// # Errors
    /// `Invalid` where a source is not here or not delivered, or they do not hold the same rows.
    pub async fn finish_merge(&self, merged: Segment, sources: Vec<SegmentName>) -> Result<(), LedgerError> {
        self.call(move |store| store.finish_merge(&merged, &sources)).await
    }

    /// The one transaction of a merge of cuts: the neighbours `sources` of `instance`, by number, become one under the number
    /// of the last, with the files `segments`, and theirs are out. The books stay as they are.
    ///
    /// # Errors
    /// `Invalid` where one of them is not waiting or may be upstream in part, where they are no neighbours of the current
    /// instance, or do not hold the same rows.
    pub async fn merge_cuts(&self, instance: InstanceId, sources: Vec<CutNumber>, segments: Vec<Segment>) -> Result<(), LedgerError> {
        self.call(move |store| store.merge_cuts(&instance, &sources, &segments)).await
    }

    /// Undelivered cuts are about to be removed to make room: they leave the engine and `kept`, and a loss says `why`.
    ///
    /// # Errors
    /// `Invalid` where one of them is not waiting or is being shipped; then none left.
    pub async fn drop_cuts(&self, cuts: Vec<(InstanceId, CutNumber)>, why: String) -> Result<(), LedgerError> {
        self.call(move |store| store.drop_cuts(&cuts, &why)).await
    }

    /// The oldest batches of the journal leave, as many as have `bytes`, and a loss says `why`; gives how many readings.
    pub async fn drop_hot(&self, bytes: u64, why: String) -> Result<u64, LedgerError> {
        self.call(move |store| store.drop_hot(bytes, &why)).await
    }

    /// Forgets what nobody needs: the cuts in `gone`, whose files are surely not here any more, shipments before the last,
    /// old losses that the lake knows of, and exported records beyond the newest `record_bytes`. Gives how many rows left;
    /// where there were any, there may be more.
    pub async fn prune(&self, gone: Vec<(InstanceId, CutNumber)>, record_bytes: u64) -> Result<u64, LedgerError> {
        self.call(move |store| store.prune(&gone, record_bytes)).await
    }

    /// Gives free space of the file back to the file system, a few megabytes a call, and leaves `keep_bytes` of it: the
    /// next journal takes them, so that giving them back would write them twice. Whether there is more.
    pub async fn give_back(&self, keep_bytes: u64) -> Result<bool, LedgerError> {
        self.call(move |store| store.give_back(keep_bytes)).await
    }

    /// A segment failed its digest: it leaves `kept`; undelivered readings in it become a loss. Saying it twice is harmless.
    ///
    /// # Errors
    /// `Invalid` where it is not here or its cut is being shipped.
    pub async fn mark_damaged(&self, segment: SegmentName, detail: String) -> Result<(), LedgerError> {
        self.call(move |store| store.mark_damaged(&segment, &detail)).await
    }

    /// Ends the thread after the calls before it; checkpoints and closes.
    ///
    /// # Errors
    /// The one that was latched, or what the last checkpoint met. Closing twice is none.
    pub async fn close(&self) -> Result<(), LedgerError> {
        match self.thread.close(Store::close).await {
            Err(owner::Gone::Closed) => Ok(()),
            outcome => outcome?,
        }
    }

    async fn call<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        self.thread.call(job).await?
    }
}
