//! One connection's bytes: what came and is not a packet yet, and what is to be written.
//!
//! An idle connection holds half a kilobyte; buffers grow with what really arrives and are given back.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::error::End;
use super::frame::{Frame, Framer};
use crate::tls::ServerStream;

/// Room for one read of a quiet connection.
const LEAST_READ: usize = 512;

/// Room for one read of a busy one: some hundred messages.
const MOST_READ: usize = 32 << 10;

/// Answers not yet written beyond which nothing more is read. PUBACKs of a full default window fit.
const MOST_UNWRITTEN: usize = 64 << 10;

/// A connection's socket.
pub(super) trait Socket: AsyncRead + AsyncWrite + Unpin {
    /// Tells the peer's TCP at once what came. Most sensors leave Nagle's algorithm on: of a burst of small messages it
    /// sends the first and holds the others until that one is known to have come, which the kernel would delay by 40 ms
    /// in the hope of an answer. Ours comes after the commit.
    fn acknowledge_receipt(&self) {}
}

impl Socket for TcpStream {
    fn acknowledge_receipt(&self) {
        // A hint: without it everything still arrives, later.
        let _ = rustix::net::sockopt::set_tcp_quickack(self, true);
    }
}

impl Socket for ServerStream<TcpStream> {
    fn acknowledge_receipt(&self) {
        self.get_ref().0.acknowledge_receipt();
    }
}

#[cfg(test)]
impl Socket for tokio::io::DuplexStream {}

/// What [`Wire::exchange`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Bytes read; `Some(0)` is the end of the stream.
    pub(super) read: Option<usize>,
    /// Bytes written.
    pub(super) written: usize,
}

/// The two directions of a connection.
pub(super) struct Wire<S> {
    stream: S,
    framer: Framer,
    inbound: BytesMut,
    /// Answers to be written.
    pub(super) outbound: BytesMut,
    unflushed: bool,
    /// How much the last reads made likely for the next.
    likely_read: usize,
}

impl<S: Socket> Wire<S> {
    /// Nothing read, nothing to write.
    pub(super) fn new(stream: S, max_message_bytes: usize) -> Self {
        let (inbound, outbound) = (BytesMut::new(), BytesMut::new());
        Self { stream, framer: Framer::new(max_message_bytes), inbound, outbound, unflushed: false, likely_read: LEAST_READ }
    }

    /// The peer speaks version 5; gives the longest packet that is read.
    pub(super) fn expect_version_5(&mut self) -> u32 {
        self.framer.expect_properties();
        u32::try_from(self.framer.max_packet_bytes()).unwrap_or(u32::MAX)
    }

    /// The next packet that is here.
    ///
    /// # Errors
    /// The stream can't be cut into packets.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, End> {
        Ok(self.framer.next(&mut self.inbound)?)
    }

    /// Takes the next packet that is here and need not wait for those before it: a ping, or a release of what `is_held`.
    pub(super) fn next_urgent(&mut self, is_held: impl Fn(u16) -> bool) -> Option<BytesMut> {
        self.framer.next_urgent(&mut self.inbound, is_held)
    }

    /// Whether more may be read though nothing is taken from what is here.
    pub(super) fn may_hold_more(&self) -> bool {
        self.inbound.len() < MOST_READ && !self.is_stuffed()
    }

    /// See [`Socket::acknowledge_receipt`].
    pub(super) fn acknowledge_receipt(&self) {
        self.stream.acknowledge_receipt();
    }

    /// Whether anything waits to be written.
    pub(super) fn is_writing(&self) -> bool {
        self.unflushed || !self.outbound.is_empty()
    }

    /// Whether so much waits to be written that nothing more should be read.
    pub(super) fn is_stuffed(&self) -> bool {
        self.outbound.len() >= MOST_UNWRITTEN
    }

    /// Whether part of a packet is here that does not begin with `first_byte`.
    pub(super) fn begins_other_than(&self, first_byte: u8) -> bool {
        self.inbound.first().is_some_and(|first| *first != first_byte)
    }

    /// The length of the packet under way, if it needs more than the ordinary buffer.
    pub(super) fn long_packet(&self) -> Option<usize> {
        self.framer.under_way(&self.inbound).filter(|bytes| *bytes > MOST_READ)
    }

    /// Reads (if `reading`) and writes whatever is possible; returns when something was. Cancel safe.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn exchange(&mut self, reading: bool) -> io::Result<Moved> {
        if reading {
            self.make_room();
        }
        poll_fn(|cx| {
            let mut moved = Moved::default();
            let mut stream = Pin::new(&mut self.stream);
            if !self.outbound.is_empty()
                && let Poll::Ready(written) = poll_write_buf(stream.as_mut(), cx, &mut self.outbound)
            {
                moved.written = written?;
                if moved.written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.unflushed = true;
            }
            if self.unflushed
                && self.outbound.is_empty()
                && let Poll::Ready(flushed) = stream.as_mut().poll_flush(cx)
            {
                flushed?;
                self.unflushed = false;
            }
            if reading && let Poll::Ready(read) = poll_read_buf(stream.as_mut(), cx, &mut self.inbound) {
                moved.read = Some(read?);
            }
            if moved == Moved::default() { Poll::Pending } else { Poll::Ready(Ok(moved)) }
        })
        .await
        .inspect(|moved| self.adapt(moved))
    }

    fn make_room(&mut self) {
        if self.inbound.is_empty() && self.inbound.capacity() > 4 * self.likely_read {
            self.inbound = BytesMut::new();
        }
        let wanted = self.framer.room(&self.inbound, self.likely_read, MOST_READ);
        if self.inbound.capacity() - self.inbound.len() < wanted.div_ceil(2) {
            self.inbound.reserve(wanted);
        }
    }

    fn adapt(&mut self, moved: &Moved) {
        match moved.read {
            Some(read) if read >= self.likely_read => self.likely_read = (self.likely_read * 4).min(MOST_READ),
            Some(read) if read < self.likely_read / 8 => self.likely_read = (self.likely_read / 2).max(LEAST_READ),
            _ => {}
        }
        if self.outbound.is_empty() && self.outbound.capacity() > LEAST_READ {
            self.outbound = BytesMut::new();
        }
    }

    /// Writes everything and closes our side, then reads past what is still on its way: closing with unread bytes would
    /// reset the connection, and the peer might never see our last answer. The caller bounds the time.
    ///
    /// # Errors
    /// The socket's.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        while self.is_writing() {
            self.exchange(false).await?;
        }
        self.stream.shutdown().await?;
        loop {
            self.inbound.clear();
            if self.exchange(true).await?.read == Some(0) {
                return Ok(());
            }
        }
    }
}
