//! Instances: copied cards, older ledgers, files that nobody knew.

use super::*;

#[tokio::test]
async fn a_copied_card_begins_a_new_instance_and_numbers_its_journal_anew() {
    let (folder, ledger) = new();
    for count in [4, 3, 5] {
        commit(&ledger, count).await;
    }
    ledger.finish_seal(next_cut(&ledger, 4)).await.unwrap();
    let old = ledger.identity().instance;
    let copy = as_after_a_kill(folder.path());
    let there = try_open(copy.path(), "host-2").unwrap();
    // Recovery still sees the old one.
    assert_eq!(there.identity().instance, old);
    assert!(!there.is_behind().await.unwrap());
    let identity = there.begin_if_due().await.unwrap();
    assert_eq!(identity, there.identity());
    assert_eq!(identity.forked_from, Some(old.clone()));
    assert_ne!(identity.instance, old);
    assert_eq!(books(&there), Books { accepted: 8, hot: 8, kept: 12, ..Books::default() });
    assert_eq!(decoded(&reader(&there), 0), (1..=8).collect::<Vec<_>>());
    assert_eq!(reader(&there).tally().unwrap(), Tally::default());
    // The undelivered cut keeps its old name and is shipped in the old chain; the new books do not count it.
    let cut = reader(&there).next_cut(true).unwrap().unwrap();
    assert_eq!((&cut.instance, cut.number), (&old, 1));
    there.begin_shipment(shipment(&old, 1, Some(1))).await.unwrap();
    there.finish_shipment(old.clone(), 1).await.unwrap();
    assert_eq!(books(&there), Books { accepted: 8, hot: 8, kept: 12, ..Books::default() });
    assert_eq!(reader(&there).last_shipment(&old).unwrap().unwrap().0, 1);
    seal(&there).await;
    deliver(&there, 1, 1).await;
    assert_eq!(books(&there), Books { accepted: 8, delivered: 8, kept: 12, ..Books::default() });
    // Both go on, and neither is mistaken for the other.
    drop(there);
    let same = try_open(copy.path(), "host-2").unwrap();
    assert_eq!(same.begin_if_due().await.unwrap(), identity);
    assert_eq!(open(folder.path()).begin_if_due().await.unwrap().instance, old);
}

#[tokio::test]
async fn a_fork_is_told_to_those_who_hold_the_ledger() {
    let (_folder, ledger) = new();
    commit(&ledger, 3).await;
    seal(&ledger).await;
    commit(&ledger, 2).await;
    let holder = ledger.clone();
    let identity = ledger.fork("another digest upstream".to_owned()).await.unwrap();
    assert_eq!(holder.identity(), identity);
    let progress = holder.progress().borrow().clone();
    assert_eq!((progress.last_seq, progress.mark, progress.last_cut), (2, 0, 0));
    assert_eq!(ledger.commit(batch(1)).await.unwrap().first_seq, 3);
    seal(&ledger).await;
    assert_eq!(books(&ledger), Books { accepted: 3, sealed: 3, kept: 6, ..Books::default() });
    assert_eq!(reader(&ledger).cuts().unwrap().iter().map(|cut| cut.number).collect::<Vec<_>>(), [1, 1]);
}

#[tokio::test]
async fn an_older_ledger_adopts_newer_files_and_keeps_each_reading_once() {
    let (folder, ledger) = new();
    commit(&ledger, 4).await;
    commit(&ledger, 3).await;
    let old = ledger.identity().instance;
    let older = as_after_a_kill(folder.path());
    commit(&ledger, 2).await;
    let lost = next_cut(&ledger, 9);
    ledger.finish_seal(lost.clone()).await.unwrap();
    // The card went back to an older state, but the files of the cut are there.
    let ledger = open(older.path());
    let identity = ledger.adopt(lost.segments.clone(), vec![]).await.unwrap();
    assert_eq!(identity.forked_from, Some(old.clone()));
    assert_eq!(books(&ledger), Books { kept: 9, ..Books::default() });
    let cut = reader(&ledger).next_cut(true).unwrap().unwrap();
    assert_eq!((cut.instance, cut.number, cut.first_seq, cut.last_seq, cut.readings), (old, 1, 1, 9, 9));
    let losses = reader(&ledger).untold_losses(&identity.instance).unwrap();
    assert_eq!(losses.iter().map(|loss| (loss.reason.as_str(), loss.readings)).collect::<Vec<_>>(), [("rebuilt", 0)]);
    assert!(invalid(ledger.adopt(lost.segments, vec![]).await).contains("UNIQUE"));
    assert!(invalid(ledger.adopt(vec![], vec![]).await).contains("no segments"));
}

#[tokio::test]
async fn an_instance_that_began_by_adopting_is_new_enough_for_another_host() {
    let (folder, ledger) = new();
    commit(&ledger, 4).await;
    let older = as_after_a_kill(folder.path());
    let lost = next_cut(&ledger, 4);
    let there = try_open(older.path(), "host-2").unwrap();
    let adopted = there.adopt(lost.segments, vec![]).await.unwrap();
    assert_eq!(adopted.forked_from, Some(ledger.identity().instance));
    assert_eq!(there.begin_if_due().await.unwrap(), adopted);
    there.close().await.unwrap();
    let again = try_open(older.path(), "host-2").unwrap();
    assert_eq!(again.begin_if_due().await.unwrap(), adopted);
    assert_eq!(books(&again), Books { kept: 4, ..Books::default() });
}

#[tokio::test]
async fn an_incomplete_cut_is_adopted_with_a_loss_and_the_journal_stays() {
    let (_folder, ledger) = new();
    commit(&ledger, 4).await;
    let old = ledger.identity().instance;
    let found = vec![segment(FileKind::Readings, 1, &old, 1, (1, 6), 4), segment(FileKind::Records, 1, &old, 1, (1, 9), 9)];
    let identity = ledger.adopt(found, vec![]).await.unwrap();
    assert_eq!(books(&ledger), Books { accepted: 4, hot: 4, kept: 8, ..Books::default() });
    let losses = reader(&ledger).untold_losses(&old).unwrap();
    assert_eq!((losses[0].first_seq, losses[0].last_seq, losses[0].readings), (1, 6, 2));
    assert_eq!(reader(&ledger).cuts().unwrap()[0].records, 9);
    assert_eq!(identity, ledger.identity());
}

#[tokio::test]
async fn a_new_ledger_adopts_without_beginning_again() {
    let (_folder, ledger) = new();
    let (foreign, before) = (InstanceId::random(), ledger.identity().instance);
    let found = vec![segment(FileKind::Readings, 2, &foreign, 8, (70, 79), 10), segment(FileKind::Records, 2, &foreign, 9, (1, 2), 2)];
    let identity = ledger.adopt(found, vec![]).await.unwrap();
    assert_eq!((&identity.instance, &identity.forked_from), (&before, &Some(foreign.clone())));
    assert_eq!(books(&ledger), Books { kept: 10, ..Books::default() });
    let cuts = reader(&ledger).cuts().unwrap();
    assert_eq!(cuts.iter().map(|cut| (cut.number, cut.first_seq, cut.last_seq)).collect::<Vec<_>>(), [(8, 70, 79), (9, 80, 79)]);
    assert_eq!(reader(&ledger).untold_losses(&before).unwrap().len(), 1);
}

#[tokio::test]
async fn a_shipment_of_an_earlier_ledger_is_recognised_with_its_cut_and_what_was_missed_of_it_is_no_loss() {
    let (_folder, ledger) = new();
    let old: InstanceId = "0123456789abcdef".parse().unwrap();
    let found = [(1, (1, 6), 4), (2, (7, 9), 3)].map(|(cut, seqs, rows)| segment(FileKind::Readings, 1, &old, cut, seqs, rows));
    ledger.adopt(found.to_vec(), vec![]).await.unwrap();
    let recognised = |number, cut| Recognised { instance: old.clone(), number, cut, sha256: Digest::of(&[number as u8]) };
    assert!(invalid(ledger.recognise_shipment(recognised(1, Some(1))).await).contains("not under way"));
    // Its number was to bring cut 2, and brought cut 1.
    ledger.begin_shipment(shipment(&old, 1, Some(2))).await.unwrap();
    ledger.recognise_shipment(recognised(1, Some(1))).await.unwrap();
    let states = |ledger: &Ledger| reader(ledger).cuts().unwrap().iter().map(|cut| (cut.number, cut.state)).collect::<Vec<_>>();
    assert_eq!(states(&ledger), [(1, CutState::Delivered), (2, CutState::Sealed)]);
    assert_eq!(reader(&ledger).untold_losses(&old).unwrap(), []);
    // One that brought a cut which is not here any more, and one of losses alone.
    for (number, cut) in [(2, Some(77)), (3, None)] {
        ledger.begin_shipment(shipment(&old, number, Some(2))).await.unwrap();
        ledger.recognise_shipment(recognised(number, cut)).await.unwrap();
    }
    assert_eq!(reader(&ledger).last_shipment(&old).unwrap(), Some((3, Digest::of(&[3]))));
    assert_eq!(reader(&ledger).open_shipment().unwrap(), None);
    assert_eq!(books(&ledger), Books { kept: 7, ..Books::default() });
    // For the current instance nobody else ships.
    commit(&ledger, 2).await;
    seal(&ledger).await;
    let current = ledger.identity().instance;
    ledger.begin_shipment(shipment(&current, 1, Some(1))).await.unwrap();
    let of_current = Recognised { instance: current, ..recognised(1, Some(1)) };
    assert!(invalid(ledger.recognise_shipment(of_current).await).contains("current"));
}
