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
    /// Files removed whose rows the ledger has, or let go of.
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
    adopt(ledger, dir, findings.adopt, &mut recovered).await?;
    fail::fail_point!("recover.before_begin");
    ledger.begin_if_due().await?;
    if recovered != Recovered::default() {
        tracing::info!(?recovered, "the folder of segments was put in order");
    }
    Ok(recovered)
}

async fn adopt(ledger: &Ledger, dir: &SegmentDir, files: Vec<Segment>, recovered: &mut Recovered) -> Result<(), SegmentError> {
    if files.is_empty() {
        return Ok(());
    }
    match ledger.adopt(files.clone()).await {
        Ok(identity) => {
            recovered.adopted = files.len() as u64;
            tracing::warn!(files = recovered.adopted, instance = %identity.instance, "adopted segments that the ledger did not know");
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::Invalid => {
            let place = dir.clone();
            recovered.quarantined += files.len() as u64;
            blocking(move || files.iter().try_for_each(|file| set_aside(&place, &file.name, &error.to_string()))).await
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Default)]
struct Findings {
    recovered: Recovered,
    missing: Vec<SegmentName>,
    adopt: Vec<Segment>,
    held: Vec<Segment>,
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
    let mut unknown: Vec<_> = found.difference(&known).collect();
    unknown.sort_unstable();
    for name in unknown {
        match name.parse() {
            Ok(name) => settle(judge(&reader, dir, &instance, &name)?, dir, &name, &mut findings)?,
            Err(_) => leave_alone(&dir.root().join(name)),
        }
    }
    findings.missing = known.difference(&found).filter_map(|name| name.parse().ok()).collect();
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
        Verdict::Adopt(segment) => findings.adopt.push(segment),
        Verdict::Quarantine(why) => {
            set_aside(dir, name, &why)?;
            findings.recovered.quarantined += 1;
        }
    }
    Ok(())
}

/// Files whose rows the ledger still has are removed, but for complete cuts where it is behind.
fn settle_held(dir: &SegmentDir, behind: bool, findings: &mut Findings) -> Result<(), SegmentError> {
    let held = std::mem::take(&mut findings.held);
    let mut readings: BTreeMap<(InstanceId, CutNumber), u64> = BTreeMap::new();
    for Segment { name, rows, .. } in held.iter().chain(&findings.adopt).filter(|file| file.name.kind == FileKind::Readings) {
        *readings.entry((name.instance.clone(), name.cut)).or_default() += rows;
    }
    for segment in held {
        let found = readings.get(&(segment.name.instance.clone(), segment.name.cut)).copied().unwrap_or_default();
        let of_cut = |origin: Origin| (origin.last_seq + 1).saturating_sub(origin.first_seq);
        if behind && origin(dir, &segment)?.map(of_cut) == Some(found) {
            findings.adopt.push(segment);
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

fn judge(reader: &Reader, dir: &SegmentDir, instance: &InstanceId, name: &SegmentName) -> Result<Verdict, SegmentError> {
    let path = dir.path(name);
    let of_cut = reader.cut_segments(&name.instance, name.cut)?;
    if let Some(segment) = of_cut.iter().find(|segment| segment.name == *name) {
        let intact = digest_file(&path).is_ok_and(|found| found == (segment.sha256, segment.bytes));
        return Ok(if intact { Verdict::Remove } else { Verdict::Quarantine("the ledger let go of it, and it is damaged".to_owned()) });
    }
    // A file of unknown origin must not keep the daemon from starting, whatever its bytes make of the Parquet library.
    let described = catch_unwind(|| describe(&path, name)).unwrap_or_else(|_| Err(SegmentError::Corrupt("reading it panicked".to_owned())));
    match described {
        Ok(segment) if name.instance == *instance && ledger_has(reader, dir, &segment)? => Ok(Verdict::Held(segment)),
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
