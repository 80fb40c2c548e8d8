//! DuckDB: how it is opened, and its tables.

use duckdb::{Config, Connection};

use super::{ChildError, SqlLayer};
use crate::engine::protocol::{Opening, SmallTable};

/// Tables and macros. What queries see is in `main`, what it is made of in `internal`.
///
/// Without ICU, which is not bundled, a time with a zone knows no arithmetic: the clock's functions are made to give plain
/// UTC times, so that `time > now() - interval 1 hour` works.
const SCHEMA: &str = "
create schema internal;
create table internal.hot (
    time timestamp, sensor varchar, metric varchar, value double, text varchar, unit varchar, quality smallint,
    arrived timestamp, time_source varchar, seq bigint);
create table books (
    accepted bigint, hot bigint, sealed bigint, delivered bigint, thinned bigint, dropped bigint, damaged bigint, kept bigint);
insert into books values (0, 0, 0, 0, 0, 0, 0, 0);

create macro now() as system.main.now()::timestamp;
create macro current_timestamp() as system.main.now()::timestamp;
create macro current_localtimestamp() as system.main.now()::timestamp;
create macro get_current_timestamp() as system.main.now()::timestamp;
create macro transaction_timestamp() as system.main.now()::timestamp;
create macro current_date() as system.main.now()::timestamp::date;
create macro today() as system.main.now()::timestamp::date;
";

/// Series: what is sealed, from the ledger, and what is hot, counted here. Of equal times the later seq is the newest.
const SERIES: &str = "
create view series as
with fresh as (
    select sensor, metric, arg_max(unit, seq) as unit, min(time) as first_time, max(time) as last_time,
        count(*) as readings, last({'value': value, 'text': text} order by time, seq) as latest
    from internal.hot group by sensor, metric),
joined as (
    select coalesce(fresh.sensor, sealed.sensor) as sensor, coalesce(fresh.metric, sealed.metric) as metric,
        coalesce(fresh.unit, sealed.unit) as unit,
        least(fresh.first_time, sealed.first_time) as first_time, greatest(fresh.last_time, sealed.last_time) as last_time,
        coalesce(fresh.readings, 0) + coalesce(sealed.readings, 0) as readings,
        fresh.latest as latest, sealed.last_value as sealed_value, sealed.last_text as sealed_text,
        fresh.last_time is not null and (sealed.last_time is null or fresh.last_time >= sealed.last_time) as is_fresh
    from internal.sealed_series sealed full join fresh on fresh.sensor = sealed.sensor and fresh.metric = sealed.metric)
select sensor, metric, unit, first_time, last_time, readings,
    if(is_fresh, latest.value, sealed_value) as last_value, if(is_fresh, latest.text, sealed_text) as last_text
from joined;
";

/// The statement that makes `table`, empty; in place of the old one.
pub fn create(table: SmallTable) -> &'static str {
    match table {
        SmallTable::SealedSeries => {
            "create or replace table internal.sealed_series (sensor varchar, metric varchar, unit varchar, first_time timestamp, \
             last_time timestamp, readings bigint, last_value double, last_text varchar)"
        }
        SmallTable::Records => {
            "create or replace table records (id bigint, source varchar, kind varchar, body varchar, first_received timestamp, \
             last_received timestamp, times bigint)"
        }
        SmallTable::Losses => {
            "create or replace table losses (id bigint, instance varchar, first_seq bigint, last_seq bigint, readings bigint, \
             reason varchar, noted timestamp, detail varchar, shipment bigint)"
        }
    }
}

/// The view that joins what is hot with `segments` (below the current folder). Hive columns would add a `date`.
pub fn readings_view(segments: &[String]) -> String {
    const COLUMNS: &str = "time, sensor, metric, value, text, unit, quality, arrived, time_source, seq";
    let hot = format!("create or replace view readings as select {COLUMNS} from internal.hot");
    if segments.is_empty() {
        return hot;
    }
    let files: Vec<_> = segments.iter().map(|name| format!("'{}'", name.replace('\'', "''"))).collect();
    let files = files.join(", ");
    format!("{hot} union all select {COLUMNS} from read_parquet([{files}], hive_partitioning = false)")
}

/// Settings that must hold before the first query.
const LOCKED: [(&str, &str); 5] = [
    ("enable_external_access", "false"),
    ("autoinstall_known_extensions", "false"),
    ("autoload_known_extensions", "false"),
    ("allow_community_extensions", "false"),
    ("lock_configuration", "true"),
];

/// DuckDB in memory.
pub struct Database {
    first: Connection,
    sql_layer: SqlLayer,
}

impl Database {
    /// Opens DuckDB, which may read the current folder (that of the segments) and nothing else, and can't be told to do
    /// more.
    pub fn open(opening: &Opening, sql_layer: SqlLayer) -> Result<Self, ChildError> {
        let first = settings(opening).and_then(Connection::open_in_memory_with_flags).map_err(failed("opening"))?;
        let tables = [SmallTable::SealedSeries, SmallTable::Records, SmallTable::Losses].map(create).join("; ");
        let schema = [SCHEMA, &tables, ";", SERIES, &readings_view(&[])].concat();
        first.execute_batch(&schema).map_err(failed("making its tables"))?;
        if sql_layer == SqlLayer::On {
            lock(&first)?;
        }
        Ok(Self { first, sql_layer })
    }

    /// What stands before a query.
    pub fn sql_layer(&self) -> SqlLayer {
        self.sql_layer
    }

    /// Another connection.
    pub fn connect(&self) -> Result<Connection, ChildError> {
        self.first.try_clone().map_err(failed("connecting"))
    }
}

fn settings(opening: &Opening) -> duckdb::Result<Config> {
    Config::default()
        .enable_autoload_extension(false)?
        .max_memory(&format!("{}KiB", opening.memory_bytes >> 10))?
        .threads(i64::try_from(opening.threads).unwrap_or(1))?
        // It would start four threads a processor to read ahead.
        .with("async_threads", "1")?
        // It writes no file.
        .with("temp_directory", "")?
        // Freed memory goes back to the system after 16 MiB, not 128.
        .with("allocator_flush_threshold", "16MB")?
        .with("allow_community_extensions", "false")
}

/// Order matters: folders can be allowed only while everything still is.
fn lock(connection: &Connection) -> Result<(), ChildError> {
    // The footers of segments never change.
    let cache = "set parquet_metadata_cache = true";
    connection.execute_batch(cache).map_err(failed("caching footers"))?;
    connection.execute_batch("set allowed_directories = ['.']").map_err(failed("allowing the segments folder"))?;
    connection.execute_batch("set enable_external_access = false; set lock_configuration = true").map_err(failed("locking"))?;
    for (setting, expected) in LOCKED {
        let sql = format!("select current_setting('{setting}')::varchar");
        let found: String = connection.query_row(&sql, [], |row| row.get(0)).map_err(failed("reading its settings"))?;
        if found != expected {
            return Err(ChildError::Unlocked(setting));
        }
    }
    Ok(())
}

/// Says what DuckDB was doing.
pub fn failed(doing: &'static str) -> impl FnOnce(duckdb::Error) -> ChildError {
    move |source| ChildError::DuckDb { doing, source }
}
