//! One merge through its steps, which are those of a seal: a temporary file, read back, renamed, its folder synced; of cuts
//! one file after the other. The ledger's transaction follows, and then the removal of the sources.
//!
//! A crash between two steps leaves what [`super::recover`] knows how to judge; each step has a failpoint after it.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::directory::SegmentDir;
use super::error::SegmentError;
use super::layout::{Origin, properties};
use super::merge_rows::{MergedRows, STRETCH_ROWS};
use super::read::{SegmentReader, read_by};
use super::verify;
use super::writer::{Written, write_rows};
use crate::model::{Cut, FileKind, Segment, SegmentName};

/// Text of one merged file, as of one cut: rows that carry long texts make smaller files, so that memory stays bounded.
const MAX_TEXT_BYTES: u64 = 8 << 20;

/// Why segments were not merged.
#[derive(Debug)]
pub(super) enum Refused {
    /// This one is damaged, for the reason given.
    Damaged(SegmentName, String),
    /// This one and the next of them have too long texts together.
    TooLong(SegmentName),
    /// The first cut has too long texts together with the next.
    TooLongCut,
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
    sources.iter().try_for_each(|source| check(dir, source))?;
    let all: Vec<_> = sources.iter().collect();
    let merged = outline(first, &all);
    let Segment { name: SegmentName { instance, cut, first_cut, .. }, first_seq, last_seq, .. } = merged.clone();
    let origin = Origin { instance, cut, first_cut, first_seq, last_seq, delivered: true };
    Ok((write(dir, merged, &all, &origin, stop)?, sources))
}

/// A cut with its files that are here.
pub(super) type WithFiles = (Cut, Vec<Segment>);

/// Merges the first of `cuts` that may be merged together, two at least: neighbours, whose files are pinned. The files of the
/// merged cut are durable under their names, and the ledger does not know them yet. With them the cuts that they hold.
/// Blocking.
pub(super) fn merge_cuts<'c>(
    dir: &SegmentDir,
    cuts: &'c [WithFiles],
    stop: &CancellationToken,
) -> Result<(Vec<Segment>, &'c [WithFiles]), Refused> {
    let cuts = short_enough_cuts(dir, cuts)?;
    let (Some((first, _)), Some((last, _)), 2..) = (cuts.first(), cuts.last(), cuts.len()) else { return Err(Refused::TooLongCut) };
    let files = || cuts.iter().flat_map(|(_, files)| files);
    files().try_for_each(|source| check(dir, source))?;
    let (instance, cut, first_cut) = (last.instance.clone(), last.number, first.first_cut);
    let origin = Origin { instance, cut, first_cut, first_seq: first.first_seq, last_seq: last.last_seq, delivered: false };
    let mut by_place: BTreeMap<(FileKind, &str), Vec<&Segment>> = BTreeMap::new();
    files().for_each(|file| by_place.entry((file.name.kind, &file.name.date)).or_default().push(file));
    let mut made = Vec::new();
    for sources in by_place.values() {
        match write_of_cut(dir, sources, &origin, stop) {
            Ok(file) => made.push(file),
            Err(error) => {
                super::seal::discard(dir, &made);
                return Err(error.into());
            }
        }
    }
    Ok((made, cuts))
}

/// The file of a merged cut that holds what `sources` do: one of them, too, gets the name and the origin of that cut.
fn write_of_cut(dir: &SegmentDir, sources: &[&Segment], origin: &Origin, stop: &CancellationToken) -> Result<Segment, SegmentError> {
    let Some(first) = sources.first() else { return Err(SegmentError::Corrupt("nothing is to be merged".to_owned())) };
    let merged = outline(first, sources);
    let name = SegmentName { cut: origin.cut, first_cut: origin.first_cut, ..merged.name };
    write(dir, Segment { name, ..merged }, sources, origin, stop)
}

/// Read from the medium: a wrong bit must not get a digest that makes it right.
fn check(dir: &SegmentDir, source: &Segment) -> Result<(), Refused> {
    match verify::digest_file(&dir.path(&source.name)) {
        Ok(found) if found == (source.sha256, source.bytes) => Ok(()),
        Ok(_) => Err(Refused::Damaged(source.name.clone(), "its digest is not the one it was sealed with".to_owned())),
        Err(error) => Err(error.into()),
    }
}

/// As many cuts from the first on as have no more text than one may.
fn short_enough_cuts<'c>(dir: &SegmentDir, cuts: &'c [WithFiles]) -> Result<&'c [WithFiles], SegmentError> {
    let mut text = 0;
    for (place, (_, files)) in cuts.iter().enumerate() {
        for file in files {
            text += open(dir, file)?.text_bytes(file.name.kind);
        }
        if text > MAX_TEXT_BYTES {
            return Ok(cuts.get(..place).unwrap_or_default());
        }
    }
    Ok(cuts)
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
fn outline(first: &Segment, sources: &[&Segment]) -> Segment {
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

fn write(
    dir: &SegmentDir,
    merged: Segment,
    sources: &[&Segment],
    origin: &Origin,
    stop: &CancellationToken,
) -> Result<Segment, SegmentError> {
    let kind = merged.name.kind;
    let open_all = || sources.iter().map(|source| open(dir, source)).collect::<Result<Vec<_>, _>>();
    let readers = open_all()?;
    let properties = properties(kind, origin, SegmentReader::usual_encoding(&readers));
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
