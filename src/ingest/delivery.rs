//! A delivery: one message on its way to the ledger, with who waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::model::{Digest, MarkEvent, Reading, Timestamp};
use crate::space::{Claim, Space};

/// Payload bytes (and a fixed charge a message) that may wait for their commit. A Pi's listener at full speed fills
/// this in about a second; beyond it sources are not read from. Below a small cap it is a sixteenth of that: what waits has
/// its room on the disk already.
const MAX_WAITING_BYTES: usize = 16 << 20;
const WAITING_SHARE: u64 = 16;

/// What a waiting delivery costs beside its payload.
const DELIVERY_CHARGE: usize = 256;

/// Deliveries in the channel to the pump; the bytes are the real bound.
const MAX_WAITING_DELIVERIES: usize = 4096;

/// What a reading takes in memory, and at most on the disk, beside its text.
const READING_CHARGE: (usize, usize) = (128, 48);

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Message {
    /// Its topic; UTF-8, as MQTT demands.
    pub topic: Arc<str>,
    /// Its body.
    pub payload: Bytes,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Whether a broker kept it from before our subscription.
    pub retained: bool,
    /// When it reached us.
    pub arrived: Timestamp,
}

/// What a delivery brings.
#[derive(Debug)]
pub enum Content {
    /// To be decoded.
    Message(Message),
    /// A redelivery of what is committed or on its way: counted, and acknowledged in its turn.
    Duplicate {
        /// 1 or 2.
        qos: u8,
    },
    /// Nothing but its mark, which changes without a message of its own.
    Mark,
    /// Readings that a door has decoded already.
    Readings(Vec<Reading>),
    /// A message that its source refuses (too long, a topic that is not UTF-8), with the reason and a sample.
    Refused {
        /// The topic, as far as it can be shown.
        topic: Arc<str>,
        /// The beginning of the payload.
        sample: Bytes,
        /// QoS of the message.
        qos: u8,
        /// Why.
        reason: String,
    },
}

/// Why a message is rejected for good: it would be again, however often it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// It can't be decoded.
    Unreadable,
    /// It is longer, or brings more series, than allowed.
    BeyondLimits,
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is durable: acknowledge it.
    Committed,
    /// It is durably counted as rejected: acknowledge it, with the reason if the protocol can, so that it does not come again.
    Rejected(Rejection),
    /// It was not taken; say so if the protocol can.
    Refused(String),
}

/// The answer to the source that handed in a delivery. Answers come in the order of the deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What the source wrote on the receipt.
    pub token: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// Who waits for a delivery. The channel is unbounded in form: a source bounds what it has on the way.
#[derive(Debug, Clone)]
pub struct Receipt {
    /// Where the answer goes.
    pub to: mpsc::UnboundedSender<Settled>,
    /// For the source: which delivery this was (for MQTT the packet id).
    pub token: u64,
}

impl Receipt {
    /// Sends the answer; a source that is gone needs none.
    pub fn settle(self, outcome: Outcome) {
        let _ = self.to.send(Settled { token: self.token, outcome });
    }
}

/// One message not yet acknowledged.
#[derive(Debug)]
pub struct Delivery {
    /// What it brings.
    pub content: Content,
    /// The change of session marks that must be durable with it.
    pub mark: Option<MarkEvent>,
    /// The idempotency key it came with.
    pub idempotency: Option<Digest>,
    /// Who waits.
    pub receipt: Option<Receipt>,
    /// Whether its commit waits for the interval.
    pub hurry: Hurry,
}

/// How soon a delivery wants its commit; the greater, the sooner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hurry {
    /// After the interval: its sender goes on meanwhile.
    No,
    /// After [`Hurry::LOOK`]: its sender seems to wait, and whether it does is to be seen.
    Soon,
    /// At once: its sender waits.
    Now,
}

impl Hurry {
    /// A sender that publishes at a pace of its own of which the flash would suffer is never silent for so long.
    pub const LOOK: Duration = Duration::from_millis(60);

    /// How long the commit may wait; `None`: for the interval.
    pub fn patience(self) -> Option<Duration> {
        match self {
            Self::No => None,
            Self::Soon => Some(Self::LOOK),
            Self::Now => Some(Duration::ZERO),
        }
    }
}

impl Delivery {
    fn charge(&self) -> usize {
        let bytes = match &self.content {
            Content::Message(message) => message.payload.len() + message.topic.len(),
            Content::Duplicate { .. } | Content::Mark => return 0,
            Content::Readings(readings) => readings.len() * READING_CHARGE.0 + text_bytes(readings),
            Content::Refused { sample, .. } => sample.len(),
        };
        bytes + DELIVERY_CHARGE
    }

    /// Bytes by which it can make the data folder larger: the journal is compressed, and is written to the WAL and then to
    /// the ledger itself. `None` for what brings nothing to keep, which is let through at any time; the windows of its
    /// sessions bound it.
    fn room(&self) -> Option<u64> {
        let bytes = match &self.content {
            Content::Message(message) => message.payload.len() + message.topic.len(),
            Content::Duplicate { .. } | Content::Mark => return None,
            Content::Readings(readings) => readings.len() * READING_CHARGE.1 + text_bytes(readings),
            Content::Refused { sample, .. } => sample.len(),
        };
        Some((2 * bytes + DELIVERY_CHARGE) as u64)
    }
}

fn text_bytes(readings: &[Reading]) -> usize {
    readings.iter().filter_map(|reading| reading.text.as_ref()).map(|text| text.len()).sum()
}

/// What a delivery holds until it is settled.
#[derive(Debug)]
pub struct Share {
    _waiting: OwnedSemaphorePermit,
    _room: Option<Claim>,
}

/// A delivery with its share of the waiting room, and of the room on the disk.
#[derive(Debug)]
pub struct Admitted {
    /// The delivery.
    pub delivery: Delivery,
    /// Given back when it is settled.
    pub share: Share,
}

/// The pump is gone: the daemon is stopping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// The pump is gone.
    #[error("the daemon is stopping")]
    Closed,
    /// The waiting room is full, or no readings are taken.
    #[error("too much is waiting to be committed")]
    Full,
}

/// Where sources hand in deliveries. Cheap to clone; deliveries of one clone keep their order.
#[derive(Clone)]
pub struct Intake {
    to: mpsc::Sender<Admitted>,
    /// Always [`MAX_WAITING_BYTES`] permits.
    waiting: Arc<Semaphore>,
    /// Bytes that fit into the waiting room: where they are fewer than permits, each takes more of these.
    bytes: Arc<AtomicUsize>,
    space: Space,
}

impl Intake {
    /// An intake and the pump's end of it; it takes readings always.
    pub fn new() -> (Self, mpsc::Receiver<Admitted>) {
        Self::within(Space::default(), u64::MAX)
    }

    /// The same, for an intake that takes readings only while `space`, of `cap` bytes, has room for them.
    pub fn within(space: Space, cap: u64) -> (Self, mpsc::Receiver<Admitted>) {
        let (to, from) = mpsc::channel(MAX_WAITING_DELIVERIES);
        let intake = Self { to, waiting: Arc::new(Semaphore::new(MAX_WAITING_BYTES)), bytes: Arc::default(), space };
        intake.fit(cap);
        (intake, from)
    }

    /// Fits the waiting room to another `cap`, for all clones. What is in it already keeps its share.
    pub fn fit(&self, cap: u64) {
        let bytes = usize::try_from(cap / WAITING_SHARE).unwrap_or(usize::MAX).clamp(1, MAX_WAITING_BYTES);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Permits of the waiting room that `delivery` takes: one that is larger than the room takes all of it.
    fn permits(&self, delivery: &Delivery) -> u32 {
        let (room, bytes) = (MAX_WAITING_BYTES as u64, self.bytes.load(Ordering::Relaxed) as u64);
        let charge = (delivery.charge() as u64).min(bytes);
        u32::try_from((charge * room).div_ceil(bytes)).unwrap_or(u32::MAX)
    }

    /// Why no readings are taken now; `None` where they are.
    pub fn refusal(&self) -> Option<Arc<str>> {
        self.space.refusal()
    }

    /// Returns when no readings are taken, with the reason.
    pub async fn refused(&self) -> Arc<str> {
        self.space.refused().await
    }

    /// Hands in a delivery; waits while the waiting room is full, no readings are taken or there is no room for these, which
    /// holds the source back.
    ///
    /// # Errors
    /// [`IntakeError::Closed`].
    pub async fn send(&self, mut delivery: Delivery) -> Result<(), IntakeError> {
        // Half a room taken is reason enough not to wait for the interval.
        if self.waiting.available_permits() < MAX_WAITING_BYTES / 2 {
            delivery.hurry = Hurry::Now;
        }
        let permits = self.permits(&delivery);
        let waiting = Arc::clone(&self.waiting).acquire_many_owned(permits).await.map_err(|_| IntakeError::Closed)?;
        let room = match delivery.room() {
            None => None,
            Some(bytes) => tokio::select! {
                claim = self.space.claim(bytes) => Some(claim),
                () = self.to.closed() => return Err(IntakeError::Closed),
            },
        };
        let share = Share { _waiting: waiting, _room: room };
        self.to.send(Admitted { delivery, share }).await.map_err(|_| IntakeError::Closed)
    }

    /// Hands in a delivery that nobody waits for (QoS 0) without waiting.
    ///
    /// # Errors
    /// [`IntakeError::Full`]: count it as refused under pressure. [`IntakeError::Closed`].
    pub fn offer(&self, delivery: Delivery) -> Result<(), IntakeError> {
        let room = match delivery.room() {
            Some(_) if self.refusal().is_some() => return Err(IntakeError::Full),
            room => room.map(|bytes| self.space.try_claim(bytes).ok_or(IntakeError::Full)).transpose()?,
        };
        let permits = self.permits(&delivery);
        let waiting = Arc::clone(&self.waiting).try_acquire_many_owned(permits).map_err(|_| IntakeError::Full)?;
        let share = Share { _waiting: waiting, _room: room };
        self.to.try_send(Admitted { delivery, share }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => IntakeError::Full,
            mpsc::error::TrySendError::Closed(_) => IntakeError::Closed,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::space::Allowance;

    fn delivery() -> Delivery {
        let content = Content::Readings(Vec::new());
        Delivery { content, mark: None, idempotency: None, receipt: None, hurry: Hurry::No }
    }

    fn mark() -> Delivery {
        Delivery { content: Content::Mark, ..delivery() }
    }

    #[tokio::test]
    async fn without_space_who_can_wait_waits_and_the_others_are_refused() {
        let space = Space::default();
        let (intake, mut from) = Intake::within(space.clone(), u64::MAX);
        space.refuse("the cap is reached");
        assert_eq!(intake.offer(delivery()), Err(IntakeError::Full));
        let other = intake.clone();
        let waiting = tokio::spawn(async move { other.send(delivery()).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished() && from.try_recv().is_err());
        assert_eq!((intake.send(mark()).await, intake.offer(mark())), (Ok(()), Ok(())), "these bring nothing to keep");
        assert!(from.try_recv().is_ok() && from.try_recv().is_ok());
        space.admit();
        assert_eq!((waiting.await.unwrap(), intake.offer(delivery())), (Ok(()), Ok(())));
        space.refuse("the cap is reached");
        drop(from);
        assert_eq!(intake.send(delivery()).await, Err(IntakeError::Closed));
    }

    #[tokio::test]
    async fn what_is_handed_in_has_its_room_until_it_is_settled() {
        let space = Space::default();
        let (intake, mut from) = Intake::within(space.clone(), u64::MAX);
        space.allow(0, Allowance { bytes: 600, largest: 600, low: 0 });
        assert_eq!((intake.offer(delivery()), intake.offer(delivery())), (Ok(()), Ok(())));
        assert_eq!(intake.offer(delivery()), Err(IntakeError::Full));
        assert_eq!(space.claims().under_way, 512);
        drop(from.try_recv());
        assert_eq!((space.claims().under_way, space.claims().settled), (256, 256));
    }

    #[tokio::test]
    async fn the_waiting_room_follows_the_cap() {
        let (intake, mut from) = Intake::within(Space::default(), 16 * 1000);
        let one = intake.clone();
        let fill = |intake: &Intake| (0..).take_while(|_| intake.offer(delivery()).is_ok()).count();
        assert_eq!(fill(&intake), 1000 / DELIVERY_CHARGE);
        one.fit(16 * 2000);
        assert_eq!(fill(&intake), 1, "those that wait keep their share, three quarters of it");
        while from.try_recv().is_ok() {}
        assert_eq!(fill(&intake), 2000 / DELIVERY_CHARGE);
        one.fit(0);
        while from.try_recv().is_ok() {}
        assert_eq!(fill(&intake), 1, "there is room for one always");
    }
}
