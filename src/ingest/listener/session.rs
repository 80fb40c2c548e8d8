//! A session: what must survive a connection so that each message is stored once.
//!
//! A persistent session's marks live here while its sensor is connected, and in the ledger as far as they are committed.
//! Marks are set when a delivery is handed in, not when it is committed, so that a redelivery of what is still on its way
//! is found too. The price: when a delivery is not taken, the marks are ahead of the truth. Such a session is *spoiled*:
//! it is thrown away once everything handed in is settled, and opened again from the ledger.
//!
//! Exactly once (QoS 2): the message and its mark are committed together, then PUBREC; the end of the mark is committed,
//! then PUBCOMP. Whoever dies in between, the sender repeats the step whose answer it did not read, and finds it done.

use std::num::NonZeroU16;
use std::time::Duration;

use tokio::sync::mpsc;

use super::owed::{Label, Owed, Settlement};
use crate::ingest::{Content, Delivery, Hurry, Outcome, Receipt, Settled};
use crate::ledger::StoredSession;
use crate::model::{MarkEvent, MessageDigest, SessionId, SessionMarks, message_digest};

/// Marks kept for a clean session: it ends with its connection, so only a sender that repeats a message within one
/// connection can redeliver, and it repeats what was not acknowledged yet.
const CLEAN_SESSION_MARKS: usize = 256;

/// The memory of one sensor.
#[derive(Debug)]
pub(super) struct Session {
    /// The ledger's number, if the session is persistent.
    id: Option<SessionId>,
    marks: SessionMarks,
    expiry: Option<Duration>,
    /// Handed in and not settled.
    on_the_way: usize,
    /// How many of those, the oldest, came by an earlier connection.
    earlier: usize,
    spoiled: bool,
    settle: mpsc::UnboundedSender<Settled>,
    settled: mpsc::UnboundedReceiver<Settled>,
}

impl Session {
    /// Of a sensor whose session ends with the connection.
    pub(super) fn clean() -> Self {
        Self::new(None, SessionMarks::default(), Some(Duration::ZERO))
    }

    /// Of a persistent sensor, as the ledger knows it. It outlives its connection by `expiry`, or until it is ended.
    pub(super) fn persistent(stored: StoredSession, expiry: Option<Duration>) -> Self {
        Self::new(Some(stored.id), stored.marks, expiry)
    }

    fn new(id: Option<SessionId>, marks: SessionMarks, expiry: Option<Duration>) -> Self {
        let (settle, settled) = mpsc::unbounded_channel();
        Self { id, marks, expiry, on_the_way: 0, earlier: 0, spoiled: false, settle, settled }
    }

    /// Whether the ledger knows it.
    pub(super) fn is_persistent(&self) -> bool {
        self.id.is_some()
    }

    /// How long it outlives its connection; `None`: until it is ended.
    pub(super) fn expiry(&self) -> Option<Duration> {
        self.expiry
    }

    /// The sensor wants it so.
    pub(super) fn set_expiry(&mut self, expiry: Option<Duration>) {
        self.expiry = expiry;
    }

    /// Whether a new connection can go on with it as it is here.
    pub(super) fn can_go_on(&self) -> bool {
        self.is_persistent() && !self.spoiled && self.expiry != Some(Duration::ZERO)
    }

    /// Deliveries of this connection that are not settled.
    pub(super) fn unsettled_here(&self) -> usize {
        self.on_the_way - self.earlier
    }

    /// Messages at QoS 2 that are not released.
    pub(super) fn held(&self) -> usize {
        self.marks.held()
    }

    /// Whether the message `packet_id` at QoS 2 is held.
    pub(super) fn holds(&self, packet_id: u16) -> bool {
        self.marks.holds(packet_id)
    }

    /// A new connection goes on with it.
    pub(super) fn pass_on(&mut self, expiry: Option<Duration>) {
        self.earlier = self.on_the_way;
        self.expiry = expiry;
    }

    /// What a message, or its refusal, is handed in as, and the mark to [`Session::note`] once it is.
    pub(super) fn delivery(&self, label: Label, content: Content, hurry: Hurry) -> (Delivery, Option<MarkEvent>) {
        let Label { packet_id, dup, exactly_once } = label;
        let (session, id) = (self.id.unwrap_or_default(), packet_id.get());
        let digest = digest(&content);
        let (owed, again, mark) = match (&content, exactly_once) {
            (_, true) => (Owed::Pubrec, self.marks.is_held(id, digest), Some(MarkEvent::Received { session, packet_id: id, digest })),
            // What is refused at QoS 1 is refused again.
            (Content::Refused { .. }, false) => (Owed::Puback, false, None),
            (_, false) => {
                let again = dup && self.marks.is_redelivery(id, digest);
                (Owed::Puback, again, Some(MarkEvent::Noted { session, packet_id: id, digest }))
            }
        };
        if again {
            let qos = if exactly_once { 2 } else { 1 };
            return (self.wrap(owed, packet_id, Content::Duplicate { qos }, None, hurry), None);
        }
        let durable = mark.filter(|_| self.is_persistent());
        (self.wrap(owed, packet_id, content, durable, hurry), mark)
    }

    /// What a PUBREL is handed in as, and the mark to [`Session::note`] once it is. One of nothing waits its turn too: the
    /// release it repeats may not be committed.
    pub(super) fn release(&self, packet_id: NonZeroU16, hurry: Hurry) -> (Delivery, Option<MarkEvent>) {
        if !self.marks.holds(packet_id.get()) {
            return (self.wrap(Owed::PubcompOfNothing, packet_id, Content::Mark, None, hurry), None);
        }
        let released = self.released(packet_id);
        let durable = Some(released).filter(|_| self.is_persistent());
        (self.wrap(Owed::Pubcomp, packet_id, Content::Mark, durable, hurry), Some(released))
    }

    /// The sensor was told that a message at QoS 2 is not kept; the ledger does not hold it.
    pub(super) fn let_go(&mut self, packet_id: NonZeroU16) {
        let released = self.released(packet_id);
        self.marks.apply(&released);
    }

    fn released(&self, packet_id: NonZeroU16) -> MarkEvent {
        MarkEvent::Released { session: self.id.unwrap_or_default(), packet_id: packet_id.get() }
    }

    fn wrap(&self, owed: Owed, packet_id: NonZeroU16, content: Content, mark: Option<MarkEvent>, hurry: Hurry) -> Delivery {
        let receipt = Receipt { to: self.settle.clone(), token: owed.token(packet_id) };
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
        let rejection = match settled.outcome {
            Outcome::Committed => None,
            Outcome::Rejected(rejection) => Some(rejection),
            Outcome::Refused(reason) => {
                self.spoiled = true;
                return Settlement::NotTaken(reason);
            }
        };
        if self.spoiled {
            // A redelivery behind a delivery that was not taken may be committed as a duplicate of nothing.
            return Settlement::NotTaken("one before it was not taken".to_owned());
        }
        if earlier {
            return Settlement::Earlier;
        }
        match Owed::of_token(settled.token) {
            Some((owed, packet_id)) => Settlement::Acknowledge { owed, packet_id, rejection },
            None => Settlement::NotTaken(format!("receipt {} is none of ours", settled.token)),
        }
    }

    /// Waits until everything handed in is settled. Cancel safe.
    pub(super) async fn drained(&mut self) {
        while self.on_the_way > 0 {
            self.settled().await;
        }
    }
}

fn digest(content: &Content) -> MessageDigest {
    match content {
        Content::Message(message) => message_digest(message.topic.as_bytes(), &message.payload),
        Content::Refused { topic, sample, .. } => message_digest(topic.as_bytes(), sample),
        Content::Duplicate { .. } | Content::Mark | Content::Readings(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::ingest::{Message, Rejection};
    use crate::model::Timestamp;

    fn id(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    fn message(text: &'static str) -> Content {
        let (topic, payload) = (Arc::from("a"), Bytes::from_static(text.as_bytes()));
        Content::Message(Message { topic, payload, qos: 1, retained: false, arrived: Timestamp(0) })
    }

    fn persistent() -> Session {
        Session::persistent(StoredSession { id: 7, ..StoredSession::default() }, None)
    }

    fn hand_in(session: &mut Session, number: u16, dup: bool, text: &'static str) -> Delivery {
        let label = Label { packet_id: id(number), dup, exactly_once: false };
        let (delivery, mark) = session.delivery(label, message(text), Hurry::No);
        session.note(mark);
        delivery
    }

    /// The same at QoS 2.
    fn hand_in_once(session: &mut Session, number: u16, dup: bool, text: &'static str) -> Delivery {
        let label = Label { packet_id: id(number), dup, exactly_once: true };
        let (delivery, mark) = session.delivery(label, message(text), Hurry::No);
        session.note(mark);
        delivery
    }

    fn release(session: &mut Session, number: u16) -> Delivery {
        let (delivery, mark) = session.release(id(number), Hurry::No);
        session.note(mark);
        delivery
    }

    fn settle(session: &mut Session, delivery: Delivery, outcome: Outcome) -> Settlement {
        delivery.receipt.unwrap().settle(outcome);
        session.settled_already().unwrap()
    }

    fn acknowledge(owed: Owed, number: u16) -> Settlement {
        Settlement::Acknowledge { owed, packet_id: id(number), rejection: None }
    }

    #[test]
    fn a_redelivery_of_what_is_still_on_its_way_is_a_duplicate() {
        let mut session = persistent();
        let first = hand_in(&mut session, 1, false, "x");
        assert!(matches!(first.mark, Some(MarkEvent::Noted { session: 7, packet_id: 1, .. })));
        session.pass_on(None);
        let again = hand_in(&mut session, 1, true, "x");
        assert!(matches!(again.content, Content::Duplicate { qos: 1 }) && again.mark.is_none());
        assert_eq!(settle(&mut session, first, Outcome::Committed), Settlement::Earlier);
        assert_eq!(settle(&mut session, again, Outcome::Committed), acknowledge(Owed::Puback, 1));
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
        session.pass_on(None);
        let again = hand_in(&mut session, 1, true, "x");
        assert_eq!(settle(&mut session, first, Outcome::Refused("full".into())), Settlement::NotTaken("full".into()));
        assert!(matches!(settle(&mut session, again, Outcome::Committed), Settlement::NotTaken(_)));
        assert!(!session.can_go_on());
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

    #[test]
    fn at_qos_2_a_message_that_comes_again_is_a_duplicate_with_and_without_dup_until_it_is_released() {
        for mut session in [persistent(), Session::clean()] {
            let first = hand_in_once(&mut session, 1, false, "x");
            assert_eq!(first.mark.is_some(), session.is_persistent());
            assert_eq!(settle(&mut session, first, Outcome::Committed), acknowledge(Owed::Pubrec, 1));
            for dup in [true, false] {
                let again = hand_in_once(&mut session, 1, dup, "x");
                assert!(matches!(again.content, Content::Duplicate { qos: 2 }) && again.mark.is_none());
                assert_eq!(settle(&mut session, again, Outcome::Committed), acknowledge(Owed::Pubrec, 1));
            }
            let released = release(&mut session, 1);
            assert!(matches!(released.content, Content::Mark));
            assert_eq!(released.mark.is_some(), session.is_persistent());
            assert_eq!(settle(&mut session, released, Outcome::Committed), acknowledge(Owed::Pubcomp, 1));
            assert!(matches!(hand_in_once(&mut session, 1, true, "x").content, Content::Message(_)), "it is another message now");
        }
    }

    #[test]
    fn a_release_that_comes_again_before_the_first_is_committed_waits_for_it() {
        let mut session = persistent();
        hand_in_once(&mut session, 1, false, "x");
        let first = release(&mut session, 1);
        let again = release(&mut session, 1);
        assert!(matches!(first.mark, Some(MarkEvent::Released { session: 7, packet_id: 1 })) && again.mark.is_none());
        assert!(session.settled_already().is_none(), "nothing is answered before its turn");
        assert_eq!(settle(&mut session, first, Outcome::Committed), acknowledge(Owed::Pubcomp, 1));
        assert_eq!(settle(&mut session, again, Outcome::Committed), acknowledge(Owed::PubcompOfNothing, 1));
    }

    #[test]
    fn at_qos_2_a_sender_that_lost_its_memory_loses_no_new_message() {
        let mut session = persistent();
        hand_in_once(&mut session, 1, false, "x");
        let new = hand_in_once(&mut session, 1, false, "y");
        assert!(matches!((new.content, new.mark), (Content::Message(_), Some(MarkEvent::Received { packet_id: 1, .. }))));
        assert_eq!(session.held(), 1);
    }

    #[test]
    fn why_a_message_is_rejected_is_known_to_who_acknowledges_it() {
        let mut session = persistent();
        let delivery = hand_in_once(&mut session, 1, false, "no sense");
        let rejection = Some(Rejection::Unreadable);
        let expected = Settlement::Acknowledge { owed: Owed::Pubrec, packet_id: id(1), rejection };
        assert_eq!(settle(&mut session, delivery, Outcome::Rejected(Rejection::Unreadable)), expected);
        session.let_go(id(1));
        assert_eq!(session.held(), 0);
    }

    #[test]
    fn a_session_that_ends_with_its_connection_is_not_gone_on_with() {
        let mut session = persistent();
        assert!(session.can_go_on());
        session.set_expiry(Some(Duration::ZERO));
        assert!(!session.can_go_on() && !Session::clean().can_go_on());
    }
}
