//! What is said between CONNACK and the end: messages come, acknowledgements go, time runs.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rmqtt_codec::types::Publish;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::error::End;
use super::frame::{Frame, SAMPLE_BYTES};
use super::handshake::Guest;
use super::packet::{self, Incoming, QoS};
use super::session::{Session, Settlement};
use super::wire::{Moved, Socket, Wire};
use crate::ingest::{Content, Delivery, Message, Window};

/// Everything between CONNACK and the end.
pub(super) async fn converse<S: Socket>(shared: &Shared, wire: &mut Wire<S>, guest: &mut Guest) -> End {
    let leave = guest.seat.leave().clone();
    let Some(session) = guest.seat.session.as_mut() else { return End::Refused("it has no session") };
    let now = Instant::now();
    let patience = guest.patience.unwrap_or(shared.limits.idle);
    let window = Window::learning();
    let mut talk = Talk { shared, wire, session, leave, window, patience, heard: now, wrote: now, stopping: None, long: None };
    loop {
        if let Err(end) = talk.step().await {
            return end;
        }
    }
}

/// A long packet that is being received, with its share of the memory for those.
struct Long {
    _share: OwnedSemaphorePermit,
    deadline: Instant,
}

struct Talk<'a, S> {
    shared: &'a Shared,
    wire: &'a mut Wire<S>,
    session: &'a mut Session,
    /// Another connection of this client came.
    leave: CancellationToken,
    window: Window,
    /// How long it may be silent.
    patience: Duration,
    /// When bytes came last, or when we last did not listen.
    heard: Instant,
    /// When bytes could be written last, or when there was nothing to write.
    wrote: Instant,
    /// Since the daemon stops: when to end at the latest.
    stopping: Option<Instant>,
    long: Option<Long>,
}

impl<S: Socket> Talk<'_, S> {
    /// Takes what is here, then waits for one thing to happen.
    async fn step(&mut self) -> Result<(), End> {
        self.take_packets().await?;
        if self.stopping.is_some() && self.session.unsettled_here() == 0 && !self.wire.is_writing() {
            return Err(End::Stopping);
        }
        self.make_room_for_long_packet().await?;
        let now = Instant::now();
        let reading = self.has_room();
        if !reading {
            self.heard = now;
        }
        if !self.wire.is_writing() {
            self.wrote = now;
        }
        let deadline = self.deadline();
        tokio::select! {
            biased;
            () = self.leave.cancelled() => Err(End::TakenOver),
            () = self.shared.stop.cancelled(), if self.stopping.is_none() => {
                self.stopping = Some(now + self.shared.limits.stop);
                Ok(())
            }
            settlement = self.session.settled() => self.acknowledge(settlement),
            moved = self.wire.exchange(reading) => self.moved(moved?).await,
            () = tokio::time::sleep_until(deadline) => self.expire(Instant::now()),
        }
    }

    async fn moved(&mut self, moved: Moved) -> Result<(), End> {
        let now = Instant::now();
        if moved.written > 0 {
            self.wrote = now;
        }
        match moved.read {
            None => Ok(()),
            Some(0) => Err(End::Closed),
            Some(_) => {
                self.heard = now;
                self.take_packets().await?;
                if self.session.unsettled_here() > 0 {
                    self.wire.acknowledge_receipt();
                }
                Ok(())
            }
        }
    }

    /// Whether another packet may be taken.
    fn has_room(&self) -> bool {
        let full = self.window.unacknowledged() >= self.shared.limits.max_unacknowledged;
        self.stopping.is_none() && !full && !self.wire.is_stuffed()
    }

    fn deadline(&self) -> Instant {
        let limits = &self.shared.limits;
        let ends = [self.stopping, self.long.as_ref().map(|long| long.deadline)];
        let silent = self.heard + self.patience;
        ends.into_iter().flatten().chain([self.wrote + limits.write]).fold(silent, Instant::min)
    }

    /// The deadline came: is anything really due?
    fn expire(&self, now: Instant) -> Result<(), End> {
        let limits = &self.shared.limits;
        if self.stopping.is_some_and(|deadline| now >= deadline) {
            return Err(End::Stopping);
        }
        if self.wire.is_writing() && now >= self.wrote + limits.write {
            return Err(End::NotReading);
        }
        let too_slow = self.long.as_ref().is_some_and(|long| now >= long.deadline);
        if too_slow || now >= self.heard + self.patience {
            return Err(End::Silent);
        }
        Ok(())
    }

    async fn take_packets(&mut self) -> Result<(), End> {
        while self.has_room() {
            let Some(frame) = self.wire.next_frame()? else { return Ok(()) };
            self.long = None;
            match frame {
                Frame::Whole(packet) => self.take(packet::decode(packet)?, None).await?,
                Frame::Shortened { packet, payload_bytes } => self.take(packet::decode(packet)?, Some(payload_bytes)).await?,
            }
        }
        Ok(())
    }

    async fn take(&mut self, packet: Incoming, shortened_from: Option<usize>) -> Result<(), End> {
        let outbound = &mut self.wire.outbound;
        match packet {
            Incoming::Publish(publish) => return self.publish(*publish, shortened_from).await,
            Incoming::Ping => {
                self.shared.state.pings.increase();
                packet::put_pingresp(outbound);
            }
            Incoming::Subscribe { packet_id, filters } => {
                self.shared.state.subscriptions_refused.add(filters as u64);
                packet::put_suback_refusing(outbound, packet_id, filters);
            }
            Incoming::Unsubscribe { packet_id } => packet::put_unsuback(outbound, packet_id),
            Incoming::Disconnect => return Err(End::Disconnected),
            Incoming::Connect(_) => return Err(End::OutOfPlace("a second CONNECT")),
        }
        Ok(())
    }

    async fn publish(&mut self, publish: Publish, shortened_from: Option<usize>) -> Result<(), End> {
        if publish.qos == QoS::ExactlyOnce {
            // 3.1.1 has no way to say so.
            self.shared.state.messages_qos2_refused.increase();
            return Err(End::OutOfPlace("a message at QoS 2, which is not supported yet"));
        }
        let payload_bytes = shortened_from.unwrap_or(publish.payload.len());
        let too_long = payload_bytes > self.shared.limits.max_message_bytes;
        let topic: Arc<str> = Arc::from(&*publish.topic);
        let qos = publish.qos.value();
        if too_long {
            self.shared.state.too_long.increase();
            // A copy, so that the sample doesn't keep the whole message.
            let sample = Bytes::copy_from_slice(publish.payload.get(..SAMPLE_BYTES).unwrap_or(&publish.payload));
            let reason = format!("{payload_bytes} bytes, {} are allowed", self.shared.limits.max_message_bytes);
            let content = Content::Refused { topic, sample, qos, reason };
            return match publish.packet_id {
                None => self.shared.offer(content),
                Some(packet_id) => {
                    let hurry = self.window.published(Instant::now());
                    let refusal = self.session.refusal(packet_id, content, hurry);
                    self.hand_in(refusal).await?;
                    self.session.note(None);
                    Ok(())
                }
            };
        }
        // RETAIN from a sensor is for subscribers to come; to us the message is live.
        let message = Message { topic, payload: publish.payload, qos, retained: false, arrived: self.shared.clock.now() };
        match publish.packet_id {
            None => self.shared.offer(Content::Message(message)),
            Some(packet_id) => self.deliver(packet_id, publish.dup, message).await,
        }
    }

    async fn deliver(&mut self, packet_id: NonZeroU16, dup: bool, message: Message) -> Result<(), End> {
        let hurry = self.window.published(Instant::now());
        let (delivery, mark) = self.session.delivery(packet_id, dup, message, hurry);
        if matches!(delivery.content, Content::Duplicate { .. }) {
            self.shared.state.duplicates.increase();
        }
        self.hand_in(delivery).await?;
        self.session.note(mark);
        Ok(())
    }

    /// Waits while the waiting room is full: this holds the sensor back.
    async fn hand_in(&mut self, delivery: Delivery) -> Result<(), End> {
        self.shared.state.messages_qos1.increase();
        tokio::select! {
            biased;
            sent = self.shared.intake.send(delivery) => sent.map_err(|_| End::Stopping),
            () = self.leave.cancelled() => Err(End::TakenOver),
            () = self.shared.stop.cancelled() => Err(End::Stopping),
        }
    }

    /// Writes the acknowledgements of all that is settled, so that one write carries those of a batch.
    fn acknowledge(&mut self, first: Settlement) -> Result<(), End> {
        fail::fail_point!("listener.before_puback");
        let mut acknowledged = 0;
        let mut next = Some(first);
        while let Some(settlement) = next {
            match settlement {
                Settlement::Acknowledge(packet_id) => {
                    packet::put_puback(&mut self.wire.outbound, packet_id);
                    acknowledged += 1;
                }
                Settlement::Earlier => {}
                Settlement::NotTaken(reason) => return Err(End::NotTaken(reason)),
            }
            next = self.session.settled_already();
        }
        self.window.acknowledged(acknowledged, Instant::now());
        self.shared.state.acknowledged.add(acknowledged as u64);
        Ok(())
    }

    /// A packet that does not fit the ordinary buffer needs a share of the memory for long ones before it is read on.
    async fn make_room_for_long_packet(&mut self) -> Result<(), End> {
        let Some(bytes) = self.wire.long_packet() else { return Ok(()) };
        if self.long.is_some() || self.stopping.is_some() {
            return Ok(());
        }
        let share = self.shared.long_share(bytes);
        let share = tokio::select! {
            biased;
            () = self.leave.cancelled() => return Err(End::TakenOver),
            () = self.shared.stop.cancelled() => return Ok(()),
            settlement = self.session.settled() => return self.acknowledge(settlement),
            share = share => share,
        };
        self.heard = Instant::now();
        self.long = share.map(|share| Long { _share: share, deadline: self.heard + self.shared.limits.long_packet });
        Ok(())
    }
}
