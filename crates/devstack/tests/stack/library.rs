//! The stack as a library.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use devstack::postgres::{Source, Wanted};
use devstack::process::Environment;
use devstack::{Stack, StackOptions, TestDatabase};
use sqlx::{Connection, PgConnection};

use crate::stand_ins::{directory, install};
use crate::{runs, until};

fn options(directory: &Path) -> StackOptions {
    // By every road that is forced, but never with a server that is there.
    let wanted = Wanted { url: None, ..Wanted::from_environment().unwrap() };
    let source = wanted.source.filter(|source| *source != Source::Url);
    StackOptions {
        programs: Some(directory.join("bin")),
        postgres: Wanted { source, ..wanted },
        ..StackOptions::new(directory.join("data"))
    }
}

async fn status(url: &str) -> Option<u16> {
    let answer = reqwest::get(url).await.ok()?;
    Some(answer.status().as_u16())
}

fn described(stack: &Stack) -> serde_json::Value {
    serde_json::to_value(stack.description().unwrap()).unwrap()
}

#[tokio::test]
async fn starts_everything_and_leaves_nothing_behind() {
    let directory = directory();
    let mut stack = Stack::start(StackOptions { instances: 2, ..options(directory.path()) }).await.unwrap();

    for service in 0..2 {
        assert_eq!(status(stack.api_url(service).unwrap()).await, Some(200));
        assert_eq!(status(stack.ops_url(service).unwrap()).await, Some(200));
    }
    assert_eq!(status(stack.simulator_url()).await, Some(200));
    PgConnection::connect(&stack.service_env().unwrap()["DATABASE_URL"])
        .await
        .unwrap()
        .close()
        .await
        .unwrap();
    let described = described(&stack);
    assert_eq!(described["api"], described["services"][0]["api"]);
    assert_eq!(described["api_key"], "sk_m1");
    let pids = [
        stack.service(0).unwrap().pid(),
        stack.service(1).unwrap().pid(),
        stack.simulator().unwrap().pid(),
        stack.postgres().unwrap().pid(),
    ];
    assert!(pids.iter().all(runs));

    stack.shutdown().await.unwrap();

    assert!(!pids.iter().any(runs));
}

#[tokio::test]
async fn a_later_stack_goes_on_with_the_same_data() {
    let directory = directory();
    let first = Stack::start(options(directory.path())).await.unwrap();
    let mut owner = PgConnection::connect(first.owner_url()).await.unwrap();
    sqlx::query("CREATE TABLE kept ()").execute(&mut owner).await.unwrap();
    owner.close().await.unwrap();
    first.shutdown().await.unwrap();

    let second = Stack::start(options(directory.path())).await.unwrap();

    let mut owner = PgConnection::connect(second.owner_url()).await.unwrap();
    sqlx::query("SELECT FROM kept").execute(&mut owner).await.unwrap();
    owner.close().await.unwrap();
    let calls = fs::read_to_string(directory.path().join("bin/calls")).unwrap();
    assert_eq!(calls.matches("merchant create demo --json").count(), 1, "{calls}");
    assert_eq!(calls.matches("migrate up on postgres://postgres:").count(), 2, "{calls}");
    second.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_dead_are_started_again_on_their_ports() {
    let directory = directory();
    let mut stack = Stack::start(options(directory.path())).await.unwrap();
    let before = described(&stack);

    stack.postgres().unwrap().kill().await.unwrap();
    stack.simulator().unwrap().kill().await.unwrap();
    stack.service(0).unwrap().kill().await.unwrap();
    let mut restarted = 0;
    until("all three answer again", async || {
        restarted += u32::from(stack.attend(true).await.unwrap());
        let now = described(&stack);
        restarted > 0
            && ["simulator_pid", "postgres_pid"].iter().all(|pid| now[pid] != before[pid])
            && status(stack.api_url(0).unwrap()).await == Some(200)
            && status(stack.simulator_url()).await == Some(200)
            && PgConnection::connect(stack.owner_url()).await.is_ok()
    })
    .await;

    let after = described(&stack);
    assert_ne!(after["services"][0]["pid"], before["services"][0]["pid"]);
    for unchanged in ["api", "ops", "simulator", "database_url"] {
        assert_eq!(after[unchanged], before[unchanged]);
    }
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn without_restart_the_dead_stay_dead_and_the_others_go_on() {
    let database = TestDatabase::empty().await.unwrap();
    let directory = directory();
    let options = StackOptions { instances: 2, ..options(directory.path()) }.database(database.owner_url());
    let mut stack = Stack::start(options).await.unwrap();

    stack.service(0).unwrap().kill().await.unwrap();
    for _ in 0..20 {
        assert!(!stack.attend(false).await.unwrap());
    }

    assert_eq!(status(stack.api_url(0).unwrap()).await, None);
    assert_eq!(status(stack.api_url(1).unwrap()).await, Some(200));
    stack.restart_service(0).await.unwrap();
    assert_eq!(status(stack.api_url(0).unwrap()).await, Some(200));
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_restart_by_hand_waits_until_it_answers() {
    let directory = directory();
    let mut stack = Stack::start(options(directory.path())).await.unwrap();

    stack.restart_postgres().await.unwrap();
    PgConnection::connect(stack.owner_url()).await.unwrap().close().await.unwrap();
    stack.restart_simulator().await.unwrap();
    assert_eq!(status(stack.simulator_url()).await, Some(200));
    stack.service(0).unwrap().pause().unwrap();
    stack.restart_service(0).await.unwrap();
    assert_eq!(status(stack.api_url(0).unwrap()).await, Some(200));

    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn settings_reach_the_services_and_the_owner_does_not() {
    let database = TestDatabase::empty().await.unwrap();
    let directory = directory();
    let mut options = options(directory.path()).database(database.owner_url());
    options.environment = Environment::from([
        ("PAYWRIGHT_LEASE".to_owned(), "20s".to_owned()),
        ("PAYWRIGHT_RATE_LIMIT".to_owned(), "5".to_owned()),
        ("PAYWRIGHT_LISTEN".to_owned(), "0.0.0.0:1".to_owned()),
        ("PAYWRIGHT_MIGRATION_DATABASE_URL".to_owned(), database.owner_url().to_owned()),
    ]);
    let mut stack = Stack::start(options).await.unwrap();
    let more = Environment::from([("PAYWRIGHT_SYNC_WAIT".to_owned(), "1s".to_owned())]);

    let added = stack.add_service(&more).await.unwrap();

    assert_eq!(status(stack.api_url(added).unwrap()).await, Some(200));
    let environment = fs::read_to_string(directory.path().join("bin/environment")).unwrap();
    for line in ["PAYWRIGHT_LEASE=20s", "PAYWRIGHT_RATE_LIMIT=5", "PAYWRIGHT_SYNC_WAIT=1s"] {
        assert!(environment.lines().any(|found| found == line), "{line} is missing in {environment}");
    }
    assert!(environment.contains("PAYWRIGHT_PROVIDER_API_KEY=sk_test_devstack"));
    assert!(!environment.contains(database.owner_url()), "{environment}");
    assert!(!stack.service_env().unwrap().contains_key("PAYWRIGHT_LISTEN"));
    stack.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_stack() {
    let directory = directory();
    let _first = Stack::new(options(directory.path())).unwrap();

    let error = Stack::new(options(directory.path())).unwrap_err();

    assert!(error.to_string().contains("in use by another devstack"), "{error}");
}

#[tokio::test]
async fn a_taken_port_is_refused_with_its_flag() {
    let directory = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();

    let error = Stack::start(StackOptions { api_port: port, ..options(directory.path()) }).await.unwrap_err();

    assert!(error.to_string().contains("--api-port"), "{error}");
}

#[tokio::test]
async fn a_service_that_ends_at_once_is_told_with_its_last_words() {
    let database = TestDatabase::empty().await.unwrap();
    let directory = directory();
    let script = "#!/bin/sh\n[ \"$1\" = serve ] || exit 0\necho PAYWRIGHT_LEASE is too short >&2\nexit 2\n";
    install(&directory.path().join("bin/paywright"), script);

    let error =
        Stack::start(options(directory.path()).database(database.owner_url())).await.unwrap_err().to_string();

    assert!(error.contains("service 0 ended before it was ready"), "{error}");
    assert!(error.contains("PAYWRIGHT_LEASE is too short"), "{error}");
}
