//! Captures, cancels and refunds of payments that are there, and watching them.

use super::*;
use domain::operation::OperationKind;
use domain::payment::{PendingOperation, Refusal};
use domain::provider::RefundObjectId;
use domain::refund::{NewRefund, Refund, RefundChange, RefundStatus};
use persistence::operations::Watch;
use persistence::refunds::RefundSettlement;

fn amount(minor: i64) -> Amount {
    Amount::new(minor).unwrap()
}

/// A payment of 1000 that is held.
pub(super) async fn held(db: &Db) -> Result<Payment> {
    held_of(db, merchant()).await
}

/// The same, of this merchant.
pub(super) async fn held_of(db: &Db, merchant: MerchantId) -> Result<Payment> {
    let mut payment = new_payment(merchant, "order-1");
    payment.request.capture = CaptureMethod::Manual;
    advance(db, &payment, "create", Change::Authorized).await
}

/// A payment of 1000 that was captured.
async fn captured(db: &Db) -> Result<Payment> {
    let payment = new_payment(merchant(), "order-1");
    advance(db, &payment, "create", Change::Captured(amount(1000))).await
}

/// The same, of this merchant, and one of many.
pub(super) async fn captured_of(db: &Db, merchant: MerchantId) -> Result<Payment> {
    let any = OperationId::at(now()).to_string();
    advance(db, &new_payment(merchant, &any), &any, Change::Captured(amount(1000))).await
}

async fn advance(db: &Db, payment: &Payment, key: &str, change: Change) -> Result<Payment> {
    let (operation, lease) = claimed(&db.store, payment, key).await?;
    let step = payment.transition(change)?;
    let after = Payment { intent: IntentId::parse("pi_1"), ..payment.clone() }.after(&step, now());
    assert!(settle(&db.store, &operation, &lease, &after, &step, &answer()).await?);
    Ok(after)
}

/// Runs `use_claim` with a claim under `key`.
async fn with_claim<T>(key: &str, use_claim: impl AsyncFnOnce(&Claim<'_>) -> T) -> T {
    let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
    let claim = Claim {
        operation_id: OperationId::at(now()),
        key: &key,
        fingerprint: &Fingerprint::of_cancel(key.as_str()),
        actor: Actor::Key(KeyId(Uuid::nil())),
        trace: TraceContext::random(),
        lease: LEASE,
        served: true,
        latest: Instant::now() + LEASE,
    };
    use_claim(&claim).await
}

pub(super) type Claimed1 = Result<Option<(Operation, Lease)>, StoreError>;

pub(super) async fn request(store: &Store, payment: &Payment, step: &Transition, key: &str) -> Claimed1 {
    let kind = match step.to().pending() {
        Some(PendingOperation::Capture(_)) => OperationKind::Capture,
        _ => OperationKind::Cancel,
    };
    with_claim(key, async |claim| store.claim_step(payment, step, kind, claim, now()).await).await
}

pub(super) async fn refund_of(store: &Store, payment: &Payment, minor: i64, key: &str) -> (Refund, Claimed1) {
    // decided by the payment as it was read, however it stands by now
    let new = NewRefund { amount: Some(amount(minor)), ..NewRefund::default() };
    let refund = payment.request_refund(new, now()).unwrap();
    let claimed = with_claim(key, async |claim| store.claim_refund(payment, &refund, claim).await).await;
    (refund, claimed)
}

async fn key_is_free(db: &Db, payment: &Payment, key: &str) -> Result<bool> {
    let key = IdempotencyKey::parse(key.as_bytes())?;
    Ok(db.store.find_idempotency_key(payment.merchant_id, &key).await?.is_none())
}

async fn read(db: &Db, payment: &Payment) -> Result<Payment> {
    Ok(db.store.find_payment(payment.merchant_id, payment.id).await?.unwrap())
}

#[tokio::test]
async fn one_capture_or_cancel_is_open_at_a_time() -> Result<()> {
    let db = Db::new().await?;
    let payment = held(&db).await?;
    let capture = payment.request_capture(Some(amount(400))).unwrap();
    let (operation, lease) = request(&db.store, &payment, &capture, "capture").await?.unwrap();
    assert_eq!(operation.kind, OperationKind::Capture);
    let pending = read(&db, &payment).await?;
    assert_eq!(pending.state.pending(), Some(PendingOperation::Capture(amount(400))));
    assert_eq!(pending.request_cancel(), Err(Refusal::State));

    // decided before the capture was written
    let cancel = payment.request_cancel().unwrap();
    assert!(matches!(request(&db.store, &payment, &cancel, "cancel").await, Err(StoreError::StateMoved)));
    assert!(key_is_free(&db, &payment, "cancel").await?, "what was refused uses no key up");
    assert_eq!(request(&db.store, &payment, &capture, "capture").await?, None, "a known key writes nothing");

    let step = pending.transition(Change::Captured(amount(400)))?;
    let after = pending.clone().after(&step, now());
    assert!(settle(&db.store, &operation, &lease, &after, &step, &answer()).await?);
    let events: Vec<String> = db.events(payment.id).await?.into_iter().map(|(_, kind)| kind).collect();
    let expected = ["payment.created", "payment.authorized", "payment.capture_requested", "payment.captured"];
    assert_eq!(events, expected);
    db.close().await
}

/// The payment's row, held by somebody else.
struct HeldRow(sqlx::Transaction<'static, sqlx::Postgres>);

impl HeldRow {
    async fn of(db: &Db, payment: &Payment) -> Result<Self> {
        let mut holder = db.owner.begin().await?;
        let lock = sqlx::query("SELECT 1 FROM payments WHERE payment_id = $1 FOR UPDATE");
        lock.bind(payment.id.0).execute(&mut *holder).await?;
        Ok(Self(holder))
    }

    /// Lets go as soon as so many wait for it.
    async fn let_go_when_waited_for_by(self, db: &Db, waiting: i64) -> Result<()> {
        let statement = "SELECT count(*) FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let all_wait = async {
            while sqlx::query_scalar::<_, i64>(statement).fetch_one(&db.owner).await? < waiting {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LEASE, all_wait).await??;
        Ok(self.0.commit().await?)
    }
}

#[tokio::test]
async fn of_a_capture_and_a_cancel_at_the_same_moment_one_is_written() -> Result<()> {
    let db = Db::new().await?;
    let payment = held(&db).await?;
    let capture = payment.request_capture(None).unwrap();
    let cancel = payment.request_cancel().unwrap();
    let row = HeldRow::of(&db, &payment).await?;
    let (one, other, held) = tokio::join!(
        request(&db.store, &payment, &capture, "capture"),
        request(&db.store, &payment, &cancel, "cancel"),
        row.let_go_when_waited_for_by(&db, 2),
    );
    held?;
    let won = [&one, &other].into_iter().filter(|claimed| matches!(claimed, Ok(Some(_)))).count();
    let lost = [&one, &other].into_iter().filter(|c| matches!(c, Err(StoreError::StateMoved))).count();
    assert_eq!((won, lost), (1, 1), "{one:?} {other:?}");
    assert_eq!(db.count("events").await?, 3, "one request is recorded");
    assert_eq!(db.count("operations WHERE idempotency_key <> 'create'").await?, 1);
    db.close().await
}

#[tokio::test]
async fn two_refunds_at_the_same_moment_never_take_more_than_there_is() -> Result<()> {
    let db = Db::new().await?;
    let payment = captured(&db).await?;
    // each alone would fit
    let row = HeldRow::of(&db, &payment).await?;
    let ((_, one), (_, other), held) = tokio::join!(
        refund_of(&db.store, &payment, 600, "one"),
        refund_of(&db.store, &payment, 600, "other"),
        row.let_go_when_waited_for_by(&db, 2),
    );
    held?;
    let won = [&one, &other].into_iter().filter(|claimed| matches!(claimed, Ok(Some(_)))).count();
    let lost = [&one, &other].into_iter().filter(|c| matches!(c, Err(StoreError::StateMoved))).count();
    assert_eq!((won, lost), (1, 1), "{one:?} {other:?}");
    assert_eq!(read(&db, &payment).await?.amount_refunded, 600);
    assert_eq!(db.count("refunds").await?, 1);
    let loser = if one.is_err() { "one" } else { "other" };
    assert!(key_is_free(&db, &payment, loser).await?);
    db.close().await
}

#[tokio::test]
async fn a_refund_needs_a_captured_payment_of_the_merchant() -> Result<()> {
    let db = Db::new().await?;
    let payment = held(&db).await?;
    let as_if = Payment { state: State::Captured { amount: amount(1000) }, ..payment.clone() };
    assert!(matches!(refund_of(&db.store, &as_if, 1, "k").await.1, Err(StoreError::StateMoved)));
    let foreign = Payment { merchant_id: merchant(), ..as_if };
    assert!(matches!(refund_of(&db.store, &foreign, 1, "k").await.1, Err(StoreError::StateMoved)));
    assert_eq!(db.count("refunds").await?, 0);
    db.close().await
}

async fn end(
    db: &Db,
    operation: &Operation,
    lease: &Lease,
    refund: &Refund,
    change: RefundChange,
    watch: Option<Watch>,
) -> Result<bool, StoreError> {
    let step = refund.transition(change).unwrap();
    let failure = (change == RefundChange::Failed).then(|| Failure::refund_failed(None));
    let object = RefundObjectId::parse("re_1");
    let refund = Refund { failure, object, ..refund.clone() }.after(&step, now());
    let watched = operation.kind == OperationKind::WatchRefund(refund.id);
    let given = answer();
    let settlement = RefundSettlement {
        refund: &refund,
        step: &step,
        actor: operation.actor,
        answer: (!watched).then_some(&given),
        watch,
    };
    db.store.settle_refund(operation, lease, &settlement).await
}

#[tokio::test]
async fn a_refund_that_fails_counts_as_refunded_no_longer() -> Result<()> {
    let db = Db::new().await?;
    let payment = captured(&db).await?;
    let (refund, written) = refund_of(&db.store, &payment, 700, "k").await;
    let (operation, lease) = written?.unwrap();
    assert_eq!(read(&db, &payment).await?.amount_refunded, 700, "while it is open as well");
    assert_eq!(db.store.find_refund(payment.merchant_id, refund.id).await?, Some(refund.clone()));
    assert!(end(&db, &operation, &lease, &refund, RefundChange::Failed, None).await?);
    assert!(!end(&db, &operation, &lease, &refund, RefundChange::Succeeded, None).await?, "it has ended");
    assert_eq!(read(&db, &payment).await?.amount_refunded, 0);
    let stored = db.store.find_refund(payment.merchant_id, refund.id).await?.unwrap();
    assert_eq!((stored.status, stored.failure.is_some()), (RefundStatus::Failed, true));
    let events: Vec<String> = db.events(payment.id).await?.into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(events, ["payment.created", "payment.captured", "refund.created", "refund.failed"]);
    db.close().await
}

#[tokio::test]
async fn a_refund_that_succeeded_is_watched_and_may_come_back() -> Result<()> {
    let db = Db::new().await?;
    let payment = captured(&db).await?;
    let (refund, written) = refund_of(&db.store, &payment, 700, "k").await;
    let (operation, lease) = written?.unwrap();
    let watch = Watch { operation_id: OperationId::at(now()), actor: Actor::Worker, first: Duration::ZERO };
    assert!(end(&db, &operation, &lease, &refund, RefundChange::Succeeded, Some(watch)).await?);
    assert_eq!(read(&db, &payment).await?.amount_refunded, 700);

    let due = db.store.due_operations(10).await?;
    let leased = db.store.lease(&due[0], LEASE).await?.unwrap();
    assert_eq!(leased.operation.kind, OperationKind::WatchRefund(refund.id));
    assert_eq!((leased.operation.actor, leased.operation.trace), (Actor::Worker, operation.trace));
    let stored = leased.refund.unwrap();
    assert_eq!(stored.object, RefundObjectId::parse("re_1"));
    assert!(end(&db, &leased.operation, &leased.lease, &stored, RefundChange::Failed, None).await?);
    assert_eq!(read(&db, &payment).await?.amount_refunded, 0);
    assert_eq!(db.count("operations WHERE settled_at IS NULL").await?, 0);
    db.close().await
}

#[tokio::test]
async fn a_watch_is_nothing_that_the_merchant_has_open() -> Result<()> {
    let db = Db::new().await?;
    let mut payment = new_payment(merchant(), "order-1");
    payment.request.capture = CaptureMethod::Manual;
    let (operation, lease) = claimed(&db.store, &payment, "k").await?;
    let step = payment.transition(Change::Authorized)?;
    let after = Payment { intent: IntentId::parse("pi_1"), ..payment.clone() }.after(&step, now());
    let (given, first) = (answer(), Duration::ZERO);
    let watch = Watch { operation_id: OperationId::at(now()), actor: Actor::Worker, first };
    let settlement = Settlement {
        payment: &after,
        step: &step,
        failure: None,
        actor: operation.actor,
        answer: Some(&given),
        watch: Some(watch),
    };
    assert!(db.store.settle(&operation, &lease, &settlement).await?);
    let open = Filter { open: true, ..everything() };
    assert_eq!(db.store.list_payments(payment.merchant_id, &open, None, 10).await?, []);

    let due = db.store.due_operations(10).await?;
    let leased = db.store.lease(&due[0], LEASE).await?.unwrap();
    assert_eq!(leased.operation.kind, OperationKind::WatchPayment);
    assert!(db.store.end_watch(&leased.operation, &leased.lease).await?);
    assert!(!db.store.end_watch(&leased.operation, &leased.lease).await?, "it has ended");
    assert_eq!(db.store.due_operations(10).await?, []);

    // what was asked for is open
    let capture = after.request_capture(None).unwrap();
    request(&db.store, &after, &capture, "capture").await?.unwrap();
    assert_eq!(db.store.list_payments(payment.merchant_id, &open, None, 10).await?.len(), 1);
    db.close().await
}

#[tokio::test]
async fn what_was_asked_for_is_due_before_any_watch() -> Result<()> {
    let db = Db::new().await?;
    let payment = held(&db).await?;
    let capture = payment.request_capture(None).unwrap();
    let (asked, _) = request(&db.store, &payment, &capture, "capture").await?.unwrap();
    let watch =
        "INSERT INTO operations (merchant_id, operation_id, payment_id, kind, actor, traceparent, lease_until)
                 SELECT merchant_id, gen_random_uuid(), payment_id, 'watch_payment', 'worker', traceparent,
                        now() - interval '1 day'
                 FROM operations WHERE kind = 'capture'";
    sqlx::query(watch).execute(&db.owner).await?;
    sqlx::query("UPDATE operations SET lease_until = now() - interval '1 second' WHERE kind = 'capture'")
        .execute(&db.owner)
        .await?;
    let due = |limit| db.store.due_operations(limit);
    assert_eq!(due(1).await?[0].operation_id, asked.id, "although the watch has been due for longer");
    assert_eq!(due(10).await?.len(), 2);
    db.close().await
}

#[tokio::test]
async fn work_of_a_release_to_come_is_left_to_it() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    assert!(matches!(claim_for(&db.store, &payment, "k", Duration::ZERO).await?, Claimed::Ours(..)));
    assert_eq!(db.store.due_operations(10).await?.len(), 1);
    for statement in [
        "ALTER TABLE operations DROP CONSTRAINT operations_kind_known",
        "UPDATE operations SET kind = 'payout'",
    ] {
        sqlx::query(statement).execute(&db.owner).await?;
    }
    assert_eq!(db.store.due_operations(10).await?, []);
    db.close().await
}

#[tokio::test]
async fn the_audit_trail_is_read_in_order_and_page_by_page() -> Result<()> {
    let db = Db::new().await?;
    let payment = captured(&db).await?;
    for n in 0..3 {
        refund_of(&db.store, &payment, 10, &format!("k{n}")).await.1?.unwrap();
    }
    let list = async |after, limit| db.store.list_events(payment.merchant_id, payment.id, after, limit).await;
    let all = list(0, 10).await?;
    assert_eq!(all.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(list(2, 2).await?, all[2..4]);
    assert_eq!(all[0].data["currency"], "EUR");
    assert_eq!(all[2].data["amount"], 10);
    assert_eq!(db.store.list_events(merchant(), payment.id, 0, 10).await?, [], "of nobody else");
    db.close().await
}

#[tokio::test]
async fn refunds_are_listed_newest_first_and_page_by_page() -> Result<()> {
    let db = Db::new().await?;
    let payment = captured(&db).await?;
    let mut made = Vec::new();
    for n in 0..3 {
        made.insert(0, refund_of(&db.store, &payment, 10, &format!("k{n}")).await.0.id);
    }
    let list = async |before, limit| -> Result<Vec<_>> {
        let page = db.store.list_refunds(payment.merchant_id, payment.id, before, limit).await?;
        Ok(page.iter().map(|refund| refund.id).collect())
    };
    made.sort_by(|a, b| b.cmp(a));
    assert_eq!(list(None, 10).await?, made);
    assert_eq!(list(Some(made[0]), 1).await?, made[1..2]);
    assert_eq!(db.store.list_refunds(merchant(), payment.id, None, 10).await?, [], "of nobody else");
    db.close().await
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_not_be() -> Result<()> {
    let db = Db::new().await?;
    let payment = captured(&db).await?;
    refund_of(&db.store, &payment, 10, "k").await.1?.unwrap();
    for (statement, constraint) in [
        ("UPDATE payments SET amount_refunded = 1001", "payments_amounts_ordered"),
        ("UPDATE payments SET amount_refunded = -1", "payments_amounts_ordered"),
        ("UPDATE payments SET amount_captured = 1001", "payments_amounts_ordered"),
        ("UPDATE payments SET pending_operation = 'cancel'", "payments_pending_known"),
        ("UPDATE payments SET status = 'authorized', amount_captured = 0", "payments_amounts_ordered"),
        ("UPDATE refunds SET amount = 0", "refunds_amount_range"),
        ("UPDATE refunds SET status = 'failed'", "refunds_failure_when_failed"),
        ("UPDATE refunds SET status = 'pending'", "refunds_status_known"),
        ("UPDATE operations SET kind = 'payout'", "operations_kind_known"),
        ("UPDATE operations SET kind = 'refund' WHERE kind = 'charge'", "operations_refund_of_its_kind"),
        (
            "UPDATE operations SET kind = 'watch_payment' WHERE kind = 'charge'",
            "operations_key_when_asked_for",
        ),
        ("INSERT INTO reconciliations (only_one, due_at) VALUES (false, now())", "reconciliations_only_one"),
        (
            "INSERT INTO reconciliations (due_at, finished_at) VALUES (now(), now())",
            "reconciliations_found_when_finished",
        ),
        (
            "UPDATE operations SET answer_status = 503 WHERE settled_at IS NOT NULL",
            "operations_answer_is_final",
        ),
    ] {
        let refused = sqlx::query(statement).execute(&db.owner).await.unwrap_err();
        let refused = refused.as_database_error().and_then(|error| error.constraint()).map(str::to_owned);
        assert_eq!(refused.as_deref(), Some(constraint), "{statement}");
    }
    db.close().await
}
