//! The reader: a read-only connection beside the thread, for status, sealer, uploader and the engine's feeder.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Params, Row};

use super::answers::{Backlog, JournalEntry, JournalSize, Progress};
use super::error::LedgerError;
use super::readers::{Lent, Readers};
use super::refusals::{self, Refusals};
use super::rows;
use super::segments;
use super::state;
use super::suspicion;
use crate::model::columns::{JOURNAL_HEAD_BYTES, unpacked_bytes};
use crate::model::{
    Books, Cut, CutNumber, Digest, InstanceId, Loss, LossStatus, Segment, Seq, SeriesSummary, Shipment, ShipmentNumber, StoredRecord,
    Tally, Timestamp,
};

/// What holds a cut back, of a row of cuts: its instance is set aside, or upstream refused it.
const HELD: &str = "(instance in (select name from instances where set_aside is not null) \
                    or id in (select cut from refused where again is not null))";

/// A read-only connection. Each method is one consistent read; [`Reader::snapshot`] makes several consistent.
pub struct Reader {
    connection: Lent,
}

impl Reader {
    pub(super) fn new(readers: &Arc<Readers>) -> Result<Self, LedgerError> {
        Ok(Self { connection: readers.lend()? })
    }

    /// Runs `read` in one read transaction: all it asks is of the same moment.
    ///
    /// # Errors
    /// Those of `read`.
    pub fn snapshot<T>(&mut self, read: impl FnOnce(&Self) -> Result<T, LedgerError>) -> Result<T, LedgerError> {
        let transaction = self.connection.unchecked_transaction()?;
        let answer = read(self)?;
        transaction.finish()?;
        Ok(answer)
    }

    /// The books now.
    ///
    /// # Errors
    /// As every method here: `Corrupt` where the file is damaged, `Broken` where it can't be read.
    pub fn books(&self) -> Result<Books, LedgerError> {
        Ok(self.state()?.books)
    }

    /// Totals of this instance.
    pub fn tally(&self) -> Result<Tally, LedgerError> {
        Ok(self.state()?.tally)
    }

    /// How far everything has come; its version is 0.
    pub fn progress(&self) -> Result<Progress, LedgerError> {
        Ok(self.state()?.progress(0))
    }

    fn state(&self) -> Result<state::State, LedgerError> {
        state::load(&self.connection).map_err(|error| self.noticed(error))
    }

    /// Journal batches with readings above `after`, oldest first, at most `max_readings` (but one batch at least).
    pub fn journal(&self, after: Seq, max_readings: u64) -> Result<Vec<JournalEntry>, LedgerError> {
        let sql = "select first_seq, readings, sha256, bytes from journal \
                   where first_seq >= coalesce((select max(first_seq) from journal where first_seq <= ?1), 0) \
                   and first_seq + readings > ?1 order by first_seq";
        let read = || -> rusqlite::Result<Vec<JournalEntry>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            let mut rows = statement.query([after + 1])?;
            let (mut entries, mut total) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let readings: u64 = row.get(1)?;
                total += readings;
                if !entries.is_empty() && total > max_readings {
                    break;
                }
                entries.push(entry(row)?);
            }
            Ok(entries)
        };
        read().map_err(|error| self.failed(error))
    }

    /// The sizes of the journal batches that begin above `after`, oldest first.
    pub fn journal_sizes(&self, after: Seq) -> Result<Vec<JournalSize>, LedgerError> {
        let sql = "select first_seq + readings - 1, readings, substr(bytes, 1, ?2) from journal where first_seq > ?1 order by first_seq";
        self.all(sql, (after, JOURNAL_HEAD_BYTES), |row| {
            let bytes = unpacked_bytes(row.get_ref(2)?.as_blob()?).unwrap_or(0) as u64;
            Ok(JournalSize { last_seq: row.get(0)?, readings: row.get(1)?, bytes })
        })
    }

    /// Bytes of sensor and metric of a series, on average.
    pub fn bytes_of_names(&self) -> Result<u64, LedgerError> {
        let sql = "select cast(coalesce(avg(length(cast(sensor as blob)) + length(cast(metric as blob))), 0) as integer) from series";
        self.one(sql, [], |row| row.get(0))
    }

    /// When the oldest hot batch was committed, and how many readings are hot.
    pub fn hot(&self) -> Result<(Option<Timestamp>, u64), LedgerError> {
        let sql = "select (select committed from journal order by first_seq limit 1), hot from state";
        let (oldest, hot) = self.one(sql, [], |row| Ok((row.get::<_, Option<i64>>(0)?, row.get(1)?)))?;
        Ok((oldest.map(Timestamp), hot))
    }

    /// Segments still here (not evicted, not damaged), by event time, newest first.
    pub fn segments(&self) -> Result<Vec<Segment>, LedgerError> {
        let sql = format!(
            "select {} from segments s join cuts c on c.id = s.cut where s.state = 'present' order by s.max_time desc, s.id desc",
            rows::SEGMENT
        );
        self.all(&sql, [], rows::segment)
    }

    /// The names of the segments that are here, as `SegmentName` writes them, in no order.
    pub fn segment_paths(&self) -> Result<HashSet<String>, LedgerError> {
        segments::paths(&self.connection).map_err(|error| self.failed(error))
    }

    /// What `model::check_of` adds up to for the segments that are here: whether a folder holds them, without listing them.
    pub fn segments_check(&self) -> Result<u64, LedgerError> {
        Ok(self.state()?.segments_check)
    }

    /// How many segments are here, without listing them.
    pub fn segment_count(&self) -> Result<u64, LedgerError> {
        self.one("select count(*) from segments where state = 'present'", [], |row| row.get(0))
    }

    /// What is sealed and not delivered, without listing it.
    pub fn backlog(&self) -> Result<Backlog, LedgerError> {
        let sql = format!(
            "with waiting as (select id, readings, sealed, {HELD} as held from cuts where state = 'sealed'), \
             files as (select s.bytes, w.held from waiting w join segments s on s.cut = w.id where s.state = 'present') \
             select coalesce(sum(readings), 0), min(sealed), (select coalesce(sum(bytes), 0) from files), \
             (select coalesce(sum(bytes), 0) from files where held) from waiting"
        );
        let backlog = |row: &Row<'_>| {
            let oldest = row.get::<_, Option<i64>>(1)?.map(Timestamp);
            Ok(Backlog { readings: row.get(0)?, bytes: row.get(2)?, held_bytes: row.get(3)?, oldest })
        };
        self.one(&sql, [], backlog)
    }

    /// The cuts that upstream refuses; `None` if there is none.
    pub fn refusals(&self) -> Result<Option<Refusals>, LedgerError> {
        refusals::count(&self.connection).map_err(|error| self.failed(error))
    }

    /// Whether a cut that was refused is to be tried again at `now`.
    pub fn has_refused_due(&self, now: Timestamp) -> Result<bool, LedgerError> {
        self.one("select exists (select 1 from refused where again <= ?1)", [now.0], |row| row.get(0))
    }

    /// All cuts of this folder, of every instance, oldest first.
    pub fn cuts(&self) -> Result<Vec<Cut>, LedgerError> {
        self.all(&format!("select {} from cuts order by id", rows::CUT), [], rows::cut)
    }

    /// Undelivered cut to ship next, by order; `None` if there is none. Cuts of instances set aside, and those that upstream
    /// refused, are passed over.
    pub fn next_cut(&self, newest_first: bool) -> Result<Option<Cut>, LedgerError> {
        let order = if newest_first { "desc" } else { "asc" };
        let sql = format!("select {} from cuts where state = 'sealed' and not {HELD} order by id {order} limit 1", rows::CUT);
        self.maybe(&sql, [], rows::cut)
    }

    /// An instance, not set aside, with losses that no shipment carries: what to ship when there is no cut.
    pub fn next_losses(&self) -> Result<Option<InstanceId>, LedgerError> {
        let sql = "select instance from losses where shipment is null \
                   and instance not in (select name from instances where set_aside is not null) order by id limit 1";
        self.maybe(sql, [], |row| rows::instance(row, 0))
    }

    /// Instances of which nothing more is shipped, with the reason; oldest first.
    pub fn set_aside(&self) -> Result<Vec<(InstanceId, String)>, LedgerError> {
        let sql = "select name, set_aside from instances where set_aside is not null order by id";
        self.all(sql, [], |row| Ok((rows::instance(row, 0)?, row.get(1)?)))
    }

    /// The instance that `instance` began as a fork of.
    pub fn parent(&self, instance: &InstanceId) -> Result<Option<InstanceId>, LedgerError> {
        let sql = "select forked_from from instances where name = ?1 and forked_from is not null";
        self.maybe(sql, [instance.as_str()], |row| rows::instance(row, 0))
    }

    /// Whether anything of this folder was ever shipped, or began to be.
    pub fn has_shipped(&self) -> Result<bool, LedgerError> {
        self.one("select exists (select 1 from shipments)", [], |row| row.get(0))
    }

    /// Files of one cut as it was sealed, or merged undelivered, present or evicted, readings before records, by date.
    pub fn cut_segments(&self, instance: &InstanceId, cut: CutNumber) -> Result<Vec<Segment>, LedgerError> {
        let sql = format!(
            "select {} from segments s join cuts c on c.id = s.cut \
             where c.instance = ?1 and c.number = ?2 and s.first_cut = c.first_cut and s.state in ('present', 'evicted') \
             order by s.kind, s.date",
            rows::SEGMENT
        );
        self.all(&sql, (instance.as_str(), cut), rows::segment)
    }

    /// The shipment under way, if there is one.
    pub fn open_shipment(&self) -> Result<Option<Shipment>, LedgerError> {
        let sql = "select s.instance, s.number, c.number, c.first_cut, s.manifest from shipments s left join cuts c on c.id = s.cut \
                   where s.delivered is null";
        let Some(mut shipment) = self.maybe(sql, [], rows::shipment)? else {
            return Ok(None);
        };
        let told = "select id from losses where instance = ?1 and shipment = ?2 order by id";
        shipment.losses = self.all(told, (shipment.instance.as_str(), shipment.number), |row| row.get(0))?;
        Ok(Some(shipment))
    }

    /// Number and manifest digest of the last delivered shipment of `instance`.
    pub fn last_shipment(&self, instance: &InstanceId) -> Result<Option<(ShipmentNumber, Digest)>, LedgerError> {
        let sql = "select number, sha256 from shipments where instance = ?1 and delivered is not null order by number desc limit 1";
        self.maybe(sql, [instance.as_str()], |row| Ok((row.get(0)?, rows::digest(row, 1)?)))
    }

    /// Losses, newest first, at most `limit`.
    pub fn losses(&self, limit: usize) -> Result<Vec<LossStatus>, LedgerError> {
        self.all(&format!("select {} from losses order by id desc limit ?1", rows::LOSS), [bounded(limit)], rows::loss)
    }

    /// Losses of `instance` that no shipment carries, oldest first.
    pub fn untold_losses(&self, instance: &InstanceId) -> Result<Vec<Loss>, LedgerError> {
        let sql = format!("select {} from losses where instance = ?1 and shipment is null order by id", rows::LOSS);
        self.all(&sql, [instance.as_str()], |row| Ok(rows::loss(row)?.loss))
    }

    /// Every series, as of the mark, by sensor and metric.
    pub fn series(&self) -> Result<Vec<SeriesSummary>, LedgerError> {
        self.all(&format!("select {} from series", rows::SERIES), [], rows::series)
    }

    /// Records, newest first; filters are exact. At most `limit`.
    pub fn records(&self, source: Option<&str>, kind: Option<&str>, limit: usize) -> Result<Vec<StoredRecord>, LedgerError> {
        // With a source its index is taken; `?1 is null or ...` would read every record.
        let of_source = if source.is_some() { "source = ?1" } else { "?1 is null" };
        let columns = rows::RECORD;
        let sql = format!("select {columns} from records where {of_source} and (?2 is null or kind = ?2) order by id desc limit ?3");
        self.all(&sql, (source, kind, bounded(limit)), rows::record)
    }

    /// The newest records, newest first, as many as have `max_bytes` of text together, but the newest at least.
    pub fn newest_records(&self, max_bytes: usize) -> Result<Vec<StoredRecord>, LedgerError> {
        let sql = format!("select {} from records order by id desc", rows::RECORD);
        let read = || -> rusqlite::Result<Vec<StoredRecord>> {
            let mut statement = self.connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            let (mut records, mut bytes) = (Vec::new(), 0_usize);
            while let Some(row) = rows.next()? {
                let record = rows::record(row)?;
                bytes = bytes.saturating_add(record.source.len() + record.kind.len() + record.body.len());
                if !records.is_empty() && bytes > max_bytes {
                    break;
                }
                records.push(record);
            }
            Ok(records)
        };
        read().map_err(|error| self.failed(error))
    }

    /// Records with ids above `after`, oldest first: what the next cut exports after [`Reader::last_exported_record`].
    pub fn records_after(&self, after: i64, limit: usize) -> Result<Vec<StoredRecord>, LedgerError> {
        let sql = format!("select {} from records where id > ?1 order by id limit ?2", rows::RECORD);
        self.all(&sql, (after, bounded(limit)), rows::record)
    }

    /// Highest record id exported.
    pub fn last_exported_record(&self) -> Result<i64, LedgerError> {
        self.one("select exported_record from state", [], |row| row.get(0))
    }

    /// Whether readings with this idempotency key are committed.
    pub fn has_idempotency_key(&self, key: &Digest) -> Result<bool, LedgerError> {
        self.one("select exists (select 1 from idempotency where digest = ?1)", [key.0], |row| row.get(0))
    }

    /// How many rows of `file` (its digest) are imported.
    pub fn imported_rows(&self, file: &Digest) -> Result<u64, LedgerError> {
        Ok(super::imports::imported_rows(&self.connection, file).map_err(|error| self.failed(error))?.unwrap_or(0))
    }

    /// Recomputes the books and checks what the rows say of each other; gives each contradiction as a sentence.
    pub fn audit(&mut self) -> Result<Vec<String>, LedgerError> {
        self.snapshot(|reader| super::audit::audit(&reader.connection))
    }

    pub(super) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, LedgerError> {
        let rows = || -> rusqlite::Result<Vec<T>> { self.connection.prepare_cached(sql)?.query_map(params, read)?.collect() };
        rows().map_err(|error| self.failed(error))
    }

    pub(super) fn maybe<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, LedgerError> {
        let row = || -> rusqlite::Result<Option<T>> { self.connection.prepare_cached(sql)?.query_row(params, read).optional() };
        row().map_err(|error| self.failed(error))
    }

    pub(super) fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, LedgerError> {
        let row = || -> rusqlite::Result<T> { self.connection.prepare_cached(sql)?.query_row(params, read) };
        row().map_err(|error| self.failed(error))
    }

    fn failed(&self, error: rusqlite::Error) -> LedgerError {
        self.noticed(error.into())
    }

    /// Damage that a reader meets is looked into at the next start.
    fn noticed(&self, error: LedgerError) -> LedgerError {
        if matches!(error, LedgerError::Corrupt(_)) {
            suspicion::note(self.connection.home().path());
        }
        error
    }
}

pub(super) fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<JournalEntry> {
    let (expected, bytes) = (rows::digest(row, 2)?, row.get::<_, Vec<u8>>(3)?);
    let found = Digest::of(&bytes);
    let bytes = if found == expected { Ok(bytes) } else { Err(format!("its digest is {found} instead of {expected}")) };
    Ok(JournalEntry { first_seq: row.get(0)?, readings: row.get(1)?, bytes })
}
