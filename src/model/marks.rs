//! Marks: which message of a session each packet id stood for last, so that a redelivery is stored once.
//!
//! MQTT lets a sender use a packet id again only after it has read the acknowledgement of the message before, and
//! acknowledgements are read in the order they were sent (MQTT 3.1.1, 2.3.1 and 4.6). So an id used again proves that
//! this acknowledgement and all earlier ones arrived: their marks can go.
//!
//! A message at QoS 2 is held from its commit until its sender releases it (PUBREL); meanwhile its id stands for it,
//! whatever the DUP flag says. The digest is kept beside the id, because a sender that lost its memory and begins its
//! ids anew would otherwise have new messages acknowledged and thrown away.

use std::collections::{BTreeMap, HashMap, VecDeque};

use sha2::{Digest as _, Sha256};

/// The ledger's number of a session.
pub type SessionId = u32;

/// What one message was: the first eight bytes of SHA-256 over topic, a zero byte and payload.
pub type MessageDigest = u64;

/// The digest that tells one message from another.
pub fn message_digest(topic: &[u8], payload: &[u8]) -> MessageDigest {
    let mut hasher = Sha256::new();
    hasher.update(topic);
    hasher.update([0]);
    hasher.update(payload);
    let digest: [u8; 32] = hasher.finalize().into();
    let mut head = [0; 8];
    head.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(head)
}

/// A change of the marks, committed with the batch that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkEvent {
    /// The session's message at QoS 1 with this packet id was accepted.
    Noted {
        /// The session.
        session: SessionId,
        /// The packet id.
        packet_id: u16,
        /// The message.
        digest: MessageDigest,
    },
    /// The peer has read the acknowledgements of the session's oldest `count` marks.
    Proven {
        /// The session.
        session: SessionId,
        /// How many marks, oldest first.
        count: u32,
    },
    /// The session's message at QoS 2 with this packet id was accepted, and is held until it is released.
    Received {
        /// The session.
        session: SessionId,
        /// The packet id.
        packet_id: u16,
        /// The message.
        digest: MessageDigest,
    },
    /// The message at QoS 2 with this packet id is held no longer.
    Released {
        /// The session.
        session: SessionId,
        /// The packet id.
        packet_id: u16,
    },
    /// The session ended, and its marks with it.
    Ended {
        /// The session.
        session: SessionId,
    },
}

impl MarkEvent {
    /// The session it changes.
    pub fn session(&self) -> SessionId {
        match *self {
            Self::Noted { session, .. }
            | Self::Proven { session, .. }
            | Self::Received { session, .. }
            | Self::Released { session, .. }
            | Self::Ended { session } => session,
        }
    }

    /// What becomes of it when its message is rejected: nothing is held then.
    pub fn of_rejected(self) -> Self {
        match self {
            Self::Received { session, packet_id, .. } => Self::Released { session, packet_id },
            other => other,
        }
    }
}

/// The marks of one session, oldest first, with the place of each packet id's mark so that a lookup costs no scan, and the
/// messages at QoS 2 that it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SessionMarks {
    marks: VecDeque<(u16, MessageDigest)>,
    /// How many marks have left at the front: ordinal minus `gone` is a mark's place.
    gone: u64,
    ordinals: HashMap<u16, u64>,
    /// By packet id.
    held: BTreeMap<u16, MessageDigest>,
}

impl SessionMarks {
    /// Whether a message that came with DUP set is the one last accepted under its packet id.
    pub fn is_redelivery(&self, packet_id: u16, digest: MessageDigest) -> bool {
        self.place(packet_id).and_then(|place| self.marks.get(place)).is_some_and(|(_, known)| *known == digest)
    }

    /// Whether a message at QoS 2 is the one held under its packet id.
    pub fn is_held(&self, packet_id: u16, digest: MessageDigest) -> bool {
        self.held.get(&packet_id) == Some(&digest)
    }

    /// Whether a message is held under `packet_id`.
    pub fn holds(&self, packet_id: u16) -> bool {
        self.held.contains_key(&packet_id)
    }

    /// Takes one event of the session into account.
    pub fn apply(&mut self, event: &MarkEvent) {
        match *event {
            MarkEvent::Noted { packet_id, digest, .. } => {
                self.use_again(packet_id);
                self.ordinals.insert(packet_id, self.gone + self.marks.len() as u64);
                self.marks.push_back((packet_id, digest));
            }
            MarkEvent::Proven { count, .. } => self.forget_oldest(count as usize),
            MarkEvent::Received { packet_id, digest, .. } => {
                self.use_again(packet_id);
                self.held.insert(packet_id, digest);
            }
            MarkEvent::Released { packet_id, .. } => self.use_again(packet_id),
            MarkEvent::Ended { .. } => {
                self.forget_oldest(self.marks.len());
                self.held.clear();
            }
        }
    }

    /// The sender uses `packet_id` again: it is done with what the id stood for.
    fn use_again(&mut self, packet_id: u16) {
        if let Some(place) = self.place(packet_id) {
            self.forget_oldest(place + 1);
        }
        self.held.remove(&packet_id);
    }

    /// How many marks are older than the one of `packet_id`.
    pub fn place(&self, packet_id: u16) -> Option<usize> {
        let ordinal = self.ordinals.get(&packet_id)?;
        usize::try_from(ordinal.checked_sub(self.gone)?).ok()
    }

    fn forget_oldest(&mut self, count: usize) {
        for (packet_id, _) in self.marks.drain(..count.min(self.marks.len())) {
            self.ordinals.remove(&packet_id);
            self.gone += 1;
        }
    }

    /// How many marks of QoS 1 there are: at most 65,535, one a packet id.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// How many messages at QoS 2 are held: at most 65,535.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether there are neither marks nor held messages.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.held.is_empty()
    }

    /// The marks of QoS 1, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u16, MessageDigest)> + '_ {
        self.marks.iter().copied()
    }

    /// The messages at QoS 2 that are held, by packet id.
    pub fn iter_held(&self) -> impl Iterator<Item = (u16, MessageDigest)> + '_ {
        self.held.iter().map(|(packet_id, digest)| (*packet_id, *digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(packet_id: u16, digest: MessageDigest) -> MarkEvent {
        MarkEvent::Noted { session: 1, packet_id, digest }
    }

    #[test]
    fn an_id_used_again_forgets_all_marks_up_to_its_own() {
        let mut marks = SessionMarks::default();
        for id in 1..=5 {
            marks.apply(&noted(id, u64::from(id)));
        }
        marks.apply(&noted(3, 33));
        assert_eq!(marks.iter().collect::<Vec<_>>(), [(4, 4), (5, 5), (3, 33)]);
        assert!(marks.is_redelivery(3, 33) && marks.is_redelivery(4, 4));
        assert!(!marks.is_redelivery(3, 3) && !marks.is_redelivery(1, 1));
    }

    #[test]
    fn proven_marks_go_oldest_first_and_the_rest_stay() {
        let mut marks = SessionMarks::default();
        for id in 1..=4 {
            marks.apply(&noted(id, 7));
        }
        marks.apply(&MarkEvent::Proven { session: 1, count: 3 });
        assert!(!marks.is_redelivery(3, 7) && marks.is_redelivery(4, 7));
        marks.apply(&MarkEvent::Ended { session: 1 });
        assert!(marks.is_empty());
    }

    fn received(packet_id: u16, digest: MessageDigest) -> MarkEvent {
        MarkEvent::Received { session: 1, packet_id, digest }
    }

    #[test]
    fn a_message_is_held_until_it_is_released() {
        let mut marks = SessionMarks::default();
        marks.apply(&received(5, 50));
        marks.apply(&received(6, 60));
        assert!(marks.is_held(5, 50) && marks.is_held(6, 60) && !marks.is_held(5, 51));
        marks.apply(&MarkEvent::Released { session: 1, packet_id: 5 });
        marks.apply(&MarkEvent::Released { session: 1, packet_id: 9 });
        assert_eq!(marks.iter_held().collect::<Vec<_>>(), [(6, 60)]);
        assert!(!marks.holds(5) && marks.holds(6) && !marks.is_empty());
        marks.apply(&MarkEvent::Ended { session: 1 });
        assert!(marks.is_empty());
    }

    #[test]
    fn an_id_stands_for_one_message_whatever_its_qos() {
        let mut marks = SessionMarks::default();
        for id in 1..=3 {
            marks.apply(&noted(id, 7));
        }
        marks.apply(&received(2, 8));
        assert_eq!(marks.iter().collect::<Vec<_>>(), [(3, 7)], "the acknowledgements before it have arrived");
        marks.apply(&noted(2, 9));
        assert!(!marks.holds(2) && marks.is_redelivery(2, 9));
        marks.apply(&MarkEvent::Released { session: 1, packet_id: 2 });
        assert!(marks.is_empty());
    }

    #[test]
    fn of_a_rejected_message_nothing_is_held_and_the_rest_is_as_if_it_had_been() {
        let (mut memory, mut ledger) = (SessionMarks::default(), SessionMarks::default());
        for event in [noted(1, 7), noted(2, 7), received(2, 8)] {
            memory.apply(&event);
        }
        memory.apply(&received(2, 8).of_rejected());
        for event in [noted(1, 7), noted(2, 7), received(2, 8).of_rejected()] {
            ledger.apply(&event);
        }
        assert!(memory == ledger && ledger.is_empty());
        assert_eq!(noted(1, 7).of_rejected(), noted(1, 7));
    }

    #[test]
    fn marks_never_outnumber_packet_ids() {
        let mut marks = SessionMarks::default();
        for round in 0..3 {
            for id in 1..=u16::MAX {
                marks.apply(&noted(id, round));
            }
        }
        assert_eq!(marks.len(), usize::from(u16::MAX));
    }
}
