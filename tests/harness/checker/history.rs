//! The third witness: what the clients remember of every attempt.

use crate::Answer;
use serde_json::Value;
use std::sync::{Arc, Mutex, PoisonError};

/// A request that was sent, and what came back.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The API key that it was sent with, and so the merchant.
    pub api_key: String,
    /// The idempotency key.
    pub key: String,
    /// The path it was sent to.
    pub path: String,
    /// What was asked for.
    pub body: Value,
    /// The status and the body; `None`: the connection broke first, and nobody can tell.
    pub answer: Option<(u16, Vec<u8>)>,
    /// The `Location` of the answer.
    pub location: String,
}

impl Attempt {
    /// Whether it ended what was asked for, for good: a success, or a no of the provider.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(self.answer, Some((200 | 201 | 402, _)))
    }

    /// The payment that it captures, if it is a capture.
    #[must_use]
    pub fn captures(&self) -> Option<&str> {
        self.path.strip_prefix("/v1/payments/")?.strip_suffix("/capture")
    }

    /// The object in the answer, a payment or a refund, as it was shown.
    #[must_use]
    pub fn shown(&self) -> Option<Value> {
        let (status, body) = self.answer.as_ref()?;
        let mut json: Value = serde_json::from_slice(body).ok()?;
        match status {
            200..=202 => Some(json),
            402 => Some(match json["payment"].take() {
                Value::Null => json["refund"].take(),
                payment => payment,
            }),
            _ => None,
        }
    }
}

/// Everything that a world's clients sent to move money, shared by all of them.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Vec<Attempt>>>);

impl History {
    /// Remembers an attempt and what came of it.
    pub fn remember(&self, api_key: &str, path: &str, key: &str, body: &Value, answer: Option<&Answer>) {
        let attempt = Attempt {
            api_key: api_key.to_owned(),
            key: key.to_owned(),
            path: path.to_owned(),
            body: body.clone(),
            answer: answer.map(|answer| (answer.status, answer.body.clone())),
            location: answer.map(|answer| answer.header("location").to_owned()).unwrap_or_default(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
    }

    /// Every attempt so far.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
