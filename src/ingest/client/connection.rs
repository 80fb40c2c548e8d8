//! One connection, from the CONNACK to its end: reads messages, hands them in, and acknowledges what is settled.
//!
//! Owns: the socket, the order of acknowledgements, the channel on which its deliveries are settled.
//! Does not own: the session's durable marks, the decision to connect again.
//! Invariants: a PUBACK is written only for a delivery settled as committed, and only for the oldest one waiting;
//! settlements have no way into another connection. Nothing is read while a delivery waits for room, and meanwhile
//! pings and acknowledgements go on, so that a slow disk holds the broker back without losing the connection.
//! On failure: ends with the reason, and leaves it to the broker to redeliver.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck, SubAck, Subscribe, SubscribeFilter, SubscribeReasonCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::session::{Received, Session};
use super::state::ClientState;
use super::wire::{Incoming, Publish, SAMPLE_BYTES, Wire, WireError, encode};
use crate::clock::SharedClock;
use crate::ingest::{Content, Delivery, Hurry, Intake, IntakeError, Message, Outcome, Receipt, Settled, Window};
use crate::model::message_digest;

/// Time for what is handed in to be settled and acknowledged before we go; within the deadline of the sources' stage.
const FAREWELL: Duration = Duration::from_secs(4);

/// The packet id of our only SUBSCRIBE in a connection.
const SUBSCRIBE_ID: u16 = 1;

/// What the connections of one client have in common.
pub struct Terms {
    /// Topic filters.
    pub topics: Vec<String>,
    /// Asked for each of them.
    pub qos: QoS,
    /// The broker's window of unacknowledged messages, as configured; 0: without limit.
    pub window: usize,
    /// A message beyond this is refused.
    pub max_message_bytes: usize,
    /// Between two PINGREQs; the broker waits three times as long.
    pub ping_interval: Duration,
    /// Where deliveries go.
    pub intake: Intake,
    /// For the time of arrival.
    pub clock: SharedClock,
    /// For status.
    pub state: Arc<ClientState>,
}

/// Why a connection is over.
#[derive(Debug)]
pub enum End {
    /// We were told to stop.
    Stopped,
    /// The pump is gone.
    IntakeClosed,
    /// It failed; connect again.
    Lost(Lost),
}

impl<E: Into<Lost>> From<E> for End {
    fn from(lost: E) -> Self {
        Self::Lost(lost.into())
    }
}

/// How a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// On the wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Nothing came since the last PINGREQ.
    #[error("the broker does not answer any more")]
    Silent,
    /// The broker sends again what it sent, but only to a new connection.
    #[error("a message could not be stored and is to be sent again: {0}")]
    NotStored(String),
    /// The ledger has no room to open our session.
    #[error("the session can't be kept now: {0}")]
    NoSession(String),
    /// A settlement for another delivery than the oldest; going on would acknowledge the wrong message.
    #[error("delivery {0} was settled out of its turn")]
    OutOfTurn(u64),
    /// The standard has the broker lower QoS 2 to what we asked for.
    #[error("the broker sent a message with QoS 2, which was not asked for")]
    UnaskedQos,
}

/// A delivery (and a proof before it) that waits for room.
type HandingIn = Pin<Box<dyn Future<Output = Result<(), IntakeError>> + Send>>;

enum Event {
    Read(Option<Result<Incoming, WireError>>),
    HandedIn(Result<(), IntakeError>),
    Settled(Settled),
    Written(std::io::Result<()>),
    PingDue,
    Stop,
    FarewellOver,
}

/// One connection at work.
pub struct Connection<'a> {
    terms: &'a Terms,
    session: Session,
    /// Hurries when the configured window is full.
    window: Window,
    /// Hurries when the broker's real window, where it is smaller than configured, is full.
    learned: Window,
    /// To be written.
    out: BytesMut,
    handing_in: Option<HandingIn>,
    receipts: mpsc::UnboundedSender<Settled>,
    settled: mpsc::UnboundedReceiver<Settled>,
    unanswered_pings: u32,
    /// Whether anything was read since the last PINGREQ.
    heard: bool,
    /// Set when we are to stop: when to go at the latest.
    farewell: Option<Instant>,
    subscribed: bool,
}

/// What a connection leaves behind.
pub struct Remains {
    /// Why it is over.
    pub end: End,
    /// Proven marks that the ledger was not told of.
    pub untold: u32,
    /// Whether the broker took every filter.
    pub subscribed: bool,
    /// Settlements still to come; closed when there are none.
    pub settled: mpsc::UnboundedReceiver<Settled>,
}

impl<'a> Connection<'a> {
    /// A connection for `session`, whose filters the broker has (`subscribed`) or has not.
    pub fn new(terms: &'a Terms, session: Session, subscribed: bool) -> Self {
        let (receipts, settled) = mpsc::unbounded_channel();
        Self {
            terms,
            session,
            window: Window::fixed(terms.window),
            learned: Window::learning(),
            out: BytesMut::new(),
            handing_in: None,
            receipts,
            settled,
            unanswered_pings: 0,
            heard: false,
            farewell: None,
            subscribed,
        }
    }

    /// Works until the connection is over.
    pub async fn run(mut self, wire: Wire, stop: &CancellationToken) -> Remains {
        if !self.subscribed {
            self.subscribe();
        }
        let end = self.exchange(wire, stop).await;
        Remains { end, untold: self.session.untold(), subscribed: self.subscribed, settled: self.settled }
    }

    /// Every arm waits without side effects, so that losing the race costs nothing.
    async fn exchange(&mut self, wire: Wire, stop: &CancellationToken) -> End {
        let Wire { mut reader, mut writer, .. } = wire;
        let mut pings = tokio::time::interval_at(Instant::now() + self.terms.ping_interval, self.terms.ping_interval);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let leaving = self.farewell.is_some();
            if leaving && self.handing_in.is_none() && self.session.unacked() == 0 && !writer.is_busy(&self.out) {
                break;
            }
            let event = tokio::select! {
                frame = reader.next(), if self.handing_in.is_none() && !leaving => Event::Read(frame),
                handed = handed_in(&mut self.handing_in), if self.handing_in.is_some() => Event::HandedIn(handed),
                Some(settled) = self.settled.recv() => Event::Settled(settled),
                written = writer.write(&mut self.out), if writer.is_busy(&self.out) => Event::Written(written),
                _ = pings.tick() => Event::PingDue,
                () = stop.cancelled(), if !leaving => Event::Stop,
                () = farewell_over(self.farewell), if leaving => Event::FarewellOver,
            };
            if let Err(end) = self.handle(event) {
                return end;
            }
        }
        encode(&Packet::Disconnect, &mut self.out);
        // Whether the broker hears it makes no difference to what it keeps for us.
        let _ = tokio::time::timeout(Duration::from_secs(1), writer.write_all(&mut self.out)).await;
        End::Stopped
    }

    fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Read(frame) => self.take(frame.ok_or(WireError::Closed)??)?,
            Event::HandedIn(handed) => {
                self.handing_in = None;
                handed.map_err(|_| End::IntakeClosed)?;
            }
            Event::Settled(settled) => self.acknowledge_all(settled)?,
            Event::Written(written) => written.map_err(WireError::from)?,
            Event::PingDue => self.ping()?,
            Event::Stop => self.farewell = Some(Instant::now() + FAREWELL),
            Event::FarewellOver => return Err(End::Stopped),
        }
        Ok(())
    }

    fn subscribe(&mut self) {
        let filters = self.terms.topics.iter().map(|topic| SubscribeFilter::new(topic.clone(), self.terms.qos)).collect();
        encode(&Packet::Subscribe(Subscribe { pkid: SUBSCRIBE_ID, filters }), &mut self.out);
    }

    fn take(&mut self, incoming: Incoming) -> Result<(), End> {
        self.heard = true;
        match incoming {
            Incoming::Publish(publish) => self.hand_in(publish)?,
            Incoming::Packet(Packet::PingResp) => {
                if self.unanswered_pings > 0 {
                    self.unanswered_pings -= 1;
                    self.session.prove();
                }
            }
            Incoming::Packet(Packet::SubAck(answer)) => self.note_subscription(&answer),
            Incoming::Packet(Packet::UnsubAck(_)) => {}
            other => return Err(WireError::Unexpected(other.name()).into()),
        }
        Ok(())
    }

    fn note_subscription(&mut self, answer: &SubAck) {
        let mut refused = Vec::new();
        let codes = answer.return_codes.iter().map(Some).chain(std::iter::repeat(None));
        for (topic, code) in self.terms.topics.iter().zip(codes) {
            match code {
                Some(SubscribeReasonCode::Success(granted)) if *granted as u8 >= self.terms.qos as u8 => {}
                Some(SubscribeReasonCode::Success(_)) => {
                    tracing::warn!(topic, "the broker delivers this topic with QoS 0 only, so it does not keep what we miss");
                }
                Some(SubscribeReasonCode::Failure) | None => {
                    tracing::warn!(topic, "the broker refused the subscription; does its access list allow it?");
                    refused.push(topic.clone());
                }
            }
        }
        if refused.len() < self.terms.topics.len() {
            tracing::info!(topics = self.terms.topics.len() - refused.len(), "subscribed");
        }
        // What was refused is asked for again at the next connection.
        self.subscribed = refused.is_empty();
        self.terms.state.refuse_filters(refused);
    }

    fn hand_in(&mut self, publish: Publish) -> Result<(), End> {
        self.terms.state.count_message(publish.qos);
        match publish.qos {
            0 => self.hand_in_unacknowledged(publish)?,
            1 => self.hand_in_acknowledged(publish),
            _ => return Err(Lost::UnaskedQos.into()),
        }
        Ok(())
    }

    /// Nobody keeps a message with QoS 0 for us, so waiting for room would only lose others in the broker's queue.
    fn hand_in_unacknowledged(&mut self, publish: Publish) -> Result<(), End> {
        match self.terms.intake.offer(unacknowledged(self.content(publish))) {
            Err(IntakeError::Full) => self.terms.state.count_qos0_refused(),
            Err(IntakeError::Closed) => return Err(End::IntakeClosed),
            Ok(()) => {}
        }
        Ok(())
    }

    fn hand_in_acknowledged(&mut self, publish: Publish) {
        let digest = message_digest(&publish.topic, &publish.payload);
        let (token, mark, content) = match self.session.receive(publish.packet_id, publish.dup, digest) {
            Received::New { token, mark } => (token, Some(mark), self.content(publish)),
            Received::Duplicate { token } => {
                self.terms.state.count_redelivered();
                (token, None, Content::Duplicate { qos: publish.qos })
            }
            Received::Again => return,
        };
        let now = Instant::now();
        // The broker sends nothing more until we acknowledge.
        let hurry = self.window.published(now).max(self.learned.published(now));
        self.terms.state.set_unacknowledged(self.session.unacked());
        let receipt = Some(Receipt { to: self.receipts.clone(), token });
        let delivery = Delivery { mark, receipt, hurry, ..unacknowledged(content) };
        let proof = self.session.take_proof().map(|proof| Delivery { mark: Some(proof), ..unacknowledged(Content::Mark) });
        let intake = self.terms.intake.clone();
        self.handing_in = Some(Box::pin(async move {
            if let Some(proof) = proof {
                intake.send(proof).await?;
            }
            intake.send(delivery).await
        }));
    }

    /// What the message brings: what can never be taken is refused here, so that it does not come again and again.
    fn content(&self, publish: Publish) -> Content {
        let Publish { qos, retain: retained, .. } = publish;
        if publish.is_cut() {
            self.terms.state.count_oversized();
            let (length, limit) = (publish.length, self.terms.max_message_bytes);
            return refused(publish, format!("{length} bytes are more than ingest.max_message_bytes ({limit})"));
        }
        let fault = match std::str::from_utf8(&publish.topic) {
            Ok("") => "the topic is empty",
            Ok(topic) if topic.contains('\0') => "the topic holds a zero byte",
            Err(_) => "the topic is not UTF-8",
            Ok(topic) => {
                let (topic, arrived) = (Arc::from(topic), self.terms.clock.now());
                return Content::Message(Message { topic, payload: publish.payload, qos, retained, arrived });
            }
        };
        self.terms.state.count_malformed();
        refused(publish, fault.to_owned())
    }

    /// A commit settles many deliveries at once: one write for all of them.
    fn acknowledge_all(&mut self, first: Settled) -> Result<(), Lost> {
        let before = self.session.unacked();
        self.acknowledge(first)?;
        while let Ok(settled) = self.settled.try_recv() {
            self.acknowledge(settled)?;
        }
        let (count, now) = (before - self.session.unacked(), Instant::now());
        self.window.acknowledged(count, now);
        self.learned.acknowledged(count, now);
        self.terms.state.set_unacknowledged(self.session.unacked());
        Ok(())
    }

    fn acknowledge(&mut self, settled: Settled) -> Result<(), Lost> {
        fail::fail_point!("client.before_puback");
        match settled.outcome {
            Outcome::Committed | Outcome::Rejected(_) => {
                let packet_id = self.session.acknowledge(settled.token).ok_or(Lost::OutOfTurn(settled.token))?;
                encode(&Packet::PubAck(PubAck::new(packet_id)), &mut self.out);
                Ok(())
            }
            Outcome::Refused(reason) => Err(Lost::NotStored(reason)),
        }
    }

    fn ping(&mut self) -> Result<(), Lost> {
        // While nothing is read, nothing can be heard.
        let listening = self.handing_in.is_none() && self.farewell.is_none();
        if self.unanswered_pings > 0 && !self.heard && listening {
            return Err(Lost::Silent);
        }
        // Of several on their way the first answer proves the least.
        if self.unanswered_pings == 0 {
            self.session.ask();
        }
        self.unanswered_pings += 1;
        self.heard = false;
        encode(&Packet::PingReq, &mut self.out);
        Ok(())
    }
}

fn refused(publish: Publish, reason: String) -> Content {
    let topic: Arc<str> = String::from_utf8_lossy(&publish.topic).into();
    tracing::debug!(%topic, reason, "a message is rejected");
    // A copy: the payload shares its memory with others.
    let sample = Bytes::copy_from_slice(publish.payload.get(..SAMPLE_BYTES).unwrap_or(&publish.payload));
    Content::Refused { topic, sample, qos: publish.qos, reason }
}

/// A delivery that nobody waits for.
fn unacknowledged(content: Content) -> Delivery {
    Delivery { content, mark: None, idempotency: None, receipt: None, hurry: Hurry::No }
}

async fn handed_in(handing_in: &mut Option<HandingIn>) -> Result<(), IntakeError> {
    match handing_in {
        Some(handing_in) => handing_in.await,
        None => std::future::pending().await,
    }
}

async fn farewell_over(farewell: Option<Instant>) {
    match farewell {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
