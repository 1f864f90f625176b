//! Shows that a caller that hangs up changes nothing: what it began is finished at once, by whoever served it.
//!
//! Callers write a whole create to a socket of their own and hang up a few milliseconds later, while the provider is
//! still at work. Afterwards every payment that was written must be settled without an attempt of the worker and without
//! having waited for a lease, and the service must still be able to use every connection of its pool at the same time.

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::{Api, Figures, Profile, World, WorldOptions, eventually, payment};
use rand::Rng;
use serde_json::json;
use sqlx::Connection;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

/// The service's pool.
const CONNECTIONS: usize = 20;
const LEASE: Duration = Duration::from_secs(15);
/// The provider is at work when the callers hang up.
const LATENCY: Duration = Duration::from_millis(200);
/// A caller hangs up so long after its request, at most. Whoever hung up before the request was read has asked for
/// nothing, and more patient callers come in their place: on a slow machine the last of them.
const PATIENCE: [Duration; 4] = [
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(180),
];
/// How many callers there are at once: few enough that nearly every request is read before its caller hangs up.
const AT_ONCE: usize = 10;
/// A statement that takes longer belongs to nobody.
const STUCK: Duration = Duration::from_secs(1);

/// Callers that hang up in the middle of a create: everything is finished, nothing is leaked.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill hangups --callers 200")]
pub struct Options {
    /// How many callers hang up after their request was read
    #[arg(long, default_value_t = 1000)]
    callers: usize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let Options { callers } = options;
    let world = WorldOptions::default()
        .profile(Profile::Release)
        .set("PAYWRIGHT_LEASE", &format!("{}s", LEASE.as_secs()))
        .set("PAYWRIGHT_DATABASE_CONNECTIONS", &CONNECTIONS.to_string())
        .start()
        .await?;
    world.simulator.settings(&json!({ "latency_ms": LATENCY.as_millis() })).await?;

    // the first request of a process looks the key up and connects to everything, which takes longer than callers wait
    let first = world.api.create("first", &payment("first")).await?;
    ensure!(first.status == 201, "the service does not work at all: {}", first.json());
    let mut hung_up = 0;
    for patience in PATIENCE {
        let missing = callers.saturating_sub(usize::try_from(written(&world).await?)?);
        hang_up(&world.api, missing, patience).await?;
        hung_up += missing;
    }
    let mut figures = Figures::default();
    figures.tell("callers that hung up", hung_up);
    finished(&world, callers, &mut figures).await?;
    whole_pool(&world, &mut figures).await?;
    figures.findings(&world.check().await?);

    println!("callers that hang up in the middle:\n{figures}");
    world.stop().await?;
    figures.verdict()
}

/// Every caller sends a create of its own and hangs up without reading.
async fn hang_up(api: &Api, callers: usize, patience: Duration) -> Result<()> {
    let mut calls = JoinSet::new();
    for _ in 0..callers {
        if calls.len() >= AT_ONCE
            && let Some(call) = calls.join_next().await
        {
            call??;
        }
        let api = api.clone();
        calls.spawn(async move { hang_up_once(&api, patience).await });
    }
    calls.join_all().await.into_iter().collect()
}

async fn hang_up_once(api: &Api, patience: Duration) -> Result<()> {
    let host = api.url.strip_prefix("http://").context("a plain URL")?;
    let body = payment(&format!("hangup-{}", Uuid::new_v4())).to_string();
    let request = format!(
        "POST /v1/payments HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nIdempotency-Key: {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        api.key,
        Uuid::new_v4(),
        body.len(),
    );
    let mut connection = TcpStream::connect(host).await?;
    connection.write_all(request.as_bytes()).await?;
    let pause = rand::rng().random_range(Duration::ZERO..=patience);
    tokio::time::sleep(pause).await;
    Ok(())
}

/// The payments that callers left, without the first one, which nobody hung up on.
async fn written(world: &World) -> Result<i64> {
    let count = sqlx::query_scalar("SELECT count(*) FROM payments WHERE reference <> 'first'");
    Ok(count.fetch_one(&world.pool).await?)
}

/// Whatever was written is settled, and was by its first holder.
async fn finished(world: &World, callers: usize, figures: &mut Figures) -> Result<()> {
    // Twice as long, so that one that does wait for its lease is seen to have waited.
    let is_at_rest = world.at_rest(LEASE * 2).await.is_ok();
    let written = written(world).await?;
    let (retried, longest): (i64, f64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE attempts > 0),
                COALESCE(EXTRACT(EPOCH FROM max(COALESCE(settled_at, now()) - created_at)), 0)::float8
         FROM operations",
    )
    .fetch_one(&world.pool)
    .await?;
    figures.at_least("payments they left", written, i64::try_from(callers)?);
    figures.holds("all of them settled", is_at_rest);
    figures.exactly("needed another attempt", retried, 0);
    let bound = LEASE.as_secs_f64();
    let value = format!("{longest:.3} s");
    figures.bound(
        "longest to settlement",
        value,
        format_args!("below the lease, {LEASE:?}"),
        longest < bound,
    );
    Ok(())
}

/// As many creates as the pool has connections, made to use all of them at the same time by a table that is locked.
async fn whole_pool(world: &World, figures: &mut Figures) -> Result<()> {
    let mut owner = sqlx::PgConnection::connect(world.stack.owner_url()).await?;
    let mut lock = owner.begin().await?;
    sqlx::query("LOCK TABLE payments IN SHARE ROW EXCLUSIVE MODE").execute(&mut *lock).await?;
    let mut creates = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let api = world.api.clone();
        creates.spawn(async move {
            let key = Uuid::new_v4().to_string();
            api.create(&key, &payment(&key)).await
        });
    }
    let waiting = "SELECT count(*) FROM pg_stat_activity
         WHERE application_name = 'payments' AND datname = current_database() AND wait_event_type = 'Lock'";
    let mut most = 0_i64;
    // The service gives a lock up after 1.5 s.
    let all_wait = eventually(Duration::from_secs(1), "every connection in use", async || {
        most = most.max(sqlx::query_scalar(waiting).fetch_one(&world.pool).await?);
        Ok(most >= i64::try_from(CONNECTIONS)?)
    });
    let _ = all_wait.await;
    lock.rollback().await?;
    figures.exactly("connections in use at once", most, i64::try_from(CONNECTIONS)?);

    let answers: Vec<_> = creates.join_all().await.into_iter().collect::<Result<_>>()?;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    figures.exactly("creates on them that succeeded", created, CONNECTIONS);

    world.at_rest(LEASE).await?;
    let (connections, stuck): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (
             WHERE state <> 'idle' AND now() - state_change > make_interval(secs => $1))
         FROM pg_stat_activity WHERE application_name = 'payments' AND datname = current_database()",
    )
    .bind(STUCK.as_secs_f64())
    .fetch_one(&world.pool)
    .await?;
    ensure!(connections > 0, "the service has no connection at all");
    figures.at_most("connections of the service", connections, i64::try_from(CONNECTIONS)?);
    figures.exactly("of them stuck", stuck, 0);
    Ok(())
}
