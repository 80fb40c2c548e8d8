//! Sessions and their marks: what must be known of a peer after a kill.

use std::time::Duration;

use super::*;
use crate::model::{MarkEvent, SessionId, SessionMarks};

fn noted(session: SessionId, packet_id: u16, digest: u64) -> MarkEvent {
    MarkEvent::Noted { session, packet_id, digest }
}

async fn mark(ledger: &Ledger, marks: &[MarkEvent]) {
    ledger.commit(Batch { marks: marks.to_vec(), ..batch(1) }).await.unwrap();
}

async fn session(ledger: &Ledger, name: &str) -> (SessionId, bool, Vec<(u16, u64)>) {
    let session = ledger.open_session(name.to_owned(), None).await.unwrap();
    (session.id, session.present, session.marks.iter().collect())
}

#[tokio::test]
async fn marks_are_durable_with_their_batch_and_survive_folds() {
    let (folder, ledger) = new();
    let (a, present, _) = session(&ledger, "listener/a").await;
    let (b, ..) = session(&ledger, "listener/b").await;
    assert!(!present && a != b);
    mark(&ledger, &[noted(a, 1, 11), noted(b, 1, 21), noted(a, 2, 12)]).await;
    mark(&ledger, &[noted(a, 3, 13), MarkEvent::Proven { session: a, count: 1 }]).await;
    let expected = [(2, 12), (3, 13)];
    assert_eq!(session(&ledger, "listener/a").await, (a, true, expected.to_vec()));
    let killed = as_after_a_kill(folder.path());
    assert_eq!(session(&open(killed.path()), "listener/a").await.2, expected);
    seal(&ledger).await;
    assert_eq!(session(&ledger, "listener/a").await.2, expected);
    mark(&ledger, &[noted(a, 2, 22), MarkEvent::Ended { session: b }]).await;
    seal(&ledger).await;
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(session(&again, "listener/a").await.2, [(3, 13), (2, 22)]);
    assert_eq!(session(&again, "listener/b").await, (b, true, vec![]));
    books(&again);
}

#[tokio::test]
async fn a_session_that_ended_takes_its_marks_along_and_its_number_is_not_given_again() {
    let (_folder, ledger) = new();
    let (first, ..) = session(&ledger, "a").await;
    mark(&ledger, &[noted(first, 1, 11)]).await;
    ledger.end_session("a".to_owned()).await.unwrap();
    ledger.end_session("a".to_owned()).await.unwrap();
    mark(&ledger, &[noted(first, 2, 12)]).await;
    let (second, present, marks) = session(&ledger, "a").await;
    assert!(second != first && !present && marks.is_empty());
    seal(&ledger).await;
    assert_eq!(session(&ledger, "a").await, (second, true, vec![]));
    books(&ledger);
}

#[tokio::test]
async fn a_long_log_is_folded_before_a_session_is_opened() {
    let (_folder, ledger) = new();
    let (a, ..) = session(&ledger, "a").await;
    let mut expected = SessionMarks::default();
    for round in 0..4 {
        let events: Vec<_> = (1..=10_000).map(|id| noted(a, id, round)).collect();
        events.iter().for_each(|event| expected.apply(event));
        mark(&ledger, &events).await;
    }
    let rows = || ledger.call(|store| Ok(store.connection().query_row("select count(*) from mark_log", [], |row| row.get::<_, u64>(0))?));
    assert_eq!(rows().await, Ok(4));
    assert_eq!(session(&ledger, "a").await.2, expected.iter().collect::<Vec<_>>());
    assert_eq!(rows().await, Ok(0));
    assert_eq!(session(&ledger, "a").await.2, expected.iter().collect::<Vec<_>>());
    books(&ledger);
}

#[tokio::test]
async fn of_too_many_sessions_the_one_unused_longest_is_ended() {
    let (_folder, ledger) = new();
    let (idle, ..) = session(&ledger, "idle").await;
    let (opened, ..) = session(&ledger, "opened again").await;
    let (marked, ..) = session(&ledger, "marked").await;
    ledger
        .call(|store| {
            store.transact(|tx, _| {
                let many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 9997) \
                            insert into sessions (name, opened, last_used, marks) \
                            select 'other ' || i, 0, 9000000000000000 + i, x'' from n";
                Ok(tx.execute(many, [])?)
            })
        })
        .await
        .unwrap();
    session(&ledger, "opened again").await;
    mark(&ledger, &[noted(marked, 1, 1)]).await;
    seal(&ledger).await;
    session(&ledger, "one more").await;
    session(&ledger, "and another").await;
    assert_eq!(session(&ledger, "opened again").await.0, opened);
    assert_eq!(session(&ledger, "marked").await, (marked, true, vec![(1, 1)]));
    let (again, present, _) = session(&ledger, "idle").await;
    assert!(again != idle && !present);
    assert!(!session(&ledger, "other 1").await.1);
}

fn received(session: SessionId, packet_id: u16, digest: u64) -> MarkEvent {
    MarkEvent::Received { session, packet_id, digest }
}

fn released(session: SessionId, packet_id: u16) -> MarkEvent {
    MarkEvent::Released { session, packet_id }
}

#[tokio::test]
async fn what_a_session_holds_is_durable_with_its_batch_and_survives_folds_until_it_is_released() {
    let (folder, ledger) = new();
    let (a, ..) = session(&ledger, "a").await;
    let held = async |ledger: &Ledger| {
        let session = ledger.open_session("a".to_owned(), None).await.unwrap();
        session.marks.iter_held().collect::<Vec<_>>()
    };
    mark(&ledger, &[noted(a, 9, 90), received(a, 1, 10), received(a, 2, 20), received(a, 3, 30)]).await;
    mark(&ledger, &[released(a, 2)]).await;
    let expected = [(1, 10), (3, 30)];
    assert_eq!(held(&ledger).await, expected);
    let killed = as_after_a_kill(folder.path());
    assert_eq!(held(&open(killed.path())).await, expected);
    seal(&ledger).await;
    assert_eq!(held(&ledger).await, expected);
    mark(&ledger, &[released(a, 1), received(a, 4, 40)]).await;
    seal(&ledger).await;
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(held(&again).await, [(3, 30), (4, 40)]);
    assert_eq!(session(&again, "a").await, (a, true, vec![(9, 90)]));
}

#[tokio::test]
async fn a_batch_of_nothing_but_a_release_is_committed() {
    let (folder, ledger) = new();
    let (a, ..) = session(&ledger, "a").await;
    mark(&ledger, &[received(a, 1, 10)]).await;
    ledger.commit(Batch { marks: vec![released(a, 1)], ..Batch::default() }).await.unwrap();
    let killed = as_after_a_kill(folder.path());
    assert!(open(killed.path()).open_session("a".to_owned(), None).await.unwrap().marks.is_empty());
}

#[tokio::test]
async fn a_session_that_was_left_expires_and_is_removed_at_the_next_seal() {
    let (_folder, ledger) = new();
    let name = || "a".to_owned();
    // The clock ticks a second a look.
    let (short, long) = (Duration::from_secs(2), Duration::from_secs(3600));
    assert_eq!(ledger.resume_session(name(), Some(long)).await.unwrap().map(|session| session.id), None);
    let first = ledger.open_session(name(), Some(short)).await.unwrap();
    mark(&ledger, &[noted(first.id, 1, 1), received(first.id, 2, 2)]).await;
    for _ in 0..5 {
        mark(&ledger, &[]).await;
    }
    let again = ledger.resume_session(name(), Some(long)).await.unwrap().expect("it is connected");
    assert_eq!((again.id, again.marks.len(), again.marks.held()), (first.id, 1, 1));
    ledger.leave_session(name(), long).await.unwrap();
    assert!(ledger.open_session(name(), Some(short)).await.unwrap().present);
    ledger.leave_session(name(), short).await.unwrap();
    mark(&ledger, &[]).await;
    mark(&ledger, &[noted(first.id, 3, 3)]).await;
    let count =
        || ledger.call(|store| Ok(store.connection().query_row("select count(*) from sessions", [], |row| row.get::<_, u64>(0))?));
    assert_eq!(count().await, Ok(1));
    seal(&ledger).await;
    assert_eq!(count().await, Ok(0));
    let second = ledger.open_session(name(), None).await.unwrap();
    assert!(!second.present && second.id != first.id && second.marks.is_empty());
    books(&ledger);
}

#[tokio::test]
async fn after_a_kill_sessions_expire_from_the_moment_they_are_left_and_those_without_end_do_not() {
    let (folder, ledger) = new();
    let short = Some(Duration::from_secs(3));
    ledger.open_session("short".to_owned(), short).await.unwrap();
    ledger.open_session("endless".to_owned(), None).await.unwrap();
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    for _ in 0..10 {
        mark(&again, &[]).await;
    }
    assert!(again.open_session("short".to_owned(), short).await.unwrap().present, "nobody said that its connection ended");
    again.leave_sessions().await.unwrap();
    for _ in 0..10 {
        mark(&again, &[]).await;
    }
    assert!(!again.open_session("short".to_owned(), short).await.unwrap().present);
    assert!(again.open_session("endless".to_owned(), None).await.unwrap().present);
}
