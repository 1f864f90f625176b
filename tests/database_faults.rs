//! Whatever becomes of the database, every request is answered in its time, and soon after the repair all is well again.

use crate::callers::{Asked, Callers, Expected, LASTING, impatient};
use crate::support::{PAYMENTS, SOON, seconds};
use anyhow::{Context, Result, ensure};
use devstack::Fault;
use e2e::{World, WorldOptions, eventually};
use std::fs;
use std::time::{Duration, Instant};
use tokio::process::Command;

fn options() -> WorldOptions {
    impatient().set("PAYWRIGHT_DATABASE_CONNECTIONS", "5")
}

fn is_good(asked: &Asked) -> bool {
    asked.answer.status < 300
}

/// What is not done is refused, and says when to come back.
const REFUSED_OR_DONE: Expected = Expected {
    good: is_good,
    fair: |asked| {
        let code = asked.answer.code();
        let is_refused = ["unavailable", "timeout", "overloaded"].contains(&code.as_str());
        let says_when = asked.answer.header("retry-after").parse::<u32>().is_ok();
        is_good(asked) || asked.answer.status == 503 && is_refused && says_when
    },
};

/// How many 503 there were between two moments.
fn refused(asked: &[Asked], from: Instant, to: Instant) -> usize {
    asked.iter().filter(|one| !is_good(one) && (from..to).contains(&(one.at + one.took))).count()
}

async fn warm(world: &World) -> Result<Callers> {
    let callers = Callers::of(world);
    // each connection is in use, and statements are prepared
    tokio::time::sleep(seconds(1)).await;
    ensure!(world.simulator.charges().await? > 0, "nobody has paid");
    Ok(callers)
}

async fn readiness(world: &World) -> Result<(u16, String)> {
    let url = format!("{}/readyz", world.stack.ops_url(0)?);
    let answer = world.api.send(world.api.http.get(url)).await?;
    Ok((answer.status, answer.json()["checks"]["database"].as_str().unwrap_or_default().to_owned()))
}

/// `/readyz` says so, soon: on a busy machine it may have had no time to ask.
async fn says(world: &World, status: u16, reason: &str) -> Result<()> {
    let mut last = Default::default();
    eventually(SOON, "readiness", async || {
        last = readiness(world).await?;
        Ok(last.0 == status && last.1.contains(reason))
    })
    .await
    .with_context(|| format!("{last:?} instead of {status} {reason}"))
}

/// The world is ready again, and all three witnesses agree.
async fn finish(world: World) -> Result<()> {
    eventually(SOON, "ready", async || Ok(readiness(&world).await?.0 == 200)).await?;
    world.finish().await
}

/// A row of the matrix that a proxy or a statement of the owner's makes.
async fn row(
    fault: &str,
    world: World,
    begin: impl AsyncFnOnce(&World) -> Result<()>,
    meanwhile: impl AsyncFnOnce(&World) -> Result<()>,
    end: impl AsyncFnOnce(&World) -> Result<()>,
) -> Result<()> {
    let callers = warm(&world).await?;
    begin(&world).await?;
    let broken = Instant::now();
    tokio::time::sleep(LASTING).await;
    meanwhile(&world).await?;
    end(&world).await?;
    let repaired = Instant::now();
    let asked = callers.rest(fault, REFUSED_OR_DONE, broken, repaired).await?;
    assert!(refused(&asked, broken, repaired) > 0, "{fault}: nobody noticed");
    finish(world).await
}

#[tokio::test]
async fn a_black_hole() -> Result<()> {
    row(
        "black hole",
        options().database_proxy().start().await?,
        async |world| world.stack.database_proxy()?.set(Fault::BlackHole).await,
        async |world| {
            says(world, 503, "").await?;
            assert_eq!(world.api.get("/livez").await?.status, 200);
            Ok(())
        },
        async |world| world.stack.database_proxy()?.set(Fault::Pass).await,
    )
    .await
}

#[tokio::test]
async fn nobody_listens() -> Result<()> {
    row(
        "refused",
        options().database_proxy().start().await?,
        async |world| world.stack.database_proxy()?.set(Fault::Refuse).await,
        async |world| says(world, 503, "cannot be reached: connection refused").await,
        async |world| world.stack.database_proxy()?.set(Fault::Pass).await,
    )
    .await
}

#[tokio::test]
async fn open_connections_fall_silent() -> Result<()> {
    let world = options().database_proxy().start().await?;
    let callers = warm(&world).await?;
    // the network is whole at once, and only what was open is lost
    world.stack.database_proxy()?.silence();
    let broken = Instant::now();
    callers.rest("silent death", REFUSED_OR_DONE, broken, broken).await?;
    finish(world).await
}

#[tokio::test]
async fn a_lock_is_held() -> Result<()> {
    let world = options().start().await?;
    let callers = warm(&world).await?;
    let mut lock = world.pool.begin().await?;
    sqlx::query("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
    let broken = Instant::now();
    tokio::time::sleep(LASTING).await;
    // the database is there
    says(&world, 200, "ok").await?;
    lock.rollback().await?;
    let repaired = Instant::now();
    let asked = callers.rest("lock held", REFUSED_OR_DONE, broken, repaired).await?;
    assert!(refused(&asked, broken, repaired) > 0);
    finish(world).await
}

#[tokio::test]
async fn the_pool_is_exhausted() -> Result<()> {
    let world = options().database_proxy().set("PAYWRIGHT_DATABASE_CONNECTIONS", "1").start().await?;
    row(
        "pool exhausted",
        world,
        async |world| {
            let latency = Duration::from_millis(400);
            world.stack.database_proxy()?.set(Fault::Slow { latency, bytes_per_second: None }).await
        },
        async |_| Ok(()),
        async |world| world.stack.database_proxy()?.set(Fault::Pass).await,
    )
    .await
}

/// Sets something of the database, and ends the service's connections, so that it holds for all of them.
async fn alter(world: &World, what: &str) -> Result<()> {
    let name: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&world.pool).await?;
    let mut owner = world.pool.acquire().await?;
    let alter = format!("BEGIN READ WRITE; ALTER DATABASE \"{name}\" {what}; COMMIT");
    sqlx::raw_sql(sqlx::AssertSqlSafe(alter)).execute(&mut *owner).await?;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'payments'";
    sqlx::query(end).execute(&mut *owner).await?;
    Ok(())
}

#[tokio::test]
async fn the_server_has_no_place_left() -> Result<()> {
    row(
        "max_connections",
        options().start().await?,
        async |world| alter(world, "CONNECTION LIMIT 0").await,
        async |world| says(world, 503, "refuses (SQLSTATE 53300)").await,
        async |world| alter(world, "CONNECTION LIMIT -1").await,
    )
    .await
}

#[tokio::test]
async fn the_database_is_read_only() -> Result<()> {
    let world = options().start().await?;
    row(
        "read-only",
        world,
        async |world| alter(world, "SET default_transaction_read_only = on").await,
        async |world| {
            says(world, 503, "read-only").await?;
            assert_eq!(world.api.get(PAYMENTS).await?.status, 200, "it can be read");
            assert!(world.log(0)?.contains("the database takes no writes"));
            Ok(())
        },
        async |world| alter(world, "SET default_transaction_read_only = off").await,
    )
    .await
}

/// The disk itself is filled by `drill diskfull`, which needs root. Here the server says what it says then.
#[tokio::test]
async fn the_disk_is_full() -> Result<()> {
    row(
        "disk full",
        options().start().await?,
        async |world| {
            let refuse = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                              RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
                          END $$;
                          CREATE TRIGGER full_disk BEFORE INSERT ON payments EXECUTE FUNCTION full_disk()";
            sqlx::raw_sql(refuse).execute(&world.pool).await?;
            Ok(())
        },
        async |world| {
            says(world, 503, "disk full").await?;
            assert_eq!(world.api.get(PAYMENTS).await?.status, 200, "it can be read");
            let log = world.log(0)?;
            assert_eq!(log.matches("the database takes no writes").count(), 1, "said once");
            Ok(())
        },
        async |world| {
            sqlx::query("DROP TRIGGER full_disk ON payments").execute(&world.pool).await?;
            Ok(())
        },
    )
    .await
}

/// The server's processes: the first, and those it has started.
fn processes(postmaster: u32) -> Result<Vec<String>> {
    let mut found = vec![postmaster.to_string()];
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(stat) = fs::read_to_string(format!("/proc/{name}/stat")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(found[0].as_str()) {
            found.push(name);
        }
    }
    Ok(found)
}

async fn signal(signal: &str, processes: &[String]) -> Result<()> {
    // those that have ended in the meantime are not there any more
    Command::new("kill").arg(signal).args(processes).stderr(std::process::Stdio::null()).status().await?;
    Ok(())
}

#[tokio::test]
async fn the_server_stands_still() -> Result<()> {
    let mut world = options().own_cluster().start().await?;
    let callers = warm(&world).await?;
    let stopped = processes(world.stack.postgres()?.pid())?;
    signal("-STOP", &stopped).await?;
    let broken = Instant::now();
    tokio::time::sleep(LASTING).await;
    signal("-CONT", &stopped).await?;
    let repaired = Instant::now();
    let asked = callers.rest("SIGSTOP", REFUSED_OR_DONE, broken, repaired).await?;
    assert!(refused(&asked, broken, repaired) > 0);
    finish(world).await
}

#[tokio::test]
async fn the_server_is_killed() -> Result<()> {
    let mut world = options().own_cluster().start().await?;
    let callers = warm(&world).await?;
    let broken = Instant::now();
    world.stack.postgres()?.kill().await?;
    tokio::time::sleep(LASTING).await;
    world.stack.restart_postgres().await?;
    let repaired = Instant::now();
    let asked = callers.rest("kill -9", REFUSED_OR_DONE, broken, repaired).await?;
    assert!(refused(&asked, broken, repaired) > 0);
    finish(world).await
}

#[tokio::test]
async fn the_server_is_restarted() -> Result<()> {
    let mut world = options().own_cluster().start().await?;
    let callers = warm(&world).await?;
    let broken = Instant::now();
    world.stack.postgres()?.stop(SOON).await?;
    world.stack.restart_postgres().await?;
    let repaired = Instant::now();
    callers.rest("restart", REFUSED_OR_DONE, broken, repaired).await?;
    finish(world).await
}
