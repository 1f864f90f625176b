//! A merchant's client that does not give up, and its memory of what it was told.

use crate::{Answer, Api, payment};
use rand::Rng;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// One request is given up after this and repeated with the same key: longer than the service takes to answer any.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two requests of one client, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 100..400;
/// The share of payments that the provider declines.
const DECLINED: f64 = 0.1;
const DECLINED_CARD: &str = "pm_card_visa_chargeDeclined";

/// A client with one payment to make, and every answer it got.
#[derive(Debug, Clone)]
pub struct Client {
    key: String,
    body: Value,
    /// Every answer, in order.
    pub answers: Vec<Answer>,
    /// Requests whose connection broke before the answer was there.
    pub broken: usize,
}

impl Default for Client {
    /// A payment of a random amount, sometimes with a card that is declined.
    fn default() -> Self {
        let mut body = payment(&format!("order-{}", Uuid::new_v4()));
        body["amount"] = json!(rand::rng().random_range(100..10_000));
        if rand::rng().random_bool(DECLINED) {
            body["payment_method"] = json!(DECLINED_CARD);
        }
        Self { key: Uuid::new_v4().to_string(), body, answers: Vec::new(), broken: 0 }
    }
}

impl Client {
    /// A payment of this amount, with a good card.
    #[must_use]
    pub fn paying(amount: u64) -> Self {
        let mut body = payment(&format!("order-{}", Uuid::new_v4()));
        body["amount"] = json!(amount);
        Self { key: Uuid::new_v4().to_string(), body, answers: Vec::new(), broken: 0 }
    }

    /// Creates the payment as a good client does: broken connections, 5xx, 202 and 409 `request_in_progress` are
    /// repeated with the same key, at any of the services, until the answer is settled or `patience` is over.
    pub async fn insist(&mut self, apis: &[Api], patience: Duration) {
        let began = Instant::now();
        while began.elapsed() < patience {
            let chosen = rand::rng().random_range(0..apis.len());
            self.ask(&apis[chosen]).await;
            if self.answers.last().is_some_and(|answer| !Api::is_worth_repeating(answer)) {
                return;
            }
            let pause = rand::rng().random_range(PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Sends the request once and remembers the answer.
    pub async fn ask(&mut self, api: &Api) {
        let request = api
            .request(reqwest::Method::POST, "/v1/payments")
            .header("Idempotency-Key", &self.key)
            .timeout(REQUEST_TIMEOUT)
            .json(&self.body);
        match api.send(request).await {
            Ok(answer) => self.answers.push(answer),
            Err(_) => self.broken += 1,
        }
    }

    /// What is to be paid.
    #[must_use]
    pub fn amount(&self) -> &Value {
        &self.body["amount"]
    }

    /// Whether the provider declines the card.
    #[must_use]
    pub fn has_declined_card(&self) -> bool {
        self.body["payment_method"] == DECLINED_CARD
    }

    /// The answers that are final.
    pub fn settled(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| matches!(answer.status, 201 | 402))
    }

    /// The payments in the answers, as they were shown.
    pub fn payments(&self) -> impl Iterator<Item = Value> {
        self.answers.iter().filter_map(|answer| match answer.status {
            201 | 202 => Some(answer.json()),
            402 => Some(answer.json()["payment"].clone()),
            _ => None,
        })
    }

    /// Answers that a create with a key of its own never gets, a fault of the service included.
    pub fn unexpected(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| {
            let is_known = matches!(answer.status, 201 | 402) || Api::is_worth_repeating(answer);
            !is_known || answer.status == 500
        })
    }
}
