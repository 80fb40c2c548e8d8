//! The session with the broker: which deliveries wait for their acknowledgement, which marks tell a redelivery, and
//! which of them the broker has made superfluous. No I/O.
//!
//! A mark is needed until the broker has read our PUBACK; kept longer, it would swallow a new message that happens to
//! come with the same id and the same words after a lost connection. A broker reads in order, so the answer to a
//! PINGREQ proves that it has read every PUBACK written before.

use std::collections::VecDeque;

use crate::ledger::StoredSession;
use crate::model::{MarkEvent, MessageDigest, SessionId, SessionMarks};

/// A delivery handed in and not acknowledged yet.
#[derive(Debug, Clone, Copy)]
struct Unacked {
    token: u64,
    packet_id: u16,
    /// Ordinal of its mark.
    mark: u64,
}

/// What a message with QoS 1 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// New: to be stored, and its mark with it.
    New {
        /// For its receipt.
        token: u64,
        /// Its mark.
        mark: MarkEvent,
    },
    /// Stored already, or on its way: to be acknowledged in its turn.
    Duplicate {
        /// For its receipt.
        token: u64,
    },
    /// Sent twice in one connection, which MQTT 3.1 allowed. One acknowledgement is enough, and a second one could
    /// be taken for that of the id's next message.
    Again,
}

/// The marks as they will be when everything handed in is committed, and what this connection adds.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    marks: SessionMarks,
    /// Marks ever noted; the ordinal of the next one.
    noted: u64,
    unacked: VecDeque<Unacked>,
    next_token: u64,
    /// Marks with a lower ordinal are acknowledged, but for those in `unacked`.
    acked_below: u64,
    /// Where `acked_below` was when the last PINGREQ was written.
    asked_below: u64,
    /// Marks proven that the ledger does not know of yet.
    untold: u32,
}

impl Session {
    /// The session as the ledger has it; `untold` marks were proven since it was last told.
    pub fn new(stored: StoredSession, untold: u32) -> Self {
        let StoredSession { id, mut marks, .. } = stored;
        let noted = marks.len() as u64;
        marks.apply(&MarkEvent::Proven { session: id, count: untold });
        Self { id, marks, noted, unacked: VecDeque::new(), next_token: 0, acked_below: 0, asked_below: 0, untold }
    }

    /// Takes a message with QoS 1.
    pub fn receive(&mut self, packet_id: u16, dup: bool, digest: MessageDigest) -> Received {
        if dup && self.marks.is_redelivery(packet_id, digest) {
            if self.unacked.iter().any(|waiting| waiting.packet_id == packet_id) {
                return Received::Again;
            }
            let place = self.marks.place(packet_id).unwrap_or(0) as u64;
            let token = self.wait_for_ack(packet_id, self.oldest() + place);
            return Received::Duplicate { token };
        }
        let mark = MarkEvent::Noted { session: self.id, packet_id, digest };
        self.marks.apply(&mark);
        let token = self.wait_for_ack(packet_id, self.noted);
        self.noted += 1;
        Received::New { token, mark }
    }

    fn wait_for_ack(&mut self, packet_id: u16, mark: u64) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        self.unacked.push_back(Unacked { token, packet_id, mark });
        token
    }

    /// Ordinal of the oldest mark.
    fn oldest(&self) -> u64 {
        self.noted - self.marks.len() as u64
    }

    /// The packet id to acknowledge for the oldest delivery, which must be the one with `token`.
    pub fn acknowledge(&mut self, token: u64) -> Option<u16> {
        let oldest = self.unacked.pop_front_if(|oldest| oldest.token == token)?;
        self.acked_below = self.acked_below.max(oldest.mark + 1);
        Some(oldest.packet_id)
    }

    /// A PINGREQ is written.
    pub fn ask(&mut self) {
        self.asked_below = self.acked_below.min(self.first_unacked());
    }

    /// The PINGRESP came: forgets what is proven now, and owes it to the ledger.
    pub fn prove(&mut self) {
        // A redelivery may have come since.
        let proven_below = self.asked_below.min(self.first_unacked());
        let count = u32::try_from(proven_below.saturating_sub(self.oldest())).unwrap_or(u32::MAX);
        self.marks.apply(&MarkEvent::Proven { session: self.id, count });
        self.untold += count;
    }

    fn first_unacked(&self) -> u64 {
        self.unacked.iter().map(|waiting| waiting.mark).min().unwrap_or(u64::MAX)
    }

    /// What the ledger must be told before the next mark, once.
    pub fn take_proof(&mut self) -> Option<MarkEvent> {
        let count = std::mem::take(&mut self.untold);
        (count > 0).then_some(MarkEvent::Proven { session: self.id, count })
    }

    /// Proven marks that the ledger was not told of; they outlive the connection.
    pub fn untold(&self) -> u32 {
        self.untold
    }

    /// Deliveries that wait for their acknowledgement.
    pub fn unacked(&self) -> usize {
        self.unacked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(StoredSession { id: 1, ..StoredSession::default() }, 0)
    }

    /// Takes a new message and returns its token.
    fn new(session: &mut Session, packet_id: u16, digest: MessageDigest) -> u64 {
        match session.receive(packet_id, false, digest) {
            Received::New { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }

    /// The session of the next connection, after all marks of `before` were committed.
    fn reconnected(before: &Session) -> Session {
        Session::new(StoredSession { id: 1, marks: before.marks.clone(), present: true }, 0)
    }

    #[test]
    fn acknowledgements_go_in_the_order_of_arrival_and_in_no_other() {
        let mut session = session();
        let (first, second) = (new(&mut session, 7, 70), new(&mut session, 3, 30));
        assert_eq!(session.acknowledge(second), None);
        assert_eq!(session.acknowledge(first), Some(7));
        assert_eq!(session.acknowledge(first), None);
        assert_eq!(session.acknowledge(second), Some(3));
        assert_eq!(session.unacked(), 0);
    }

    #[test]
    fn only_dup_with_the_same_id_and_digest_is_a_redelivery() {
        let mut session = session();
        let token = new(&mut session, 1, 10);
        session.acknowledge(token);
        assert!(matches!(session.receive(1, true, 11), Received::New { .. }), "another digest");
        assert!(matches!(session.receive(2, true, 10), Received::New { .. }), "another id");
        assert!(matches!(session.receive(1, false, 11), Received::New { .. }), "not dup");
        let mut session = reconnected(&session);
        assert!(matches!(session.receive(1, true, 11), Received::Duplicate { .. }));
    }

    #[test]
    fn a_message_repeated_in_one_connection_is_acknowledged_once() {
        let mut session = session();
        new(&mut session, 1, 10);
        assert_eq!(session.receive(1, true, 10), Received::Again);
        assert_eq!(session.unacked(), 1);
    }

    #[test]
    fn a_pingresp_proves_what_was_acknowledged_before_its_pingreq_and_no_more() {
        let mut session = session();
        let tokens: Vec<u64> = (1..=4).map(|id| new(&mut session, id, 5)).collect();
        session.acknowledge(tokens[0]);
        session.acknowledge(tokens[1]);
        session.ask();
        session.acknowledge(tokens[2]);
        session.prove();
        assert_eq!(session.take_proof(), Some(MarkEvent::Proven { session: 1, count: 2 }));
        assert_eq!(session.take_proof(), None);
        let mut session = reconnected(&session);
        assert!(matches!(session.receive(2, true, 5), Received::New { .. }));
        assert!(matches!(session.receive(3, true, 5), Received::Duplicate { .. }));
    }

    #[test]
    fn marks_of_an_earlier_connection_are_proven_once_a_later_one_is() {
        let mut before = session();
        for id in 1..=3 {
            new(&mut before, id, 5);
        }
        let mut session = reconnected(&before);
        session.ask();
        session.prove();
        assert_eq!(session.take_proof(), None, "nothing was acknowledged in this connection");
        let Received::Duplicate { token } = session.receive(2, true, 5) else { panic!() };
        session.ask();
        session.prove();
        assert_eq!(session.take_proof(), None, "the redelivery is not acknowledged");
        session.acknowledge(token);
        session.ask();
        session.prove();
        assert_eq!(session.take_proof(), Some(MarkEvent::Proven { session: 1, count: 2 }));
    }

    #[test]
    fn an_id_used_again_between_ping_and_answer_takes_nothing_from_younger_marks() {
        let mut session = session();
        for id in 1..=3 {
            let token = new(&mut session, id, 5);
            session.acknowledge(token);
        }
        session.ask();
        // Forgets the marks of 1 and 2; only that of 3 is left to be proven.
        new(&mut session, 2, 6);
        session.prove();
        assert_eq!(session.take_proof(), Some(MarkEvent::Proven { session: 1, count: 1 }));
        assert_eq!(session.marks.iter().collect::<Vec<_>>(), [(2, 6)]);
    }

    #[test]
    fn a_mark_out_of_order_is_not_proven_while_its_message_waits() {
        // 1 was refused and so comes after 2 in the marks, although the broker sends it first.
        let mut before = session();
        new(&mut before, 2, 5);
        let mut session = reconnected(&before);
        let first = new(&mut session, 1, 5);
        session.receive(2, true, 5);
        session.acknowledge(first);
        session.ask();
        session.prove();
        assert_eq!(session.take_proof(), None);
    }

    #[test]
    fn a_proof_the_ledger_was_not_told_of_outlives_the_connection() {
        let mut before = session();
        for id in 1..=2 {
            let token = new(&mut before, id, 5);
            before.acknowledge(token);
        }
        let committed = before.marks.clone();
        before.ask();
        before.prove();
        let mut session = Session::new(StoredSession { id: 1, marks: committed, present: true }, before.untold());
        assert!(matches!(session.receive(1, true, 5), Received::New { .. }));
        assert_eq!(session.take_proof(), Some(MarkEvent::Proven { session: 1, count: 2 }));
    }

    /// What the ledger makes of the events must be what the session holds in memory, whatever happens.
    #[test]
    fn the_events_handed_in_rebuild_the_same_marks() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(7);
        let mut ledger = SessionMarks::default();
        let mut session = session();
        let mut waiting = VecDeque::new();
        for step in 0..20_000_u64 {
            match random.random_range(0..10) {
                0 => session.ask(),
                1 => session.prove(),
                2..=5 => {
                    if let Some(token) = waiting.pop_front() {
                        assert!(session.acknowledge(token).is_some());
                    }
                }
                _ => {
                    let (id, dup, digest) = (random.random_range(1..=8), random.random(), random.random_range(0..3));
                    let proof = session.take_proof();
                    match session.receive(id, dup, digest) {
                        Received::New { token, mark } => {
                            proof.iter().chain([&mark]).for_each(|event| ledger.apply(event));
                            waiting.push_back(token);
                        }
                        Received::Duplicate { token } => {
                            proof.iter().for_each(|event| ledger.apply(event));
                            waiting.push_back(token);
                        }
                        Received::Again => proof.iter().for_each(|event| ledger.apply(event)),
                    }
                    assert!(ledger.iter().eq(session.marks.iter()), "step {step}");
                }
            }
        }
    }
}
