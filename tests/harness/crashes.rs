//! Crashes at every point: before and after each statement and each call that changes state, in everything that moves
//! money, at the first try, at a retry, and when somebody takes over from the dead.

use crate::{Client, Findings, Profile, World, WorldOptions, eventually, payment};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often a process is asked whether it lives.
const POLL: Duration = Duration::from_millis(50);
/// How long something may take that is about to happen.
const SOON: Duration = Duration::from_secs(20);
/// What the provider takes: longer than a caller waits, so that callers repeat their requests while work goes on.
const LATENCY: Duration = Duration::from_millis(300);
const SYNC_WAIT: Duration = Duration::from_millis(100);

/// Statements that change state and that nobody dies at here, and why.
pub const SPARED: [(&str, &str); 4] = [
    ("keep operation", "only prolongs the lease of whoever searches, which changes nothing else"),
    ("keep reconciliation", "only prolongs the lease of a comparison, which changes nothing else"),
    ("keep serving", "only prolongs what others are told while a caller waits"),
    ("record contradiction", "ends nothing: a person has to look, and the next look records it"),
];
const CLAIM: &str = "claim operation";
const ACKNOWLEDGE: &str = "acknowledge operation";
const LEASE: &str = "lease operation";
const PAUSE: &str = "pause operation";
const CHARGE: &str = "/v1/payment_intents";
const LEASE_COMPARISON: &str = "lease reconciliation";

/// What moves money.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// A payment is created and charged.
    Create,
    /// A charge that was never executed is closed when its window has passed.
    Close,
    /// A held payment is captured.
    Capture,
    /// A held payment is canceled.
    Cancel,
    /// A captured payment is refunded.
    Refund,
    /// A captured payment is no longer watched.
    WatchPayment,
    /// A refund is no longer watched.
    WatchRefund,
    /// Provider and database are compared.
    Reconcile,
}

/// Who is at the point when the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circumstance {
    /// Whoever got the request, at the first attempt.
    FirstTry,
    /// The same process, at the second attempt or when the caller repeats itself.
    Retry,
    /// Another process, after the one before it died with the effect at the provider.
    TakeOver,
}

impl Flow {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Create,
        Self::Close,
        Self::Capture,
        Self::Cancel,
        Self::Refund,
        Self::WatchPayment,
        Self::WatchRefund,
        Self::Reconcile,
    ];

    /// What is called to change something at the provider.
    const fn calls(self) -> &'static [&'static str] {
        match self {
            Self::Create => &[CHARGE],
            Self::Close => &[CHARGE, "/v1/payment_intents/{id}/cancel"],
            Self::Capture => &["/v1/payment_intents/{id}/capture"],
            Self::Cancel => &["/v1/payment_intents/{id}/cancel"],
            Self::Refund => &["/v1/refunds"],
            Self::WatchPayment | Self::WatchRefund | Self::Reconcile => &[],
        }
    }

    /// The first thing that is done to it, after which the first process dies that somebody takes over from.
    fn begins_with(self) -> &'static str {
        match (self, self.calls()) {
            (Self::Reconcile, _) => LEASE_COMPARISON,
            (_, [call, ..]) => call,
            _ => LEASE,
        }
    }

    const fn settles(self) -> &'static str {
        match self {
            Self::Refund => "settle refund",
            _ => "settle payment",
        }
    }

    /// Everything that it passes in a circumstance.
    fn passes(self, circumstance: Circumstance) -> Vec<&'static str> {
        match self {
            // it ends with the first look
            Self::WatchPayment | Self::WatchRefund if circumstance == Circumstance::Retry => {
                return Vec::new();
            }
            Self::WatchPayment | Self::WatchRefund => return vec![LEASE, "end watch"],
            Self::Reconcile => return vec![LEASE_COMPARISON, "end reconciliation"],
            _ => {}
        }
        let mut passed = vec![self.settles(), PAUSE];
        passed.extend(self.calls());
        match (self, circumstance) {
            // what is closed was claimed long before
            (Self::Close, _) => {}
            (_, Circumstance::FirstTry) => passed.extend([CLAIM, ACKNOWLEDGE]),
            // whoever repeats this claims again; a capture or cancel that is under way is found before that
            (Self::Create | Self::Refund, _) => passed.push(CLAIM),
            _ => {}
        }
        if circumstance != Circumstance::FirstTry || self == Self::Close {
            passed.push(LEASE);
        }
        passed
    }
}

/// A place to die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// In what.
    pub flow: Flow,
    /// Who is there.
    pub circumstance: Circumstance,
    /// `before` or `after`.
    pub when: &'static str,
    /// The statement, or the call.
    pub point: &'static str,
}

impl Crash {
    /// Every place there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for flow in Flow::ALL {
            for circumstance in [Circumstance::FirstTry, Circumstance::Retry, Circumstance::TakeOver] {
                for point in flow.passes(circumstance) {
                    for when in ["before", "after"] {
                        all.push(Self { flow, circumstance, when, point });
                    }
                }
            }
        }
        all
    }

    /// What the process is told that is to die here.
    fn fail_point(self) -> String {
        // the first try passes by, where a retry is to die
        let is_passed_at_first = match self.flow {
            Flow::Reconcile => true,
            flow => [CLAIM, PAUSE].contains(&self.point) || flow.begins_with() == self.point,
        };
        let passes = self.circumstance == Circumstance::Retry && is_passed_at_first;
        format!("{} {}={}1*return(abort)", self.when, self.point, if passes { "1*off->" } else { "" })
    }

    /// How many answers the provider loses on the way: one before every pause.
    fn lost_answers(self) -> usize {
        usize::from(self.circumstance == Circumstance::Retry) + usize::from(self.point == PAUSE)
    }
}

/// A program that dies where it is told to, is started again, and finds what it left.
pub struct Mortal {
    world: World,
}

impl Mortal {
    /// Starts it.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn start() -> Result<Self> {
        let world = WorldOptions::default()
            .profile(Profile::Proof)
            .set("PAYWRIGHT_SYNC_WAIT", &format!("{}ms", SYNC_WAIT.as_millis()))
            .start()
            .await?;
        Ok(Self { world })
    }

    /// Dies once, comes back, and finishes.
    ///
    /// # Errors
    /// It does not die there, or what it left is not finished.
    pub async fn die(&mut self, crash: Crash) -> Result<()> {
        self.restart(Flow::Create, "").await?;
        self.world.simulator.heal().await?;
        self.world.simulator.settings(&json!({ "latency_ms": 0 })).await?;
        let (path, body) = self.prepare(crash.flow).await?;
        self.world.simulator.settings(&json!({ "latency_ms": LATENCY.as_millis() })).await?;
        let key = format!("{crash:?}").replace(' ', "");
        if crash.flow == Flow::Close {
            self.leave_to_be_closed(&path, &key, &body).await?;
        }
        let client = Client::of(std::slice::from_ref(&self.world.api), SOON);
        let flow = crash.flow;
        // whoever is asked is to die
        self.world.stack.service(0)?.kill().await?;
        let asking = tokio::spawn(async move {
            match flow {
                Flow::WatchPayment | Flow::WatchRefund | Flow::Reconcile => None,
                _ => client.insist(&path, &key, &body).await,
            }
        });
        if crash.circumstance == Circumstance::TakeOver {
            let first = format!("after {}=1*return(abort)", flow.begins_with());
            self.live_and_die(flow, &first).await.context("the first did not die")?;
        }
        self.lose_answers(crash).await?;
        self.live_and_die(flow, &crash.fail_point()).await?;
        self.world.simulator.heal().await?;
        self.restart(flow, "").await?;
        let answer = asking.await?;
        let wanted = match flow {
            Flow::Create | Flow::Refund => Some(201),
            Flow::Close => Some(402),
            Flow::Capture | Flow::Cancel => Some(200),
            Flow::WatchPayment | Flow::WatchRefund | Flow::Reconcile => None,
        };
        let status = answer.map(|answer| answer.status);
        ensure!(status == wanted, "answered {status:?} in the end");
        let world = &self.world;
        match flow {
            Flow::WatchPayment | Flow::WatchRefund => {
                let watched = "SELECT count(*) = 0 FROM operations
                               WHERE settled_at IS NULL AND created_at < now() - interval '30 days'";
                eventually(SOON, "nothing is watched", async || {
                    Ok(sqlx::query_scalar(watched).fetch_one(&world.pool).await?)
                })
                .await
            }
            Flow::Reconcile => eventually(SOON, "they are compared", async || self.rests().await).await,
            _ => Ok(()),
        }
    }

    /// What everything comes to.
    ///
    /// # Errors
    /// A witness does not answer, or something stays open.
    pub async fn end(self) -> Result<Findings> {
        self.world.at_rest(SOON).await?;
        self.world.ask_again().await;
        let findings = self.world.check().await?;
        self.world.stop().await?;
        Ok(findings)
    }

    /// What the flow begins with, and its request.
    async fn prepare(&self, flow: Flow) -> Result<(String, Value)> {
        let mut body = payment(&format!("order-{}", uuid::Uuid::new_v4()));
        if matches!(flow, Flow::Create | Flow::Close) {
            return Ok(("/v1/payments".to_owned(), body));
        }
        if matches!(flow, Flow::Capture | Flow::Cancel | Flow::WatchPayment) {
            body["capture"] = json!("manual");
        }
        let client = Client::of(std::slice::from_ref(&self.world.api), SOON);
        let reference = body["reference"].to_string().replace('"', "");
        let created = client.insist("/v1/payments", &reference, &body).await.context("a payment")?;
        ensure!(created.status == 201, "{}", created.json());
        let path = created.header("location");
        Ok(match flow {
            Flow::Capture => (format!("{path}/capture"), json!({ "amount": 999 })),
            Flow::Cancel => (format!("{path}/cancel"), json!({})),
            Flow::WatchPayment => {
                let path = format!("{path}/capture");
                let captured = client.insist(&path, &path, &json!({})).await.context("a capture")?;
                ensure!(captured.status == 200, "{}", captured.json());
                (path, json!({}))
            }
            _ => {
                let (path, body) = (format!("{path}/refunds"), json!({ "amount": 999 }));
                if flow == Flow::WatchRefund {
                    let refunded = client.insist(&path, &path, &body).await.context("a refund")?;
                    ensure!(refunded.status == 201, "{}", refunded.json());
                }
                (path, body)
            }
        })
    }

    /// A charge whose requests never arrived, and whose window has passed.
    async fn leave_to_be_closed(&mut self, path: &str, key: &str, body: &Value) -> Result<()> {
        let Self { world } = self;
        world.simulator.create_fault("reset_before", None, 0).await?;
        let answer = world.api.post(path, key, body).await?;
        ensure!(answer.status == 202, "{}", answer.json());
        world.stack.service(0)?.kill().await?;
        let statement =
            "UPDATE operations SET created_at = created_at - interval '31 min' WHERE idempotency_key = $1";
        sqlx::query(statement).bind(key).execute(&world.pool).await?;
        world.simulator.heal().await
    }

    async fn lose_answers(&self, crash: Crash) -> Result<()> {
        match (crash.lost_answers(), crash.flow.calls()) {
            (0, _) | (_, []) => Ok(()),
            (times, [call, ..]) => {
                let endpoint = format!("POST {}", call.replace("{id}", "*"));
                let times = u64::try_from(times)?;
                self.world.simulator.fault(&endpoint, "reset_after", Some(times), 0).await
            }
        }
    }

    /// Starts the program with fail points. What its predecessor held is free at once: nobody has to wait for a lease.
    async fn restart(&mut self, flow: Flow, points: &str) -> Result<()> {
        self.world.stack.service(0)?.kill().await?;
        let free = "UPDATE operations SET lease_until = now()
                    WHERE settled_at IS NULL AND idempotency_key IS NOT NULL AND lease_until > now()";
        sqlx::query(free).execute(&self.world.pool).await?;
        // nobody looks at anything else meanwhile
        let watches = "UPDATE operations SET lease_until = now() + interval '1 day'
                       WHERE settled_at IS NULL AND idempotency_key IS NULL";
        sqlx::query(watches).execute(&self.world.pool).await?;
        self.make_due(flow).await?;
        let environment = [("FAILPOINTS".to_owned(), points.to_owned())].into();
        let restarted = self.world.stack.restart_service_with(0, &environment).await;
        // it may die before it is ready
        if points.is_empty() { restarted } else { Ok(()) }
    }

    /// Makes due what nobody asked for.
    async fn make_due(&self, flow: Flow) -> Result<()> {
        let statement = match flow {
            // longer ago than anybody watches a refund
            Flow::WatchPayment | Flow::WatchRefund => {
                "UPDATE operations SET lease_until = now(), created_at = now() - interval '31 days'
                 WHERE settled_at IS NULL AND kind = $1"
            }
            Flow::Reconcile => {
                "INSERT INTO reconciliations (due_at) SELECT now() WHERE $1 <> ''
                 ON CONFLICT ON CONSTRAINT reconciliations_pkey DO UPDATE SET due_at = now()"
            }
            _ => return Ok(()),
        };
        let kind = if flow == Flow::WatchPayment { "watch_payment" } else { "watch_refund" };
        sqlx::query(statement).bind(kind).execute(&self.world.pool).await?;
        Ok(())
    }

    /// Whether a comparison has ended, and the next one is due in an hour.
    async fn rests(&self) -> Result<bool> {
        let rests = "SELECT count(*) = 1 FROM reconciliations WHERE due_at > now() + interval '30 min'";
        Ok(sqlx::query_scalar(rests).fetch_one(&self.world.pool).await?)
    }

    async fn live_and_die(&mut self, flow: Flow, points: &str) -> Result<()> {
        self.restart(flow, points).await?;
        let began = Instant::now();
        while self.world.stack.service(0)?.exited()?.is_none() {
            ensure!(began.elapsed() < SOON, "it lives, and should have died at {points}");
            if flow == Flow::Reconcile && self.rests().await? {
                self.make_due(flow).await?;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}
