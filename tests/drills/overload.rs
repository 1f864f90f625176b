//! Measures what becomes of the service when more is asked than it can do: up to ten times as much, all the time and from
//! one second to the next.
//!
//! Service, database and provider share one core, where they take turns, and the load has another, which never sleeps, so that
//! it takes nothing away from what it measures. Requests come when they are due, whether those before them are answered or not, and how long they take is
//! counted from then: whoever is slow to send hides nothing.

mod cores;
mod step;

use crate::bench::cpu::{Cpu, Pids, most_memory};
use crate::bench::ensure_durable;
use crate::bench::turns::take_turns;
use anyhow::{Context, Result};
use clap::Args;
use cores::{Cores, ensure_on, stay_on};
use e2e::{
    Asked, Chart, Crowd, Figures, Findings, Load, Profile, Scale, World, WorldOptions, by_chance, programs,
};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use step::{Step, Turn, is_admitted, is_refused, ms};
use tokio::task::JoinSet;

/// What is offered, in times of the capacity, and how much of the peak must be left of the payments.
const CURVE: [(f64, Option<f64>); 5] =
    [(0.7, None), (1.0, None), (2.0, Some(0.95)), (5.0, Some(0.95)), (10.0, Some(0.9))];
/// How much slower a payment may become for those who are let in.
const SLOWER: f64 = 3.0;
/// How long a refusal may take, in milliseconds.
const REFUSED_WITHIN: f64 = 50.0;
/// How late the load itself may be, in milliseconds. Later, and something else has used its core, and probably the other.
const LATE: f64 = 25.0;
/// How much memory the service may use, in MiB.
const MEMORY: u64 = 256;

/// Clients that ask for one payment after the other: that many find out what can be done.
const CLIENTS: usize = 32;
/// Before the first measurement, and when each of them begins: connections, caches, plans.
const SETTLING: Duration = Duration::from_secs(2);
/// Connections that are there before the load, and how many there may be.
const CONNECTIONS: usize = 512;
const MOST_CONNECTIONS: usize = 2_000;
/// Longer than the service takes to answer whatever happens. What is not answered by then is lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// From the end of a load until everything is settled that it has left.
const REST: Duration = Duration::from_secs(60);

/// The load before and after the spike, in times of the capacity, and that of the spike.
const LULL: f64 = 0.01;
const SPIKE: f64 = 10.0;
/// How long the load takes to rise, and how long it stays.
const RISE: Duration = Duration::from_secs(1);
const HEIGHT: Duration = Duration::from_secs(5);
/// How long everything may take to be as before.
const RECOVERY: Duration = Duration::from_secs(5);
/// How long is looked at before the spike, and after the recovery.
const LOOK: Duration = Duration::from_secs(10);

/// Payments per second when up to ten times as many are asked for as can be made.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill overload --seconds 5 --rounds 1")]
pub struct Options {
    /// How long each of the loads is measured
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// How often the curve is measured; the medians count
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the figures are written, as JSON
    #[arg(long, default_value = "target/overload.json")]
    save: PathBuf,
    /// Where the chart is written
    #[arg(long, default_value = "docs/charts/overload.svg")]
    chart: PathBuf,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    // a thread of its own, because a core is given to a thread, and what it starts has the same
    tokio::task::spawn_blocking(move || run_on_two_cores(&options)).await?
}

fn run_on_two_cores(options: &Options) -> Result<()> {
    let cores = Cores::find()?;
    programs(Profile::Release)?;
    stay_on(cores.stack)?;
    take_turns()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = WorldOptions::default()
        .profile(Profile::Release)
        .own_cluster()
        .set("RUST_LOG", "warn")
        .set("PAYWRIGHT_RATE_LIMIT", "0");
    let mut world = runtime.block_on(world.start())?;
    stay_on(cores.load)?;
    let overload = runtime.block_on(async {
        tokio::spawn(stay_awake());
        let measured = measure(&mut world, cores, options).await;
        world.stop().await?;
        measured
    })?;
    overload.save(options)?;
    let figures = overload.figures();
    println!("overload, also in {} and {}:\n{figures}", options.save.display(), options.chart.display());
    figures.verdict()
}

/// Keeps the core of the load busy with looking for answers. To wake a core that sleeps is work for who sends, and on a virtual
/// machine much of it: callers on another machine cost the service nothing of that kind.
async fn stay_awake() {
    loop {
        tokio::task::yield_now().await;
    }
}

/// All that was measured.
#[derive(Debug)]
struct Overload {
    capacity: f64,
    steps: Vec<Step>,
    spike: Spike,
    /// The most memory that the service had, in KiB.
    memory: u64,
    connections: usize,
    /// Requests that were never sent, because every connection waited for an answer.
    crowded_out: usize,
    findings: Findings,
}

/// What callers noticed of the spike.
#[derive(Debug)]
struct Spike {
    before: Calm,
    meanwhile: Turn,
    /// Requests of the whole of it with another answer than 201, 202 and 503, or none.
    other: usize,
    after: Calm,
}

/// Some seconds of a load that is no trouble.
#[derive(Debug)]
struct Calm {
    requests: usize,
    admitted: usize,
    p50: f64,
    p99: f64,
}

async fn measure(world: &mut World, cores: Cores, options: &Options) -> Result<Overload> {
    ensure_durable(&world.pool).await?;
    let pids = Pids {
        service: world.stack.service(0)?.pid(),
        simulator: world.stack.simulator()?.pid(),
        postgres: world.stack.postgres()?.pid(),
    };
    for pid in [pids.service, pids.simulator, pids.postgres] {
        ensure_on(cores.stack, pid)?;
    }
    let crowd = Crowd::of(&world.api, PATIENCE, MOST_CONNECTIONS)?;
    crowd.connect(CONNECTIONS).await?;
    let long = Duration::from_secs(options.seconds);
    closed_loop(&crowd, SETTLING).await?;
    let capacity = closed_loop(&crowd, long).await?;
    println!("  {capacity:.0} payments/s with {CLIENTS} clients");

    let mut bench = Bench { world, pids, crowd, capacity };
    let mut steps: Vec<_> =
        CURVE.iter().map(|(times, _)| Step { times: *times, turns: Vec::new() }).collect();
    for _ in 0..options.rounds {
        for step in &mut steps {
            step.turns.push(bench.offer(step.times, long).await?);
        }
    }
    let spike = bench.spike().await?;
    let Bench { world, crowd, .. } = bench;
    crowd.remember();
    let findings = world.check().await?;
    let (memory, connections, crowded_out) =
        (most_memory(pids.service)?, crowd.connections(), crowd.crowded_out());
    Ok(Overload { capacity, steps, spike, memory, connections, crowded_out, findings })
}

/// Payments per second that as many clients get as can be served at once, each of which waits for its answer.
async fn closed_loop(crowd: &Crowd, long: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let crowd = crowd.clone();
        clients.spawn(async move {
            let mut paid = 0;
            while began.elapsed() < long {
                match crowd.pay().await.status {
                    201 | 202 => paid += 1,
                    503 => tokio::time::sleep(Duration::from_millis(10)).await,
                    status => anyhow::bail!("answered with {status}"),
                }
            }
            Ok(paid)
        });
    }
    let paid: u32 = clients.join_all().await.into_iter().sum::<Result<u32>>()?;
    Ok(f64::from(paid) / began.elapsed().as_secs_f64())
}

struct Bench<'a> {
    world: &'a World,
    pids: Pids,
    crowd: Crowd,
    capacity: f64,
}

impl Bench<'_> {
    /// So many times the capacity, for so long.
    async fn offer(&mut self, times: f64, long: Duration) -> Result<Turn> {
        let rate = self.capacity * times;
        // or autovacuum does it in the middle of one load and not of another
        sqlx::raw_sql("VACUUM (ANALYZE)").execute(&self.world.pool).await?;
        let began = Instant::now();
        let load = self.come(SETTLING + long, move |_| rate);
        let turn = self.look(load, began + SETTLING, began + SETTLING + long).await?.1;
        println!(
            "  {times:>4} times: {:.0} offered, {:.0} taken ({:.0} accepted), {:.0} refused, {} other; p50 {:.1} ms, \
             p99 {:.1} ms, of refusals {:.1} ms; load late {:.1} ms; core: service {:.2}, PostgreSQL {:.2}, simulator {:.2}",
            turn.offered,
            turn.goodput,
            turn.accepted,
            turn.refused,
            turn.other,
            turn.p50,
            turn.p99,
            turn.refused_p99,
            turn.late_p99,
            turn.cpu.service,
            turn.cpu.postgres,
            turn.cpu.simulator
        );
        Ok(turn)
    }

    /// From next to nothing to far too much, and back.
    async fn spike(&mut self) -> Result<Spike> {
        let [low, high] = [LULL, SPIKE].map(|times| self.capacity * times);
        let risen = LOOK + RISE;
        let fallen = risen + HEIGHT;
        let end = fallen + RECOVERY + LOOK;
        let rate = move |at: Duration| match at {
            _ if at < LOOK || at >= fallen => low,
            _ if at >= risen => high,
            _ => low + (high - low) * (at - LOOK).as_secs_f64() / RISE.as_secs_f64(),
        };
        let began = Instant::now();
        let load = self.come(end, rate);
        let (asked, meanwhile) = self.look(load, began + risen, began + fallen).await?;
        let calm = |from, to| Calm::of(&asked, began + from, began + to);
        let other = asked.iter().filter(|one| !is_admitted(one) && !is_refused(one)).count();
        Ok(Spike {
            before: calm(Duration::ZERO, LOOK),
            meanwhile,
            other,
            after: calm(fallen + RECOVERY, end),
        })
    }

    fn come(&self, long: Duration, rate: impl Fn(Duration) -> f64 + Send + 'static) -> Load {
        let crowd = self.crowd.clone();
        Load::of(by_chance(long, rate), move || {
            let crowd = crowd.clone();
            async move { crowd.pay().await }
        })
    }

    async fn look(&self, load: Load, from: Instant, to: Instant) -> Result<(Vec<Asked>, Turn)> {
        tokio::time::sleep_until(from.into()).await;
        let before = Cpu::of(self.pids)?;
        tokio::time::sleep_until(to.into()).await;
        let cpu = Cpu::of(self.pids)?.since(before);
        let asked = load.end().await?;
        let turn = Turn::of(&asked, from, to, cpu);
        self.world.at_rest(REST).await?;
        Ok((asked, turn))
    }
}

impl Calm {
    fn of(asked: &[Asked], from: Instant, to: Instant) -> Self {
        let due: Vec<_> = asked.iter().filter(|one| (from..to).contains(&one.due)).collect();
        let slowest = |percent| ms(percent, due.iter().map(|one| one.took));
        let admitted = due.iter().filter(|one| is_admitted(one)).count();
        Self { requests: due.len(), admitted, p50: slowest(50), p99: slowest(99) }
    }
}

impl Overload {
    fn peak(&self) -> f64 {
        self.steps.iter().map(|step| step.median(|turn| turn.goodput)).fold(0.0, f64::max)
    }

    fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        let peak = self.peak();
        figures
            .tell("payments/s with as many clients as can be served", format_args!("{:.0}", self.capacity));
        figures.tell("the most payments/s", format_args!("{peak:.0}"));
        let usual = self.steps.first().map_or(0.0, |step| step.median(|turn| turn.p99));
        for (step, (_, least)) in self.steps.iter().zip(CURVE) {
            tell(step, least.map(|least| (least, peak)), usual, &mut figures);
        }
        self.costs(&mut figures);
        self.spike.tell(usual, &mut figures);
        figures.at_most("the most memory of the service, in MiB", self.memory / 1024, MEMORY);
        figures.tell("connections at the end", self.connections);
        figures.tell("requests that found no free connection", self.crowded_out);
        figures.findings(&self.findings);
        figures
    }

    /// What a payment costs while nobody is refused, and what is left for each refusal when nearly all are.
    fn costs(&self, figures: &mut Figures) {
        let [Some(first), Some(last)] = [self.steps.first(), self.steps.last()] else { return };
        let parts = |cpu: &Cpu| [cpu.service, cpu.postgres, cpu.simulator];
        for (part, name) in ["service", "PostgreSQL", "simulator"].into_iter().enumerate() {
            let payment = first.median(|turn| parts(&turn.cpu)[part] / turn.goodput);
            let refusal =
                last.median(|turn| (parts(&turn.cpu)[part] - payment * turn.goodput) / turn.refused);
            figures.tell(
                &format!("processor time of a payment and a refusal, {name}"),
                format_args!("{:.0} µs, {:.0} µs", payment * 1e6, refusal * 1e6),
            );
        }
    }

    fn save(&self, options: &Options) -> Result<()> {
        let steps: Vec<_> = self
            .steps
            .iter()
            .map(|step| json!({ "times": step.times, "turns": step.turns.iter().map(Turn::to_json).collect::<Vec<_>>() }))
            .collect();
        let figures = json!({
            "capacity": self.capacity, "peak": self.peak(), "steps": steps, "spike": self.spike.meanwhile.to_json(),
            "service_memory_kib": self.memory,
        });
        std::fs::write(&options.save, serde_json::to_string_pretty(&figures)?)
            .with_context(|| options.save.display().to_string())?;
        let folder = options.chart.parent().context("a folder")?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(&options.chart, self.chart()).with_context(|| options.chart.display().to_string())
    }

    fn chart(&self) -> String {
        let line = |figure: fn(&Turn) -> f64| -> Vec<_> {
            let points = self.steps.iter().map(|step| (step.times, step.median(figure)));
            points.filter(|(_, y)| *y > 0.0).collect()
        };
        let x = "asked for, in times of what can be done";
        Chart::stack(&[
            Chart {
                title: "Payments when more is asked than can be done",
                x,
                y: "per second",
                scale: Scale::Linear,
                span: None,
                lines: vec![("taken or accepted", line(|turn| turn.goodput))],
            },
            Chart {
                title: "How long an answer takes meanwhile",
                x,
                y: "p99, ms",
                scale: Scale::Logarithmic,
                span: None,
                lines: vec![
                    ("taken or accepted", line(|turn| turn.p99)),
                    ("told to come back", line(|turn| turn.refused_p99)),
                ],
            },
        ])
    }
}

fn tell(step: &Step, least: Option<(f64, f64)>, usual: f64, figures: &mut Figures) {
    let at = format!("at {} times", step.times);
    let [offered, goodput, refused, accepted] = [
        step.median(|turn| turn.offered),
        step.median(|turn| turn.goodput),
        step.median(|turn| turn.refused),
        step.median(|turn| turn.accepted),
    ];
    figures.tell(
        &format!("{at}: offered, taken or accepted (accepted only), refused per second"),
        format_args!("{offered:.0}, {goodput:.0} ({accepted:.0}), {refused:.0}"),
    );
    let [p50, p99] = [step.median(|turn| turn.p50), step.median(|turn| turn.p99)];
    match least {
        None => {
            figures.tell(&format!("{at}: p50 and p99 in ms"), format_args!("{p50:.1}, {p99:.1}"));
        }
        Some((least, peak)) => {
            let share = goodput / peak;
            figures.bound(
                &format!("{at}: share of the most payments/s"),
                format_args!("{share:.3}"),
                format_args!("at least {least}"),
                share >= least,
            );
            figures.bound(
                &format!("{at}: p50 and p99 in ms"),
                format_args!("{p50:.1}, {p99:.1}"),
                format_args!("at most {:.1}", usual * SLOWER),
                p99 <= usual * SLOWER,
            );
        }
    }
    let refused_p99 = step.median(|turn| turn.refused_p99);
    figures.bound(
        &format!("{at}: p99 of refusals in ms"),
        format_args!("{refused_p99:.1}"),
        format_args!("at most {REFUSED_WITHIN}"),
        refused_p99 <= REFUSED_WITHIN,
    );
    late(&at, step.median(|turn| turn.late_p99), figures);
    let busy = step.median(|turn| turn.cpu.service + turn.cpu.postgres + turn.cpu.simulator);
    figures.tell(&format!("{at}: of the core, used by what is measured"), format_args!("{busy:.2}"));
    figures.exactly(
        &format!("{at}: refusals without Retry-After"),
        step.sum(|turn| turn.without_retry_after),
        0,
    );
    figures.exactly(&format!("{at}: other answers, or none"), step.sum(|turn| turn.other), 0);
}

fn late(at: &str, p99: f64, figures: &mut Figures) {
    figures.bound(
        &format!("{at}: p99 of how late the load was, in ms"),
        format_args!("{p99:.1}"),
        format_args!("at most {LATE}, or the machine is not quiet"),
        p99 <= LATE,
    );
}

impl Spike {
    fn tell(&self, usual: f64, figures: &mut Figures) {
        let Self { before, meanwhile, other, after } = self;
        for (name, calm) in [("before the spike", before), ("5 s after it", after)] {
            figures.exactly(&format!("{name}: taken or accepted"), calm.admitted, calm.requests);
        }
        figures.tell(
            "before the spike: p50 and p99 in ms",
            format_args!("{:.1}, {:.1}", before.p50, before.p99),
        );
        figures.tell(
            "the spike: offered, taken or accepted, refused per second",
            format_args!("{:.0}, {:.0}, {:.0}", meanwhile.offered, meanwhile.goodput, meanwhile.refused),
        );
        figures.tell(
            "the spike: p99 in ms, of refusals too",
            format_args!("{:.1}, {:.1}", meanwhile.p99, meanwhile.refused_p99),
        );
        late("the spike", meanwhile.late_p99, figures);
        figures.exactly("the spike: other answers, or none", *other, 0);
        figures.exactly("the spike: refusals without Retry-After", meanwhile.without_retry_after, 0);
        let most = usual.max(before.p99 * SLOWER);
        figures.bound(
            "5 s after it: p50 and p99 in ms",
            format_args!("{:.1}, {:.1}", after.p50, after.p99),
            format_args!("at most {most:.1}"),
            after.p99 <= most,
        );
    }
}
