//! Upstreams across a network: S3 and HTTPS collectors.
//!
//! Owns: nothing but a connection. Does not own: when to try and how long to wait (the uploader), what is sent.
//! Invariants: nothing is stored whose digest is not what was promised; what is there is looked at before anything is sent,
//! so that a retry costs a question and no body; a success is believed when the digest is confirmed by the server; no
//! redirect is followed; of a reply no more is kept than is of use.
//! On failure: an error that tells whether it is surely not done, possibly done, or pointless to try again.
//!
//! [`Remote`] has the way of a put; [`S3`] and [`Collector`] are the two sorts of places, `wire` is HTTP itself, `outgoing`
//! the bytes on their way out, `refusal` what a status means, `credentials` the keys of S3.

mod collector;
mod credentials;
mod outgoing;
mod refusal;
mod s3;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use reqwest::{Method, StatusCode};

use self::collector::Collector;
pub use self::s3::S3;
use self::wire::{Reply, Wire};
use super::UploadError;
use super::pace::Pace;
use super::upstream::{Answer, Body, Put, Upstream, UpstreamError};
use crate::config;
use crate::model::Digest;

/// More than any object of a lake has; what is longer is none.
const MAX_OBJECT_BYTES: u64 = 1 << 30;

/// A name under which nothing ever is: who finds something there answers for everything.
const NEVER_THERE: &str = ".forebay-probe";

/// A place across a network.
pub struct Remote {
    wire: Wire,
    place: Place,
    shown: String,
}

enum Place {
    S3(S3),
    Collector(Collector),
}

impl Remote {
    /// The bucket that `settings` name.
    ///
    /// # Errors
    /// [`UploadError::Config`].
    pub fn s3(settings: &config::Upstream, pace: Arc<Pace>) -> Result<Self, UploadError> {
        let (s3, client) = S3::new(settings)?;
        let shown = settings.endpoint.iter().fold(settings.url.clone(), |shown, endpoint| format!("{shown} at {endpoint}"));
        Ok(Self { wire: Wire::new(client, pace), place: Place::S3(s3), shown })
    }

    /// The collector that `settings` name.
    ///
    /// # Errors
    /// [`UploadError::Config`].
    pub fn collector(settings: &config::Upstream, pace: Arc<Pace>) -> Result<Self, UploadError> {
        let (collector, client) = Collector::new(settings)?;
        let shown = collector.shown();
        Ok(Self { wire: Wire::new(client, pace), place: Place::Collector(collector), shown })
    }

    async fn ask(&self, method: Method, key: &str) -> Result<Reply, UpstreamError> {
        let request = match &self.place {
            Place::S3(s3) => s3.request(method, key, None).await?,
            Place::Collector(collector) => collector.request(method, key, None)?,
        };
        self.wire.ask(request).await
    }

    async fn send(&self, key: &str, body: &Body) -> Result<Reply, UpstreamError> {
        let request = match &self.place {
            Place::S3(s3) => s3.request(Method::PUT, key, Some(body)).await?,
            Place::Collector(collector) => collector.request(Method::PUT, key, Some(body))?,
        };
        self.wire.send(request, key, body).await
    }

    fn digest_in(&self, reply: &Reply) -> Option<Digest> {
        match &self.place {
            Place::S3(_) => S3::digest_in(reply),
            Place::Collector(_) => Collector::digest_in(reply),
        }
    }

    async fn refused(&self, mut reply: Reply) -> UpstreamError {
        let said = reply.excerpt().await;
        match &self.place {
            Place::S3(s3) => s3.refused(reply.status, &reply.headers, &said),
            Place::Collector(_) => Collector::refused(reply.status, &reply.headers, &said),
        }
    }

    /// The way of a put: look, send, and have it confirmed.
    async fn put(&self, key: &str, body: &Body) -> Result<Put, UpstreamError> {
        if let Some(found) = self.look(key).await? {
            return same(key, found, body, Put::SameAlready);
        }
        let reply = self.send(key, body).await?;
        let stored = reply.status.is_success();
        if stored && self.digest_in(&reply) == Some(body.sha256) {
            return Ok(Put::Stored);
        }
        if !stored && reply.status != StatusCode::PRECONDITION_FAILED {
            return Err(self.refused(reply).await);
        }
        // A success that nothing confirms may come from whoever answers for everything.
        match self.look(key).await? {
            Some(found) => same(key, found, body, if stored { Put::Stored } else { Put::SameAlready }),
            None => Err(UpstreamError::Ambiguous(format!("it said {}, and \"{key}\" is not there", reply.status))),
        }
    }

    /// The digest of what is there: as the server tells it, else by reading it.
    async fn look(&self, key: &str) -> Result<Option<Digest>, UpstreamError> {
        let reply = self.ask(Method::HEAD, key).await?;
        match reply.status {
            StatusCode::NOT_FOUND => return Ok(None),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {}
            status if status.is_success() => {
                if let Some(digest) = self.digest_in(&reply) {
                    return Ok(Some(digest));
                }
            }
            _ => return Err(self.refused(reply).await),
        }
        let Some(reply) = self.open(key).await? else { return Ok(None) };
        if let Some(digest) = self.digest_in(&reply) {
            return Ok(Some(digest));
        }
        let digest = reply.digest(MAX_OBJECT_BYTES).await?;
        // Nothing vouches for these bytes: let it be sure at least that not everything is answered with them.
        self.find_nothing().await?;
        digest.map(Some).ok_or_else(|| UpstreamError::Permanent(format!("\"{key}\" is there with more than {MAX_OBJECT_BYTES} bytes")))
    }

    /// Asks for what is never there. A captive portal has an answer to that too, and a collector has none.
    async fn find_nothing(&self) -> Result<(), UpstreamError> {
        let mut reply = self.ask(Method::HEAD, NEVER_THERE).await?;
        if matches!(reply.status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            reply = self.ask(Method::GET, NEVER_THERE).await?;
        }
        match reply.status {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => {
                let text = format!("{status} for {NEVER_THERE}, which is never there: no lake answers here (a captive portal?)");
                Err(UpstreamError::Transient(text))
            }
            _ => Err(self.refused(reply).await),
        }
    }

    /// What is stored under `key`, if anything is, unread.
    async fn open(&self, key: &str) -> Result<Option<Reply>, UpstreamError> {
        let reply = self.ask(Method::GET, key).await?;
        match reply.status {
            StatusCode::NOT_FOUND => Ok(None),
            StatusCode::OK => Ok(Some(reply)),
            _ => Err(self.refused(reply).await),
        }
    }
}

/// What it means that `found` is there.
fn same(key: &str, found: Digest, body: &Body, put: Put) -> Result<Put, UpstreamError> {
    if found == body.sha256 { Ok(put) } else { Err(UpstreamError::Conflict { key: key.to_owned(), found }) }
}

impl Upstream for Remote {
    fn put_new<'a>(&'a self, key: &'a str, body: Body) -> Answer<'a, Put> {
        async move { self.put(key, &body).await }.boxed()
    }

    fn find<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Digest>> {
        self.look(key).boxed()
    }

    fn get<'a>(&'a self, key: &'a str, max_bytes: u64) -> Answer<'a, Option<Bytes>> {
        async move {
            let Some(reply) = self.open(key).await? else { return Ok(None) };
            let bytes = reply.bytes(max_bytes).await?;
            bytes.map(Some).ok_or_else(|| UpstreamError::Permanent(format!("\"{key}\" is there with more than {max_bytes} bytes")))
        }
        .boxed()
    }

    fn probe(&self) -> Answer<'_, ()> {
        match &self.place {
            Place::S3(s3) => s3.probe(&self.wire).boxed(),
            Place::Collector(_) => self.find_nothing().boxed(),
        }
    }

    fn establish(&self) -> Answer<'_, ()> {
        self.probe()
    }

    fn describe(&self) -> String {
        self.shown.clone()
    }
}

/// The media type of the object `key`.
fn content_type(key: &str) -> &'static str {
    match key.rsplit('.').next() {
        Some("parquet") => "application/vnd.apache.parquet",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}
