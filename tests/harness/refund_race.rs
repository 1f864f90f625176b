//! Simultaneous refunds of one payment: together they take what there is, and nothing beyond it.

use crate::{Answer, Api, Figures, World, payment};
use anyhow::{Context, Result, ensure};
use rand::Rng;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What was captured, in minor units, for each two of the callers.
const SMALL: i64 = 10;
const LARGE: i64 = 70;
/// Longer than anything takes that was begun.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the callers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundContest {
    /// All the same; exactly half of them fit.
    Equal,
    /// Small ones and large ones.
    Mixed,
    /// All the same, while three of ten answers of the provider are lost.
    LostAnswers,
}

/// Captures `5 x callers` and lets the callers refund 10 each (or 10 and 70 mixed), spread over all services.
///
/// # Errors
/// A connection breaks, or a witness does not answer. What went wrong is in the figures.
pub async fn refund_race(world: &World, contest: RefundContest, callers: usize) -> Result<Figures> {
    let apis = world.apis();
    ensure!(apis.len() > 1, "a race between processes needs two of them");
    let whole = i64::try_from(callers)? * SMALL / 2;
    let reference = format!("refunds-{}", Uuid::new_v4());
    let mut body = payment(&reference);
    body["amount"] = json!(whole);
    let created = world.api.create(&reference, &body).await?;
    ensure!(created.json()["status"] == "captured", "{}", created.json());
    let path = created.header("location").to_owned();
    if contest == RefundContest::LostAnswers {
        // one for certain, and then by chance
        let lost = json!([
            { "match": "POST /v1/refunds", "fault": "reset_after", "probability": 1, "times": 1 },
            { "match": "POST /v1/refunds", "fault": "reset_after", "probability": 0.3 },
        ]);
        world.simulator.faults(&lost).await?;
    }
    let answers = simultaneously(&apis, contest, &path, callers).await?;
    world.simulator.heal().await?;
    world.at_rest(PATIENCE).await?;

    let (mut succeeded, mut refused, mut unexpected, mut sum) = (0, 0, 0, 0);
    for (amount, answer) in &answers {
        match (answer.status, answer.code().as_str()) {
            (201, _) => {
                succeeded += 1;
                sum += amount;
            }
            (422, "refund_amount_too_large") | (409, "payment_state_conflict") => refused += 1,
            _ => unexpected += 1,
        }
    }
    let payment = world.api.get(&path).await?.json();
    let ledger = world.simulator.ledger().await?;
    let entries = ledger["entries"].as_array().context("entries")?;
    let ours = |entry: &&Value| entry["kind"] == "refund" && entry["payment_id"] == payment["id"];
    let at_the_provider: i64 = entries.iter().filter(ours).filter_map(|entry| entry["amount"].as_i64()).sum();

    let mut figures = Figures::default();
    figures.tell("callers", callers);
    figures.tell("captured", whole);
    match contest {
        RefundContest::Mixed => {
            figures.tell("201", succeeded);
            figures.tell("422 or 409", refused);
            // nothing is left that one of the refused could still take
            let least =
                answers.iter().filter(|(_, answer)| answer.status == 422).map(|(amount, _)| *amount).min();
            figures.at_least(
                "refunded, so that no refused one would fit",
                sum,
                whole - least.unwrap_or(1) + 1,
            );
            figures.at_most("refunded", sum, whole);
        }
        RefundContest::Equal | RefundContest::LostAnswers => {
            figures.exactly("201", succeeded, callers / 2);
            figures.exactly("422 or 409", refused, callers - callers / 2);
            figures.exactly("refunded", sum, whole);
        }
    }
    figures.exactly("other answers", unexpected, 0);
    figures.exactly("amount_refunded of the payment", payment["amount_refunded"].as_i64().unwrap_or(-1), sum);
    figures.exactly("sum of the ledger's entries", at_the_provider, sum);
    if contest == RefundContest::LostAnswers {
        figures.at_least("answers lost", world.simulator.injected("reset_after").await?, 1);
    }
    figures.findings(&world.check().await?);
    Ok(figures)
}

/// Every caller's amount and its settled answer.
async fn simultaneously(
    apis: &[Api],
    contest: RefundContest,
    path: &str,
    callers: usize,
) -> Result<Vec<(i64, Answer)>> {
    let start = Arc::new(Barrier::new(callers));
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let (api, start) = (apis[caller % apis.len()].clone(), Arc::clone(&start));
        let refunds = format!("{path}/refunds");
        let amount = if contest == RefundContest::Mixed && caller % 3 == 0 { LARGE } else { SMALL };
        tasks.spawn(async move {
            let key = Uuid::new_v4().to_string();
            start.wait().await;
            loop {
                let answer = api.post(&refunds, &key, &json!({ "amount": amount })).await?;
                if !Api::is_worth_repeating(&answer) {
                    return anyhow::Ok((amount, answer));
                }
                let pause = rand::rng().random_range(50..200);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        });
    }
    let mut answers = Vec::new();
    while let Some(answer) = tasks.join_next().await {
        answers.push(answer??);
    }
    Ok(answers)
}
