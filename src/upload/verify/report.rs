//! What `verify` found, as data and as text.

use std::fmt;

use serde::Serialize;

use crate::model::InstanceId;

/// Findings kept in full; more are counted. A lake with so many faults needs no longer list.
const MAX_FINDINGS: usize = 10_000;

/// What sort of finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// There is nothing to verify.
    Empty,
    /// A shipment between others has no manifest.
    MissingManifest,
    /// A manifest can't be read, or is not the one its successor follows.
    AlteredManifest,
    /// A file that a manifest names is not there.
    MissingFile,
    /// A file is not what its manifest says.
    AlteredFile,
    /// Manifest and contents, or a manifest's own figures, contradict each other.
    Mismatch,
    /// Readings that are there more than once.
    Duplicate,
    /// Readings that are not there, and no loss says why.
    Gap,
    /// Losses tell of readings that are there.
    Overlap,
    /// Readings that are not there, and a loss says why.
    Explained,
    /// An object that no manifest names: a shipment under way, something cut off, or something foreign.
    Uncounted,
    /// An instance that began as a fork of another.
    Forked,
}

impl FindingKind {
    /// Whether the lake is not complete because of it.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::Explained | Self::Uncounted | Self::Forked)
    }

    fn words(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::MissingManifest => "missing manifest",
            Self::AlteredManifest => "altered manifest",
            Self::MissingFile => "missing file",
            Self::AlteredFile => "altered file",
            Self::Mismatch => "mismatch",
            Self::Duplicate => "duplicate",
            Self::Gap => "gap",
            Self::Overlap => "overlap",
            Self::Explained => "explained",
            Self::Uncounted => "uncounted",
            Self::Forked => "forked",
        }
    }
}

/// One finding, told in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What sort.
    pub kind: FindingKind,
    /// Whose.
    pub gateway: Option<String>,
    /// Of which life.
    pub instance: Option<InstanceId>,
    /// What exactly.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.words(), self.text)
    }
}

/// One instance in the lake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceReport {
    /// Whose.
    pub gateway: String,
    /// Of which life.
    pub instance: InstanceId,
    /// The instance before, where this one began as a fork.
    pub forked_from: Option<InstanceId>,
    /// Manifests found.
    pub shipments: u64,
    /// Files found that manifests name.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Different readings found.
    pub readings: u64,
    /// Records found.
    pub records: u64,
    /// The highest seq heard of.
    pub last_seq: u64,
    /// Readings that are not there, and a loss says why.
    pub lost: u64,
    /// Readings that are not there, and no loss says why.
    pub unexplained: u64,
}

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// Every reading is there once.
    #[serde(rename = "complete")]
    Complete,
    /// Every reading is there once, or a loss says why not.
    #[serde(rename = "complete, with explained losses")]
    Explained,
    /// Something is missing, altered, double or contradictory.
    #[serde(rename = "NOT complete")]
    NotComplete,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Complete => "complete",
            Self::Explained => "complete, with explained losses",
            Self::NotComplete => "NOT complete",
        })
    }
}

/// What `verify` found. As text: a line an instance, a line a finding, and the verdict as the last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Which lake.
    pub lake: String,
    /// Every instance of the gateways looked at.
    pub instances: Vec<InstanceReport>,
    /// The findings, up to a bound.
    pub findings: Vec<Finding>,
    /// All findings, counted.
    pub findings_total: u64,
    /// How it ends.
    pub verdict: Verdict,
}

impl Report {
    pub(super) fn new(lake: String) -> Self {
        Self { lake, instances: Vec::new(), findings: Vec::new(), findings_total: 0, verdict: Verdict::Complete }
    }

    /// Whether every reading is there once, or a loss says why not.
    pub fn is_complete(&self) -> bool {
        self.verdict != Verdict::NotComplete
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings_total += 1;
        if finding.kind.is_fault() {
            self.verdict = Verdict::NotComplete;
        } else if finding.kind == FindingKind::Explained && self.verdict == Verdict::Complete {
            self.verdict = Verdict::Explained;
        }
        // Faults are never crowded out by notes.
        if self.findings.len() < MAX_FINDINGS || (finding.kind.is_fault() && self.findings.len() < 2 * MAX_FINDINGS) {
            self.findings.push(finding);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.lake)?;
        for found in &self.instances {
            let InstanceReport { gateway, instance, shipments, files, bytes, readings, records, last_seq, lost, unexplained, .. } = found;
            write!(f, "gateway {gateway}, instance {instance}: {shipments} shipments, {files} files, {bytes} bytes, ")?;
            writeln!(f, "{readings} of {last_seq} readings ({lost} lost with a reason, {unexplained} without), {records} records")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let more = self.findings_total.saturating_sub(self.findings.len() as u64);
        if more > 0 {
            writeln!(f, "and {more} more findings")?;
        }
        write!(f, "{}", self.verdict)
    }
}
