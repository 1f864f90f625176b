//! The audit trail: what it says about a change beside its type, and reading it.

use crate::span::Traced;
use crate::{Store, StoreError};
use domain::id::{EventId, MerchantId, PaymentId, TraceId};
use domain::payment::{NewPayment, Payment, PendingOperation, Status, Transition};
use domain::provider::Failure;
use domain::refund::{Refund, RefundStatus};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// An entry of the audit trail, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Its id.
    pub id: EventId,
    /// The payment it is about.
    pub payment_id: PaymentId,
    /// From 1, without gaps.
    pub sequence: i32,
    /// What happened: see [`domain::event::EventType`]. A release that was rolled back reads types it does not know.
    pub kind: String,
    /// When, by the clock of the process that wrote it, and never before the event before it.
    pub occurred_at: OffsetDateTime,
    /// The trace of the request that asked for it.
    pub trace_id: TraceId,
    /// Who asked: see [`domain::event::Actor`].
    pub actor: String,
    /// What else there is to say.
    pub data: Value,
}

impl Store {
    /// At most `limit` events of a payment, oldest first, after the one with the sequence `after`.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn list_events(
        &self,
        merchant_id: MerchantId,
        payment_id: PaymentId,
        after: i32,
        limit: i64,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        let rows = sqlx::query!(
            "SELECT event_id, sequence, type AS kind, occurred_at, trace_id, actor, data FROM events
             WHERE merchant_id = $1 AND payment_id = $2 AND sequence > $3 ORDER BY sequence LIMIT $4",
            merchant_id.0,
            payment_id.0,
            after,
            limit,
        )
        .fetch_all(&self.pool)
        .traced("list events")
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(RecordedEvent {
                    id: EventId(row.event_id),
                    payment_id,
                    sequence: row.sequence,
                    kind: row.kind,
                    occurred_at: row.occurred_at,
                    trace_id: TraceId::from_uuid(row.trace_id)
                        .ok_or(StoreError::Unreadable("events.trace_id"))?,
                    actor: row.actor,
                    data: row.data,
                })
            })
            .collect()
    }
}

/// Of `payment.created`.
pub(crate) fn created(request: &NewPayment) -> Value {
    json!({
        "amount": request.money.amount().get(),
        "currency": request.money.currency().code(),
        "capture": request.capture.name(),
    })
}

/// Of a capture or cancel that was asked for.
pub(crate) fn requested(step: &Transition) -> Value {
    match step.to().pending() {
        Some(PendingOperation::Capture(amount)) => json!({ "amount": amount.get() }),
        Some(PendingOperation::Cancel) | None => json!({}),
    }
}

/// Of a change that led to `payment`, or of what failed and changed nothing.
pub(crate) fn changed(payment: &Payment, failure: Option<&Failure>) -> Value {
    match (payment.state.status(), failure) {
        (_, Some(reason)) => json!({ "failure": failure_of(reason) }),
        (Status::Captured, None) => json!({ "amount_captured": payment.state.amount_captured() }),
        (Status::Authorized, None) => json!({ "amount": payment.request.money.amount().get() }),
        _ => json!({}),
    }
}

/// Of a refund that was asked for, or came to an end.
pub(crate) fn refunded(refund: &Refund) -> Value {
    let mut data = json!({ "refund_id": refund.id.to_string(), "amount": refund.money.amount().get() });
    if let (RefundStatus::Failed, Some(failure), Some(object)) =
        (refund.status, &refund.failure, data.as_object_mut())
    {
        object.insert("failure".to_owned(), failure_of(failure));
    }
    data
}

fn failure_of(failure: &Failure) -> Value {
    json!({ "code": failure.code, "message": failure.message, "decline_code": failure.decline_code })
}
