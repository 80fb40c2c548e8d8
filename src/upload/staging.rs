//! What a shipment brings, decided and written down: pure.

use crate::model::{
    Cut, Digest, FileKind, InstanceId, Loss, MANIFEST_VERSION, Manifest, ManifestFile, Segment, Shipment, ShipmentNumber, Timestamp,
};

/// Losses in one manifest, oldest first; the others travel with the next. At 300 bytes each a manifest stays small.
pub const MAX_LOSSES: usize = 1000;

/// What is to be shipped: a cut, losses, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// Whose.
    pub instance: InstanceId,
    /// The instance before, if it began as a fork.
    pub forked_from: Option<InstanceId>,
    /// The cut, with its files that are whole.
    pub cut: Option<(Cut, Vec<Segment>)>,
    /// Losses of the instance that no shipment carries.
    pub losses: Vec<Loss>,
    /// The last delivered shipment of the instance.
    pub last: Option<(ShipmentNumber, Digest)>,
}

/// The shipment that brings `load`, with its manifest's bytes.
///
/// # Errors
/// A manifest that can't be written as JSON, which its types rule out.
pub fn stage(load: Load, gateway: &str, now: Timestamp) -> Result<Shipment, serde_json::Error> {
    let Load { instance, forked_from, cut, mut losses, last } = load;
    losses.sort_unstable_by_key(|loss| loss.id);
    losses.truncate(MAX_LOSSES);
    let (cut, mut segments) = cut.map_or((None, Vec::new()), |(cut, segments)| (Some(cut), segments));
    segments.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let rows = |kind| segments.iter().filter(|segment| segment.name.kind == kind).map(|segment| segment.rows).sum();
    // A cut of records alone has an empty range.
    let range = cut.as_ref().filter(|cut| cut.first_seq <= cut.last_seq);
    let manifest = Manifest {
        forebay_manifest: MANIFEST_VERSION,
        gateway: gateway.to_owned(),
        instance: instance.clone(),
        forked_from,
        shipment: last.map_or(1, |(number, _)| number + 1),
        cut: cut.as_ref().map(|cut| cut.number),
        first_seq: range.map(|cut| cut.first_seq),
        last_seq: range.map(|cut| cut.last_seq),
        readings: rows(FileKind::Readings),
        records: rows(FileKind::Records),
        files: segments.iter().map(|segment| file(segment, gateway)).collect(),
        losses,
        previous: last.map(|(_, digest)| digest),
        created: now,
    };
    Ok(Shipment {
        instance,
        number: manifest.shipment,
        cut: manifest.cut,
        first_cut: cut.as_ref().map(|cut| cut.first_cut),
        losses: manifest.losses.iter().map(|loss| loss.id).collect(),
        manifest: serde_json::to_vec(&manifest)?,
    })
}

fn file(segment: &Segment, gateway: &str) -> ManifestFile {
    ManifestFile {
        key: segment.name.lake_key(gateway),
        kind: segment.name.kind,
        bytes: segment.bytes,
        sha256: segment.sha256,
        rows: segment.rows,
        min_time: segment.min_time,
        max_time: segment.max_time,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{CutState, LossReason, SegmentName};

    fn instance() -> InstanceId {
        "0123456789abcdef".parse().unwrap()
    }

    fn load(cut: Option<(Cut, Vec<Segment>)>, losses: Vec<Loss>, last: Option<(ShipmentNumber, Digest)>) -> Load {
        Load { instance: instance(), forked_from: Some("fedcba9876543210".parse().unwrap()), cut, losses, last }
    }

    fn cut(first_seq: u64, last_seq: u64) -> Cut {
        Cut {
            instance: instance(),
            number: 7,
            first_cut: 7,
            first_seq,
            last_seq,
            readings: 0,
            records: 0,
            sealed: Timestamp(1),
            state: CutState::Sealed,
        }
    }

    fn segment(kind: FileKind, day: i64, rows: u64) -> Segment {
        Segment {
            name: SegmentName::new(kind, Some(crate::model::Day(day)), instance(), 7),
            bytes: 10 * rows,
            sha256: Digest::of(&rows.to_le_bytes()),
            rows,
            first_seq: 1,
            last_seq: rows,
            min_time: Timestamp(day),
            max_time: Timestamp(day + 1),
        }
    }

    fn loss(id: u64) -> Loss {
        let detail = "cap".to_owned();
        Loss {
            id,
            instance: instance(),
            first_seq: id,
            last_seq: id,
            readings: 1,
            reason: LossReason::Dropped,
            noted: Timestamp(1),
            detail,
        }
    }

    fn staged(load: Load) -> (Shipment, Manifest) {
        let shipment = stage(load, "gw-1", Timestamp(5)).unwrap();
        let manifest = serde_json::from_slice(&shipment.manifest).unwrap();
        (shipment, manifest)
    }

    #[test]
    fn a_manifest_tells_of_its_cut_and_files_and_follows_the_one_before() {
        let files = vec![segment(FileKind::Records, 3, 2), segment(FileKind::Readings, 4, 30), segment(FileKind::Readings, 3, 70)];
        let digest = Digest::of(b"before");
        let (shipment, manifest) = staged(load(Some((cut(101, 200), files)), vec![loss(2), loss(1)], Some((4, digest))));
        assert_eq!((shipment.number, shipment.cut, shipment.losses), (5, Some(7), vec![1, 2]));
        assert_eq!((manifest.shipment, manifest.previous), (5, Some(digest)));
        assert_eq!((manifest.first_seq, manifest.last_seq, manifest.readings, manifest.records), (Some(101), Some(200), 100, 2));
        assert_eq!(manifest.forked_from, Some("fedcba9876543210".parse().unwrap()));
        let keys: Vec<_> = manifest.files.iter().map(|file| file.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "readings/gateway=gw-1/date=1970-01-04/0123456789abcdef-0000000007.parquet",
                "readings/gateway=gw-1/date=1970-01-05/0123456789abcdef-0000000007.parquet",
                "records/gateway=gw-1/date=1970-01-04/0123456789abcdef-0000000007.parquet",
            ]
        );
    }

    #[test]
    fn a_cut_of_records_alone_has_no_seqs() {
        let files = vec![segment(FileKind::Records, 3, 2)];
        let (_, manifest) = staged(load(Some((cut(101, 100), files)), vec![], None));
        assert_eq!((manifest.first_seq, manifest.last_seq, manifest.readings, manifest.records), (None, None, 0, 2));
        assert_eq!((manifest.shipment, manifest.previous), (1, None));
    }

    #[test]
    fn losses_travel_alone_and_only_so_many_at_a_time() {
        let losses = (1..=MAX_LOSSES as u64 + 5).rev().map(loss).collect();
        let (shipment, manifest) = staged(load(None, losses, None));
        assert_eq!((manifest.cut, manifest.files.len(), manifest.losses.len()), (None, 0, MAX_LOSSES));
        assert_eq!((shipment.losses.first(), shipment.losses.last()), (Some(&1), Some(&(MAX_LOSSES as u64))));
    }

    #[test]
    fn the_same_load_gives_the_same_bytes() {
        let load = load(Some((cut(1, 9), vec![segment(FileKind::Readings, 1, 9)])), vec![loss(1)], None);
        assert_eq!(staged(load.clone()).0, staged(load).0);
    }
}
