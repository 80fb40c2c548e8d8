//! Commits, what they bring, and how they are read back.

use super::*;

#[tokio::test]
async fn committed_readings_get_seqs_without_gaps_and_come_back() {
    let (folder, ledger) = new();
    for count in [1, 3, 2] {
        commit(&ledger, count).await;
    }
    assert_eq!(decoded(&reader(&ledger), 0), (1..=6).collect::<Vec<_>>());
    let expected = Books { accepted: 6, hot: 6, kept: 6, ..Books::default() };
    assert_eq!(books(&ledger), expected);
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(books(&again), expected);
    assert_eq!(again.identity(), ledger.identity());
    assert_eq!(again.commit(batch(2)).await.unwrap().first_seq, 7);
    assert_eq!(decoded(&reader(&again), 0), (1..=8).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_progress_tells_of_every_commit() {
    let (_folder, ledger) = new();
    let mut progress = ledger.progress();
    let before = progress.borrow_and_update().clone();
    commit(&ledger, 5).await;
    assert!(progress.has_changed().unwrap());
    let after = progress.borrow_and_update().clone();
    assert_eq!((after.last_seq, after.mark), (5, 0));
    assert!(after.version > before.version);
}

#[tokio::test]
async fn the_journal_is_read_in_pieces_of_whole_batches() {
    let (_folder, ledger) = new();
    for count in [4, 4, 4, 4] {
        commit(&ledger, count).await;
    }
    let reader = reader(&ledger);
    let firsts = |after, max| reader.journal(after, max).unwrap().iter().map(|entry| entry.first_seq).collect::<Vec<_>>();
    assert_eq!(firsts(0, 1), [1]);
    assert_eq!(firsts(0, 8), [1, 5]);
    assert_eq!(firsts(0, 11), [1, 5]);
    assert_eq!(firsts(4, 100), [5, 9, 13]);
    assert_eq!(firsts(5, 100), [5, 9, 13]);
    assert_eq!(firsts(15, 100), [13]);
    assert_eq!(firsts(16, 100), [] as [u64; 0]);
    assert_eq!(firsts(1_000, 100), [] as [u64; 0]);
}

#[tokio::test]
async fn the_sizes_of_batches_are_known_without_unpacking_them() {
    let (_folder, ledger) = new();
    for count in [10, 1000] {
        commit(&ledger, count).await;
    }
    let sizes = reader(&ledger).journal_sizes(0).unwrap();
    assert_eq!(sizes.iter().map(|size| (size.last_seq, size.readings)).collect::<Vec<_>>(), [(10, 10), (1010, 1000)]);
    assert!(sizes[1].bytes > 20 * 1000 && sizes[1].bytes < 200 * 1000, "{sizes:?}");
    assert_eq!(reader(&ledger).journal_sizes(10).unwrap(), sizes[1..]);
    assert_eq!(reader(&ledger).journal_sizes(1010).unwrap(), []);
    assert_eq!(reader(&ledger).bytes_of_names().unwrap(), 0);
    let keys = [("a", "level"), ("pump-7", "flow")].map(|(sensor, metric)| SeriesKey { sensor: sensor.into(), metric: metric.into() });
    ledger.commit(Batch { new_series: keys.to_vec(), ..Batch::default() }).await.unwrap();
    assert_eq!(reader(&ledger).bytes_of_names().unwrap(), 8);
}

#[tokio::test]
async fn an_empty_batch_writes_nothing() {
    let (folder, ledger) = new();
    commit(&ledger, 1).await;
    let wal = || std::fs::metadata(folder.path().join("forebay.db-wal")).unwrap().len();
    let before = wal();
    let committed = ledger.commit(Batch::default()).await.unwrap();
    assert_eq!((committed.first_seq, committed.last_seq), (2, 1));
    assert_eq!(wal(), before);
}

#[tokio::test]
async fn a_record_said_again_is_counted_and_one_said_after_another_is_new() {
    let (_folder, ledger) = new();
    let said = [("a", "1", 10), ("a", "1", 20), ("b", "1", 30), ("a", "2", 40), ("a", "1", 50)];
    for (source, body, received) in said {
        ledger.commit(Batch { records: vec![record(source, body, received)], ..Batch::default() }).await.unwrap();
    }
    let reader = reader(&ledger);
    let rows = reader.records(None, None, 10).unwrap();
    let seen: Vec<_> = rows.iter().map(|row| (row.id, &*row.source, &*row.body, row.times, row.last_received.0)).collect();
    assert_eq!(seen, [(4, "a", "1", 1, 50), (3, "a", "2", 1, 40), (2, "b", "1", 1, 30), (1, "a", "1", 2, 20)]);
    assert_eq!(reader.records(Some("a"), None, 2).unwrap().iter().map(|row| row.id).collect::<Vec<_>>(), [4, 3]);
    assert_eq!(reader.records(None, Some("text"), 2).unwrap(), []);
    assert_eq!(reader.records(Some("b"), Some("config"), usize::MAX).unwrap().len(), 1);
    assert_eq!(reader.records_after(2, 10).unwrap().iter().map(|row| row.id).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(books(&ledger), Books::default());
}

#[tokio::test]
async fn series_tallies_and_keys_are_durable_with_their_batch() {
    let (folder, ledger) = new();
    let key = Digest::of(b"request 1");
    let mut full = batch(2);
    full.new_series = vec![summary("s1", 0, 0).key, summary("s1", 0, 0).key, summary("s0", 0, 0).key];
    full.idempotency = vec![(key, Timestamp(1)), (key, Timestamp(2))];
    full.tally.rejected = 3;
    ledger.commit(full).await.unwrap();
    ledger.commit(Batch { tally: Tally { rejected: 1, ..Tally::default() }, ..Batch::default() }).await.unwrap();
    let killed = as_after_a_kill(folder.path());
    let again = reader(&open(killed.path()));
    assert_eq!(again.tally().unwrap(), Tally { readings: 2, messages_qos1: 2, rejected: 4, ..Tally::default() });
    assert!(again.has_idempotency_key(&key).unwrap());
    assert!(!again.has_idempotency_key(&Digest::of(b"request 2")).unwrap());
    assert_eq!(again.series().unwrap().iter().map(|series| &*series.key.sensor).collect::<Vec<_>>(), ["s0", "s1"]);
}

#[tokio::test]
async fn a_damaged_batch_is_told_from_a_good_one() {
    let (_folder, ledger) = new();
    commit(&ledger, 3).await;
    commit(&ledger, 3).await;
    let damage = rusqlite::Connection::open(ledger.readers.path()).unwrap();
    damage.execute("update journal set bytes = zeroblob(length(bytes)) where first_seq = 1", []).unwrap();
    let entries = reader(&ledger).journal(0, 100).unwrap();
    assert!(entries[0].bytes.as_ref().unwrap_err().contains("digest"));
    assert!(entries[1].bytes.is_ok());
}

#[tokio::test]
async fn a_snapshot_sees_one_moment() {
    let (_folder, ledger) = new();
    commit(&ledger, 3).await;
    let (mut first, second) = (reader(&ledger), reader(&ledger));
    let handle = tokio::runtime::Handle::current();
    let outcome = tokio::task::spawn_blocking(move || {
        first.snapshot(|reader| {
            let before = reader.books()?;
            handle.block_on(commit(&ledger, 4));
            assert_eq!(second.books()?.accepted, 7);
            assert_eq!(reader.books()?, before);
            assert_eq!(reader.hot()?.1, 3);
            assert_eq!(reader.journal(0, 100)?.len(), 1);
            Ok(before.accepted)
        })
    });
    assert_eq!(outcome.await.unwrap().unwrap(), 3);
}

#[tokio::test]
async fn hot_tells_the_oldest_batch_and_the_count() {
    let (_folder, ledger) = new();
    assert_eq!(reader(&ledger).hot().unwrap(), (None, 0));
    commit(&ledger, 3).await;
    let (oldest, _) = reader(&ledger).hot().unwrap();
    commit(&ledger, 4).await;
    assert_eq!(reader(&ledger).hot().unwrap(), (oldest, 7));
    assert!(oldest.is_some());
}

#[tokio::test]
async fn rows_of_a_file_are_durable_with_how_far_the_file_has_come() {
    let (folder, ledger) = new();
    let file = Digest::of(b"a file");
    let rows = |first_row: u64, rows: u64| {
        let bytes = columns::encode_journal(&(0..rows).map(reading).collect::<Vec<_>>()).unwrap();
        let new_series = vec![SeriesKey { sensor: Arc::from("s0"), metric: Arc::from("temperature") }];
        crate::model::ImportedRows { file, first_row, rows, bytes, new_series }
    };
    commit(&ledger, 2).await;
    assert_eq!(ledger.import(rows(0, 3)).await.unwrap(), 3);
    assert_eq!(ledger.import(rows(3, 4)).await.unwrap(), 7);
    assert!(matches!(ledger.import(rows(3, 4)).await, Err(LedgerError::Invalid(_))));
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(reader(&again).imported_rows(&file).unwrap(), 7);
    assert_eq!(reader(&again).imported_rows(&Digest::of(b"another")).unwrap(), 0);
    assert_eq!(books(&again), Books { accepted: 9, hot: 9, kept: 9, ..Books::default() });
    assert_eq!(decoded(&reader(&again), 0), (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_wal_begins_anew_at_the_size_that_is_told() {
    let (folder, ledger) = new();
    let wal_bytes = || std::fs::metadata(folder.path().join("forebay.db-wal")).unwrap().len();
    ledger.checkpoint_at(64 << 10);
    for _ in 0..40 {
        commit(&ledger, 10).await;
    }
    let small = wal_bytes();
    assert!((32 << 10..128 << 10).contains(&small), "{small} bytes");
    ledger.checkpoint_at(512 << 10);
    for _ in 0..40 {
        commit(&ledger, 10).await;
    }
    assert!(wal_bytes() > 2 * small, "{} bytes after {small}", wal_bytes());
}
