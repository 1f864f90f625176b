//! Simultaneous creates of what may exist once.

use crate::{Answer, Api, Figures, Findings, World, payment};
use anyhow::{Result, ensure};
use serde_json::Value;
use sqlx::Row;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What the callers of a round have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contest {
    /// The same request with the same key: a client that repeats itself.
    OneKey,
    /// Different keys, and the same order: two tills, or a client that lost its key.
    OneReference,
}

/// What the callers were answered, and what is left of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RaceReport {
    /// Rounds that were run.
    pub rounds: usize,
    /// 201 of whoever was first.
    pub created: usize,
    /// 201 that repeated a stored answer.
    pub replayed: usize,
    /// 409 `request_in_progress`.
    pub in_progress: usize,
    /// 409 `reference_already_used`.
    pub reference_used: usize,
    /// Answers that nobody is promised here, and the first of them.
    pub unexpected: usize,
    first_unexpected: Option<String>,
    /// 201 of a round that differ from its first, byte for byte.
    pub different: usize,
    /// Rounds without exactly one payment in the database.
    pub not_one_payment: usize,
    /// Rounds without exactly one charge in the provider's ledger.
    pub not_one_charge: usize,
    findings: Findings,
}

/// How often the ledger is read, which is long after a while.
const ROUNDS_PER_CHECK: usize = 50;

/// Runs `rounds` rounds of `callers` simultaneous creates, spread over all services.
///
/// # Errors
/// A connection breaks, or the two witnesses do not answer. What the callers are answered is in the report.
pub async fn race(world: &World, contest: Contest, rounds: usize, callers: usize) -> Result<RaceReport> {
    let apis = world.apis();
    ensure!(apis.len() > 1, "a race between processes needs two of them");
    let mut report = RaceReport { rounds, ..RaceReport::default() };
    let mut unchecked = Vec::new();
    for round in 1..=rounds {
        let reference = format!("race-{}", Uuid::new_v4());
        let answers = simultaneously(&apis, contest, &reference, callers).await?;
        report.count(contest, &answers);
        unchecked.push(reference);
        if round % ROUNDS_PER_CHECK == 0 || round == rounds {
            report.check(world, &std::mem::take(&mut unchecked)).await?;
        }
    }
    report.findings = world.check().await?;
    Ok(report)
}

/// The answers to one round.
async fn simultaneously(
    apis: &[Api],
    contest: Contest,
    reference: &str,
    callers: usize,
) -> Result<Vec<Answer>> {
    let start = Arc::new(Barrier::new(callers));
    let mut tasks = JoinSet::new();
    for (caller, api) in (0..callers).zip(apis.iter().cycle()) {
        let (api, start, body) = (api.clone(), Arc::clone(&start), payment(reference));
        let key = match contest {
            Contest::OneKey => reference.to_owned(),
            Contest::OneReference => format!("{reference}-{caller}"),
        };
        tasks.spawn(async move {
            start.wait().await;
            api.create(&key, &body).await
        });
    }
    tasks.join_all().await.into_iter().collect()
}

impl RaceReport {
    fn count(&mut self, contest: Contest, answers: &[Answer]) {
        let mut created = answers.iter().filter(|answer| answer.status == 201);
        let first = created.next();
        self.different += first.map_or(0, |first| created.filter(|other| other.body != first.body).count());
        let id = first.map(|first| first.json()["id"].clone()).unwrap_or_default();
        for answer in answers {
            let count = match (answer.status, answer.code().as_str(), contest) {
                (201, _, _) if answer.header("idempotent-replayed").is_empty() => &mut self.created,
                (201, _, Contest::OneKey) => &mut self.replayed,
                (409, "request_in_progress", Contest::OneKey) if is_number(answer.header("retry-after")) => {
                    &mut self.in_progress
                }
                (409, "reference_already_used", Contest::OneReference) if names(answer, &id) => {
                    &mut self.reference_used
                }
                _ => {
                    self.first_unexpected
                        .get_or_insert_with(|| format!("{} {}", answer.status, answer.json()));
                    &mut self.unexpected
                }
            };
            *count += 1;
        }
    }

    /// Counts what the rounds left in the database and at the provider.
    async fn check(&mut self, world: &World, references: &[String]) -> Result<()> {
        let mut charges: HashMap<String, usize> = HashMap::new();
        for charge in world.simulator.ledger().await?["charges"].as_array().into_iter().flatten() {
            *charges.entry(charge["payment_id"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let rows = sqlx::query("SELECT reference, payment_id::text FROM payments WHERE reference = ANY($1)")
            .bind(references)
            .fetch_all(&world.pool)
            .await?;
        let mut payments: HashMap<String, Vec<String>> = HashMap::new();
        for row in rows {
            payments.entry(row.get(0)).or_default().push(row.get(1));
        }
        for reference in references {
            let payments = payments.get(reference).map_or(&[][..], Vec::as_slice);
            let charged: usize = payments.iter().filter_map(|id| charges.get(id)).sum();
            self.not_one_payment += usize::from(payments.len() != 1);
            self.not_one_charge += usize::from(charged != 1);
        }
        Ok(())
    }

    /// The figures and their bounds.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        figures.tell("rounds", self.rounds);
        figures.exactly("201, the first of a round", self.created, self.rounds);
        figures.tell("201, repeated", self.replayed);
        figures.tell("409 request_in_progress", self.in_progress);
        figures.tell("409 reference_already_used", self.reference_used);
        figures.exactly("other answers", self.unexpected, 0);
        if let Some(first) = &self.first_unexpected {
            figures.tell("the first of them", first);
        }
        figures.exactly("201 with other bytes than the first", self.different, 0);
        figures.exactly("rounds without exactly one payment", self.not_one_payment, 0);
        figures.exactly("rounds without exactly one charge", self.not_one_charge, 0);
        figures.findings(&self.findings);
        figures
    }
}

fn is_number(header: &str) -> bool {
    header.parse::<u32>().is_ok()
}

/// Whether a refusal says which payment has the reference.
fn names(answer: &Answer, id: &Value) -> bool {
    id.as_str().is_some_and(|text| answer.header("location") == format!("/v1/payments/{text}"))
        && answer.json()["payment_id"] == *id
}
