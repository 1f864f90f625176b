//! The store against a real PostgreSQL, as the role that the service has.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a test's verdict"
)]

mod changes;
mod checks;
mod connections;
mod migrations;
mod reconcile;
mod text;

use anyhow::Result;
use devstack::TestDatabase;
use domain::event::Actor;
use domain::id::{KeyId, MerchantId, OperationId, PaymentId};
use domain::idempotency::{Fingerprint, IdempotencyKey};
use domain::money::{Amount, Currency, Money};
use domain::operation::{Lease, Leased, Operation};
use domain::payment::{
    CaptureMethod, Change, Customer, Metadata, NewPayment, Payment, State, Status, Transition,
};
use domain::provider::{Failure, IntentId};
use domain::text::{MerchantName, MetadataKey, MetadataValue, PaymentMethod, Reference};
use domain::trace::TraceContext;
use persistence::idempotency::{KeyState, StoredAnswer};
use persistence::merchants::{NewKey, Scope};
use persistence::migrate::{Direction, MigrateError, Plan, SchemaMismatch, migrate, status};
use persistence::operations::{Claim, Pause, Settlement};
use persistence::payments::{Claimed, Filter};
use persistence::{Pooler, Store, StoreError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{PgPool, Row};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::sync::Barrier;
use uuid::Uuid;

const LEASE: Duration = Duration::from_secs(30);

struct Db {
    database: TestDatabase,
    store: Store,
    owner: PgPool,
}

impl Db {
    async fn new() -> Result<Self> {
        let database =
            TestDatabase::create(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations")).await?;
        let store = Store::open(PgConnectOptions::from_str(database.service_url())?, 10, Pooler::None);
        let owner = PgPool::connect(database.owner_url()).await?;
        Ok(Self { database, store, owner })
    }

    async fn close(self) -> Result<()> {
        self.store.close().await;
        self.owner.close().await;
        self.database.close().await
    }

    async fn count(&self, table: &str) -> Result<i64> {
        let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        Ok(sqlx::query_scalar(statement).fetch_one(&self.owner).await?)
    }

    async fn events(&self, id: PaymentId) -> Result<Vec<(i32, String)>> {
        let rows = sqlx::query("SELECT sequence, type FROM events WHERE payment_id = $1 ORDER BY sequence");
        Ok(rows.bind(id.0).fetch_all(&self.owner).await?.iter().map(|row| (row.get(0), row.get(1))).collect())
    }
}

fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap()
}

fn new_payment(merchant_id: MerchantId, reference: &str) -> Payment {
    let request = NewPayment {
        money: Money::new(Amount::new(1000).unwrap(), Currency::parse("EUR").unwrap()).unwrap(),
        reference: Reference::parse(reference).unwrap(),
        payment_method: PaymentMethod::parse("pm_card_visa").unwrap(),
        capture: CaptureMethod::Automatic,
        description: None,
        customer: Customer::default(),
        statement_descriptor: None,
        return_url: None,
        metadata: Metadata::from([(
            MetadataKey::parse("größe").unwrap(),
            MetadataValue::parse("42 \"\\ 🎁").unwrap(),
        )]),
    };
    Payment::new(merchant_id, request, now())
}

fn merchant() -> MerchantId {
    MerchantId::at(now())
}

async fn claim_until(
    store: &Store,
    payment: &Payment,
    key: &str,
    lease: Duration,
    latest: Instant,
) -> Result<Claimed, StoreError> {
    let key = IdempotencyKey::parse(key.as_bytes()).unwrap();
    let claim = Claim {
        operation_id: OperationId::at(payment.created_at),
        key: &key,
        fingerprint: &Fingerprint::of_payment(&payment.request),
        actor: Actor::Key(KeyId(Uuid::nil())),
        trace: TraceContext::random(),
        lease,
        served: true,
        latest,
    };
    store.claim_payment(payment, &claim).await
}

async fn claim_for(
    store: &Store,
    payment: &Payment,
    key: &str,
    lease: Duration,
) -> Result<Claimed, StoreError> {
    claim_until(store, payment, key, lease, Instant::now() + LEASE).await
}

async fn claim(store: &Store, payment: &Payment, key: &str) -> Result<Claimed, StoreError> {
    claim_for(store, payment, key, LEASE).await
}

async fn claimed(store: &Store, payment: &Payment, key: &str) -> Result<(Operation, Lease)> {
    match claim(store, payment, key).await? {
        Claimed::Ours(operation, lease) => Ok((operation, lease)),
        other => anyhow::bail!("not ours: {other:?}"),
    }
}

fn answer() -> StoredAnswer {
    StoredAnswer { status: 201, location: Some("/there".to_owned()), body: b"{\"z\":1,  \"a\":1e2}".to_vec() }
}

async fn settle(
    store: &Store,
    operation: &Operation,
    lease: &Lease,
    payment: &Payment,
    step: &Transition,
    answer: &StoredAnswer,
) -> Result<bool, StoreError> {
    let settlement = Settlement {
        payment,
        step,
        failure: payment.failure.as_ref(),
        actor: operation.actor,
        answer: Some(answer),
        watch: None,
    };
    store.settle(operation, lease, &settlement).await
}

async fn capture(
    store: &Store,
    operation: &Operation,
    lease: &Lease,
    payment: &Payment,
) -> Result<bool, StoreError> {
    let step = payment.transition(Change::Captured(payment.request.money.amount())).unwrap();
    let after = Payment { intent: IntentId::parse("pi_1"), ..payment.clone() }.after(&step, now());
    settle(store, operation, lease, &after, &step, &answer()).await
}

async fn fail(
    store: &Store,
    operation: &Operation,
    lease: &Lease,
    payment: &Payment,
) -> Result<bool, StoreError> {
    let step = payment.transition(Change::Failed).unwrap();
    let failure = Some(Failure::provider_unavailable());
    let after = Payment { failure, ..payment.clone() }.after(&step, now());
    settle(store, operation, lease, &after, &step, &StoredAnswer { status: 402, ..answer() }).await
}

#[tokio::test]
async fn a_payment_comes_back_as_it_was_written() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let (operation, lease) = claimed(&db.store, &payment, "k").await?;
    assert_eq!(db.store.find_payment(payment.merchant_id, payment.id).await?, Some(payment.clone()));

    assert!(capture(&db.store, &operation, &lease, &payment).await?);
    let after = db.store.find_payment(payment.merchant_id, payment.id).await?.unwrap();
    assert_eq!(after.state, State::Captured { amount: payment.request.money.amount() });
    assert_eq!(after.request, payment.request);
    assert_eq!(after.intent, IntentId::parse("pi_1"));
    let expected = [(1, "payment.created".to_owned()), (2, "payment.captured".to_owned())];
    assert_eq!(db.events(payment.id).await?, expected);

    let known =
        db.store.find_idempotency_key(payment.merchant_id, &IdempotencyKey::parse(b"k")?).await?.unwrap();
    assert_eq!(known.state, KeyState::Settled(answer()), "byte for byte");
    db.close().await
}

#[tokio::test]
async fn of_simultaneous_claims_with_one_key_exactly_one_wins() -> Result<()> {
    let db = Db::new().await?;
    let merchant = merchant();
    let barrier = Arc::new(Barrier::new(8));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (store, barrier) = (db.store.clone(), Arc::clone(&barrier));
        tasks.push(tokio::spawn(async move {
            let payment = new_payment(merchant, "order-1");
            barrier.wait().await;
            claim(&store, &payment, "k").await
        }));
    }
    let mut ours = 0;
    for task in tasks {
        match task.await?? {
            Claimed::Ours(..) => ours += 1,
            Claimed::KeyKnown(known) => assert_eq!(known.state, KeyState::BeingServed),
            Claimed::ReferenceUsed(_) => panic!("the key comes before the reference"),
        }
    }
    assert_eq!(
        (ours, db.count("payments").await?, db.count("operations").await?, db.count("events").await?),
        (1, 1, 1, 1)
    );
    db.close().await
}

/// The interleaving that a look first would miss, forced: the winner is written and not yet committed.
#[tokio::test]
async fn a_claim_waits_for_a_winner_that_is_not_committed_yet() -> Result<()> {
    let db = Db::new().await?;
    let merchant = merchant();
    let first = new_payment(merchant, "order-1");
    let (operation, _) = claimed(&db.store, &first, "k1").await?;
    sqlx::query("DELETE FROM events").execute(&db.owner).await?;
    sqlx::query("DELETE FROM operations").execute(&db.owner).await?;
    let mut winner = db.owner.begin().await?;
    sqlx::query("UPDATE payments SET reference = 'order-2', live_reference = 'order-2'")
        .execute(&mut *winner)
        .await?;

    let second = new_payment(merchant, "order-2");
    let store = db.store.clone();
    let second_id = second.id;
    let loser = tokio::spawn(async move { claim(&store, &second, "k2").await });
    // it is there and waits for the winner's lock
    loop {
        let waiting: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
                .fetch_one(&db.owner)
                .await?;
        if waiting > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    winner.commit().await?;
    assert_eq!(loser.await??, Claimed::ReferenceUsed(operation.payment_id));
    assert_eq!(db.store.find_payment(merchant, second_id).await?, None, "nothing of the loser is left");
    assert_eq!(db.count("operations").await?, 0, "its key neither");
    db.close().await
}

#[tokio::test]
async fn a_reference_is_free_again_when_its_payment_failed() -> Result<()> {
    let db = Db::new().await?;
    let merchant = merchant();
    let first = new_payment(merchant, "order-1");
    let (operation, lease) = claimed(&db.store, &first, "k1").await?;
    let second = new_payment(merchant, "order-1");
    assert_eq!(claim(&db.store, &second, "k2").await?, Claimed::ReferenceUsed(first.id));
    assert!(fail(&db.store, &operation, &lease, &first).await?);
    claimed(&db.store, &second, "k2").await?;
    // another merchant never notices
    claimed(&db.store, &new_payment(self::merchant(), "order-1"), "k1").await?;
    db.close().await
}

#[tokio::test]
async fn a_second_settlement_changes_nothing() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let (operation, lease) = claimed(&db.store, &payment, "k").await?;
    assert!(capture(&db.store, &operation, &lease, &payment).await?);
    assert!(!fail(&db.store, &operation, &lease, &payment).await?);
    let after = db.store.find_payment(payment.merchant_id, payment.id).await?.unwrap();
    assert_eq!(after.state.status(), Status::Captured);
    assert_eq!(db.events(payment.id).await?.len(), 2);
    db.close().await
}

#[tokio::test]
async fn a_lost_lease_settles_nothing() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let Claimed::Ours(operation, late) = claim_for(&db.store, &payment, "k", Duration::ZERO).await? else {
        panic!("not ours")
    };
    let due = db.store.due_operations(10).await?;
    assert_eq!(due.len(), 1);
    let Leased { operation: leased, lease, payment: read, refund: None } =
        db.store.lease(&due[0], LEASE).await?.unwrap()
    else {
        panic!("no refund")
    };
    assert_eq!((leased.id, leased.actor, leased.trace), (operation.id, operation.actor, operation.trace));
    assert_eq!(db.store.lease(&due[0], LEASE).await?, None, "one holder at a time");
    assert!(db.store.due_operations(10).await?.is_empty());

    assert!(!capture(&db.store, &operation, &late, &payment).await?, "the first holder woke up too late");
    assert!(!db.store.pause(&operation, &late, &Pause::default()).await?);
    assert_eq!(db.store.keep_operation(&operation, &late, LEASE).await?, None);
    let kept = db.store.keep_operation(&leased, &lease, LEASE * 2).await?.unwrap();
    assert!(kept.token > lease.token && kept.ends > lease.ends && kept.taken == lease.taken);
    assert!(!capture(&db.store, &leased, &lease, &read).await?, "it goes by another token now");
    assert!(capture(&db.store, &leased, &kept, &read).await?);
    db.close().await
}

#[tokio::test]
async fn a_settlement_whose_payment_moved_is_undone_as_a_whole() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let (operation, lease) = claimed(&db.store, &payment, "k").await?;
    sqlx::query("UPDATE payments SET status = 'authorized'").execute(&db.owner).await?;
    assert!(matches!(capture(&db.store, &operation, &lease, &payment).await, Err(StoreError::StateMoved)));
    let open: bool =
        sqlx::query_scalar("SELECT settled_at IS NULL FROM operations").fetch_one(&db.owner).await?;
    assert!(open);
    assert_eq!(db.events(payment.id).await?.len(), 1);
    db.close().await
}

#[tokio::test]
async fn a_pause_keeps_what_was_learnt() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let (mut operation, mut lease) = claimed(&db.store, &payment, "k").await?;
    let intent = IntentId::parse("pi_7");
    for _ in 0..3 {
        let pause = Pause {
            attempted: true,
            server_errors: 2,
            absent: true,
            intent: intent.as_ref(),
            ..Pause::default()
        };
        assert!(db.store.pause(&operation, &lease, &pause).await?);
        let due = db.store.due_operations(1).await?;
        Leased { operation, lease, .. } = db.store.lease(&due[0], LEASE).await?.unwrap();
    }
    assert_eq!(
        (operation.progress.attempts, operation.progress.server_errors),
        (3, 3),
        "three are enough to know"
    );
    assert!(operation.progress.absent_for.is_some());
    let read = db.store.find_payment(payment.merchant_id, payment.id).await?.unwrap();
    assert_eq!(read.intent, intent);
    // handing back is no attempt
    assert!(db.store.pause(&operation, &lease, &Pause::default()).await?);
    let due = db.store.due_operations(1).await?;
    let operation = db.store.lease(&due[0], LEASE).await?.unwrap().operation;
    assert_eq!(operation.progress.attempts, 3);
    db.close().await
}

#[tokio::test]
async fn a_contradiction_is_recorded_once() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let (operation, lease) = claimed(&db.store, &payment, "k").await?;
    for _ in 0..2 {
        db.store.record_contradiction(&operation, &lease, "amount", None).await?;
    }
    assert!(capture(&db.store, &operation, &lease, &payment).await?, "the right answer may still come");
    let types: Vec<String> = db.events(payment.id).await?.into_iter().map(|event| event.1).collect();
    assert_eq!(types, ["payment.created", "payment.contradicted", "payment.captured"]);
    db.close().await
}

#[tokio::test]
async fn the_first_caller_is_served_until_its_202() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let (operation, lease) = claimed(&db.store, &payment, "k").await?;
    let key = IdempotencyKey::parse(b"k")?;
    let state = async || {
        Ok::<_, StoreError>(db.store.find_idempotency_key(payment.merchant_id, &key).await?.unwrap().state)
    };
    assert_eq!(state().await?, KeyState::BeingServed);
    assert!(db.store.acknowledge(payment.merchant_id, operation.id).await?);
    assert_eq!(state().await?, KeyState::Open);
    assert!(capture(&db.store, &operation, &lease, &payment).await?);
    assert!(!db.store.acknowledge(payment.merchant_id, operation.id).await?, "there is a better answer");
    db.close().await
}

#[tokio::test]
async fn a_dead_process_counts_as_serving_for_its_lease() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    claim_for(&db.store, &payment, "k", Duration::ZERO).await?;
    let known =
        db.store.find_idempotency_key(payment.merchant_id, &IdempotencyKey::parse(b"k")?).await?.unwrap();
    assert_eq!(known.state, KeyState::Open);
    db.close().await
}

#[tokio::test]
async fn settled_keys_are_forgotten_and_open_ones_never() -> Result<()> {
    let db = Db::new().await?;
    let merchant = merchant();
    for (reference, settle) in [("order-1", true), ("order-2", false)] {
        let payment = new_payment(merchant, reference);
        let (operation, lease) = claimed(&db.store, &payment, reference).await?;
        if settle {
            assert!(capture(&db.store, &operation, &lease, &payment).await?);
        }
    }
    assert_eq!(db.store.sweep_operations(Duration::from_secs(3600), 10).await?, 0);
    assert_eq!(db.store.sweep_operations(Duration::ZERO, 10).await?, 1);
    assert!(db.store.find_idempotency_key(merchant, &IdempotencyKey::parse(b"order-1")?).await?.is_none());
    assert!(db.store.find_idempotency_key(merchant, &IdempotencyKey::parse(b"order-2")?).await?.is_some());
    db.close().await
}

fn everything() -> Filter {
    Filter {
        statuses: Status::ALL.to_vec(),
        open: false,
        reference: None,
        created_from: None,
        created_to: None,
    }
}

#[tokio::test]
async fn a_walk_sees_every_payment_of_the_merchant_once() -> Result<()> {
    let db = Db::new().await?;
    let merchant = merchant();
    let mut ids = Vec::new();
    for n in 0..7 {
        let payment = new_payment(merchant, &format!("order-{n}"));
        claimed(&db.store, &payment, &format!("k{n}")).await?;
        claimed(&db.store, &new_payment(self::merchant(), "x"), "k").await?;
        ids.push(payment.id);
    }
    ids.sort();
    ids.reverse();
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = db.store.list_payments(merchant, &everything(), before, 3).await?;
        before = page.last().map(|payment| payment.id);
        if page.is_empty() {
            break;
        }
        seen.extend(page.iter().map(|payment| payment.id));
    }
    assert_eq!(seen, ids, "newest first");
    db.close().await
}

#[tokio::test]
async fn lists_are_narrowed() -> Result<()> {
    let db = Db::new().await?;
    let merchant = merchant();
    let mut made = Vec::new();
    for n in 0..3 {
        let payment = new_payment(merchant, &format!("order-{n}"));
        let (operation, lease) = claimed(&db.store, &payment, &format!("k{n}")).await?;
        match n {
            0 => assert!(capture(&db.store, &operation, &lease, &payment).await?),
            1 => assert!(fail(&db.store, &operation, &lease, &payment).await?),
            _ => {}
        }
        made.push(payment);
    }
    let list = async |filter: Filter| -> Result<Vec<PaymentId>> {
        let page = db.store.list_payments(merchant, &filter, None, 10).await?;
        Ok(page.iter().map(|payment| payment.id).collect())
    };
    let [captured, failed, open] = [made[0].id, made[1].id, made[2].id];
    assert_eq!(list(Filter { statuses: vec![Status::Failed], ..everything() }).await?, [failed]);
    assert_eq!(list(Filter { open: true, ..everything() }).await?, [open]);
    let reference = Some(Reference::parse("order-0")?);
    assert_eq!(list(Filter { reference: reference.clone(), ..everything() }).await?, [captured]);
    assert!(list(Filter { reference, open: true, ..everything() }).await?.is_empty());
    let from = Filter { created_from: Some(made[1].created_at), ..everything() };
    let mut expected = [failed, open];
    expected.sort_by(|a, b| b.cmp(a));
    assert_eq!(list(from).await?, expected, "from is inclusive");
    let to = Filter { created_to: Some(made[1].created_at), ..everything() };
    assert_eq!(list(to).await?, [captured], "to is exclusive");
    db.close().await
}

#[tokio::test]
async fn the_database_itself_refuses_impossible_money() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    let (operation, lease) = claimed(&db.store, &payment, "k").await?;
    assert!(capture(&db.store, &operation, &lease, &payment).await?);
    for (change, constraint) in [
        ("amount_captured = 1001", "payments_amounts_ordered"),
        ("amount_refunded = 1001", "payments_amounts_ordered"),
        ("amount_refunded = -1", "payments_amounts_ordered"),
        ("amount = 0", "payments_amount_range"),
        ("amount = 100000000", "payments_amount_range"),
        ("currency = 'eur'", "payments_currency_form"),
        ("currency = 'KWD', amount = 1001", "payments_amount_steps"),
        ("status = 'paid', amount_captured = 0", "payments_status_known"),
        ("status = 'authorized'", "payments_captured_when_captured"),
        ("status = 'failed', amount_captured = 0", "payments_"),
        ("live_reference = NULL", "payments_live_reference_while_alive"),
        ("pending_operation = 'capture', pending_amount = 1", "payments_pending_known"),
        ("failure_code = 'x', failure_message = 'y'", "payments_failure_when_failed"),
        ("redirect_url = 'https://x'", "payments_redirect_when_required"),
        ("last_event = 0", "payments_last_event_counts"),
    ] {
        let statement = sqlx::AssertSqlSafe(format!("UPDATE payments SET {change}"));
        let error = sqlx::query(statement).execute(&db.owner).await.unwrap_err();
        let refused_by = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::constraint)
            .unwrap_or_default()
            .to_owned();
        assert!(refused_by.starts_with(constraint), "{change}: {refused_by}");
    }
    db.close().await
}

#[tokio::test]
async fn the_service_can_neither_alter_tables_nor_touch_the_audit_trail() -> Result<()> {
    let db = Db::new().await?;
    claimed(&db.store, &new_payment(merchant(), "order-1"), "k").await?;
    let service = PgPool::connect(db.database.service_url()).await?;
    for statement in [
        "UPDATE events SET type = 'payment.failed'",
        "DELETE FROM events",
        "TRUNCATE events",
        "DELETE FROM payments",
        "ALTER TABLE payments ADD COLUMN x int",
        "DROP TABLE events",
        "CREATE TABLE mine (x int)",
        "UPDATE merchants SET name = 'x'",
        "UPDATE api_keys SET scope = 'write'",
        "UPDATE _sqlx_migrations SET success = false",
        "DELETE FROM reconciliations",
    ] {
        let error = sqlx::query(statement).execute(&service).await.unwrap_err();
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code)
            .unwrap_or_default()
            .into_owned();
        assert_eq!(code, "42501", "{statement}: {error}");
    }
    service.close().await;
    db.close().await
}

#[tokio::test]
async fn a_key_is_valid_until_it_expires_or_is_revoked() -> Result<()> {
    let db = Db::new().await?;
    let merchant_id = merchant();
    let hash = |n: u8| [n; 32];
    let key = |n: u8, expires_at| NewKey {
        merchant_id,
        key_id: KeyId(Uuid::from_u128(u128::from(n))),
        secret_hash: Box::leak(Box::new(hash(n))),
        scope: Scope::Read,
        expires_at,
    };
    assert!(!db.store.create_key(&key(1, None)).await?, "there is no such merchant");
    db.store.create_merchant(&MerchantName::parse("Tea Shop")?, &key(1, None)).await?;
    assert!(db.store.create_key(&key(2, Some(now() - time::Duration::seconds(1)))).await?);
    let found = db.store.find_key(merchant_id, &hash(1)).await?.unwrap();
    assert_eq!(found.scope, Scope::Read);
    assert!(db.store.find_key(merchant_id, &hash(2)).await?.is_none(), "expired");
    assert!(db.store.find_key(merchant(), &hash(1)).await?.is_none(), "another merchant's");
    assert!(db.store.revoke_key(merchant_id, found.key_id).await?);
    assert!(!db.store.revoke_key(merchant_id, found.key_id).await?);
    assert!(db.store.find_key(merchant_id, &hash(1)).await?.is_none(), "revoked");
    assert_eq!(db.store.list_keys(merchant_id).await?.len(), 2);
    db.close().await
}
