//! Statements as they are often written, for [`domain::faults::Bug`]. No release has them.
//!
//! Both work, as long as nobody else does anything at the same moment and no process dies.

use crate::idempotency::StoredAnswer;
use crate::operations::{Claim, Settlement};
use crate::payments::metadata_to_json;
use crate::{Store, StoreError, events};
use domain::event::EventType;
use domain::faults::{When, point};
use domain::id::EventId;
use domain::operation::{Lease, Operation, OperationKind};
use domain::payment::Payment;
use domain::provider::IntentId;
use domain::refund::{Refund, RefundReason};
use sqlx::Connection;
use std::time::{Duration, Instant};

/// Between reading what is left and writing it: long enough for another to read the same.
const BETWEEN: Duration = Duration::from_millis(300);

impl Store {
    /// [`Store::settle`] as two transactions: the change, and then its event.
    pub(crate) async fn settle_without_event(
        &self,
        operation: &Operation,
        lease: &Lease,
        settlement: &Settlement<'_>,
    ) -> Result<bool, StoreError> {
        let Settlement { payment, step, answer, failure, actor, .. } = settlement;
        let mut lent = self.pool.acquire().await?;
        let mut transaction = lent.begin().await?;
        let settled = sqlx::query(
            "UPDATE operations
             SET settled_at = now(), lease_until = 'infinity', served_until = NULL,
                 answer_status = $4, answer_location = $5, answer_body = $6
             WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3",
        )
        .bind(operation.merchant_id.0)
        .bind(operation.id.0)
        .bind(lease.token)
        .bind(answer.map(StoredAnswer::status_column).transpose()?)
        .bind(answer.and_then(|answer| answer.location.clone()))
        .bind(answer.map(|answer| answer.body.clone()))
        .execute(&mut *transaction)
        .await?;
        if settled.rows_affected() == 0 {
            return Ok(false);
        }
        let to = step.to();
        let reason = payment.failure.as_ref();
        sqlx::query(
            "UPDATE payments
             SET status = $3, pending_operation = NULL, pending_amount = NULL, amount_captured = $4,
                 live_reference = CASE WHEN $5 THEN NULL ELSE live_reference END,
                 failure_code = $6, failure_message = $7, intent_id = $8, updated_at = GREATEST(updated_at, $9)
             WHERE merchant_id = $1 AND payment_id = $2",
        )
        .bind(payment.merchant_id.0)
        .bind(payment.id.0)
        .bind(to.status().name())
        .bind(to.amount_captured())
        .bind(to.status().releases_reference())
        .bind(reason.map(|failure| failure.code.clone()))
        .bind(reason.map(|failure| failure.message.clone()))
        .bind(payment.intent.as_ref().map(|intent| IntentId::as_str(intent).to_owned()))
        .bind(payment.updated_at)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        point(When::Before, "record event");
        sqlx::query(
            "WITH counted AS (
                UPDATE payments SET last_event = last_event + 1 WHERE merchant_id = $1 AND payment_id = $2
                RETURNING last_event, updated_at
             )
             INSERT INTO events
                (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
             SELECT $1, $2, last_event, $3, $4, updated_at, substr($5, 4, 32)::uuid, $6, $7 FROM counted",
        )
        .bind(payment.merchant_id.0)
        .bind(payment.id.0)
        .bind(EventId::at(payment.updated_at).0)
        .bind(step.event().name())
        .bind(operation.trace.to_string())
        .bind(actor.to_string())
        .bind(events::changed(payment, *failure))
        .execute(&self.pool)
        .await?;
        Ok(true)
    }

    /// [`Store::claim_refund`] with a sum that was read before.
    pub(crate) async fn claim_refund_unguarded(
        &self,
        payment: &Payment,
        refund: &Refund,
        claim: &Claim<'_>,
    ) -> Result<Option<(Operation, Lease)>, StoreError> {
        tokio::time::sleep(BETWEEN).await;
        let kind = OperationKind::Refund(refund.id);
        let asked = Instant::now();
        let mut lent = self.pool.acquire().await?;
        let mut transaction = lent.begin().await?;
        let sum = payment.amount_refunded.saturating_add(refund.money.amount().get());
        sqlx::query(
            "WITH reserved AS (
                UPDATE payments SET amount_refunded = $4, last_event = last_event + 1,
                       updated_at = GREATEST(updated_at, $5)
                WHERE merchant_id = $1 AND payment_id = $2
                RETURNING last_event, updated_at
             ), created AS (
                INSERT INTO refunds
                    (merchant_id, refund_id, payment_id, amount, reason, metadata, status, created_at, updated_at)
                SELECT $1, $3, $2, $6, $7, $8, $9, $5, $5 FROM reserved
             )
             INSERT INTO events
                (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
             SELECT $1, $2, last_event, $10, $11, updated_at, substr($12, 4, 32)::uuid, $13, $14 FROM reserved",
        )
        .bind(payment.merchant_id.0)
        .bind(payment.id.0)
        .bind(refund.id.0)
        .bind(sum)
        .bind(refund.created_at)
        .bind(refund.money.amount().get())
        .bind(refund.reason.map(RefundReason::name))
        .bind(metadata_to_json(&refund.metadata))
        .bind(refund.status.name())
        .bind(EventId::at(refund.created_at).0)
        .bind(EventType::RefundCreated.name())
        .bind(claim.trace.to_string())
        .bind(claim.actor.to_string())
        .bind(events::refunded(refund))
        .execute(&mut *transaction)
        .await?;
        let written = sqlx::query_as(
            "INSERT INTO operations
                (merchant_id, operation_id, payment_id, refund_id, kind, actor, traceparent, idempotency_key,
                 fingerprint, lease_until, served_until)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10),
                     CASE WHEN $11 THEN now() + make_interval(secs => $10) END)
             ON CONFLICT ON CONSTRAINT operations_idempotency_key DO NOTHING
             RETURNING created_at, lease_until",
        )
        .bind(payment.merchant_id.0)
        .bind(claim.operation_id.0)
        .bind(payment.id.0)
        .bind(refund.id.0)
        .bind(kind.name())
        .bind(claim.actor.to_string())
        .bind(claim.trace.to_string())
        .bind(claim.key.as_str())
        .bind(claim.fingerprint.as_bytes().to_vec())
        .bind(claim.lease.as_secs_f64())
        .bind(claim.served)
        .fetch_optional(&mut *transaction)
        .await?;
        // the key is known: what was written goes with the transaction
        let Some(written) = written else { return Ok(None) };
        transaction.commit().await?;
        Ok(Some(claim.won(payment, kind, written, asked)))
    }
}
