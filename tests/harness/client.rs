//! Customers and their merchant's client, which does not give up.

use crate::{Answer, Api, payment};
use rand::Rng;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Between two requests of one client, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 100..400;
/// The share of payments that the provider declines.
const DECLINED: f64 = 0.1;
const DECLINED_CARD: &str = "pm_card_visa_chargeDeclined";

/// What becomes of a payment.
#[derive(Debug, Clone, Copy)]
enum Story {
    /// It is paid.
    Pay,
    /// It is paid, and given back in two parts, both asked for at once.
    Refund,
    /// It is held, and a part of it captured.
    Capture,
    /// It is held, and let go.
    Cancel,
    /// It is held, and captured and let go at the same moment.
    Duel,
}

/// Why a customer was not served.
#[derive(Debug)]
pub enum Unserved {
    /// A request found no end while the client was patient.
    WithoutEnd,
    /// A request had an end that it cannot have: this one.
    Unexpected(String),
}

impl Unserved {
    /// What was unexpected, if something was.
    #[must_use]
    pub fn unexpected(self) -> Option<String> {
        match self {
            Self::WithoutEnd => None,
            Self::Unexpected(what) => Some(what),
        }
    }
}

/// A merchant's client. Every answer it gets is in the [`History`](crate::History) of its [`Api`].
#[derive(Debug, Clone)]
pub struct Client {
    apis: Vec<Api>,
    patience: Duration,
}

impl Client {
    /// A client that asks any of the services, and insists for so long on each of its requests.
    #[must_use]
    pub fn of(apis: &[Api], patience: Duration) -> Self {
        Self { apis: apis.to_vec(), patience }
    }

    /// Lives through one customer's story.
    ///
    /// # Errors
    /// A request found no end, or one that it cannot have.
    pub async fn serve_customer(&self) -> Result<(), Unserved> {
        let story = match rand::rng().random_range(0..10) {
            0..5 => Story::Pay,
            5 | 6 => Story::Refund,
            7 => Story::Capture,
            8 => Story::Cancel,
            _ => Story::Duel,
        };
        let amount: i64 = rand::rng().random_range(100..10_000);
        let mut body = payment(&format!("order-{}", Uuid::new_v4()));
        body["amount"] = json!(amount);
        let is_declined = rand::rng().random_bool(DECLINED);
        if is_declined {
            body["payment_method"] = json!(DECLINED_CARD);
        }
        if !matches!(story, Story::Pay | Story::Refund) {
            body["capture"] = json!("manual");
        }
        // a charge that was closed before the provider executed it has failed, too
        let ends: &[u16] = if is_declined { &[402] } else { &[201, 402] };
        let created = self.settle("/v1/payments", &body, ends).await?;
        if created.status != 201 {
            return Ok(());
        }
        let path = created.header("location").to_owned();
        let ask = async |verb: &str, body: Value, ends: &[u16]| {
            self.settle(&format!("{path}/{verb}"), &body, ends).await.map(drop)
        };
        match story {
            Story::Pay => Ok(()),
            Story::Refund => {
                // together they may be too much: then one of them is refused
                let part = |_| json!({ "amount": rand::rng().random_range(amount / 3..=amount * 2 / 3) });
                let [one, other] = [(), ()].map(part);
                let ends = &[201, 422];
                let (one, other) = tokio::join!(ask("refunds", one, ends), ask("refunds", other, ends));
                one.and(other)
            }
            Story::Capture => {
                let part = json!({ "amount": rand::rng().random_range(1..=amount) });
                ask("capture", part, &[200]).await
            }
            Story::Cancel => ask("cancel", json!({}), &[200]).await,
            Story::Duel => {
                let ends = &[200, 409];
                let (capture, cancel) =
                    tokio::join!(ask("capture", json!({}), ends), ask("cancel", json!({}), ends));
                capture.and(cancel)
            }
        }
    }

    /// Insists on a request with a new key until it has one of these ends.
    async fn settle(&self, path: &str, body: &Value, ends: &[u16]) -> Result<Answer, Unserved> {
        match self.insist(path, &new_key(), body).await {
            None => Err(Unserved::WithoutEnd),
            Some(answer) if ends.contains(&answer.status) => Ok(answer),
            Some(answer) => Err(Unserved::Unexpected(format!("{path}: {} {}", answer.status, answer.json()))),
        }
    }

    /// Asks as a good client does: broken connections, 5xx, 202 and 409 `request_in_progress` are repeated with the same
    /// key, at any of the services, until the answer is settled. `None`: patience is over.
    pub async fn insist(&self, path: &str, key: &str, body: &Value) -> Option<Answer> {
        let began = Instant::now();
        while began.elapsed() < self.patience {
            let api = &self.apis[rand::rng().random_range(0..self.apis.len())];
            match api.post(path, key, body).await {
                Ok(answer) if !Api::is_worth_repeating(&answer) => return Some(answer),
                _ => {
                    let pause = rand::rng().random_range(PAUSE_MS);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
            }
        }
        None
    }
}

fn new_key() -> String {
    Uuid::new_v4().to_string()
}
