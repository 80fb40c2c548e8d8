//! An answer as a table that fits the terminal.

use std::io::Cursor;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use comfy_table::presets::{NOTHING, UTF8_FULL_CONDENSED};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Row, Table};

use super::show::{count, printable};

/// Times as they are stored: UTC, to the microsecond where it is not zero.
const TIME: &str = "%Y-%m-%d %H:%M:%S%.f";

/// A column that is narrower than what it holds is read well down to this width.
const LEAST_WIDTH: u16 = 24;

/// Lays out the first `max_rows` rows of an Arrow stream, with a line below that counts them.
pub fn render(stream: &[u8], max_rows: usize) -> Result<String, ArrowError> {
    render_within(stream, max_rows, None)
}

/// The same in `width` columns instead of the terminal's.
fn render_within(stream: &[u8], max_rows: usize, width: Option<u16>) -> Result<String, ArrowError> {
    let reader = StreamReader::try_new(Cursor::new(stream), None)?;
    let schema = reader.schema();
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(schema.fields().iter().map(|field| printable(field.name())));
    for (column, field) in table.column_iter_mut().zip(schema.fields()) {
        if is_number(field.data_type()) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let (mut shown, mut more) = (0, false);
    for batch in reader {
        let batch = batch?;
        let room = batch.num_rows().min(max_rows - shown);
        add_rows(&mut table, &batch.slice(0, room))?;
        shown += room;
        more |= room < batch.num_rows();
    }
    let note = match (shown, more) {
        (1, false) => "1 row".to_owned(),
        (_, false) => format!("{} rows", count(shown as u64)),
        (_, true) => format!("the first {} rows; all of them with --format csv, json or jsonl", count(shown as u64)),
    };
    // Without rows there would be nothing in a list.
    if shown == 0 || fits(&table) { Ok(format!("{table}\n{note}\n")) } else { Ok(format!("{}{note}\n", listed(&table))) }
}

/// Whether each column has the width that it needs to be read. Where there is no terminal there is no limit.
fn fits(table: &Table) -> bool {
    // A border before each column and after the last, and a space on both sides of each.
    let needed = table.column_max_content_widths().into_iter().map(|width| u32::from(width.min(LEAST_WIDTH)) + 3).sum::<u32>() + 1;
    table.width().is_none_or(|width| needed <= u32::from(width))
}

/// Each row as a list of its own, a column a line.
fn listed(table: &Table) -> String {
    let names: Vec<_> = table.header().into_iter().flat_map(|header| header.cell_iter()).map(Cell::content).collect();
    let row = |(number, row): (usize, &Row)| {
        let mut list = Table::new();
        list.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = table.width() {
            list.set_width(width);
        }
        list.add_rows(names.iter().zip(row.cell_iter()).map(|(name, cell)| [name.clone(), cell.content()]));
        format!("── row {} ──\n{list}\n", number + 1)
    };
    table.row_iter().enumerate().map(row).collect()
}

fn add_rows(table: &mut Table, batch: &RecordBatch) -> Result<(), ArrowError> {
    let options = FormatOptions::default().with_timestamp_format(Some(TIME)).with_timestamp_tz_format(Some(TIME));
    let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    for row in 0..batch.num_rows() {
        let cells = columns.iter().map(|column| Ok(Cell::new(printable(&column.value(row).try_to_string()?))));
        table.add_row(cells.collect::<Result<Vec<_>, ArrowError>>()?);
    }
    Ok(())
}

fn is_number(kind: &DataType) -> bool {
    kind.is_numeric()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
    use arrow::ipc::writer::StreamWriter;

    use super::*;

    fn stream(batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.into_inner().unwrap()
    }

    fn batch() -> RecordBatch {
        let columns: [(&str, ArrayRef); 3] = [
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_795_168_800_000_000, 1_795_168_800_250_000]))),
            ("sensor", Arc::new(StringArray::from(vec![Some("tank-1"), None]))),
            ("value", Arc::new(Float64Array::from(vec![1.5, 20.0]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn numbers_stand_right_nulls_are_empty_and_the_rows_are_counted() {
        let expected = "\
┌─────────────────────────┬────────┬───────┐
│ time                    ┆ sensor ┆ value │
╞═════════════════════════╪════════╪═══════╡
│ 2026-11-20 10:00:00     ┆ tank-1 ┆   1.5 │
│ 2026-11-20 10:00:00.250 ┆        ┆  20.0 │
└─────────────────────────┴────────┴───────┘
2 rows
";
        assert_eq!(render_within(&stream(&[batch()]), 10, Some(100)).unwrap(), expected);
    }

    #[test]
    fn it_fits_the_width_and_the_limit_of_rows() {
        let text = render_within(&stream(&[batch(), batch()]), 3, Some(50)).unwrap();
        assert!(text.ends_with("the first 3 rows; all of them with --format csv, json or jsonl\n"), "{text}");
        let table = text.lines().filter(|line| !line.starts_with("the first"));
        assert!(table.clone().count() > 5 && table.clone().all(|line| line.chars().count() <= 50), "{text}");
    }

    #[test]
    fn where_columns_would_get_too_narrow_each_row_is_a_list() {
        let expected = [
            "── row 1 ──",
            " time    2026-11-20",
            "         10:00:00",
            " sensor  tank-1",
            " value   1.5",
            "── row 2 ──",
            " time    2026-11-20",
            "         10:00:00.250",
            " sensor",
            " value   20.0",
            "2 rows",
        ];
        let text = render_within(&stream(&[batch()]), 10, Some(24)).unwrap();
        assert_eq!(text.lines().map(str::trim_end).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_answer_without_rows_shows_its_columns() {
        let text = render_within(&stream(&[batch().slice(0, 0)]), 10, Some(100)).unwrap();
        assert!(text.contains("sensor") && text.ends_with("\n0 rows\n"), "{text}");
    }

    #[test]
    fn what_sensors_send_can_not_steer_the_terminal() {
        let evil: ArrayRef = Arc::new(StringArray::from(vec!["\u{1b}[2Jgone"]));
        let text = render_within(&stream(&[RecordBatch::try_from_iter([("text", evil)]).unwrap()]), 10, Some(100)).unwrap();
        assert!(!text.contains('\u{1b}') && text.contains("[2Jgone"), "{text}");
    }
}
