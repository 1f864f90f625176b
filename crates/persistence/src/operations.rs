//! Operations: claiming work on a payment that exists, leasing, settling, pausing, sweeping.
//!
//! The statements that look across merchants are these and no other: [`Store::due_operations`], [`Store::sweep_operations`]
//! and [`Store::backlog`] here; and, for comparing all of it with the provider, [`Store::list_booked_payments`],
//! [`Store::list_booked_refunds`] and [`Store::booked_payment_of_anybody`], which take every merchant in turn, and
//! [`Store::booked_payments`] and [`Store::booked_refunds`], which name several merchants at once. The row of
//! [`Store::lease_reconciliation`] and its companions is nobody's.

use crate::idempotency::StoredAnswer;
use crate::span::Traced;
use crate::{Store, StoreError, events};
use domain::event::{Actor, EventType};
#[cfg(feature = "faults")]
use domain::faults::{Bug, planted};
use domain::id::{EventId, KeyId, MerchantId, OperationId, PaymentId, RefundId};
use domain::idempotency::{Fingerprint, IdempotencyKey};
use domain::operation::{LOOK_UP_AFTER, Lease, Leased, Operation, OperationKind, Progress};
use domain::payment::{Payment, PendingOperation, Transition};
use domain::provider::{Failure, IntentId, RefundObjectId};
use domain::trace::TraceContext;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use uuid::Uuid;

/// Who asks for an operation, and what makes it happen once.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The id of the operation to write.
    pub operation_id: OperationId,
    /// The caller's key.
    pub key: &'a IdempotencyKey,
    /// What the key is used for.
    pub fingerprint: &'a Fingerprint,
    /// Who asks.
    pub actor: Actor,
    /// Where the request stands in its trace.
    pub trace: TraceContext,
    /// How long this process owns the operation.
    pub lease: Duration,
    /// Whether the caller waits for the outcome.
    pub served: bool,
    /// Nothing is begun later than this: nobody waits any more.
    pub latest: Instant,
}

impl Claim<'_> {
    /// The operation that was written, and the right to carry it out.
    pub(crate) fn won(
        &self,
        payment: &Payment,
        kind: OperationKind,
        written: (OffsetDateTime, OffsetDateTime),
        asked: Instant,
    ) -> (Operation, Lease) {
        let (created_at, lease_until) = written;
        let operation = Operation {
            id: self.operation_id,
            merchant_id: payment.merchant_id,
            payment_id: payment.id,
            kind,
            actor: self.actor,
            trace: self.trace,
            created_at,
            progress: Progress::default(),
        };
        (operation, Lease::new(lease_until, asked, self.lease))
    }
}

/// The first statement of every request that moves money: the operation with its key, and what the rest of the statement
/// writes `FROM claimed`. `None`: the key is known, and nothing was written.
///
/// `$1` merchant, `$2` operation, `$3` payment, `$4` refund, `$5` kind, `$6` actor, `$7` traceparent, of which the trace id is
/// `substr($7, 4, 32)`, `$8` key, `$9` fingerprint,
/// `$10` lease, `$11` served; the rest's own parameters begin at `$12`. What the rest cannot write must raise, so that the
/// key's row goes with it: a key without its operation would be used up for nothing.
macro_rules! claim {
    ($store:expr, $payment:expr, $kind:expr, $claim:expr, $rest:literal, $($argument:expr),+ $(,)?) => {{
        let (payment, kind, claim): (&Payment, OperationKind, &Claim<'_>) = ($payment, $kind, $claim);
        let asked = Instant::now();
        let row = sqlx::query!(
            "WITH claimed AS (
                INSERT INTO operations
                    (merchant_id, operation_id, payment_id, refund_id, kind, actor, traceparent, idempotency_key,
                     fingerprint, lease_until, served_until)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now() + make_interval(secs => $10),
                        CASE WHEN $11 THEN now() + make_interval(secs => $10) END)
                ON CONFLICT ON CONSTRAINT operations_idempotency_key DO NOTHING
                RETURNING created_at, lease_until
            ), " + $rest + r#"
            SELECT created_at AS "created_at!", lease_until AS "lease_until!" FROM claimed"#,
            payment.merchant_id.0,
            claim.operation_id.0,
            payment.id.0,
            kind.refund().map(|id| id.0),
            kind.name(),
            claim.actor.to_string(),
            claim.trace.to_string(),
            claim.key.as_str(),
            claim.fingerprint.as_bytes(),
            claim.lease.as_secs_f64(),
            claim.served,
            $($argument),+
        )
        .fetch_optional(&$store.pool.until(claim.latest.into()))
        .traced("claim operation")
        .await?;
        row.map(|row| claim.won(payment, kind, (row.created_at, row.lease_until), asked))
    }};
}
pub(crate) use claim;

/// How an operation on a payment ends.
#[derive(Debug, Clone, Copy)]
pub struct Settlement<'a> {
    /// The payment after the step.
    pub payment: &'a Payment,
    /// The step.
    pub step: &'a Transition,
    /// Why what was asked for did not happen.
    pub failure: Option<&'a Failure>,
    /// Whom the audit trail names.
    pub actor: Actor,
    /// What whoever asked is told, ever after. A watch has none.
    pub answer: Option<&'a StoredAnswer>,
    /// The provider may move on with the payment by itself: somebody has to look, first after this.
    pub watch: Option<Watch>,
}

/// A watch that begins with a settlement.
#[derive(Debug, Clone, Copy)]
pub struct Watch {
    /// The id of the operation to write.
    pub operation_id: OperationId,
    /// Whom the audit trail names for what it finds.
    pub actor: Actor,
    /// When to look first.
    pub first: Duration,
}

/// An open operation that nobody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Whose it is.
    pub merchant_id: MerchantId,
    /// Which.
    pub operation_id: OperationId,
    lease_until: OffsetDateTime,
}

/// What is open of all merchants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backlog {
    /// How many operations.
    pub open: i64,
    /// The age of the oldest; nothing if there is none.
    pub oldest: Duration,
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
    /// The provider's id of the refund, if it was learnt.
    pub refund: Option<&'a RefundObjectId>,
    /// Whether a search for what can no longer execute found nothing.
    pub absent: bool,
}

impl Store {
    /// Writes a capture or cancel of a payment, with what the step changes and its event, or nothing of it. `None`: the
    /// key is known.
    ///
    /// # Errors
    /// [`StoreError::StateMoved`] if the payment is not in the state the step starts from; the database.
    pub async fn claim_step(
        &self,
        payment: &Payment,
        step: &Transition,
        kind: OperationKind,
        claim: &Claim<'_>,
        at: OffsetDateTime,
    ) -> Result<Option<(Operation, Lease)>, StoreError> {
        // The guard is in the UPDATE. A payment that moved gives the event no number, and the NOT NULL refuses it.
        Ok(claim!(
            self,
            payment,
            kind,
            claim,
            "moved AS (
                UPDATE payments
                SET pending_operation = $12, pending_amount = $13, updated_at = GREATEST(updated_at, $14),
                    last_event = last_event + 1
                FROM claimed
                WHERE payments.merchant_id = $1 AND payments.payment_id = $3
                  AND status = $15 AND pending_operation IS NOT DISTINCT FROM $16
                RETURNING last_event, payments.updated_at
            ), recorded AS (
                INSERT INTO events
                    (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
                SELECT $1, $3, moved.last_event, $17, $18, moved.updated_at,
                       substr($7, 4, 32)::uuid, $6, $19
                FROM claimed LEFT JOIN moved ON true
            )",
            step.to().pending().map(PendingOperation::name),
            pending_amount(step),
            at,
            step.from().status().name(),
            step.from().pending().map(PendingOperation::name),
            EventId::at(at).0,
            step.event().name(),
            events::requested(step),
        ))
    }

    /// Ends an operation: the payment's transition, its event and the answer, or nothing of it. `false`: the lease was
    /// lost or somebody else settled it, and nothing was written.
    ///
    /// # Errors
    /// [`StoreError::StateMoved`] if the payment is not in the state the transition starts from; the database.
    pub async fn settle(
        &self,
        operation: &Operation,
        lease: &Lease,
        settlement: &Settlement<'_>,
    ) -> Result<bool, StoreError> {
        #[cfg(feature = "faults")]
        if planted(Bug::EventOutsideTransaction) {
            return self.settle_without_event(operation, lease, settlement).await;
        }
        let Settlement { payment, step, answer, .. } = settlement;
        let (from, to) = (step.from(), step.to());
        let failure = payment.failure.as_ref();
        // The event takes its number from the payment's row. If the operation was ours but the payment did not move,
        // there is no number, the NOT NULL refuses the event, and the whole statement is undone.
        macro_rules! settle {
            ($more:literal $(, $argument:expr)*) => {
                sqlx::query!(
                    "WITH settled AS (
                        UPDATE operations
                        SET settled_at = now(), lease_until = 'infinity', served_until = NULL,
                            answer_status = $4, answer_location = $5, answer_body = $6
                        WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3
                        RETURNING payment_id, traceparent
                    ), moved AS (
                        UPDATE payments
                        SET status = $9, pending_operation = $10, pending_amount = $11, amount_captured = $12,
                            live_reference = CASE WHEN $13 THEN NULL ELSE live_reference END,
                            failure_code = $14, failure_message = $15, failure_decline_code = $16,
                            redirect_url = $17, intent_id = $18, updated_at = GREATEST(updated_at, $19),
                            last_event = last_event + 1
                        FROM settled
                        WHERE payments.merchant_id = $1 AND payments.payment_id = settled.payment_id
                          AND status = $7 AND pending_operation IS NOT DISTINCT FROM $8
                        RETURNING last_event, payments.updated_at
                    )" + $more + "
                    INSERT INTO events
                        (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
                    SELECT $1, settled.payment_id, moved.last_event, $20, $21, moved.updated_at,
                           substr(settled.traceparent, 4, 32)::uuid, $22, $23
                    FROM settled LEFT JOIN moved ON true",
                    operation.merchant_id.0,
                    operation.id.0,
                    lease.token,
                    answer.map(|answer| answer.status_column()).transpose()?,
                    answer.and_then(|answer| answer.location.as_ref()),
                    answer.map(|answer| &answer.body),
                    from.status().name(),
                    from.pending().map(PendingOperation::name),
                    to.status().name(),
                    to.pending().map(PendingOperation::name),
                    pending_amount(step),
                    to.amount_captured(),
                    to.status().releases_reference(),
                    failure.map(|f| &f.code),
                    failure.map(|f| &f.message),
                    failure.and_then(|f| f.decline_code.as_ref()),
                    payment.redirect_url,
                    payment.intent.as_ref().map(IntentId::as_str),
                    payment.updated_at,
                    EventId::at(payment.updated_at).0,
                    step.event().name(),
                    settlement.actor.to_string(),
                    events::changed(payment, settlement.failure)
                    $(, $argument)*
                )
                .execute(&self.pool)
                .traced("settle payment")
                .await?
            };
        }
        let done = match &settlement.watch {
            None => settle!(""),
            Some(watch) => settle!(
                ", watched AS (
                    INSERT INTO operations
                        (merchant_id, operation_id, payment_id, kind, actor, traceparent, lease_until)
                    SELECT $1, $24, settled.payment_id, 'watch_payment', $25, settled.traceparent,
                           now() + make_interval(secs => $26)
                    FROM settled
                )",
                watch.operation_id.0,
                watch.actor.to_string(),
                watch.first.as_secs_f64()
            ),
        };
        Ok(done.rows_affected() == 1)
    }

    /// Ends a watch that has nothing more to look for. `false`: the lease was lost.
    ///
    /// # Errors
    /// The database.
    pub async fn end_watch(&self, operation: &Operation, lease: &Lease) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE operations SET settled_at = now(), lease_until = 'infinity'
             WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3 AND idempotency_key IS NULL",
            operation.merchant_id.0,
            operation.id.0,
            lease.token,
        )
        .execute(&self.pool)
        .traced("end watch")
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
                RETURNING payment_id, refund_id
            ), learnt AS (
                UPDATE payments SET intent_id = $9 FROM paused
                WHERE payments.merchant_id = $1 AND payments.payment_id = paused.payment_id AND $9::text IS NOT NULL
            ), learnt_of_refund AS (
                UPDATE refunds SET provider_refund_id = $10 FROM paused
                WHERE refunds.merchant_id = $1 AND refunds.refund_id = paused.refund_id AND $10::text IS NOT NULL
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
            pause.refund.map(RefundObjectId::as_str),
        )
        .fetch_optional(&self.pool)
        .traced("pause operation")
        .await?;
        Ok(done.is_some())
    }

    /// Keeps the operation for `long` from now on. `None`: the lease was lost.
    ///
    /// # Errors
    /// The database.
    pub async fn keep_operation(
        &self,
        operation: &Operation,
        lease: &Lease,
        long: Duration,
    ) -> Result<Option<Lease>, StoreError> {
        let asked = Instant::now();
        let token = sqlx::query_scalar!(
            "UPDATE operations SET lease_until = GREATEST(lease_until, now() + make_interval(secs => $4))
             WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3
             RETURNING lease_until",
            operation.merchant_id.0,
            operation.id.0,
            lease.token,
            long.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .traced("keep operation")
        .await?;
        Ok(token.map(|token| lease.prolonged(token, asked, long)))
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
        object: Option<&str>,
    ) -> Result<(), StoreError> {
        let now = OffsetDateTime::now_utc();
        sqlx::query!(
            "WITH noted AS (
                UPDATE operations SET contradicted_at = now()
                WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3
                  AND contradicted_at IS NULL
                RETURNING payment_id, actor, traceparent
            ), counted AS (
                UPDATE payments SET last_event = last_event + 1, updated_at = GREATEST(updated_at, $6) FROM noted
                WHERE payments.merchant_id = $1 AND payments.payment_id = noted.payment_id
                RETURNING last_event, payments.updated_at AS at
            )
            INSERT INTO events
                (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
            SELECT $1, noted.payment_id, counted.last_event, $4, $5, counted.at,
                   substr(noted.traceparent, 4, 32)::uuid, noted.actor, $7
            FROM noted LEFT JOIN counted ON true",
            operation.merchant_id.0,
            operation.id.0,
            lease.token,
            EventId::at(now).0,
            EventType::Contradicted.name(),
            now,
            serde_json::json!({ "field": field, "provider_object": object }),
        )
        .execute(&self.pool)
        .traced("record contradiction")
        .await?;
        Ok(())
    }

    /// Open operations of all merchants that nobody holds, oldest first; what somebody asked for before any watch. It takes
    /// no locks: each is leased on its own, just before it is worked on.
    ///
    /// # Errors
    /// The database.
    pub async fn due_operations(&self, limit: i64) -> Result<Vec<Due>, StoreError> {
        // While a release is rolled out, kinds that only the next one knows are left to it. Two lists, an index each: of
        // one, thousands of watches after a night without a worker would be the oldest.
        let rows = sqlx::query!(
            r#"(SELECT 1 AS turn, merchant_id AS "merchant_id!", operation_id AS "operation_id!",
                    lease_until AS "lease_until!"
                FROM operations
                WHERE settled_at IS NULL AND idempotency_key IS NOT NULL AND lease_until <= now() AND kind = ANY($2)
                ORDER BY lease_until LIMIT $1)
               UNION ALL
               (SELECT 2, merchant_id, operation_id, lease_until FROM operations
                WHERE settled_at IS NULL AND idempotency_key IS NULL AND lease_until <= now() AND kind = ANY($2)
                ORDER BY lease_until LIMIT $1)
               ORDER BY turn, "lease_until!" LIMIT $1"#,
            limit,
            &OperationKind::NAMES.map(str::to_owned),
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

    /// What is open of all that was asked for. Watches are not: they wait for somebody else.
    ///
    /// # Errors
    /// The database.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let row = sqlx::query!(
            r#"SELECT count(*) AS "open!", COALESCE(EXTRACT(EPOCH FROM now() - min(created_at)), 0)::float8 AS "oldest!"
               FROM operations WHERE settled_at IS NULL AND idempotency_key IS NOT NULL"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Backlog { open: row.open, oldest: Duration::try_from_secs_f64(row.oldest).unwrap_or_default() })
    }

    /// Takes a due operation, unless somebody else was faster, and reads what it is about.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn lease(&self, due: &Due, long: Duration) -> Result<Option<Leased>, StoreError> {
        let asked = Instant::now();
        let row = sqlx::query!(
            r#"UPDATE operations SET lease_until = now() + make_interval(secs => $4)
               WHERE merchant_id = $1 AND operation_id = $2 AND lease_until = $3 AND lease_until <= now()
               RETURNING payment_id, refund_id, kind, actor, traceparent, created_at, lease_until, attempts,
                   server_errors, contradicted_at,
                   EXTRACT(EPOCH FROM now() - created_at)::float8 AS "age!",
                   EXTRACT(EPOCH FROM now() - absent_since)::float8 AS absent_for"#,
            due.merchant_id.0,
            due.operation_id.0,
            due.lease_until,
            long.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .traced("lease operation")
        .await?;
        let Some(row) = row else { return Ok(None) };
        let kind = OperationKind::parse(&row.kind, row.refund_id.map(RefundId))
            .ok_or(StoreError::Unreadable("operations.kind"))?;
        let payment_id = PaymentId(row.payment_id);
        let payment = self.find_payment(due.merchant_id, payment_id).await?;
        let refund = match kind.refund() {
            Some(id) => {
                let refund = self.find_refund(due.merchant_id, id).await?;
                Some(refund.ok_or(StoreError::Unreadable("operations.refund_id"))?)
            }
            None => None,
        };
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
        let operation = Operation {
            id: due.operation_id,
            merchant_id: due.merchant_id,
            payment_id,
            kind,
            actor: actor(&row.actor)?,
            trace: TraceContext::parse(&row.traceparent)
                .ok_or(StoreError::Unreadable("operations.traceparent"))?,
            created_at: row.created_at,
            progress: Progress {
                attempts: u32::try_from(row.attempts).unwrap_or(u32::MAX),
                server_errors: u8::try_from(row.server_errors).unwrap_or(LOOK_UP_AFTER),
                age: seconds(row.age),
                absent_for: row.absent_for.map(seconds),
                contradicted: row.contradicted_at.is_some(),
            },
        };
        Ok(Some(Leased {
            operation,
            lease: Lease::new(row.lease_until, asked, long),
            payment: payment.ok_or(StoreError::Unreadable("operations.payment_id"))?,
            refund,
        }))
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

fn pending_amount(step: &Transition) -> Option<i64> {
    match step.to().pending() {
        Some(PendingOperation::Capture(amount)) => Some(amount.get()),
        Some(PendingOperation::Cancel) | None => None,
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
