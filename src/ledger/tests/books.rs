//! Seals and what leaves: where every reading is after each step.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::super::state;
use super::*;

#[tokio::test]
async fn a_seal_moves_the_range_from_the_journal_to_its_segments() {
    let (folder, ledger) = new();
    for count in [4, 3, 5] {
        commit(&ledger, count).await;
    }
    let mut cut = next_cut(&ledger, 7);
    cut.series = vec![summary("s1", 5, 70), summary("s2", 2, 30)];
    ledger.finish_seal(cut.clone()).await.unwrap();
    let expected = Books { accepted: 12, hot: 5, sealed: 7, kept: 12, ..Books::default() };
    assert_eq!(books(&ledger), expected);
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(books(&again), expected);
    let reader = reader(&again);
    assert_eq!(decoded(&reader, 0), (8..=12).collect::<Vec<_>>());
    let progress = reader.progress().unwrap();
    assert_eq!((progress.last_seq, progress.mark, progress.last_cut), (12, 7, 1));
    let newest_first: Vec<_> = cut.segments.iter().rev().cloned().collect();
    assert_eq!(reader.segments().unwrap(), newest_first);
    assert_eq!(reader.cut_segments(&again.identity().instance, 1).unwrap(), cut.segments);
    assert_eq!(reader.next_cut(true).unwrap().unwrap().readings, 7);
    assert_eq!(reader.series().unwrap(), cut.series);
}

#[tokio::test]
async fn later_summaries_are_added_to_their_series() {
    let (_folder, ledger) = new();
    for (readings, last) in [(5, 70), (2, 90)] {
        commit(&ledger, readings).await;
        let last_seq = reader(&ledger).progress().unwrap().last_seq;
        let cut = SealedCut { series: vec![summary("s1", readings, last)], ..next_cut(&ledger, last_seq) };
        ledger.finish_seal(cut).await.unwrap();
    }
    assert_eq!(reader(&ledger).series().unwrap(), [summary("s1", 7, 90)]);
}

#[tokio::test]
async fn a_cut_that_contradicts_the_ledger_is_refused_and_changes_nothing() {
    let (_folder, ledger) = new();
    commit(&ledger, 4).await;
    commit(&ledger, 4).await;
    let before = books(&ledger);
    let good = next_cut(&ledger, 4);
    let other = InstanceId::random();
    let wrong = [
        (SealedCut { number: 2, ..good.clone() }, "does not follow"),
        (SealedCut { first_seq: 2, ..good.clone() }, "hot is above"),
        (SealedCut { last_seq: 9, ..good.clone() }, "hot is above"),
        (SealedCut { last_seq: 0, segments: vec![], ..good.clone() }, "is empty"),
        (SealedCut { last_seq: 3, ..good.clone() }, "split a batch"),
        (SealedCut { segments: good.segments[..1].to_vec(), ..good.clone() }, "its files 3"),
        (SealedCut { last_record: 1, ..good.clone() }, "record 1"),
        (SealedCut { damaged: vec![(1, 4, String::new())], ..good.clone() }, "its damaged batches 4"),
        (SealedCut { damaged: vec![(1, 3, String::new())], ..good.clone() }, "not damaged batches"),
        (SealedCut { damaged: vec![(1, 4, String::new()), (1, 4, String::new())], ..good.clone() }, "not damaged batches"),
        (SealedCut { segments: vec![segment(FileKind::Readings, 1, &other, 1, (1, 4), 4)], ..good.clone() }, "is not of cut 1"),
    ];
    for (cut, why) in wrong {
        let text = invalid(ledger.finish_seal(cut).await);
        assert!(text.contains(why), "{text}");
        assert_eq!(books(&ledger), before);
    }
    ledger.finish_seal(good.clone()).await.unwrap();
    assert!(invalid(ledger.finish_seal(good).await).contains("does not follow"));
}

#[tokio::test]
async fn damaged_batches_of_a_cut_become_losses() {
    let (_folder, ledger) = new();
    for count in [4, 3, 5] {
        commit(&ledger, count).await;
    }
    let mut cut = next_cut(&ledger, 12);
    let instance = ledger.identity().instance;
    cut.segments = vec![segment(FileKind::Readings, 1, &instance, 1, (1, 12), 9)];
    cut.damaged = vec![(5, 7, "its digest is wrong".to_owned())];
    ledger.finish_seal(cut).await.unwrap();
    assert_eq!(books(&ledger), Books { accepted: 12, sealed: 9, damaged: 3, kept: 9, ..Books::default() });
    let losses = reader(&ledger).untold_losses(&instance).unwrap();
    assert_eq!((losses[0].first_seq, losses[0].last_seq, losses[0].readings), (5, 7, 3));
    assert!(losses[0].detail.contains("digest"));
}

#[tokio::test]
async fn a_cut_of_records_alone_moves_no_reading() {
    let (_folder, ledger) = new();
    ledger.commit(Batch { records: vec![record("a", "1", 1), record("b", "1", 2)], ..Batch::default() }).await.unwrap();
    let instance = ledger.identity().instance;
    let mut cut = next_cut(&ledger, 0);
    cut.segments = vec![segment(FileKind::Records, 1, &instance, 1, (1, 2), 2)];
    cut.last_record = 2;
    ledger.finish_seal(cut).await.unwrap();
    assert_eq!(books(&ledger), Books::default());
    let cut = reader(&ledger).next_cut(false).unwrap().unwrap();
    assert_eq!((cut.first_seq, cut.last_seq, cut.readings, cut.records), (1, 0, 0, 2));
    assert_eq!(reader(&ledger).last_exported_record().unwrap(), 2);
    deliver(&ledger, 1, 1).await;
    assert_eq!(books(&ledger), Books::default());
}

#[tokio::test]
async fn only_what_is_delivered_and_here_is_evicted() {
    let (_folder, ledger) = new();
    commit(&ledger, 6).await;
    seal(&ledger).await;
    let names: Vec<_> = reader(&ledger).segments().unwrap().into_iter().map(|segment| segment.name).collect();
    assert!(invalid(ledger.evict(names.clone()).await).contains("not delivered"));
    deliver(&ledger, 1, 1).await;
    ledger.evict(names[..1].to_vec()).await.unwrap();
    let expected = Books { accepted: 6, delivered: 6, kept: 5, ..Books::default() };
    assert_eq!(books(&ledger), expected);
    assert!(invalid(ledger.evict(names.clone()).await).contains("evicted already"));
    assert_eq!(books(&ledger), expected);
    assert_eq!(reader(&ledger).segments().unwrap().len(), 1);
    assert_eq!(reader(&ledger).cut_segments(&ledger.identity().instance, 1).unwrap().len(), 2);
    let unknown = SegmentName { cut: 9, ..names[0].clone() };
    assert!(invalid(ledger.evict(vec![unknown]).await).contains("not known"));
}

#[tokio::test]
async fn a_damaged_segment_is_a_loss_only_before_its_delivery() {
    let (_folder, ledger) = new();
    for _ in 0..2 {
        commit(&ledger, 6).await;
        seal(&ledger).await;
    }
    deliver(&ledger, 1, 1).await;
    let instance = ledger.identity().instance;
    let files = |cut| reader(&ledger).cut_segments(&instance, cut).unwrap();
    let (delivered, sealed) = (files(1)[0].name.clone(), files(2)[0].name.clone());
    ledger.mark_damaged(delivered, "a bit fell over".to_owned()).await.unwrap();
    assert_eq!(books(&ledger), Books { accepted: 12, sealed: 6, delivered: 6, kept: 7, ..Books::default() });
    assert_eq!(reader(&ledger).losses(10).unwrap(), []);
    for _ in 0..2 {
        ledger.mark_damaged(sealed.clone(), "a bit fell over".to_owned()).await.unwrap();
        assert_eq!(books(&ledger), Books { accepted: 12, sealed: 1, delivered: 6, damaged: 5, kept: 2, ..Books::default() });
        let losses = reader(&ledger).losses(10).unwrap();
        assert_eq!(
            losses.iter().map(|status| (status.loss.first_seq, status.loss.last_seq, status.loss.readings)).collect::<Vec<_>>(),
            [(7, 11, 5)]
        );
    }
    assert_eq!(files(2).len(), 1);
    deliver(&ledger, 2, 2).await;
    assert_eq!(books(&ledger), Books { accepted: 12, delivered: 7, damaged: 5, kept: 2, ..Books::default() });
}

#[tokio::test]
async fn a_damaged_file_of_records_counts_no_readings() {
    let (_folder, ledger) = new();
    ledger.commit(Batch { records: vec![record("a", "1", 1)], ..Batch::default() }).await.unwrap();
    let file = segment(FileKind::Records, 1, &ledger.identity().instance, 1, (1, 1), 1);
    let cut = SealedCut { segments: vec![file.clone()], last_record: 1, ..next_cut(&ledger, 0) };
    ledger.finish_seal(cut).await.unwrap();
    ledger.mark_damaged(file.name, "cut off".to_owned()).await.unwrap();
    assert_eq!(books(&ledger), Books::default());
    let loss = &reader(&ledger).losses(1).unwrap()[0].loss;
    assert_eq!((loss.first_seq, loss.last_seq, loss.readings), (0, 0, 0));
    assert!(loss.detail.contains("1 records"), "{}", loss.detail);
}

/// Hundreds of steps drawn at random: the books are audited after each, and at some the
/// ledger is killed and opened again.
#[tokio::test]
async fn the_books_balance_after_any_sequence_of_steps() {
    for seed in [1, 2, 3] {
        random_steps(seed, 150).await;
    }
}

async fn random_steps(seed: u64, steps: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let (mut folder, mut ledger) = new();
    let mut accepted = 0;
    for _ in 0..steps {
        match random.random_range(0..100) {
            0..45 => {
                let count = random.random_range(0..20);
                accepted += count;
                commit(&ledger, count).await;
            }
            45..65 => random_seal(&ledger, &mut random).await,
            65..80 => random_shipment(&ledger, &mut random).await,
            80..85 => random_leaving(&ledger, &mut random).await,
            85..87 => random_drop(&ledger, &mut random).await,
            87..88 => prune(&ledger).await,
            88..90 => {
                ledger.fork("a test".to_owned()).await.unwrap();
                accepted = books(&ledger).hot;
            }
            90..95 => {
                ledger.close().await.unwrap();
                ledger = open(folder.path());
            }
            _ => {
                let killed = as_after_a_kill(folder.path());
                ledger = open(killed.path());
                folder = killed;
            }
        }
        assert_eq!(books(&ledger).accepted, accepted, "seed {seed}");
        let (held, stored) = ledger.call(|store| Ok((store.state().clone(), state::load(store.connection())?))).await.unwrap();
        assert_eq!(held, stored, "seed {seed}");
        assert_eq!(*ledger.progress().borrow(), held.progress(ledger.progress().borrow().version));
    }
}

async fn random_seal(ledger: &Ledger, random: &mut StdRng) {
    let (mark, entries) = {
        let reader = reader(ledger);
        (reader.progress().unwrap().mark, reader.journal(0, u64::MAX).unwrap())
    };
    if entries.is_empty() {
        return;
    }
    let taken = random.random_range(1..=entries.len());
    let last_seq = entries[taken - 1].last_seq();
    let mut cut = next_cut(ledger, last_seq);
    if random.random_bool(0.2) {
        let bad = &entries[random.random_range(0..taken)];
        cut.damaged = vec![(bad.first_seq, bad.last_seq(), "a test".to_owned())];
        let rows = last_seq - mark - bad.readings;
        let instance = ledger.identity().instance;
        cut.segments =
            if rows == 0 { vec![] } else { vec![segment(FileKind::Readings, 1, &instance, cut.number, (mark + 1, last_seq), rows)] };
    }
    ledger.finish_seal(cut).await.unwrap();
}

async fn random_shipment(ledger: &Ledger, random: &mut StdRng) {
    let reader = reader(ledger);
    if let Some(open) = reader.open_shipment().unwrap() {
        if random.random_bool(0.2) {
            ledger.abandon_shipment(open.instance, open.number).await.unwrap();
        } else {
            ledger.finish_shipment(open.instance, open.number).await.unwrap();
        }
        return;
    }
    let cut = reader.next_cut(random.random_bool(0.5)).unwrap();
    let instance = cut.as_ref().map_or_else(|| ledger.identity().instance, |cut| cut.instance.clone());
    let number = reader.last_shipment(&instance).unwrap().map_or(0, |(number, _)| number) + 1;
    let losses = reader.untold_losses(&instance).unwrap().iter().map(|loss| loss.id).collect();
    let shipment = Shipment { losses, ..shipment(&instance, number, cut.map(|cut| cut.number)) };
    ledger.begin_shipment(shipment.clone()).await.unwrap();
    assert_eq!(reader.open_shipment().unwrap(), Some(shipment));
}

async fn random_leaving(ledger: &Ledger, random: &mut StdRng) {
    let segments = reader(ledger).segments().unwrap();
    let Some(segment) = segments.choose(random) else {
        return;
    };
    // Refusals are as good as the other: what counts is that the books hold.
    let outcome = match random.random_bool(0.5) {
        true => ledger.evict(vec![segment.name.clone()]).await,
        false => ledger.mark_damaged(segment.name.clone(), "a test".to_owned()).await,
    };
    assert!(matches!(outcome, Ok(()) | Err(LedgerError::Invalid(_))), "{outcome:?}");
}

async fn random_drop(ledger: &Ledger, random: &mut StdRng) {
    if random.random_bool(0.3) {
        ledger.drop_hot(random.random_range(1..5_000), "a test".to_owned()).await.unwrap();
        return;
    }
    let oldest = reader(ledger).droppable(random.random_range(0..3)).unwrap();
    let cuts = oldest.into_iter().map(|cut| (cut.instance, cut.number)).collect();
    ledger.drop_cuts(cuts, "a test".to_owned()).await.unwrap();
}

async fn prune(ledger: &Ledger) {
    let gone = reader(ledger).gone(100).unwrap().into_iter().map(|cut| (cut.instance, cut.number)).collect();
    ledger.prune(gone, 0).await.unwrap();
}
