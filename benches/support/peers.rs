//! What the storage is measured against: SQLite with one row a reading and an index, and SQLite with one JSON body a reading.

use std::path::{Path, PathBuf};

use forebay::model::Reading;
use rusqlite::{Connection, params};

/// A way to keep readings in SQLite, and its words for the same questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A row a reading, and an index on sensor, metric and time.
    Rows,
    /// The reading as JSON in one column, as scripts that only collect do it.
    Json,
}

impl Peer {
    pub const ALL: [Self; 2] = [Self::Rows, Self::Json];

    fn table(self) -> &'static str {
        match self {
            Self::Rows => {
                "create table readings (time integer not null, sensor text not null, metric text not null, value real, unit text, \
                 arrived integer not null)"
            }
            Self::Json => "create table messages (id integer primary key, body text not null)",
        }
    }

    /// The readings of the series (?1, ?2) from ?3 until before ?4.
    pub fn range(self) -> &'static str {
        match self {
            Self::Rows => "select time, value from readings where sensor = ?1 and metric = ?2 and time >= ?3 and time < ?4 order by time",
            Self::Json => {
                "select body ->> 'time' as time, body ->> 'value' from messages \
                 where body ->> 'sensor' = ?1 and body ->> 'metric' = ?2 and time >= ?3 and time < ?4 order by time"
            }
        }
    }

    /// Four figures of each series.
    pub fn aggregate(self) -> &'static str {
        match self {
            Self::Rows => "select sensor, metric, count(*), avg(value), min(value), max(value) from readings group by sensor, metric",
            Self::Json => {
                "select body ->> 'sensor' as sensor, body ->> 'metric' as metric, count(*), avg(body ->> 'value'), \
                 min(body ->> 'value'), max(body ->> 'value') from messages group by 1, 2"
            }
        }
    }

    /// The newest reading of the series (?1, ?2).
    pub fn latest(self) -> &'static str {
        match self {
            Self::Rows => "select time, value from readings where sensor = ?1 and metric = ?2 order by time desc limit 1",
            Self::Json => {
                "select max(body ->> 'time'), body ->> 'value' from messages where body ->> 'sensor' = ?1 and body ->> 'metric' = ?2"
            }
        }
    }

    /// The newest reading of each series.
    pub fn all_latest(self) -> &'static str {
        match self {
            Self::Rows => "select sensor, metric, max(time), value from readings group by sensor, metric",
            Self::Json => {
                "select body ->> 'sensor' as sensor, body ->> 'metric' as metric, max(body ->> 'time'), body ->> 'value' \
                 from messages group by 1, 2"
            }
        }
    }
}

/// A database of a peer.
pub struct Peers {
    peer: Peer,
    path: PathBuf,
    connection: Connection,
}

impl Peers {
    /// All of `readings` in one transaction, fsynced; the index is made after it, which is its quickest way. Also gives the
    /// bytes of the bodies.
    pub fn fill(peer: Peer, folder: &Path, readings: impl Iterator<Item = Reading>) -> (Self, u64) {
        let path = folder.join(format!("{peer:?}.db"));
        let mut connection = Connection::open(&path).unwrap();
        connection.execute_batch("pragma synchronous = full").unwrap();
        connection.execute_batch(peer.table()).unwrap();
        let transaction = connection.transaction().unwrap();
        let mut bytes = 0;
        match peer {
            Peer::Rows => {
                let mut insert = transaction.prepare("insert into readings values (?1, ?2, ?3, ?4, ?5, ?6)").unwrap();
                for reading in readings {
                    let Reading { time, sensor, metric, value, unit, arrived, .. } = reading;
                    insert.execute(params![time.0, &*sensor, &*metric, value, unit.as_deref(), arrived.0]).unwrap();
                }
            }
            Peer::Json => {
                let mut insert = transaction.prepare("insert into messages (body) values (?1)").unwrap();
                for body in readings.map(body) {
                    insert.execute([&body]).unwrap();
                    bytes += body.len() as u64;
                }
            }
        }
        if peer == Peer::Rows {
            transaction.execute_batch("create index readings_series on readings (sensor, metric, time)").unwrap();
        }
        transaction.commit().unwrap();
        (Self { peer, path, connection }, bytes)
    }

    /// With nothing in its own cache.
    pub fn reopen(&mut self) {
        self.connection = Connection::open(&self.path).unwrap();
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Times are numbers in rows, and texts in bodies.
    pub fn time(&self, time: forebay::model::Timestamp) -> rusqlite::types::Value {
        match self.peer {
            Peer::Rows => time.0.into(),
            Peer::Json => time.to_string().into(),
        }
    }

    /// Asks, and reads all of the answer; how many rows it has.
    pub fn ask(&self, sql: &str, values: &[rusqlite::types::Value]) -> usize {
        let mut statement = self.connection.prepare_cached(sql).unwrap();
        let mut rows = statement.query(rusqlite::params_from_iter(values)).unwrap();
        let mut count = 0;
        while let Some(row) = rows.next().unwrap() {
            std::hint::black_box(row.get_ref(1).unwrap());
            count += 1;
        }
        count
    }
}

/// A reading as `forebay query --format jsonl` writes it, without what it does not have.
fn body(reading: Reading) -> String {
    let Reading { time, sensor, metric, value, unit, arrived, .. } = reading;
    let (value, unit) = (value.unwrap_or_default(), unit.unwrap_or_default());
    let series = format!("\"sensor\":\"{sensor}\",\"metric\":\"{metric}\"");
    format!("{{\"time\":\"{time}\",{series},\"value\":{value},\"unit\":\"{unit}\",\"arrived\":\"{arrived}\"}}")
}
