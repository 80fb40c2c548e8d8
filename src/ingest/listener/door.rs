//! The doors: one loop a socket, which takes connections and hands them on.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{Shared, connection};

/// Pause after the system refuses a connection for want of something: files, memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// One socket's loop.
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    /// All that is under way.
    pub(super) connections: TaskTracker,
    /// Room for connections; one whose handshake is under way takes its share.
    pub(super) slots: Arc<Semaphore>,
    /// Room for those that are told that there is none.
    pub(super) refusals: Arc<Semaphore>,
}

impl Door {
    /// Takes connections until the listener stops.
    pub(super) async fn keep(self, socket: TcpListener) {
        let stop = self.shared.stop.clone();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => self.admit(stream, peer),
                // The peer's own doing: it was gone before we came.
                Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                // Ours, as a rule: no file descriptors or no memory. The connection waits in the kernel's queue.
                Err(error) => {
                    self.shared.complain(&error, "connections can't be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = prepare(&stream) {
            tracing::debug!(%peer, %error, "a socket can't be prepared");
            return;
        }
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            self.connections.spawn(enter(Arc::clone(&self.shared), stream, peer, slot));
            return;
        }
        self.shared.state.refused_by_limit.increase();
        self.shared.complain(&peer, "there are too many connections; see listener.max_connections");
        // By TLS it would take a handshake to say so.
        let plain = self.shared.gate.tls().is_none();
        if plain && let Ok(slot) = Arc::clone(&self.refusals).try_acquire_owned() {
            self.connections.spawn(connection::turn_away(Arc::clone(&self.shared), stream, slot));
        }
    }
}

/// Agrees on TLS where that is spoken, and serves.
async fn enter(shared: Arc<Shared>, stream: TcpStream, peer: SocketAddr, slot: OwnedSemaphorePermit) {
    let gate = Arc::clone(&shared.gate);
    let Some(tls) = gate.tls() else { return connection::serve(shared, stream, peer, slot).await };
    let agreed = tokio::select! {
        biased;
        () = shared.stop.cancelled() => None,
        agreed = tls.accept(stream, &peer) => agreed,
    };
    if let Some(stream) = agreed {
        connection::serve(shared, stream, peer, slot).await;
    }
}

/// Answers go out at once, and a peer that lost its power is noticed within two minutes, whatever its keep-alive.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, Duration::from_secs(60))?;
    sockopt::set_tcp_keepintvl(stream, Duration::from_secs(15))?;
    sockopt::set_tcp_keepcnt(stream, 4)?;
    Ok(())
}
