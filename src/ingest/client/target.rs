//! How a broker is reached: by TCP, or by TLS over it.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;

use super::address::Address;
use super::wire::WireError;
use crate::tls::{ClientFiles, Connector, HandshakeError, TlsError};

/// TCP, or TLS over it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Bytes from the broker.
pub type Socket = ReadHalf<Box<dyn Stream>>;

/// To the broker.
pub struct Writer {
    half: WriteHalf<Box<dyn Stream>>,
    /// Whether TLS may hold back some of what was written.
    unflushed: bool,
}

impl Writer {
    /// Whether there is something to be done for [`Self::write`].
    pub fn is_busy(&self, out: &BytesMut) -> bool {
        self.unflushed || !out.is_empty()
    }

    /// Writes some of `out`, or sees to it that what was written leaves. Cancel safe.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write(&mut self, out: &mut BytesMut) -> io::Result<()> {
        if !out.is_empty() {
            self.half.write_buf(out).await?;
            self.unflushed = true;
        }
        if out.is_empty() {
            self.half.flush().await?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Writes all of `out`.
    ///
    /// # Errors
    /// The socket's.
    pub async fn write_all(&mut self, out: &mut BytesMut) -> io::Result<()> {
        while self.is_busy(out) {
            self.write(out).await?;
        }
        Ok(())
    }
}

/// How to reach a broker.
pub struct Target {
    /// Where it is.
    pub address: Address,
    tls: Option<Connector>,
}

impl Target {
    /// The broker at `address`, with `files` if TLS is spoken there.
    ///
    /// # Errors
    /// The files can't be used.
    pub fn new(address: Address, files: &ClientFiles) -> Result<Self, TlsError> {
        let tls = address.tls.then(|| Connector::new(files, &address.host)).transpose()?;
        Ok(Self { address, tls })
    }

    /// Connects, and agrees on TLS where that is spoken.
    ///
    /// # Errors
    /// There is no way to the broker, or no TLS with it.
    pub async fn connect(&self) -> Result<(Socket, Writer), WireError> {
        let socket = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
        // Acknowledgements are small and somebody's window waits for them.
        socket.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(socket),
            Some(tls) => Box::new(tls.connect(socket).await?),
        };
        let (reader, half) = tokio::io::split(stream);
        Ok((reader, Writer { half, unflushed: false }))
    }

    /// What TLS has to do with `error`, if anything.
    pub fn fault(&self, error: &io::Error) -> Option<HandshakeError> {
        self.tls.as_ref()?.fault(error)
    }
}
