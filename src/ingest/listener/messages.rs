//! What becomes of a sensor's messages: their topics are completed, they are handed in, and those at QoS 2 are released.

use std::num::NonZeroU16;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::poll;
use tokio::time::{Instant, sleep_until};

use super::error::End;
use super::frame::SAMPLE_BYTES;
use super::owed::Label;
use super::packet::{self, Dialect, Incoming, Publish, QoS};
use super::talk::Talk;
use super::wire::Socket;
use crate::ingest::{Content, Delivery, Message};
use crate::model::MarkEvent;

impl<S: Socket> Talk<'_, S> {
    /// Takes a message. `shortened_from` is the length of its payload where only the beginning was kept.
    pub(super) async fn publish(&mut self, publish: Publish, shortened_from: Option<usize>) -> Result<(), End> {
        let Publish { dup, qos, packet_id, topic, alias, payload } = publish;
        let topic = self.aliases.resolve(topic, alias)?;
        let content = self.content(topic, payload, qos, shortened_from);
        let Some(packet_id) = packet_id else { return self.shared.offer(content) };
        let exactly_once = qos == QoS::ExactlyOnce;
        self.check_under_way(exactly_once)?;
        let counters = &self.shared.state;
        if exactly_once { &counters.messages_qos2 } else { &counters.messages_qos1 }.increase();
        let hurry = self.window.published(Instant::now());
        let (delivery, mark) = self.session.delivery(Label { packet_id, dup, exactly_once }, content, hurry);
        if matches!(delivery.content, Content::Duplicate { .. }) {
            counters.duplicates.increase();
        }
        self.hand_in(delivery, mark).await
    }

    /// A message that is too long is refused for good, and a sample of it kept. How long a message may be kept for others
    /// (its expiry) does not matter here: it is taken at once, and what was measured was measured.
    fn content(&self, topic: Arc<str>, payload: Bytes, qos: QoS, shortened_from: Option<usize>) -> Content {
        let (payload_bytes, allowed) = (shortened_from.unwrap_or(payload.len()), self.shared.limits.max_message_bytes);
        if payload_bytes > allowed {
            self.shared.state.too_long.increase();
            // A copy, so that the sample doesn't keep the whole message.
            let sample = Bytes::copy_from_slice(payload.get(..SAMPLE_BYTES).unwrap_or(&payload));
            return Content::Refused { topic, sample, qos: qos.value(), reason: format!("{payload_bytes} bytes, {allowed} are allowed") };
        }
        // RETAIN from a sensor is for subscribers to come; to us the message is live.
        Content::Message(Message { topic, payload, qos: qos.value(), retained: false, arrived: self.shared.clock.now() })
    }

    /// A sensor of version 5 was told how many messages may be under way. Of any other we hold as many at QoS 2, and no more.
    fn check_under_way(&self, exactly_once: bool) -> Result<(), End> {
        let most = self.shared.limits.max_unacknowledged;
        let too_many = match self.dialect {
            Dialect::V5 { .. } => self.window.unacknowledged() >= most.min(u16::MAX.into()),
            Dialect::V311 => false,
        };
        let held_too_many = exactly_once && self.session.held() >= most;
        if too_many || held_too_many { Err(End::TooManyUnderWay(most)) } else { Ok(()) }
    }

    /// The sender of a message at QoS 2 knows that we have it: that we held it can be forgotten. This must be durable before
    /// it is answered, and waits for the next commit like a message: a commit of its own for each would double the wear of
    /// the flash. Only for a sender that can do nothing else meanwhile the commit hurries.
    pub(super) async fn release(&mut self, packet_id: NonZeroU16) -> Result<(), End> {
        fail::fail_point!("listener.before_release");
        let hurry = self.window.released(Instant::now());
        let (delivery, mark) = self.session.release(packet_id, hurry);
        self.hand_in(delivery, mark).await
    }

    /// Waits while the waiting room is full or there is no room on the disk: this holds the sensor back. What is no message
    /// goes on meanwhile, which may be days, or the sensor would take us for dead.
    async fn hand_in(&mut self, delivery: Delivery, mark: Option<MarkEvent>) -> Result<(), End> {
        let shared = self.shared;
        let mut sending = pin!(shared.intake.send(delivery));
        let mut sent = poll!(&mut sending);
        if sent.is_pending() {
            self.take_urgent().await?;
        }
        while sent.is_pending() {
            let reading = self.wire.may_hold_more();
            self.forgive(reading);
            let deadline = self.deadline();
            tokio::select! {
                biased;
                done = &mut sending => sent = Poll::Ready(done),
                () = self.leave.cancelled() => return Err(End::TakenOver),
                () = shared.stop.cancelled() => return Err(End::Stopping),
                settlement = self.session.settled() => self.acknowledge(settlement)?,
                moved = self.wire.exchange(reading) => {
                    if self.note_moved(moved?)? {
                        self.take_urgent().await?;
                    }
                }
                () = sleep_until(deadline) => self.expire(Instant::now())?,
            }
        }
        if let Poll::Ready(Err(_)) = sent {
            return Err(End::Stopping);
        }
        self.session.note(mark);
        Ok(())
    }

    /// Takes what is here and need not wait behind a message: pings, and releases of what is held, which bring nothing to keep.
    async fn take_urgent(&mut self) -> Result<(), End> {
        while let Some(packet) = self.wire.next_urgent(|id| self.session.holds(id)) {
            match packet::decode(self.dialect, packet)? {
                Incoming::Release { packet_id } => {
                    let (delivery, mark) = self.session.release(packet_id, self.window.released(Instant::now()));
                    tokio::select! {
                        biased;
                        sent = self.shared.intake.send(delivery) => sent.map_err(|_| End::Stopping)?,
                        () = self.leave.cancelled() => return Err(End::TakenOver),
                        () = self.shared.stop.cancelled() => return Err(End::Stopping),
                    }
                    self.session.note(mark);
                }
                Incoming::Ping => self.answer_ping(),
                _ => {}
            }
        }
        Ok(())
    }
}
