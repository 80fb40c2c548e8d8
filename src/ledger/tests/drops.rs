//! Drops: what leaves undelivered is a loss, and nothing else changes.

use super::*;
use crate::model::{CutState, LossReason};

async fn drop_cuts(ledger: &Ledger, cuts: &[CutNumber]) -> Result<(), LedgerError> {
    let instance = ledger.identity().instance;
    ledger.drop_cuts(cuts.iter().map(|cut| (instance.clone(), *cut)).collect(), "the cap is reached".to_owned()).await
}

async fn with_cuts(count: usize) -> (TempDir, Ledger) {
    let (folder, ledger) = new();
    for _ in 0..count {
        commit(&ledger, 4).await;
        seal(&ledger).await;
    }
    (folder, ledger)
}

#[tokio::test]
async fn a_dropped_cut_is_a_loss_with_its_range_and_reason_and_survives_a_kill() {
    let (folder, ledger) = with_cuts(3).await;
    let droppable = reader(&ledger).droppable(2).unwrap();
    assert_eq!(droppable.iter().map(|cut| (cut.number, cut.bytes, cut.readings)).collect::<Vec<_>>(), [(1, 2000, 4), (2, 2000, 4)]);
    drop_cuts(&ledger, &[1, 2]).await.unwrap();
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(books(&again), Books { accepted: 12, sealed: 4, dropped: 8, kept: 4, ..Books::default() });
    let reader = reader(&again);
    let losses = reader.untold_losses(&again.identity().instance).unwrap();
    let ranges: Vec<_> = losses.iter().map(|loss| (loss.first_seq, loss.last_seq, loss.readings, loss.reason)).collect();
    assert_eq!(ranges, [(1, 4, 4, LossReason::Dropped), (5, 8, 4, LossReason::Dropped)]);
    assert!(
        losses[0].detail.starts_with("cut 1, times 2024-10-05") && losses[0].detail.ends_with("the cap is reached"),
        "{}",
        losses[0].detail
    );
    let states: Vec<_> = reader.cuts().unwrap().iter().map(|cut| cut.state).collect();
    assert_eq!(states, [CutState::Dropped, CutState::Dropped, CutState::Sealed]);
    assert_eq!((reader.next_cut(false).unwrap().unwrap().number, reader.segments().unwrap().len()), (3, 2));
    // Recovery must know that the ledger let go of them.
    assert_eq!(reader.cut_segments(&again.identity().instance, 1).unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_delivered_or_being_shipped_is_not_dropped() {
    let (_folder, ledger) = with_cuts(3).await;
    let instance = ledger.identity().instance;
    deliver(&ledger, 1, 1).await;
    ledger.begin_shipment(shipment(&instance, 2, Some(2))).await.unwrap();
    let before = books(&ledger);
    assert!(invalid(drop_cuts(&ledger, &[1]).await).contains("delivered already"));
    assert!(invalid(drop_cuts(&ledger, &[3, 2]).await).contains("being shipped"));
    assert!(invalid(drop_cuts(&ledger, &[9]).await).contains("not known"));
    assert_eq!(books(&ledger), before, "none of them left");
    assert_eq!(reader(&ledger).droppable(9).unwrap().iter().map(|cut| cut.number).collect::<Vec<_>>(), [3]);
    ledger.abandon_shipment(instance, 2).await.unwrap();
    drop_cuts(&ledger, &[2]).await.unwrap();
    assert!(invalid(drop_cuts(&ledger, &[2]).await).contains("dropped already"));
    assert_eq!(books(&ledger), Books { accepted: 12, sealed: 4, delivered: 4, dropped: 4, kept: 8, ..Books::default() });
}

#[tokio::test]
async fn a_dropped_cut_with_a_damaged_file_loses_the_rest_of_its_readings() {
    let (_folder, ledger) = with_cuts(1).await;
    let damaged = reader(&ledger).segments().unwrap()[0].name.clone();
    ledger.mark_damaged(damaged, "a bit fell over".to_owned()).await.unwrap();
    let before = books(&ledger);
    drop_cuts(&ledger, &[1]).await.unwrap();
    assert_eq!(books(&ledger), Books { accepted: 4, dropped: before.sealed, damaged: before.damaged, ..Books::default() });
    assert_eq!(before.sealed + before.damaged, 4);
}

#[tokio::test]
async fn cuts_of_an_earlier_instance_are_dropped_under_its_name() {
    let (_folder, ledger) = with_cuts(1).await;
    let old = ledger.identity().instance;
    ledger.fork("a test".to_owned()).await.unwrap();
    commit(&ledger, 2).await;
    ledger.drop_cuts(vec![(old.clone(), 1)], "the cap is reached".to_owned()).await.unwrap();
    assert_eq!(books(&ledger), Books { accepted: 2, hot: 2, kept: 2, ..Books::default() });
    assert_eq!(reader(&ledger).untold_losses(&old).unwrap()[0].readings, 4);
}

#[tokio::test]
async fn records_of_a_dropped_cut_are_told_of_without_a_range() {
    let (_folder, ledger) = new();
    ledger.commit(Batch { records: vec![record("a", "1", 1)], ..Batch::default() }).await.unwrap();
    let file = segment(FileKind::Records, 1, &ledger.identity().instance, 1, (1, 1), 1);
    let cut = SealedCut { segments: vec![file], last_record: 1, ..next_cut(&ledger, 0) };
    ledger.finish_seal(cut).await.unwrap();
    drop_cuts(&ledger, &[1]).await.unwrap();
    assert_eq!(books(&ledger), Books::default());
    let loss = &reader(&ledger).losses(1).unwrap()[0].loss;
    assert_eq!((loss.first_seq, loss.last_seq, loss.readings), (0, 0, 0));
    assert!(loss.detail.starts_with("cut 1 with 1 records: "), "{}", loss.detail);
}

#[tokio::test]
async fn the_oldest_batches_of_the_journal_are_dropped_whole_and_the_next_cut_follows_them() {
    let (_folder, ledger) = new();
    for count in [4, 3, 5] {
        commit(&ledger, count).await;
    }
    let size = reader(&ledger).journal(0, 1).unwrap()[0].bytes.as_ref().unwrap().len() as u64;
    assert_eq!(ledger.drop_hot(size + 1, "nothing can be sealed".to_owned()).await.unwrap(), 7);
    assert_eq!(books(&ledger), Books { accepted: 12, hot: 5, dropped: 7, kept: 5, ..Books::default() });
    let loss = &reader(&ledger).losses(1).unwrap()[0].loss;
    assert_eq!((loss.first_seq, loss.last_seq, loss.readings), (1, 7, 7));
    seal(&ledger).await;
    let cut = reader(&ledger).next_cut(false).unwrap().unwrap();
    assert_eq!((cut.number, cut.first_seq, cut.last_seq), (1, 8, 12));
    assert_eq!(ledger.drop_hot(1, "the journal is empty".to_owned()).await.unwrap(), 0);
}

#[tokio::test]
async fn very_many_losses_that_nobody_was_told_of_become_one() {
    let (_folder, ledger) = with_cuts(4).await;
    let many = |store: &mut super::super::store::Store| {
        store.transact(|tx, state| {
            let insert = "insert into losses (instance, first_seq, last_seq, readings, reason, noted, detail) values (?1, 0, 0, 0, 'rebuilt', 1, '')";
            (0..999).try_for_each(|_| tx.execute(insert, [state.identity.instance.as_str()]).map(|_| ()))?;
            Ok(())
        })
    };
    ledger.call(many).await.unwrap();
    for cut in [1, 2, 3] {
        drop_cuts(&ledger, &[cut]).await.unwrap();
    }
    let reader = reader(&ledger);
    let newest = reader.losses(2).unwrap();
    assert_eq!((newest[0].loss.first_seq, newest[0].loss.last_seq, newest[0].loss.readings), (1, 12, 12));
    assert_eq!((newest[0].loss.id, newest[1].loss.reason), (1000, LossReason::Rebuilt));
    assert_eq!(books(&ledger).dropped, 12);
}
