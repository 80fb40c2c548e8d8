//! The account of one instance: what its manifests say is set against what is there. Pure.

use std::collections::BTreeMap;

use super::ranges::RangeSet;
use super::report::{Finding, FindingKind, InstanceReport};
use crate::model::{Digest, FileKind, InstanceId, Loss, MANIFEST_VERSION, Manifest, Seq, ShipmentNumber, Timestamp};

/// Ranges named one by one in an account; the rest of them in one sum.
const MAX_NAMED_GAPS: usize = 100;

/// What came out of one file of a shipment.
pub enum FileFound {
    /// It is what the manifest says, and holds these seqs (none for records).
    Whole {
        /// Its bytes.
        bytes: u64,
        /// Rows in it.
        rows: u64,
        /// The seqs of its rows.
        seqs: RangeSet,
        /// Rows whose seq another row has too.
        duplicates: u64,
    },
    /// It is not there.
    Missing,
    /// It is there and is not what the manifest says.
    Altered(String),
}

/// The account of one instance while its manifests are read in order.
pub struct Account {
    report: InstanceReport,
    /// Seqs found.
    seqs: RangeSet,
    /// Ranges of cuts with a file that can't be read: what is missing there is told already.
    unread: RangeSet,
    /// Cuts that a manifest brings.
    cuts: RangeSet,
    /// By number and time: a ledger that was rebuilt numbers its losses anew.
    losses: BTreeMap<(u64, Timestamp), Loss>,
    previous: Previous,
    findings: Vec<Finding>,
}

/// What is known of the manifest before.
enum Previous {
    /// There is none.
    First,
    /// Its number and digest.
    Known(ShipmentNumber, Digest),
    /// It is missing or unreadable.
    Unknown,
}

impl Account {
    /// Of `instance` of `gateway`, of which nothing is known.
    pub fn new(gateway: &str, instance: &InstanceId) -> Self {
        let report = InstanceReport {
            gateway: gateway.to_owned(),
            instance: instance.clone(),
            forked_from: None,
            shipments: 0,
            files: 0,
            bytes: 0,
            readings: 0,
            records: 0,
            last_seq: 0,
            lost: 0,
            unexplained: 0,
        };
        Self {
            report,
            seqs: RangeSet::default(),
            unread: RangeSet::default(),
            cuts: RangeSet::default(),
            losses: BTreeMap::new(),
            previous: Previous::First,
            findings: Vec::new(),
        }
    }

    fn find(&mut self, kind: FindingKind, text: String) {
        let (gateway, instance) = (Some(self.report.gateway.clone()), Some(self.report.instance.clone()));
        self.findings.push(Finding { kind, gateway, instance, text });
    }

    fn manifest_key(&self, number: ShipmentNumber) -> String {
        Manifest::key(&self.report.gateway, &self.report.instance, number)
    }

    /// Manifests `first` through `last` are not there, though later ones are.
    pub fn missing(&mut self, first: ShipmentNumber, last: ShipmentNumber) {
        let (key, more) = (self.manifest_key(first), last - first);
        let text = if more == 0 { key } else { format!("{key} and the {more} after it") };
        self.find(FindingKind::MissingManifest, text);
        self.previous = Previous::Unknown;
    }

    /// Reads manifest `number`; `None` if nothing can be made of it.
    pub fn open_manifest(&mut self, number: ShipmentNumber, bytes: &[u8]) -> Option<Manifest> {
        self.report.shipments += 1;
        let key = self.manifest_key(number);
        let manifest: Manifest = match serde_json::from_slice(bytes) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.unreadable(number, &error.to_string());
                return None;
            }
        };
        self.check_link(number, &manifest);
        self.previous = Previous::Known(number, Digest::of(bytes));
        let InstanceReport { gateway, instance, .. } = &self.report;
        if manifest.forebay_manifest != MANIFEST_VERSION {
            let text = format!("{key} has format {}, and this version reads {MANIFEST_VERSION}", manifest.forebay_manifest);
            self.find(FindingKind::Mismatch, text);
        } else if manifest.gateway != *gateway || manifest.instance != *instance || manifest.shipment != number {
            let text = format!("{key} says it is {}", Manifest::key(&manifest.gateway, &manifest.instance, manifest.shipment));
            self.find(FindingKind::Mismatch, text);
        }
        self.note_fork(&manifest);
        Some(manifest)
    }

    /// Manifest `number` is there and can't be read.
    pub fn unreadable(&mut self, number: ShipmentNumber, why: &str) {
        let text = format!("{} can't be read: {why}", self.manifest_key(number));
        self.find(FindingKind::AlteredManifest, text);
        self.previous = Previous::Unknown;
    }

    fn check_link(&mut self, number: ShipmentNumber, manifest: &Manifest) {
        let text = match (&self.previous, manifest.previous) {
            (Previous::Unknown, _) | (Previous::First, None) => return,
            (Previous::Known(_, digest), Some(previous)) if *digest == previous => return,
            (Previous::Known(before, digest), Some(previous)) => {
                let before = self.manifest_key(*before);
                format!("{before} has SHA-256 {digest}, but the manifest after it follows {previous}")
            }
            (Previous::Known(..), None) => format!("{} follows none, though there are manifests before it", self.manifest_key(number)),
            (Previous::First, Some(previous)) => format!("{} is the first, but follows {previous}", self.manifest_key(number)),
        };
        self.find(FindingKind::AlteredManifest, text);
    }

    fn note_fork(&mut self, manifest: &Manifest) {
        if self.report.shipments == 1
            && let Some(parent) = &manifest.forked_from
        {
            self.report.forked_from = Some(parent.clone());
            let text = format!("instance {} began as a fork of {parent}", self.report.instance);
            self.find(FindingKind::Forked, text);
        }
    }

    /// Takes a manifest and what its files were found to be, in its order.
    pub fn take(&mut self, manifest: Manifest, found: Vec<FileFound>) {
        let key = self.manifest_key(manifest.shipment);
        let mut cut = RangeSet::default();
        let (mut rows, mut whole) = (BTreeMap::new(), true);
        for (file, found) in manifest.files.iter().zip(found) {
            match found {
                FileFound::Whole { bytes, rows: count, seqs, duplicates } => {
                    self.report.files += 1;
                    self.report.bytes += bytes;
                    *rows.entry(file.kind).or_insert(0) += count;
                    if duplicates > 0 {
                        self.find(FindingKind::Duplicate, format!("{} has {duplicates} rows whose seq another row has too", file.key));
                    }
                    self.find_doubled(&file.key, &cut.intersection(&seqs));
                    cut.extend(&seqs);
                    continue;
                }
                FileFound::Missing => self.find(FindingKind::MissingFile, format!("{} ({} rows), which {key} names", file.key, file.rows)),
                FileFound::Altered(why) => self.find(FindingKind::AlteredFile, format!("{}: {why}", file.key)),
            }
            whole = false;
        }
        let count = |kind| rows.get(&kind).copied().unwrap_or(0);
        let (readings, records) = (count(FileKind::Readings), count(FileKind::Records));
        self.report.records += records;
        if whole && (readings, records) != (manifest.readings, manifest.records) {
            let text = format!(
                "{key} tells of {} readings and {} records, its files hold {readings} and {records}",
                manifest.readings, manifest.records
            );
            self.find(FindingKind::Mismatch, text);
        }
        self.take_cut(&key, &manifest, &cut, whole);
        for loss in manifest.losses {
            self.take_loss(loss);
        }
    }

    fn take_cut(&mut self, key: &str, manifest: &Manifest, set: &RangeSet, whole: bool) {
        if let Some(cut) = manifest.cut {
            if self.cuts.contains(cut) {
                self.find(FindingKind::Duplicate, format!("{key} brings cut {cut} again"));
            }
            self.cuts.insert(cut, cut);
        }
        self.find_doubled(key, &self.seqs.intersection(set));
        let (first, last) = (manifest.first_seq.unwrap_or(1), manifest.last_seq.unwrap_or(0));
        let outside = set.difference(&set.within(first, last));
        if !outside.is_empty() {
            let text = format!("{key} tells of seq {first} to {last}, its files hold {} others", outside.count());
            self.find(FindingKind::Mismatch, text);
        }
        if !whole {
            self.unread.insert(first, last);
        }
        self.report.last_seq = self.report.last_seq.max(last).max(set.last());
        self.seqs.extend(set);
    }

    fn find_doubled(&mut self, key: &str, doubled: &RangeSet) {
        for (first, last) in doubled.iter().take(MAX_NAMED_GAPS) {
            self.find(FindingKind::Duplicate, format!("{key} has seq {first} to {last}, which are there already"));
        }
    }

    /// Takes a loss, from whatever manifest of the gateway tells of it; the same loss again is the same loss.
    pub fn take_loss(&mut self, loss: Loss) {
        self.report.last_seq = self.report.last_seq.max(loss.last_seq);
        self.losses.insert((loss.id, loss.noted), loss);
    }

    /// Losses of other instances, which their accounts must take.
    pub fn foreign_losses(&mut self) -> Vec<Loss> {
        let ours = self.report.instance.clone();
        self.losses.extract_if(.., |_, loss| loss.instance != ours).map(|(_, loss)| loss).collect()
    }

    /// Whether a manifest brings cut `cut`.
    pub fn counts_cut(&self, cut: u64) -> bool {
        self.cuts.contains(cut)
    }

    /// Closes the account: every seq up to the last is there or lost with a reason.
    pub fn close(mut self) -> (InstanceReport, Vec<Finding>) {
        let mut all = RangeSet::default();
        all.insert(1, self.report.last_seq);
        let absent = all.difference(&self.seqs).difference(&self.unread);
        let mut told = RangeSet::default();
        // A loss of no readings (records, marks) names no range.
        let of_readings = self.losses.values().filter(|loss| loss.readings > 0);
        of_readings.for_each(|loss| told.insert(loss.first_seq.max(1), loss.last_seq));
        let unexplained = absent.difference(&told);
        self.report.readings = self.seqs.count();
        self.report.unexplained = unexplained.count();
        self.report.lost = absent.count() - unexplained.count();
        let who = format!("of instance {}", self.report.instance);
        for (first, last) in unexplained.iter().take(MAX_NAMED_GAPS) {
            let count = last - first + 1;
            self.find(FindingKind::Gap, format!("{count} readings {who}, seq {first} to {last}, are not there, and no loss says why"));
        }
        let more: u64 = unexplained.iter().skip(MAX_NAMED_GAPS).map(|(first, last)| last - first + 1).sum();
        if more > 0 {
            self.find(FindingKind::Gap, format!("{more} more readings {who} in further gaps"));
        }
        for (first, last) in told.iter() {
            self.close_losses(first, last, &absent);
        }
        self.explain();
        (self.report, self.findings)
    }

    /// Losses that touch each other must tell of as many readings as are absent in their common range. A loss does not
    /// say which of its range it lost where it lost only some: a day's file of a cut that spans midnight.
    fn close_losses(&mut self, first: Seq, last: Seq, absent: &RangeSet) {
        if !self.unread.within(first, last).is_empty() {
            return;
        }
        let absent = absent.within(first, last).count();
        let told: u64 = self.losses.values().filter(|loss| (first..=last).contains(&loss.first_seq)).map(|loss| loss.readings).sum();
        let who = format!("of instance {}, seq {first} to {last}", self.report.instance);
        if absent > told {
            let gap = absent - told;
            self.report.unexplained += gap;
            self.report.lost -= gap;
            self.find(FindingKind::Gap, format!("{gap} readings {who}, are not there, and the losses tell of only {told} of {absent}"));
        } else if told > absent {
            self.find(FindingKind::Overlap, format!("losses tell of {told} readings {who}, and only {absent} are not there"));
        }
    }

    fn explain(&mut self) {
        let lines: Vec<String> = self
            .losses
            .values()
            .map(|loss| {
                let Loss { instance, first_seq, last_seq, readings, reason, noted, detail, .. } = loss;
                format!(
                    "{readings} readings of instance {instance}, seq {first_seq} to {last_seq}, {} at {noted}: {detail}",
                    reason.as_str()
                )
            })
            .collect();
        lines.into_iter().for_each(|line| self.find(FindingKind::Explained, line));
    }
}
