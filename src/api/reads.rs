//! Reads from the ledger on blocking threads, a few at a time.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::Semaphore;
use utoipa::IntoResponses;
use utoipa::openapi::{RefOr, Response};

use super::refusal::{Refusal, described};
use crate::ledger::{Ledger, LedgerError, Reader};

/// Reads at a time: a gateway has a few cores, and each read has its own connection and cache.
const MAX_READS: usize = 4;

/// Reads that fail, for the description.
pub(super) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        described([
            (StatusCode::INTERNAL_SERVER_ERROR, "A fault of the daemon"),
            (StatusCode::SERVICE_UNAVAILABLE, "Not now; the same request may do later"),
        ])
    }
}

/// The ledger, for handlers.
#[derive(Clone)]
pub struct Reads {
    ledger: Ledger,
    permits: Arc<Semaphore>,
}

impl Reads {
    /// Reads from `ledger`.
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, permits: Arc::new(Semaphore::new(MAX_READS)) }
    }

    /// Runs `read` with a reader of its own.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Reader) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let ledger = self.ledger.clone();
        self.block(move || Ok(read(&mut ledger.reader()?)?)).await
    }

    /// Runs `work`, which blocks, on a blocking thread.
    pub(super) async fn block<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Refusal> + Send + 'static) -> Result<T, Refusal> {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| Refusal::internal("the doors are closed"))?;
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        task.await.unwrap_or_else(|error| Err(Refusal::internal(format!("a read failed: {error}"))))
    }
}
