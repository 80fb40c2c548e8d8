//! The proof that a lake is complete, read from the lake alone: no gateway is asked.
//!
//! Complete means, for every instance: the shipments are 1 to n and each manifest follows the one before by its digest;
//! every file is there with its size and SHA-256, and the rows and seqs in it are those its manifest tells of; the seqs
//! from 1 to the last are each there once, or a loss says why not. Files that no manifest names do not count.
//!
//! Two things can't be told from the lake alone. A tail that was taken away whole, the last manifests with their files,
//! looks like one that was never sent. And the last manifest has no successor that vouches for its bytes; what it says of
//! its files is checked all the same.
//!
//! Bounds: a few shipments at a time, with one file of each; ranges of seqs an instance; eight bytes a file of the lake, and
//! as many a manifest.

mod account;
mod lake;
mod ranges;
mod report;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use self::account::{Account, FileFound};
use self::lake::{Content, Lake, Manifests};
use self::ranges::RangeSet;
pub use self::report::{Finding, FindingKind, InstanceReport, Report, Verdict};
use super::UploadError;
use super::key::LakeKey;
use crate::config;
use crate::model::{Digest, FileKind, InstanceId, Manifest, ManifestFile, ShipmentNumber};
use crate::segment::inspect_bytes;

/// How far a verification has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Manifests read.
    pub manifests_read: u64,
    /// Manifests in all.
    pub manifests: u64,
    /// Bytes of files read.
    pub bytes: u64,
}

/// Shipments read at a time: across a network most of the time is waiting.
const SHIPMENTS_AHEAD: usize = 4;

/// Verifies the lake at `url`, of one gateway or of all; for S3, endpoint and keys come from the environment.
///
/// # Errors
/// [`UploadError::Config`] for a URL that is none; [`UploadError::Lake`] for a lake that can't be listed, or a link that failed.
pub async fn verify(url: &str, gateway: Option<&str>) -> Result<Report, UploadError> {
    let settings = config::Upstream { url: url.to_owned(), ..config::Upstream::default() };
    verify_watched(&settings, gateway, &mut |_| {}).await
}

/// As [`verify()`], of the lake that `settings` name; `watch` is told after each manifest with its files.
///
/// # Errors
/// As [`verify()`].
pub async fn verify_watched(
    settings: &config::Upstream,
    gateway: Option<&str>,
    watch: &mut (dyn FnMut(Progress) + Send),
) -> Result<Report, UploadError> {
    let lake = Lake::open(settings)?;
    let manifests = lake.manifests(gateway).await?;
    let all = manifests.values().flat_map(BTreeMap::values).map(|numbers| numbers.len() as u64).sum();
    let mut run = Run {
        report: Report::new(lake.url().to_owned()),
        lake: Arc::new(lake),
        accounts: BTreeMap::new(),
        counted: Counted::default(),
        progress: Progress { manifests: all, ..Progress::default() },
        watch,
    };
    run.read_all(manifests).await?;
    run.look_for_others(gateway).await?;
    run.close(gateway);
    Ok(run.report)
}

/// Keys that manifests name, as 64-bit hashes: eight bytes a file. That two of a million collide, so that one
/// uncounted file goes unnamed, happens once in tens of millions of runs.
#[derive(Default)]
struct Counted {
    hasher: RandomState,
    keys: HashSet<u64>,
}

impl Counted {
    fn insert(&mut self, key: &str) {
        self.keys.insert(self.hasher.hash_one(key));
    }

    fn contains(&self, key: &str) -> bool {
        self.keys.contains(&self.hasher.hash_one(key))
    }
}

struct Run<'a> {
    lake: Arc<Lake>,
    report: Report,
    accounts: BTreeMap<(String, InstanceId), Account>,
    counted: Counted,
    progress: Progress,
    watch: &'a mut (dyn FnMut(Progress) + Send),
}

impl Run<'_> {
    async fn read_all(&mut self, manifests: Manifests) -> Result<(), UploadError> {
        for (gateway, instances) in manifests {
            let mut elsewhere = Vec::new();
            for (instance, numbers) in instances {
                let mut account = self.read_instance(&gateway, &instance, numbers).await?;
                elsewhere.extend(account.foreign_losses());
                self.accounts.insert((gateway.clone(), instance), account);
            }
            for loss in elsewhere {
                let (gateway, instance) = (gateway.clone(), loss.instance.clone());
                let account = Account::new(&gateway, &instance);
                self.accounts.entry((gateway, instance)).or_insert(account).take_loss(loss);
            }
        }
        Ok(())
    }

    async fn read_instance(&mut self, gateway: &str, instance: &InstanceId, numbers: Vec<ShipmentNumber>) -> Result<Account, UploadError> {
        let mut account = Account::new(gateway, instance);
        let lake = Arc::clone(&self.lake);
        let reads = numbers.into_iter().map(|number| read_shipment(&lake, number, Manifest::key(gateway, instance, number)));
        let mut reads = stream::iter(reads).buffered(SHIPMENTS_AHEAD);
        let mut next = 1;
        while let Some(found) = reads.try_next().await? {
            let number = found.number;
            if next < number {
                account.missing(next, number - 1);
            }
            next = number + 1;
            self.take(&mut account, found);
        }
        Ok(account)
    }

    fn take(&mut self, account: &mut Account, found: ShipmentFound) {
        let manifest = match found.manifest {
            Content::Found(bytes) => account.open_manifest(found.number, &bytes),
            Content::Absent => {
                account.missing(found.number, found.number);
                None
            }
            Content::Unreadable(why) => {
                account.unreadable(found.number, &why);
                None
            }
        };
        if let Some(manifest) = manifest {
            for file in &manifest.files {
                self.counted.insert(&file.key);
                self.progress.bytes += file.bytes;
            }
            account.take(manifest, found.files);
        }
        self.progress.manifests_read += 1;
        (self.watch)(self.progress);
    }

    /// Names what no manifest names.
    async fn look_for_others(&mut self, gateway: Option<&str>) -> Result<(), UploadError> {
        for mut keys in self.lake.keys(gateway) {
            while let Some(key) = keys.try_next().await? {
                if let Some(finding) = uncounted(&key, &self.counted, &self.accounts) {
                    self.report.add(finding);
                }
            }
        }
        Ok(())
    }

    fn close(&mut self, gateway: Option<&str>) {
        if self.accounts.is_empty() {
            let text =
                gateway.map_or_else(|| "no manifest is here".to_owned(), |gateway| format!("no manifest of gateway {gateway} is here"));
            self.report.add(Finding { kind: FindingKind::Empty, gateway: gateway.map(str::to_owned), instance: None, text });
        }
        for account in std::mem::take(&mut self.accounts).into_values() {
            let (instance, findings) = account.close();
            self.report.instances.push(instance);
            findings.into_iter().for_each(|finding| self.report.add(finding));
        }
    }
}

/// What was found of a shipment.
struct ShipmentFound {
    number: ShipmentNumber,
    manifest: Content,
    /// Its files, in the manifest's order.
    files: Vec<FileFound>,
}

async fn read_shipment(lake: &Lake, number: ShipmentNumber, key: String) -> Result<ShipmentFound, UploadError> {
    let manifest = lake.read(&key, None).await?;
    let named: Option<Manifest> = match &manifest {
        Content::Found(bytes) => serde_json::from_slice(bytes).ok(),
        _ => None,
    };
    let mut files = Vec::new();
    for file in named.into_iter().flat_map(|manifest| manifest.files) {
        files.push(read_file(lake, file).await?);
    }
    Ok(ShipmentFound { number, manifest, files })
}

async fn read_file(lake: &Lake, file: ManifestFile) -> Result<FileFound, UploadError> {
    Ok(match lake.read(&file.key, Some(file.bytes)).await? {
        Content::Absent => FileFound::Missing,
        Content::Unreadable(why) => FileFound::Altered(why),
        Content::Found(bytes) => {
            let checked = tokio::task::spawn_blocking(move || check_file(&file, bytes)).await;
            checked.unwrap_or_else(|error| FileFound::Altered(format!("checking it failed: {error}")))
        }
    })
}

fn check_file(file: &ManifestFile, bytes: Bytes) -> FileFound {
    let found = Digest::of(&bytes);
    if found != file.sha256 {
        return FileFound::Altered(format!("its SHA-256 is {found}, not {}", file.sha256));
    }
    let inspected = match inspect_bytes(bytes, file.kind) {
        Ok(inspected) => inspected,
        Err(error) => return FileFound::Altered(format!("its digest holds, but it can't be read: {error}")),
    };
    if inspected.rows != file.rows {
        return FileFound::Altered(format!("its digest holds, but it has {} rows, not {}", inspected.rows, file.rows));
    }
    let (mut seqs, mut duplicates) = (RangeSet::default(), 0);
    // The ids of records are no seqs.
    if file.kind == FileKind::Readings {
        inspected.ranges.iter().for_each(|range| seqs.insert(range.first, range.last));
        duplicates = inspected.duplicates;
    }
    FileFound::Whole { bytes: file.bytes, rows: inspected.rows, seqs, duplicates }
}

/// What to say of the object `key`, if no manifest names it and it is none.
fn uncounted(key: &str, counted: &Counted, accounts: &BTreeMap<(String, InstanceId), Account>) -> Option<Finding> {
    if counted.contains(key) {
        return None;
    }
    let (kind, gateway, instance, text) = match LakeKey::parse(key) {
        Some(LakeKey::Manifest { .. }) => return None,
        Some(LakeKey::File { gateway, name }) => {
            let of_a_counted_cut =
                accounts.get(&(gateway.clone(), name.instance.clone())).is_some_and(|account| account.counts_cut(name.cut));
            let (kind, text) = if of_a_counted_cut {
                (FindingKind::Duplicate, format!("{key} belongs to cut {}, whose manifest does not name it", name.cut))
            } else {
                (FindingKind::Uncounted, format!("{key} is named by no manifest: its shipment is under way, or was never finished"))
            };
            (kind, Some(gateway), Some(name.instance), text)
        }
        None => (FindingKind::Uncounted, None, None, format!("{key} is not a name of a lake: it is foreign, or a write was cut off")),
    };
    Some(Finding { kind, gateway, instance, text })
}
