//! One merge through its steps, which are those of a seal: a temporary file, read back, renamed, its folder synced. The
//! ledger's transaction follows, and then the removal of the sources.
//!
//! A crash between two steps leaves what [`super::recover`] knows how to judge; each step has a failpoint after it.

use tokio_util::sync::CancellationToken;

use super::directory::SegmentDir;
use super::error::SegmentError;
use super::layout::{Origin, properties};
use super::merge_rows::{MergedRows, STRETCH_ROWS};
use super::read::{SegmentReader, read_by};
use super::verify;
use super::writer::{Written, write_rows};
use crate::model::{Segment, SegmentName};

/// Text of one merged file, as of one cut: rows that carry long texts make smaller files, so that memory stays bounded.
const MAX_TEXT_BYTES: u64 = 8 << 20;

/// Why segments were not merged.
#[derive(Debug)]
pub(super) enum Refused {
    /// This one is damaged, for the reason given.
    Damaged(SegmentName, String),
    /// This one and the next of them have too long texts together.
    TooLong(SegmentName),
    /// Something else.
    Failed(SegmentError),
}

impl From<SegmentError> for Refused {
    fn from(error: SegmentError) -> Self {
        Self::Failed(error)
    }
}

/// Merges the first of `sources` that may be merged together, two at least: neighbours of one kind, date and instance, by
/// cut, which are pinned. Its file is durable under its name, and the ledger does not know it yet. With it how many of the
/// sources it holds. Blocking.
pub(super) fn merge<'s>(dir: &SegmentDir, sources: &'s [Segment], stop: &CancellationToken) -> Result<(Segment, &'s [Segment]), Refused> {
    let Some((first, sources)) = sources.first().zip(short_enough(dir, sources)?) else {
        return Err(SegmentError::Corrupt("nothing is to be merged".to_owned()).into());
    };
    if sources.len() < 2 {
        return Err(Refused::TooLong(first.name.clone()));
    }
    // Read from the medium: a wrong bit must not get a digest that makes it right.
    for source in sources {
        match verify::digest_file(&dir.path(&source.name)) {
            Ok(found) if found == (source.sha256, source.bytes) => {}
            Ok(_) => return Err(Refused::Damaged(source.name.clone(), "its digest is not the one it was sealed with".to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    let merged = outline(first, sources);
    let merged = write(dir, merged, sources, stop)?;
    Ok((merged, sources))
}

/// As many sources from the first on as have no more text than one file may.
fn short_enough<'s>(dir: &SegmentDir, sources: &'s [Segment]) -> Result<Option<&'s [Segment]>, SegmentError> {
    let mut text = 0;
    for (place, source) in sources.iter().enumerate() {
        text += open(dir, source)?.text_bytes(source.name.kind);
        if text > MAX_TEXT_BYTES {
            return Ok(sources.get(..place));
        }
    }
    Ok(Some(sources))
}

fn open(dir: &SegmentDir, source: &Segment) -> Result<SegmentReader, SegmentError> {
    read_by(&dir.path(&source.name), STRETCH_ROWS)
}

/// What is known of the merged segment before it is written; `first` is one of `sources`.
fn outline(first: &Segment, sources: &[Segment]) -> Segment {
    sources.iter().fold(Segment { bytes: 0, rows: 0, ..first.clone() }, |sum, source| Segment {
        name: SegmentName { cut: sum.name.cut.max(source.name.cut), first_cut: sum.name.first_cut.min(source.name.first_cut), ..sum.name },
        rows: sum.rows + source.rows,
        first_seq: sum.first_seq.min(source.first_seq),
        last_seq: sum.last_seq.max(source.last_seq),
        min_time: sum.min_time.min(source.min_time),
        max_time: sum.max_time.max(source.max_time),
        ..sum
    })
}

fn write(dir: &SegmentDir, merged: Segment, sources: &[Segment], stop: &CancellationToken) -> Result<Segment, SegmentError> {
    let kind = merged.name.kind;
    let open_all = || sources.iter().map(|source| open(dir, source)).collect::<Result<Vec<_>, _>>();
    let readers = open_all()?;
    let properties = properties(kind, &origin(&merged), SegmentReader::usual_encoding(&readers));
    let (temporary, file) = dir.create(&merged.name)?;
    let rows = MergedRows::new(kind, readers, stop)?;
    let written = write_rows(&file, kind, properties, rows, temporary.path())?;
    file.sync_all().map_err(|error| SegmentError::io("sync", temporary.path(), &error))?;
    fail::fail_point!("merge.after_tmp");
    verify::compare_rows(temporary.path(), &written, kind, MergedRows::new(kind, open_all()?, stop)?)?;
    if written.rows != merged.rows {
        let (name, expected) = (&merged.name, merged.rows);
        return Err(SegmentError::Corrupt(format!("{name} would have {} rows instead of {expected}", written.rows)));
    }
    fail::fail_point!("merge.after_verify");
    temporary.rename()?;
    fail::fail_point!("merge.after_rename");
    if let Err(error) = dir.sync(std::iter::once(&merged.name)) {
        super::seal::discard(dir, std::slice::from_ref(&merged));
        return Err(error);
    }
    fail::fail_point!("merge.after_dirsync");
    let Written { bytes, sha256, .. } = written;
    Ok(Segment { bytes, sha256, ..merged })
}

fn origin(merged: &Segment) -> Origin {
    let Segment { name: SegmentName { instance, cut, first_cut, .. }, first_seq, last_seq, .. } = merged;
    Origin { instance: instance.clone(), cut: *cut, first_cut: *first_cut, first_seq: *first_seq, last_seq: *last_seq }
}
