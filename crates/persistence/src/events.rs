//! What the audit trail says about a change, beside its type.

use domain::payment::{NewPayment, Payment, Status};
use serde_json::{Value, json};

/// Of `payment.created`.
pub(crate) fn created(request: &NewPayment) -> Value {
    json!({
        "amount": request.money.amount().get(),
        "currency": request.money.currency().code(),
        "capture": request.capture.name(),
    })
}

/// Of a change that led to `payment`.
pub(crate) fn changed(payment: &Payment) -> Value {
    match (payment.state.status(), &payment.failure) {
        (Status::Captured, _) => json!({ "amount_captured": payment.state.amount_captured() }),
        (Status::Authorized, _) => json!({ "amount": payment.request.money.amount().get() }),
        (_, Some(failure)) => json!({
            "failure": { "code": failure.code, "message": failure.message, "decline_code": failure.decline_code },
        }),
        _ => json!({}),
    }
}
