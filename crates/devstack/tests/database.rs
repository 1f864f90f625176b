//! A database per test: isolation, the shared template, and what the service's role may do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

use std::fs;
use std::path::Path;

use devstack::TestDatabase;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

/// Migrations of the same shape as the real ones; `marker` makes their content, and so their template, unique.
fn migrations(marker: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let up = format!(
        "-- {marker}
         DO $$ BEGIN CREATE ROLE payments_service NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         CREATE TABLE note (body text NOT NULL);
         GRANT SELECT, INSERT ON note TO payments_service;"
    );
    fs::write(folder.path().join("0001_note.up.sql"), up).unwrap();
    fs::write(folder.path().join("0001_note.down.sql"), "DROP TABLE note;").unwrap();
    folder
}

async fn run(url: &str, statement: &'static str) -> sqlx::Result<u64> {
    let mut connection = PgConnection::connect(url).await?;
    Ok(sqlx::query(statement).execute(&mut connection).await?.rows_affected())
}

async fn count(url: &str, question: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(question).fetch_one(&mut connection).await.unwrap()
}

fn code(result: sqlx::Result<u64>) -> String {
    result.unwrap_err().into_database_error().unwrap().code().unwrap().into_owned()
}

#[tokio::test]
async fn tests_do_not_see_each_other() {
    let folder = migrations("isolation");
    let (one, two) = tokio::join!(TestDatabase::create(folder.path()), TestDatabase::create(folder.path()));
    let (one, two) = (one.unwrap(), two.unwrap());

    run(one.service_url(), "INSERT INTO note VALUES ('mine')").await.unwrap();

    assert_eq!(count(one.service_url(), "SELECT count(*) FROM note").await, 1);
    assert_eq!(count(two.service_url(), "SELECT count(*) FROM note").await, 0);
}

#[tokio::test]
async fn many_at_once_share_one_template() {
    let folder = migrations(&uuid::Uuid::new_v4().to_string());
    let before = count(
        TestDatabase::empty().await.unwrap().owner_url(),
        "SELECT count(*) FROM pg_database WHERE datistemplate",
    )
    .await;
    let mut started = Vec::new();
    for _ in 0..10 {
        let path = folder.path().to_owned();
        started.push(tokio::spawn(async move { TestDatabase::create(&path).await }));
    }
    let mut databases = Vec::new();
    for database in started {
        databases.push(database.await.unwrap().unwrap());
    }

    // Other tests of this run make templates of theirs, but this one is made once.
    let template = "SELECT count(*) FROM pg_database WHERE datistemplate";
    let after = count(databases[0].owner_url(), template).await;
    assert!(after > before && after < before + 10, "{before} templates became {after}");
}

#[tokio::test]
async fn the_service_may_do_what_was_granted_and_nothing_else() {
    let folder = migrations("rights");
    let database = TestDatabase::create(folder.path()).await.unwrap();
    let service = database.service_url();

    run(service, "INSERT INTO note VALUES ('granted')").await.unwrap();

    let insufficient_privilege = "42501";
    assert_eq!(code(run(service, "DELETE FROM note").await), insufficient_privilege);
    assert_eq!(code(run(service, "CREATE TABLE mine (a int)").await), insufficient_privilege);
    assert_eq!(code(run(service, "CREATE ROLE other").await), insufficient_privilege);
    assert_eq!(code(run(service, "CREATE DATABASE other").await), insufficient_privilege);
    run(database.owner_url(), "CREATE TABLE theirs (a int)").await.unwrap();
}

#[tokio::test]
async fn a_database_goes_with_its_test() {
    let kept = TestDatabase::empty().await.unwrap();
    let closed = TestDatabase::empty().await.unwrap();
    let dropped = TestDatabase::empty().await.unwrap();
    let names = [closed.name().to_owned(), dropped.name().to_owned()];
    // An open connection must not keep it alive.
    let _busy = PgConnection::connect(dropped.owner_url()).await.unwrap();

    closed.close().await.unwrap();
    drop(dropped);

    let mut connection = PgConnection::connect(kept.owner_url()).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = ANY($1)")
        .bind(&names[..])
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_empty_database_can_be_migrated_by_the_test() {
    let folder = migrations("by the test");
    let database = TestDatabase::empty().await.unwrap();
    assert_eq!(
        count(database.owner_url(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").await,
        0
    );

    let migrator = sqlx::migrate::Migrator::new(folder.path()).await.unwrap();
    let mut connection = PgConnection::connect(database.owner_url()).await.unwrap();
    migrator.run_direct(None, &mut connection, false).await.unwrap();
    database.grant_service_role().await.unwrap();

    run(database.service_url(), "INSERT INTO note VALUES ('migrated')").await.unwrap();
}

#[tokio::test]
async fn a_broken_migration_is_told() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("0001_broken.up.sql"), "CREATE TABEL oops ();").unwrap();
    fs::write(folder.path().join("0001_broken.down.sql"), "").unwrap();

    let error = TestDatabase::create(folder.path()).await.unwrap_err();

    assert!(format!("{error:#}").contains("TABEL"), "{error:#}");
}

#[tokio::test]
async fn a_missing_folder_is_named() {
    let error = TestDatabase::create(Path::new("/nowhere/migrations")).await.unwrap_err();

    assert!(error.to_string().contains("/nowhere/migrations"), "{error}");
}
