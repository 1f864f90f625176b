//! A capture and a cancel of one payment at the same moment, in two processes, while the provider loses answers: one of
//! them happens, and both sides know which.

use crate::{Answer, Api, Figures, World, payment};
use anyhow::{Context, Result, ensure};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Longer than anything takes that was begun.
const PATIENCE: Duration = Duration::from_secs(90);
/// The share of answers that the provider loses, in each of the two ways.
const LOST: f64 = 0.1;

/// How one round ended: the two settled answers.
struct Round {
    payment: String,
    capture: Answer,
    cancel: Answer,
}

/// Runs `rounds` rounds, `at_once` of them at a time.
///
/// # Errors
/// A connection breaks, or a witness does not answer. What went wrong is in the figures.
pub async fn duel(world: &World, rounds: usize, at_once: usize) -> Result<Figures> {
    let apis = world.apis();
    ensure!(apis.len() > 1, "a race between processes needs two of them");
    let rule = |verb: &str, fault: &str, probability: f64, times: Option<u8>| {
        let endpoint = format!("POST /v1/payment_intents/*/{verb}");
        json!({ "match": endpoint, "fault": fault, "probability": probability, "times": times, "delay_ms": 60_000 })
    };
    // each once for certain, and then by chance
    let rules: Vec<Value> = [(1.0, Some(1)), (LOST, None)]
        .into_iter()
        .flat_map(|(probability, times)| {
            ["capture", "cancel"].into_iter().flat_map(move |verb| {
                ["hang_after", "reset_after"].map(|fault| rule(verb, fault, probability, times))
            })
        })
        .collect();
    world.simulator.faults(&json!(rules)).await?;
    let mut ended: Vec<Round> = Vec::new();
    let mut tasks = JoinSet::new();
    for round in 0..rounds {
        if tasks.len() >= at_once {
            ended.push(tasks.join_next().await.context("a round")???);
        }
        tasks.spawn(fight(apis.clone(), round));
    }
    while let Some(round) = tasks.join_next().await {
        ended.push(round??);
    }
    world.simulator.heal().await?;
    world.at_rest(PATIENCE).await?;
    judge(world, &ended).await
}

async fn fight(apis: Vec<Api>, round: usize) -> Result<Round> {
    let mut body = payment(&format!("duel-{}", Uuid::new_v4()));
    body["capture"] = json!("manual");
    let created = apis[0].create(&Uuid::new_v4().to_string(), &body).await?;
    ensure!(created.json()["status"] == "authorized", "{}", created.json());
    let path = created.header("location").to_owned();
    let start = Arc::new(Barrier::new(2));
    let ask = async |api: &Api, verb: &str| {
        let (path, key) = (format!("{path}/{verb}"), Uuid::new_v4().to_string());
        start.wait().await;
        loop {
            let answer = api.post(&path, &key, &json!({})).await?;
            if !Api::is_worth_repeating(&answer) {
                return anyhow::Ok(answer);
            }
            let pause = rand::rng().random_range(50..200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    let (one, other) = (&apis[round % apis.len()], &apis[(round + 1) % apis.len()]);
    let (capture, cancel) = tokio::join!(ask(one, "capture"), ask(other, "cancel"));
    let payment = created.json()["id"].as_str().unwrap_or_default().to_owned();
    Ok(Round { payment, capture: capture?, cancel: cancel? })
}

async fn judge(world: &World, rounds: &[Round]) -> Result<Figures> {
    let ledger = world.simulator.ledger().await?;
    let mut ends: HashMap<&str, Vec<&str>> = HashMap::new();
    for entry in ledger["entries"].as_array().into_iter().flatten() {
        if let (Some(id), Some(kind @ ("capture" | "cancel"))) =
            (entry["payment_id"].as_str(), entry["kind"].as_str())
        {
            ends.entry(id).or_default().push(kind);
        }
    }
    let (mut captured, mut canceled, mut not_one_winner, mut unexpected) = (0, 0, 0, 0);
    let (mut not_one_effect, mut states_differ) = (0, 0);
    for Round { payment, capture, cancel } in rounds {
        let lost = |answer: &Answer| answer.status == 409 && answer.code() == "payment_state_conflict";
        let status = match (capture.status, cancel.status) {
            (200, _) if lost(cancel) => "captured",
            (_, 200) if lost(capture) => "canceled",
            (200, 200) => "both",
            _ => "neither",
        };
        captured += usize::from(status == "captured");
        canceled += usize::from(status == "canceled");
        not_one_winner += usize::from(matches!(status, "both" | "neither"));
        unexpected += usize::from(![capture, cancel].iter().all(|a| a.status == 200 || lost(a)));
        let shown = world.api.get(&format!("/v1/payments/{payment}")).await?.json();
        let effects = ends.get(payment.as_str()).map_or(&[][..], Vec::as_slice);
        not_one_effect += usize::from(effects.len() != 1);
        let there = match effects {
            ["capture"] => "captured",
            ["cancel"] => "canceled",
            _ => "unknown",
        };
        states_differ += usize::from(
            shown["status"] != there
                || shown["status"] != status
                || shown["pending_operation"] != Value::Null,
        );
    }
    let mut figures = Figures::default();
    figures.tell("rounds", rounds.len());
    figures.tell("captured", captured);
    figures.tell("canceled", canceled);
    figures.exactly("rounds without exactly one winner", not_one_winner, 0);
    figures.exactly("other answers", unexpected, 0);
    figures.exactly("rounds without exactly one effect at the provider", not_one_effect, 0);
    figures.exactly("payments that are not what the provider has", states_differ, 0);
    figures.at_least("hang_after", world.simulator.injected("hang_after").await?, 1);
    figures.at_least("reset_after", world.simulator.injected("reset_after").await?, 1);
    figures.findings(&world.check().await?);
    Ok(figures)
}
