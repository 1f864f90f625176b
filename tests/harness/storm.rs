//! Killing services, PostgreSQL and the provider under load, while the provider loses answers, executes late and forgets
//! keys. Then the faults end, everything comes to rest, and the checker decides.

use crate::{Client, Figures, Findings, Profile, Unserved, World, WorldOptions};
use anyhow::{Context, Result};
use rand::Rng;
use rand::seq::SliceRandom;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Short, so that a storm ends soon. It must exceed the provider's timeout by 5 s.
const LEASE: Duration = Duration::from_secs(8);
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(2);
/// What is allowed beyond the lease until everything is settled.
const REST: Duration = Duration::from_secs(30);
/// How long a client insists: longer than any storm. What takes longer than it takes to kill a process again, as a long
/// search does, may have no end before the storm has.
const PATIENCE: Duration = Duration::from_secs(3600);
/// When everything is at rest, a client that insists has its answer within this.
const TOLD: Duration = Duration::from_secs(30);
/// How long it may take until enough is open for the next kill.
const OPEN_BOUND: Duration = Duration::from_secs(30);
/// What the provider takes for an answer when nothing is wrong with it.
const USUAL_LATENCY: Duration = Duration::from_millis(20);
/// Between two kills, in milliseconds, beside the time that the restart takes.
const PAUSE_MS: std::ops::Range<u64> = 0..1000;
/// A service believes the provider to have forgotten a key after 24 h. What is open so long is made to look so old ...
const AGED_AFTER: Duration = Duration::from_secs(5);
/// ... and the provider really forgets keys after this: whatever was sent with a key before has ended by then.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(5 + 8 + 2 + 1);

/// How hard it blows.
#[derive(Debug, Clone)]
pub struct Storm {
    /// How often a service is killed.
    pub services_killed: usize,
    /// How often PostgreSQL is. More than 0 needs a cluster of the world's own.
    pub postgres_killed: usize,
    /// How often the provider is.
    pub provider_killed: usize,
    /// How many services there are.
    pub services: usize,
    /// So many operations are open at the moment of each kill.
    pub open: i64,
    /// New customers per second.
    pub rate: f64,
    /// What the provider takes for an answer. Rate and latency make what is open.
    pub latency: Duration,
    /// The probability that the provider executes and loses the answer, in each of two ways.
    pub lost: f64,
    /// The probability that it resets the connection and executes later.
    pub late: f64,
    /// How much later.
    pub late_by: Duration,
    /// Bounds on what the storm must have contained, or it does not count.
    pub least: Least,
}

/// What a storm must have contained to count.
#[derive(Debug, Clone, Copy)]
pub struct Least {
    /// Attempts of clients.
    pub attempts: usize,
    /// Answers that the provider lost after it had executed.
    pub lost: u64,
    /// Operations that were finished by another process than the one that had begun.
    pub taken_over: i64,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            services_killed: 40,
            postgres_killed: 10,
            provider_killed: 10,
            services: 3,
            open: 20,
            rate: 60.0,
            latency: Duration::from_millis(400),
            lost: 0.05,
            late: 0.02,
            late_by: Duration::from_millis(1500),
            least: Least { attempts: 1, lost: 1, taken_over: 1 },
        }
    }
}

/// Whom to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Service,
    Postgres,
    Provider,
}

/// What a storm was, and what the checker says.
#[derive(Debug)]
pub struct StormReport {
    storm: Storm,
    open_at_kill: Vec<i64>,
    to_rest: Duration,
    customers: usize,
    without_end: usize,
    unexpected: Vec<String>,
    injected: BTreeMap<String, u64>,
    taken_over: i64,
    searched: i64,
    findings: Findings,
}

impl Storm {
    /// The world that it needs.
    #[must_use]
    pub fn world(&self, profile: Profile) -> WorldOptions {
        let options = WorldOptions::default()
            .instances(self.services)
            .profile(profile)
            .set("PAYWRIGHT_LEASE", &format!("{}s", LEASE.as_secs()))
            .set("PAYWRIGHT_PROVIDER_TIMEOUT", &format!("{}s", PROVIDER_TIMEOUT.as_secs()));
        if self.postgres_killed > 0 { options.own_cluster() } else { options }
    }

    /// Lets it blow over a world, waits for rest and asks the checker.
    ///
    /// # Errors
    /// The world cannot be driven. What it did wrong is in the report.
    pub async fn blow(&self, world: &mut World) -> Result<StormReport> {
        let mut injected = BTreeMap::new();
        self.confuse(world).await?;
        let customers = Customers::arrive(Client::of(&world.apis(), PATIENCE), self.rate);
        let mut open_at_kill = Vec::new();
        for victim in self.victims() {
            open_at_kill.push(self.kill(world, victim, &mut injected).await?);
        }
        let customers = customers.stop().await?;
        count_injected(world, &mut injected).await?;
        world.simulator.heal().await?;
        world.simulator.settings(&json!({ "latency_ms": USUAL_LATENCY.as_millis() })).await?;

        let healed = Instant::now();
        // how long it took is a figure, and that it took too long a missed bound
        let _ = world.at_rest(LEASE + REST).await;
        let to_rest = healed.elapsed();
        let (customers, unserved) = (customers.len(), unserved(customers).await?);
        // a client that never reached the service created its payment only now
        let _ = world.at_rest(LEASE + REST).await;
        world.ask_again().await;

        // Whoever hands an operation back counts an attempt. One that was settled after its first lease without that was
        // left by the dead.
        let taken_over = "SELECT count(*) FROM operations
             WHERE attempts = 0 AND idempotency_key IS NOT NULL
               AND settled_at > created_at + make_interval(secs => $1)";
        let searched = "SELECT count(*) FROM operations
             WHERE idempotency_key IS NOT NULL AND created_at < now() - interval '20 h'";
        Ok(StormReport {
            storm: self.clone(),
            open_at_kill,
            to_rest,
            customers,
            without_end: unserved.iter().filter(|end| matches!(end, Unserved::WithoutEnd)).count(),
            unexpected: unserved.into_iter().filter_map(Unserved::unexpected).collect(),
            injected,
            taken_over: sqlx::query_scalar(taken_over)
                .bind(LEASE.as_secs_f64())
                .fetch_one(&world.pool)
                .await?,
            searched: sqlx::query_scalar(searched).fetch_one(&world.pool).await?,
            findings: world.check().await?,
        })
    }

    /// Whom it kills, in which order.
    fn victims(&self) -> Vec<Victim> {
        let mut victims = [
            vec![Victim::Service; self.services_killed],
            vec![Victim::Postgres; self.postgres_killed],
            vec![Victim::Provider; self.provider_killed],
        ]
        .concat();
        victims.shuffle(&mut rand::rng());
        victims
    }

    /// Tells the provider what to do wrong. It forgets that when it is killed.
    async fn confuse(&self, world: &World) -> Result<()> {
        let rule = |fault: &str, probability: f64, delay: Duration| json!({ "match": "POST /v1/*", "fault": fault, "probability": probability, "delay_ms": delay.as_millis() });
        let rules: Vec<Value> = [
            "/v1/payment_intents",
            "/v1/payment_intents/*/capture",
            "/v1/payment_intents/*/cancel",
            "/v1/refunds",
        ]
        .iter()
        .flat_map(|path| {
            let lost = [
                rule("reset_after", self.lost, Duration::ZERO),
                rule("hang_after", self.lost, PROVIDER_TIMEOUT * 2),
                rule("late", self.late, self.late_by),
            ];
            lost.map(|mut rule| {
                rule["match"] = json!(format!("POST {path}"));
                rule
            })
        })
        .collect();
        // each once for certain, and then by chance
        let certain = ["reset_after", "late"].map(|fault| {
            json!({ "match": "POST /v1/payment_intents", "fault": fault, "probability": 1, "times": 1,
                    "delay_ms": self.late_by.as_millis() })
        });
        world.simulator.faults(&json!([certain.to_vec(), rules].concat())).await?;
        let settings = json!({
            "latency_ms": self.latency.as_millis(), "key_retention_ms": FORGOTTEN_AFTER.as_millis(),
        });
        world.simulator.settings(&settings).await
    }

    /// Kills somebody at a moment when enough is open, and starts it again. Says how much was open.
    async fn kill(
        &self,
        world: &mut World,
        victim: Victim,
        injected: &mut BTreeMap<String, u64>,
    ) -> Result<i64> {
        let pause = rand::rng().random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        age(world).await?;
        let began = Instant::now();
        let open = loop {
            let open = world.open_operations().await?;
            if open >= self.open {
                break open;
            }
            anyhow::ensure!(began.elapsed() < OPEN_BOUND, "only {open} operations are open: raise the rate");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        match victim {
            Victim::Service => {
                let service = rand::rng().random_range(0..self.services);
                world.stack.service(service)?.kill().await?;
                world.stack.restart_service(service).await?;
            }
            Victim::Postgres => world.stack.restart_postgres().await?,
            Victim::Provider => {
                count_injected(world, injected).await?;
                world.stack.restart_simulator().await?;
                self.confuse(world).await?;
            }
        }
        Ok(open)
    }
}

/// Waits for all customers, and says who was not served.
async fn unserved(mut customers: JoinSet<Result<(), Unserved>>) -> Result<Vec<Unserved>> {
    let until = tokio::time::Instant::now() + TOLD;
    let mut unserved = Vec::new();
    while let Ok(Some(served)) = tokio::time::timeout_at(until, customers.join_next()).await {
        unserved.extend(served.context("a customer broke down")?.err());
    }
    unserved.extend(std::iter::repeat_with(|| Unserved::WithoutEnd).take(customers.len()));
    Ok(unserved)
}

/// Makes what has been open for long look as old as what the provider may have forgotten.
async fn age(world: &World) -> Result<()> {
    sqlx::query(
        "UPDATE operations SET created_at = created_at - interval '25 h'
         WHERE settled_at IS NULL AND idempotency_key IS NOT NULL
           AND created_at BETWEEN now() - interval '1 h' AND now() - make_interval(secs => $1)",
    )
    .bind(AGED_AFTER.as_secs_f64())
    .execute(&world.pool)
    .await?;
    Ok(())
}

/// Adds up what the provider did wrong: it starts to count anew when it is killed.
async fn count_injected(world: &World, injected: &mut BTreeMap<String, u64>) -> Result<()> {
    let ledger = world.simulator.ledger().await?;
    for (fault, count) in ledger["injected"].as_object().into_iter().flatten() {
        *injected.entry(fault.clone()).or_default() += count.as_u64().unwrap_or(0);
    }
    Ok(())
}

/// Customers that come at their own pace, whether the services keep up or not.
struct Customers {
    stop: oneshot::Sender<()>,
    task: JoinHandle<JoinSet<Result<(), Unserved>>>,
}

impl Customers {
    fn arrive(client: Client, rate: f64) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut customers = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
            loop {
                tokio::select! {
                    _ = &mut stopped => return customers,
                    _ = ticks.tick() => {}
                }
                let client = client.clone();
                customers.spawn(async move { client.serve_customer().await });
            }
        });
        Self { stop, task }
    }

    /// No new ones; those that are there go on.
    async fn stop(self) -> Result<JoinSet<Result<(), Unserved>>> {
        drop(self.stop);
        self.task.await.context("no customers came")
    }
}

impl StormReport {
    /// The figures and their bounds.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let Storm { services_killed, postgres_killed, provider_killed, least, .. } = self.storm;
        let mut figures = Figures::default();
        let mut open = self.open_at_kill.clone();
        open.sort_unstable();
        figures.tell("PAYWRIGHT_LEASE", format_args!("{LEASE:?}"));
        figures.tell("PAYWRIGHT_PROVIDER_TIMEOUT", format_args!("{PROVIDER_TIMEOUT:?}"));
        figures.tell("services", self.storm.services);
        figures.exactly("kills", open.len(), services_killed + postgres_killed + provider_killed);
        figures.tell("of a service", services_killed);
        figures.tell("of PostgreSQL", postgres_killed);
        figures.tell("of the provider", provider_killed);
        figures.at_least("open at a kill, least", open.first().copied().unwrap_or(0), self.storm.open);
        figures.tell("open at a kill, median", open.get(open.len() / 2).copied().unwrap_or(0));
        figures.tell("customers", self.customers);
        figures.exactly("customers whose request found no end", self.without_end, 0);
        figures.exactly("customers told what cannot be", self.unexpected.len(), 0);
        if let Some(first) = self.unexpected.first() {
            figures.tell("the first of them", first);
        }
        figures.at_least("attempts of clients", self.findings.attempts, least.attempts);
        let injected = |fault: &str| self.injected.get(fault).copied().unwrap_or(0);
        let lost = injected("reset_after") + injected("hang_after");
        figures.at_least("answers lost after the provider executed", lost, least.lost);
        figures.at_least("requests executed late", injected("late"), 1);
        figures.at_least("operations taken over from the dead", self.taken_over, least.taken_over);
        figures.tell("operations whose key the provider may have forgotten", self.searched);
        let bound = LEASE + REST;
        let to_rest = format!("{:.1} s", self.to_rest.as_secs_f64());
        figures.bound("time to rest", to_rest, format_args!("at most {bound:?}"), self.to_rest <= bound);
        figures.findings(&self.findings);
        figures
    }
}
