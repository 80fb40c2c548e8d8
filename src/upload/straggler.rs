//! A put by itself, and the one that may be left to go on by itself.
//!
//! When the link comes back under the put of a large file, the newest readings shall not wait for its end, and what the line
//! has of it shall not be sent twice: its shipment gives way, and the put goes on beside the newest ones. A file without a
//! manifest counts for nothing upstream, and when its turn comes again the put is taken up here, or the file is found there.
//!
//! Owns: at most one put left behind. Invariants: a file is never put twice at a time, and is pinned while it is put.
//! On failure: the file is put again when its turn comes.

use std::pin::Pin as Pinned;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::upstream::{Body, Flow, Put, Upstream, UpstreamError};
use crate::segment::Pin;

/// For the newest readings to get through on a slow line; no server gives a connection up so soon.
const HOLD: Duration = Duration::from_secs(5);

/// A put under way; it ends when this is dropped.
pub(super) struct PutUnderWay {
    pub(super) key: String,
    /// Of the whole body.
    pub(super) bytes: u64,
    pub(super) flow: Flow,
    task: AbortOnDropHandle<Result<Put, UpstreamError>>,
}

impl PutUnderWay {
    /// Begins to put `body`, whose file is pinned by `pin`.
    pub(super) fn begin(upstream: Arc<dyn Upstream>, key: &str, body: Body, pin: Option<Pin>) -> Self {
        let (bytes, flow, name) = (body.bytes, body.flow.clone(), key.to_owned());
        let task = tokio::spawn(async move {
            let _pin = pin;
            upstream.put_new(&name, body).await
        });
        Self { key: key.to_owned(), bytes, flow, task: AbortOnDropHandle::new(task) }
    }
}

impl Future for PutUnderWay {
    type Output = Result<Put, UpstreamError>;

    fn poll(mut self: Pinned<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pinned::new(&mut self.task).poll(context);
        answer.map(|answer| answer.unwrap_or_else(|error| Err(UpstreamError::Ambiguous(error.to_string()))))
    }
}

/// Where a put is left.
#[derive(Default)]
pub(super) struct Straggler(Mutex<Option<PutUnderWay>>);

impl Straggler {
    fn left(&self) -> MutexGuard<'_, Option<PutUnderWay>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a put may be left: none is there that has not ended.
    pub(super) fn is_free(&self) -> bool {
        self.left().as_ref().is_none_or(|put| put.task.is_finished())
    }

    /// Leaves `put` to itself, after a moment in which the newest readings have the line; what was left before is forgotten.
    pub(super) fn leave(&self, put: PutUnderWay) {
        put.flow.hold(HOLD);
        *self.left() = Some(put);
    }

    /// Takes up the put of `key`, if it was left and goes on: one that has ended is found upstream, or begun anew.
    pub(super) fn take(&self, key: &str) -> Option<PutUnderWay> {
        let left = self.left().take_if(|put| put.key == key).filter(|put| !put.task.is_finished())?;
        left.flow.release();
        Some(left)
    }

    /// There is nothing to ship: nobody will ask for it any more.
    pub(super) fn forget(&self) {
        *self.left() = None;
    }
}
