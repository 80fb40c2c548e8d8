//! One shipment, from the choice to the record that it is delivered.
//!
//! Owns: the order of the steps. Does not own: when to try (the uploader's modes).
//! Invariants: what is sent was checked against its digest before the manifest was recorded and again while it was sent;
//! the manifest is put when all files are stored; an outcome is recorded only when it is known.
//! On failure: an error, and the shipment stays open in the ledger. Two ends are not errors. A file that is damaged
//! after the manifest was recorded can't be delivered as promised: once it is sure that neither it nor the manifest is
//! upstream, the shipment is abandoned and the damage becomes a loss. A name taken by other bytes can never be
//! delivered: unless an earlier ledger of ours took it (`reconcile`), the shipment is set aside with its instance, and a
//! new instance begins if it was the current one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::UploadError;
use super::key::LakeKey;
use super::link::SetAside;
use super::staging::{Load, stage};
use super::uploader::Inner;
use super::upstream::{Body, Put, UpstreamError};
use crate::config::Order;
use crate::ledger::{LedgerError, Reader};
use crate::model::{Cut, Digest, InstanceId, Manifest, ManifestFile, SegmentName, Shipment};
use crate::segment::{condemn, digest_file};

/// What one step of shipping did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shipped {
    /// A shipment came to its end, one way or another.
    One,
    /// There is nothing to ship.
    Nothing,
}

/// What the ledger has to ship.
enum Found {
    /// A shipment is under way.
    Open(Shipment),
    /// This comes next.
    Next(Load),
    /// Nothing.
    Nothing,
}

/// Longest wait for an answer to anything small, and for the first byte of anything large.
pub(super) const ANSWER_TIME: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(60) };

/// The slowest link that still counts as one: bytes a second below which a put is given up.
const SLOWEST_BYTES_PER_S: u64 = 2048;

impl Inner {
    /// Takes up the open shipment or begins the next one, and sees it through.
    pub(super) async fn ship_next(self: &Arc<Self>) -> Result<Shipped, UploadError> {
        let newest_first = self.settings.order == Order::NewestFirst;
        let shipment = match self.read(move |reader| find(reader, newest_first)).await? {
            Found::Open(shipment) => shipment,
            Found::Nothing => return Ok(Shipped::Nothing),
            Found::Next(load) => match self.begin(load).await? {
                Some(shipment) => shipment,
                // Damage was found; the next look sees the loss.
                None => return Ok(Shipped::One),
            },
        };
        match self.ship(&shipment).await {
            Err(UploadError::Upstream(UpstreamError::Conflict { key, found })) => {
                if !self.recognise(&shipment, &key, found).await? {
                    self.set_aside(&shipment, &key, found).await?;
                }
            }
            other => other?,
        }
        Ok(Shipped::One)
    }

    /// Checks the files, then records the shipment. `None`: a file was damaged, and that is recorded instead.
    async fn begin(&self, load: Load) -> Result<Option<Shipment>, UploadError> {
        for segment in load.cut.iter().flat_map(|(_, segments)| segments) {
            if let Some(detail) = self.check_local(segment.name.clone(), segment.sha256).await? {
                condemn(&self.ledger, &self.dir, &self.sealer_state, segment.name.clone(), detail).await?;
                return Ok(None);
            }
        }
        let shipment = stage(load, &self.gateway, self.clock.now()).map_err(|error| UploadError::Shipment(0, error.to_string()))?;
        self.ledger.begin_shipment(shipment.clone()).await?;
        fail::fail_point!("upload.after_begin");
        Ok(Some(shipment))
    }

    async fn ship(&self, shipment: &Shipment) -> Result<(), UploadError> {
        let manifest: Manifest =
            serde_json::from_slice(&shipment.manifest).map_err(|error| UploadError::Shipment(shipment.number, error.to_string()))?;
        let key = Manifest::key(&manifest.gateway, &manifest.instance, manifest.shipment);
        // Asked first: a crash may have come between the manifest and its record, or a twin of this gateway was here.
        // Nobody else puts it, so that without it here it is surely not there until the end of this attempt.
        match self.find(&key).await? {
            None => {}
            Some(found) if found == Digest::of(&shipment.manifest) => {
                return self.finish(shipment, &manifest, None).await;
            }
            Some(found) => return Err(UpstreamError::Conflict { key, found }.into()),
        }
        let begun = Instant::now();
        let segments = local_names(&manifest)?;
        let _pin = self.dir.pin(&segments);
        for (file, name) in manifest.files.iter().zip(&segments) {
            let body = Body::file(self.dir.path(name), file.bytes, file.sha256);
            match self.put(&file.key, body).await {
                Err(UploadError::Upstream(UpstreamError::Source { detail, .. })) => {
                    if !self.settle_damage(shipment, file, name, detail).await? {
                        return Ok(());
                    }
                }
                other => other.map(|_| ())?,
            }
            fail::fail_point!("upload.after_part");
        }
        self.put(&key, Body::memory(shipment.manifest.clone())).await?;
        fail::fail_point!("upload.after_manifest");
        // The pauses of the rate limit are left in: they are part of how fast the backlog drains.
        self.finish(shipment, &manifest, Some(begun.elapsed())).await
    }

    /// It is all upstream; `taken` where it was sent in one go.
    async fn finish(&self, shipment: &Shipment, manifest: &Manifest, taken: Option<Duration>) -> Result<(), UploadError> {
        self.ledger.finish_shipment(shipment.instance.clone(), shipment.number).await?;
        fail::fail_point!("upload.after_finish");
        let bytes = shipment.manifest.len() as u64 + manifest.files.iter().map(|file| file.bytes).sum::<u64>();
        self.link.delivered(manifest.readings, bytes, taken, self.clock.now());
        tracing::info!(
            instance = %manifest.instance,
            shipment = manifest.shipment,
            cut = manifest.cut,
            readings = manifest.readings,
            records = manifest.records,
            losses = manifest.losses.len(),
            bytes,
            taken_ms = taken.map(|taken| u64::try_from(taken.as_millis()).unwrap_or(u64::MAX)),
            "delivered a shipment"
        );
        Ok(())
    }

    /// Puts `body`, with a deadline by its size.
    async fn put(&self, key: &str, body: Body) -> Result<Put, UploadError> {
        let slowest = match self.settings.rate_limit.0 {
            0 => SLOWEST_BYTES_PER_S,
            limit => SLOWEST_BYTES_PER_S.min(limit / 2).max(1),
        };
        let deadline = ANSWER_TIME + Duration::from_secs(body.bytes / slowest);
        let put = within(deadline, self.upstream.put_new(key, body)).await?;
        tracing::debug!(key, ?put, "put");
        Ok(put)
    }

    /// A file of the shipment could not be sent, and the manifest is not upstream. True: the file is there all the same.
    /// False: it is damaged, and the shipment is over.
    async fn settle_damage(
        &self,
        shipment: &Shipment,
        file: &ManifestFile,
        name: &SegmentName,
        detail: String,
    ) -> Result<bool, UploadError> {
        let Some(damage) = self.check_local(name.clone(), file.sha256).await? else {
            return Err(UpstreamError::Transient(format!("{name} could not be read, and now it can: {detail}")).into());
        };
        if self.find(&file.key).await? == Some(file.sha256) {
            return Ok(true);
        }
        tracing::warn!(shipment = shipment.number, segment = %name, "a shipment is abandoned because a file of it is damaged");
        self.ledger.abandon_shipment(shipment.instance.clone(), shipment.number).await?;
        condemn(&self.ledger, &self.dir, &self.sealer_state, name.clone(), damage).await?;
        Ok(false)
    }

    async fn find(&self, key: &str) -> Result<Option<Digest>, UploadError> {
        within(ANSWER_TIME, self.upstream.find(key)).await
    }

    /// What is wrong with a local file, if its contents are to blame.
    async fn check_local(&self, name: SegmentName, sha256: Digest) -> Result<Option<String>, UploadError> {
        let (pin, path) = (self.dir.pin(std::slice::from_ref(&name)), self.dir.path(&name));
        let digest = self.block(move || {
            let _pin = pin;
            digest_file(&path)
        });
        match digest.await? {
            Ok((found, _)) if found == sha256 => Ok(None),
            Ok((found, _)) => Ok(Some(format!("its SHA-256 is {found}, not {sha256}"))),
            Err(error) if error.lies_with_the_file() => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// The name of `shipment` is taken upstream: the ledger is behind the world, or has a twin.
    async fn set_aside(&self, shipment: &Shipment, key: &str, found: Digest) -> Result<(), UploadError> {
        let Shipment { instance, number, .. } = shipment;
        let reason = format!("upstream has another \"{key}\" (SHA-256 {found})");
        tracing::error!(%instance, shipment = number, reason, "a shipment can't be delivered and is set aside with its instance");
        // First the fork: what is set aside must not be the current instance, or a crash in between would leave it so.
        if self.ledger.identity().instance == *instance {
            self.ledger.fork(reason.clone()).await?;
        }
        self.ledger.set_aside_shipment(instance.clone(), *number, reason).await?;
        self.show_set_aside().await
    }

    /// Shows in the link's state what the ledger has set aside.
    pub(super) async fn show_set_aside(&self) -> Result<(), UploadError> {
        let all = self.read(|reader| reader.set_aside()).await?;
        self.link.set_aside(all.into_iter().map(|(instance, reason)| SetAside { instance, reason }).collect());
        Ok(())
    }
}

/// The local names of a shipment's files, in the manifest's order.
fn local_names(manifest: &Manifest) -> Result<Vec<SegmentName>, UploadError> {
    let name = |file: &ManifestFile| match LakeKey::parse(&file.key) {
        Some(LakeKey::File { name, .. }) => Ok(name),
        _ => Err(UploadError::Shipment(manifest.shipment, format!("\"{}\" is no name of a segment", file.key))),
    };
    manifest.files.iter().map(name).collect()
}

/// Waits for an answer; silence leaves open whether it was done.
pub(super) async fn within<T>(deadline: Duration, answer: impl Future<Output = Result<T, UpstreamError>>) -> Result<T, UploadError> {
    let silence = |_| UpstreamError::Ambiguous(format!("none within {deadline:?}"));
    Ok(tokio::time::timeout(deadline, answer).await.map_err(silence)??)
}

/// What the ledger has to ship: the open shipment, else the next cut with its instance's losses, else losses alone.
fn find(reader: &mut Reader, newest_first: bool) -> Result<Found, LedgerError> {
    reader.snapshot(|reader| {
        if let Some(shipment) = reader.open_shipment()? {
            return Ok(Found::Open(shipment));
        }
        let (instance, cut) = match reader.next_cut(newest_first)? {
            Some(cut) => (cut.instance.clone(), Some(cut)),
            None => match reader.next_losses()? {
                Some(instance) => (instance, None),
                None => return Ok(Found::Nothing),
            },
        };
        Ok(Found::Next(load(reader, instance, cut)?))
    })
}

fn load(reader: &Reader, instance: InstanceId, cut: Option<Cut>) -> Result<Load, LedgerError> {
    let files = |cut: Cut| Ok::<_, LedgerError>((reader.cut_segments(&cut.instance, cut.number)?, cut));
    let cut = cut.map(files).transpose()?.map(|(segments, cut)| (cut, segments));
    let (losses, last) = (reader.untold_losses(&instance)?, reader.last_shipment(&instance)?);
    Ok(Load { forked_from: reader.parent(&instance)?, instance, cut, losses, last })
}
