//! The provider simulator's control surface.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

/// A running simulator.
#[derive(Debug, Clone)]
pub struct Simulator {
    url: String,
    http: reqwest::Client,
}

impl Simulator {
    /// The simulator at `url`.
    #[must_use]
    pub fn at(url: &str, http: reqwest::Client) -> Self {
        Self { url: url.to_owned(), http }
    }

    /// Replaces all faults.
    ///
    /// # Errors
    /// The simulator does not take them.
    pub async fn faults(&self, rules: &Value) -> Result<()> {
        self.put("faults", rules).await
    }

    /// One fault for the creation of intents, so many times (`None`: always).
    ///
    /// # Errors
    /// The simulator does not take it.
    pub async fn create_fault(&self, fault: &str, times: Option<u64>, delay_ms: u64) -> Result<()> {
        self.fault("POST /v1/payment_intents", fault, times, delay_ms).await
    }

    /// One fault for an endpoint, such as `POST /v1/refunds`, so many times (`None`: always).
    ///
    /// # Errors
    /// The simulator does not take it.
    pub async fn fault(&self, endpoint: &str, fault: &str, times: Option<u64>, delay_ms: u64) -> Result<()> {
        self.faults(&json!([{
            "match": endpoint, "fault": fault, "probability": 1, "times": times, "delay_ms": delay_ms,
        }]))
        .await
    }

    /// No more faults.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn heal(&self) -> Result<()> {
        self.faults(&json!([])).await
    }

    /// Changes settings.
    ///
    /// # Errors
    /// The simulator does not take them.
    pub async fn settings(&self, settings: &Value) -> Result<()> {
        self.put("settings", settings).await
    }

    async fn put(&self, what: &str, body: &Value) -> Result<()> {
        let answer = self.http.put(format!("{}/_sim/{what}", self.url)).json(body).send().await?;
        ensure!(answer.status().is_success(), "the simulator refuses {body}: {}", answer.text().await?);
        Ok(())
    }

    /// The whole ledger.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn ledger(&self) -> Result<Value> {
        Ok(self
            .http
            .get(format!("{}/_sim/ledger", self.url))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// How many charges hold or moved money.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn charges(&self) -> Result<usize> {
        Ok(self.ledger().await?["charges"].as_array().map_or(0, Vec::len))
    }

    /// How often an endpoint was called, `POST /v1/payment_intents` for example.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn calls(&self, endpoint: &str) -> Result<u64> {
        Ok(self.ledger().await?["calls"][endpoint].as_u64().unwrap_or(0))
    }

    /// How often a fault was injected.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn injected(&self, fault: &str) -> Result<u64> {
        Ok(self.ledger().await?["injected"][fault].as_u64().unwrap_or(0))
    }

    /// Ends a refund, or takes one back that had succeeded: `succeed`, `fail` or `cancel`.
    ///
    /// # Errors
    /// The simulator refuses.
    pub async fn complete_refund(&self, refund: &str, outcome: &str) -> Result<()> {
        let url = format!("{}/_sim/refunds/{refund}/complete", self.url);
        let answer = self.http.post(url).json(&json!({ "outcome": outcome })).send().await?;
        ensure!(answer.status().is_success(), "{refund} cannot {outcome}: {}", answer.text().await?);
        Ok(())
    }

    /// The provider's id of a refund of ours.
    ///
    /// # Errors
    /// The simulator does not answer, or has no such refund.
    pub async fn refund_of(&self, refund_id: &str) -> Result<String> {
        let ledger = self.ledger().await?;
        let refunds = ledger["charges"].as_array().into_iter().flatten();
        let mut refunds = refunds.flat_map(|charge| charge["refunds"].as_array().into_iter().flatten());
        let ours = refunds.find(|refund| refund["refund_id"] == refund_id);
        Ok(ours
            .and_then(|refund| refund["id"].as_str())
            .context("no such refund at the provider")?
            .to_owned())
    }

    /// Ends an intent that waits, as the customer or the network would: `succeed` or `fail`.
    ///
    /// # Errors
    /// The simulator refuses.
    pub async fn complete(&self, intent: &str, outcome: &str) -> Result<()> {
        let url = format!("{}/_sim/payment_intents/{intent}/complete", self.url);
        let answer = self.http.post(url).json(&json!({ "outcome": outcome })).send().await?;
        ensure!(answer.status().is_success(), "{intent} cannot {outcome}: {}", answer.text().await?);
        Ok(())
    }

    /// The intents of a payment: id and status.
    ///
    /// # Errors
    /// The simulator does not answer.
    pub async fn intents_of(&self, payment: &str) -> Result<Vec<(String, String)>> {
        let ledger = self.ledger().await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let intents = ledger["intents"].as_array().into_iter().flatten();
        let theirs = intents.filter(|intent| intent["payment_id"] == payment);
        Ok(theirs.map(|intent| (text(&intent["payment_intent"]), text(&intent["status"]))).collect())
    }

    /// A request of its own to the protocol that the service speaks.
    pub fn post(&self, path: &str, form: &str) -> reqwest::RequestBuilder {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth("sk_test_devstack");
        request.header("Content-Type", "application/x-www-form-urlencoded").body(form.to_owned())
    }
}
