//! The shape of the files: columns, order, metadata, and how each column is written.

use std::sync::{Arc, LazyLock};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::schema::types::ColumnPath;

use super::encoding::ValueEncoding;
use crate::model::{CutNumber, FileKind, InstanceId, Seq, columns};

/// Rows of a row group: DuckDB's own size, so that its threads divide the work evenly, and few enough that one group in
/// the making costs a few megabytes.
pub(super) const MAX_ROW_GROUP_ROWS: usize = 122_880;

/// Measured on real series (`benches/segment_size.rs`): levels 6 and 9 make files 1.4 % smaller, level 1 makes them 1.4 %
/// larger.
const COMPRESSION_LEVEL: i32 = 3;

static RECORDS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, None);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("source", DataType::Utf8, false),
        Field::new("kind", DataType::Utf8, false),
        Field::new("body", DataType::Utf8, false),
        Field::new("first_received", time(), false),
        Field::new("last_received", time(), false),
        Field::new("times", DataType::Int64, false),
    ]))
});

/// The schema of a records file: id, source, kind, body, first_received, last_received, times.
pub fn records_schema() -> SchemaRef {
    Arc::clone(&RECORDS_SCHEMA)
}

/// The schema that a file of `kind` has when it is read.
pub(super) fn schema(kind: FileKind) -> SchemaRef {
    match kind {
        FileKind::Readings => columns::reading_schema(),
        FileKind::Records => records_schema(),
    }
}

/// The column that numbers the rows of a file of `kind`, and the one that holds their event time.
pub(super) fn number_and_time(kind: FileKind) -> (&'static str, &'static str) {
    match kind {
        FileKind::Readings => ("seq", "time"),
        FileKind::Records => ("id", "first_received"),
    }
}

/// The column of a file of `kind` that holds texts, of which each may be long.
pub(super) fn text_column(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Readings => "text",
        FileKind::Records => "body",
    }
}

/// The column `name` of `batch`, as its type.
pub(super) fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, ArrowError> {
    let array = batch.column_by_name(name).and_then(|array| array.as_any().downcast_ref::<T>());
    array.ok_or_else(|| ArrowError::SchemaError(format!("no column {name} of the expected type")))
}

/// Where a file comes from; in its key-value metadata, so that it can be adopted by a ledger that does not know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Whose seqs.
    pub instance: InstanceId,
    /// Which cut; of a merged file its last.
    pub cut: CutNumber,
    /// The first cut of a merged file; else `cut`.
    pub first_cut: CutNumber,
    /// First seq of the cut (not of the file); of a file merged after its delivery its own.
    pub first_seq: Seq,
    /// Last seq of the cut; of a file merged after its delivery its own.
    pub last_seq: Seq,
    /// Merged after its delivery, from files that were shipped with several cuts. Else it is shipped with its cut.
    pub delivered: bool,
}

impl Origin {
    fn to_metadata(&self) -> Vec<KeyValue> {
        let entry = |key: &str, value: String| KeyValue::new(format!("forebay.{key}"), value);
        vec![
            entry("version", env!("CARGO_PKG_VERSION").to_owned()),
            entry("instance", self.instance.to_string()),
            entry("cut", self.cut.to_string()),
            entry("first_cut", self.first_cut.to_string()),
            entry("first_seq", self.first_seq.to_string()),
            entry("last_seq", self.last_seq.to_string()),
            entry("delivered", self.delivered.to_string()),
        ]
    }

    /// What [`Origin::to_metadata`] wrote; `None` in a file of someone else.
    pub(super) fn from_metadata(entries: &[KeyValue]) -> Option<Self> {
        let value = |key: &str| entries.iter().find(|entry| entry.key.strip_prefix("forebay.") == Some(key))?.value.as_deref();
        let cut = value("cut")?.parse().ok()?;
        // Files of old do not say it; and then only what was delivered was merged.
        let first_cut = value("first_cut").map_or(Some(cut), |first| first.parse().ok())?;
        let delivered = value("delivered").map_or(Some(first_cut < cut), |delivered| delivered.parse().ok())?;
        Some(Self {
            instance: value("instance")?.parse().ok()?,
            cut,
            first_cut,
            delivered,
            first_seq: value("first_seq")?.parse().ok()?,
            last_seq: value("last_seq")?.parse().ok()?,
        })
    }
}

fn base() -> WriterPropertiesBuilder {
    let compression = Compression::ZSTD(ZstdLevel::try_new(COMPRESSION_LEVEL).unwrap_or_default());
    WriterProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(MAX_ROW_GROUP_ROWS))
        .set_created_by(concat!("forebay version ", env!("CARGO_PKG_VERSION")).to_owned())
}

fn with_origin(origin: &Origin) -> WriterPropertiesBuilder {
    base().set_key_value_metadata(Some(origin.to_metadata()))
}

/// Numbers that mostly grow by a steady step: their differences, without a dictionary (which would win otherwise).
fn delta(properties: WriterPropertiesBuilder, names: &[&str]) -> WriterPropertiesBuilder {
    names.iter().fold(properties, |properties, name| {
        let path = ColumnPath::from(*name);
        properties.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, Encoding::DELTA_BINARY_PACKED)
    })
}

fn ascending(places: &[i32]) -> Option<Vec<SortingColumn>> {
    Some(places.iter().map(|place| SortingColumn { column_idx: *place, descending: false, nulls_first: false }).collect())
}

/// How a file of `kind` is written; `values` is for readings.
pub(super) fn properties(kind: FileKind, origin: &Origin, values: ValueEncoding) -> WriterProperties {
    match kind {
        FileKind::Readings => reading_properties(origin, values),
        FileKind::Records => record_properties(origin),
    }
}

/// How a readings file is written: sorted by sensor, metric, time.
fn reading_properties(origin: &Origin, values: ValueEncoding) -> WriterProperties {
    reading_columns(with_origin(origin).set_sorting_columns(ascending(&[1, 2, 0])), values)
}

/// How readings are written that are no segment: in any order, from nowhere.
pub(super) fn export_properties(values: ValueEncoding) -> WriterProperties {
    reading_columns(base(), values)
}

fn reading_columns(properties: WriterPropertiesBuilder, values: ValueEncoding) -> WriterProperties {
    let value = ColumnPath::from("value");
    let properties = delta(properties, &["time", "arrived", "seq"]);
    match values {
        ValueEncoding::Dictionary => properties,
        ValueEncoding::Plain => properties.set_column_dictionary_enabled(value, false),
        ValueEncoding::Split => {
            properties.set_column_dictionary_enabled(value.clone(), false).set_column_encoding(value, Encoding::BYTE_STREAM_SPLIT)
        }
    }
    .build()
}

/// How a records file is written: sorted by id.
fn record_properties(origin: &Origin) -> WriterProperties {
    let body = ColumnPath::from("body");
    delta(with_origin(origin), &["id", "first_received", "last_received", "times"])
        .set_column_dictionary_enabled(body, false)
        .set_sorting_columns(ascending(&[0]))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_comes_back_from_its_metadata_and_from_nothing_else() {
        let origin = Origin { instance: InstanceId::random(), cut: 7, first_cut: 5, first_seq: 11, last_seq: 10, delivered: false };
        let mut entries = origin.to_metadata();
        assert_eq!(Origin::from_metadata(&entries).as_ref(), Some(&origin));
        entries.retain(|entry| entry.key != "forebay.delivered");
        assert!(Origin::from_metadata(&entries).unwrap().delivered, "a merged file of old");
        entries.retain(|entry| entry.key != "forebay.cut");
        assert_eq!(Origin::from_metadata(&entries), None);
    }
}
