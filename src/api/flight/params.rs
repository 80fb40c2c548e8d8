//! Parameters, as clients bind them: one row of an Arrow batch.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::sql::server::PeekableFlightDataStream;
use futures::stream::{StreamExt as _, TryStreamExt as _};
use tonic::Status;

use crate::engine::Param;
use crate::model::Timestamp;

/// The values of one row, from the batches that a client puts.
pub(super) async fn read(put: PeekableFlightDataStream) -> Result<Vec<Param>, Status> {
    let mut batches = FlightRecordBatchStream::new_from_flight_data(put.map_err(|status| FlightError::Tonic(Box::new(status))));
    let mut values = None;
    while let Some(batch) = batches.next().await {
        let batch = batch.map_err(Status::from)?;
        match (batch.num_rows(), &values) {
            (0, _) => {}
            (1, None) => values = Some(row(&batch)?),
            _ => return Err(Status::invalid_argument("one row of parameters at a time")),
        }
    }
    Ok(values.unwrap_or_default())
}

fn row(batch: &RecordBatch) -> Result<Vec<Param>, Status> {
    batch.columns().iter().zip(1..).map(|(column, place)| param(column, place)).collect()
}

fn param(column: &ArrayRef, place: usize) -> Result<Param, Status> {
    let kind = column.data_type();
    let unfit = || Status::invalid_argument(format!("the parameter {place} is of the type {kind}, which can't be bound"));
    if column.is_null(0) || *kind == DataType::Null {
        return Ok(Param::Null);
    }
    let as_type = |wanted: &DataType| cast(column, wanted).ok().filter(|made| made.is_valid(0)).ok_or_else(unfit);
    Ok(match kind {
        DataType::Boolean => Param::Bool(column.as_boolean().value(0)),
        kind if kind.is_integer() => Param::Int(as_type(&DataType::Int64)?.as_primitive::<Int64Type>().value(0)),
        kind if kind.is_floating() => {
            let number = as_type(&DataType::Float64)?.as_primitive::<Float64Type>().value(0);
            // JSON, in which handles are written, has no others.
            if !number.is_finite() {
                return Err(Status::invalid_argument(format!("the parameter {place} is {number}, which can't be bound")));
            }
            Param::Real(number)
        }
        DataType::Timestamp(unit, _) => {
            // Whatever its zone, it counts from 1970 UTC.
            let plain = as_type(&DataType::Timestamp(*unit, Some("+00:00".into())))?;
            let micros = cast(&plain, &DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))).map_err(|_| unfit())?;
            Param::Time(Timestamp(micros.as_primitive::<TimestampMicrosecondType>().value(0)))
        }
        DataType::Date32 | DataType::Date64 => {
            let micros = as_type(&DataType::Timestamp(TimeUnit::Microsecond, None))?;
            Param::Time(Timestamp(micros.as_primitive::<TimestampMicrosecondType>().value(0)))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Param::Text(as_type(&DataType::Utf8)?.as_string::<i32>().value(0).to_owned())
        }
        _ => return Err(unfit()),
    })
}
