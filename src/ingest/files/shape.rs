//! From the columns of a file to those of the journal, whatever types they were written in.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int16Array, RecordBatch, StringArray, StringDictionaryBuilder, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Float64Type, Int32Type, Int64Type, TimeUnit as ArrowUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::error::ArrowError;

use crate::model::columns::journal_schema;
use crate::model::{TimeSource, TimeUnit, Timestamp};

/// The columns that a file may have: those of `readings`. `time`, `sensor`, `metric` and one of `value` and `text` it must
/// have. `seq` is not taken over: the gateway numbers what it takes.
pub const COLUMNS: [&str; 10] = ["time", "sensor", "metric", "value", "text", "unit", "quality", "arrived", "time_source", "seq"];

/// Those that no file may lack.
const REQUIRED: [&str; 3] = ["time", "sensor", "metric"];

/// Why rows of a file are not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFile {
    /// Its columns are not those of readings.
    #[error("{0}")]
    Columns(String),
    /// A row is no reading.
    #[error("row {row}: {message}")]
    Row {
        /// Counted from 1, without the header of a CSV file.
        row: u64,
        /// What is wrong with it.
        message: String,
    },
}

impl BadFile {
    /// Fault of the row `place` of a batch that begins at `first_row`.
    pub(super) fn row(first_row: u64, place: usize, message: impl Into<String>) -> Self {
        Self::Row { row: first_row + place as u64 + 1, message: message.into() }
    }
}

/// `batch`, whose first row is `first_row` of its file, with the columns of [`journal_schema`]. What it does not say of
/// arrivals is `arrived`.
pub(super) fn shape(batch: &RecordBatch, first_row: u64, arrived: Timestamp) -> Result<RecordBatch, BadFile> {
    let file = Shaper { batch, first_row };
    file.check_names()?;
    let rows = batch.num_rows();
    let columns: Vec<ArrayRef> = vec![
        file.full("time", file.times("time")?)?,
        file.full("sensor", file.words("sensor")?)?,
        file.full("metric", file.words("metric")?)?,
        file.values()?,
        file.texts()?,
        file.words("unit")?,
        file.qualities()?,
        file.arrivals(rows, arrived)?,
        file.sources(rows)?,
    ];
    RecordBatch::try_new(journal_schema(), columns).map_err(|error| BadFile::Columns(error.to_string()))
}

struct Shaper<'b> {
    batch: &'b RecordBatch,
    first_row: u64,
}

impl Shaper<'_> {
    fn check_names(&self) -> Result<(), BadFile> {
        let schema = self.batch.schema_ref();
        let all = COLUMNS.join(", ");
        if let Some(unknown) = schema.fields().iter().find(|field| !COLUMNS.contains(&field.name().as_str())) {
            return Err(BadFile::Columns(format!("the column \"{}\" is none of a reading's; they are {all}", unknown.name())));
        }
        let twice = schema.fields().iter().find(|field| schema.fields().iter().filter(|other| other.name() == field.name()).count() > 1);
        if let Some(twice) = twice {
            return Err(BadFile::Columns(format!("there are two columns \"{}\"", twice.name())));
        }
        if let Some(missing) = REQUIRED.iter().find(|name| self.column(name).is_none()) {
            return Err(BadFile::Columns(format!("there is no column \"{missing}\"; the columns of readings are {all}")));
        }
        if self.column("value").is_none() && self.column("text").is_none() {
            return Err(BadFile::Columns("there is neither a column \"value\" nor \"text\"".to_owned()));
        }
        Ok(())
    }

    fn column(&self, name: &str) -> Option<&ArrayRef> {
        self.batch.column_by_name(name)
    }

    /// The column as `kind`, or nulls where there is none.
    fn cast_or_null(&self, name: &str, kind: &DataType) -> Result<ArrayRef, BadFile> {
        match self.column(name) {
            None => Ok(arrow::array::new_null_array(kind, self.batch.num_rows())),
            Some(column) if column.data_type() == kind => Ok(Arc::clone(column)),
            Some(column) => cast(column, kind).map_err(|error| wrong_type(name, column, &error)),
        }
    }

    /// The column, if no row of it is empty.
    fn full(&self, name: &str, column: ArrayRef) -> Result<ArrayRef, BadFile> {
        match (0..column.len()).find(|row| column.is_null(*row)).filter(|_| column.null_count() > 0) {
            Some(row) => Err(BadFile::row(self.first_row, row, format!("it has no {name}"))),
            None => Ok(column),
        }
    }

    /// `made` of the column `name`, if no value was lost on the way.
    fn whole(&self, name: &str, made: ArrayRef, expected: &str) -> Result<ArrayRef, BadFile> {
        let Some(column) = self.column(name).filter(|column| made.null_count() > column.logical_null_count()) else { return Ok(made) };
        let lost = (0..made.len()).find(|row| made.is_null(*row) && !is_null(column, *row));
        let Some(row) = lost else { return Ok(made) };
        let shown = arrow::util::display::array_value_to_string(column, row).unwrap_or_default();
        Err(BadFile::row(self.first_row, row, format!("the {name} \"{shown}\" is not {expected}")))
    }

    fn times(&self, name: &str) -> Result<ArrayRef, BadFile> {
        let Some(column) = self.column(name) else { return Ok(arrow::array::new_null_array(&time_type(), self.batch.num_rows())) };
        let made: TimestampMicrosecondArray = match column.data_type() {
            // Whatever their zone, they count from 1970 UTC.
            DataType::Timestamp(ArrowUnit::Second, _) => {
                column.as_primitive::<TimestampSecondType>().unary_opt(|number| micros(TimeUnit::Seconds, number))
            }
            DataType::Timestamp(ArrowUnit::Millisecond, _) => {
                column.as_primitive::<TimestampMillisecondType>().unary_opt(|number| micros(TimeUnit::Millis, number))
            }
            DataType::Timestamp(ArrowUnit::Microsecond, _) => {
                column.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>)
            }
            DataType::Timestamp(ArrowUnit::Nanosecond, _) => {
                column.as_primitive::<TimestampNanosecondType>().unary_opt(|number| micros(TimeUnit::Nanos, number))
            }
            DataType::Date32 | DataType::Date64 => {
                let days = cast(column, &time_type()).map_err(|error| wrong_type(name, column, &error))?;
                days.as_primitive::<TimestampMicrosecondType>().clone()
            }
            kind if kind.is_integer() => {
                let numbers = cast(column, &DataType::Int64).map_err(|error| wrong_type(name, column, &error))?;
                numbers
                    .as_primitive::<Int64Type>()
                    .unary_opt(|number| TimeUnit::by_magnitude(number as f64).whole(number).map(|time| time.0))
            }
            kind if kind.is_floating() => {
                let numbers = cast(column, &DataType::Float64).map_err(|error| wrong_type(name, column, &error))?;
                numbers.as_primitive::<Float64Type>().unary_opt(|number| TimeUnit::by_magnitude(number).fraction(number).map(|time| time.0))
            }
            _ => {
                let texts = cast(column, &DataType::Utf8).map_err(|error| wrong_type(name, column, &error))?;
                texts.as_string::<i32>().iter().map(|text| text.and_then(moment).map(|time| time.0)).collect()
            }
        };
        self.whole(name, Arc::new(made), "a time: RFC 3339, or a number since 1970")
    }

    fn words(&self, name: &str) -> Result<ArrayRef, BadFile> {
        let words = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        match self.column(name) {
            // A dictionary of the other sort is spelled out first: its words may be there twice.
            Some(column) if column.data_type() != &words => {
                let texts = cast(column, &DataType::Utf8).map_err(|error| wrong_type(name, column, &error))?;
                cast(&texts, &words).map_err(|error| wrong_type(name, column, &error))
            }
            _ => self.cast_or_null(name, &words),
        }
    }

    fn values(&self) -> Result<ArrayRef, BadFile> {
        let made = match self.column("value").map(|column| (column, column.data_type())) {
            Some((column, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(_, _))) => {
                let texts = cast(column, &DataType::Utf8).map_err(|error| wrong_type("value", column, &error))?;
                Arc::new(texts.as_string::<i32>().iter().map(|text| text.and_then(number)).collect::<Float64Array>())
            }
            _ => self.cast_or_null("value", &DataType::Float64)?,
        };
        self.whole("value", made, "a number")
    }

    fn texts(&self) -> Result<ArrayRef, BadFile> {
        self.cast_or_null("text", &DataType::Utf8)
    }

    fn qualities(&self) -> Result<ArrayRef, BadFile> {
        let made: ArrayRef = match self.column("quality") {
            Some(column) if column.data_type() == &DataType::Utf8 => {
                Arc::new(column.as_string::<i32>().iter().map(|text| text.and_then(|text| text.parse().ok())).collect::<Int16Array>())
            }
            _ => self.cast_or_null("quality", &DataType::Int16)?,
        };
        self.whole("quality", made, "a whole number from -32768 to 32767")
    }

    fn arrivals(&self, rows: usize, arrived: Timestamp) -> Result<ArrayRef, BadFile> {
        let given = self.times("arrived")?;
        if given.null_count() == 0 {
            return Ok(given);
        }
        let given = given.as_primitive::<TimestampMicrosecondType>();
        let filled = (0..rows).map(|row| if given.is_valid(row) { given.value(row) } else { arrived.0 });
        Ok(Arc::new(TimestampMicrosecondArray::from_iter_values(filled)))
    }

    /// Where the file does not say where a time comes from, it comes from the sensor.
    fn sources(&self, rows: usize) -> Result<ArrayRef, BadFile> {
        let given = self.words("time_source")?;
        if given.null_count() == 0 {
            return Ok(given);
        }
        let texts = cast(&given, &DataType::Utf8).map_err(|error| wrong_type("time_source", &given, &error))?;
        let texts: &StringArray = texts.as_string();
        let mut filled = StringDictionaryBuilder::<Int32Type>::new();
        (0..rows).for_each(|row| filled.append_value(if texts.is_valid(row) { texts.value(row) } else { TimeSource::Sensor.as_str() }));
        Ok(Arc::new(filled.finish()))
    }
}

fn time_type() -> DataType {
    DataType::Timestamp(ArrowUnit::Microsecond, None)
}

fn wrong_type(name: &str, column: &ArrayRef, error: &ArrowError) -> BadFile {
    BadFile::Columns(format!("the column \"{name}\" is of the type {}, which can't be read: {error}", column.data_type()))
}

fn is_null(column: &ArrayRef, row: usize) -> bool {
    column.logical_nulls().is_some_and(|nulls| nulls.is_null(row))
}

fn micros(unit: TimeUnit, number: i64) -> Option<i64> {
    unit.whole(number).map(|time| time.0)
}

/// A time as files write it: RFC 3339, a date and a time without a zone (which is UTC), or a number since 1970.
fn moment(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let civil = || text.parse::<jiff::civil::DateTime>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let zoned = text.parse::<Timestamp>().ok();
    let zoned = zoned.or_else(|| text.parse().ok().and_then(|number: i64| TimeUnit::by_magnitude(number as f64).whole(number)));
    let zoned = zoned.or_else(|| text.parse().ok().and_then(|number: f64| TimeUnit::by_magnitude(number).fraction(number)));
    zoned.or_else(|| civil().map(|civil| Timestamp(civil.timestamp().as_microsecond())))
}

/// A number, or a truth value as 1 or 0.
fn number(text: &str) -> Option<f64> {
    match text.trim() {
        "true" => Some(1.0),
        "false" => Some(0.0),
        text => text.parse().ok(),
    }
}
