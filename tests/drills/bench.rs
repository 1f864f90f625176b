//! Measures payments, replays and reads per second, and says what limits them: beside pgbench, which runs the service's own
//! statements and nothing else on the same durable PostgreSQL, and beside the processor time that each process spends.
//!
//! Service and pgbench are measured in turns, so that whatever else the machine does falls on both, and the median of each
//! counts. All programs share the machine's cores and do not interrupt each other (see [`turns`]).

mod chart;
pub mod cpu;
mod load;
mod pgbench;
mod series;
pub mod turns;

use anyhow::{Context, Result, ensure};
use clap::Args;
use cpu::{Cpu, Pids};
use devstack::{Stack, StackOptions};
use e2e::{Figures, Profile, Simulator, programs};
use load::{Target, Work, drive};
use pgbench::Pgbench;
use serde_json::json;
use series::{Series, Turn};
use sqlx::PgPool;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use turns::take_turns;

/// Before the first measurement: connections, caches, plans.
const WARM_UP: Duration = Duration::from_secs(2);
/// What a provider takes that is not on the same machine, or at least a quick one.
const LATENCY: Duration = Duration::from_millis(20);

/// Payments, replays and reads per second, beside pgbench with the same statements.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill bench --seconds 10 --connections 128")]
pub struct Options {
    /// How long each of the measurements takes
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How many clients ask at once, and more of them when the provider lets them wait; of more than the machine has work
    /// for, the service sends some away
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// How often service and pgbench take turns
    #[arg(long, default_value_t = 5)]
    turns: usize,
    /// The least that the service may reach, as a share of what pgbench does
    #[arg(long, default_value_t = 0.5)]
    min_ratio: f64,
    /// The most processor time of the service for a payment, in microseconds
    #[arg(long, default_value_t = 200)]
    max_cpu: u64,
    /// What a provider that takes 20 ms must leave of the payments per second, as a share
    #[arg(long, default_value_t = 0.9)]
    min_beside_latency: f64,
    /// Where the figures are written, as JSON
    #[arg(long, default_value = "target/bench.json")]
    save: PathBuf,
    /// Where the chart is written
    #[arg(long, default_value = "docs/charts/bench.svg")]
    chart: PathBuf,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    // a thread of its own, because taking turns is a property of threads, and what one starts has it as well
    tokio::task::spawn_blocking(move || {
        let programs = programs(Profile::Release)?;
        take_turns()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(compare(programs, &options))
    })
    .await?
}

async fn compare(programs: PathBuf, options: &Options) -> Result<()> {
    let directory = directory()?;
    // no database of the tests: theirs forgets what it committed when the power fails
    let mut stack_options = StackOptions::new(directory.path());
    stack_options.programs = Some(programs);
    stack_options.environment.insert("RUST_LOG".to_owned(), "warn".to_owned());
    let mut stack = Stack::start(stack_options).await?;
    let measured = measure(&mut stack, &directory, options).await;
    stack.shutdown().await?;
    let measured = measured?;
    std::fs::write(&options.save, serde_json::to_string_pretty(&measured.to_json())?)
        .with_context(|| options.save.display().to_string())?;
    std::fs::write(&options.chart, chart::to_svg(&measured.pairs()))
        .with_context(|| options.chart.display().to_string())?;
    let figures = measured.figures(options);
    let (save, chart) = (options.save.display(), options.chart.display());
    println!("requests per second, also in {save} and {chart}:\n{figures}");
    figures.verdict()
}

/// PostgreSQL may run as another user, who has to pass.
fn directory() -> Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("bench-").permissions(Permissions::from_mode(0o711)).tempdir()?)
}

/// All that was measured.
struct Measured {
    pay: Series,
    replay: Series,
    read: Series,
    beside_latency: Series,
    /// Connections that the service's pool really made.
    pool: usize,
    /// The most memory that the service had, in KiB.
    memory: u64,
}

async fn measure(stack: &mut Stack, directory: &TempDir, options: &Options) -> Result<Measured> {
    let owner = PgPool::connect(stack.owner_url()).await?;
    ensure_durable(&owner).await?;
    let target = Arc::new(Target {
        host: stack.api_url(0)?.strip_prefix("http://").context("a plain URL")?.to_owned(),
        api_key: stack.merchant()?.api_key.clone(),
    });
    drive(&target, Work::Pay, options.connections, WARM_UP).await?;
    let pids = Pids {
        service: stack.service(0)?.pid(),
        simulator: stack.simulator()?.pid(),
        postgres: stack.postgres()?.pid(),
    };
    let service_env = stack.service_env()?;
    let database_url = service_env.get("DATABASE_URL").context("DATABASE_URL")?;
    let pool = connections(&owner).await?;
    let pgbench = Pgbench::prepare(directory.path(), &owner, database_url).await?;
    owner.close().await;

    let mut bench = Bench { target, pids, pgbench, pool, clients: options.connections, options };
    let pay = bench.turns(Work::Pay).await?;
    let replay = bench.turns(Work::Replay).await?;
    let read = bench.turns(Work::Read).await?;
    let simulator = Simulator::at(stack.simulator_url(), reqwest::Client::new());
    simulator.settings(&json!({ "latency_ms": LATENCY.as_millis() })).await?;
    bench.clients += waiting_for_provider(pay.rate());
    let beside_latency = bench.turns_alone(Work::Pay).await?;
    Ok(Measured { pay, replay, read, beside_latency, pool, memory: cpu::most_memory(pids.service)? })
}

/// How many clients wait for the provider at this rate when it takes [`LATENCY`] (Little's law).
fn waiting_for_provider(rate: f64) -> usize {
    let waiting = Duration::from_secs_f64(rate * LATENCY.as_secs_f64());
    usize::try_from(waiting.as_secs()).unwrap_or(usize::MAX).saturating_add(1)
}

/// Whether this PostgreSQL keeps what it has said to be committed.
///
/// # Errors
/// It does not.
pub async fn ensure_durable(owner: &PgPool) -> Result<()> {
    for setting in ["fsync", "synchronous_commit"] {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(owner).await?;
        ensure!(value == "on", "{setting} is {value}: this PostgreSQL is not durable");
    }
    Ok(())
}

/// How many connections the service's pool has really made.
async fn connections(owner: &PgPool) -> Result<usize> {
    let count: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'payments'")
            .fetch_one(owner)
            .await?;
    Ok(usize::try_from(count)?)
}

struct Bench<'a> {
    target: Arc<Target>,
    pids: Pids,
    pgbench: Pgbench,
    pool: usize,
    clients: usize,
    options: &'a Options,
}

impl Bench<'_> {
    fn long(&self) -> Duration {
        Duration::from_secs(self.options.seconds)
    }

    /// The service and pgbench in turns.
    async fn turns(&mut self, work: Work) -> Result<Series> {
        let mut series = Series::default();
        for _ in 0..self.options.turns {
            series.add(self.turn(work).await?);
            series.add_baseline(self.pgbench.run(work, self.pool, self.long()).await?);
        }
        Ok(series)
    }

    /// The service, with nothing to compare it to.
    async fn turns_alone(&self, work: Work) -> Result<Series> {
        let mut series = Series::default();
        for _ in 0..self.options.turns {
            series.add(self.turn(work).await?);
        }
        Ok(series)
    }

    async fn turn(&self, work: Work) -> Result<Turn> {
        let before = Cpu::of(self.pids)?;
        let load = drive(&self.target, work, self.clients, self.long()).await?;
        Ok(Turn { load, cpu: Cpu::of(self.pids)?.since(before) })
    }
}

impl Measured {
    fn named(&self) -> [(&'static str, &Series); 4] {
        [
            ("payments", &self.pay),
            ("replays", &self.replay),
            ("reads", &self.read),
            ("payments, provider at 20 ms", &self.beside_latency),
        ]
    }

    fn pairs(&self) -> Vec<chart::Pair> {
        let compared = self.named().into_iter().filter_map(|(name, series)| {
            Some(chart::Pair { name, service: series.rate(), pgbench: series.baseline_rate()? })
        });
        compared.collect()
    }

    fn to_json(&self) -> serde_json::Value {
        let series: serde_json::Map<_, _> =
            self.named().into_iter().map(|(name, series)| (name.to_owned(), series.to_json())).collect();
        json!({ "database_connections": self.pool, "service_memory_kib": self.memory, "series": series })
    }

    fn figures(&self, options: &Options) -> Figures {
        let mut figures = Figures::default();
        figures.tell("clients", options.connections);
        figures.tell("database connections of each", self.pool);
        for (name, series) in self.named() {
            series.tell(name, &mut figures);
            figures.tell(&format!("{name}, sent away at first"), series.refused());
            if let Some(ratio) = series.ratio() {
                let bound = format_args!("at least {}", options.min_ratio);
                let is_kept = ratio >= options.min_ratio;
                figures.bound(
                    &format!("{name}, share of pgbench"),
                    format_args!("{ratio:.2}"),
                    bound,
                    is_kept,
                );
            }
        }
        let left = self.beside_latency.rate() / self.pay.rate();
        let least = options.min_beside_latency;
        figures.bound(
            "payments left by a provider at 20 ms",
            format_args!("{left:.2}"),
            format_args!("at least {least}"),
            left >= least,
        );
        let each = self.pay.each();
        for (name, seconds) in
            [("simulator", each.simulator), ("PostgreSQL", each.postgres), ("load generator", each.load)]
        {
            figures.tell(
                &format!("processor time per payment, {name}"),
                format_args!("{:.0} µs", seconds * 1e6),
            );
        }
        let micros = each.service * 1e6;
        figures.bound(
            "processor time per payment, service",
            format_args!("{micros:.0} µs"),
            format_args!("at most {} µs", options.max_cpu),
            micros <= Duration::from_micros(options.max_cpu).as_secs_f64() * 1e6,
        );
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        figures.tell("processors busy with payments", format_args!("{:.2} of {cores}", self.pay.busy()));
        figures.tell("the most memory of the service", format_args!("{} MiB", self.memory / 1024));
        figures
    }
}
