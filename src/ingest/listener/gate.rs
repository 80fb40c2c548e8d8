//! The gate: who may publish, by certificate and by account.
//!
//! Owns: TLS with those who come, the accounts, what is known of passwords tried before.
//! Does not own: connections, the codes in which a protocol says no.
//! Invariants: one password is verified at a time, whoever comes, so that strangers take no more of the machine than one
//! thread and the memory of one hash; a name that is not there takes as long as one that is; passwords tried are kept
//! only as digests under a secret of this process.
//! On failure: a file of accounts that can't be read again stays as it was; who waits too long is told to come again.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::error::ListenerError;
use crate::config;
use crate::ingest::users::{self, Accounts};
use crate::model::Timestamp;
use crate::refusals::Refusals;
use crate::tls::{Acceptor, ServerFiles};
use crate::watched::Watched;

/// How often the file of accounts is looked at: `forebay user add` is felt at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a login may wait for its turn to be verified.
const PATIENCE: Duration = Duration::from_secs(10);

/// Wrong logins remembered, so that a fleet with an old password costs one verification, not one a connection.
const MAX_DENIED: usize = 1024;

/// Why somebody is not let in. Each version of the protocol has its code for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// Unknown user, or wrong password: which of them is nobody's business.
    #[error("wrong user name or password")]
    BadCredentials,
    /// No account was named, and one is needed.
    #[error("no user name; anonymous clients are not let in")]
    NotAuthorised,
    /// Too many wait to be verified.
    #[error("too many logins at a time")]
    Busy,
}

/// What a name and a password amount to, under this process' secret.
type Key = [u8; 32];

/// What is known of logins tried before; of one version of the accounts.
#[derive(Default)]
struct Known {
    of: Arc<Accounts>,
    granted: HashSet<Key>,
    denied: HashSet<Key>,
}

/// One listener's gate.
pub struct Gate {
    tls: Option<Acceptor>,
    users: Option<Watched<Accounts>>,
    anonymous: bool,
    secret: [u8; 32],
    known: Mutex<Known>,
    /// One verification at a time.
    turn: Arc<Semaphore>,
    patience: Duration,
    pub(super) refused: Refusals,
}

impl Gate {
    /// Reads what `settings` name.
    ///
    /// # Errors
    /// [`ListenerError::Tls`] and [`ListenerError::Users`].
    pub(super) fn new(settings: &config::Listener) -> Result<Self, ListenerError> {
        let files = ServerFiles::of(settings.tls_cert.as_deref(), settings.tls_key.as_deref(), settings.tls_client_ca.as_deref())?;
        let tls = files.map(|files| Acceptor::new(files, &[], "TLS handshakes of the listener failed")).transpose()?;
        let watch = |path: &std::path::PathBuf| {
            let file = path.clone();
            Watched::new(vec![path.clone()], LOOK_EVERY, move || users::read(&file))
        };
        let users = settings.users_file.as_ref().map(watch).transpose()?;
        Ok(Self {
            tls,
            users,
            anonymous: settings.anonymous,
            secret: rand::random(),
            known: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            patience: PATIENCE,
            refused: Refusals::new("logins were refused"),
        })
    }

    /// For the handshake, if the listener speaks TLS.
    pub(super) fn tls(&self) -> Option<&Acceptor> {
        self.tls.as_ref()
    }

    /// Whether whoever named `username` (or nobody) with `password` may publish. Must hold before anything else is done for
    /// them: a stranger must not even end another's connection.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn check(&self, username: Option<&str>, password: Option<&[u8]>) -> Result<(), Refusal> {
        // Without accounts everybody may who came this far: from this machine, or as the settings allow.
        let Some(users) = &self.users else { return Ok(()) };
        let Some(name) = username else {
            return if self.anonymous { Ok(()) } else { Err(Refusal::NotAuthorised) };
        };
        let (accounts, password) = (users.get(), password.unwrap_or_default());
        let key = self.key(name, password);
        let granted = match self.recall(&accounts, &key) {
            Some(granted) => granted,
            None => {
                let verified = self.verify(accounts, name, password, key);
                tokio::time::timeout(self.patience, verified).await.unwrap_or(Err(Refusal::Busy))?
            }
        };
        if granted { Ok(()) } else { Err(Refusal::BadCredentials) }
    }

    async fn verify(&self, accounts: Arc<Accounts>, name: &str, password: &[u8], key: Key) -> Result<bool, Refusal> {
        let turn = Arc::clone(&self.turn).acquire_owned().await.map_err(|_| Refusal::Busy)?;
        // The same login may have been verified while this one waited.
        if let Some(granted) = self.recall(&accounts, &key) {
            return Ok(granted);
        }
        let (name, password, asked) = (name.to_owned(), password.to_vec(), Arc::clone(&accounts));
        let verified = tokio::task::spawn_blocking(move || {
            let own = asked.hash_of(&name);
            let fits = own.or(asked.any_hash()).is_some_and(|hash| hash.is_of(&password));
            // Kept to the end, also when nobody waits for it any more.
            drop(turn);
            fits && own.is_some()
        });
        let granted = verified.await.map_err(|_| Refusal::Busy)?;
        self.remember(&accounts, key, granted);
        Ok(granted)
    }

    fn key(&self, name: &str, password: &[u8]) -> Key {
        let length = (name.len() as u64).to_be_bytes();
        Sha256::new().chain_update(self.secret).chain_update(length).chain_update(name).chain_update(password).finalize().into()
    }

    /// What is known of `accounts`; all of it is forgotten when they change.
    fn known(&self, accounts: &Arc<Accounts>) -> MutexGuard<'_, Known> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&known.of, accounts) {
            *known = Known { of: Arc::clone(accounts), ..Known::default() };
        }
        known
    }

    fn recall(&self, accounts: &Arc<Accounts>, key: &Key) -> Option<bool> {
        let known = self.known(accounts);
        if known.granted.contains(key) {
            return Some(true);
        }
        known.denied.contains(key).then_some(false)
    }

    /// Of each account one password is right, so that those are bounded by the file; the wrong ones are forgotten together.
    fn remember(&self, accounts: &Arc<Accounts>, key: Key, granted: bool) {
        let mut known = self.known(accounts);
        if granted {
            known.granted.insert(key);
            return;
        }
        if known.denied.len() >= MAX_DENIED {
            known.denied.clear();
        }
        known.denied.insert(key);
    }

    /// What a person should know of, at `now`.
    pub fn troubles(&self, now: Timestamp) -> Vec<String> {
        let mut troubles = self.tls.as_ref().map(|tls| tls.troubles(now)).unwrap_or_default();
        troubles.extend(self.users.as_ref().and_then(Watched::fault));
        troubles.extend(self.refused.recent());
        troubles
    }

    /// TLS handshakes that failed since the start.
    pub fn handshakes_failed(&self) -> u64 {
        self.tls.as_ref().map_or(0, Acceptor::failures)
    }

    #[cfg(test)]
    pub(super) fn shrink(&mut self, patience: Duration) {
        self.patience = patience;
        self.users.iter_mut().for_each(Watched::hurry);
        self.tls.iter_mut().for_each(|tls| tls.hurry(patience));
    }

    /// Takes the turn to verify.
    #[cfg(test)]
    pub(super) fn occupy(&self) -> tokio::sync::OwnedSemaphorePermit {
        Arc::clone(&self.turn).try_acquire_owned().unwrap()
    }

    /// Logins remembered: granted, denied.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> (usize, usize) {
        let known = self.known.lock().unwrap();
        (known.granted.len(), known.denied.len())
    }
}
