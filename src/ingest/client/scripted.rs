//! The other end of a connection, played by a test, packet by packet. It speaks through rumqttc's own codec.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, Subscribe, SubscribeReasonCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where clients connect to.
pub struct Script {
    listener: TcpListener,
}

impl Script {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    pub fn url(&self) -> String {
        format!("mqtt://{}", self.listener.local_addr().unwrap())
    }

    /// Waits for the next connection and its CONNECT.
    pub async fn connection(&self) -> (Peer, Connect) {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.listener.accept()).await.expect("nobody connects").unwrap();
        let mut peer = Peer { stream, received: BytesMut::new() };
        match peer.next().await {
            Packet::Connect(connect) => (peer, connect),
            other => panic!("expected CONNECT, got {other:?}"),
        }
    }

    /// The next connection, accepted.
    pub async fn accept(&self, session_present: bool) -> Peer {
        let (mut peer, _) = self.connection().await;
        peer.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, session_present))).await;
        peer
    }

    /// The next connection, accepted and its subscription granted.
    pub async fn subscriber(&self, session_present: bool) -> Peer {
        let mut peer = self.accept(session_present).await;
        let asked = peer.subscribe().await;
        let granted = asked.filters.iter().map(|filter| SubscribeReasonCode::Success(filter.qos)).collect();
        peer.send(Packet::SubAck(SubAck::new(asked.pkid, granted))).await;
        peer
    }

    /// Whether somebody connects within `time`.
    pub async fn is_silent_for(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.listener.accept()).await.is_err()
    }
}

/// One client.
pub struct Peer {
    stream: TcpStream,
    received: BytesMut,
}

impl Peer {
    pub async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, usize::MAX).unwrap();
        self.send_bytes(&bytes).await;
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // A client that has gone shows at the next read.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Sends a message with QoS 1 on topic `t/s`.
    pub async fn publish(&mut self, packet_id: u16, dup: bool, payload: &str) {
        let mut publish = Publish::from_bytes("t/s", QoS::AtLeastOnce, Bytes::copy_from_slice(payload.as_bytes()));
        (publish.pkid, publish.dup) = (packet_id, dup);
        self.send(Packet::Publish(publish)).await;
    }

    /// The next packet; fails the test when none comes.
    pub async fn next(&mut self) -> Packet {
        self.next_within(PATIENCE).await.expect("no packet comes").expect("the client is gone")
    }

    /// The next packet; `None` when nothing comes in `time`, an error when the client closes.
    pub async fn next_within(&mut self, time: Duration) -> Option<Result<Packet, ()>> {
        tokio::time::timeout(time, async {
            loop {
                match Packet::read(&mut self.received, usize::MAX) {
                    Ok(packet) => return Ok(packet),
                    Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                    Err(error) => panic!("the client sends nonsense: {error}"),
                }
                match self.stream.read_buf(&mut self.received).await {
                    Ok(0) | Err(_) => return Err(()),
                    Ok(_) => {}
                }
            }
        })
        .await
        .ok()
    }

    pub async fn is_silent_for(&mut self, time: Duration) -> bool {
        self.next_within(time).await.is_none()
    }

    pub async fn subscribe(&mut self) -> Subscribe {
        match self.next().await {
            Packet::Subscribe(subscribe) => subscribe,
            other => panic!("expected SUBSCRIBE, got {other:?}"),
        }
    }

    pub async fn expect_ack(&mut self, packet_id: u16) {
        assert_eq!(self.next().await, Packet::PubAck(PubAck::new(packet_id)));
    }

    /// Waits until the client closes the connection; what it still sends is passed over.
    pub async fn expect_end(&mut self) {
        while self.next_within(PATIENCE).await.expect("the client stays").is_ok() {}
    }

    /// Sends some more messages; answers nothing.
    pub async fn send_pingresp(&mut self) {
        self.send(Packet::PingResp).await;
    }
}
