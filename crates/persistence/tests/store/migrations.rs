//! The schema on its way up and down.

use super::changes::{held, request};
use super::*;
use sqlx::AssertSqlSafe;

const UP: Plan = Plan { direction: Direction::Up, steps: None, dry_run: false, lose_data: false };
const DOWN: Plan = Plan { direction: Direction::Down, ..UP };

#[tokio::test]
async fn migrations_go_up_down_and_up_again() -> Result<()> {
    let database = TestDatabase::empty().await?;
    let owner = PgConnectOptions::from_str(database.owner_url())?;
    let store = Store::open(owner.clone(), 1, Pooler::None);
    assert_eq!(store.check_schema().await?, Err(SchemaMismatch::Empty));
    let planned = migrate(&owner, Plan { dry_run: true, ..UP }).await?;
    assert!(status(&owner).await?.iter().all(|step| !step.applied), "a dry run changes nothing");
    let count = planned.len();

    // two at once: one waits for the other, and finds nothing to do
    let (one, two) = tokio::join!(migrate(&owner, UP), migrate(&owner, UP));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(store.check_schema().await?, Ok(()));

    assert_eq!(migrate(&owner, Plan { steps: Some(1), ..DOWN }).await?.len(), 1);
    assert!(matches!(store.check_schema().await?, Err(SchemaMismatch::Behind(_))));
    assert_eq!(migrate(&owner, DOWN).await?.len(), count - 1);
    assert_eq!(store.check_schema().await?, Err(SchemaMismatch::Empty));
    assert_eq!(migrate(&owner, UP).await?.len(), count);
    assert_eq!(store.check_schema().await?, Ok(()));
    store.close().await;
    database.close().await
}

#[tokio::test]
async fn the_schema_does_not_go_back_over_work_that_it_would_not_know() -> Result<()> {
    let db = Db::new().await?;
    let payment = held(&db).await?;
    let capture = payment.request_capture(None).unwrap();
    request(&db.store, &payment, &capture, "capture").await?.unwrap();
    let owner = PgConnectOptions::from_str(db.database.owner_url())?;
    let newer = status(&owner).await?.iter().filter(|step| step.version > 6).count();
    let back = Plan { steps: Some(newer), lose_data: true, ..DOWN };
    assert!(matches!(migrate(&owner, back).await, Err(MigrateError::Migration(_))));
    let kinds = status(&owner).await?.into_iter().find(|step| step.version == 7);
    assert!(kinds.is_some_and(|step| step.applied), "what was refused is as it was");
    assert_eq!(db.count("operations WHERE kind = 'capture'").await?, 1);
    migrate(&owner, UP).await?;
    assert_eq!(db.store.check_schema().await?, Ok(()));
    db.close().await
}

#[tokio::test]
async fn data_is_lost_only_if_that_is_said() -> Result<()> {
    let db = Db::new().await?;
    claimed(&db.store, &new_payment(merchant(), "order-1"), "k").await?;
    let owner = PgConnectOptions::from_str(db.database.owner_url())?;
    for dry_run in [true, false] {
        match migrate(&owner, Plan { dry_run, ..DOWN }).await {
            Err(MigrateError::WouldLose { version, what }) => {
                assert_eq!((version, what), (14, "which span asked for an operation"));
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(db.count("events").await?, 1);
    assert!(status(&owner).await?.iter().all(|step| step.applied), "nothing was reverted");
    assert!(migrate(&owner, Plan { lose_data: true, ..DOWN }).await.is_ok());
    assert!(status(&owner).await?.iter().all(|step| !step.applied));
    db.close().await
}

#[tokio::test]
async fn a_migration_that_waits_for_a_lock_lets_others_pass_and_tries_again() -> Result<()> {
    let db = Db::new().await?;
    let owner = PgConnectOptions::from_str(db.database.owner_url())?;
    let newer = status(&owner).await?.iter().filter(|step| step.version > 6).count();
    migrate(&owner, Plan { steps: Some(newer), ..DOWN }).await?;
    // somebody reads the table in a transaction that takes its time
    let mut reader = db.owner.begin().await?;
    sqlx::query("SELECT count(*) FROM operations").execute(&mut *reader).await?;
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting = async || sqlx::query_scalar::<_, i64>(waits).fetch_one(&db.owner).await;
    let until = async |count: i64| -> Result<()> {
        while waiting().await? != count {
            tokio::task::yield_now().await;
        }
        Ok(())
    };
    let let_go = async {
        until(1).await?;
        // it gave up, and nobody stands behind it
        until(0).await?;
        until(1).await?;
        anyhow::Ok(reader.commit().await?)
    };
    let (migrated, gone) = tokio::join!(migrate(&owner, UP), tokio::time::timeout(LEASE, let_go));
    gone??;
    assert_eq!(migrated?.len(), newer);
    assert_eq!(db.store.check_schema().await?, Ok(()));
    db.close().await
}

/// Goes up or down until `version` is the last that is applied.
async fn go_to(owner: &PgConnectOptions, version: i64) -> Result<()> {
    let steps = status(owner).await?;
    let behind = steps.iter().filter(|step| !step.applied && step.version <= version).count();
    let beyond = steps.iter().filter(|step| step.applied && step.version > version).count();
    migrate(owner, Plan { steps: Some(beyond), lose_data: true, ..DOWN }).await?;
    migrate(owner, Plan { steps: Some(behind), ..UP }).await?;
    Ok(())
}

/// The worked example of `migrations/README.md`: a process may be one release behind the schema or ahead of the next step.
#[tokio::test]
async fn each_step_suits_the_releases_that_run_beside_it() -> Result<()> {
    const BEFORE: (&str, &str) = ("trace_id", "gen_random_uuid()");
    const SWITCH: (&str, &str) = (
        "trace_id, traceparent",
        "payment_id, '00-' || replace(payment_id::text, '-', '') || '-00f067aa0ba902b7-01'",
    );
    const NEXT: (&str, &str) =
        ("traceparent", "'00-' || replace(payment_id::text, '-', '') || '-00f067aa0ba902b7-01'");
    let db = Db::new().await?;
    claimed(&db.store, &new_payment(merchant(), "order-1"), "k").await?;
    let owner = PgConnectOptions::from_str(db.database.owner_url())?;
    for (version, suits) in [
        (13, [true, false, false]),
        (14, [true, true, false]),
        (15, [true, true, false]),
        (16, [false, true, true]),
        (17, [false, true, true]),
        (18, [false, false, true]),
    ] {
        go_to(&owner, version).await?;
        let mut written = Vec::new();
        for (columns, values) in [BEFORE, SWITCH, NEXT] {
            let statement = format!(
                "INSERT INTO operations (merchant_id, operation_id, payment_id, kind, actor, lease_until, {columns})
                 SELECT merchant_id, gen_random_uuid(), payment_id, 'watch_payment', 'worker', now(), {values}
                 FROM payments"
            );
            let mut undone = db.owner.begin().await?;
            written.push(sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *undone).await.is_ok());
            undone.rollback().await?;
        }
        assert_eq!(written, suits, "the releases before, of the switch, and next, on schema {version}");
    }
    db.close().await
}

#[tokio::test]
async fn a_back_fill_that_is_stopped_goes_on_where_it_ended() -> Result<()> {
    let db = Db::new().await?;
    claimed(&db.store, &new_payment(merchant(), "order-1"), "k").await?;
    let owner = PgConnectOptions::from_str(db.database.owner_url())?;
    go_to(&owner, 14).await?;
    // more than two batches
    sqlx::query(
        "INSERT INTO operations (merchant_id, operation_id, payment_id, kind, actor, lease_until, trace_id)
         SELECT merchant_id, gen_random_uuid(), payment_id, 'watch_payment', 'worker', now(), gen_random_uuid()
         FROM payments, generate_series(1, 2500)",
    )
    .execute(&db.owner)
    .await?;
    // somebody works on one of them
    let mut worker = db.owner.begin().await?;
    let lock = "SELECT FROM operations WHERE traceparent IS NULL LIMIT 1 FOR UPDATE";
    sqlx::query(lock).execute(&mut *worker).await?;
    let left = async || db.count("operations WHERE traceparent IS NULL").await;
    let stop = async {
        while left().await? != 1 {
            tokio::task::yield_now().await;
        }
        let stopped = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND query LIKE '%at_operation%' AND pid <> pg_backend_pid()";
        anyhow::Ok(sqlx::query_scalar::<_, i64>(stopped).fetch_one(&db.owner).await?)
    };
    let (filling, stopped) =
        tokio::join!(migrate(&owner, Plan { steps: Some(1), ..UP }), tokio::time::timeout(LEASE, stop));
    assert_eq!(stopped??, 1);
    assert!(filling.is_err());
    assert_eq!(left().await?, 1, "what was filled is filled");
    worker.rollback().await?;

    migrate(&owner, Plan { steps: Some(1), ..UP }).await?;
    assert_eq!(left().await?, 0);
    let wrong =
        "operations WHERE substr(traceparent, 4, 32)::uuid <> trace_id OR right(traceparent, 3) <> '-00'";
    assert_eq!(db.count(wrong).await?, 0);
    migrate(&owner, UP).await?;
    assert_eq!(db.store.check_schema().await?, Ok(()));
    db.close().await
}
