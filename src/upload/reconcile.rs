//! After a ledger was lost and rebuilt from its segments: what stands upstream under our old names was put there by us.
//!
//! The rebuilt ledger knows the old instance's cuts, and none of its shipments; so it begins with shipment 1, whose name is
//! taken. The manifest in the way is read. Where it is the next of the old chain and says of our files what we say of them,
//! it is recorded as delivered, and the shipment after it is next. Cuts that only it knows were evicted before the ledger
//! was lost. Anything else in the way is a stranger's, as is anything in the way of the current instance, for which nobody
//! but this ledger ships.

use std::collections::HashMap;

use super::UploadError;
use super::shipping::{ANSWER_TIME, within};
use super::uploader::Inner;
use super::upstream::UpstreamError;
use crate::ledger::Recognised;
use crate::model::{Digest, MANIFEST_VERSION, Manifest, Shipment};

/// More than a manifest has, whose losses are counted.
const MAX_MANIFEST_BYTES: u64 = 16 << 20;

impl Inner {
    /// Whether `found`, which is under `key` in the way of `shipment`, is the manifest of a shipment that was delivered from
    /// here; then it is recorded instead.
    pub(super) async fn recognise(&self, shipment: &Shipment, key: &str, found: Digest) -> Result<bool, UploadError> {
        let Shipment { instance, number, .. } = shipment;
        if self.ledger.identity().instance == *instance || key != Manifest::key(&self.gateway, instance, *number) {
            return Ok(false);
        }
        let bytes = match within(ANSWER_TIME, self.upstream.get(key, MAX_MANIFEST_BYTES)).await {
            Ok(Some(bytes)) if Digest::of(&bytes) == found => bytes,
            Ok(_) => return Err(UpstreamError::Transient(format!("\"{key}\" is another one at every look")).into()),
            Err(UploadError::Upstream(UpstreamError::Permanent(_))) => return Ok(false),
            Err(error) => return Err(error),
        };
        let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) else { return Ok(false) };
        if !self.is_ours(shipment, &manifest).await? {
            return Ok(false);
        }
        let cut = manifest.cut;
        tracing::info!(%instance, shipment = number, cut, "a shipment that was delivered before the ledger was lost is recorded");
        let recognised = Recognised { instance: instance.clone(), number: *number, cut, sha256: found };
        self.ledger.recognise_shipment(recognised).await?;
        fail::fail_point!("upload.after_recognise");
        Ok(true)
    }

    /// Whether `manifest` follows the last delivered one, and names every file of its cut that is here by the same digest.
    async fn is_ours(&self, shipment: &Shipment, manifest: &Manifest) -> Result<bool, UploadError> {
        let (instance, number) = (shipment.instance.clone(), shipment.number);
        if (manifest.forebay_manifest, &manifest.gateway, &manifest.instance, manifest.shipment)
            != (MANIFEST_VERSION, &self.gateway, &instance, number)
        {
            return Ok(false);
        }
        let cut = manifest.cut;
        let look = self.read(move |reader| {
            let files = cut.map(|cut| reader.cut_segments(&instance, cut)).transpose()?;
            Ok((reader.last_shipment(&instance)?, files.unwrap_or_default()))
        });
        let (last, ours) = look.await?;
        let theirs: HashMap<_, _> = manifest.files.iter().map(|file| (file.key.as_str(), file.sha256)).collect();
        let is_theirs = |name: String, sha256| theirs.get(name.as_str()) == Some(&sha256);
        let follows = manifest.previous == last.map(|(_, digest)| digest);
        Ok(follows && ours.iter().all(|segment| is_theirs(segment.name.lake_key(&self.gateway), segment.sha256)))
    }
}
