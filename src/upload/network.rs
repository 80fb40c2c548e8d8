//! The kernel's word that the network has changed: a route, an address, a cable, new or gone.
//!
//! A hint, so that a link is looked at when there may be a way again, or none any more, and not only at the next probe. Where the
//! kernel says nothing (a container without the right, a system call filter) the probes have to do.

use std::io;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use tokio::net::UnixDatagram;
use tokio_util::sync::CancellationToken;

use super::UploadError;

/// Links, IPv4 and IPv6 addresses, IPv4 and IPv6 routes (rtnetlink(7)).
const GROUPS: u32 = 0x1 | 0x10 | 0x100 | 0x40 | 0x400;

/// `RTM_NEWLINK`, `RTM_DELLINK`, the same of addresses and routes: what comes may be a way, what goes is a reason to ask soon.
const NEWS: [u16; 6] = [16, 17, 20, 21, 24, 25];

/// Larger than any message; what does not fit is cut off, and the rest of a message is not read.
const MESSAGE_BYTES: usize = 16 << 10;

/// Length, type, flags, sequence number, sender.
const HEADER_BYTES: usize = 16;

/// Calls `changed` at each change until `stop`.
///
/// # Errors
/// None: where the kernel does not tell, it waits for the stop.
pub async fn watch_network(changed: impl Fn() + Send, stop: CancellationToken) -> Result<(), UploadError> {
    let watching = async {
        let (socket, mut buffer) = (open()?, vec![0; MESSAGE_BYTES]);
        loop {
            if news(&socket, &mut buffer).await? {
                changed();
            }
        }
    };
    let outcome: Option<io::Result<()>> = stop.run_until_cancelled(watching).await;
    if let Some(Err(error)) = outcome {
        tracing::debug!(%error, "the kernel does not tell of new routes; probes have to do");
        stop.cancelled().await;
    }
    Ok(())
}

/// The socket is handed to tokio as a Unix one, which it has a safe type for: receiving a datagram is the same for both.
fn open() -> io::Result<UnixDatagram> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol 0 of the family is NETLINK_ROUTE.
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, None)?;
    bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
    UnixDatagram::from_std(socket.into())
}

/// Waits for the next datagram; whether it brings news. So does the loss of some of them.
async fn news(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<bool> {
    match socket.recv(buffer).await {
        Ok(length) => Ok(has_news(buffer.get(..length).unwrap_or_default())),
        Err(error) if error.raw_os_error() == Some(Errno::NOBUFS.raw_os_error()) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether one of the messages of a datagram tells of something new.
fn has_news(mut datagram: &[u8]) -> bool {
    while let (Some(&[a, b, c, d, e, f]), true) = (datagram.first_chunk(), datagram.len() >= HEADER_BYTES) {
        let (length, kind) = (u32::from_ne_bytes([a, b, c, d]) as usize, u16::from_ne_bytes([e, f]));
        if NEWS.contains(&kind) {
            return true;
        }
        // Messages begin at multiples of 4; a length below its header's would never end.
        datagram = datagram.get(length.max(HEADER_BYTES).next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: usize) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + body) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize((HEADER_BYTES + body).next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_comes_and_what_goes_is_news() {
        for kind in NEWS {
            assert!(has_news(&message(kind, 40)));
            assert!(has_news(&[message(28, 7), message(kind, 40)].concat()), "behind another message");
        }
        assert!(!has_news(&[message(28, 30), message(29, 8), message(3, 1)].concat()));
    }

    #[test]
    fn a_damaged_datagram_ends() {
        for bytes in [vec![], vec![1, 2, 3], vec![0; 64], vec![0xff; 64], message(25, 0)[..15].to_vec()] {
            assert!(!has_news(&bytes), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn without_a_change_nothing_is_said_and_it_stops() {
        let stop = CancellationToken::new();
        let watching = tokio::spawn(watch_network(|| (), stop.clone()));
        stop.cancel();
        watching.await.unwrap().unwrap();
    }
}
