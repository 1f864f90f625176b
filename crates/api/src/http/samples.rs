//! Bodies to show: of every problem, of every object, and of requests that work.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON object's index adds what is missing, and these are objects"
)]

use crate::problem::{Code, FieldCode, FieldError, Place, Problem};
use serde_json::{Value, json};

// ids in samples
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
pub(super) const PAYMENT: &str = "0199f0a2-7c1e-7b4a-9a53-2f6c1d5e8b10";

/// A body as callers may see it.
pub(super) fn problem(code: Code) -> Value {
    let sample = match code {
        Code::ValidationFailed => Problem::validation(vec![
            FieldError {
                place: Place::Pointer("/amount".to_owned()),
                code: FieldCode::OutOfRange,
                detail: "must be from 1 to 99999999 minor units".to_owned(),
            },
            FieldError {
                place: Place::Pointer("/reference".to_owned()),
                code: FieldCode::Required,
                detail: "must be there".to_owned(),
            },
        ]),
        Code::CaptureAmountTooLarge | Code::RefundAmountTooLarge => Problem::too_large(code, 1500),
        Code::IdempotencyKeyMissing => Problem::of_header(
            code,
            "Idempotency-Key",
            FieldCode::Required,
            "must have a value of your own, such as a UUID, and the same one when you try again",
        ),
        Code::IdempotencyKeyInvalid => {
            Problem::of_header(code, "Idempotency-Key", FieldCode::Unsupported, "must not be repeated")
        }
        Code::PaymentDeclined => Problem::new(code, "Your card was declined.")
            .with("payment", declined_payment(PAYMENT))
            .with("failure", failure()),
        Code::RefundDeclined => {
            Problem::new(code, "The charge was already refunded.").with("refund", declined_refund(PAYMENT))
        }
        Code::ReferenceAlreadyUsed => Problem::new(code, code.meaning()).with("payment_id", PAYMENT.into()),
        Code::PaymentStateConflict => {
            Problem::new(code, "The payment is canceled. Read it before you decide.")
                .with("payment_id", PAYMENT.into())
                .with("payment_status", "canceled".into())
                .with("pending_operation", Value::Null)
        }
        _ => Problem::new(code, code.meaning()),
    };
    serde_json::from_slice(&sample.body(TRACE)).unwrap_or_default()
}

fn failure() -> Value {
    json!({ "code": "card_declined", "message": "Your card was declined.", "decline_code": "generic_decline" })
}

/// A payment as callers may see it, captured.
pub(super) fn payment(id: &str) -> Value {
    json!({
        "id": id, "reference": "order-1001", "status": "captured", "pending_operation": null, "amount": 1999,
        "amount_captured": 1999, "amount_refunded": 0, "currency": "EUR", "capture": "automatic",
        "payment_method": "pm_card_visa", "description": null, "customer": { "name": null, "email": null },
        "statement_descriptor": null, "return_url": null, "metadata": {}, "failure": null, "next_action": null,
        "created_at": "2026-01-31T12:00:00.000000Z", "updated_at": "2026-01-31T12:00:00.250000Z",
    })
}

fn declined_payment(id: &str) -> Value {
    let mut payment = payment(id);
    payment["status"] = "failed".into();
    payment["amount_captured"] = 0.into();
    payment["payment_method"] = "pm_card_visa_chargeDeclined".into();
    payment["failure"] = failure();
    payment
}

/// A refund as callers may see it, succeeded.
pub(super) fn refund(payment: &str) -> Value {
    json!({
        "id": "0199f0a3-10aa-7e02-8d11-6b0c7f9e2a44", "payment_id": payment, "amount": 500, "currency": "EUR",
        "reason": "requested_by_customer", "metadata": {}, "status": "succeeded", "failure": null,
        "created_at": "2026-01-31T13:00:00.000000Z", "updated_at": "2026-01-31T13:00:00.250000Z",
    })
}

fn declined_refund(payment: &str) -> Value {
    let mut refund = refund(payment);
    let text = "The charge was already refunded.";
    refund["status"] = "failed".into();
    refund["failure"] = json!({ "code": "charge_already_refunded", "message": text, "decline_code": null });
    refund
}

/// An entry of the audit trail as callers may see it.
pub(super) fn event(payment: &str) -> Value {
    json!({
        "id": "0199f0a2-7c1e-7b4a-9a53-2f6c1d5e8b11", "payment_id": payment, "sequence": 1, "type": "payment.created",
        "occurred_at": "2026-01-31T12:00:00.000000Z", "trace_id": TRACE,
        "actor": "0199f0a0-0c3d-7d55-b2f4-9e8d7c6b5a40",
        "data": { "amount": 1999, "currency": "EUR", "capture": "automatic" },
    })
}

/// Bodies that work against the provider's test mode, and against the simulator.
pub(super) fn examples(operation: &str) -> Value {
    let example = |summary: &str, value: Value| json!({ "summary": summary, "value": value });
    let new = |reference: &str, token: &str| json!({ "amount": 1999, "currency": "EUR", "reference": reference, "payment_method": token });
    match operation {
        "create_payment" => {
            let manual = json!({
                "amount": 12_500, "currency": "USD", "reference": "order-1002", "payment_method": "pm_card_visa",
                "capture": "manual", "description": "Two nights, pay on departure",
                "customer": { "name": "Zoë Müller", "email": "zoe@example.org" }, "statement_descriptor": "HOTEL ZOE",
                "return_url": "https://shop.example/orders/1002", "metadata": { "room": "42" },
            });
            let mut action = new("order-1003", "pm_card_authenticationRequired");
            action["return_url"] = "https://shop.example/orders/1003".into();
            json!({
                "charge": example("A card that is charged at once", new("order-1001", "pm_card_visa")),
                "hold": example("Held until it is captured, with everything a payment can have", manual),
                "requires_action": example("The customer has to confirm at the bank's page", action),
                "declined": example("A card that is declined: 402", new("order-1004", "pm_card_visa_chargeDeclined")),
            })
        }
        "capture_payment" => json!({
            "all": example("All of it", json!({})),
            "part": example("A part; the rest is released", json!({ "amount": 1000 })),
        }),
        "create_refund" => json!({
            "all": example("What is left", json!({})),
            "part": example(
                "A part, and why",
                json!({ "amount": 500, "reason": "requested_by_customer", "metadata": { "ticket": "77" } }),
            ),
        }),
        _ => json!({ "all": example("There is nothing to say", json!({})) }),
    }
}
