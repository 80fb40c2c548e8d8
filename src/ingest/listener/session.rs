//! A session: what must survive a connection so that each message is stored once.
//!
//! A persistent session's marks live here while its sensor is connected, and in the ledger as far as they are committed.
//! Marks are set when a delivery is handed in, not when it is committed, so that a redelivery of what is still on its way
//! is found too. The price: when a delivery is not taken, the marks are ahead of the truth. Such a session is *spoiled*:
//! it is thrown away once everything handed in is settled, and opened again from the ledger.

use std::num::NonZeroU16;

use tokio::sync::mpsc;

use crate::ingest::{Content, Delivery, Message, Outcome, Receipt, Settled};
use crate::ledger::StoredSession;
use crate::model::{MarkEvent, MessageDigest, SessionId, SessionMarks, message_digest};

/// Marks kept for a clean session: it ends with its connection, so only a sender that repeats a message within one
/// connection can redeliver, and it repeats what was not acknowledged yet.
const CLEAN_SESSION_MARKS: usize = 256;

/// What a settled delivery means for the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// Send this PUBACK.
    Acknowledge(NonZeroU16),
    /// It belonged to an earlier connection: the sensor will redeliver it, and that will be acknowledged.
    Earlier,
    /// Close without acknowledging anything more.
    NotTaken(String),
}

/// The memory of one sensor.
#[derive(Debug)]
pub(super) struct Session {
    /// The ledger's number, if the session is persistent.
    id: Option<SessionId>,
    marks: SessionMarks,
    /// Handed in and not settled.
    on_the_way: usize,
    /// How many of those, the oldest, came by an earlier connection.
    earlier: usize,
    spoiled: bool,
    settle: mpsc::UnboundedSender<Settled>,
    settled: mpsc::UnboundedReceiver<Settled>,
}

impl Session {
    /// Of a sensor that asked for a clean session: it ends with the connection.
    pub(super) fn clean() -> Self {
        Self::new(None, SessionMarks::default())
    }

    /// Of a persistent sensor, as the ledger knows it.
    pub(super) fn persistent(stored: StoredSession) -> Self {
        Self::new(Some(stored.id), stored.marks)
    }

    fn new(id: Option<SessionId>, marks: SessionMarks) -> Self {
        let (settle, settled) = mpsc::unbounded_channel();
        Self { id, marks, on_the_way: 0, earlier: 0, spoiled: false, settle, settled }
    }

    /// Whether it outlives its connection.
    pub(super) fn is_persistent(&self) -> bool {
        self.id.is_some()
    }

    /// Whether its marks can't be trusted.
    pub(super) fn is_spoiled(&self) -> bool {
        self.spoiled
    }

    /// Deliveries of this connection that are not settled.
    pub(super) fn unsettled_here(&self) -> usize {
        self.on_the_way - self.earlier
    }

    /// A new connection goes on with it.
    pub(super) fn pass_on(&mut self) {
        self.earlier = self.on_the_way;
    }

    /// What a message at QoS 1 is handed in as, and the mark to [`Session::note`] once it is.
    pub(super) fn delivery(&self, packet_id: NonZeroU16, dup: bool, message: Message, hurry: bool) -> (Delivery, Option<MarkEvent>) {
        let digest = message_digest(message.topic.as_bytes(), &message.payload);
        if dup && self.marks.is_redelivery(packet_id.get(), digest) {
            return (self.wrap(packet_id, Content::Duplicate { qos: message.qos }, None, hurry), None);
        }
        let noted = self.noted(packet_id, digest);
        let durable = self.is_persistent().then_some(noted);
        (self.wrap(packet_id, Content::Message(message), durable, hurry), Some(noted))
    }

    /// What a message is handed in as that is refused, but acknowledged so that it is not redelivered for ever.
    pub(super) fn refusal(&self, packet_id: NonZeroU16, content: Content, hurry: bool) -> Delivery {
        self.wrap(packet_id, content, None, hurry)
    }

    fn noted(&self, packet_id: NonZeroU16, digest: MessageDigest) -> MarkEvent {
        MarkEvent::Noted { session: self.id.unwrap_or_default(), packet_id: packet_id.get(), digest }
    }

    fn wrap(&self, packet_id: NonZeroU16, content: Content, mark: Option<MarkEvent>, hurry: bool) -> Delivery {
        let receipt = Receipt { to: self.settle.clone(), token: packet_id.get().into() };
        Delivery { content, mark, idempotency: None, receipt: Some(receipt), hurry }
    }

    /// A delivery was handed in.
    pub(super) fn note(&mut self, mark: Option<MarkEvent>) {
        self.on_the_way += 1;
        let Some(mark) = mark else { return };
        self.marks.apply(&mark);
        if !self.is_persistent() && self.marks.len() > CLEAN_SESSION_MARKS {
            self.marks.apply(&MarkEvent::Proven { session: mark.session(), count: 1 });
        }
    }

    /// The next delivery that is settled; pends while there is none. Cancel safe.
    pub(super) async fn settled(&mut self) -> Settlement {
        // The channel can't close: `self.settle` is one of its senders.
        match self.settled.recv().await {
            Some(settled) => self.settle(settled),
            None => std::future::pending().await,
        }
    }

    /// The next delivery that is settled already.
    pub(super) fn settled_already(&mut self) -> Option<Settlement> {
        self.settled.try_recv().ok().map(|settled| self.settle(settled))
    }

    fn settle(&mut self, settled: Settled) -> Settlement {
        self.on_the_way = self.on_the_way.saturating_sub(1);
        let earlier = self.earlier > 0;
        self.earlier = self.earlier.saturating_sub(1);
        match settled.outcome {
            Outcome::Refused(reason) => {
                self.spoiled = true;
                Settlement::NotTaken(reason)
            }
            // A redelivery behind a delivery that was not taken may be committed as a duplicate of nothing.
            Outcome::Committed if self.spoiled => Settlement::NotTaken("one before it was not taken".to_owned()),
            Outcome::Committed if earlier => Settlement::Earlier,
            Outcome::Committed => match u16::try_from(settled.token).ok().and_then(NonZeroU16::new) {
                Some(packet_id) => Settlement::Acknowledge(packet_id),
                None => Settlement::NotTaken(format!("receipt {} is no packet id", settled.token)),
            },
        }
    }

    /// Waits until everything handed in is settled. Cancel safe.
    pub(super) async fn drained(&mut self) {
        while self.on_the_way > 0 {
            self.settled().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::model::Timestamp;

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    fn message(text: &'static str) -> Message {
        Message { topic: Arc::from("a"), payload: Bytes::from_static(text.as_bytes()), qos: 1, retained: false, arrived: Timestamp(0) }
    }

    fn persistent() -> Session {
        Session::persistent(StoredSession { id: 7, ..StoredSession::default() })
    }

    fn hand_in(session: &mut Session, number: u16, dup: bool, text: &'static str) -> Delivery {
        let (delivery, mark) = session.delivery(id(number), dup, message(text), false);
        session.note(mark);
        delivery
    }

    fn settle(session: &mut Session, delivery: Delivery, outcome: Outcome) -> Settlement {
        delivery.receipt.unwrap().settle(outcome);
        session.settled_already().unwrap()
    }

    #[test]
    fn a_redelivery_of_what_is_still_on_its_way_is_a_duplicate() {
        let mut session = persistent();
        let first = hand_in(&mut session, 1, false, "x");
        assert!(matches!(first.mark, Some(MarkEvent::Noted { session: 7, packet_id: 1, .. })));
        session.pass_on();
        let again = hand_in(&mut session, 1, true, "x");
        assert!(matches!(again.content, Content::Duplicate { qos: 1 }) && again.mark.is_none());
        assert_eq!(settle(&mut session, first, Outcome::Committed), Settlement::Earlier);
        assert_eq!(settle(&mut session, again, Outcome::Committed), Settlement::Acknowledge(id(1)));
    }

    #[test]
    fn another_message_under_the_same_id_is_stored_with_and_without_dup() {
        let mut session = persistent();
        hand_in(&mut session, 1, false, "x");
        for (dup, text) in [(false, "x"), (true, "y"), (false, "z")] {
            assert!(matches!(hand_in(&mut session, 1, dup, text).content, Content::Message(_)), "{dup} {text}");
        }
        assert!(matches!(hand_in(&mut session, 1, true, "x").content, Content::Message(_)), "a newer publish has used the id");
    }

    #[test]
    fn after_a_delivery_that_was_not_taken_nothing_is_acknowledged_any_more() {
        let mut session = persistent();
        let first = hand_in(&mut session, 1, false, "x");
        session.pass_on();
        let again = hand_in(&mut session, 1, true, "x");
        assert_eq!(settle(&mut session, first, Outcome::Refused("full".into())), Settlement::NotTaken("full".into()));
        assert!(matches!(settle(&mut session, again, Outcome::Committed), Settlement::NotTaken(_)));
        assert!(session.is_spoiled());
    }

    #[test]
    fn a_clean_session_knows_its_last_messages_only_and_marks_nothing_durably() {
        let mut session = Session::clean();
        for number in 1..=1000 {
            assert!(hand_in(&mut session, number, false, "x").mark.is_none());
        }
        assert_eq!(session.marks.len(), CLEAN_SESSION_MARKS);
        assert!(matches!(hand_in(&mut session, 1000, true, "x").content, Content::Duplicate { .. }));
        assert!(matches!(hand_in(&mut session, 1, true, "x").content, Content::Message(_)));
    }
}
