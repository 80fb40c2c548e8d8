//! The store: applies what the daemon says, each commit as one DuckDB transaction.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::ipc::reader::StreamReader;
use duckdb::Connection;

use super::ChildError;
use super::database::{create, failed};
use crate::engine::protocol::{Moment, SmallTable};
use crate::model::{Seq, columns};

/// Readings that go into the table together: many journal batches hold only a few, and an append costs a millisecond.
const READINGS_AT_ONCE: usize = 8192;

/// The only connection that writes. After an error it must not be used: DuckDB would take a commit of the broken
/// transaction for a rollback without a word. So the process ends.
pub struct Store {
    connection: Connection,
    in_transaction: bool,
    /// Readings that are not in the table yet.
    waiting: Vec<RecordBatch>,
    mark: Seq,
    segments: usize,
}

impl Store {
    /// An empty store.
    pub fn new(connection: Connection) -> Self {
        Self { connection, in_transaction: false, waiting: Vec::new(), mark: 0, segments: 0 }
    }

    /// Adds the readings of a journal batch.
    pub fn add_rows(&mut self, batch: &[u8], first_seq: Seq) -> Result<(), ChildError> {
        // The appender knows no dictionaries.
        self.waiting.push(columns::plain_words(&columns::decode_journal(batch, first_seq)?)?);
        let readings: usize = self.waiting.iter().map(RecordBatch::num_rows).sum();
        if readings >= READINGS_AT_ONCE { self.append() } else { Ok(()) }
    }

    /// Puts what waits into the table.
    fn append(&mut self) -> Result<(), ChildError> {
        let Some(first) = self.waiting.first() else { return Ok(()) };
        let readings = concat_batches(&first.schema(), &self.waiting)?;
        self.waiting.clear();
        self.begin()?;
        let mut appender = self.connection.appender_to_db("hot", "internal").map_err(failed("adding readings"))?;
        appender.append_record_batch(readings).map_err(failed("adding readings"))?;
        // Dropping it would flush too, but hide what went wrong.
        appender.flush().map_err(failed("adding readings"))
    }

    /// Replaces a small table by the rows of an Arrow stream.
    pub fn replace_table(&mut self, table: SmallTable, rows: &[u8]) -> Result<(), ChildError> {
        self.begin()?;
        self.connection.execute_batch(create(table)).map_err(failed("replacing a table"))?;
        let (name, schema) = match table {
            SmallTable::SealedSeries => ("sealed_series", "internal"),
            SmallTable::Records => ("records", "main"),
            SmallTable::Losses => ("losses", "main"),
            SmallTable::Segments => ("segments", "internal"),
        };
        let mut appender = self.connection.appender_to_db(name, schema).map_err(failed("filling a table"))?;
        let mut count = 0;
        for rows in StreamReader::try_new(rows, None)? {
            let rows = rows?;
            count += rows.num_rows();
            appender.append_record_batch(rows).map_err(failed("filling a table"))?;
        }
        if table == SmallTable::Segments {
            self.segments = count;
        }
        appender.flush().map_err(failed("filling a table"))
    }

    /// Makes everything since the last commit true at once; says how many segments are attached.
    pub fn commit(&mut self, moment: &Moment) -> Result<usize, ChildError> {
        self.append()?;
        self.begin()?;
        if moment.mark > self.mark {
            let sealed = format!("delete from internal.hot where seq <= {}", moment.mark);
            self.connection.execute_batch(&sealed).map_err(failed("letting go of sealed readings"))?;
        }
        self.connection.execute_batch(&update_books(moment)).map_err(failed("writing the books"))?;
        self.connection.execute_batch("commit").map_err(failed("committing"))?;
        (self.in_transaction, self.mark) = (false, moment.mark);
        Ok(self.segments)
    }

    fn begin(&mut self) -> Result<(), ChildError> {
        if !self.in_transaction {
            self.connection.execute_batch("begin transaction").map_err(failed("beginning"))?;
            self.in_transaction = true;
        }
        Ok(())
    }
}

fn update_books(Moment { books, .. }: &Moment) -> String {
    let counts = [("accepted", books.accepted), ("kept", books.kept)].into_iter().chain(books.places());
    let columns: Vec<_> = counts.map(|(name, count)| format!("{name} = {count}")).collect();
    format!("update books set {}", columns.join(", "))
}
