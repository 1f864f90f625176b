//! PostgreSQL from an image: the same cluster as from programs on this machine, and no container left behind.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use devstack::port::Port;
use devstack::postgres::{self, Cluster, Durability, Installation, Postgres, Source, Wanted};
use devstack::{TestDatabase, silent};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;
use testcontainers::bollard::Docker;
use testcontainers::bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use testcontainers::core::client::docker_client_instance;

const PATIENCE: Duration = Duration::from_secs(30);

/// Docker with an image to run. Without it a test says aloud that it is skipped; where `NO_SKIP` is set and Docker is
/// there, an image has to be there as well.
async fn docker() -> Option<Docker> {
    let answering = async { docker_client_instance().await.ok()?.ping().await.ok() };
    if tokio::time::timeout(Duration::from_secs(2), answering).await.ok().flatten().is_none() {
        say("skipped: no Docker that answers");
        return None;
    }
    let docker = docker_client_instance().await.unwrap();
    let given = std::env::var("TEST_POSTGRES_IMAGE").ok().filter(|name| !name.is_empty());
    let image = given.unwrap_or_else(|| "postgres:18".to_owned());
    if docker.inspect_image(&image).await.is_err() {
        let missing =
            format!("no image {image}: pull it, or run `make test-images` and set TEST_POSTGRES_IMAGE");
        assert!(std::env::var_os("NO_SKIP").is_none(), "{missing}");
        say(&format!("skipped: {missing}"));
        return None;
    }
    Some(docker)
}

/// Says something to whoever runs the tests, also of one that passes. What a macro prints, the harness swallows.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

async fn installation(source: Source) -> anyhow::Result<Installation> {
    let wanted = Wanted { source: Some(source), ..Wanted::default() };
    match postgres::find(&wanted, silent).await? {
        Postgres::Installed(installation) => Ok(installation),
        Postgres::Url(url) => panic!("asked for programs, got {url}"),
    }
}

/// A directory that the server's user can reach.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    directory
}

async fn open(source: Source, directory: &TempDir, port: &Port) -> anyhow::Result<Cluster> {
    let wanted = directory.path().join("postgres");
    Cluster::open(installation(source).await?, &wanted, Durability::Durable, port.number(), silent).await
}

async fn execute(cluster: &Cluster, statement: &'static str) {
    let mut connection = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

async fn ask(cluster: &Cluster, question: &'static str) -> String {
    let mut connection = PgConnection::connect(&cluster.url("postgres")).await.unwrap();
    sqlx::query_scalar(question).fetch_one(&mut connection).await.unwrap()
}

async fn containers_on(docker: &Docker, directory: &Path) -> Vec<String> {
    let label = format!("payments-devstack={}", directory.display());
    let filters = [("label", vec![label.as_str()])];
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters.into()).build();
    let found = docker.list_containers(Some(options)).await.unwrap();
    found.into_iter().filter_map(|container| container.id).collect()
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !met().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_cluster_from_an_image_is_as_any_other() {
    let Some(docker) = docker().await else { return };
    let (directory, port) = (directory(), Port::free().unwrap());
    let mut cluster = open(Source::Docker, &directory, &port).await.unwrap();
    cluster.start().await.unwrap();

    assert_eq!(ask(&cluster, "SHOW listen_addresses").await, "127.0.0.1");
    execute(&cluster, "CREATE TABLE kept AS SELECT 'here' AS body").await;
    let container = containers_on(&docker, cluster.directory()).await;
    assert_eq!(container.len(), 1);
    let inspected = docker.inspect_container(&container[0], None::<InspectContainerOptions>).await.unwrap();
    assert_eq!(inspected.state.unwrap().pid, cluster.pid().map(i64::from));
    let owner = fs::metadata(cluster.directory().join("data/PG_VERSION")).unwrap().uid();
    assert_eq!(owner, fs::metadata(cluster.directory()).unwrap().uid(), "whoever may remove one removes all");

    let killed = cluster.server().unwrap().kill().await.unwrap();
    assert_eq!(killed.to_string(), "signal: 9 (SIGKILL)");
    cluster.start().await.unwrap();
    assert_eq!(ask(&cluster, "SELECT body FROM kept").await, "here");

    cluster.stop().await.unwrap();
    until("the containers are gone", async || containers_on(&docker, cluster.directory()).await.is_empty())
        .await;
}

#[tokio::test]
async fn its_data_are_served_by_programs_of_the_same_version_only() {
    if docker().await.is_none() {
        return;
    }
    let Ok(programs) = installation(Source::Binaries).await else {
        return say("skipped: no programs on this machine that the image's data could be given to");
    };
    let (directory, port) = (directory(), Port::free().unwrap());
    let mut cluster = open(Source::Docker, &directory, &port).await.unwrap();
    cluster.start().await.unwrap();
    execute(&cluster, "CREATE TABLE kept AS SELECT 'here' AS body").await;
    cluster.stop().await.unwrap();
    let made_by = Cluster::version_of(cluster.directory()).unwrap();
    drop(cluster);

    let opened = open(Source::Binaries, &directory, &port).await;

    if programs.major() == made_by {
        let mut cluster = opened.unwrap();
        cluster.start().await.unwrap();
        assert_eq!(ask(&cluster, "SELECT body FROM kept").await, "here");
        cluster.stop().await.unwrap();
        drop(cluster);
        let mut again = open(Source::Docker, &directory, &port).await.unwrap();
        again.start().await.unwrap();
        assert_eq!(ask(&again, "SELECT body FROM kept").await, "here");
        again.stop().await.unwrap();
    } else {
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(&format!("was made by PostgreSQL {made_by}")), "{error}");
        assert!(error.contains(&format!("TEST_POSTGRES_IMAGE=postgres:{made_by}")), "{error}");
    }
}

#[tokio::test]
async fn a_killed_run_leaves_no_container() {
    let Some(docker) = docker().await else { return };
    let directory = directory();
    let said = directory.path().join("said");
    // The shell is the runner of a run of its own.
    let mut runner = Command::new("/bin/sh")
        .args(["-c", r#""$0" --exact holds_a_database --nocapture & wait"#])
        .arg(std::env::current_exe().unwrap())
        .env("HOLD_DATABASE", &said)
        .env("POSTGRES_FROM", "docker")
        .env_remove("DATABASE_URL")
        .env_remove("NEXTEST_RUN_ID")
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    until("the run has a database", async || said.exists()).await;
    let data: String = fs::read_to_string(&said).unwrap();
    let cluster = Path::new(&data).parent().unwrap();
    assert_eq!(containers_on(&docker, cluster).await.len(), 1, "{data}");

    let kill = format!("kill -9 -{}", runner.id());
    assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
    runner.wait().unwrap();

    until("its container is gone", async || containers_on(&docker, cluster).await.is_empty()).await;
    until("its files are gone", async || !cluster.exists()).await;
}

/// What the killed run does; as a test of its own it has nothing to do.
#[tokio::test]
async fn holds_a_database() {
    let Some(said) = std::env::var_os("HOLD_DATABASE") else { return };
    let database = TestDatabase::empty().await.unwrap();
    let mut connection = PgConnection::connect(database.owner_url()).await.unwrap();
    let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&mut connection).await.unwrap();
    let unfinished = Path::new(&said).with_extension("new");
    fs::write(&unfinished, data).unwrap();
    fs::rename(unfinished, said).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn what_is_missing_is_said_in_one_line() {
    let is_there = docker().await.is_some();
    let days = [
        ("DOCKER_HOST", "unix:///nowhere/docker.sock", "Docker does not answer: start it"),
        ("TEST_POSTGRES_IMAGE", "localhost:1/nobody/none:1", "make test-images"),
        ("POSTGRES_FROM", "cloud", "url, binaries, docker or packages"),
    ];
    for (variable, value, advice) in days {
        if variable == "TEST_POSTGRES_IMAGE" && !is_there {
            continue;
        }
        let directory = directory();
        for program in ["paywright", "provider-simulator"] {
            fs::write(directory.path().join(program), "").unwrap();
        }
        let output = Command::new(env!("CARGO_BIN_EXE_devstack"))
            .args(["--api-port", "0", "--ops-port", "0", "--simulator-port", "0", "--data-dir"])
            .arg(directory.path().join("data"))
            .env("PAYWRIGHT_BIN_DIR", directory.path())
            .env_remove("DATABASE_URL")
            .env("POSTGRES_FROM", "docker")
            .env(variable, value)
            .output()
            .unwrap();

        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        let last = errors.lines().last().unwrap();
        assert!(last.starts_with("devstack: error: ") && last.contains(advice), "{errors}");
    }
}
