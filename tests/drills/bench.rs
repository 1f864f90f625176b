//! Measures payments per second, and says what limits them: beside pgbench, which runs the service's two statements and
//! nothing else on the same durable PostgreSQL, and beside the processor time that each process spends on a payment.
//!
//! Service and pgbench take turns, so that whatever else the machine does falls on both, and the median of each counts.

mod cpu;
mod load;
mod pgbench;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cpu::{Cpu, Pids};
use devstack::{Stack, StackOptions};
use e2e::{Figures, Profile, programs};
use load::{Load, Target, create_payments};
use pgbench::Pgbench;
use sqlx::PgPool;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Before the first measurement: connections, caches, plans.
const WARM_UP: Duration = Duration::from_secs(2);

/// Payments per second, beside pgbench with the same two statements.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill bench --seconds 5 --connections 128")]
pub struct Options {
    /// How long each of the measurements takes
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How many clients create payments at once
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How often service and pgbench take turns
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// The least that the service may reach, as a share of what pgbench does
    #[arg(long, default_value_t = 0.3)]
    min_ratio: f64,
}

/// One turn of the service.
struct Turn {
    load: Load,
    cpu: Cpu,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let programs = tokio::task::spawn_blocking(|| programs(Profile::Release)).await??;
    let directory = directory()?;
    // no database of the tests: theirs forgets what it committed when the power fails
    let mut stack_options = StackOptions::new(directory.path());
    stack_options.programs = Some(programs);
    stack_options.environment.insert("RUST_LOG".to_owned(), "warn".to_owned());
    let mut stack = Stack::start(stack_options).await?;
    let figures = measure(&mut stack, &directory, &options).await;
    stack.shutdown().await?;
    let figures = figures?;
    println!("payments per second:\n{figures}");
    figures.verdict()
}

/// PostgreSQL may run as another user, who has to pass.
fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bench-").permissions(Permissions::from_mode(0o711)).tempdir()?)
}

async fn measure(stack: &mut Stack, directory: &TempDir, options: &Options) -> Result<Figures> {
    let owner = PgPool::connect(stack.owner_url()).await?;
    for setting in ["fsync", "synchronous_commit"] {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&owner).await?;
        ensure!(value == "on", "{setting} is {value}: this PostgreSQL is not durable");
    }
    let target = Arc::new(Target {
        host: stack.api_url(0)?.strip_prefix("http://").context("a plain URL")?.to_owned(),
        api_key: stack.merchant()?.api_key.clone(),
    });
    create_payments(&target, options.connections, WARM_UP).await?;
    let pids = Pids {
        service: stack.service(0)?.pid(),
        simulator: stack.simulator()?.pid(),
        postgres: stack.postgres()?.pid(),
    };
    let service_env = stack.service_env()?;
    let database_url = service_env.get("DATABASE_URL").context("DATABASE_URL")?;
    let mut pgbench = Pgbench::prepare(directory.path(), &owner, database_url).await?;

    let long = Duration::from_secs(options.seconds);
    let (mut turns, mut baseline, mut pool) = (Vec::new(), Vec::new(), 0);
    for _ in 0..options.turns {
        let before = Cpu::of(pids)?;
        let load = create_payments(&target, options.connections, long).await?;
        turns.push(Turn { load, cpu: Cpu::of(pids)?.since(before) });
        pool = connections(&owner).await?;
        baseline.push(pgbench.run(pool, long).await?);
    }
    owner.close().await;
    turns.sort_by(|one, other| one.load.rate().total_cmp(&other.load.rate()));
    baseline.sort_by(f64::total_cmp);
    let turn = turns.get(turns.len() / 2).context("no turns")?;
    let baseline = baseline.get(baseline.len() / 2).context("no turns")?;
    Ok(figures(options, turn, *baseline, pool))
}

/// How many connections the service's pool has really made.
async fn connections(owner: &PgPool) -> Result<usize> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'payments'")
            .fetch_one(owner)
            .await?;
    Ok(usize::try_from(count)?)
}

fn figures(options: &Options, turn: &Turn, baseline: f64, pool: usize) -> Figures {
    let Turn { load, cpu } = turn;
    let mut figures = Figures::default();
    figures.tell("clients", options.connections);
    figures.tell("database connections of each", pool);
    figures.tell("payments/s", format_args!("{:.0}", load.rate()));
    figures.tell("p50", format_args!("{:.1?}", load.percentile(50)));
    figures.tell("p99", format_args!("{:.1?}", load.percentile(99)));
    figures.tell("pgbench, claim and settle/s", format_args!("{baseline:.0}"));
    let ratio = load.rate() / baseline;
    let least = options.min_ratio;
    figures.bound("ratio", format_args!("{ratio:.2}"), format_args!("at least {least}"), ratio >= least);
    let payments = load.rate() * load.took.as_secs_f64();
    for (name, seconds) in [
        ("service", cpu.service),
        ("simulator", cpu.simulator),
        ("PostgreSQL", cpu.postgres),
        ("load generator", cpu.load),
    ] {
        let each = Duration::from_secs_f64(seconds.max(0.0) / payments.max(1.0));
        figures.tell(&format!("processor time per payment, {name}"), format_args!("{} µs", each.as_micros()));
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let busy = (cpu.service + cpu.simulator + cpu.postgres + cpu.load) / load.took.as_secs_f64();
    figures.tell("processors busy", format_args!("{busy:.2} of {cores}"));
    figures
}
