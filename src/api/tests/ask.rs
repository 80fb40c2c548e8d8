//! A client of the test's own.

use std::net::SocketAddr;
use std::path::Path;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::described;

/// An answer, read to its end.
pub struct Answered {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub fn bytes(&self) -> Bytes {
        self.body.clone()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

pub async fn unix(socket: &Path, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let answer = whole(send(stream, method, path, headers, body).await.unwrap()).await;
    described::check(method, path, &answer);
    answer
}

pub async fn tcp(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let answer = whole(send(stream, method, path, headers, body).await.unwrap()).await;
    described::check(method, path, &answer);
    answer
}

/// The body of an answer that may end early.
pub async fn unix_body(socket: &Path, path: &str, body: &str) -> Result<Bytes, hyper::Error> {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    Ok(send(stream, "POST", path, &[], body).await?.into_body().collect().await?.to_bytes())
}

async fn whole(response: Response<Incoming>) -> Answered {
    let (parts, body) = response.into_parts();
    Answered { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Response<Incoming>, hyper::Error> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    sender.send_request(request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()).await
}
