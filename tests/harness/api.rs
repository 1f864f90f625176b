//! A merchant's view of the service.

use crate::History;
use anyhow::Result;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A request that moves money is given up after this: longer than the service takes to answer any, `Prefer: wait=30`
/// included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(40);

/// A service, as a merchant with a key sees it.
#[derive(Debug, Clone)]
pub struct Api {
    /// The base URL.
    pub url: String,
    /// The merchant's key.
    pub key: String,
    /// Shared connections.
    pub http: reqwest::Client,
    /// What the world's clients remember of their attempts to move money.
    pub history: History,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header; empty if it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A problem's code; empty if it is none.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// A problem's field errors: place and code.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<String, String> {
        let body = self.json();
        let place = |error: &Value| {
            ["pointer", "parameter", "header"]
                .iter()
                .find_map(|place| error[place].as_str())
                .map(str::to_owned)
        };
        let errors = body["errors"].as_array().into_iter().flatten();
        errors
            .map(|error| {
                (place(error).unwrap_or_default(), error["code"].as_str().unwrap_or_default().to_owned())
            })
            .collect()
    }

    async fn read(response: reqwest::Response) -> Result<Self> {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        Ok(Self { status, headers, body: response.bytes().await?.to_vec() })
    }
}

/// The least that a payment needs.
#[must_use]
pub fn payment(reference: &str) -> Value {
    json!({ "amount": 1999, "currency": "EUR", "reference": reference, "payment_method": "pm_card_visa" })
}

impl Api {
    /// A request with the merchant's key and nothing else.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.key)
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer> {
        Answer::read(request.send().await?).await
    }

    /// Reads a path.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(self.request(Method::GET, path)).await
    }

    /// Creates a payment.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn create(&self, key: &str, body: &Value) -> Result<Answer> {
        self.create_preferring(key, body, None).await
    }

    /// Creates a payment with a `Prefer` header.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn create_preferring(&self, key: &str, body: &Value, prefer: Option<&str>) -> Result<Answer> {
        self.attempt("/v1/payments", key, body, prefer).await
    }

    /// Asks for something to be done to a payment: a POST to a path, with a key and a body.
    ///
    /// # Errors
    /// The connection breaks.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer> {
        self.attempt(path, key, body, None).await
    }

    /// Sends a POST that moves money, and remembers what came of it.
    async fn attempt(&self, path: &str, key: &str, body: &Value, prefer: Option<&str>) -> Result<Answer> {
        let mut request = self.money_post(path, key).timeout(REQUEST_TIMEOUT).json(body);
        if let Some(prefer) = prefer {
            request = request.header("Prefer", prefer);
        }
        let answer = self.send(request).await;
        self.history.remember(&self.key, path, key, body, answer.as_ref().ok());
        answer
    }

    /// A POST that moves money, without a body so far.
    pub fn money_post(&self, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.request(Method::POST, path).header("Idempotency-Key", key)
    }

    /// The same merchant at another service.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// Whether an answer is one that a client repeats with the same key.
    #[must_use]
    pub fn is_worth_repeating(answer: &Answer) -> bool {
        answer.status == StatusCode::ACCEPTED.as_u16()
            || answer.status >= 500
            || answer.status == 429
            || answer.code() == "request_in_progress"
    }
}
