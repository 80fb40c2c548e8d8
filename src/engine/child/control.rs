//! The child's end of the control socket: orders with their descriptors in, events out.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio_util::codec::Decoder;

use crate::engine::frame::{FrameReader, TO_ENGINE, head_of};
use crate::engine::protocol::{Event, ToEngine};

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;

/// Room for the descriptors of one read. The kernel gives one query's socket a read.
const MAX_DESCRIPTORS: usize = 8;

/// The socket, for reading.
pub struct Control {
    socket: UnixStream,
    reader: FrameReader<ToEngine>,
    buffer: BytesMut,
    /// In the order of their queries.
    descriptors: VecDeque<OwnedFd>,
}

impl Control {
    /// The socket that was inherited as standard input.
    ///
    /// # Errors
    /// Standard input is no socket: this was not started by the daemon.
    pub fn inherited() -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.peer_addr()?;
        Ok(Self { socket, reader: FrameReader::new(TO_ENGINE), buffer: BytesMut::new(), descriptors: VecDeque::new() })
    }

    /// The way back.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn events(&self) -> io::Result<Events> {
        Ok(Events { socket: Arc::new(Mutex::new(self.socket.try_clone()?)) })
    }

    /// The next order with its body; `None` when the daemon is gone.
    ///
    /// # Errors
    /// What comes is no order.
    pub fn next(&mut self) -> io::Result<Option<(ToEngine, Bytes)>> {
        loop {
            if let Some(frame) = self.reader.decode(&mut self.buffer)? {
                return Ok(Some(frame));
            }
            if self.receive()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The socket that came with the query just read.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    fn receive(&mut self) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let start = self.buffer.len();
        self.buffer.resize(start + READ_BYTES, 0);
        let place = self.buffer.get_mut(start..).unwrap_or_default();
        let received =
            rustix::io::retry_on_intr(|| recvmsg(&self.socket, &mut [IoSliceMut::new(place)], &mut ancillary, RecvFlags::CMSG_CLOEXEC));
        let bytes = received.map(|message| message.bytes);
        self.buffer.truncate(start + bytes.unwrap_or_default());
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        Ok(bytes?)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Tells the daemon. Cheap to clone; events are short, and the daemon always reads them.
#[derive(Clone)]
pub struct Events {
    socket: Arc<Mutex<UnixStream>>,
}

impl Events {
    /// Sends `event`.
    ///
    /// # Errors
    /// The daemon is gone.
    pub fn send(&self, event: &Event) -> io::Result<()> {
        let frame = head_of(event, 0)?;
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).write_all(&frame)
    }
}
