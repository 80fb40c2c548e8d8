//! What is said between CONNACK and the end: packets come, acknowledgements go, time runs.

use std::num::NonZeroU16;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::aliases::Aliases;
use super::error::End;
use super::frame::Frame;
use super::handshake::Guest;
use super::owed::{Owed, Settlement};
use super::packet::{self, Dialect, Incoming, Reason};
use super::session::Session;
use super::wire::{Moved, Socket, Wire};
use crate::ingest::{Rejection, Window};

/// Everything between CONNACK and the end.
pub(super) async fn converse<S: Socket>(shared: &Shared, wire: &mut Wire<S>, guest: &mut Guest) -> End {
    let leave = guest.seat.leave().clone();
    let Some(session) = guest.seat.left.session.as_mut() else { return End::Refused("it has no session") };
    let now = Instant::now();
    let mut talk = Talk {
        shared,
        wire,
        dialect: guest.dialect,
        session,
        leave,
        window: Window::learning(),
        aliases: Aliases::default(),
        patience: guest.patience.unwrap_or(shared.limits.idle),
        heard: now,
        wrote: now,
        stopping: None,
        long: None,
    };
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

/// One conversation; what becomes of messages is in `messages`.
pub(super) struct Talk<'a, S> {
    pub(super) shared: &'a Shared,
    pub(super) wire: &'a mut Wire<S>,
    pub(super) dialect: Dialect,
    pub(super) session: &'a mut Session,
    /// Another connection of this client came.
    pub(super) leave: CancellationToken,
    pub(super) window: Window,
    pub(super) aliases: Aliases,
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
        let reading = self.has_room();
        let now = self.forgive(reading);
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
        if self.note_moved(moved)? {
            self.take_packets().await?;
            if self.session.unsettled_here() > 0 {
                self.wire.acknowledge_receipt();
            }
        }
        Ok(())
    }

    /// Whether bytes came.
    pub(super) fn note_moved(&mut self, moved: Moved) -> Result<bool, End> {
        let now = Instant::now();
        if moved.written > 0 {
            self.wrote = now;
        }
        match moved.read {
            None => Ok(false),
            Some(0) => Err(End::Closed),
            Some(_) => {
                self.heard = now;
                Ok(true)
            }
        }
    }

    /// Whom we do not listen to is not silent, and whom we tell nothing is not slow to read.
    pub(super) fn forgive(&mut self, reading: bool) -> Instant {
        let now = Instant::now();
        if !reading {
            self.heard = now;
        }
        if !self.wire.is_writing() {
            self.wrote = now;
        }
        now
    }

    pub(super) fn answer_ping(&mut self) {
        self.shared.state.pings.increase();
        self.dialect.put_pingresp(&mut self.wire.outbound);
    }

    /// Whether another packet may be taken. A sensor of version 5 knows how much may be under way, and is held to it; any
    /// other is not read from beyond that. What waits for its release does not count then: that must be read.
    fn has_room(&self) -> bool {
        let full = self.dialect == Dialect::V311 && self.session.unsettled_here() >= self.shared.limits.max_unacknowledged;
        self.stopping.is_none() && !full && !self.wire.is_stuffed()
    }

    pub(super) fn deadline(&self) -> Instant {
        let limits = &self.shared.limits;
        let ends = [self.stopping, self.long.as_ref().map(|long| long.deadline)];
        let silent = self.heard + self.patience;
        ends.into_iter().flatten().chain([self.wrote + limits.write]).fold(silent, Instant::min)
    }

    /// The deadline came: is anything really due?
    pub(super) fn expire(&self, now: Instant) -> Result<(), End> {
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
                Frame::Whole(packet) => self.take(packet::decode(self.dialect, packet)?, None).await?,
                Frame::Shortened { packet, payload_bytes } => {
                    self.take(packet::decode(self.dialect, packet)?, Some(payload_bytes)).await?;
                }
            }
        }
        Ok(())
    }

    async fn take(&mut self, packet: Incoming, shortened_from: Option<usize>) -> Result<(), End> {
        let outbound = &mut self.wire.outbound;
        match packet {
            Incoming::Publish(publish) => return self.publish(*publish, shortened_from).await,
            Incoming::Release { packet_id } => return self.release(packet_id).await,
            Incoming::Ping => self.answer_ping(),
            Incoming::Subscribe { packet_id, refusals } => {
                self.shared.state.subscriptions_refused.add(refusals.len() as u64);
                self.dialect.put_suback(outbound, packet_id, &refusals);
            }
            Incoming::Unsubscribe { packet_id, filters } => self.dialect.put_unsuback(outbound, packet_id, filters),
            Incoming::Disconnect { with_will, expiry } => {
                self.change_expiry(expiry)?;
                return Err(End::Disconnected { with_will });
            }
        }
        Ok(())
    }

    /// A session that was to end with the connection can't be made to stay (MQTT 5, 3.14.2.2.2).
    fn change_expiry(&mut self, expiry: Option<Duration>) -> Result<(), End> {
        let Some(expiry) = expiry else { return Ok(()) };
        if self.session.expiry() == Some(Duration::ZERO) && !expiry.is_zero() {
            return Err(End::OutOfPlace("a session that ends with its connection is to outlive it"));
        }
        self.session.set_expiry(Some(expiry));
        Ok(())
    }

    /// Writes the acknowledgements of all that is settled, so that one write carries those of a batch.
    pub(super) fn acknowledge(&mut self, first: Settlement) -> Result<(), End> {
        fail::fail_point!("listener.before_puback");
        let now = Instant::now();
        let mut next = Some(first);
        while let Some(settlement) = next {
            match settlement {
                Settlement::Acknowledge { owed, packet_id, rejection } => {
                    if self.answer(owed, packet_id, self.reason(rejection)) {
                        self.window.acknowledged(1, now);
                        self.shared.state.acknowledged.increase();
                    }
                }
                Settlement::Earlier => {}
                Settlement::NotTaken(reason) => return Err(End::NotTaken(reason)),
            }
            next = self.session.settled_already();
        }
        Ok(())
    }

    /// Writes one; whether its message is complete with it.
    fn answer(&mut self, owed: Owed, packet_id: NonZeroU16, reason: Reason) -> bool {
        let (dialect, outbound) = (self.dialect, &mut self.wire.outbound);
        match owed {
            Owed::Puback => {
                dialect.put_puback(outbound, packet_id, reason);
                true
            }
            Owed::Pubrec => {
                dialect.put_pubrec(outbound, packet_id, reason);
                if reason.is_error() {
                    self.session.let_go(packet_id);
                } else {
                    self.window.asked(1);
                }
                reason.is_error()
            }
            Owed::Pubcomp => {
                fail::fail_point!("listener.before_pubcomp");
                dialect.put_pubcomp(outbound, packet_id, Reason::Success);
                true
            }
            Owed::PubcompOfNothing => {
                dialect.put_pubcomp(outbound, packet_id, Reason::UnknownId);
                false
            }
        }
    }

    /// What a message is acknowledged with. Whatever is rejected would be again: the sensor must not send it for ever, so
    /// that it is told success where the version has no words for the reason.
    fn reason(&self, rejection: Option<Rejection>) -> Reason {
        match (self.dialect, rejection) {
            (Dialect::V311, _) | (_, None) => Reason::Success,
            (_, Some(Rejection::Unreadable)) => Reason::Payload,
            (_, Some(Rejection::BeyondLimits)) => Reason::Quota,
        }
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
