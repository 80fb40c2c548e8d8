//! An upstream in memory that fails by script.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;

use crate::model::Digest;
use crate::upload::{Answer, Body, Put, Upstream, UpstreamError};

/// What goes wrong with a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is done, after a while.
    Slow,
    /// It is not done, and says so.
    Fail,
    /// It is not done, and no answer ever comes.
    HangBefore,
    /// It is done, and no answer ever comes.
    HangAfter,
    /// It is done, and the answer is lost.
    DropReply,
    /// Half of it goes over the line, and nothing of it is kept.
    Half,
    /// It is refused for what it is.
    Refuse,
    /// We may not.
    Deny,
    /// It is not done: upstream asks for patience.
    Busy(Duration),
    /// It is done, over more time than any silence may take.
    Trickle,
    /// It moves as long as there is a link, and is done when it is let go.
    Held,
}

/// What of the keys is refused for good.
type Refusal = Box<dyn Fn(&str) -> bool + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    /// What each coming put meets; then all is well.
    script: VecDeque<Fault>,
    established: bool,
    down: bool,
    puts: Vec<String>,
    sent_bytes: u64,
    refusal: Option<Refusal>,
    forbidden: bool,
    read_only: bool,
    deaf_to: usize,
    probes: usize,
    let_go: bool,
}

/// The upstream. Its objects survive every crash of the gateway.
#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next puts meet `faults`.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().script = faults.into_iter().collect();
    }

    /// The put that is held goes on.
    pub fn let_go(&self) {
        self.state().let_go = true;
    }

    pub fn set_down(&self, down: bool) {
        self.state().down = down;
    }

    /// Puts of keys that `refusal` names are refused, whatever the script says.
    pub fn refuse(&self, refusal: impl Fn(&str) -> bool + Send + 'static) {
        self.state().refusal = Some(Box::new(refusal));
    }

    /// Nothing is allowed, not even a probe.
    pub fn set_forbidden(&self, forbidden: bool) {
        self.state().forbidden = forbidden;
    }

    /// Nothing may be put, while all else goes on.
    pub fn set_read_only(&self, read_only: bool) {
        self.state().read_only = read_only;
    }

    /// The next `probes` get no answer.
    pub fn set_deaf_to(&self, probes: usize) {
        self.state().deaf_to = probes;
    }

    pub fn probes(&self) -> usize {
        self.state().probes
    }

    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state().objects.clone()
    }

    pub fn insert(&self, key: &str, bytes: &[u8]) {
        self.state().objects.insert(key.to_owned(), Bytes::copy_from_slice(bytes));
    }

    pub fn remove(&self, key: &str) {
        self.state().objects.remove(key);
    }

    /// Keys of all puts that arrived, in order, with repetitions.
    pub fn puts(&self) -> Vec<String> {
        self.state().puts.clone()
    }

    fn reach(&self) -> Result<MutexGuard<'_, State>, UpstreamError> {
        let state = self.state();
        if state.down {
            Err(UpstreamError::Transient("the link is down".to_owned()))
        } else if state.forbidden {
            Err(UpstreamError::Denied("403, who are you".to_owned()))
        } else if !state.established {
            Err(UpstreamError::Unmarked("nobody was here yet".to_owned()))
        } else {
            Ok(state)
        }
    }

    /// What is there already under `key` is looked at before anything is sent.
    fn compare(&self, key: &str, body: &Body) -> Result<Option<Put>, UpstreamError> {
        let found = self.reach()?.objects.get(key).map(|there| Digest::of(there));
        Ok(found.filter(|found| *found == body.sha256).map(|_| Put::SameAlready))
    }

    fn put(&self, key: &str, body: &Body) -> Result<Put, UpstreamError> {
        let source = |detail: String| UpstreamError::Source { key: key.to_owned(), detail };
        let mut bytes = Vec::new();
        body.open().and_then(|mut from| from.read_to_end(&mut bytes)).map_err(|error| source(error.to_string()))?;
        if Digest::of(&bytes) != body.sha256 {
            return Err(source("its digest is another".to_owned()));
        }
        let mut state = self.reach()?;
        match state.objects.get(key).map(|there| Digest::of(there)) {
            Some(found) if found == body.sha256 => Ok(Put::SameAlready),
            Some(found) => Err(UpstreamError::Conflict { key: key.to_owned(), found }),
            None => {
                state.objects.insert(key.to_owned(), bytes.into());
                Ok(Put::Stored)
            }
        }
    }
}

impl Upstream for Memory {
    fn put_new<'a>(&'a self, key: &'a str, body: Body) -> Answer<'a, Put> {
        if let Ok(found) = self.compare(key, &body)
            && let Some(put) = found
        {
            return async move { Ok(put) }.boxed();
        }
        let fault = {
            let mut state = self.state();
            state.puts.push(key.to_owned());
            let fault = match &state.refusal {
                _ if state.forbidden || state.read_only => Fault::Deny,
                Some(refuses) if refuses(key) => Fault::Refuse,
                _ => state.script.pop_front().unwrap_or(Fault::None),
            };
            let sent = match fault {
                Fault::Fail | Fault::Refuse | Fault::Deny | Fault::Busy(_) | Fault::HangBefore | Fault::Trickle | Fault::Held => 0,
                Fault::Half => body.bytes / 2,
                _ => body.bytes,
            };
            state.sent_bytes += sent;
            body.flow.add(sent as usize);
            fault
        };
        async move {
            match fault {
                Fault::None => self.put(key, &body),
                Fault::Slow => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    self.put(key, &body)
                }
                Fault::Fail => Err(UpstreamError::Transient("no".to_owned())),
                Fault::HangBefore => std::future::pending().await,
                Fault::HangAfter => {
                    let _ = self.put(key, &body);
                    std::future::pending().await
                }
                Fault::DropReply => {
                    let _ = self.put(key, &body);
                    Err(UpstreamError::Ambiguous("reset".to_owned()))
                }
                Fault::Half => Err(UpstreamError::Ambiguous("reset in the middle".to_owned())),
                Fault::Busy(retry_after) => Err(UpstreamError::Busy { detail: "429".to_owned(), retry_after }),
                Fault::Trickle => {
                    for _ in 0..25 {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        self.state().sent_bytes += body.bytes / 25;
                        body.flow.add(body.bytes as usize / 25);
                    }
                    self.put(key, &body)
                }
                Fault::Held => {
                    while !self.state().let_go {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        body.flow.add(usize::from(!self.state().down));
                    }
                    self.put(key, &body)
                }
                Fault::Refuse => Err(UpstreamError::Permanent("413".to_owned())),
                Fault::Deny => Err(UpstreamError::Denied("403".to_owned())),
            }
        }
        .boxed()
    }

    fn find<'a>(&'a self, key: &'a str) -> Answer<'a, Option<Digest>> {
        async move { Ok(self.reach()?.objects.get(key).map(|bytes| Digest::of(bytes))) }.boxed()
    }

    fn get<'a>(&'a self, key: &'a str, _max_bytes: u64) -> Answer<'a, Option<Bytes>> {
        async move { Ok(self.reach()?.objects.get(key).cloned()) }.boxed()
    }

    fn probe(&self) -> Answer<'_, ()> {
        async {
            {
                let mut state = self.state();
                state.probes += 1;
                if state.deaf_to == 0 {
                    drop(state);
                    return self.reach().map(drop);
                }
                state.deaf_to -= 1;
            }
            std::future::pending().await
        }
        .boxed()
    }

    fn sent_bytes(&self) -> u64 {
        self.state().sent_bytes
    }

    fn establish(&self) -> Answer<'_, ()> {
        async {
            self.state().established = true;
            Ok(())
        }
        .boxed()
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}
