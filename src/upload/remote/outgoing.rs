//! The bytes of a put on their way out: at the pace of the line, in small chunks, and never all of them where they are not
//! what was promised.
//!
//! The last chunk is held back until the digest of all of them is known. So a file that is damaged makes a request that
//! ends early, which no server stores, and it is read once.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use crate::model::Digest;
use crate::upload::pace::Pace;
use crate::upload::upstream::{Body, Content, Flow};

/// Sent at a time. An HTTP client takes sixteen of them before the line has any: small ones keep what it holds small, so that
/// what is counted as sent is nearly so, and a put that is held is soon quiet.
const CHUNK_BYTES: u64 = 2 << 10;

/// Read from the disk at a time.
const READ_BYTES: usize = 64 << 10;

/// How often a put that is held looks whether it may go on.
const HOLD_LOOK: Duration = Duration::from_millis(50);

/// What was wrong with our own bytes, if anything; known when the request has ended.
#[derive(Debug, Clone, Default)]
pub struct Flaw(Arc<OnceLock<String>>);

impl Flaw {
    /// What was wrong.
    pub fn found(&self) -> Option<String> {
        self.0.get().cloned()
    }

    fn note(&self, error: io::Error) -> io::Error {
        // Only the first is noted, and the stream ends with it.
        let _ = self.0.set(error.to_string());
        error
    }
}

struct Outgoing {
    from: Box<dyn AsyncRead + Send + Unpin>,
    left: u64,
    sum: Sha256,
    promised: Digest,
    pace: Arc<Pace>,
    flow: Flow,
    flaw: Flaw,
}

/// The bytes of `body` as a stream, and what will be found wrong with them.
///
/// # Errors
/// It can't be opened.
pub async fn outgoing(body: &Body, pace: Arc<Pace>) -> io::Result<(impl Stream<Item = io::Result<Bytes>> + Send + use<>, Flaw)> {
    let from: Box<dyn AsyncRead + Send + Unpin> = match &body.content {
        Content::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        Content::File(path) => Box::new(BufReader::with_capacity(READ_BYTES, File::open(path).await?)),
    };
    let flaw = Flaw::default();
    let (sum, flow) = (Sha256::new(), body.flow.clone());
    let state = Outgoing { from, left: body.bytes, sum, promised: body.sha256, pace, flow, flaw: flaw.clone() };
    let chunks = stream::try_unfold(state, |mut state| async move {
        let chunk = state.next().await.map_err(|error| state.flaw.note(error))?;
        Ok(chunk.map(|chunk| (chunk, state)))
    });
    Ok((chunks, flaw))
}

impl Outgoing {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut chunk = Vec::new();
        let wanted = self.left.min(CHUNK_BYTES);
        if (&mut self.from).take(wanted).read_to_end(&mut chunk).await? as u64 != wanted {
            return Err(io::Error::other(format!("{} bytes of it are missing", self.left - chunk.len() as u64)));
        }
        self.sum.update(&chunk);
        self.left -= wanted;
        if self.left == 0 {
            let found = Digest(self.sum.finalize_reset().into());
            if found != self.promised {
                return Err(io::Error::other(format!("its SHA-256 is {found}, not {}", self.promised)));
            }
        }
        while self.flow.is_held() {
            tokio::time::sleep(HOLD_LOOK).await;
        }
        tokio::time::sleep(self.pace.charge(chunk.len())).await;
        self.flow.add(chunk.len());
        Ok(Some(chunk.into()))
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn sent(body: Body) -> (Vec<u8>, Option<String>) {
        let (chunks, flaw) = outgoing(&body, Arc::default()).await.unwrap();
        let mut sent = Vec::new();
        let mut chunks = std::pin::pin!(chunks);
        while let Ok(Some(chunk)) = chunks.try_next().await {
            assert!(chunk.len() as u64 <= CHUNK_BYTES);
            sent.extend_from_slice(&chunk);
        }
        (sent, flaw.found())
    }

    #[tokio::test]
    async fn all_of_it_goes_out_where_the_digest_holds() {
        for count in [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES] {
            let bytes = vec![7; count as usize];
            assert_eq!(sent(Body::memory(bytes.clone())).await, (bytes, None));
        }
    }

    #[tokio::test]
    async fn what_is_held_goes_on_after_its_time_or_when_it_is_released() {
        let body = Body::memory(vec![7; 3 * CHUNK_BYTES as usize]);
        for release in [false, true] {
            body.flow.hold(if release { Duration::from_secs(3600) } else { Duration::from_millis(200) });
            let before = body.flow.sent();
            let sending = tokio::spawn(sent(body.clone()));
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(body.flow.sent(), before);
            if release {
                body.flow.release();
            }
            assert_eq!(sending.await.unwrap().1, None);
            assert_eq!(body.flow.sent(), before + 3 * CHUNK_BYTES);
        }
    }

    #[tokio::test]
    async fn what_is_damaged_or_short_never_goes_out_whole() {
        let bytes = vec![7; 3 * CHUNK_BYTES as usize];
        let damaged = Body { sha256: Digest::of(b"else"), ..Body::memory(bytes.clone()) };
        let (sent_bytes, flaw) = sent(damaged).await;
        assert!(sent_bytes.len() < bytes.len() && flaw.unwrap().contains("its SHA-256 is"));
        let short = Body { bytes: 4 * CHUNK_BYTES, ..Body::memory(bytes.clone()) };
        let (sent_bytes, flaw) = sent(short).await;
        assert!(sent_bytes.len() as u64 <= 3 * CHUNK_BYTES && flaw.unwrap().contains("2048 bytes of it are missing"));
    }
}
