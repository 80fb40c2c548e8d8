//! The daemon's end of the control socket, towards the engine.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::unix::OwnedWriteHalf;

use super::frame::head_of;
use super::protocol::{Ask, ToEngine};

/// Sends orders. A send that was cut short leaves half a frame: end the engine then.
pub struct Orders {
    socket: OwnedWriteHalf,
}

impl Orders {
    /// Sends on `socket`.
    pub fn new(socket: OwnedWriteHalf) -> Self {
        Self { socket }
    }

    /// Sends `order` with `body`.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn send(&mut self, order: &ToEngine, body: &[u8]) -> io::Result<()> {
        self.socket.write_all(&head_of(order, body.len())?).await?;
        self.socket.write_all(body).await
    }

    /// Sends a query with the socket on which it is answered. The descriptor travels with the frame's first byte.
    ///
    /// # Errors
    /// The engine is gone.
    pub async fn ask(&mut self, ask: Ask, answer_on: OwnedFd) -> io::Result<()> {
        let frame = head_of(&ToEngine::Query(ask), 0)?;
        let sent = self
            .socket
            .as_ref()
            .async_io(Interest::WRITABLE, || {
                let descriptors = [answer_on.as_fd()];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
                Ok(sendmsg(self.socket.as_ref(), &[IoSlice::new(&frame)], &mut control, SendFlags::NOSIGNAL)?)
            })
            .await?;
        self.socket.write_all(frame.get(sent..).unwrap_or_default()).await
    }
}
