//! One shipment, from the choice to the record that it is delivered.
//!
//! Owns: the order of the steps. Does not own: when to try (the uploader's modes).
//! Invariants: what is sent was checked against its digest before the manifest was recorded and again while it was sent;
//! the manifest is put when all files are stored; an outcome is recorded only when it is known.
//! On failure: an error, and the shipment stays open in the ledger. Some ends are not errors. A file that is damaged
//! after the manifest was recorded can't be delivered as promised: once it is sure that neither it nor the manifest is
//! upstream, the shipment is abandoned and the damage becomes a loss. A name taken by other bytes can never be
//! delivered: unless an earlier ledger of ours took it (`reconcile`), the shipment is set aside with its instance, and a
//! new instance begins if it was the current one. What becomes of a shipment that upstream refuses is in `refusal`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::UploadError;
use super::link::SetAside;
use super::patience::{ANSWER_TIME, Parcel, PutEnd, within};
use super::refusal::Doubt;
use super::staging::{Load, stage};
use super::uploader::Inner;
use super::upstream::{Body, UpstreamError};
use crate::config::Order;
use crate::ledger::{LedgerError, Reader, Retry};
use crate::model::{Cut, Digest, InstanceId, Manifest, ManifestFile, SegmentName, Shipment, Timestamp};
use crate::segment::{condemn, digest_file};

/// What one step of shipping did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shipped {
    /// A shipment is delivered.
    Delivered,
    /// Upstream refuses this shipment, for this reason; others may go.
    Refused(String),
    /// A shipment came to another end, or there is something else to ship now.
    Over,
    /// There is nothing to ship.
    Nothing,
}

/// What the ledger has to ship.
enum Found {
    /// A shipment is under way.
    Open(Shipment),
    /// This comes next.
    Next(Load),
    /// Nothing but what was refused, and is to be tried again.
    RefusedLongAgo,
    /// Nothing.
    Nothing,
}

impl Inner {
    /// Takes up the open shipment or begins the next one, and sees it through.
    pub(super) async fn ship_next(self: &Arc<Self>, doubt: &mut Doubt) -> Result<Shipped, UploadError> {
        let (newest_first, now) = (self.settings.order == Order::NewestFirst, self.clock.now());
        let (shipment, resumed) = match self.read(move |reader| find(reader, newest_first, now)).await? {
            Found::Open(shipment) => (shipment, true),
            Found::Nothing => {
                self.straggler.forget();
                return Ok(Shipped::Nothing);
            }
            Found::RefusedLongAgo => {
                self.ledger.retry_refused(Retry::Due).await?;
                return Ok(Shipped::Over);
            }
            Found::Next(load) => match self.begin(load).await? {
                Some(shipment) => {
                    *doubt = Doubt::none();
                    (shipment, false)
                }
                // Damage was found; the next look sees the loss.
                None => return Ok(Shipped::Over),
            },
        };
        match self.ship(&shipment, resumed, doubt).await {
            Err(UploadError::Upstream(UpstreamError::Conflict { key, found })) => {
                if !self.recognise(&shipment, &key, found).await? {
                    self.set_aside(&shipment, &key, found).await?;
                }
                Ok(Shipped::Over)
            }
            other => other,
        }
    }

    /// Checks the files, then records the shipment. `None`: a file was damaged, and that is recorded instead.
    async fn begin(&self, load: Load) -> Result<Option<Shipment>, UploadError> {
        let segments = || load.cut.iter().flat_map(|(_, segments)| segments);
        // Retention may drop the cut meanwhile; that is no damage.
        let _pin = self.dir.pin(&segments().map(|segment| segment.name.clone()).collect::<Vec<_>>());
        for segment in segments() {
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

    /// Sends it. `resumed`: an attempt before may have got as far as the manifest.
    async fn ship(&self, shipment: &Shipment, resumed: bool, doubt: &mut Doubt) -> Result<Shipped, UploadError> {
        let manifest: Manifest =
            serde_json::from_slice(&shipment.manifest).map_err(|error| UploadError::Shipment(shipment.number, error.to_string()))?;
        let key = Manifest::key(&manifest.gateway, &manifest.instance, manifest.shipment);
        if resumed {
            // Asked first: a crash may have come between the manifest and its record. Nobody else puts it, so that without it
            // here it is surely not there until the end of this attempt.
            match self.find(&key).await? {
                None => doubt.settle(),
                Some(found) if found == Digest::of(&shipment.manifest) => return self.finish(shipment, &manifest, None).await,
                Some(found) => return Err(UpstreamError::Conflict { key, found }.into()),
            }
        }
        let (begun, before) = (Instant::now(), self.upstream.sent_bytes());
        let segments = self.local_names(&manifest).await?;
        let _pin = self.dir.pin(&segments);
        // Where it could give way to the newest readings.
        let may_leave = self.settings.order == Order::NewestFirst && doubt.is_none();
        for (file, name) in manifest.files.iter().zip(&segments) {
            let body = Body::file(self.dir.path(name), file.bytes, file.sha256);
            match self.put(&Parcel { key: &file.key, body, segment: Some(name) }, may_leave).await {
                Ok(PutEnd::Left) => return Ok(Shipped::Over),
                Err(UpstreamError::Source { detail, .. }) => {
                    if !self.settle_damage(shipment, file, name, detail).await? {
                        return Ok(Shipped::Over);
                    }
                }
                Err(UpstreamError::Permanent(reason)) => return self.refused(shipment, doubt, reason).await,
                Err(error) => return Err(error.into()),
                Ok(PutEnd::Done) => {}
            }
            fail::fail_point!("upload.after_part");
        }
        doubt.begin();
        let outcome = self.put(&Parcel { key: &key, body: Body::memory(shipment.manifest.clone()), segment: None }, false).await;
        match &outcome {
            Ok(_) => {}
            Err(UpstreamError::Ambiguous(_)) => doubt.no_answer(),
            Err(_) => doubt.surely_not_done(),
        }
        if let Err(UpstreamError::Permanent(reason)) = outcome {
            return self.refused(shipment, doubt, reason).await;
        }
        outcome?;
        fail::fail_point!("upload.after_manifest");
        // The pauses of the rate limit are left in: they are part of how fast the backlog drains.
        let sent = self.upstream.sent_bytes().saturating_sub(before);
        self.finish(shipment, &manifest, Some((sent, begun.elapsed()))).await
    }

    /// It is all upstream; `sent`: how much was sent now, and the time that took.
    pub(super) async fn finish(
        &self,
        shipment: &Shipment,
        manifest: &Manifest,
        sent: Option<(u64, Duration)>,
    ) -> Result<Shipped, UploadError> {
        self.ledger.finish_shipment(shipment.instance.clone(), shipment.number).await?;
        fail::fail_point!("upload.after_finish");
        let bytes = shipment.manifest.len() as u64 + manifest.files.iter().map(|file| file.bytes).sum::<u64>();
        self.link.delivered(manifest.readings, bytes, sent, self.clock.now());
        tracing::info!(
            instance = %manifest.instance,
            shipment = manifest.shipment,
            cut = manifest.cut,
            readings = manifest.readings,
            records = manifest.records,
            losses = manifest.losses.len(),
            bytes,
            taken_ms = sent.map(|(_, taken)| u64::try_from(taken.as_millis()).unwrap_or(u64::MAX)),
            "delivered a shipment"
        );
        Ok(Shipped::Delivered)
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
        self.give_up(shipment).await?;
        condemn(&self.ledger, &self.dir, &self.sealer_state, name.clone(), damage).await?;
        Ok(false)
    }

    pub(super) async fn find(&self, key: &str) -> Result<Option<Digest>, UploadError> {
        Ok(within(ANSWER_TIME, self.upstream.find(key)).await?)
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

    /// The local names of a shipment's files, in the manifest's order.
    async fn local_names(&self, manifest: &Manifest) -> Result<Vec<SegmentName>, UploadError> {
        let (instance, cut) = (manifest.instance.clone(), manifest.cut);
        let here = self.read(move |reader| cut.map_or(Ok(Vec::new()), |cut| reader.cut_segments(&instance, cut))).await?;
        let mut names: HashMap<_, _> = here.into_iter().map(|segment| (segment.name.lake_key(&manifest.gateway), segment.name)).collect();
        let unknown = |file: &ManifestFile| UploadError::Shipment(manifest.shipment, format!("\"{}\" is no file of its cut", file.key));
        manifest.files.iter().map(|file| names.remove(&file.key).ok_or_else(|| unknown(file))).collect()
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

/// What the ledger has to ship: the open shipment, else the next cut with its instance's losses, else losses alone, else
/// what was refused and is due again.
fn find(reader: &mut Reader, newest_first: bool, now: Timestamp) -> Result<Found, LedgerError> {
    reader.snapshot(|reader| {
        if let Some(shipment) = reader.open_shipment()? {
            return Ok(Found::Open(shipment));
        }
        let (instance, cut) = match reader.next_cut(newest_first)? {
            Some(cut) => (cut.instance.clone(), Some(cut)),
            None => match reader.next_losses()? {
                Some(instance) => (instance, None),
                None if reader.has_refused_due(now)? => return Ok(Found::RefusedLongAgo),
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
