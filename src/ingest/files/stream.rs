//! Rows as they come through a door: an Arrow IPC stream.

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use bytes::Bytes;

use super::shape::BadFile;

/// Most rows of one piece: some four megabytes, and one batch of the journal.
pub const MAX_ROWS: usize = 65_536;

/// The batches of the Arrow stream `body`. May panic on bytes made to harm; run it where a panic costs the request alone.
///
/// # Errors
/// Bytes that are no Arrow stream, or one of more than [`MAX_ROWS`] rows.
pub fn read_stream(body: Bytes) -> Result<Vec<RecordBatch>, BadFile> {
    let unreadable = |error: ArrowError| BadFile::Columns(format!("the body is no Arrow stream: {error}"));
    // It takes what is there, and trusts no length that the bytes only declare.
    let (mut buffer, mut decoder) = (Buffer::from(body), StreamDecoder::new());
    let (mut batches, mut rows) = (Vec::new(), 0_usize);
    while !buffer.is_empty() {
        let Some(batch) = decoder.decode(&mut buffer).map_err(unreadable)? else { break };
        rows = rows.saturating_add(batch.num_rows());
        if rows > MAX_ROWS {
            return Err(BadFile::Columns(format!("there are more than {MAX_ROWS} rows in one request; send them in several")));
        }
        batches.push(batch);
    }
    decoder.finish().map_err(unreadable)?;
    Ok(batches)
}
