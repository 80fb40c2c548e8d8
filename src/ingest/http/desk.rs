//! The desk: hands in the readings of a request and waits until they are settled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};

use crate::ingest::{Content, Delivery, Hurry, Intake, Outcome, Receipt};
use crate::model::{Digest, Reading};

/// The readings were not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// The daemon is stopping. Whether the readings were still taken is not known.
    #[error("the daemon is stopping")]
    Stopping,
    /// The pump refused them, with its reason.
    #[error("not taken: {0}")]
    Refused(String),
    /// No readings are taken now, for this reason.
    #[error("no readings are taken: {0}")]
    NoSpace(Arc<str>),
}

/// What a request's key stands for: key and body, so that a key used again for other readings loses none of them.
pub fn request_digest(key: &[u8], body: &[u8]) -> Digest {
    Digest::of(&[key, &Digest::of(body).0].concat())
}

type Verdict = Option<Result<(), DeskError>>;

/// Where requests with readings are handed in. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    intake: Intake,
    /// One entry a request under way; the doors bound how many there are.
    under_way: Arc<Mutex<HashMap<Digest, watch::Receiver<Verdict>>>>,
}

impl Desk {
    /// A desk in front of `intake`.
    pub fn new(intake: Intake) -> Self {
        Self { intake, under_way: Arc::default() }
    }

    /// Hands in `readings` and returns when they are durable.
    ///
    /// # Errors
    /// See [`DeskError`].
    pub async fn hand_in(&self, readings: Vec<Reading>) -> Result<(), DeskError> {
        if readings.is_empty() {
            return Ok(());
        }
        deliver(&self.intake, readings, None).await
    }

    /// The same for a request with an idempotency key: one of several at a time is handed in, and none if `known`
    /// finds the key in the ledger. Goes on to its end if the requester leaves.
    ///
    /// # Errors
    /// See [`DeskError`]; what `known` fails with counts as refused.
    pub async fn hand_in_once<K>(&self, readings: Vec<Reading>, key: Digest, known: K) -> Result<(), DeskError>
    where
        K: Future<Output = Result<bool, String>> + Send + 'static,
    {
        if readings.is_empty() {
            return Ok(());
        }
        let mut verdict = self.enter(key, readings, known);
        let settled = verdict.wait_for(Option::is_some).await.map_err(|_| DeskError::Stopping)?;
        settled.clone().unwrap_or(Err(DeskError::Stopping))
    }

    /// Joins the request under way with this key, or begins it. It leaves the table only when the ledger knows it, so
    /// that no request slips between the two.
    fn enter<K>(&self, key: Digest, readings: Vec<Reading>, known: K) -> watch::Receiver<Verdict>
    where
        K: Future<Output = Result<bool, String>> + Send + 'static,
    {
        let mut table = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verdict) = table.get(&key) {
            return verdict.clone();
        }
        let (settle, verdict) = watch::channel(None);
        table.insert(key, verdict.clone());
        let desk = self.clone();
        tokio::spawn(async move {
            let outcome = match known.await {
                Ok(true) => Ok(()),
                Ok(false) => deliver(&desk.intake, readings, Some(key)).await,
                Err(reason) => Err(DeskError::Refused(reason)),
            };
            desk.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            settle.send_replace(Some(outcome));
        });
        verdict
    }
}

async fn deliver(intake: &Intake, readings: Vec<Reading>, idempotency: Option<Digest>) -> Result<(), DeskError> {
    if let Some(why) = intake.refusal() {
        return Err(DeskError::NoSpace(why));
    }
    let (to, mut settled) = mpsc::unbounded_channel();
    let receipt = Some(Receipt { to, token: 0 });
    // Its sender waits for the answer, so the batch does not wait for more.
    let delivery = Delivery { content: Content::Readings(readings), mark: None, idempotency, receipt, hurry: Hurry::Now };
    tokio::select! {
        biased;
        sent = intake.send(delivery) => sent.map_err(|_| DeskError::Stopping)?,
        // Nothing was handed in yet, and room may take days to come.
        why = intake.refused() => return Err(DeskError::NoSpace(why)),
    }
    match settled.recv().await.map(|settled| settled.outcome) {
        Some(Outcome::Committed) => Ok(()),
        Some(Outcome::Rejected(_)) => Err(DeskError::Refused("it is rejected".to_owned())),
        Some(Outcome::Refused(reason)) => Err(DeskError::Refused(reason)),
        None => Err(DeskError::Stopping),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc::Receiver;

    use super::*;
    use crate::ingest::Admitted;
    use crate::model::{TimeSource, Timestamp};
    use crate::space::Space;

    fn reading() -> Reading {
        Reading {
            time: Timestamp(0),
            sensor: Arc::from("a"),
            metric: Arc::from("t"),
            value: Some(1.0),
            text: None,
            unit: None,
            quality: None,
            arrived: Timestamp(0),
            time_source: TimeSource::Gateway,
        }
    }

    async fn next(pump: &mut Receiver<Admitted>) -> Delivery {
        pump.recv().await.unwrap().delivery
    }

    async fn unknown() -> Result<bool, String> {
        Ok(false)
    }

    #[tokio::test]
    async fn the_outcome_is_told_only_after_the_delivery_is_settled() {
        let (intake, mut pump) = Intake::new();
        let desk = Desk::new(intake);
        let asked = tokio::spawn(async move { desk.hand_in(vec![reading()]).await });
        let delivery = next(&mut pump).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!asked.is_finished());
        assert!(delivery.hurry == Hurry::Now && matches!(&delivery.content, Content::Readings(readings) if readings.len() == 1));
        delivery.receipt.unwrap().settle(Outcome::Committed);
        assert_eq!(asked.await.unwrap(), Ok(()));
    }

    #[tokio::test]
    async fn a_refusal_carries_its_reason_and_a_pump_that_is_gone_says_stopping() {
        let (intake, mut pump) = Intake::new();
        let desk = Desk::new(intake);
        let other = desk.clone();
        let asked = tokio::spawn(async move { other.hand_in(vec![reading()]).await });
        next(&mut pump).await.receipt.unwrap().settle(Outcome::Refused("too many series".to_owned()));
        assert_eq!(asked.await.unwrap(), Err(DeskError::Refused("too many series".to_owned())));
        drop(pump);
        assert_eq!(desk.hand_in(vec![reading()]).await, Err(DeskError::Stopping));
    }

    #[tokio::test]
    async fn without_space_a_request_is_told_at_once_and_nothing_is_handed_in() {
        let space = Space::default();
        let (intake, mut pump) = Intake::within(space.clone(), u64::MAX);
        let desk = Desk::new(intake);
        space.refuse("the cap is reached");
        let refused = Err(DeskError::NoSpace("the cap is reached".into()));
        assert_eq!(desk.hand_in(vec![reading()]).await, refused);
        assert_eq!(desk.hand_in_once(vec![reading()], request_digest(b"k", b"body"), unknown()).await, refused);
        assert!(pump.try_recv().is_err());
    }

    #[tokio::test]
    async fn two_requests_with_one_key_are_handed_in_once_and_both_are_answered() {
        let (intake, mut pump) = Intake::new();
        let desk = Desk::new(intake);
        let key = request_digest(b"k", b"body");
        let ask = || {
            let desk = desk.clone();
            tokio::spawn(async move { desk.hand_in_once(vec![reading()], key, unknown()).await })
        };
        let (first, second) = (ask(), ask());
        let delivery = next(&mut pump).await;
        assert_eq!(delivery.idempotency, Some(key));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(pump.try_recv().is_err(), "the second request was handed in too");
        delivery.receipt.unwrap().settle(Outcome::Committed);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(()), Ok(())));
        assert!(desk.under_way.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_key_that_the_ledger_knows_is_answered_without_a_delivery() {
        let (intake, mut pump) = Intake::new();
        let desk = Desk::new(intake);
        assert_eq!(desk.hand_in_once(vec![reading()], request_digest(b"k", b""), async { Ok(true) }).await, Ok(()));
        assert!(pump.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_requester_that_leaves_does_not_take_the_others_answer_with_it() {
        let (intake, mut pump) = Intake::new();
        let desk = Desk::new(intake);
        let key = request_digest(b"k", b"body");
        let leaves = tokio::time::timeout(Duration::from_millis(20), desk.hand_in_once(vec![reading()], key, unknown())).await;
        assert!(leaves.is_err());
        let other = desk.clone();
        let stays = tokio::spawn(async move { other.hand_in_once(vec![reading()], key, unknown()).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        next(&mut pump).await.receipt.unwrap().settle(Outcome::Committed);
        assert_eq!(stays.await.unwrap(), Ok(()));
        assert!(pump.try_recv().is_err());
    }

    #[test]
    fn a_key_used_again_for_another_body_is_another_request() {
        assert_eq!(request_digest(b"k", b"a"), request_digest(b"k", b"a"));
        assert_ne!(request_digest(b"k", b"a"), request_digest(b"k", b"b"));
        assert_ne!(request_digest(b"k", b"a"), request_digest(b"l", b"a"));
    }
}
