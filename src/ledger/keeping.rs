//! What retention asks of the ledger: what may go, and how full the file is.

use rusqlite::Row;

use super::answers::{Droppable, Evictable, Fill, Gone};
use super::error::LedgerError;
use super::reader::{Reader, bounded};
use super::rows;
use crate::model::{FileKind, InstanceId, Segment, SegmentName, Timestamp};

impl Reader {
    /// Delivered segments that are here, oldest cut first, at most `limit`; with `sealed_before` only of cuts sealed before.
    pub fn evictable(&self, sealed_before: Option<Timestamp>, limit: usize) -> Result<Vec<Evictable>, LedgerError> {
        let sql = format!(
            "select {}, c.sealed from cuts c join segments s on s.cut = c.id \
             where c.state = 'delivered' and s.state = 'present' and c.sealed < ?1 order by c.id, s.id limit ?2",
            rows::SEGMENT
        );
        let evictable = |row: &Row<'_>| {
            let segment = rows::segment(row)?;
            Ok(Evictable { readings: readings_of(&segment), bytes: segment.bytes, name: segment.name, sealed: rows::time(row, 11)? })
        };
        self.all(&sql, (sealed_before.map_or(i64::MAX, |time| time.0), bounded(limit)), evictable)
    }

    /// Cuts that are neither delivered nor being shipped, oldest first, at most `limit`.
    pub fn droppable(&self, limit: usize) -> Result<Vec<Droppable>, LedgerError> {
        let sql = "select id, instance, number from cuts where state = 'sealed' \
                   and id not in (select cut from shipments where delivered is null and cut is not null) order by id limit ?1";
        let cuts = self.all(sql, [bounded(limit)], |row| Ok((row.get(0)?, rows::instance(row, 1)?, row.get(2)?)))?;
        cuts.into_iter()
            .map(|(id, instance, number)| {
                let files = self.files_of(id, "= 'present'")?;
                let (bytes, readings) = (files.iter().map(|file| file.bytes).sum(), files.iter().map(readings_of).sum());
                let files = files.into_iter().map(|file| file.name).collect();
                Ok(Droppable { instance, number, bytes, readings, files })
            })
            .collect()
    }

    /// Cuts of which no file is here and that are not the newest of their instance, oldest first, at most `limit`.
    pub fn gone(&self, limit: usize) -> Result<Vec<Gone>, LedgerError> {
        let sql = "select id, instance, number from cuts c where state <> 'sealed' \
                   and number < (select max(number) from cuts where instance = c.instance) \
                   and not exists (select 1 from segments where cut = c.id and state = 'present') order by id limit ?1";
        let cuts: Vec<(i64, InstanceId, u64)> =
            self.all(sql, [bounded(limit)], |row| Ok((row.get(0)?, rows::instance(row, 1)?, row.get(2)?)))?;
        let gone = |(id, instance, number)| {
            let files: Vec<SegmentName> = self.files_of(id, "<> 'present'")?.into_iter().map(|file| file.name).collect();
            Ok(Gone { instance, number, files })
        };
        cuts.into_iter().map(gone).collect()
    }

    /// Bytes of all segments that are here, each in whole blocks of `block` bytes.
    pub fn segment_bytes(&self, block: u64) -> Result<u64, LedgerError> {
        let sum = "select coalesce(sum((bytes + ?1 - 1) / ?1 * ?1), 0) from segments where state = 'present'";
        self.one(sum, [block], |row| row.get(0))
    }

    /// How full the file is, and how many readings are kept.
    pub fn fill(&self) -> Result<Fill, LedgerError> {
        let (kept, hot) = self.one("select kept, hot from state", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let pragma = |name: &str| self.one(&format!("pragma {name}"), [], |row| row.get::<_, u64>(0));
        let (page, pages, free) = (pragma("page_size")?, pragma("page_count")?, pragma("freelist_count")?);
        Ok(Fill { kept, hot, used_bytes: pages.saturating_sub(free) * page, free_bytes: free * page })
    }

    fn files_of(&self, cut: i64, state: &str) -> Result<Vec<Segment>, LedgerError> {
        let columns = rows::SEGMENT;
        let sql =
            format!("select {columns} from segments s join cuts c on c.id = s.cut where s.cut = ?1 and s.state {state} order by s.id");
        self.all(&sql, [cut], rows::segment)
    }
}

fn readings_of(segment: &Segment) -> u64 {
    match segment.name.kind {
        FileKind::Readings => segment.rows,
        FileKind::Records => 0,
    }
}
