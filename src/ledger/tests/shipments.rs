//! Shipments: one under way, numbered without gaps, each loss told once.

use super::*;

async fn with_two_cuts() -> (TempDir, Ledger, InstanceId) {
    let (folder, ledger) = new();
    for _ in 0..2 {
        commit(&ledger, 4).await;
        seal(&ledger).await;
    }
    let instance = ledger.identity().instance;
    (folder, ledger, instance)
}

#[tokio::test]
async fn a_shipment_survives_a_kill_with_the_same_bytes() {
    let (folder, ledger, instance) = with_two_cuts().await;
    let shipped = shipment(&instance, 1, Some(2));
    ledger.begin_shipment(shipped.clone()).await.unwrap();
    let killed = as_after_a_kill(folder.path());
    let again = open(killed.path());
    assert_eq!(reader(&again).open_shipment().unwrap(), Some(shipped.clone()));
    assert_eq!(reader(&again).last_shipment(&instance).unwrap(), None);
    again.finish_shipment(instance.clone(), 1).await.unwrap();
    assert_eq!(reader(&again).open_shipment().unwrap(), None);
    assert_eq!(reader(&again).last_shipment(&instance).unwrap(), Some((1, Digest::of(&shipped.manifest))));
    assert_eq!(books(&again), Books { accepted: 8, sealed: 4, delivered: 4, kept: 8, ..Books::default() });
}

#[tokio::test]
async fn the_order_of_shipping_is_chosen() {
    let (_folder, ledger, _) = with_two_cuts().await;
    let next = |newest| reader(&ledger).next_cut(newest).unwrap().map(|cut| cut.number);
    assert_eq!((next(true), next(false)), (Some(2), Some(1)));
    deliver(&ledger, 1, 2).await;
    assert_eq!((next(true), next(false)), (Some(1), Some(1)));
    deliver(&ledger, 2, 1).await;
    assert_eq!((next(true), next(false)), (None, None));
}

#[tokio::test]
async fn a_shipment_out_of_turn_is_refused() {
    let (_folder, ledger, instance) = with_two_cuts().await;
    let begin = |number, cut| ledger.begin_shipment(shipment(&instance, number, cut));
    assert!(invalid(begin(2, Some(1)).await).contains("does not follow"));
    assert!(invalid(begin(1, Some(3)).await).contains("not waiting"));
    begin(1, Some(1)).await.unwrap();
    assert!(invalid(begin(2, Some(2)).await).contains("under way"));
    assert!(invalid(ledger.finish_shipment(instance.clone(), 2).await).contains("not under way"));
    ledger.finish_shipment(instance.clone(), 1).await.unwrap();
    assert!(invalid(ledger.finish_shipment(instance.clone(), 1).await).contains("not under way"));
    assert!(invalid(begin(2, Some(1)).await).contains("not waiting"));
    begin(2, None).await.unwrap();
    assert_eq!(reader(&ledger).progress().unwrap().last_shipment, 2);
    assert_eq!(books(&ledger).delivered, 4);
}

#[tokio::test]
async fn each_loss_is_told_by_one_shipment() {
    let (_folder, ledger, instance) = with_two_cuts().await;
    let bad = reader(&ledger).cut_segments(&instance, 1).unwrap()[0].name.clone();
    ledger.mark_damaged(bad, "a test".to_owned()).await.unwrap();
    let untold = || reader(&ledger).untold_losses(&instance).unwrap().iter().map(|loss| loss.id).collect::<Vec<_>>();
    assert_eq!(untold(), [1]);
    let telling = |number, losses: &[u64]| Shipment { losses: losses.to_vec(), ..shipment(&instance, number, None) };
    assert!(invalid(ledger.begin_shipment(telling(1, &[1, 2])).await).contains("loss 2"));
    assert_eq!((untold(), reader(&ledger).open_shipment().unwrap()), (vec![1], None));
    ledger.begin_shipment(telling(1, &[1])).await.unwrap();
    assert_eq!(reader(&ledger).open_shipment().unwrap().unwrap().losses, [1]);
    ledger.finish_shipment(instance.clone(), 1).await.unwrap();
    assert_eq!(untold(), [] as [u64; 0]);
    assert_eq!(reader(&ledger).losses(1).unwrap()[0].shipment, Some(1));
    assert!(invalid(ledger.begin_shipment(telling(2, &[1])).await).contains("loss 1"));
}

#[tokio::test]
async fn a_cut_under_way_is_pinned_until_its_shipment_is_given_up() {
    let (_folder, ledger, instance) = with_two_cuts().await;
    let (bad, other) =
        (reader(&ledger).cut_segments(&instance, 1).unwrap()[0].name.clone(), reader(&ledger).cut_segments(&instance, 2).unwrap());
    ledger.mark_damaged(other[0].name.clone(), "a test".to_owned()).await.unwrap();
    ledger.begin_shipment(Shipment { losses: vec![1], ..shipment(&instance, 1, Some(1)) }).await.unwrap();
    assert!(invalid(ledger.mark_damaged(bad.clone(), "a test".to_owned()).await).contains("being shipped"));
    ledger.abandon_shipment(instance.clone(), 1).await.unwrap();
    assert_eq!(reader(&ledger).untold_losses(&instance).unwrap().len(), 1);
    assert_eq!(ledger.progress().borrow().last_shipment, 0);
    ledger.mark_damaged(bad, "a test".to_owned()).await.unwrap();
    assert_eq!(books(&ledger), Books { accepted: 8, sealed: 2, damaged: 6, kept: 2, ..Books::default() });
    deliver(&ledger, 1, 1).await;
    assert_eq!(books(&ledger), Books { accepted: 8, sealed: 1, delivered: 1, damaged: 6, kept: 2, ..Books::default() });
}

#[tokio::test]
async fn an_instance_set_aside_is_passed_over_until_it_is_taken_up() {
    let (_folder, ledger, old) = with_two_cuts().await;
    assert!(!reader(&ledger).has_shipped().unwrap());
    ledger.begin_shipment(shipment(&old, 1, Some(1))).await.unwrap();
    assert!(reader(&ledger).has_shipped().unwrap());
    let set_aside = || ledger.set_aside_shipment(old.clone(), 1, "its name is taken".to_owned());
    assert!(invalid(set_aside().await).contains("is the current instance"));
    let new = ledger.fork("its name is taken".to_owned()).await.unwrap().instance;
    set_aside().await.unwrap();
    assert!(invalid(set_aside().await).contains("not under way"));
    assert_eq!(reader(&ledger).set_aside().unwrap(), [(old.clone(), "its name is taken".to_owned())]);
    assert_eq!((reader(&ledger).next_cut(true).unwrap(), reader(&ledger).open_shipment().unwrap()), (None, None));
    assert_eq!((reader(&ledger).parent(&new).unwrap(), reader(&ledger).parent(&old).unwrap()), (Some(old.clone()), None));
    ledger.take_up_set_aside().await.unwrap();
    assert_eq!(reader(&ledger).next_cut(true).unwrap().map(|cut| (cut.instance, cut.number)), Some((old, 2)));
}

#[tokio::test]
async fn a_refused_cut_gives_its_number_away_and_is_passed_over_until_its_turn_comes_again() {
    let (folder, ledger, instance) = with_two_cuts().await;
    let bad = reader(&ledger).cut_segments(&instance, 1).unwrap()[0].name.clone();
    ledger.mark_damaged(bad, "a test".to_owned()).await.unwrap();
    let next = |ledger: &Ledger| reader(ledger).next_cut(true).unwrap().map(|cut| cut.number);
    let refuse = |number| ledger.refuse_shipment(instance.clone(), number, "413".to_owned(), Timestamp(1_000));
    assert!(invalid(refuse(1).await).contains("not under way"));
    ledger.begin_shipment(Shipment { losses: vec![1], ..shipment(&instance, 1, Some(2)) }).await.unwrap();
    refuse(1).await.unwrap();
    assert_eq!((next(&ledger), reader(&ledger).open_shipment().unwrap()), (Some(1), None));
    assert_eq!(reader(&ledger).untold_losses(&instance).unwrap().len(), 1);
    let refusals = Refusals { cuts: 1, readings: 4, reason: "413".to_owned(), again: Timestamp(1_000) };
    assert_eq!(reader(&ledger).refusals().unwrap(), Some(refusals.clone()));
    let backlog = reader(&ledger).backlog().unwrap();
    assert!(0 < backlog.held_bytes && backlog.held_bytes < backlog.bytes, "{backlog:?}");
    assert_eq!(
        (reader(&ledger).has_refused_due(Timestamp(999)).unwrap(), reader(&ledger).has_refused_due(Timestamp(1_000)).unwrap()),
        (false, true)
    );
    let killed = as_after_a_kill(folder.path());
    assert_eq!(reader(&open(killed.path())).refusals().unwrap(), Some(refusals));

    ledger.retry_refused(Retry::RefusedOnce).await.unwrap();
    assert_eq!((next(&ledger), reader(&ledger).refusals().unwrap()), (Some(2), None));
    ledger.begin_shipment(shipment(&instance, 1, Some(2))).await.unwrap();
    refuse(1).await.unwrap();
    ledger.retry_refused(Retry::RefusedOnce).await.unwrap();
    assert_eq!(next(&ledger), Some(1), "it was refused twice");
    ledger.retry_refused(Retry::Due).await.unwrap();
    assert_eq!(next(&ledger), Some(2));
    deliver(&ledger, 1, 2).await;
    ledger.retry_refused(Retry::All).await.unwrap();
    assert_eq!((next(&ledger), reader(&ledger).refusals().unwrap()), (Some(1), None));
    assert_eq!(books(&ledger), Books { accepted: 8, sealed: 1, delivered: 4, damaged: 3, kept: 5, ..Books::default() });
    // A shipment of losses alone has no cut that could be passed over.
    ledger.begin_shipment(shipment(&instance, 2, None)).await.unwrap();
    assert!(invalid(refuse(2).await).contains("brings no cut"));
}

#[tokio::test]
async fn nothing_of_a_cut_under_way_leaves_before_the_outcome_is_known() {
    let (_folder, ledger, instance) = with_two_cuts().await;
    let name = reader(&ledger).cut_segments(&instance, 1).unwrap()[0].name.clone();
    ledger.begin_shipment(shipment(&instance, 1, Some(1))).await.unwrap();
    assert!(invalid(ledger.evict(vec![name.clone()]).await).contains("is not delivered"));
    assert!(invalid(ledger.mark_damaged(name.clone(), "a test".to_owned()).await).contains("being shipped"));
    ledger.finish_shipment(instance, 1).await.unwrap();
    ledger.evict(vec![name]).await.unwrap();
}
