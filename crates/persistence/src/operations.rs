//! Operations: leasing, settling, pausing, sweeping.
//!
//! The two statements that look across merchants are here, [`Store::due_operations`] and [`Store::sweep_operations`].

use crate::idempotency::StoredAnswer;
use crate::{Store, StoreError, events};
use domain::event::{Actor, EventType};
use domain::id::{EventId, KeyId, MerchantId, OperationId, PaymentId, TraceId};
use domain::operation::{LOOK_UP_AFTER, Lease, Operation, OperationKind, Progress};
use domain::payment::{Payment, PendingOperation, Transition};
use domain::provider::IntentId;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use uuid::Uuid;

/// An open operation that nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Whose it is.
    pub merchant_id: MerchantId,
    /// Which.
    pub operation_id: OperationId,
    lease_until: OffsetDateTime,
}

/// What an attempt without an outcome leaves behind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pause<'a> {
    /// When the next attempt is due.
    pub delay: Duration,
    /// Whether the attempt reached the provider; handing an operation back does not count as one.
    pub attempted: bool,
    /// 5xx answers to add.
    pub server_errors: u8,
    /// The provider's id of the payment, if it was learnt.
    pub intent: Option<&'a IntentId>,
    /// Whether a search for what can no longer execute found nothing.
    pub absent: bool,
}

impl Store {
    /// Ends an operation: the payment's transition, its event and the answer, or nothing of it. `false`: the lease was
    /// lost or somebody else settled it, and nothing was written.
    ///
    /// `payment` is the payment after the transition.
    ///
    /// # Errors
    /// [`StoreError::StateMoved`] if the payment is not in the state the transition starts from; the database.
    pub async fn settle(
        &self,
        operation: &Operation,
        lease: &Lease,
        payment: &Payment,
        transition: &Transition,
        answer: &StoredAnswer,
    ) -> Result<bool, StoreError> {
        let (from, to) = (transition.from(), transition.to());
        let failure = payment.failure.as_ref();
        let status = i16::try_from(answer.status).map_err(|_| StoreError::Unreadable("answer status"))?;
        // The event takes its number from the payment's row. If the operation was ours but the payment did not move,
        // there is no number, the NOT NULL refuses the event, and the whole statement is undone.
        let done = sqlx::query!(
            "WITH settled AS (
                UPDATE operations
                SET settled_at = now(), lease_until = 'infinity', served_until = NULL,
                    answer_status = $4, answer_location = $5, answer_body = $6
                WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3
                RETURNING payment_id, actor, trace_id
            ), moved AS (
                UPDATE payments
                SET status = $9, pending_operation = $10, pending_amount = $11, amount_captured = $12,
                    live_reference = CASE WHEN $13 THEN NULL ELSE live_reference END,
                    failure_code = $14, failure_message = $15, failure_decline_code = $16,
                    redirect_url = $17, intent_id = $18, updated_at = $19, last_event = last_event + 1
                FROM settled
                WHERE payments.merchant_id = $1 AND payments.payment_id = settled.payment_id
                  AND status = $7 AND pending_operation IS NOT DISTINCT FROM $8
                RETURNING last_event
            )
            INSERT INTO events
                (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
            SELECT $1, settled.payment_id, moved.last_event, $20, $21, $19, settled.trace_id, settled.actor, $22
            FROM settled LEFT JOIN moved ON true",
            operation.merchant_id.0,
            operation.id.0,
            lease.token,
            status,
            answer.location,
            answer.body,
            from.status().name(),
            from.pending().map(PendingOperation::name),
            to.status().name(),
            to.pending().map(PendingOperation::name),
            match to.pending() {
                Some(PendingOperation::Capture(amount)) => Some(amount.get()),
                _ => None,
            },
            to.amount_captured(),
            to.status().releases_reference(),
            failure.map(|f| &f.code),
            failure.map(|f| &f.message),
            failure.and_then(|f| f.decline_code.as_ref()),
            payment.redirect_url,
            payment.intent.as_ref().map(IntentId::as_str),
            payment.updated_at,
            EventId::at(payment.updated_at).0,
            transition.event().name(),
            events::changed(payment),
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives the lease back with what the attempt taught, to be taken up again by anybody after a pause. `false`: the
    /// lease was lost.
    ///
    /// # Errors
    /// The database.
    pub async fn pause(
        &self,
        operation: &Operation,
        lease: &Lease,
        pause: &Pause<'_>,
    ) -> Result<bool, StoreError> {
        let server_errors = i16::from(pause.server_errors);
        let done = sqlx::query!(
            r#"WITH paused AS (
                UPDATE operations
                SET lease_until = now() + make_interval(secs => $4),
                    attempts = attempts + $5,
                    server_errors = LEAST(server_errors + $6, $7)::smallint,
                    absent_since = CASE WHEN $8 THEN COALESCE(absent_since, now()) ELSE absent_since END
                WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3
                RETURNING payment_id
            ), learnt AS (
                UPDATE payments SET intent_id = $9 FROM paused
                WHERE payments.merchant_id = $1 AND payments.payment_id = paused.payment_id AND $9::text IS NOT NULL
            )
            SELECT payment_id AS "payment_id!" FROM paused"#,
            operation.merchant_id.0,
            operation.id.0,
            lease.token,
            pause.delay.as_secs_f64(),
            i32::from(pause.attempted),
            server_errors,
            i16::from(LOOK_UP_AFTER),
            pause.absent,
            pause.intent.map(IntentId::as_str),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(done.is_some())
    }

    /// Records, once for each operation, that the provider contradicts it. The operation stays open.
    ///
    /// # Errors
    /// The database.
    pub async fn record_contradiction(
        &self,
        operation: &Operation,
        lease: &Lease,
        field: &str,
        intent: Option<&IntentId>,
    ) -> Result<(), StoreError> {
        let now = OffsetDateTime::now_utc();
        sqlx::query!(
            "WITH noted AS (
                UPDATE operations SET contradicted_at = now()
                WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3
                  AND contradicted_at IS NULL
                RETURNING payment_id, actor, trace_id
            ), counted AS (
                UPDATE payments SET last_event = last_event + 1 FROM noted
                WHERE payments.merchant_id = $1 AND payments.payment_id = noted.payment_id
                RETURNING last_event
            )
            INSERT INTO events
                (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
            SELECT $1, noted.payment_id, counted.last_event, $4, $5, $6, noted.trace_id, noted.actor, $7
            FROM noted LEFT JOIN counted ON true",
            operation.merchant_id.0,
            operation.id.0,
            lease.token,
            EventId::at(now).0,
            EventType::Contradicted.name(),
            now,
            serde_json::json!({ "field": field, "provider_object": intent.map(IntentId::as_str) }),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Open operations of all merchants that nobody holds, oldest first. It takes no locks: each is leased on its own,
    /// just before it is worked on.
    ///
    /// # Errors
    /// The database.
    pub async fn due_operations(&self, limit: i64) -> Result<Vec<Due>, StoreError> {
        let rows = sqlx::query!(
            "SELECT merchant_id, operation_id, lease_until FROM operations
             WHERE settled_at IS NULL AND lease_until <= now() ORDER BY lease_until LIMIT $1",
            limit,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows
            .into_iter()
            .map(|row| Due {
                merchant_id: MerchantId(row.merchant_id),
                operation_id: OperationId(row.operation_id),
                lease_until: row.lease_until,
            })
            .collect())
    }

    /// Takes a due operation, unless somebody else was faster, and reads what it is about.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn lease(
        &self,
        due: &Due,
        long: Duration,
    ) -> Result<Option<(Operation, Lease, Payment)>, StoreError> {
        let asked = Instant::now();
        let row = sqlx::query!(
            r#"UPDATE operations SET lease_until = now() + make_interval(secs => $4)
               WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3 AND lease_until <= now()
               RETURNING payment_id, kind, actor, trace_id, created_at, lease_until, attempts, server_errors,
                   contradicted_at,
                   EXTRACT(EPOCH FROM now() - created_at)::float8 AS "age!",
                   EXTRACT(EPOCH FROM now() - absent_since)::float8 AS absent_for"#,
            due.merchant_id.0,
            due.operation_id.0,
            due.lease_until,
            long.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let payment_id = PaymentId(row.payment_id);
        let payment = self
            .find_payment(due.merchant_id, payment_id)
            .await?
            .ok_or(StoreError::Unreadable("operations.payment_id"))?;
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
        let operation = Operation {
            id: due.operation_id,
            merchant_id: due.merchant_id,
            payment_id,
            kind: kind(&row.kind)?,
            actor: actor(&row.actor)?,
            trace_id: trace_id(row.trace_id)?,
            created_at: row.created_at,
            progress: Progress {
                attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
                server_errors: u8::try_from(row.server_errors).unwrap_or(LOOK_UP_AFTER),
                age: seconds(row.age),
                absent_for: row.absent_for.map(seconds),
                contradicted: row.contradicted_at.is_some(),
            },
        };
        let lease = Lease::new(row.lease_until, asked, long);
        Ok(Some((operation, lease, payment)))
    }

    /// Forgets keys and answers that settled longer ago than `ttl`, at most `limit` at once. Open operations are never
    /// forgotten. Returns how many went.
    ///
    /// # Errors
    /// The database.
    pub async fn sweep_operations(&self, ttl: Duration, limit: i64) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM operations WHERE (merchant_id, operation_id) IN (
                SELECT merchant_id, operation_id FROM operations
                WHERE settled_at < now() - make_interval(secs => $1) LIMIT $2
             )",
            ttl.as_secs_f64(),
            limit,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}

fn kind(name: &str) -> Result<OperationKind, StoreError> {
    match name {
        "charge" => Ok(OperationKind::Charge),
        _ => Err(StoreError::Unreadable("operations.kind")),
    }
}

fn actor(text: &str) -> Result<Actor, StoreError> {
    match text {
        "worker" => Ok(Actor::Worker),
        "reconcile" => Ok(Actor::Reconcile),
        key => Uuid::try_parse(key)
            .map(|id| Actor::Key(KeyId(id)))
            .map_err(|_| StoreError::Unreadable("operations.actor")),
    }
}

fn trace_id(id: Uuid) -> Result<TraceId, StoreError> {
    TraceId::from_uuid(id).ok_or(StoreError::Unreadable("operations.trace_id"))
}
