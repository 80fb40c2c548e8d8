//! A DuckDB database of its own in a file, for an export. It is written by whoever exports, not by the engine process.

use std::path::Path;

use arrow::array::RecordBatch;
use duckdb::{Config, Connection};

/// Of the export, which runs beside the daemon on a small machine.
const MEMORY: &str = "256MiB";

/// A database with the table `readings`, in the making.
pub struct TableFile {
    connection: Connection,
}

impl TableFile {
    /// Makes the file, which must not be there yet.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn create(path: &Path) -> Result<Self, String> {
        let open = || -> duckdb::Result<Self> {
            let settings = Config::default().enable_autoload_extension(false)?.max_memory(MEMORY)?;
            let connection = Connection::open_with_flags(path, settings)?;
            connection.execute_batch(
                "create table readings (time timestamp not null, sensor varchar not null, metric varchar not null, value double, \
                 text varchar, unit varchar, quality smallint, arrived timestamp not null, time_source varchar not null, \
                 seq bigint not null); begin transaction",
            )?;
            Ok(Self { connection })
        };
        open().map_err(|error| failed(&error))
    }

    /// Adds rows of `columns::reading_schema`.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn append(&mut self, batch: &RecordBatch) -> Result<(), String> {
        let append = || -> duckdb::Result<()> {
            let mut appender = self.connection.appender("readings")?;
            appender.append_record_batch(batch.clone())?;
            // Dropping it would flush too, but hide what went wrong.
            appender.flush()
        };
        append().map_err(|error| failed(&error))
    }

    /// Writes everything into the one file and closes it.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn finish(self) -> Result<(), String> {
        let written = self.connection.execute_batch("commit; checkpoint");
        written.and_then(|()| self.connection.close().map_err(|(_, error)| error)).map_err(|error| failed(&error))
    }
}

fn failed(error: &duckdb::Error) -> String {
    format!("the DuckDB file can't be written: {error}")
}
