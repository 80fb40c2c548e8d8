//! Keys of the lake, read back: what a name below the root says.

use crate::model::{InstanceId, Manifest, SegmentName, ShipmentNumber};

/// What an object of the lake is, by its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LakeKey {
    /// A file of a cut.
    File {
        /// Whose.
        gateway: String,
        /// Which.
        name: SegmentName,
    },
    /// A manifest.
    Manifest {
        /// Whose.
        gateway: String,
        /// Of which life.
        instance: InstanceId,
        /// Its number.
        shipment: ShipmentNumber,
    },
}

impl LakeKey {
    /// Reads `key`; `None` if no gateway would have made it.
    pub fn parse(key: &str) -> Option<Self> {
        let (folder, rest) = key.split_once("/gateway=")?;
        let (gateway, rest) = rest.split_once('/')?;
        let parsed = if folder == "manifests" {
            let (instance, shipment) = rest.strip_suffix(".json")?.split_once('-')?;
            Self::Manifest { gateway: gateway.to_owned(), instance: instance.parse().ok()?, shipment: shipment.parse().ok()? }
        } else {
            Self::File { gateway: gateway.to_owned(), name: format!("{folder}/{rest}").parse().ok()? }
        };
        (parsed.to_string() == key).then_some(parsed)
    }
}

impl std::fmt::Display for LakeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { gateway, name } => f.write_str(&name.lake_key(gateway)),
            Self::Manifest { gateway, instance, shipment } => f.write_str(&Manifest::key(gateway, instance, *shipment)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back_as_it_was_written() {
        for key in [
            "readings/gateway=gw-1/date=2026-11-20/0123456789abcdef-0000000007.parquet",
            "records/gateway=gw.1_x/date=mixed/0123456789abcdef-0000000007.parquet",
            "manifests/gateway=gw-1/0123456789abcdef-0000000001.json",
        ] {
            assert_eq!(LakeKey::parse(key).map(|key| key.to_string()).as_deref(), Some(key));
        }
    }

    #[test]
    fn foreign_names_are_not_keys() {
        for key in [
            "",
            ".forebay-lake",
            "readings/gateway=gw-1/x.parquet",
            "readings/gateway=gw-1/date=2026-11-20/0123456789abcdef-7.parquet",
            "readings/gateway=gw-1/date=2026-11-20/0123456789abcdef-0000000003-0000000007.parquet",
            "readings/gateway=gw-1/date=2026-11-20/.0123456789abcdef-0000000007.parquet.part",
            "manifests/gateway=gw-1/0123456789abcdef-0000000001.json.bak",
            "notes/gateway=gw-1/date=2026-11-20/0123456789abcdef-0000000007.parquet",
        ] {
            assert_eq!(LakeKey::parse(key), None, "{key}");
        }
    }
}
