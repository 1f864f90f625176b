//! A provider that is gone for a while, under load that does not wait for answers: what callers notice, what the provider
//! is asked meanwhile, and how long it takes afterwards.

use crate::load::{Asked, Load, Seen, evenly, percentile};
use crate::{Api, Figures, World, payment};
use anyhow::{Context, Result, ensure};
use devstack::Fault;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use uuid::Uuid;

/// From the first failure to the first create that may no longer wait.
const NOTICED: Duration = Duration::from_secs(3);
/// Then it is answered 202 within this.
const AT_ONCE: Duration = Duration::from_millis(100);
/// From the provider's return until everything that was open is settled.
const DRAINED: Duration = Duration::from_secs(60);
/// How much slower reads may be.
const SLOWER: f64 = 1.5;
/// The least share of reads that are answered well.
const GOOD_READS: f64 = 0.999;
/// The most calls to the provider for each payment.
const CALLS: f64 = 1.1;
/// Reads are measured in so many windows of each phase, of which the median counts.
const WINDOWS: u32 = 3;
/// How often the database is asked who has a transaction open.
const SAMPLE: Duration = Duration::from_millis(100);

/// How the provider goes.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    /// How it is gone.
    pub fault: Fault,
    /// How long it takes until a call has failed: nothing, or the provider's time-out.
    pub noticed_after: Duration,
    /// How long it is gone.
    pub lasting: Duration,
    /// How long everything is as it should be before.
    pub before: Duration,
    /// New payments per second.
    pub creates: f64,
    /// Reads per second.
    pub reads: f64,
    /// Whether nothing else runs on this machine, so that times of single answers are bounded as well.
    pub alone: bool,
}

async fn create(api: Api) -> Seen {
    let key = Uuid::new_v4().to_string();
    Seen::of(api.create(&key, &payment(&key)).await.ok().as_ref())
}

async fn read(api: Api, path: String) -> Seen {
    Seen::of(api.get(&path).await.ok().as_ref())
}

impl Outage {
    /// Lets it happen to a world with a proxy before its provider.
    ///
    /// # Errors
    /// It cannot be made. What went wrong is in the figures.
    pub async fn happen(&self, world: &World) -> Result<Figures> {
        let proxy = world.stack.provider_proxy()?;
        let first = world.api.create("first", &payment("first")).await?;
        ensure!(first.status == 201, "the service does not work at all: {}", first.json());
        let path = first.header("location").to_owned();
        let calls = calls(world).await?;
        let sampler = Sampler::of(world);
        let (creator, reader) = (world.api.clone(), world.api.clone());
        let creates = Load::of(evenly(self.creates), move || create(creator.clone()));
        let reads = Load::of(evenly(self.reads), move || read(reader.clone(), path.clone()));

        let began = Instant::now();
        tokio::time::sleep(self.before).await;
        proxy.set(self.fault).await?;
        let gone = Instant::now();
        tokio::time::sleep(self.lasting).await;
        let open = world.open_operations().await?;
        proxy.set(Fault::Pass).await?;
        let back = Instant::now();
        let drained = drained(world).await?;
        let (creates, reads) = (creates.stop().await?, reads.stop().await?);
        world.at_rest(DRAINED).await?;

        let mut figures = Figures::default();
        figures.tell("payments/s, reads/s", format_args!("{}, {}", self.creates, self.reads));
        figures.tell("the provider was gone for", format_args!("{:?}", self.lasting));
        self.creates_meanwhile(&creates, gone, back, &mut figures);
        self.reads_meanwhile(&reads, [began, gone, back], &mut figures);
        let made = calls_since(world, calls).await?;
        let count = u32::try_from(creates.len())?;
        let each = made / f64::from(count);
        figures.tell("payments", count);
        figures.bound(
            "calls to the provider per payment",
            format_args!("{each:.3}"),
            format_args!("at most {CALLS}"),
            each <= CALLS,
        );
        sampler.stop().await?.tell(&mut figures);
        figures.tell("open at the provider's return", open);
        let bound = format_args!("at most {DRAINED:?}").to_string();
        figures.bound(
            "from the return until that was settled",
            format_args!("{:.1} s", drained.as_secs_f64()),
            bound,
            drained <= DRAINED,
        );
        // every card is good: whatever failed could still have been charged
        let failed = "SELECT count(*) FROM payments WHERE status <> 'captured'";
        let failed: i64 = sqlx::query_scalar(failed).fetch_one(&world.pool).await?;
        figures.exactly("payments that ended in anything but a capture", failed, 0);
        figures.findings(&world.check().await?);
        Ok(figures)
    }

    fn creates_meanwhile(&self, creates: &[Asked], gone: Instant, back: Instant, figures: &mut Figures) {
        let noticed = gone + self.noticed_after + NOTICED;
        let meanwhile: Vec<_> = creates.iter().filter(|one| (noticed..back).contains(&one.due)).collect();
        let accepted = meanwhile.iter().filter(|one| one.status == 202).count();
        figures.exactly("creates meanwhile that were answered 202", accepted, meanwhile.len());
        let mut times: Vec<_> = meanwhile.iter().map(|one| one.took).collect();
        times.sort_unstable();
        let (median, p99) = (percentile(&times, 50), percentile(&times, 99));
        figures.at_most("their median in ms", median.as_millis(), AT_ONCE.as_millis());
        if self.alone {
            figures.at_most("their p99 in ms", p99.as_millis(), AT_ONCE.as_millis());
        } else {
            figures.tell("their p99 in ms", p99.as_millis());
        }
        figures.tell("the longest in ms", percentile(&times, 100).as_millis());
        let wrong = creates.iter().filter(|one| !matches!(one.status, 201 | 202)).count();
        figures.exactly("creates of all time with another answer than 201 and 202", wrong, 0);
    }

    fn reads_meanwhile(&self, reads: &[Asked], [began, gone, back]: [Instant; 3], figures: &mut Figures) {
        let meanwhile: Vec<_> = reads.iter().filter(|one| (gone..back).contains(&one.due)).collect();
        let good = meanwhile.iter().filter(|one| one.status == 200).count();
        let share = ratio(good, meanwhile.len());
        figures.bound(
            "good reads",
            format_args!("{:.3} %", share * 100.0),
            format_args!("at least {} %", GOOD_READS * 100.0),
            share >= GOOD_READS,
        );
        let [before, during] = [(began, gone), (gone, back)].map(|(from, to)| p99(reads, from, to));
        let slower = during.as_secs_f64() / before.as_secs_f64().max(f64::MIN_POSITIVE);
        let told = format!("{:.1} ms, before {:.1} ms: {slower:.2}", ms(during), ms(before));
        let name = format!("their p99, median of {WINDOWS}");
        if self.alone {
            figures.bound(&name, told, format_args!("at most {SLOWER} times"), slower <= SLOWER);
        } else {
            figures.tell(&name, told);
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn ratio(part: usize, whole: usize) -> f64 {
    let as_float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    as_float(part) / as_float(whole.max(1))
}

/// The median of the windows' p99.
fn p99(asked: &[Asked], from: Instant, to: Instant) -> Duration {
    let long = (to - from) / WINDOWS;
    let mut windows: Vec<_> = (0..WINDOWS)
        .map(|window| {
            let begins = from + long * window;
            let within = asked.iter().filter(|one| (begins..begins + long).contains(&one.due));
            let mut times: Vec<_> = within.map(|one| one.took).collect();
            times.sort_unstable();
            percentile(&times, 99)
        })
        .collect();
    windows.sort_unstable();
    percentile(&windows, 50)
}

/// How long it takes until everything is settled that is open now, while more comes.
async fn drained(world: &World) -> Result<Duration> {
    let back = Instant::now();
    let now: String = sqlx::query_scalar("SELECT now()::text").fetch_one(&world.pool).await?;
    let left = "SELECT count(*) FROM operations
                WHERE settled_at IS NULL AND idempotency_key IS NOT NULL AND created_at <= $1::timestamptz";
    // how long it took is a figure, and that it took too long a missed bound
    let _ = crate::eventually(DRAINED * 2, "what was open is settled", async || {
        Ok(sqlx::query_scalar::<_, i64>(left).bind(&now).fetch_one(&world.pool).await? == 0)
    })
    .await;
    Ok(back.elapsed())
}

/// How many calls to the provider the services have made, answered or not.
async fn calls(world: &World) -> Result<f64> {
    let url = format!("{}/metrics", world.stack.ops_url(0)?);
    let text = world.api.http.get(url).send().await?.text().await?;
    let series = text.lines().filter(|line| line.starts_with("http_client_request_duration_seconds_count{"));
    Ok(series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}

async fn calls_since(world: &World, before: f64) -> Result<f64> {
    Ok(calls(world).await? - before)
}

/// Looks again and again who has a transaction open without a statement under way: that is what whoever waits for the
/// provider inside of one looks like.
struct Sampler {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Sampled>>,
}

#[derive(Default)]
struct Sampled {
    samples: usize,
    open: i64,
}

impl Sampler {
    fn of(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_over, pool) = (Arc::clone(&stop), world.pool.clone());
        let task = tokio::spawn(async move {
            let mut sampled = Sampled::default();
            let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'payments'
                        AND datname = current_database() AND state LIKE 'idle in transaction%'";
            while !is_over.load(Ordering::Relaxed) {
                let found: i64 = sqlx::query_scalar(open).fetch_one(&pool).await?;
                sampled = Sampled { samples: sampled.samples + 1, open: sampled.open + found };
                tokio::time::sleep(SAMPLE).await;
            }
            Ok(sampled)
        });
        Self { stop, task }
    }

    async fn stop(self) -> Result<Sampled> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the sampler broke down")?
    }
}

impl Sampled {
    fn tell(&self, figures: &mut Figures) {
        figures.tell("looks for open transactions", self.samples);
        figures.exactly("transactions open while nothing was asked of the database", self.open, 0);
    }
}
