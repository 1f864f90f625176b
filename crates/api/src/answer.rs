//! What callers are told: the JSON of payments, refunds and events, and the answer that an operation ends in.
//!
//! The answer is rendered once, when the operation settles, and stored. Whoever settles it, the first request or a worker
//! in another process, renders it here, and whoever asks again gets the stored bytes.

use crate::problem::{Code, Problem};
use crate::schema;
use domain::id::TraceId;
use domain::payment::{Metadata, Payment, PendingOperation, State, Status};
use domain::provider::Failure;
use domain::refund::{Refund, RefundReason, RefundStatus};
use persistence::events::RecordedEvent;
use persistence::idempotency::StoredAnswer;
use serde::Serialize;
use std::collections::BTreeMap;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use utoipa::ToSchema;
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

/// Where a refund can be read.
#[must_use]
pub fn refund_location(refund: &Refund) -> String {
    format!("/v1/refunds/{}", refund.id)
}

/// A payment as callers see it. Every field is always there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Payment)]
pub struct PaymentBody<'a> {
    id: Uuid,
    reference: &'a str,
    #[schema(schema_with = schema::payment_status)]
    status: &'static str,
    #[schema(schema_with = schema::pending_operation)]
    pending_operation: Option<&'static str>,
    #[schema(schema_with = schema::amount)]
    amount: i64,
    #[schema(schema_with = schema::moved)]
    amount_captured: i64,
    #[schema(schema_with = schema::moved)]
    amount_refunded: i64,
    #[schema(schema_with = schema::currency)]
    currency: &'static str,
    #[schema(schema_with = schema::capture)]
    capture: &'static str,
    payment_method: &'a str,
    description: Option<&'a str>,
    customer: CustomerBody<'a>,
    statement_descriptor: Option<&'a str>,
    return_url: Option<&'a str>,
    #[schema(schema_with = schema::metadata)]
    metadata: BTreeMap<&'a str, &'a str>,
    failure: Option<FailureBody<'a>>,
    next_action: Option<NextActionBody<'a>>,
    #[schema(schema_with = schema::time)]
    created_at: String,
    #[schema(schema_with = schema::time)]
    updated_at: String,
}

/// Whom the merchant sells to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Customer)]
struct CustomerBody<'a> {
    name: Option<&'a str>,
    email: Option<&'a str>,
}

/// Why money did not move.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Failure)]
struct FailureBody<'a> {
    code: &'a str,
    message: &'a str,
    decline_code: Option<&'a str>,
}

/// What the customer has to do before the payment goes on.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NextAction)]
struct NextActionBody<'a> {
    #[serde(rename = "type")]
    #[schema(schema_with = schema::redirect)]
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
            metadata: metadata(&request.metadata),
            failure: payment.failure.as_ref().map(FailureBody::from),
            next_action: payment
                .redirect_url
                .as_deref()
                .map(|redirect_url| NextActionBody { kind: "redirect", redirect_url }),
            created_at: rfc3339(payment.created_at),
            updated_at: rfc3339(payment.updated_at),
        }
    }
}

impl<'a> From<&'a Failure> for FailureBody<'a> {
    fn from(failure: &'a Failure) -> Self {
        Self { code: &failure.code, message: &failure.message, decline_code: failure.decline_code.as_deref() }
    }
}

fn metadata(metadata: &Metadata) -> BTreeMap<&str, &str> {
    metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// A refund as callers see it. Every field is always there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refund)]
pub struct RefundBody<'a> {
    id: Uuid,
    payment_id: Uuid,
    #[schema(schema_with = schema::amount)]
    amount: i64,
    #[schema(schema_with = schema::currency)]
    currency: &'static str,
    #[schema(schema_with = schema::reason)]
    reason: Option<&'static str>,
    #[schema(schema_with = schema::metadata)]
    metadata: BTreeMap<&'a str, &'a str>,
    #[schema(schema_with = schema::refund_status)]
    status: &'static str,
    failure: Option<FailureBody<'a>>,
    #[schema(schema_with = schema::time)]
    created_at: String,
    #[schema(schema_with = schema::time)]
    updated_at: String,
}

impl<'a> From<&'a Refund> for RefundBody<'a> {
    fn from(refund: &'a Refund) -> Self {
        Self {
            id: refund.id.0,
            payment_id: refund.payment_id.0,
            amount: refund.money.amount().get(),
            currency: refund.money.currency().code(),
            reason: refund.reason.map(RefundReason::name),
            metadata: metadata(&refund.metadata),
            status: refund.status.name(),
            failure: refund.failure.as_ref().map(FailureBody::from),
            created_at: rfc3339(refund.created_at),
            updated_at: rfc3339(refund.updated_at),
        }
    }
}

/// An entry of the audit trail as callers see it. Every field is always there.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventBody<'a> {
    id: Uuid,
    payment_id: Uuid,
    #[schema(schema_with = schema::sequence)]
    sequence: i32,
    #[serde(rename = "type")]
    #[schema(schema_with = schema::event_type)]
    kind: &'a str,
    #[schema(schema_with = schema::time)]
    occurred_at: String,
    #[schema(schema_with = schema::trace_id)]
    trace_id: String,
    #[schema(schema_with = schema::actor)]
    actor: &'a str,
    #[schema(schema_with = schema::data)]
    data: &'a serde_json::Value,
}

impl<'a> From<&'a RecordedEvent> for EventBody<'a> {
    fn from(event: &'a RecordedEvent) -> Self {
        Self {
            id: event.id.0,
            payment_id: event.payment_id.0,
            sequence: event.sequence,
            kind: &event.kind,
            occurred_at: rfc3339(event.occurred_at),
            trace_id: event.trace_id.to_string(),
            actor: &event.actor,
            data: &event.data,
        }
    }
}

/// The answer that a create ends in: 201 with the payment, or 402 with the payment inside of a problem.
///
/// # Errors
/// A value that cannot be written as JSON: a fault of this program.
pub fn created(payment: &Payment, trace_id: TraceId) -> Result<StoredAnswer, serde_json::Error> {
    match (payment.state.status(), &payment.failure) {
        (Status::Failed, Some(failure)) => declined_payment(payment, failure, trace_id),
        _ => Ok(StoredAnswer {
            status: 201,
            location: Some(payment_location(payment)),
            body: json(&PaymentBody::from(payment))?,
        }),
    }
}

/// The answer that a capture or cancel ends in: 200 with the payment if that is what happened, 402 if the provider said
/// no, 409 if it had moved on.
///
/// # Errors
/// A value that cannot be written as JSON: a fault of this program.
pub fn changed(
    asked: PendingOperation,
    payment: &Payment,
    failure: Option<&Failure>,
    trace_id: TraceId,
) -> Result<StoredAnswer, serde_json::Error> {
    let happened = match asked {
        PendingOperation::Capture(amount) => payment.state == State::Captured { amount },
        PendingOperation::Cancel => payment.state == State::Canceled,
    };
    match failure {
        _ if happened => {
            Ok(StoredAnswer { status: 200, location: None, body: json(&PaymentBody::from(payment))? })
        }
        Some(failure) => declined_payment(payment, failure, trace_id),
        None => Ok(problem(&Problem::state_conflict(payment), trace_id)),
    }
}

/// The answer that a refund ends in: 201 with the refund, or 402 with the refund inside of a problem.
///
/// # Errors
/// A value that cannot be written as JSON: a fault of this program.
pub fn refunded(refund: &Refund, trace_id: TraceId) -> Result<StoredAnswer, serde_json::Error> {
    match (refund.status, &refund.failure) {
        (RefundStatus::Failed, Some(failure)) => {
            let object = serde_json::to_value(RefundBody::from(refund))?;
            let declined = Problem::new(Code::RefundDeclined, failure.message.clone()).with("refund", object);
            Ok(problem(&declined, trace_id))
        }
        _ => Ok(StoredAnswer {
            status: 201,
            location: Some(refund_location(refund)),
            body: json(&RefundBody::from(refund))?,
        }),
    }
}

/// A capture that was declined leaves the payment as it was, so the reason is told beside it.
fn declined_payment(
    payment: &Payment,
    failure: &Failure,
    trace_id: TraceId,
) -> Result<StoredAnswer, serde_json::Error> {
    let declined = Problem::new(Code::PaymentDeclined, failure.message.clone())
        .with("payment", serde_json::to_value(PaymentBody::from(payment))?)
        .with("failure", serde_json::to_value(FailureBody::from(failure))?);
    Ok(problem(&declined, trace_id))
}

fn json(body: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    // most are as long as that, and none has to grow from nothing
    let mut json = Vec::with_capacity(1024);
    serde_json::to_writer(&mut json, body)?;
    Ok(json)
}

fn problem(problem: &Problem, trace_id: TraceId) -> StoredAnswer {
    StoredAnswer {
        status: problem.status().as_u16(),
        location: None,
        body: problem.body(&trace_id.to_string()),
    }
}
