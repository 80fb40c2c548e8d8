//! The batcher: gathers deliveries until a batch is due. No I/O, no clock of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decode::{Decoded, Decoder};
use super::delivery::{Admitted, Content, Delivery, Message, Outcome, Receipt, Rejection, Share};
use super::latest::Latest;
use super::once::Once;
use crate::config;
use crate::model::{Batch, Reading, TimeSource};

/// Records in one batch: each is a row of its own, so a flood of them must not make one transaction endless.
const MAX_RECORDS: usize = 2_000;

/// Messages in one batch: their marks and receipts are held until the commit.
const MAX_MESSAGES: usize = 50_000;

/// A batch that gathers, with those who wait for it.
#[derive(Debug, Default)]
pub struct Gathered {
    /// What will be committed.
    pub batch: Batch,
    receipts: Vec<(Receipt, Outcome)>,
    /// What its deliveries hold, given back at the end.
    shares: Vec<Share>,
    messages: usize,
    since: Option<Instant>,
    /// When it is due at the latest, whatever the interval.
    at_latest: Option<Instant>,
}

impl Gathered {
    /// Whether nothing is in it: no readings, no one who waits.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.receipts.is_empty()
    }

    /// Whether it must be committed before it takes more.
    pub fn is_full(&self, settings: &config::Journal) -> bool {
        self.batch.readings.len() >= settings.commit_readings || self.batch.records.len() >= MAX_RECORDS || self.messages >= MAX_MESSAGES
    }

    /// How long until it is due; `None` while it is empty.
    pub fn due_in(&self, settings: &config::Journal, now: Instant) -> Option<Duration> {
        let since = self.since.filter(|_| !self.is_empty())?;
        if self.is_full(settings) {
            return Some(Duration::ZERO);
        }
        let left = settings.commit_interval.0.saturating_sub(now.duration_since(since));
        Some(self.at_latest.map_or(left, |at| left.min(at.saturating_duration_since(now))))
    }

    /// How many deliveries are in it.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Tells everyone who waits, and gives back the waiting room.
    pub fn settle(self) {
        for (receipt, outcome) in self.receipts {
            receipt.settle(outcome);
        }
    }
}

/// A message that can't be decoded, for the quarantine.
#[derive(Debug)]
pub struct Rejected<'a> {
    /// The message.
    pub topic: &'a str,
    /// What was in it.
    pub payload: &'a [u8],
    /// Why.
    pub reason: String,
}

/// Turns deliveries into batches.
pub struct Batcher {
    decoder: Arc<Decoder>,
    latest: Arc<Latest>,
    once: Once,
}

impl Batcher {
    /// A batcher that decodes with `decoder` and knows the series of `latest`.
    pub fn new(decoder: Arc<Decoder>, latest: Arc<Latest>, once: Once) -> Self {
        Self { decoder, latest, once }
    }

    /// Decodes with `decoder` from the next delivery on.
    pub fn decode_by(&mut self, decoder: Arc<Decoder>) {
        self.decoder = decoder;
    }

    /// Adds one delivery to `gathered`; what is rejected goes to `reject` too. Returns readings refused as too many series.
    pub fn add(
        &mut self,
        gathered: &mut Gathered,
        admitted: Admitted,
        arrival: TimeSource,
        now: Instant,
        mut reject: impl FnMut(Rejected<'_>),
    ) -> u64 {
        let Admitted { delivery, share } = admitted;
        let Delivery { content, mark, idempotency, receipt, hurry } = delivery;
        gathered.shares.push(share);
        gathered.since.get_or_insert(now);
        let hurried = hurry.patience().map(|patience| now + patience);
        gathered.at_latest = gathered.at_latest.into_iter().chain(hurried).min();
        gathered.messages += 1;
        let mut outcome = Outcome::Committed;
        let refused = match content {
            Content::Message(message) => {
                let (refused, rejection) = self.add_message(gathered, &message, arrival, &mut reject);
                outcome = rejection.map_or(outcome, Outcome::Rejected);
                refused
            }
            Content::Mark => 0,
            Content::Duplicate { qos } => {
                count_message(gathered, qos);
                gathered.batch.tally.duplicates += 1;
                0
            }
            Content::Readings(readings) => {
                gathered.batch.tally.messages_http += 1;
                let (before, arrived) = (gathered.batch.readings.len(), readings.first().map(|reading| reading.arrived));
                let (refused, why) = self.add_readings(gathered, readings);
                match why {
                    None => gathered.batch.idempotency.extend(idempotency.zip(arrived)),
                    // All or nothing: whoever sent them is told, and nothing of it is kept.
                    Some(why) => {
                        gathered.batch.tally.readings -= (gathered.batch.readings.len() - before) as u64;
                        gathered.batch.tally.rejected += 1;
                        gathered.batch.readings.truncate(before);
                        outcome = Outcome::Refused(why);
                    }
                }
                refused
            }
            Content::Refused { topic, sample, qos, reason } => {
                count_message(gathered, qos);
                gathered.batch.tally.rejected += 1;
                reject(Rejected { topic: &topic, payload: &sample, reason });
                outcome = Outcome::Rejected(Rejection::BeyondLimits);
                0
            }
        };
        let rejected = matches!(outcome, Outcome::Rejected(_));
        gathered.batch.marks.extend(mark.map(|mark| if rejected { mark.of_rejected() } else { mark }));
        gathered.receipts.extend(receipt.map(|receipt| (receipt, outcome)));
        refused
    }

    /// Returns readings refused as too many series, and whether the message as a whole is rejected.
    fn add_message(
        &mut self,
        gathered: &mut Gathered,
        message: &Message,
        arrival: TimeSource,
        reject: &mut impl FnMut(Rejected<'_>),
    ) -> (u64, Option<Rejection>) {
        count_message(gathered, message.qos);
        let decoded: Decoded = self.decoder.decode(message, arrival);
        let tally = &mut gathered.batch.tally;
        tally.skipped_members += decoded.skipped_members;
        tally.times_replaced += decoded.times_replaced;
        tally.ignored += u64::from(decoded.ignored);
        let mut refuse = |gathered: &mut Gathered, reason: String| {
            gathered.batch.tally.rejected += 1;
            reject(Rejected { topic: &message.topic, payload: &message.payload, reason });
        };
        if let Some(reason) = decoded.rejected {
            refuse(gathered, reason);
            return (0, Some(Rejection::Unreadable));
        }
        tally.records += decoded.records.len() as u64;
        gathered.batch.records.extend(decoded.records);
        let mut readings = decoded.readings;
        let decoded_count = readings.len();
        if decoded.once {
            readings.retain(|reading| self.once.is_new(reading));
            gathered.batch.tally.duplicates += u64::from(readings.len() < decoded_count);
        }
        let wanted = readings.len() as u64;
        let (refused, why) = self.add_readings(gathered, readings);
        match why {
            Some(why) if refused == wanted => {
                refuse(gathered, why);
                (refused, Some(Rejection::BeyondLimits))
            }
            _ => {
                gathered.batch.tally.skipped_members += refused;
                (refused, None)
            }
        }
    }

    /// Returns how many were refused, and why the last of them.
    fn add_readings(&self, gathered: &mut Gathered, readings: Vec<Reading>) -> (u64, Option<String>) {
        let (mut refused, mut why) = (0, None);
        for mut reading in readings {
            match self.latest.admit(&mut reading) {
                Ok(new) => {
                    gathered.batch.new_series.extend(new);
                    gathered.batch.tally.readings += 1;
                    gathered.batch.readings.push(reading);
                }
                Err(error) => {
                    refused += 1;
                    why = Some(error.to_string());
                }
            }
        }
        (refused, why)
    }
}

fn count_message(gathered: &mut Gathered, qos: u8) {
    let tally = &mut gathered.batch.tally;
    match qos {
        0 => tally.messages_qos0 += 1,
        1 => tally.messages_qos1 += 1,
        _ => tally.messages_qos2 += 1,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::ingest::{Hurry, Intake, Settled};
    use crate::model::{Digest, MarkEvent, Timestamp};

    /// A batcher for at most three series, with one batch that gathers.
    struct Rig {
        batcher: Batcher,
        gathered: Gathered,
        rejected: Vec<String>,
        to: mpsc::UnboundedSender<Settled>,
        settled: mpsc::UnboundedReceiver<Settled>,
        begun: Instant,
    }

    impl Rig {
        fn new() -> Self {
            let limits = config::Ingest { max_series: 3, ..config::Ingest::default() };
            let decoder = Arc::new(Decoder::new(&[], &limits).unwrap());
            let batcher = Batcher::new(decoder, Arc::new(Latest::new(&limits, Vec::new())), Once::default());
            let (to, settled) = mpsc::unbounded_channel();
            Self { batcher, gathered: Gathered::default(), rejected: Vec::new(), to, settled, begun: Instant::now() }
        }

        /// Adds a delivery for which someone waits.
        fn add(&mut self, token: u64, content: Content, hurry: Hurry) -> u64 {
            let receipt = Some(Receipt { to: self.to.clone(), token });
            let (intake, mut deliveries) = Intake::new();
            intake.offer(Delivery { content, mark: None, idempotency: Some(Digest::of(b"key")), receipt, hurry }).unwrap();
            let rejected = &mut self.rejected;
            let reject = |found: Rejected<'_>| rejected.push(format!("{}: {}", found.topic, found.reason));
            self.batcher.add(&mut self.gathered, deliveries.try_recv().unwrap(), TimeSource::Gateway, self.begun, reject)
        }

        fn due_in(&self) -> Option<Duration> {
            self.gathered.due_in(&config::Journal::default(), self.begun)
        }

        /// What those who wait are told after the commit.
        fn settle(mut self) -> Vec<(u64, Outcome)> {
            self.gathered.settle();
            std::iter::from_fn(|| self.settled.try_recv().ok()).map(|settled| (settled.token, settled.outcome)).collect()
        }
    }

    fn message(topic: &str, payload: &'static str) -> Content {
        let (topic, payload) = (topic.into(), payload.as_bytes().into());
        Content::Message(Message { topic, payload, qos: 1, retained: false, arrived: Timestamp(1_795_168_800_000_000) })
    }

    fn readings(sensors: &[&str]) -> Content {
        let (time, metric) = (Timestamp(1_795_168_800_000_000), Arc::from("t"));
        let of = |sensor: &&str| Reading {
            time,
            sensor: (*sensor).into(),
            metric: Arc::clone(&metric),
            value: Some(1.0),
            text: None,
            unit: None,
            quality: None,
            arrived: time,
            time_source: TimeSource::Sensor,
        };
        Content::Readings(sensors.iter().map(of).collect())
    }

    #[test]
    fn everything_handed_in_is_counted_once_and_told_in_its_order() {
        let mut rig = Rig::new();
        rig.add(1, message("s/1", r#"{"t": 20.5}"#), Hurry::No);
        rig.add(2, message("s/1", "\u{1}no sense"), Hurry::No);
        rig.add(3, Content::Duplicate { qos: 1 }, Hurry::No);
        rig.add(4, Content::Mark, Hurry::No);
        let refused = Content::Refused { topic: "s/2".into(), sample: "x".into(), qos: 0, reason: "it is too long".to_owned() };
        rig.add(5, refused, Hurry::No);
        let tally = &rig.gathered.batch.tally;
        assert_eq!((tally.messages_qos1, tally.messages_qos0), (3, 1));
        assert_eq!((tally.readings, tally.rejected, tally.duplicates), (1, 2, 1));
        assert_eq!((rig.gathered.batch.readings.len(), rig.gathered.messages()), (1, 5));
        assert_eq!((rig.rejected.len(), rig.rejected[1].as_str()), (2, "s/2: it is too long"));
        let told = [
            (1, Outcome::Committed),
            (2, Outcome::Rejected(Rejection::Unreadable)),
            (3, Outcome::Committed),
            (4, Outcome::Committed),
            (5, Outcome::Rejected(Rejection::BeyondLimits)),
        ];
        assert_eq!(rig.settle(), told);
    }

    #[test]
    fn a_request_is_taken_whole_or_refused_whole() {
        let mut rig = Rig::new();
        assert_eq!(rig.add(1, readings(&["a", "b"]), Hurry::Now), 0);
        assert_eq!(rig.add(2, readings(&["a", "c", "d"]), Hurry::Now), 1);
        assert_eq!(rig.add(3, readings(&["a"]), Hurry::Now), 0);
        let batch = &rig.gathered.batch;
        assert_eq!((batch.readings.len(), batch.tally.readings, batch.tally.rejected, batch.tally.messages_http), (3, 3, 1, 3));
        assert_eq!(batch.idempotency.len(), 2, "what is refused may be sent again under its key");
        let told = rig.settle();
        assert!(matches!(&told[1], (2, Outcome::Refused(why)) if why.contains("max_series")), "{told:?}");
        assert_eq!((&told[0], &told[2]), (&(1, Outcome::Committed), &(3, Outcome::Committed)));
    }

    #[test]
    fn a_message_with_one_series_too_many_keeps_the_others_and_one_with_no_other_is_rejected() {
        let mut rig = Rig::new();
        assert_eq!(rig.add(1, message("s", r#"{"a": 1, "b": 2, "c": 3, "d": 4}"#), Hurry::No), 1);
        assert_eq!(rig.add(2, message("s", r#"{"e": 1}"#), Hurry::No), 1);
        let tally = &rig.gathered.batch.tally;
        assert_eq!((tally.readings, tally.skipped_members, tally.rejected), (3, 1, 1));
        assert!(rig.rejected[0].contains("max_series"), "{:?}", rig.rejected);
        assert_eq!(rig.settle(), [(1, Outcome::Committed), (2, Outcome::Rejected(Rejection::BeyondLimits))]);
    }

    #[test]
    fn a_rejected_message_at_qos_2_is_not_held() {
        let mut rig = Rig::new();
        let mark = MarkEvent::Received { session: 1, packet_id: 4, digest: 9 };
        for payload in [r#"{"t": 20.5}"#, "\u{1}no sense"] {
            let (intake, mut deliveries) = Intake::new();
            let content = message("s/1", payload);
            intake.offer(Delivery { content, mark: Some(mark), idempotency: None, receipt: None, hurry: Hurry::No }).unwrap();
            rig.batcher.add(&mut rig.gathered, deliveries.try_recv().unwrap(), TimeSource::Gateway, rig.begun, |_| {});
        }
        assert_eq!(rig.gathered.batch.marks, [mark, MarkEvent::Released { session: 1, packet_id: 4 }]);
    }

    #[test]
    fn a_batch_is_due_after_the_interval_or_at_once_for_one_who_waits() {
        let mut rig = Rig::new();
        assert_eq!(rig.due_in(), None);
        rig.add(1, message("s", "1"), Hurry::No);
        assert_eq!(rig.due_in(), Some(config::Journal::default().commit_interval.0));
        rig.add(2, message("s", "2"), Hurry::Soon);
        assert_eq!(rig.due_in(), Some(Hurry::LOOK));
        rig.add(2, message("s", "2"), Hurry::Now);
        rig.add(3, message("s", "3"), Hurry::No);
        assert_eq!(rig.due_in(), Some(Duration::ZERO));
    }

    #[test]
    fn a_full_batch_takes_no_more_and_is_due() {
        let mut rig = Rig::new();
        rig.add(1, message("s", "1"), Hurry::No);
        let settings = config::Journal { commit_readings: 1, ..config::Journal::default() };
        assert!(rig.gathered.is_full(&settings) && !rig.gathered.is_full(&config::Journal::default()));
        assert_eq!(rig.gathered.due_in(&settings, rig.begun), Some(Duration::ZERO));
    }
}
