//! What callers are told: the JSON of a payment, and the answer that an operation ends in.
//!
//! The answer is rendered once, when the operation settles, and stored. Whoever settles it, the first request or a worker
//! in another process, renders it here, and whoever asks again gets the stored bytes.

use crate::http::error::{Code, Problem};
use domain::id::TraceId;
use domain::payment::{Payment, PendingOperation, Status};
use persistence::idempotency::StoredAnswer;
use serde::Serialize;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use uuid::Uuid;

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// The present, to the microsecond: what the database can keep.
#[must_use]
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

/// RFC 3339, UTC, six digits of fraction.
#[must_use]
pub fn rfc3339(at: OffsetDateTime) -> String {
    at.to_offset(time::UtcOffset::UTC).format(&TIME).unwrap_or_default()
}

/// Where a payment can be read.
#[must_use]
pub fn payment_location(payment: &Payment) -> String {
    format!("/v1/payments/{}", payment.id)
}

/// A payment as callers see it. Every field is always there.
#[derive(Debug, Serialize)]
pub struct PaymentBody<'a> {
    id: Uuid,
    reference: &'a str,
    status: &'static str,
    pending_operation: Option<&'static str>,
    amount: i64,
    amount_captured: i64,
    amount_refunded: i64,
    currency: &'static str,
    capture: &'static str,
    payment_method: &'a str,
    description: Option<&'a str>,
    customer: CustomerBody<'a>,
    statement_descriptor: Option<&'a str>,
    return_url: Option<&'a str>,
    metadata: BTreeMap<&'a str, &'a str>,
    failure: Option<FailureBody<'a>>,
    next_action: Option<NextActionBody<'a>>,
    created_at: String,
    updated_at: String,
}

#[derive(Debug, Serialize)]
struct CustomerBody<'a> {
    name: Option<&'a str>,
    email: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct FailureBody<'a> {
    code: &'a str,
    message: &'a str,
    decline_code: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct NextActionBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    redirect_url: &'a str,
}

impl<'a> From<&'a Payment> for PaymentBody<'a> {
    fn from(payment: &'a Payment) -> Self {
        let request = &payment.request;
        Self {
            id: payment.id.0,
            reference: request.reference.as_str(),
            status: payment.state.status().name(),
            pending_operation: payment.state.pending().map(PendingOperation::name),
            amount: request.money.amount().get(),
            amount_captured: payment.state.amount_captured(),
            amount_refunded: payment.amount_refunded,
            currency: request.money.currency().code(),
            capture: request.capture.name(),
            payment_method: request.payment_method.as_str(),
            description: request.description.as_ref().map(domain::text::Description::as_str),
            customer: CustomerBody {
                name: request.customer.name.as_ref().map(domain::text::PersonName::as_str),
                email: request.customer.email.as_ref().map(domain::text::Email::as_str),
            },
            statement_descriptor: request
                .statement_descriptor
                .as_ref()
                .map(domain::text::StatementDescriptor::as_str),
            return_url: request.return_url.as_ref().map(domain::text::ReturnUrl::as_str),
            metadata: request.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            failure: payment.failure.as_ref().map(|failure| FailureBody {
                code: &failure.code,
                message: &failure.message,
                decline_code: failure.decline_code.as_deref(),
            }),
            next_action: payment
                .redirect_url
                .as_deref()
                .map(|redirect_url| NextActionBody { kind: "redirect", redirect_url }),
            created_at: rfc3339(payment.created_at),
            updated_at: rfc3339(payment.updated_at),
        }
    }
}

/// The answer that a create ends in: 201 with the payment, or 402 with the payment inside of a problem.
///
/// # Errors
/// A value that cannot be written as JSON: a fault of this program.
pub fn created(payment: &Payment, trace_id: TraceId) -> Result<StoredAnswer, serde_json::Error> {
    let body = PaymentBody::from(payment);
    if payment.state.status() != Status::Failed {
        return Ok(StoredAnswer {
            status: 201,
            location: Some(payment_location(payment)),
            body: serde_json::to_vec(&body)?,
        });
    }
    let detail = payment.failure.as_ref().map_or("The payment was declined.", |failure| &failure.message);
    let problem =
        Problem::new(Code::PaymentDeclined, detail.to_owned()).with("payment", serde_json::to_value(&body)?);
    Ok(StoredAnswer { status: 402, location: None, body: problem.body(&trace_id.to_string()) })
}
