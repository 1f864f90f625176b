//! What to try first, printed when everything answers.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use devstack::Stack;

/// The guide for a stack that is up.
pub(crate) fn text(stack: &Stack) -> Result<String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    // A reference stays taken, so every start needs another.
    let reference = format!("order-1001-{seconds:x}");
    let api = stack.api_url(0)?;
    let mut text = payment(api, &stack.merchant()?.api_key, &reference);
    if stack.has_simulator() {
        text.push_str(&provider(stack.simulator_url()));
    }
    text.push_str(&format!(
        "Is it ready, and if not, why: {}/readyz   Ctrl-C stops everything.\n\n",
        stack.ops_url(0)?
    ));
    Ok(text)
}

fn payment(api: &str, api_key: &str, reference: &str) -> String {
    format!(
        r#"
Everything is up. Take a payment:

  curl -i {api}/v1/payments \
    -H 'Authorization: Bearer {api_key}' \
    -H 'Idempotency-Key: {reference}' \
    -H 'Content-Type: application/json' \
    -d '{{"amount": 1999, "currency": "EUR", "reference": "{reference}", "payment_method": "pm_card_visa"}}'

Send it again: the same answer is replayed, with `Idempotent-Replayed: true`, and nothing is charged twice.

Give 5.00 of it back, with the payment's id in place of ID:

  curl -i {api}/v1/payments/ID/refunds \
    -H 'Authorization: Bearer {api_key}' \
    -H 'Idempotency-Key: {reference}-refund' \
    -H 'Content-Type: application/json' \
    -d '{{"amount": 500}}'

Everything else it can do: {api}/docs
"#
    )
}

fn provider(simulator: &str) -> String {
    format!(
        r#"
What the provider has on its books: {simulator}/_sim/ledger

Break it: the provider charges, but its answer is lost. Then take another payment, with a new key and reference:

  curl -X PUT {simulator}/_sim/faults -d '[{{"match": "POST /v1/payment_intents", "fault": "reset_after", "probability": 1, "times": 1}}]'

"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_pasted_is_valid_json() {
        let text =
            payment("http://127.0.0.1:8080", "sk_key", "order-1") + &provider("http://127.0.0.1:12111");

        let bodies: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("-d '")?.1.strip_suffix('\'')).collect();

        assert_eq!(bodies.len(), 3);
        for body in bodies {
            serde_json::from_str::<serde_json::Value>(body).unwrap();
        }
    }
}
