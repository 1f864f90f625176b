//! Refunds: claiming, reading, listing, settling.

use crate::idempotency::StoredAnswer;
use crate::operations::{Claim, Watch, claim};
use crate::payments::{failure, metadata_from_json, metadata_to_json};
use crate::span::Traced;
use crate::{Store, StoreError, events};
use domain::event::{Actor, EventType};
#[cfg(feature = "faults")]
use domain::faults::{Bug, planted};
use domain::id::{EventId, MerchantId, PaymentId, RefundId};
use domain::money::{Amount, Currency, Money};
use domain::operation::{Lease, Operation, OperationKind};
use domain::payment::Payment;
use domain::provider::RefundObjectId;
use domain::refund::{Refund, RefundReason, RefundStatus, RefundTransition};
use std::time::Instant;
use time::OffsetDateTime;
use uuid::Uuid;

/// How an operation on a refund ends.
#[derive(Debug, Clone, Copy)]
pub struct RefundSettlement<'a> {
    /// The refund after the step.
    pub refund: &'a Refund,
    /// The step.
    pub step: &'a RefundTransition,
    /// Whom the audit trail names.
    pub actor: Actor,
    /// What whoever asked is told, ever after. A watch has none.
    pub answer: Option<&'a StoredAnswer>,
    /// The bank may send the money back: somebody has to look.
    pub watch: Option<Watch>,
}

/// A refund's columns and its payment's currency. The texts behind are the rest of the statement.
macro_rules! select_refunds {
    ($rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            RefundRow,
            "SELECT r.merchant_id, r.refund_id, r.payment_id, r.amount, p.currency, r.reason, r.metadata, r.status,
                    r.failure_code, r.failure_message, r.failure_decline_code, r.provider_refund_id, r.created_at,
                    r.updated_at
             FROM refunds r JOIN payments p
               ON p.merchant_id = r.merchant_id AND p.payment_id = r.payment_id " + $rest,
            $($argument),*
        )
    };
}

impl Store {
    /// Writes a new refund, reserves its amount on the payment and records the event, or nothing of it. `None`: the key
    /// is known.
    ///
    /// # Errors
    /// [`StoreError::StateMoved`] if the payment is not captured, or has less left than the refund takes; the database.
    pub async fn claim_refund(
        &self,
        payment: &Payment,
        refund: &Refund,
        claim: &Claim<'_>,
    ) -> Result<Option<(Operation, Lease)>, StoreError> {
        #[cfg(feature = "faults")]
        if planted(Bug::RefundWithoutGuard) {
            return self.claim_refund_unguarded(payment, refund, claim).await;
        }
        // The sum is guarded by the UPDATE of the payment's row, which others wait for and then read anew. A sub-select
        // over the refunds would see none of those that are being written.
        Ok(claim!(
            self,
            payment,
            OperationKind::Refund(refund.id),
            claim,
            "reserved AS (
                UPDATE payments
                SET amount_refunded = amount_refunded + $12, updated_at = GREATEST(updated_at, $13),
                    last_event = last_event + 1
                FROM claimed
                WHERE payments.merchant_id = $1 AND payments.payment_id = $3
                  AND status = 'captured' AND amount_refunded + $12 <= amount_captured
                RETURNING last_event, payments.updated_at
            ), created AS (
                INSERT INTO refunds
                    (merchant_id, refund_id, payment_id, amount, reason, metadata, status, created_at, updated_at)
                SELECT $1, $4, $3, $12, $14, $15, $16, $13, $13 FROM reserved
            ), recorded AS (
                INSERT INTO events
                    (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
                SELECT $1, $3, reserved.last_event, $17, $18, reserved.updated_at,
                       substr($7, 4, 32)::uuid, $6, $19
                FROM claimed LEFT JOIN reserved ON true
            )",
            refund.money.amount().get(),
            refund.created_at,
            refund.reason.map(RefundReason::name),
            metadata_to_json(&refund.metadata),
            refund.status.name(),
            EventId::at(refund.created_at).0,
            EventType::RefundCreated.name(),
            events::refunded(refund),
        ))
    }

    /// Ends an operation on a refund: its transition, its event and the answer, or nothing of it. What failed counts as
    /// refunded no longer. `false`: the lease was lost or somebody else settled it, and nothing was written.
    ///
    /// # Errors
    /// [`StoreError::StateMoved`] if the refund is not in the status the transition starts from; the database.
    pub async fn settle_refund(
        &self,
        operation: &Operation,
        lease: &Lease,
        settlement: &RefundSettlement<'_>,
    ) -> Result<bool, StoreError> {
        let RefundSettlement { refund, step, answer, watch, .. } = settlement;
        let reason = refund.failure.as_ref();
        // as in `settle`: what does not move gives the event no number, and the statement is undone
        let done = sqlx::query!(
            "WITH settled AS (
                UPDATE operations
                SET settled_at = now(), lease_until = 'infinity', served_until = NULL,
                    answer_status = $4, answer_location = $5, answer_body = $6
                WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3
                RETURNING payment_id, refund_id, traceparent
            ), ended AS (
                UPDATE refunds
                SET status = $8, failure_code = $9, failure_message = $10, failure_decline_code = $11,
                    provider_refund_id = $12, updated_at = $13
                FROM settled
                WHERE refunds.merchant_id = $1 AND refunds.refund_id = settled.refund_id AND status = $7
                RETURNING amount
            ), counted AS (
                UPDATE payments
                SET amount_refunded = amount_refunded - CASE WHEN $8 = 'failed' THEN ended.amount ELSE 0 END,
                    updated_at = GREATEST(updated_at, $13), last_event = last_event + 1
                FROM settled, ended
                WHERE payments.merchant_id = $1 AND payments.payment_id = settled.payment_id
                RETURNING last_event, payments.updated_at
            ), watched AS (
                INSERT INTO operations
                    (merchant_id, operation_id, payment_id, refund_id, kind, actor, traceparent, lease_until)
                SELECT $1, $18, settled.payment_id, settled.refund_id, 'watch_refund', $19, settled.traceparent,
                       now() + make_interval(secs => $20)
                FROM settled WHERE $18::uuid IS NOT NULL
            )
            INSERT INTO events
                (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
            SELECT $1, settled.payment_id, counted.last_event, $14, $15, counted.updated_at,
                   substr(settled.traceparent, 4, 32)::uuid, $16, $17
            FROM settled LEFT JOIN counted ON true",
            operation.merchant_id.0,
            operation.id.0,
            lease.token,
            answer.map(StoredAnswer::status_column).transpose()?,
            answer.and_then(|answer| answer.location.as_ref()),
            answer.map(|answer| &answer.body),
            step.from().name(),
            step.to().name(),
            reason.map(|f| &f.code),
            reason.map(|f| &f.message),
            reason.and_then(|f| f.decline_code.as_ref()),
            refund.object.as_ref().map(RefundObjectId::as_str),
            refund.updated_at,
            EventId::at(refund.updated_at).0,
            step.event().name(),
            settlement.actor.to_string(),
            events::refunded(refund),
            watch.map(|watch| watch.operation_id.0),
            watch.map(|watch| watch.actor.to_string()),
            watch.map(|watch| watch.first.as_secs_f64()),
        )
        .execute(&self.pool)
        .traced("settle refund")
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Reads a refund of the merchant.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn find_refund(
        &self,
        merchant_id: MerchantId,
        id: RefundId,
    ) -> Result<Option<Refund>, StoreError> {
        select_refunds!("WHERE r.merchant_id = $1 AND r.refund_id = $2", merchant_id.0, id.0)
            .fetch_optional(&self.pool)
            .traced("find refund")
            .await?
            .map(Refund::try_from)
            .transpose()
    }

    /// At most `limit` refunds of a payment, newest first, older than `before`.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn list_refunds(
        &self,
        merchant_id: MerchantId,
        payment_id: PaymentId,
        before: Option<RefundId>,
        limit: i64,
    ) -> Result<Vec<Refund>, StoreError> {
        select_refunds!(
            "WHERE r.merchant_id = $1 AND r.payment_id = $2 AND r.refund_id < $3
             ORDER BY r.refund_id DESC LIMIT $4",
            merchant_id.0,
            payment_id.0,
            before.map_or(Uuid::max(), |id| id.0),
            limit,
        )
        .fetch_all(&self.pool)
        .traced("list refunds")
        .await?
        .into_iter()
        .map(Refund::try_from)
        .collect()
    }
}

struct RefundRow {
    merchant_id: Uuid,
    refund_id: Uuid,
    payment_id: Uuid,
    amount: i64,
    currency: String,
    reason: Option<String>,
    metadata: serde_json::Value,
    status: String,
    failure_code: Option<String>,
    failure_message: Option<String>,
    failure_decline_code: Option<String>,
    provider_refund_id: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<RefundRow> for Refund {
    type Error = StoreError;

    fn try_from(row: RefundRow) -> Result<Self, StoreError> {
        let amount = Amount::new(row.amount).map_err(|_| StoreError::Unreadable("refunds.amount"))?;
        let currency =
            Currency::parse(&row.currency).map_err(|_| StoreError::Unreadable("payments.currency"))?;
        Ok(Self {
            id: RefundId(row.refund_id),
            merchant_id: MerchantId(row.merchant_id),
            payment_id: PaymentId(row.payment_id),
            money: Money::new(amount, currency).map_err(|_| StoreError::Unreadable("refunds.amount"))?,
            reason: row
                .reason
                .map(|name| RefundReason::parse(&name).ok_or(StoreError::Unreadable("refunds.reason")))
                .transpose()?,
            metadata: metadata_from_json(row.metadata)?,
            status: RefundStatus::parse(&row.status).ok_or(StoreError::Unreadable("refunds.status"))?,
            failure: failure(row.failure_code, row.failure_message, row.failure_decline_code),
            object: row
                .provider_refund_id
                .map(|id| {
                    RefundObjectId::parse(&id).ok_or(StoreError::Unreadable("refunds.provider_refund_id"))
                })
                .transpose()?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
