//! What a simulated sensor has sent and nobody has acknowledged. No I/O.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ingest::header::put_variable_length;

/// DUP in a PUBLISH's first byte.
const DUP: u8 = 0b1000;

/// A message under way, with its number in the order of sending.
#[derive(Debug, Clone)]
enum Message {
    /// Its frame, to be sent again.
    Sent(u64, Bytes),
    /// QoS 2: the receiver has it; what is to be sent again is its release.
    Released(u64),
}

impl Message {
    fn number(&self) -> u64 {
        match self {
            Self::Sent(number, _) | Self::Released(number) => *number,
        }
    }
}

/// Messages under way, by packet id, with the ids that are free. Ids are 1 to the window, so that a window of one uses
/// one id over and over, which is the hardest case for a receiver.
#[derive(Debug)]
pub struct Outbox {
    qos: u8,
    free: VecDeque<u16>,
    /// Place `id - 1` holds the message under way with `id`.
    under_way: Vec<Option<Message>>,
    sent: u64,
}

impl Outbox {
    /// Room for `window` messages with QoS 1 or 2; without bound and memory with QoS 0.
    pub fn new(qos: u8, window: u16) -> Self {
        Self { qos, free: (1..=window).collect(), under_way: vec![None; usize::from(window)], sent: 0 }
    }

    /// Whether another message may be sent.
    pub fn has_room(&self) -> bool {
        self.qos == 0 || !self.free.is_empty()
    }

    /// Whether everything sent is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.free.len() == self.under_way.len()
    }

    /// Appends a PUBLISH to `out` and keeps it until it is acknowledged. Call only with room.
    pub fn publish(&mut self, topic: &str, payload: &[u8], out: &mut BytesMut) {
        let begin = out.len();
        let id = if self.qos == 0 { None } else { self.free.pop_front() };
        out.put_u8(0x30 | self.qos << 1);
        put_variable_length(out, 2 + topic.len() + payload.len() + id.map_or(0, |_| 2));
        out.put_u16(u16::try_from(topic.len()).unwrap_or(u16::MAX));
        out.put_slice(topic.as_bytes());
        if let Some(id) = id {
            out.put_u16(id);
        }
        out.put_slice(payload);
        self.sent += 1;
        let number = self.sent;
        if let Some(place) = id.and_then(|id| self.place(id)) {
            *place = out.get(begin..).map(|frame| Message::Sent(number, Bytes::copy_from_slice(frame)));
        }
    }

    fn place(&mut self, id: u16) -> Option<&mut Option<Message>> {
        self.under_way.get_mut(usize::from(id).checked_sub(1)?)
    }

    /// Takes a PUBREC, and appends the PUBREL to `out`, which it is owed in any case.
    pub fn release(&mut self, id: u16, out: &mut BytesMut) {
        if let Some(Some(message)) = self.place(id) {
            *message = Message::Released(message.number());
        }
        put_release(out, id);
    }

    /// Takes a PUBACK, or at QoS 2 a PUBCOMP; `false` if no message with `id` waited for it.
    pub fn acknowledge(&mut self, id: u16) -> bool {
        let exactly_once = self.qos == 2;
        let complete = |message: &mut Message| exactly_once == matches!(message, Message::Released(_));
        let known = self.place(id).and_then(|place| place.take_if(complete)).is_some();
        if known {
            self.free.push_back(id);
        }
        known
    }

    /// Appends everything under way to `out` again, in the order it was first sent. A receiver that still knows our
    /// session is told that it is sent again; for another one it is new.
    pub fn resend(&self, session_present: bool, out: &mut BytesMut) {
        let of_id = (1..).zip(&self.under_way);
        let mut messages: Vec<(u16, &Message)> = of_id.filter_map(|(id, message)| message.as_ref().map(|message| (id, message))).collect();
        messages.sort_unstable_by_key(|(_, message)| message.number());
        for (id, message) in messages {
            let Message::Sent(_, frame) = message else {
                put_release(out, id);
                continue;
            };
            let begin = out.len();
            out.put_slice(frame);
            if let Some(first) = out.get_mut(begin).filter(|_| session_present) {
                *first |= DUP;
            }
        }
    }
}

/// PUBREL.
fn put_release(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x62, 2]);
    out.put_u16(id);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rumqttc::mqttbytes::v4::{Packet, Publish};

    fn read(bytes: &mut BytesMut) -> Vec<Publish> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            match Packet::read(bytes, usize::MAX).unwrap() {
                Packet::Publish(publish) => messages.push(publish),
                other => panic!("{other:?}"),
            }
        }
        messages
    }

    #[test]
    fn messages_are_written_as_the_standard_says() {
        for length in [0, 1, 100, 127, 128, 20_000, 3_000_000] {
            for qos in [0, 1, 2] {
                let (payload, mut out) = (vec![b'x'; length], BytesMut::new());
                Outbox::new(qos, 1).publish("a/b", &payload, &mut out);
                let [message] = &read(&mut out)[..] else { panic!() };
                assert_eq!((message.topic.as_str(), &message.payload[..]), ("a/b", &payload[..]));
                assert_eq!((message.qos as u8, message.pkid, message.dup), (qos, qos.min(1).into(), false));
            }
        }
    }

    #[test]
    fn a_window_of_one_uses_one_id_over_and_over() {
        let (mut outbox, mut out) = (Outbox::new(1, 1), BytesMut::new());
        for _ in 0..3 {
            assert!(outbox.has_room());
            outbox.publish("t", b"p", &mut out);
            assert!(!outbox.has_room());
            assert!(!outbox.acknowledge(2) && outbox.acknowledge(1) && !outbox.acknowledge(1));
            assert!(outbox.is_empty());
        }
        assert!(read(&mut out).iter().all(|message| message.pkid == 1));
    }

    #[test]
    fn at_qos_2_a_message_is_complete_when_its_release_is_confirmed() {
        let (mut outbox, mut out) = (Outbox::new(2, 2), BytesMut::new());
        outbox.publish("t", b"1", &mut out);
        outbox.publish("t", b"2", &mut out);
        assert!(!outbox.acknowledge(1), "it is not released");
        out.clear();
        outbox.release(1, &mut out);
        assert_eq!(&out[..], b"\x62\x02\0\x01");
        out.clear();
        outbox.resend(true, &mut out);
        assert_eq!(&out[..], b"\x62\x02\0\x01\x3c\x06\0\x01t\0\x022");
        assert!(outbox.acknowledge(1) && !outbox.acknowledge(1) && !outbox.is_empty());
        outbox.release(2, &mut out);
        assert!(outbox.acknowledge(2) && outbox.is_empty());
    }

    #[test]
    fn what_is_not_acknowledged_is_sent_again_in_its_order() {
        let (mut outbox, mut out) = (Outbox::new(1, 3), BytesMut::new());
        for payload in ["1", "2", "3"] {
            outbox.publish("t", payload.as_bytes(), &mut out);
        }
        outbox.acknowledge(1);
        outbox.publish("t", b"4", &mut out);
        for session_present in [true, false] {
            out.clear();
            outbox.resend(session_present, &mut out);
            let again: Vec<_> = read(&mut out).into_iter().map(|message| (message.pkid, message.dup, message.payload)).collect();
            let expected: [(u16, bool, Bytes); 3] =
                [(2, session_present, "2".into()), (3, session_present, "3".into()), (1, session_present, "4".into())];
            assert_eq!(again, expected);
        }
    }
}
