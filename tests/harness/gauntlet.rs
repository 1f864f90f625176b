//! The checker is checked: one short run that contains every case in which a careless program loses or doubles money. The
//! program as it is passes; with any of the planted bugs it is caught.

use crate::{Api, Client, Findings, Profile, Rule, World, WorldOptions, eventually, payment};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::{Duration, Instant};

/// Short, so that a run is. It must exceed the provider's timeout by 5 s.
const LEASE: Duration = Duration::from_millis(5500);
const PROVIDER_TIMEOUT: Duration = Duration::from_millis(400);
/// How long a client insists.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it may take after the end of a lease until somebody has finished what was left.
const TAKEN_OVER: Duration = Duration::from_secs(2);
/// How much later a request arrives that is late.
const LATE: Duration = Duration::from_secs(1);
/// How long something may take that is about to happen.
const SOON: Duration = Duration::from_secs(10);

/// A rule that is not kept.
#[derive(Debug, Clone, Copy)]
pub struct Planted {
    /// What it is called.
    pub name: &'static str,
    /// The rule of the checker that must find it.
    pub found_by: Rule,
    how: How,
    /// Where the process dies that is to die.
    dies: &'static str,
}

/// The provider has charged, and nobody has written that down.
const CHARGED: &str = "after /v1/payment_intents";

#[derive(Debug, Clone, Copy)]
enum How {
    /// The program is told to: `domain::faults::Bug` says what is wrong.
    Program,
    /// So often only.
    Times(u8),
    /// The schema lacks something.
    Schema(&'static str),
}

impl Planted {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::schema(
            "key not unique",
            Rule::OneAnswer,
            "ALTER TABLE operations DROP CONSTRAINT operations_idempotency_key,
                 ADD CONSTRAINT operations_idempotency_key UNIQUE (merchant_id, idempotency_key, operation_id)",
        ),
        Self::schema(
            "reference not unique",
            Rule::OneLivingPayment,
            "ALTER TABLE payments DROP CONSTRAINT payments_live_reference_key",
        ),
        Self::program("failed on timeout", Rule::FailureHoldsNothing),
        Self::program("absence is proof", Rule::FailureHoldsNothing),
        Self::program("no provider key", Rule::OneCharge),
        Self::program("new key on retry", Rule::OneCharge),
        // the commit fails once; if it never came, nothing would ever end, which is another bug
        Self { name: "answer before commit", found_by: Rule::OneAnswer, how: How::Times(1), dies: CHARGED },
        Self::program("refund without guard", Rule::RefundsWithinCaptures),
        Self {
            dies: "before record event",
            ..Self::program("event outside transaction", Rule::WholeTrail)
        },
        Self::program("lease ignored", Rule::OneCharge),
        Self::program("fingerprint ignored", Rule::OneAnswer),
        Self::program("wrong amount on capture", Rule::SuccessIsCharged),
        Self::program("posts instead of looking", Rule::OneCharge),
    ];

    const fn program(name: &'static str, found_by: Rule) -> Self {
        Self { name, found_by, how: How::Program, dies: CHARGED }
    }

    const fn schema(name: &'static str, found_by: Rule, statement: &'static str) -> Self {
        Self { name, found_by, how: How::Schema(statement), dies: CHARGED }
    }

    /// What the program is told.
    fn fail_points(&self) -> String {
        match self.how {
            How::Program => format!("{}=return;", self.name),
            How::Times(times) => format!("{}={times}*return;", self.name),
            How::Schema(_) => String::new(),
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    /// What the checker says.
    pub findings: Findings,
    /// How long it took until that, the start of the processes included.
    pub took: Duration,
}

/// Runs the program with a bug, or as it is.
///
/// # Errors
/// The run did not contain what it is meant to contain, so it does not count.
pub async fn gauntlet(bug: Option<Planted>) -> Result<Run> {
    let began = Instant::now();
    let points = bug.map(|bug| bug.fail_points()).unwrap_or_default();
    let mut world = options(&points).start().await?;
    if let Some(Planted { how: How::Schema(statement), .. }) = bug {
        sqlx::query(statement).execute(&world.pool).await?;
    }
    let client = Client::of(std::slice::from_ref(&world.api), PATIENCE);

    crash(&mut world, &points, bug.map_or(CHARGED, |bug| bug.dies)).await?;
    let paused_at = Instant::now();
    // just before it sends, for longer than its lease
    let (paused, answer) = pause(&mut world, &points, "before /v1/payment_intents").await?;
    let answers = tokio::join!(refunds(&world.api, &client), keys(&world.api, &client));
    answers.0?;
    lost_answers(&world, &client).await?;

    // Whoever needs its key has its answer by now, and what was late has arrived ...
    let settled = "SELECT count(*) = 0 FROM operations
                   WHERE settled_at IS NULL AND idempotency_key NOT IN ('crashed', 'paused')";
    let arrived = "SELECT created_at < now() - make_interval(secs => 2 * $1) FROM operations WHERE idempotency_key = 'late'";
    let _ = eventually(PATIENCE, "the others settled", async || {
        let is_settled: bool = sqlx::query_scalar(settled).fetch_one(&world.pool).await?;
        let has_arrived = sqlx::query_scalar(arrived).bind(LATE.as_secs_f64()).fetch_one(&world.pool).await?;
        Ok(is_settled && has_arrived)
    })
    .await;
    // ... so that the provider may forget every key, as if a day had passed, before anybody takes over from the dead
    world.simulator.settings(&json!({ "key_retention_ms": 1 })).await?;
    let due =
        "UPDATE operations SET lease_until = now() WHERE settled_at IS NULL AND idempotency_key = 'crashed'";
    sqlx::query(due).execute(&world.pool).await?;
    // a bug may leave something open for ever
    let left = (paused_at + LEASE + TAKEN_OVER).saturating_duration_since(Instant::now());
    let _ = world.at_rest(left).await;
    world.stack.service(paused)?.resume()?;
    tokio::time::timeout(SOON, answer).await??;
    world.ask_again().await;

    let run = Run { findings: world.check().await?, took: began.elapsed() };
    world.stop().await?;
    Ok(run)
}

/// A process dies after the provider has charged, and before anybody has written that down. By the time somebody takes
/// over, the provider may have forgotten the key.
async fn crash(world: &mut World, points: &str, dies: &str) -> Result<()> {
    let points = format!("{points}{dies}=1*return(abort)");
    let service = world.stack.add_service(&[("FAILPOINTS".to_owned(), points)].into()).await?;
    let answer = world.api_of(service)?.create("crashed", &payment("crashed")).await;
    ensure!(answer.is_err(), "the service lives: {answer:?}");
    ensure!(world.simulator.charges().await? == 1, "nothing was charged before the crash");
    sqlx::query("UPDATE operations SET created_at = created_at - interval '25 h'")
        .execute(&world.pool)
        .await?;
    Ok(())
}

/// A process is told to stand still at a point, and gets there.
async fn pause(
    world: &mut World,
    points: &str,
    point: &str,
) -> Result<(usize, impl Future<Output = Result<()>> + use<>)> {
    let points = format!("{points}{point}=1*return(stop)");
    let service = world.stack.add_service(&[("FAILPOINTS".to_owned(), points)].into()).await?;
    let api = world.api_of(service)?;
    let asked = tokio::spawn(async move { api.create("paused", &payment("paused")).await.map(drop) });
    let process = format!("/proc/{}/stat", world.stack.service(service)?.pid());
    eventually(SOON, "the process stands still", async || {
        let stat = std::fs::read_to_string(&process)?;
        Ok(stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
    })
    .await?;
    Ok((service, async { asked.await? }))
}

/// A process stands still at a point for longer than its lease. Another finishes what it held; then it goes on, and must
/// change nothing.
///
/// # Errors
/// It does not stand still, or nobody takes over.
pub async fn paused(point: &str) -> Result<Findings> {
    let mut world = options("").start().await?;
    let (service, answer) = pause(&mut world, "", point).await?;
    let settled =
        "SELECT count(*) = 1 FROM operations WHERE settled_at IS NOT NULL AND idempotency_key = 'paused'";
    eventually(LEASE + SOON, "another has finished it", async || {
        Ok(sqlx::query_scalar(settled).fetch_one(&world.pool).await?)
    })
    .await?;
    world.stack.service(service)?.resume()?;
    answer.await?;
    world.ask_again().await;
    let findings = world.check().await?;
    world.stop().await?;
    Ok(findings)
}

fn options(points: &str) -> WorldOptions {
    WorldOptions::default()
        .profile(Profile::Proof)
        .set("PAYWRIGHT_LEASE", &format!("{}ms", LEASE.as_millis()))
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", &format!("{}ms", PROVIDER_TIMEOUT.as_millis()))
        .set("PAYWRIGHT_SYNC_WAIT", "1s")
        .set("FAILPOINTS", points)
}

/// Two refunds at once that are too much together, and one that is clicked twice.
async fn refunds(api: &Api, client: &Client) -> Result<()> {
    let mut body = payment("refunded");
    body["amount"] = json!(1000);
    let Some(paid) = client.insist("/v1/payments", "refunded", &body).await else { return Ok(()) };
    ensure!(paid.status == 201, "{}", paid.json());
    let path = format!("{}/refunds", paid.header("location"));
    let ask = async |key: &str, amount: u32| client.insist(&path, key, &json!({ "amount": amount })).await;
    tokio::join!(ask("refund-1", 600), ask("refund-2", 600));
    // what is told here is for the checker to judge
    let click = async || _ = api.post(&path, "refund-3", &json!({ "amount": 10 })).await;
    tokio::join!(click(), click());
    Ok(())
}

/// One order under two keys, one key for two orders, and a part that is captured.
async fn keys(api: &Api, client: &Client) {
    let order = payment("one-order");
    let click = async |key: &str| _ = client.insist("/v1/payments", key, &order).await;
    tokio::join!(click("till-1"), click("till-2"));

    let (mut small, mut large) = (payment("small"), payment("large"));
    (small["amount"], large["amount"]) = (json!(100), json!(10_000));
    client.insist("/v1/payments", "one-key", &small).await;
    _ = api.create("one-key", &large).await;

    let mut held = payment("held");
    held["capture"] = json!("manual");
    if let Some(held) = client.insist("/v1/payments", "held", &held).await {
        let path = format!("{}/capture", held.header("location"));
        client.insist(&path, "part", &json!({ "amount": 300 })).await;
    }
}

/// The provider charges and loses the answer; or loses the request, and finds it again.
async fn lost_answers(world: &World, client: &Client) -> Result<()> {
    for (fault, delay) in [("reset_after", Duration::ZERO), ("late", LATE)] {
        let delay = u64::try_from(delay.as_millis())?;
        world.simulator.create_fault(fault, Some(1), delay).await?;
        client.insist("/v1/payments", fault, &payment(fault)).await;
        ensure!(world.simulator.injected(fault).await? == 1, "{fault} was not injected");
    }
    Ok(())
}
