//! What is compared with the provider, and who does it when.

use super::changes::{captured_of, held_of, refund_of};
use super::*;
use domain::provider::RefundObjectId;
use domain::reconcile::{BookedPayment, Difference, Owner};
use persistence::reconcile::{Reconciled, Slice};
use std::collections::BTreeMap;

async fn known_merchant(db: &Db) -> Result<MerchantId> {
    let merchant = merchant();
    let insert = sqlx::query("INSERT INTO merchants (merchant_id, name) VALUES ($1, 'Tea Shop')");
    insert.bind(merchant.0).execute(&db.owner).await?;
    Ok(merchant)
}

fn owner_of(payment: &Payment) -> Owner {
    Owner { merchant_id: payment.merchant_id, payment_id: payment.id }
}

fn slice(limit: i64) -> Slice {
    Slice { from: now() - time::Duration::hours(1), to: now() + time::Duration::hours(1), after: None, limit }
}

/// All of a walk, in pages of `limit`.
async fn walked(db: &Db, limit: i64) -> Result<Vec<BookedPayment>> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = db.store.list_booked_payments(&Slice { after, ..slice(limit) }).await?;
        assert!(page.len() <= usize::try_from(limit)?);
        let Some(last) = page.last() else { return Ok(all) };
        after = Some((last.owner.merchant_id, last.owner.payment_id.0));
        all.extend(page);
    }
}

#[tokio::test]
async fn a_walk_shows_every_merchants_payments_once_and_only_those_that_may_have_money() -> Result<()> {
    let db = Db::new().await?;
    let mut expected = Vec::new();
    for _ in 0..3 {
        let merchant = known_merchant(&db).await?;
        for _ in 0..3 {
            expected.push(captured_of(&db, merchant).await?.id);
        }
        let failed = new_payment(merchant, "failed");
        let (operation, lease) = claimed(&db.store, &failed, "failed").await?;
        assert!(fail(&db.store, &operation, &lease, &failed).await?);
    }
    expected.sort();
    for limit in [1, 2, 4, 100] {
        let mut ids: Vec<_> =
            walked(&db, limit).await?.iter().map(|payment| payment.owner.payment_id).collect();
        ids.sort();
        assert_eq!(ids, expected, "in pages of {limit}");
    }
    let earlier = Slice { to: now() - time::Duration::minutes(1), ..slice(100) };
    assert_eq!(db.store.list_booked_payments(&earlier).await?, []);
    let later = Slice { from: now() + time::Duration::minutes(1), ..slice(100) };
    assert_eq!(db.store.list_booked_payments(&later).await?, []);
    db.close().await
}

#[tokio::test]
async fn a_payment_is_read_as_it_is_compared() -> Result<()> {
    let db = Db::new().await?;
    let merchant = known_merchant(&db).await?;
    let payment = captured_of(&db, merchant).await?;
    let read = async || -> Result<BookedPayment> {
        let mut read = db.store.booked_payments(&[owner_of(&payment)]).await?;
        assert_eq!(read.len(), 1);
        Ok(read.swap_remove(0))
    };
    let booked = read().await?;
    assert_eq!(booked.owner, owner_of(&payment));
    assert_eq!((booked.status, booked.amount, booked.currency.as_str()), (Status::Captured, 1000, "EUR"));
    assert_eq!((booked.amount_captured, booked.amount_refunded, booked.refunds), (1000, 0, 0));
    assert_eq!((booked.intent.as_ref(), booked.open), (IntentId::parse("pi_1").as_ref(), false));
    assert_eq!(booked.updated_at, payment.updated_at);

    let (refund, written) = refund_of(&db.store, &payment, 300, "refund").await;
    let (operation, _) = written?.unwrap();
    let booked = read().await?;
    assert_eq!((booked.amount_refunded, booked.refunds, booked.open), (300, 300, true));
    let refunds = db.store.booked_refunds(&[(merchant, refund.id)]).await?;
    assert_eq!((refunds.len(), refunds[0].owner, refunds[0].amount), (1, owner_of(&payment), 300));
    assert_eq!((refunds[0].open, refunds[0].object.as_ref()), (true, None));
    assert_eq!(db.store.list_booked_refunds(&slice(10)).await?, refunds);

    // what waits for a person is compared: nobody else finds it
    sqlx::query("UPDATE operations SET contradicted_at = now() WHERE operation_id = $1")
        .bind(operation.id.0)
        .execute(&db.owner)
        .await?;
    sqlx::query("UPDATE refunds SET provider_refund_id = 're_1'").execute(&db.owner).await?;
    assert!(!read().await?.open);
    let refunds = db.store.booked_refunds(&[(merchant, refund.id)]).await?;
    assert_eq!((refunds[0].open, refunds[0].object.clone()), (false, RefundObjectId::parse("re_1")));
    db.close().await
}

#[tokio::test]
async fn a_payment_is_read_by_its_merchant_and_by_its_id_alone() -> Result<()> {
    let db = Db::new().await?;
    let (merchant, other) = (known_merchant(&db).await?, known_merchant(&db).await?);
    let payment = held_of(&db, merchant).await?;
    let foreign = Owner { merchant_id: other, payment_id: payment.id };
    assert_eq!(db.store.booked_payments(&[foreign]).await?, []);
    let read = db.store.booked_payment_of_anybody(payment.id).await?;
    assert_eq!(read.map(|booked| booked.owner), Some(owner_of(&payment)));
    assert_eq!(db.store.booked_payment_of_anybody(PaymentId::at(now())).await?, None);
    db.close().await
}

#[tokio::test]
async fn one_process_compares_at_a_time_and_what_it_found_is_for_all() -> Result<()> {
    const HOUR: Duration = Duration::from_secs(3600);
    let db = Db::new().await?;
    let store = &db.store;
    assert_eq!(
        store.lease_reconciliation(HOUR, LEASE).await?,
        None,
        "the first look makes it due in an hour"
    );
    assert_eq!(db.count("reconciliations WHERE due_at > now() + interval '59 minutes'").await?, 1);
    assert_eq!(store.lease_reconciliation(HOUR, LEASE).await?, None);
    assert_eq!(store.last_reconciliation().await?, None);

    let due = sqlx::query("UPDATE reconciliations SET due_at = now()");
    due.execute(&db.owner).await?;
    let (one, other) =
        tokio::join!(store.lease_reconciliation(HOUR, LEASE), store.lease_reconciliation(HOUR, LEASE));
    let (one, other) = (one?, other?);
    let token = one.or(other).unwrap();
    assert!(one.is_none() || other.is_none(), "one holder at a time");
    let kept = store.keep_reconciliation(token, HOUR).await?.unwrap();
    assert!(kept > token);
    let found = BTreeMap::from([(Difference::UnknownCharge, 2)]);
    assert_eq!(store.keep_reconciliation(token, HOUR).await?, None, "an old token is worth nothing");
    assert!(!store.end_reconciliation(token, HOUR, Some(&found)).await?);
    assert_eq!(store.last_reconciliation().await?, None);

    assert!(store.end_reconciliation(kept, Duration::ZERO, Some(&found)).await?);
    let Reconciled { age, differences } = store.last_reconciliation().await?.unwrap();
    assert_eq!(differences, found);
    assert!(age < LEASE, "{age:?}");

    // what was not compared to its end leaves what was found before
    let token = store.lease_reconciliation(HOUR, LEASE).await?.unwrap();
    assert!(store.end_reconciliation(token, HOUR, None).await?);
    assert_eq!(store.last_reconciliation().await?.unwrap().differences, found);
    // a kind that only another release knows is left to it
    sqlx::query(r#"UPDATE reconciliations SET differences = '{"weather": 1, "amount_differs": 3}'"#)
        .execute(&db.owner)
        .await?;
    let known = store.last_reconciliation().await?.unwrap().differences;
    assert_eq!(known, BTreeMap::from([(Difference::Amount, 3)]));
    db.close().await
}
