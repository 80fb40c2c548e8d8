//! What forebay is measured against: SQLite with one row a reading, in the benchmark's own process, with nothing to decode.

use std::path::Path;

use rusqlite::{Connection, params};

/// A table of readings, fsynced at every commit as the ledger is.
pub struct Rows {
    connection: Connection,
    sensors: Vec<String>,
    added: u64,
}

impl Rows {
    /// An empty one in `folder`; `indexed` by series and time, without which no question but "all of them" is quick.
    pub fn create(folder: &Path, indexed: bool) -> Self {
        let connection = Connection::open(folder.join("rows.db")).unwrap();
        connection.query_row("pragma journal_mode = wal", [], |_| Ok(())).unwrap();
        let table = "pragma synchronous = full;
            create table readings
            (time integer not null, sensor text not null, metric text not null, value real, arrived integer not null)";
        connection.execute_batch(table).unwrap();
        if indexed {
            connection.execute_batch("create index readings_series on readings (sensor, metric, time)").unwrap();
        }
        Self { connection, sensors: (0..10).map(|number| format!("sim-{number:04}")).collect(), added: 0 }
    }

    /// Adds `count` readings in one transaction.
    pub fn commit(&mut self, count: u64) {
        let transaction = self.connection.transaction().unwrap();
        let mut insert = transaction.prepare_cached("insert into readings values (?1, ?2, 'temperature', ?3, ?4)").unwrap();
        for number in self.added..self.added + count {
            let time = 1_700_000_000_000_000 + number * 1000;
            let value = (2000.0 + 100.0 * (number as f64 / 500.0).sin()).round() / 100.0;
            insert.execute(params![time, self.sensors[number as usize % self.sensors.len()], value, time + 700]).unwrap();
        }
        drop(insert);
        transaction.commit().unwrap();
        self.added += count;
    }
}
