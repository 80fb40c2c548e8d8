//! The judgement: from facts to a state and its reasons. Pure.

use std::time::Duration;

use super::now::Now;
use super::page::{EngineState, Reason, State};
use super::pulse::STALL_LIMIT;
use crate::ledger::Refusals;
use crate::model::Books;

/// Quarantine may take this part of the cap before a person is asked to look.
const QUARANTINE_PART: u64 = 20;

/// What the judgement looks at beside [`Now`].
#[derive(Debug, Clone)]
pub struct Signs {
    /// The books of the same answer.
    pub books: Books,
    /// What upstream refuses.
    pub refusals: Option<Refusals>,
    /// How long work has been waiting without a commit.
    pub stalled: Duration,
    /// Free on the data folder's file system.
    pub disk_free_bytes: u64,
    /// `retention.cap`.
    pub cap_bytes: u64,
    /// Files that failed their checksum and wait for a person.
    pub damaged_files: usize,
}

/// Why readings are not taken, as far as that can be said without a look at the disk. Empty: they are.
pub fn vital(now: &Now, stalled: Duration) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = now.troubles.iter().filter(|reason| reason.state == State::Failing).cloned().collect();
    reasons.extend(stall(stalled));
    reasons
}

fn stall(stalled: Duration) -> Option<Reason> {
    let message = || format!("what arrived waits for its commit since {} s", stalled.as_secs());
    (stalled >= STALL_LIMIT).then(|| Reason::failing("stalled", message()))
}

/// How the daemon is, and why it is not well. A link that is down is no reason: to bridge it is what we are for.
pub fn judge(now: &Now, signs: &Signs) -> (State, Vec<Reason>) {
    let mut reasons = now.troubles.clone();
    if !signs.books.balanced() {
        reasons.push(Reason::failing("books", "the books do not balance; please report this"));
    }
    reasons.extend(stall(signs.stalled));
    if signs.disk_free_bytes < now.room.min_free_bytes {
        let (free, wanted) = (signs.disk_free_bytes >> 20, now.room.min_free_bytes >> 20);
        reasons.push(Reason::degraded("disk_low", format!("{free} MiB are free on the disk, {wanted} MiB should be")));
    }
    if let Some(Refusals { cuts, readings, reason, again }) = &signs.refusals {
        let message = format!(
            "upstream refuses {cuts} cuts with {readings} readings; the latest: {reason}; tried again by a flush, or from {again} on"
        );
        reasons.push(Reason::degraded("refused_cuts", message));
    }
    if signs.damaged_files > 0 {
        let count = signs.damaged_files;
        reasons.push(Reason::degraded("damaged_files", format!("{count} damaged segments are in quarantine; see the losses")));
    }
    if now.room.quarantine_bytes > signs.cap_bytes / QUARANTINE_PART {
        let taken = now.room.quarantine_bytes >> 20;
        reasons
            .push(Reason::degraded("quarantine", format!("quarantine takes {taken} MiB of the cap; look at it and remove what you can")));
    }
    if let Some(why) = &now.engine.absence {
        reasons.push(Reason::degraded("engine", format!("there is no engine: {why}")));
    } else if now.engine.state == EngineState::Restarting {
        let restarts = now.engine.restarts;
        reasons.push(Reason::degraded("engine", format!("the engine ended and is started again ({restarts} times so far)")));
    }
    let state = reasons.iter().map(|reason| reason.state).max().unwrap_or_default();
    (state, reasons)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{EnginePage, LinkNow, LinkState, RoomNow};

    fn well() -> Signs {
        Signs {
            books: Books::default(),
            refusals: None,
            stalled: Duration::ZERO,
            disk_free_bytes: 2 << 30,
            cap_bytes: 1 << 30,
            damaged_files: 0,
        }
    }

    #[test]
    fn a_link_that_is_down_is_no_reason_to_worry() {
        let link = LinkNow { state: LinkState::Offline, last_error: Some("no route".to_owned()), ..LinkNow::default() };
        assert_eq!(judge(&Now { link, ..Now::default() }, &well()), (State::Ok, Vec::new()));
    }

    #[test]
    fn each_sign_has_its_reason_and_the_worst_one_names_the_state() {
        let restarting = EnginePage { state: EngineState::Restarting, ..EnginePage::default() };
        let room = RoomNow { disk_bytes: 60 << 20, quarantine_bytes: 52 << 20, min_free_bytes: 1 << 28 };
        let now = Now { engine: restarting, room, troubles: vec![Reason::degraded("subscription", "refused")], ..Now::default() };
        let refusals = Refusals { cuts: 2, readings: 40, reason: "413".to_owned(), again: crate::model::Timestamp(0) };
        let mut signs = Signs { disk_free_bytes: 1, damaged_files: 2, refusals: Some(refusals), ..well() };
        let codes = |signs: &Signs| judge(&now, signs).1.into_iter().map(|reason| reason.code).collect::<Vec<_>>();
        assert_eq!(codes(&signs), ["subscription", "disk_low", "refused_cuts", "damaged_files", "quarantine", "engine"]);
        assert_eq!(judge(&now, &signs).0, State::Degraded);
        signs.stalled = STALL_LIMIT;
        signs.books.accepted = 1;
        assert_eq!(
            codes(&signs),
            ["subscription", "books", "stalled", "disk_low", "refused_cuts", "damaged_files", "quarantine", "engine"]
        );
        assert_eq!(judge(&now, &signs).0, State::Failing);
        assert_eq!(vital(&now, signs.stalled).into_iter().map(|reason| reason.code).collect::<Vec<_>>(), ["stalled"]);
        assert_eq!(vital(&now, Duration::ZERO), []);
    }
}
