//! Whatever becomes of the database, every request is answered in its time, and soon after the repair all is well again.

use crate::support::{PAYMENTS, SOON, seconds};
use anyhow::{Context, Result, ensure};
use devstack::Fault;
use e2e::{Answer, Api, World, WorldOptions, eventually, payment};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What the services are told: a request is answered within this.
const DEADLINE: Duration = Duration::from_secs(3);
/// What the answer may take beyond it on its way.
const MARGIN: Duration = Duration::from_millis(500);
/// From the repair to the first answer that is as it should be.
const RECOVERY: Duration = Duration::from_secs(3);
/// How long a fault lasts: longer than any request, so that some meet nothing else.
const LASTING: Duration = Duration::from_secs(6);
/// How many ask at the same time, more than there are connections, and their pause.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(50);

fn options() -> WorldOptions {
    WorldOptions::default()
        .set("PAYWRIGHT_REQUEST_TIMEOUT", &format!("{}s", DEADLINE.as_secs()))
        .set("PAYWRIGHT_SYNC_WAIT", "2s")
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "1s")
        .set("PAYWRIGHT_LEASE", "7s")
        .set("PAYWRIGHT_DATABASE_CONNECTIONS", "5")
}

/// A request and its answer.
struct Asked {
    what: &'static str,
    at: Instant,
    took: Duration,
    answer: Answer,
}

impl Asked {
    fn is_good(&self) -> bool {
        self.answer.status < 300
    }
}

/// Callers who create payments and read them, again and again, and note what they are told.
struct Callers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(Vec<Asked>, Vec<String>)>>,
    api: Api,
}

impl Callers {
    fn of(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let (api, stop) = (world.api.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                let (mut asked, mut open) = (Vec::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let key = Uuid::new_v4().to_string();
                    let at = Instant::now();
                    let answer = api.create(&key, &payment(&key)).await?;
                    if Api::is_worth_repeating(&answer) {
                        open.push(key);
                    }
                    asked.push(Asked { what: "create", at, took: at.elapsed(), answer });
                    let at = Instant::now();
                    let answer = api.get(PAYMENTS).await?;
                    asked.push(Asked { what: "list", at, took: at.elapsed(), answer });
                    tokio::time::sleep(PAUSE).await;
                }
                Ok((asked, open))
            });
        }
        Self { stop, tasks, api: world.api.clone() }
    }

    /// Lets them go on until some are answered as they should be, counted from the repair.
    async fn rest(mut self, fault: &str, broken: Instant, repaired: Instant) -> Result<Vec<Asked>> {
        tokio::time::sleep_until((repaired + RECOVERY + seconds(1)).into()).await;
        self.stop.store(true, Ordering::Relaxed);
        let (mut asked, mut open) = (Vec::new(), Vec::new());
        while let Some(told) = self.tasks.join_next().await {
            let (some, left) = told??;
            asked.extend(some);
            open.extend(left);
        }
        for one in &asked {
            let Asked { what, took, answer, .. } = one;
            assert!(*took <= DEADLINE + MARGIN, "{fault}: {what} answered after {took:?}: {}", answer.status);
            if !one.is_good() {
                let code = answer.code();
                assert_eq!(answer.status, 503, "{fault}: {what}: {}", answer.json());
                assert!(["unavailable", "timeout", "overloaded"].contains(&code.as_str()), "{fault}: {code}");
                assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{fault}: {what} {code}");
            }
        }
        for what in ["create", "list"] {
            let good = asked.iter().filter(|one| one.what == what && one.is_good());
            let first = good.map(|one| one.at + one.took).filter(|end| *end >= repaired).min();
            let first = first.with_context(|| format!("{fault}: no {what} is answered well"))? - repaired;
            println!("{fault}: first {what} {} ms after the repair", first.as_millis());
            assert!(first <= RECOVERY, "{fault}: {what} after {first:?}");
        }
        let meanwhile = asked.iter().filter(|one| (broken..repaired).contains(&(one.at + one.took)));
        let (good, bad): (Vec<&Asked>, Vec<&Asked>) = meanwhile.partition(|one| one.is_good());
        let longest = asked.iter().map(|one| one.took).max().unwrap_or_default();
        println!("{fault}: {} good, {} 503 meanwhile; longest {longest:?}", good.len(), bad.len());
        // a good client repeats what it was not told, with the same key, and is told
        for key in open {
            let mut told = 0;
            eventually(SOON * 2, "what was asked for is carried out", async || {
                told = self.api.create(&key, &payment(&key)).await?.status;
                Ok(told == 201)
            })
            .await
            .with_context(|| format!("{fault}: last told {told}"))?;
        }
        Ok(asked)
    }
}

/// How many 503 there were between two moments.
fn refused(asked: &[Asked], from: Instant, to: Instant) -> usize {
    asked.iter().filter(|one| !one.is_good() && (from..to).contains(&(one.at + one.took))).count()
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
    let asked = callers.rest(fault, broken, repaired).await?;
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
    callers.rest("silent death", broken, broken).await?;
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
    let asked = callers.rest("lock held", broken, repaired).await?;
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
    let asked = callers.rest("SIGSTOP", broken, repaired).await?;
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
    let asked = callers.rest("kill -9", broken, repaired).await?;
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
    callers.rest("restart", broken, repaired).await?;
    finish(world).await
}
