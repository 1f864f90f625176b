//! A cluster of our own: created, stopped, reused, killed and started again.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use devstack::port::Port;
use devstack::postgres::{self, Cluster, Durability, Installation, Postgres, Source, Wanted};
use devstack::silent;
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

async fn installation() -> Installation {
    // By every road that is forced, but never by a server that is there.
    let wanted = Wanted { url: None, ..Wanted::from_environment().unwrap() };
    let source = wanted.source.filter(|source| *source != Source::Url);
    match postgres::find(&Wanted { source, ..wanted }, silent).await.unwrap() {
        Postgres::Installed(installation) => installation,
        Postgres::Url(url) => panic!("asked for programs, got {url}"),
    }
}

/// A directory that the server's user can reach.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    directory
}

async fn open(directory: &TempDir, port: &Port) -> anyhow::Result<Cluster> {
    let wanted = directory.path().join("postgres");
    Cluster::open(installation().await, &wanted, Durability::Durable, port.number(), silent).await
}

async fn execute(cluster: &Cluster, statement: &'static str) {
    let mut connection = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

async fn ask(cluster: &Cluster, question: &'static str) -> String {
    let mut connection = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    sqlx::query_scalar(question).fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn keeps_its_data_over_a_stop() {
    let (directory, port) = (directory(), Port::free().unwrap());
    let mut cluster = open(&directory, &port).await.unwrap();
    cluster.start().await.unwrap();
    execute(&cluster, "CREATE TABLE kept AS SELECT 'here' AS body").await;
    cluster.stop().await.unwrap();
    drop(cluster);

    // Another port, as after a restart of the machine.
    let port = Port::free().unwrap();
    let mut again = open(&directory, &port).await.unwrap();
    again.start().await.unwrap();

    assert_eq!(ask(&again, "SELECT body FROM kept").await, "here");
    again.stop().await.unwrap();
}

#[tokio::test]
async fn is_private_and_durable() {
    let (directory, port) = (directory(), Port::free().unwrap());
    let mut cluster = open(&directory, &port).await.unwrap();
    cluster.start().await.unwrap();

    assert_eq!(ask(&cluster, "SHOW listen_addresses").await, "127.0.0.1");
    assert_eq!(ask(&cluster, "SHOW unix_socket_directories").await, "");
    assert_eq!(ask(&cluster, "SHOW fsync").await, "on");
    assert_eq!(ask(&cluster, "SHOW synchronous_commit").await, "on");
    assert_eq!(ask(&cluster, "SHOW data_checksums").await, "on");
    assert_eq!(
        ask(&cluster, "SELECT string_agg(DISTINCT auth_method, ' ') FROM pg_hba_file_rules").await,
        "scram-sha-256"
    );
    let password = fs::metadata(cluster.directory().join("password")).unwrap();
    assert_eq!(password.permissions().mode() & 0o777, 0o600);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn starts_again_on_its_port_after_it_was_killed() {
    let (directory, port) = (directory(), Port::free().unwrap());
    let mut cluster = open(&directory, &port).await.unwrap();
    cluster.start().await.unwrap();
    execute(&cluster, "CREATE TABLE kept AS SELECT 'committed' AS body").await;
    let url = cluster.url("postgres");
    // Idle clients have server processes of their own, which survive their parent for a moment.
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(PgConnection::connect(&url).await.unwrap());
    }

    cluster.server().unwrap().kill().await.unwrap();
    assert!(!cluster.is_running().unwrap());
    cluster.start().await.unwrap();

    assert_eq!(cluster.url("postgres"), url);
    assert_eq!(ask(&cluster, "SELECT body FROM kept").await, "committed");
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn takes_over_from_a_predecessor_that_was_killed() {
    let (directory, port) = (directory(), Port::free().unwrap());
    let mut cluster = open(&directory, &port).await.unwrap();
    cluster.start().await.unwrap();
    // Dropped without a stop: the server has been asked to end but nobody waits for it.
    drop(cluster);

    let mut again = open(&directory, &port).await.unwrap();
    again.start().await.unwrap();

    assert!(again.answers().await);
    again.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_does_not_keep_it_from_starting() {
    let (directory, port) = (directory(), Port::free().unwrap());
    let mut cluster = open(&directory, &port).await.unwrap();
    cluster.start().await.unwrap();
    cluster.stop().await.unwrap();
    let stale = cluster.directory().join("data/postmaster.pid");
    fs::write(&stale, format!("{}\n", std::process::id())).unwrap();

    cluster.start().await.unwrap();

    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn data_of_another_version_is_refused() {
    let (directory, port) = (directory(), Port::free().unwrap());
    let cluster = open(&directory, &port).await.unwrap();
    fs::write(cluster.directory().join("data/PG_VERSION"), "9\n").unwrap();
    drop(cluster);

    let error = open(&directory, &port).await.unwrap_err();

    assert!(error.to_string().contains("was made by PostgreSQL 9"), "{error}");
}
