//! A shipment that upstream refuses, or that has to make way for another. Where it is us whom it refuses
//! ([`UpstreamError::Denied`]), no shipment is blamed: everything waits until a person has looked.
//!
//! What is refused must block nothing else, and manifests follow each other: so the shipment is given up before anything
//! counts upstream, its number goes to the next one, and its cut is passed over for a day. That is right only while its
//! manifest is surely not upstream, nor on its way there: [`Doubt`] knows. Files of it that were stored are not counted
//! without a manifest, and are found there when their turn comes again.

use std::time::Duration;

use tokio::time::Instant;

use super::UploadError;
use super::shipping::Shipped;
use super::uploader::Inner;
use super::upstream::UpstreamError;
use crate::config::Order;
use crate::ledger::Reader;
use crate::model::{Shipment, Timestamp};

/// Until what was refused is tried again by itself.
const REFUSED_FOR: Duration = Duration::from_secs(86_400);

/// How long a put that got no answer may still be under way, in a proxy for example: after it, asking settles the matter.
const SETTLED_AFTER: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(120) };

/// Whether the manifest of the shipment under way may be upstream, or on its way there, without our knowing.
#[derive(Debug)]
pub(super) struct Doubt {
    /// Since its last put that got no answer.
    since: Option<Instant>,
    /// The same before the put under way.
    before: Option<Instant>,
}

impl Doubt {
    /// It was never put.
    pub(super) fn none() -> Self {
        Self { since: None, before: None }
    }

    /// It may have been put until this moment, by who was killed.
    pub(super) fn of_a_former_life() -> Self {
        Self { since: Some(Instant::now()), before: None }
    }

    /// It is being put.
    pub(super) fn begin(&mut self) {
        self.before = self.since.replace(Instant::now());
    }

    /// The put had no effect.
    pub(super) fn surely_not_done(&mut self) {
        self.since = self.before;
    }

    /// The put got no answer, and until now it may have had an effect.
    pub(super) fn no_answer(&mut self) {
        self.since = Some(Instant::now());
    }

    /// It is not upstream now: then it will not come any more either, if its last put is long ago.
    pub(super) fn settle(&mut self) {
        self.since = self.since.filter(|since| since.elapsed() < SETTLED_AFTER);
    }

    pub(super) fn is_none(&self) -> bool {
        self.since.is_none()
    }
}

impl Inner {
    /// Upstream refuses a file or the manifest of the shipment under way.
    ///
    /// # Errors
    /// It refuses everything, or what it has is not known yet: the shipment stays under way.
    pub(super) async fn refused(&self, shipment: &Shipment, doubt: &Doubt, reason: String) -> Result<Shipped, UploadError> {
        let refusal = || UploadError::from(UpstreamError::Permanent(reason.clone()));
        if !doubt.is_none() {
            return Err(refusal());
        }
        // If it refuses us, it is not for this shipment.
        self.probe().await?;
        let Some(cut) = shipment.cut else {
            // The losses stay untold; a cut that comes meanwhile goes first, and tells of them.
            self.give_up(shipment).await?;
            return Err(refusal());
        };
        tracing::error!(instance = %shipment.instance, cut, reason, "upstream refuses a cut; it is tried again in a day, or by a flush");
        let again = Timestamp(self.clock.now().0.saturating_add(i64::try_from(REFUSED_FOR.as_micros()).unwrap_or(i64::MAX)));
        self.ledger.refuse_shipment(shipment.instance.clone(), shipment.number, reason.clone(), again).await?;
        fail::fail_point!("upload.after_refuse");
        Ok(Shipped::Refused(reason))
    }

    /// The link is back: the shipment under way, which the outage cut short, gives way to a newer cut where the newest goes
    /// first and nothing of its manifest is on the way.
    pub(super) async fn make_way(&self, doubt: &Doubt) -> Result<(), UploadError> {
        if self.settings.order != Order::NewestFirst || !doubt.is_none() {
            return Ok(());
        }
        let look = |reader: &Reader| Ok((reader.open_shipment()?, reader.next_cut(true)?));
        let (Some(shipment), Some(newest)) = self.read(move |reader| reader.snapshot(look)).await? else { return Ok(()) };
        if (&shipment.instance, shipment.cut) == (&newest.instance, Some(newest.number)) {
            return Ok(());
        }
        tracing::info!(shipment = shipment.number, cut = newest.number, "the shipment under way makes way for the newest readings");
        self.give_up(&shipment).await
    }

    /// Gives the shipment under way up; its manifest is surely not upstream.
    pub(super) async fn give_up(&self, shipment: &Shipment) -> Result<(), UploadError> {
        self.ledger.abandon_shipment(shipment.instance.clone(), shipment.number).await?;
        fail::fail_point!("upload.after_give_up");
        Ok(())
    }
}
