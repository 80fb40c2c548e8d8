//! Pruning: what nobody needs leaves, and what is needed stays.

use super::*;

async fn prune(ledger: &Ledger, record_bytes: u64) -> u64 {
    let gone = reader(ledger).gone(100).unwrap().into_iter().map(|cut| (cut.instance, cut.number)).collect();
    ledger.prune(gone, record_bytes).await.unwrap()
}

async fn count(ledger: &Ledger, table: &'static str) -> u64 {
    let count = move |store: &mut super::super::store::Store| {
        Ok(store.connection().query_row(&format!("select count(*) from {table}"), [], |row| row.get(0))?)
    };
    ledger.call(count).await.unwrap()
}

#[tokio::test]
async fn evicted_cuts_and_past_shipments_are_forgotten_but_for_the_newest() {
    let (folder, ledger) = new();
    for number in 1..=5 {
        commit(&ledger, 4).await;
        seal(&ledger).await;
        deliver(&ledger, number, number).await;
    }
    let evictable = reader(&ledger).evictable(None, 100).unwrap();
    assert_eq!(evictable.iter().map(|segment| segment.name.cut).collect::<Vec<_>>(), [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]);
    let some = evictable.iter().filter(|segment| segment.name.cut != 2).map(|segment| segment.name.clone()).collect();
    ledger.evict(some).await.unwrap();
    let before = books(&ledger);
    let gone: Vec<_> = reader(&ledger).gone(100).unwrap().into_iter().map(|cut| (cut.number, cut.files.len())).collect();
    assert_eq!(gone, [(1, 2), (3, 2), (4, 2)], "cut 2 is here, and cut 5 is the newest");
    let last = reader(&ledger).last_shipment(&ledger.identity().instance).unwrap();
    assert_eq!(prune(&ledger, 0).await, 3 + 4);
    assert_eq!(prune(&ledger, 0).await, 0);
    assert_eq!([count(&ledger, "cuts").await, count(&ledger, "segments").await, count(&ledger, "shipments").await], [2, 4, 1]);
    assert_eq!(books(&ledger), before);
    // Everything goes on with the next numbers, also after a kill.
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(reader(&again).last_shipment(&again.identity().instance).unwrap(), last);
    commit(&again, 4).await;
    seal(&again).await;
    deliver(&again, 6, 6).await;
    assert_eq!(books(&again).delivered, 24);
}

#[tokio::test]
async fn a_cut_that_is_not_gone_is_not_forgotten_whoever_asks() {
    let (_folder, ledger) = new();
    for _ in 0..3 {
        commit(&ledger, 4).await;
        seal(&ledger).await;
    }
    deliver(&ledger, 1, 1).await;
    let instance = ledger.identity().instance;
    let all = [1, 2, 3, 9].map(|number| (instance.clone(), number)).to_vec();
    assert_eq!(ledger.prune(all, 0).await.unwrap(), 0);
    assert_eq!(count(&ledger, "cuts").await, 3);
}

#[tokio::test]
async fn of_the_losses_that_are_told_the_newest_stay() {
    let (_folder, ledger) = new();
    let many = |store: &mut super::super::store::Store| {
        store.transact(|tx, state| {
            let insert = "insert into losses (instance, first_seq, last_seq, readings, reason, noted, detail, shipment) \
                          values (?1, 0, 0, 0, 'rebuilt', 1, '', ?2)";
            let name = state.identity.instance.as_str();
            (0..10_300).try_for_each(|place| tx.execute(insert, (name, (place % 2 == 0).then_some(1))).map(|_| ()))?;
            Ok(())
        })
    };
    ledger.call(many).await.unwrap();
    assert_eq!(prune(&ledger, 0).await, 150);
    assert_eq!(reader(&ledger).untold_losses(&ledger.identity().instance).unwrap().len(), 5150);
    books(&ledger);
}

#[tokio::test]
async fn exported_records_beyond_their_share_leave_and_the_others_stay() {
    let (_folder, ledger) = new();
    let records = (0..10).map(|number| record("a", &format!("{number}{}", "x".repeat(999)), number)).collect();
    ledger.commit(Batch { records, ..Batch::default() }).await.unwrap();
    assert_eq!(prune(&ledger, 0).await, 0, "none is exported");
    let file = segment(FileKind::Records, 1, &ledger.identity().instance, 1, (1, 8), 8);
    let cut = SealedCut { segments: vec![file], last_record: 8, ..next_cut(&ledger, 0) };
    ledger.finish_seal(cut).await.unwrap();
    assert_eq!(prune(&ledger, 5_100).await, 5);
    let left: Vec<_> = reader(&ledger).records(None, None, 100).unwrap().iter().map(|record| record.id).collect();
    assert_eq!(left, [10, 9, 8, 7, 6]);
    assert_eq!(prune(&ledger, 0).await, 3);
    assert_eq!(reader(&ledger).records_after(8, 10).unwrap().len(), 2);
}
