//! Killing services under load while the provider loses answers, and what the clients remember of it.

use crate::{Api, Audit, Client, Figures, Profile, World, WorldOptions};
use anyhow::{Context, Result};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

/// Short, so that a storm ends soon. It must exceed the provider's timeout by 5 s.
const LEASE: Duration = Duration::from_secs(8);
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(2);
/// What is allowed beyond the lease until everything is settled.
const REST: Duration = Duration::from_secs(30);
/// How long a client insists: through several leases, and longer than everything may take to come to rest.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long it may take until enough is open for the next kill.
const OPEN_BOUND: Duration = Duration::from_secs(30);
/// Between two kills, in milliseconds, beside the time that the restart takes.
const PAUSE_MS: std::ops::Range<u64> = 0..1000;
/// How many keys are asked for at once in the end.
const AT_ONCE: usize = 32;

/// How hard it blows.
#[derive(Debug, Clone)]
pub struct Storm {
    /// How often a service is killed.
    pub kills: usize,
    /// How many services there are.
    pub services: usize,
    /// So many operations are open at the moment of each kill.
    pub open: i64,
    /// New payments per second.
    pub rate: f64,
    /// What the provider takes for an answer. Rate and latency make what is open.
    pub latency: Duration,
    /// The probability that the provider charges and resets the connection.
    pub reset_after: f64,
    /// The probability that it resets the connection and charges later.
    pub late: f64,
    /// How much later.
    pub late_by: Duration,
}

impl Default for Storm {
    fn default() -> Self {
        Self {
            kills: 100,
            services: 2,
            open: 20,
            rate: 80.0,
            latency: Duration::from_millis(400),
            reset_after: 0.10,
            late: 0.02,
            late_by: Duration::from_millis(1500),
        }
    }
}

/// What a storm left, by three witnesses: the database, the provider's ledger and the clients' memory.
#[derive(Debug)]
pub struct StormReport {
    storm: Storm,
    open_at_kill: Vec<i64>,
    to_rest: Duration,
    clients: usize,
    answers: usize,
    broken: usize,
    resets: u64,
    lates: u64,
    take_overs: i64,
    longest: f64,
    violations: Violations,
    audit: Audit,
}

/// Where the clients' memory contradicts what was promised, or the ledger.
#[derive(Debug, Default)]
struct Violations {
    without_settled_answer: usize,
    unexpected: usize,
    first_unexpected: Option<String>,
    different_answers: usize,
    different_payments: usize,
    wrong_outcome: usize,
    failed_with_money: usize,
    not_charged_once: usize,
}

impl Storm {
    /// The world that it needs.
    #[must_use]
    pub fn world(&self, profile: Profile) -> WorldOptions {
        WorldOptions::default()
            .instances(self.services)
            .profile(profile)
            .set("PAYWRIGHT_LEASE", &format!("{}s", LEASE.as_secs()))
            .set("PAYWRIGHT_PROVIDER_TIMEOUT", &format!("{}s", PROVIDER_TIMEOUT.as_secs()))
    }

    /// Lets it blow over a world, waits for rest and asks all witnesses.
    ///
    /// # Errors
    /// The world cannot be driven. What it did wrong is in the report.
    pub async fn blow(&self, world: &mut World) -> Result<StormReport> {
        world.simulator.settings(&json!({ "latency_ms": self.latency.as_millis() })).await?;
        world.simulator.faults(&self.faults()).await?;
        let apis = world.apis();
        let creators = Creators::start(apis.clone(), self.rate);
        let mut open_at_kill = Vec::with_capacity(self.kills);
        for _ in 0..self.kills {
            open_at_kill.push(self.kill_one(world).await?);
        }
        let clients = creators.stop().await?;
        world.simulator.heal().await?;

        let healed = Instant::now();
        // how long it took is a figure, and that it took too long a missed bound
        let _ = world.at_rest(LEASE + REST).await;
        let to_rest = healed.elapsed();
        let clients = remember(clients.join_all().await, &apis).await;
        // a client that never reached the service created its payment only now
        world.at_rest(LEASE + REST).await?;
        self.report(world, &clients, open_at_kill, to_rest).await
    }

    fn faults(&self) -> Value {
        let create = "POST /v1/payment_intents";
        json!([
            // each once for certain, and then by chance
            { "match": create, "fault": "reset_after", "probability": 1, "times": 1 },
            { "match": create, "fault": "late", "probability": 1, "times": 1, "delay_ms": self.late_by.as_millis() },
            { "match": create, "fault": "reset_after", "probability": self.reset_after },
            // rules are drawn in order: what the first one took is missing here
            { "match": create, "fault": "late", "probability": self.late / (1.0 - self.reset_after),
              "delay_ms": self.late_by.as_millis() },
        ])
    }

    /// Kills a service at a moment when enough is open, and starts it again. Says how much was open.
    async fn kill_one(&self, world: &mut World) -> Result<i64> {
        let pause = rand::rng().random_range(PAUSE_MS);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let victim = rand::rng().random_range(0..self.services);
        let began = Instant::now();
        let open = loop {
            let open = world.open_operations().await?;
            if open >= self.open {
                break open;
            }
            anyhow::ensure!(began.elapsed() < OPEN_BOUND, "only {open} operations are open: raise the rate");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        world.stack.service(victim)?.kill().await?;
        world.stack.restart_service(victim).await?;
        Ok(open)
    }

    async fn report(
        &self,
        world: &World,
        clients: &[Client],
        open_at_kill: Vec<i64>,
        to_rest: Duration,
    ) -> Result<StormReport> {
        let ledger = world.simulator.ledger().await?;
        // Whoever hands an operation back counts an attempt. One that was settled after its first lease without that was
        // left by the dead.
        let take_overs = sqlx::query_scalar(
            "SELECT count(*) FROM operations
             WHERE attempts = 0 AND settled_at > created_at + make_interval(secs => $1)",
        );
        let longest =
            "SELECT COALESCE(EXTRACT(EPOCH FROM max(settled_at - created_at)), 0)::float8 FROM operations";
        Ok(StormReport {
            storm: self.clone(),
            open_at_kill,
            to_rest,
            clients: clients.len(),
            answers: clients.iter().map(|client| client.answers.len()).sum(),
            broken: clients.iter().map(|client| client.broken).sum(),
            resets: ledger["injected"]["reset_after"].as_u64().unwrap_or(0),
            lates: ledger["injected"]["late"].as_u64().unwrap_or(0),
            take_overs: take_overs.bind(LEASE.as_secs_f64()).fetch_one(&world.pool).await?,
            longest: sqlx::query_scalar(longest).fetch_one(&world.pool).await?,
            violations: Violations::of(clients, &ledger),
            audit: Audit::of(&ledger, &world.pool).await?,
        })
    }
}

/// Clients that come at their own pace, whether the services keep up or not.
struct Creators {
    stop: oneshot::Sender<()>,
    task: JoinHandle<JoinSet<Client>>,
}

impl Creators {
    fn start(apis: Vec<Api>, rate: f64) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
            loop {
                tokio::select! {
                    _ = &mut stopped => return clients,
                    _ = ticks.tick() => {}
                }
                let apis = apis.clone();
                clients.spawn(async move {
                    let mut client = Client::default();
                    client.insist(&apis, PATIENCE).await;
                    client
                });
            }
        });
        Self { stop, task }
    }

    /// No new clients; those that are there go on.
    async fn stop(self) -> Result<JoinSet<Client>> {
        drop(self.stop);
        self.task.await.context("the creators ended early")
    }
}

/// Every client asks once more, after rest, and must hear what it heard before.
async fn remember(clients: Vec<Client>, apis: &[Api]) -> Vec<Client> {
    let mut remembered = Vec::with_capacity(clients.len());
    let mut clients = clients.into_iter();
    loop {
        let mut asking = JoinSet::new();
        for (mut client, api) in clients.by_ref().take(AT_ONCE).zip(apis.iter().cycle().cloned()) {
            asking.spawn(async move {
                client.ask(&api).await;
                client
            });
        }
        if asking.is_empty() {
            return remembered;
        }
        remembered.extend(asking.join_all().await);
    }
}

impl Violations {
    fn of(clients: &[Client], ledger: &Value) -> Self {
        let mut charges: HashMap<&str, Vec<&Value>> = HashMap::new();
        for charge in ledger["charges"].as_array().into_iter().flatten() {
            charges.entry(charge["payment_id"].as_str().unwrap_or_default()).or_default().push(charge);
        }
        let mut found = Self::default();
        for client in clients {
            found.judge(client, &charges);
        }
        found
    }

    fn judge(&mut self, client: &Client, charges: &HashMap<&str, Vec<&Value>>) {
        let charges_of = |payment: &Value| {
            let charges = payment["id"].as_str().and_then(|id| charges.get(id));
            charges.map_or(&[][..], Vec::as_slice)
        };
        self.without_settled_answer += usize::from(client.settled().next().is_none());
        for answer in client.unexpected() {
            self.unexpected += 1;
            self.first_unexpected.get_or_insert_with(|| format!("{} {}", answer.status, answer.json()));
        }
        let mut settled = client.settled();
        if let Some(first) = settled.next() {
            let is_same = settled.all(|other| {
                (other.status, &other.body) == (first.status, &first.body)
                    && other.header("location") == first.header("location")
            });
            self.different_answers += usize::from(!is_same);
        }
        let wanted = if client.has_declined_card() { 402 } else { 201 };
        self.wrong_outcome += usize::from(client.settled().any(|answer| answer.status != wanted));
        let shown: Vec<Value> = client.payments().collect();
        self.different_payments += usize::from(shown.iter().any(|payment| payment["id"] != shown[0]["id"]));
        let holds = |charge: &&Value| charge["status"] != "canceled";
        let failed =
            shown.iter().find(|payment| payment["status"] == "failed" || payment["status"] == "canceled");
        if let Some(failed) = failed {
            self.failed_with_money += usize::from(charges_of(failed).iter().any(holds));
        }
        if let Some(answer) = client.settled().find(|answer| answer.status == 201) {
            let payment = answer.json();
            let charges = charges_of(&payment);
            let is_once = charges.len() == 1
                && charges.iter().all(holds)
                && charges[0]["amount_captured"] == *client.amount()
                && payment["amount_captured"] == *client.amount();
            self.not_charged_once += usize::from(!is_once);
        }
    }
}

impl StormReport {
    /// The figures and their bounds.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        let mut open = self.open_at_kill.clone();
        open.sort_unstable();
        figures.tell("PAYWRIGHT_LEASE", format_args!("{LEASE:?}"));
        figures.tell("PAYWRIGHT_PROVIDER_TIMEOUT", format_args!("{PROVIDER_TIMEOUT:?}"));
        figures.tell("services", self.storm.services);
        figures.exactly("kills", open.len(), self.storm.kills);
        figures.at_least("open at a kill, least", open.first().copied().unwrap_or(0), self.storm.open);
        figures.tell("open at a kill, median", open.get(open.len() / 2).copied().unwrap_or(0));
        figures.tell("clients", self.clients);
        figures.tell("answers they got", self.answers);
        figures.tell("connections that broke on them", self.broken);
        figures.at_least("provider charged and reset", self.resets, 1);
        figures.at_least("provider reset and charged later", self.lates, 1);
        figures.at_least("operations taken over from the dead", self.take_overs, 1);
        figures.tell("longest from creation to settlement", format_args!("{:.1} s", self.longest));
        let bound = LEASE + REST;
        let to_rest = format!("{:.1} s", self.to_rest.as_secs_f64());
        figures.bound("time to rest", to_rest, format_args!("at most {bound:?}"), self.to_rest <= bound);
        let violations = &self.violations;
        figures.exactly("clients without a settled answer", violations.without_settled_answer, 0);
        figures.exactly("answers that were not to be expected", violations.unexpected, 0);
        if let Some(first) = &violations.first_unexpected {
            figures.tell("the first of them", first);
        }
        figures.exactly("keys with different settled answers", violations.different_answers, 0);
        figures.exactly("keys with more than one payment", violations.different_payments, 0);
        figures.exactly("good cards declined, or bad ones charged", violations.wrong_outcome, 0);
        figures.exactly("told failed, holds money", violations.failed_with_money, 0);
        figures.exactly("told 201, not charged once", violations.not_charged_once, 0);
        figures.audit(&self.audit);
        figures
    }
}
