//! Answering: one accept loop a door, a bounded number of connections, deadlines for what a peer sends.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bind::{Bound, Flight};
use super::flight;
use super::guard::{Guard, guard};
use super::{Doors, Hall, routes};
use crate::tls::Acceptor;

/// Connections of one door at a time; more wait to be accepted. A gateway's dashboards and scripts need a handful.
const MAX_CONNECTIONS: usize = 64;

/// For a request's line and headers; also how long an idle connection is kept.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// Longest line and headers together.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Calls of one gRPC connection at a time.
const MAX_STREAMS: u32 = 16;

/// What a gRPC peer may send before it is read: SQL is short.
const WINDOW_BYTES: u32 = 64 << 10;

/// A pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Answers on the open doors until `stop`, then lets requests under way finish.
///
/// # Errors
/// None; the result fits the task set.
pub async fn serve(bound: Bound, doors: Doors, stop: CancellationToken) -> Result<(), Infallible> {
    let Bound { unix, tcp, token, tls, flight: Flight { tcp: flights, tls: flight_tls } } = bound;
    let rows = flight::router(Arc::clone(&doors.engine), token.clone());
    let plain = routes::routes(Arc::new(Hall::new(doors)));
    let tcp = tcp.into_iter().filter_map(|listener| {
        let asks = Arc::new(Guard::new(listener.local_addr().ok()?.ip(), token.clone(), routes::writes()));
        let guarded = plain.clone().layer(axum::middleware::from_fn_with_state(asks, guard));
        let (stop, tls) = (stop.clone(), tls.clone());
        Some(async move { accept_until(&listener, tls, guarded, Language::Http, stop).await })
    });
    let flights = flights.into_iter().map(|listener| {
        let (stop, tls, rows) = (stop.clone(), flight_tls.clone(), rows.clone());
        async move { accept_until(&listener, tls, rows, Language::Grpc, stop).await }
    });
    let (tcp, flights) = (futures::future::join_all(tcp), futures::future::join_all(flights));
    tokio::join!(accept_until(&unix.listener, None, plain.clone(), Language::Http, stop.clone()), tcp, flights);
    Ok(())
}

/// What is spoken on the connections of a door.
#[derive(Debug, Clone, Copy)]
enum Language {
    /// HTTP/1.1.
    Http,
    /// HTTP/2, with prior knowledge, as gRPC does.
    Grpc,
}

/// A door that connections come through.
trait Door {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next connection, and whose it is.
    async fn accept(&self) -> io::Result<(Self::Stream, String)>;
}

impl Door for UnixListener {
    type Stream = tokio::net::UnixStream;
    async fn accept(&self) -> io::Result<(Self::Stream, String)> {
        Ok((UnixListener::accept(self).await?.0, String::new()))
    }
}

impl Door for TcpListener {
    type Stream = tokio::net::TcpStream;
    async fn accept(&self) -> io::Result<(Self::Stream, String)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Small answers should not wait for more to come.
        stream.set_nodelay(true)?;
        Ok((stream, peer.to_string()))
    }
}

async fn accept_until(door: &impl Door, tls: Option<Arc<Acceptor>>, router: Router, language: Language, stop: CancellationToken) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let seat = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((door.accept().await?, seat))
        };
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = next => match accepted {
                Ok(((stream, peer), seat)) => {
                    let answered = enter(stream, peer, tls.clone(), router.clone(), language, stop.clone());
                    connections.spawn(async move {
                        answered.await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.close();
    connections.wait().await;
}

/// Agrees on TLS where that is spoken, and answers.
async fn enter(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: String,
    tls: Option<Arc<Acceptor>>,
    router: Router,
    language: Language,
    stop: CancellationToken,
) {
    let Some(tls) = tls else { return answer(stream, router, language, stop).await };
    let agreed = tokio::select! {
        () = stop.cancelled() => None,
        agreed = tls.accept(stream, &peer) => agreed,
    };
    if let Some(stream) = agreed {
        answer(stream, router, language, stop).await;
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, language: Language, stop: CancellationToken) {
    let ended = match language {
        Language::Http => speak_http(stream, router, stop).await,
        Language::Grpc => speak_grpc(stream, router, stop).await,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn speak_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let mut settings = http1::Builder::new();
    settings.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(MAX_HEADER_BYTES);
    let connection = settings.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn speak_grpc(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let mut settings = http2::Builder::new(TokioExecutor::new());
    settings.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEADER_BYTES as u32);
    settings.initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(4 * WINDOW_BYTES);
    // A peer that is gone without a word is found out.
    settings.keep_alive_interval(HEADER_TIME).keep_alive_timeout(HEADER_TIME);
    let connection = settings.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
