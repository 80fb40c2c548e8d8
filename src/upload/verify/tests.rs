//! What `verify` finds in lakes that were tampered with: exactly that, and nothing else.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use super::*;
use crate::model::{Loss, LossReason, Timestamp};
use crate::upload::FileUpstream;
use crate::upload::tests::fixture::Gateway;

/// A lake with three cuts of two files each, seq 1 to 30.
struct Scene {
    gateway: Gateway,
    lake: PathBuf,
}

impl Scene {
    async fn new() -> Self {
        let gateway = Gateway::new();
        let lake = gateway.folder.path().join("lake");
        let scene = Self { gateway, lake };
        for _ in 0..3 {
            scene.gateway.seal(10).await;
        }
        scene.ship().await;
        scene
    }

    async fn ship(&self) {
        self.gateway.drain(Arc::new(FileUpstream::new(self.lake.clone(), Arc::default()))).await;
    }

    /// The path of a file of cut `cut`: 0 is the earlier day's (odd places), 1 the later day's.
    fn file(&self, cut: u64, day: usize) -> PathBuf {
        let manifest = self.manifest(cut);
        self.lake.join(&manifest.files[day].key)
    }

    fn manifest_path(&self, number: u64) -> PathBuf {
        self.lake.join(self.gateway.manifest_key(number))
    }

    fn manifest(&self, number: u64) -> Manifest {
        serde_json::from_slice(&fs::read(self.manifest_path(number)).unwrap()).unwrap()
    }

    /// Rewrites manifest `number` and those after it, so that all follow each other again.
    fn forge(&self, number: u64, change: impl FnOnce(&mut Manifest)) {
        let mut manifest = self.manifest(number);
        change(&mut manifest);
        fs::write(self.manifest_path(number), serde_json::to_vec(&manifest).unwrap()).unwrap();
        for number in number + 1..=3 {
            let mut manifest = self.manifest(number);
            manifest.previous = Some(Digest::of(&fs::read(self.manifest_path(number - 1)).unwrap()));
            fs::write(self.manifest_path(number), serde_json::to_vec(&manifest).unwrap()).unwrap();
        }
    }

    async fn report(&self) -> Report {
        verify(self.lake.to_str().unwrap(), None).await.unwrap()
    }

    /// Asserts what is found: the sort and a part of each text, and the verdict.
    async fn finds(&self, expected: &[(FindingKind, &str)], verdict: Verdict) {
        let report = self.report().await;
        let fits = report.findings.iter().zip(expected).all(|(found, (kind, part))| found.kind == *kind && found.text.contains(part));
        assert!(fits && report.findings.len() == expected.len(), "{report}");
        assert_eq!((report.verdict, report.findings_total), (verdict, expected.len() as u64));
        assert!(report.to_string().ends_with(&format!("\n{verdict}")), "{report}");
    }

    fn loss(&self, id: u64, seqs: (u64, u64), readings: u64) -> Loss {
        let (instance, reason, detail) = (self.gateway.instance(), LossReason::Dropped, "at the cap".to_owned());
        Loss { id, instance, first_seq: seqs.0, last_seq: seqs.1, readings, reason, noted: Timestamp(0), detail }
    }
}

#[tokio::test]
async fn a_whole_lake_is_complete() {
    let scene = Scene::new().await;
    scene.finds(&[], Verdict::Complete).await;
    let report = scene.report().await;
    let [found] = &report.instances[..] else { panic!("{report}") };
    assert_eq!((found.shipments, found.files, found.readings, found.last_seq), (3, 6, 30, 30));
    assert_eq!((found.lost, found.unexplained, found.gateway.as_str()), (0, 0, "gw-1"));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["verdict"], &json["findings"]), (&"complete".into(), &serde_json::json!([])));
}

#[tokio::test]
async fn a_deleted_file_is_named() {
    let scene = Scene::new().await;
    let path = scene.file(2, 0);
    fs::remove_file(&path).unwrap();
    scene.finds(&[(FindingKind::MissingFile, path.file_name().unwrap().to_str().unwrap())], Verdict::NotComplete).await;
}

#[tokio::test]
async fn one_altered_byte_is_found_wherever_it_is() {
    let scene = Scene::new().await;
    let path = scene.file(2, 1);
    let whole = fs::read(&path).unwrap();
    for place in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        fs::write(&path, &bytes).unwrap();
        scene.finds(&[(FindingKind::AlteredFile, "its SHA-256 is")], Verdict::NotComplete).await;
    }
    fs::write(&path, &whole[1..]).unwrap();
    scene.finds(&[(FindingKind::AlteredFile, "bytes, not")], Verdict::NotComplete).await;
}

#[tokio::test]
async fn a_removed_manifest_leaves_a_hole_in_the_row_and_its_files_uncounted() {
    let scene = Scene::new().await;
    fs::remove_file(scene.manifest_path(2)).unwrap();
    let expected = [
        (FindingKind::Uncounted, "-0000000002.parquet"),
        (FindingKind::Uncounted, "-0000000002.parquet"),
        (FindingKind::MissingManifest, "-0000000002.json"),
        (FindingKind::Gap, "10 readings"),
    ];
    scene.finds(&expected, Verdict::NotComplete).await;
}

#[tokio::test]
async fn several_removed_manifests_are_one_finding() {
    let scene = Scene::new().await;
    for number in [1, 2] {
        fs::remove_file(scene.manifest_path(number)).unwrap();
    }
    let report = scene.report().await;
    let missing: Vec<_> = report.findings.iter().filter(|finding| finding.kind == FindingKind::MissingManifest).collect();
    assert!(missing.len() == 1 && missing[0].text.ends_with("-0000000001.json and the 1 after it"), "{report}");
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::Gap && finding.text.contains("seq 1 to 20")), "{report}");
}

#[tokio::test]
async fn a_manifest_that_was_rewritten_does_not_fit_its_successor() {
    let scene = Scene::new().await;
    let mut manifest = scene.manifest(2);
    manifest.created = Timestamp(1);
    fs::write(scene.manifest_path(2), serde_json::to_vec(&manifest).unwrap()).unwrap();
    scene.finds(&[(FindingKind::AlteredManifest, "-0000000002.json has SHA-256")], Verdict::NotComplete).await;
}

#[tokio::test]
async fn a_manifest_that_can_t_be_read_is_named_once() {
    let scene = Scene::new().await;
    fs::write(scene.manifest_path(2), "{").unwrap();
    let report = scene.report().await;
    let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
    use FindingKind::{AlteredManifest, Gap, Uncounted};
    assert_eq!(kinds, [Uncounted, Uncounted, AlteredManifest, Gap], "{report}");
}

#[tokio::test]
async fn a_file_twice_is_a_duplicate() {
    let scene = Scene::new().await;
    // Under another date, as if it had been shipped under two names.
    let from = scene.file(1, 0);
    let to = scene.lake.join("readings/gateway=gw-1/date=mixed").join(from.file_name().unwrap());
    fs::create_dir(to.parent().unwrap()).unwrap();
    fs::copy(&from, &to).unwrap();
    scene.finds(&[(FindingKind::Duplicate, "date=mixed/")], Verdict::NotComplete).await;
}

#[tokio::test]
async fn readings_told_by_two_shipments_are_duplicates() {
    let scene = Scene::new().await;
    let first = scene.manifest(1);
    scene.forge(3, |manifest| {
        manifest.files.extend(first.files.iter().cloned());
        manifest.readings += 10;
    });
    let report = scene.report().await;
    assert!(!report.is_complete());
    // Ten readings that alternate between two days are there again, and lie outside of the range that the manifest tells of.
    let duplicates = report.findings.iter().filter(|finding| finding.kind == FindingKind::Duplicate).count();
    assert_eq!((duplicates, report.instances[0].readings), (1, 30), "{report}");
    assert!(report.findings.iter().any(|finding| finding.text.contains("seq 1 to 10, which are there already")), "{report}");
}

#[tokio::test]
async fn figures_that_do_not_fit_the_files_are_a_mismatch() {
    let scene = Scene::new().await;
    scene.forge(3, |manifest| manifest.readings += 1);
    scene.finds(&[(FindingKind::Mismatch, "tells of 11 readings")], Verdict::NotComplete).await;
    let scene = Scene::new().await;
    scene.forge(1, |manifest| manifest.files[1].rows += 1);
    scene.finds(&[(FindingKind::AlteredFile, "5 rows, not 6")], Verdict::NotComplete).await;
}

#[tokio::test]
async fn a_gap_that_a_loss_explains_is_explained() {
    let scene = Scene::new().await;
    let path = scene.file(2, 0);
    let loss = scene.loss(1, (11, 19), 5);
    fs::remove_file(path).unwrap();
    scene.forge(2, |manifest| {
        manifest.files.remove(0);
        manifest.readings -= 5;
        manifest.losses.push(loss.clone());
    });
    scene.finds(&[(FindingKind::Explained, "5 readings")], Verdict::Explained).await;
    assert_eq!(scene.report().await.instances[0].lost, 5);

    // The same loss that tells of less, or of more, than is gone.
    scene.forge(2, |manifest| manifest.losses[0].readings = 4);
    let expected = [(FindingKind::Gap, "1 readings"), (FindingKind::Explained, "4 readings")];
    scene.finds(&expected, Verdict::NotComplete).await;
    scene.forge(2, |manifest| manifest.losses[0].readings = 6);
    let expected = [(FindingKind::Overlap, "6 readings"), (FindingKind::Explained, "6 readings")];
    scene.finds(&expected, Verdict::NotComplete).await;
}

#[tokio::test]
async fn a_loss_beyond_the_last_cut_is_part_of_the_whole() {
    let scene = Scene::new().await;
    let (near, far) = (scene.loss(1, (31, 40), 10), scene.loss(2, (51, 60), 10));
    scene.forge(3, |manifest| manifest.losses.push(near));
    scene.finds(&[(FindingKind::Explained, "seq 31 to 40")], Verdict::Explained).await;
    scene.forge(3, |manifest| manifest.losses.push(far));
    let expected = [(FindingKind::Gap, "seq 41 to 50"), (FindingKind::Explained, "seq 31 to 40"), (FindingKind::Explained, "seq 51 to 60")];
    scene.finds(&expected, Verdict::NotComplete).await;
}

#[tokio::test]
async fn a_loss_of_what_is_there_contradicts_it() {
    let scene = Scene::new().await;
    let loss = scene.loss(1, (5, 8), 4);
    scene.forge(2, |manifest| manifest.losses.push(loss));
    let expected = [(FindingKind::Overlap, "losses tell of 4 readings"), (FindingKind::Explained, "seq 5 to 8")];
    scene.finds(&expected, Verdict::NotComplete).await;
}

#[tokio::test]
async fn foreign_and_unfinished_objects_are_named_and_do_no_harm() {
    let scene = Scene::new().await;
    fs::write(scene.lake.join("readings/notes.txt"), "mine").unwrap();
    fs::write(scene.file(1, 0).with_file_name(".x.parquet.part"), "half").unwrap();
    let report = scene.report().await;
    assert_eq!(report.verdict, Verdict::Complete, "{report}");
    assert!(report.findings.len() == 2 && report.findings.iter().all(|finding| finding.kind == FindingKind::Uncounted), "{report}");
}

#[tokio::test]
async fn the_damage_that_a_gateway_found_itself_is_explained() {
    let scene = Scene::new().await;
    let segments = scene.gateway.seal(10).await;
    fs::write(scene.gateway.dir.path(&segments[0].name), "rotten").unwrap();
    scene.ship().await;
    scene.finds(&[(FindingKind::Explained, "5 readings")], Verdict::Explained).await;
}

#[tokio::test]
async fn a_fork_is_shown_and_both_lives_are_proven() {
    let scene = Scene::new().await;
    scene.gateway.ledger.fork("a copied card".to_owned()).await.unwrap();
    scene.gateway.seal(10).await;
    scene.ship().await;
    scene.finds(&[(FindingKind::Forked, "began as a fork of")], Verdict::Complete).await;
    assert_eq!(scene.report().await.instances.len(), 2);
}

#[tokio::test]
async fn a_lake_without_the_gateway_or_without_anything_is_not_complete() {
    let scene = Scene::new().await;
    let lake = scene.lake.to_str().unwrap();
    assert!(verify(lake, Some("gw-1")).await.unwrap().is_complete());
    let report = verify(lake, Some("gw-2")).await.unwrap();
    assert!(!report.is_complete() && report.to_string().contains("no manifest of gateway gw-2"), "{report}");
    let empty = tempfile::tempdir().unwrap();
    assert!(!verify(empty.path().to_str().unwrap(), None).await.unwrap().is_complete());
    let gone = empty.path().join("gone");
    assert!(matches!(verify(gone.to_str().unwrap(), None).await, Err(UploadError::Lake(text)) if text.contains("gone")));
}
