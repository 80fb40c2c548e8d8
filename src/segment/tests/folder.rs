//! The folder of segments.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::model::{Day, FileKind, InstanceId, SegmentName};
use crate::segment::{Listing, Readers, Removal};
use crate::space::Space;

fn name(day: i64, cut: u64) -> SegmentName {
    SegmentName::new(FileKind::Readings, Some(Day(day)), "00000000000000aa".parse::<InstanceId>().unwrap(), cut)
}

fn put(dir: &SegmentDir, name: &SegmentName) {
    let (temporary, mut file) = dir.create(name).unwrap();
    file.write_all(b"12345").unwrap();
    temporary.rename().unwrap();
}

#[test]
fn files_and_folders_are_for_their_owner_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = SegmentDir::open(scratch.path()).unwrap();
    put(&dir, &name(1, 1));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir.path(&name(1, 1))), 0o600);
    assert_eq!(mode(dir.path(&name(1, 1)).parent().unwrap()), 0o700);
    assert_eq!(mode(&scratch.path().join("segments")), 0o700);
    assert_eq!(mode(&scratch.path().join("quarantine")), 0o700);
}

#[test]
fn the_listing_tells_segments_from_temporary_and_foreign_files() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = SegmentDir::open(scratch.path()).unwrap();
    put(&dir, &name(2, 7));
    put(&dir, &name(1, 9));
    let (left, _file) = dir.create(&name(1, 10)).unwrap();
    let foreign = dir.path(&name(1, 9)).with_file_name("notes.txt");
    fs::write(&foreign, "mine").unwrap();
    let expected = Listing { segments: vec![name(1, 9), name(2, 7)], temporary: vec![left.path().to_owned()], foreign: vec![foreign] };
    assert_eq!(dir.list().unwrap(), expected);
}

#[test]
fn a_temporary_file_that_gets_no_name_is_removed() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = SegmentDir::open(scratch.path()).unwrap();
    drop(dir.create(&name(1, 1)).unwrap());
    assert_eq!(dir.list().unwrap(), Listing::default());
}

#[test]
fn a_pinned_file_stays_until_the_last_pin_is_gone() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = SegmentDir::open(scratch.path()).unwrap();
    put(&dir, &name(1, 1));
    let (first, second) = (dir.pin(&[name(1, 1)]), dir.pin(&[name(1, 1)]));
    drop(first);
    assert_eq!(dir.remove(&name(1, 1)).unwrap(), Removal::Pinned);
    assert!(!dir.are_gone(&[name(1, 1)]).unwrap() && dir.are_gone(&[name(1, 2), name(2, 1)]).unwrap());
    let taken = 512 * fs::metadata(dir.path(&name(1, 1))).unwrap().blocks();
    assert_eq!(dir.growth(), taken.cast_signed());
    drop(second);
    assert_eq!(dir.remove(&name(1, 1)).unwrap(), Removal::Removed);
    assert_eq!(dir.remove(&name(1, 1)).unwrap(), Removal::Absent);
    assert_eq!(dir.growth(), 0);
}

#[test]
fn a_date_folder_goes_with_its_last_file() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = SegmentDir::open(scratch.path()).unwrap();
    put(&dir, &name(1, 1));
    put(&dir, &name(1, 2));
    let folder = dir.path(&name(1, 1)).parent().unwrap().to_owned();
    dir.remove(&name(1, 1)).unwrap();
    assert!(folder.exists());
    dir.remove(&name(1, 2)).unwrap();
    assert!(!folder.exists());
}

#[test]
fn quarantine_keeps_every_file_and_the_reason() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = SegmentDir::open(scratch.path()).unwrap();
    put(&dir, &name(1, 1));
    dir.verified().insert(name(1, 1));
    let first = dir.quarantine(&name(1, 1), "wrong digest").unwrap();
    put(&dir, &name(1, 1));
    let second = dir.quarantine(&name(1, 1), "again").unwrap();
    assert_ne!(first, second);
    assert_eq!(fs::read(&first).unwrap(), b"12345");
    assert!(fs::read_to_string(first.with_extension("why.txt")).unwrap().contains("wrong digest"));
    assert!(!dir.verified().contains(&name(1, 1)) && dir.growth() == 0);
}

#[test]
fn a_group_may_read_the_readings_and_nothing_else_once_it_is_let_in() {
    let scratch = tempfile::tempdir().unwrap();
    let open = |readers| SegmentDir::within(scratch.path(), Space::default(), readers).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let records = SegmentName::new(FileKind::Records, Some(Day(1)), "00000000000000aa".parse::<InstanceId>().unwrap(), 1);
    put(&open(Readers::Owner), &name(1, 1));
    let dir = open(Readers::Group);
    // Beside one that is there, in a new folder, and of another kind.
    [name(1, 2), name(2, 3), records.clone()].iter().for_each(|name| put(&dir, name));
    let readings = scratch.path().join("segments/readings");
    for name in [name(1, 1), name(1, 2), name(2, 3)] {
        let path = dir.path(&name);
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o640, 0o750), "{name}");
    }
    assert_eq!((mode(&readings), mode(&dir.path(&records))), (0o750, 0o600));
    assert_eq!(mode(dir.path(&records).parent().unwrap()), 0o700);
    let dir = open(Readers::Owner);
    assert_eq!(mode(&readings), 0o700, "nobody passes");
    put(&dir, &name(2, 4));
    assert_eq!(mode(&dir.path(&name(2, 4))), 0o600);
    let dir = open(Readers::Group);
    assert_eq!((mode(&dir.path(&name(2, 4))), mode(&readings)), (0o640, 0o750));
}
