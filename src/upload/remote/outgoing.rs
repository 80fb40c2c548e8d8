//! The bytes of a put on their way out: at the pace of the line, in small chunks, and never all of them where they are not
//! what was promised.
//!
//! The last chunk is held back until the digest of all of them is known. So a file that is damaged makes a request that
//! ends early, which no server stores, and it is read once.

use std::io;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::stream::{self, Stream};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::model::Digest;
use crate::upload::pace::Pace;
use crate::upload::upstream::{Body, Content, Sent};

/// Sent at a time; no more, so that the pace is even.
const CHUNK_BYTES: u64 = 16 << 10;

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
    sent: Sent,
    flaw: Flaw,
}

/// The bytes of `body` as a stream, and what will be found wrong with them.
///
/// # Errors
/// It can't be opened.
pub async fn outgoing(body: &Body, pace: Arc<Pace>) -> io::Result<(impl Stream<Item = io::Result<Bytes>> + Send + use<>, Flaw)> {
    let from: Box<dyn AsyncRead + Send + Unpin> = match &body.content {
        Content::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        Content::File(path) => Box::new(File::open(path).await?),
    };
    let flaw = Flaw::default();
    let (sum, sent) = (Sha256::new(), body.sent.clone());
    let state = Outgoing { from, left: body.bytes, sum, promised: body.sha256, pace, sent, flaw: flaw.clone() };
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
        tokio::time::sleep(self.pace.charge(chunk.len())).await;
        self.sent.add(chunk.len());
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
    async fn what_is_damaged_or_short_never_goes_out_whole() {
        let bytes = vec![7; 3 * CHUNK_BYTES as usize];
        let damaged = Body { sha256: Digest::of(b"else"), ..Body::memory(bytes.clone()) };
        let (sent_bytes, flaw) = sent(damaged).await;
        assert!(sent_bytes.len() < bytes.len() && flaw.unwrap().contains("its SHA-256 is"));
        let short = Body { bytes: 4 * CHUNK_BYTES, ..Body::memory(bytes.clone()) };
        let (sent_bytes, flaw) = sent(short).await;
        assert!(sent_bytes.len() as u64 <= 3 * CHUNK_BYTES && flaw.unwrap().contains("16384 bytes of it are missing"));
    }
}
