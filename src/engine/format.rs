//! How an answer is written.
//!
//! JSON is an array of objects, one a row, as `sqlite3 -json` and `duckdb -json` print it and dashboards expect it;
//! JSON lines are the same objects, one a line; CSV has a header and quotes as RFC 4180 says, with bare line feeds;
//! Arrow is an IPC stream, Parquet a file with the same columns. Times are RFC 3339 in UTC with six digits, numbers are
//! numbers (also the wide ones that a sum gives), NaN and the infinities are null in JSON, and a null is an empty field in
//! CSV.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[cfg(any(feature = "engine", test))]
pub use writer::AnswerWriter;

/// The formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An array of objects.
    Json,
    /// An object a line.
    #[serde(rename = "jsonl")]
    JsonLines,
    /// Comma-separated values with a header.
    Csv,
    /// An Arrow IPC stream.
    Arrow,
    /// A Parquet file.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Json, Self::JsonLines, Self::Csv, Self::Arrow, Self::Parquet];

    /// Its word on the command line and in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
            Self::Arrow => "arrow",
            Self::Parquet => "parquet",
        }
    }

    /// The format called `word`.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.as_str() == word)
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonLines => "application/x-ndjson",
            Self::Csv => "text/csv",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }

    /// The format of this media type, parameters (`; charset=utf-8`) aside.
    pub fn from_content_type(media_type: &str) -> Option<Self> {
        let bare = media_type.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|format| format.content_type().eq_ignore_ascii_case(bare))
    }
}

#[cfg(any(feature = "engine", test))]
mod writer {
    use std::io::Write;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray};
    use arrow::compute::cast;
    use arrow::csv::{Writer as CsvWriter, WriterBuilder as CsvBuilder};
    use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
    use arrow::error::ArrowError;
    use arrow::ipc::writer::StreamWriter;
    use arrow::json::writer::Writer as JsonWriter;
    use arrow::json::writer::{EncoderOptions, JsonArray, LineDelimited, WriterBuilder as JsonBuilder, make_encoder};

    use super::Format;
    use crate::segment::TableWriter;

    /// RFC 3339 in UTC, six digits.
    const TIME: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

    /// Writes record batches in one of the formats.
    pub struct AnswerWriter<W: Write + Send> {
        kind: Kind<W>,
        schema: SchemaRef,
        rows: u64,
    }

    enum Kind<W: Write + Send> {
        Json(JsonWriter<W, JsonArray>),
        JsonLines(JsonWriter<W, LineDelimited>),
        Csv(Box<CsvWriter<W>>),
        Arrow(Box<StreamWriter<W>>),
        Parquet(Box<TableWriter<W>>),
    }

    impl<W: Write + Send> AnswerWriter<W> {
        /// Begins an answer with the columns of `schema`.
        ///
        /// # Errors
        /// What `out` says, or a column that the format can't hold.
        pub fn begin(format: Format, out: W, schema: &Schema) -> Result<Self, ArrowError> {
            let schema = Arc::new(Schema::new(schema.fields().iter().map(|field| shown_as(format, field)).collect::<Vec<_>>()));
            let kind = match format {
                Format::Json => Kind::Json(json().build(out)),
                Format::JsonLines => Kind::JsonLines(json().build(out)),
                Format::Csv => Kind::Csv(Box::new(CsvBuilder::new().with_header(true).with_timestamp_format(TIME.to_owned()).build(out))),
                Format::Arrow => Kind::Arrow(Box::new(StreamWriter::try_new(out, &schema)?)),
                Format::Parquet => Kind::Parquet(Box::new(TableWriter::begin(out, Arc::clone(&schema))?)),
            };
            let mut writer = Self { kind, schema, rows: 0 };
            if let Kind::Csv(csv) = &mut writer.kind {
                // The header, also where no row follows.
                csv.write(&RecordBatch::new_empty(Arc::clone(&writer.schema)))?;
            }
            Ok(writer)
        }

        /// Writes the rows of `batch`.
        ///
        /// # Errors
        /// As [`Self::begin`], or a value that the format can't hold.
        pub fn write(&mut self, batch: &RecordBatch) -> Result<(), ArrowError> {
            let columns = self.schema.fields().iter().zip(batch.columns()).zip(batch.schema_ref().fields());
            let columns = columns.map(|((shown, column), field)| show(column, field, shown)).collect::<Result<_, _>>()?;
            let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns)?;
            self.rows += batch.num_rows() as u64;
            match &mut self.kind {
                Kind::Json(json) => json.write(&batch),
                Kind::JsonLines(lines) => lines.write(&batch),
                Kind::Csv(csv) => csv.write(&batch),
                Kind::Arrow(stream) => stream.write(&batch),
                Kind::Parquet(file) => file.write(&batch),
            }
        }

        /// Ends the answer; gives back `out` and the number of rows.
        ///
        /// # Errors
        /// What `out` says.
        pub fn finish(self) -> Result<(W, u64), ArrowError> {
            let out = match self.kind {
                Kind::Json(mut json) => {
                    json.finish()?;
                    let mut out = json.into_inner();
                    out.write_all(b"\n")?;
                    out
                }
                Kind::JsonLines(mut lines) => {
                    lines.finish()?;
                    lines.into_inner()
                }
                Kind::Csv(csv) => csv.into_inner(),
                Kind::Arrow(stream) => stream.into_inner()?,
                Kind::Parquet(file) => file.finish()?,
            };
            Ok((out, self.rows))
        }
    }

    fn json() -> JsonBuilder {
        JsonBuilder::new().with_explicit_nulls(true).with_timestamp_format(TIME.to_owned())
    }

    /// The column as `format` shows it: times lose their zone, which is always UTC and which the writers know by offset
    /// only; CSV shows lists and structs as JSON; what Parquet has no type for is text.
    fn shown_as(format: Format, field: &FieldRef) -> Field {
        let kind = match field.data_type() {
            DataType::Timestamp(unit, Some(_)) if format != Format::Arrow => DataType::Timestamp(*unit, None),
            DataType::Interval(_) if format == Format::Parquet => DataType::Utf8,
            nested if format == Format::Csv && nested.is_nested() => DataType::Utf8,
            other => other.clone(),
        };
        field.as_ref().clone().with_data_type(kind).with_nullable(true)
    }

    fn show(column: &ArrayRef, field: &FieldRef, shown: &Field) -> Result<ArrayRef, ArrowError> {
        if column.data_type() == shown.data_type() {
            Ok(Arc::clone(column))
        } else if column.data_type().is_nested() {
            as_json(column, field)
        } else {
            cast(column, shown.data_type())
        }
    }

    fn as_json(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
        let options = EncoderOptions::default().with_explicit_nulls(true).with_timestamp_format(TIME.to_owned());
        let mut encoder = make_encoder(field, column.as_ref(), &options)?;
        let texts = (0..column.len()).map(|row| {
            (!encoder.is_null(row)).then(|| {
                let mut text = Vec::new();
                encoder.encode(row, &mut text);
                String::from_utf8_lossy(&text).into_owned()
            })
        });
        Ok(Arc::new(texts.collect::<StringArray>()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
    };
    use arrow::datatypes::{Int64Type, Schema};

    use super::*;

    fn batch() -> RecordBatch {
        let time = TimestampMicrosecondArray::from(vec![1_795_168_800_000_000, 1_795_168_800_000_001]);
        let columns: [(&str, ArrayRef); 6] = [
            ("time", Arc::new(time.clone())),
            ("zoned", Arc::new(time.with_timezone("UTC"))),
            ("value", Arc::new(Float64Array::from(vec![f64::NAN, 1.5]))),
            ("sum", Arc::new(Decimal128Array::from(vec![i128::from(u64::MAX) * 10, 2]).with_precision_and_scale(38, 0).unwrap())),
            ("text", Arc::new(StringArray::from(vec![Some("a \"b\", c\nd"), None]))),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1), None]), None]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn written(format: Format, batches: &[RecordBatch], schema: &Schema) -> Vec<u8> {
        let mut writer = AnswerWriter::begin(format, Vec::new(), schema).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        let (bytes, rows) = writer.finish().unwrap();
        assert_eq!(rows, batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>());
        bytes
    }

    #[test]
    fn json_has_an_object_a_row_with_rfc_3339_times_plain_numbers_and_null_for_nan() {
        let expected = concat!(
            r#"[{"time":"2026-11-20T10:00:00.000000Z","zoned":"2026-11-20T10:00:00.000000Z","value":null,"#,
            r#""sum":184467440737095516150,"text":"a \"b\", c\nd","list":[1,null]},"#,
            r#"{"time":"2026-11-20T10:00:00.000001Z","zoned":"2026-11-20T10:00:00.000001Z","value":1.5,"#,
            r#""sum":2,"text":null,"list":null}]"#,
            "\n"
        );
        let bytes = written(Format::Json, &[batch()], &batch().schema());
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn json_lines_are_the_same_objects() {
        let array: Vec<serde_json::Value> = serde_json::from_slice(&written(Format::Json, &[batch()], &batch().schema())).unwrap();
        let lines = String::from_utf8(written(Format::JsonLines, &[batch()], &batch().schema())).unwrap();
        let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, array);
    }

    #[test]
    fn csv_has_a_header_quotes_what_needs_it_and_leaves_nulls_empty() {
        let expected = concat!(
            "time,zoned,value,sum,text,list\n",
            "2026-11-20T10:00:00.000000Z,2026-11-20T10:00:00.000000Z,NaN,184467440737095516150,\"a \"\"b\"\", c\nd\",\"[1,null]\"\n",
            "2026-11-20T10:00:00.000001Z,2026-11-20T10:00:00.000001Z,1.5,2,,\n"
        );
        let bytes = written(Format::Csv, &[batch()], &batch().schema());
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn an_answer_without_rows_is_still_an_answer() {
        let schema = RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from(vec![0])) as ArrayRef)]).unwrap().schema();
        assert_eq!(written(Format::Json, &[], &schema), b"[]\n");
        assert_eq!(written(Format::JsonLines, &[], &schema), b"");
        assert_eq!(written(Format::Csv, &[], &schema), b"n\n");
        let arrow = written(Format::Arrow, &[], &schema);
        let stream = arrow::ipc::reader::StreamReader::try_new(arrow.as_slice(), None).unwrap();
        assert_eq!(stream.schema().field(0).name(), "n");
        assert_eq!(stream.count(), 0);
    }

    #[test]
    fn arrow_comes_back_as_it_went() {
        let bytes = written(Format::Arrow, &[batch(), batch()], &batch().schema());
        let back: Vec<_> = arrow::ipc::reader::StreamReader::try_new(bytes.as_slice(), None).unwrap().map(Result::unwrap).collect();
        assert_eq!(back.len(), 2);
        assert_eq!(back[0].column(0).len(), 2);
        assert_eq!(back[0].columns()[3..], batch().columns()[3..]);
    }

    #[test]
    fn parquet_has_the_same_rows_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answer.parquet");
        for batches in [vec![], vec![batch(), batch()]] {
            std::fs::write(&path, written(Format::Parquet, &batches, &batch().schema())).unwrap();
            let back: Vec<_> = crate::segment::read(&path).unwrap().map(Result::unwrap).collect();
            assert_eq!(back.iter().map(RecordBatch::num_rows).sum::<usize>(), 2 * batches.len());
            for back in back {
                assert_eq!(back.columns()[2..5], arrow::compute::concat_batches(&batch().schema(), &batches).unwrap().columns()[2..5]);
            }
        }
    }

    #[test]
    fn formats_are_found_by_word_and_by_media_type() {
        for format in Format::ALL {
            assert_eq!(Format::from_word(format.as_str()), Some(format));
            assert_eq!(Format::from_content_type(format.content_type()), Some(format));
            assert_eq!(serde_json::to_string(&format).unwrap(), format!("\"{}\"", format.as_str()));
        }
        assert_eq!(Format::from_content_type("Text/CSV; charset=utf-8"), Some(Format::Csv));
        assert_eq!(Format::from_word("xml"), None);
    }
}
