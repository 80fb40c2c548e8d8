//! At the start: what a crash, or a restored ledger, left in the folder, and what to do about it.
//!
//! | found | done |
//! | --- | --- |
//! | a temporary file | removed: the journal still has its rows |
//! | a file that the ledger let go of | removed, if intact: the crash came between the record and the removal |
//! | an unknown file whose rows the ledger still has | removed: the crash came before the sealing transaction |
//! | the same, of a complete cut, where the ledger lost commits | adopted: the cut may be delivered, and keeps its name |
//! | an unknown file with other rows | the ledger is older than the file: adopted, and a new instance begins |
//! | an unknown file that does not verify | quarantined |
//! | an unknown merged file whose sources are here | removed: the crash came before the merging transaction |
//! | the same, where sources are missing | the ledger is older than the merge: adopted, and what it holds goes |
//! | a segment without its file | a loss |
//!
//! A new instance that is due (the ledger lost commits, or is on another host) begins when all of this is done, since it
//! numbers the journal anew.
//!
//! Only names are looked at, and what they add up to: the backlog does not slow the start. Where that is not what the ledger
//! says they are compared one by one, and unknown files are read. A file that is not what it was is found by the scrubber.

use std::collections::{BTreeMap, HashSet};
use std::panic::catch_unwind;
use std::path::Path;

use super::directory::SegmentDir;
use super::error::SegmentError;
use super::inspect::{describe, inspect_file};
use super::layout::Origin;
use super::read::read;
use super::scrubber::condemn;
use super::sealer::blocking;
use super::state::SealerState;
use super::verify::digest_file;
use crate::error::ErrorKind;
use crate::ledger::{Ledger, Reader};
use crate::model::{CutNumber, FileKind, InstanceId, Segment, SegmentName};

/// What was found and done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Temporary files removed.
    pub temporary: u64,
    /// Files removed whose rows the ledger or another file has, or that the ledger let go of.
    pub removed: u64,
    /// Files adopted; if there are any, a new instance has begun.
    pub adopted: u64,
    /// Unknown files set aside.
    pub quarantined: u64,
    /// Segments of the ledger whose files are missing.
    pub damaged: u64,
}

/// Makes the folder and the ledger agree. Before the sealer, the scrubber and the engine.
///
/// # Errors
/// The disk or the ledger failed. A damaged file is none.
pub async fn recover(ledger: &Ledger, dir: &SegmentDir, state: &SealerState) -> Result<Recovered, SegmentError> {
    let (from, place) = (ledger.clone(), dir.clone());
    let behind = ledger.is_behind().await?;
    let findings = blocking(move || clean(&from, &place, behind)).await?;
    let mut recovered = findings.recovered;
    for name in findings.missing {
        // What the ledger can't take note of now, the scrubber tells it again.
        condemn(ledger, dir, state, name, "its file is missing".to_owned()).await?;
        recovered.damaged += 1;
    }
    let Adoption { of_cuts, delivered, superseded } = findings.adoption;
    adopt(ledger, dir, (of_cuts, delivered), superseded, &mut recovered).await?;
    fail::fail_point!("recover.before_begin");
    ledger.begin_if_due().await?;
    if recovered != Recovered::default() {
        tracing::info!(?recovered, "the folder of segments was put in order");
    }
    Ok(recovered)
}

async fn adopt(
    ledger: &Ledger,
    dir: &SegmentDir,
    (of_cuts, delivered): (Vec<Segment>, Vec<Segment>),
    superseded: Vec<SegmentName>,
    recovered: &mut Recovered,
) -> Result<(), SegmentError> {
    let files: Vec<_> = of_cuts.iter().chain(&delivered).map(|file| file.name.clone()).collect();
    if files.is_empty() {
        return Ok(());
    }
    match ledger.adopt(of_cuts, delivered).await {
        Ok(identity) => {
            recovered.adopted = files.len() as u64;
            tracing::warn!(files = recovered.adopted, instance = %identity.instance, "adopted segments that the ledger did not know");
            let place = dir.clone();
            recovered.removed += superseded.len() as u64;
            blocking(move || superseded.iter().try_for_each(|name| place.remove(name).map(|_| ()))).await
        }
        Err(error) if error.kind() == ErrorKind::Invalid => {
            let place = dir.clone();
            recovered.quarantined += files.len() as u64;
            blocking(move || files.iter().try_for_each(|name| set_aside(&place, name, &error.to_string()))).await
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Default)]
struct Findings {
    recovered: Recovered,
    missing: Vec<SegmentName>,
    adoption: Adoption,
    held: Vec<Segment>,
}

/// Files that the ledger is to know.
#[derive(Default)]
struct Adoption {
    /// Files of cuts, also of merged ones.
    of_cuts: Vec<Segment>,
    /// Merged after their delivery.
    delivered: Vec<Segment>,
    /// What the others hold.
    superseded: Vec<SegmentName>,
}

/// What is to become of a file that is not among the ledger's segments.
enum Verdict {
    Remove,
    /// The ledger still has its rows.
    Held(Segment),
    Adopt(Segment),
    Quarantine(String),
}

fn clean(ledger: &Ledger, dir: &SegmentDir, behind: bool) -> Result<Findings, SegmentError> {
    let reader = ledger.reader()?;
    let names = dir.names()?;
    let instance = ledger.identity().instance;
    let mut findings = Findings::default();
    for path in &names.temporary {
        dir.remove_temporary(path)?;
        findings.recovered.temporary += 1;
    }
    names.foreign.iter().for_each(|path| leave_alone(path));
    if names.check() == reader.segments_check()? {
        return Ok(findings);
    }
    let (known, found): (_, HashSet<String>) = (reader.segment_paths()?, names.segments.into_iter().collect());
    findings.missing = known.difference(&found).filter_map(|name| name.parse().ok()).collect();
    findings.missing.sort_unstable();
    let mut unknown: Vec<_> = found.difference(&known).collect();
    unknown.sort_unstable();
    for name in unknown {
        match name.parse() {
            Ok(name) => settle(judge(&reader, dir, &instance, &findings.missing, &name)?, dir, &name, &mut findings)?,
            Err(_) => leave_alone(&dir.root().join(name)),
        }
    }
    let present = found.iter().filter_map(|name| name.parse().ok()).collect();
    settle_merged(&reader, dir, present, &mut findings)?;
    settle_held(dir, behind, &mut findings)?;
    Ok(findings)
}

fn leave_alone(path: &Path) {
    tracing::warn!(path = %path.display(), "not forebay's own, and left alone");
}

fn settle(verdict: Verdict, dir: &SegmentDir, name: &SegmentName, findings: &mut Findings) -> Result<(), SegmentError> {
    match verdict {
        Verdict::Remove => {
            dir.remove(name)?;
            findings.recovered.removed += 1;
        }
        Verdict::Held(segment) => findings.held.push(segment),
        Verdict::Adopt(segment) if origin(dir, &segment)?.is_some_and(|origin| origin.delivered) => {
            findings.adoption.delivered.push(segment)
        }
        Verdict::Adopt(segment) => findings.adoption.of_cuts.push(segment),
        Verdict::Quarantine(why) => {
            set_aside(dir, name, &why)?;
            findings.recovered.quarantined += 1;
        }
    }
    Ok(())
}

/// What adopted merged files hold is neither missing nor counted again; `present` is all that is in the folder.
fn settle_merged(reader: &Reader, dir: &SegmentDir, mut present: Vec<SegmentName>, findings: &mut Findings) -> Result<(), SegmentError> {
    let mut delivered = std::mem::take(&mut findings.adoption.delivered);
    // The largest first: what it holds may be merged itself.
    delivered.sort_by_key(|file| std::cmp::Reverse(file.rows));
    for file in delivered {
        if present.contains(&file.name) {
            supersede(&file.name, &mut present, findings);
            findings.adoption.delivered.push(file);
        }
    }
    // The smallest first: whether it is adopted says whether the larger one's sources are here.
    for mut files in merged_cuts(findings) {
        files.retain(|file| present.contains(&file.name));
        if is_unfinished(reader, &files, findings)? {
            for file in &files {
                dir.remove(&file.name)?;
                findings.recovered.removed += 1;
            }
            present.retain(|name| files.iter().all(|file| file.name != *name));
            continue;
        }
        files.iter().for_each(|file| supersede(&file.name, &mut present, findings));
        findings.adoption.of_cuts.extend(files);
    }
    Ok(())
}

/// What the file `merged` holds goes when that is adopted.
fn supersede(merged: &SegmentName, present: &mut Vec<SegmentName>, findings: &mut Findings) {
    findings.missing.retain(|name| !merged.holds(name));
    for files in [&mut findings.adoption.of_cuts, &mut findings.held] {
        files.retain(|held| !merged.holds(&held.name));
    }
    findings.adoption.superseded.extend(present.extract_if(.., |name| merged.holds(name)));
}

/// Takes the files of merged cuts out of those to adopt: by cut, the one that spans the fewest first.
fn merged_cuts(findings: &mut Findings) -> Vec<Vec<Segment>> {
    let mut cuts: BTreeMap<_, Vec<Segment>> = BTreeMap::new();
    for file in findings.adoption.of_cuts.extract_if(.., |file| file.name.is_merged()) {
        let SegmentName { instance, first_cut, cut, .. } = &file.name;
        cuts.entry((cut - first_cut, instance.clone(), *cut)).or_default().push(file);
    }
    cuts.into_values().collect()
}

/// Whether all that these files of a merged cut were merged from is here: then there may be fewer of them than there should,
/// since a crash may have come between two of them.
fn is_unfinished(reader: &Reader, files: &[Segment], findings: &Findings) -> Result<bool, SegmentError> {
    for Segment { name, rows, .. } in files {
        let unknown = findings.adoption.of_cuts.iter().chain(&findings.held).filter(|file| name.holds(&file.name));
        let unknown: u64 = unknown.map(|file| file.rows).sum();
        if findings.missing.iter().any(|missing| name.holds(missing)) || reader.rows_within(name)? + unknown != *rows {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Files whose rows the ledger still has are removed, but for complete cuts where it is behind.
fn settle_held(dir: &SegmentDir, behind: bool, findings: &mut Findings) -> Result<(), SegmentError> {
    let held = std::mem::take(&mut findings.held);
    let mut readings: BTreeMap<(InstanceId, CutNumber), u64> = BTreeMap::new();
    for Segment { name, rows, .. } in held.iter().chain(&findings.adoption.of_cuts).filter(|file| file.name.kind == FileKind::Readings) {
        *readings.entry((name.instance.clone(), name.cut)).or_default() += rows;
    }
    for segment in held {
        let found = readings.get(&(segment.name.instance.clone(), segment.name.cut)).copied().unwrap_or_default();
        let of_cut = |origin: Origin| (origin.last_seq + 1).saturating_sub(origin.first_seq);
        if behind && origin(dir, &segment)?.map(of_cut) == Some(found) {
            findings.adoption.of_cuts.push(segment);
        } else {
            dir.remove(&segment.name)?;
            findings.recovered.removed += 1;
        }
    }
    Ok(())
}

fn origin(dir: &SegmentDir, segment: &Segment) -> Result<Option<Origin>, SegmentError> {
    Ok(inspect_file(&dir.path(&segment.name), segment.name.kind)?.origin)
}

fn set_aside(dir: &SegmentDir, name: &SegmentName, why: &str) -> Result<(), SegmentError> {
    let path = dir.quarantine(name, why)?;
    tracing::error!(segment = %name, why, quarantine = %path.display(), "a file that is no segment of the ledger is set aside");
    Ok(())
}

fn judge(
    reader: &Reader,
    dir: &SegmentDir,
    instance: &InstanceId,
    missing: &[SegmentName],
    name: &SegmentName,
) -> Result<Verdict, SegmentError> {
    let path = dir.path(name);
    if let Some(segment) = reader.known_segment(name)? {
        let intact = digest_file(&path).is_ok_and(|found| found == (segment.sha256, segment.bytes));
        return Ok(if intact { Verdict::Remove } else { Verdict::Quarantine("the ledger let go of it, and it is damaged".to_owned()) });
    }
    if name.is_merged() && !missing.iter().any(|missing| name.holds(missing)) {
        // All that it was merged from is here, or was let go of.
        let known = reader.rows_within(name)?;
        if catch_unwind(|| read(&path)).is_ok_and(|file| file.is_ok_and(|file| file.rows() <= known)) {
            return Ok(Verdict::Remove);
        }
    }
    // A file of unknown origin must not keep the daemon from starting, whatever its bytes make of the Parquet library.
    let described = catch_unwind(|| describe(&path, name)).unwrap_or_else(|_| Err(SegmentError::Corrupt("reading it panicked".to_owned())));
    match described {
        Ok(segment) if !name.is_merged() && name.instance == *instance && ledger_has(reader, dir, &segment)? => Ok(Verdict::Held(segment)),
        Ok(segment) => Ok(Verdict::Adopt(segment)),
        Err(error) if error.kind() == ErrorKind::Transient => Err(error),
        Err(error) => Ok(Verdict::Quarantine(error.to_string())),
    }
}

/// Whether all rows of `segment`, which is of the current instance, are in the journal or among the records to export.
fn ledger_has(reader: &Reader, dir: &SegmentDir, segment: &Segment) -> Result<bool, SegmentError> {
    match segment.name.kind {
        FileKind::Readings => {
            let progress = reader.progress()?;
            // Of the whole cut, not of this file: the files of a cut share their fate.
            Ok(origin(dir, segment)?.is_some_and(|origin| origin.first_seq > progress.mark && origin.last_seq <= progress.last_seq))
        }
        FileKind::Records => {
            let id = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
            let last = reader.records_after(id(segment.last_seq) - 1, 1)?;
            let exported = reader.last_exported_record()?;
            Ok(id(segment.first_seq) > exported && last.first().is_some_and(|record| record.id == id(segment.last_seq)))
        }
    }
}
