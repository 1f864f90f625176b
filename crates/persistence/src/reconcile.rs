//! What is compared with the provider, and when: reading payments and refunds of all merchants, and the one row that says
//! when the next comparison is due and what the last one found.
//!
//! The statements that look across merchants are listed in [`crate::operations`].

use crate::span::Traced;
use crate::{Store, StoreError};
use domain::id::{MerchantId, PaymentId, RefundId, lowest_at};
use domain::payment::Status;
use domain::provider::{IntentId, RefundObjectId};
use domain::reconcile::{BookedPayment, BookedRefund, Difference, Owner};
use domain::refund::RefundStatus;
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// A part of all merchants' payments or refunds: by creation, which is in their ids.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    /// Created at or after.
    pub from: OffsetDateTime,
    /// Created before.
    pub to: OffsetDateTime,
    /// Behind this one, in the order of merchants and then of ids.
    pub after: Option<(MerchantId, Uuid)>,
    /// At most so many.
    pub limit: i64,
}

impl Slice {
    /// Where it begins: no id is the nil one.
    fn after(&self) -> (Uuid, Uuid) {
        self.after.map_or((Uuid::nil(), Uuid::nil()), |(merchant_id, id)| (merchant_id.0, id))
    }
}

/// What the last comparison found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reconciled {
    /// How long ago it ended.
    pub age: Duration,
    /// How many of each kind; what is absent was not found.
    pub differences: BTreeMap<Difference, i64>,
}

/// A payment's columns that are compared. The texts behind are the rest of the statement.
macro_rules! select_booked_payments {
    ($rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            PaymentRow,
            r#"SELECT p.merchant_id, p.payment_id, p.status, p.amount, p.currency, p.amount_captured, p.amount_refunded,
                   (SELECT COALESCE(sum(r.amount), 0) FROM refunds r
                    WHERE r.merchant_id = p.merchant_id AND r.payment_id = p.payment_id
                      AND r.status <> 'failed')::bigint AS "refunds!",
                   p.intent_id,
                   EXISTS (SELECT FROM operations o
                    WHERE o.merchant_id = p.merchant_id AND o.payment_id = p.payment_id
                      AND o.settled_at IS NULL AND o.idempotency_key IS NOT NULL
                      AND o.contradicted_at IS NULL) AS "open!",
                   p.updated_at
               "# + $rest,
            $($argument),*
        )
    };
}

/// A refund's columns that are compared. The texts behind are the rest of the statement.
macro_rules! select_booked_refunds {
    ($rest:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            RefundRow,
            r#"SELECT r.merchant_id, r.payment_id, r.refund_id, r.status, r.amount, p.currency, p.intent_id,
                   r.provider_refund_id,
                   EXISTS (SELECT FROM operations o
                    WHERE o.merchant_id = r.merchant_id AND o.payment_id = r.payment_id AND o.refund_id = r.refund_id
                      AND o.settled_at IS NULL AND o.idempotency_key IS NOT NULL
                      AND o.contradicted_at IS NULL) AS "open!",
                   r.updated_at
               "# + $rest,
            $($argument),*
        )
    };
}

impl Store {
    /// The payments that charges name, of several merchants.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn booked_payments(&self, owners: &[Owner]) -> Result<Vec<BookedPayment>, StoreError> {
        let merchants: Vec<Uuid> = owners.iter().map(|owner| owner.merchant_id.0).collect();
        let payments: Vec<Uuid> = owners.iter().map(|owner| owner.payment_id.0).collect();
        select_booked_payments!(
            "FROM unnest($1::uuid[], $2::uuid[]) AS named (merchant_id, payment_id)
             JOIN payments p ON p.merchant_id = named.merchant_id AND p.payment_id = named.payment_id",
            &merchants,
            &payments,
        )
        .fetch_all(&self.pool)
        .traced("read booked payments")
        .await?
        .into_iter()
        .map(BookedPayment::try_from)
        .collect()
    }

    /// The payment with an id, whichever merchant's it is.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn booked_payment_of_anybody(
        &self,
        id: PaymentId,
    ) -> Result<Option<BookedPayment>, StoreError> {
        // merchant by merchant: the id alone has no index
        select_booked_payments!(
            "FROM merchants m JOIN payments p ON p.merchant_id = m.merchant_id AND p.payment_id = $1",
            id.0,
        )
        .fetch_optional(&self.pool)
        .traced("read booked payment of anybody")
        .await?
        .map(BookedPayment::try_from)
        .transpose()
    }

    /// Payments of all merchants, without those that ended without money.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn list_booked_payments(&self, slice: &Slice) -> Result<Vec<BookedPayment>, StoreError> {
        let (merchant_id, after) = slice.after();
        // merchant by merchant, because ids are indexed behind their merchants: each is one range
        select_booked_payments!(
            "FROM merchants m CROSS JOIN LATERAL (
                 SELECT * FROM payments
                 WHERE payments.merchant_id = m.merchant_id
                   AND payments.payment_id >= $1 AND payments.payment_id < $2
                   AND (payments.merchant_id, payments.payment_id) > ($3, $4)
                   AND payments.status NOT IN ('failed', 'canceled')
                 ORDER BY payments.payment_id LIMIT $5
             ) p
             WHERE m.merchant_id >= $3
             ORDER BY m.merchant_id, p.payment_id LIMIT $5",
            lowest_at(slice.from),
            lowest_at(slice.to),
            merchant_id,
            after,
            slice.limit,
        )
        .fetch_all(&self.pool)
        .traced("list booked payments")
        .await?
        .into_iter()
        .map(BookedPayment::try_from)
        .collect()
    }

    /// The refunds that the provider's objects name, of several merchants.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn booked_refunds(
        &self,
        named: &[(MerchantId, RefundId)],
    ) -> Result<Vec<BookedRefund>, StoreError> {
        let merchants: Vec<Uuid> = named.iter().map(|(merchant_id, _)| merchant_id.0).collect();
        let refunds: Vec<Uuid> = named.iter().map(|(_, refund_id)| refund_id.0).collect();
        select_booked_refunds!(
            "FROM unnest($1::uuid[], $2::uuid[]) AS named (merchant_id, refund_id)
             JOIN refunds r ON r.merchant_id = named.merchant_id AND r.refund_id = named.refund_id
             JOIN payments p ON p.merchant_id = r.merchant_id AND p.payment_id = r.payment_id",
            &merchants,
            &refunds,
        )
        .fetch_all(&self.pool)
        .traced("read booked refunds")
        .await?
        .into_iter()
        .map(BookedRefund::try_from)
        .collect()
    }

    /// Refunds of all merchants, without those that failed.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn list_booked_refunds(&self, slice: &Slice) -> Result<Vec<BookedRefund>, StoreError> {
        let (merchant_id, after) = slice.after();
        select_booked_refunds!(
            "FROM merchants m CROSS JOIN LATERAL (
                 SELECT * FROM refunds
                 WHERE refunds.merchant_id = m.merchant_id
                   AND refunds.refund_id >= $1 AND refunds.refund_id < $2
                   AND (refunds.merchant_id, refunds.refund_id) > ($3, $4)
                   AND refunds.status <> 'failed'
                 ORDER BY refunds.refund_id LIMIT $5
             ) r
             JOIN payments p ON p.merchant_id = r.merchant_id AND p.payment_id = r.payment_id
             WHERE m.merchant_id >= $3
             ORDER BY m.merchant_id, r.refund_id LIMIT $5",
            lowest_at(slice.from),
            lowest_at(slice.to),
            merchant_id,
            after,
            slice.limit,
        )
        .fetch_all(&self.pool)
        .traced("list booked refunds")
        .await?
        .into_iter()
        .map(BookedRefund::try_from)
        .collect()
    }

    /// Takes the comparison if it is due and nobody has it, for so long. The first process that ever looks makes it due
    /// after `interval`. What comes back is the holder's token.
    ///
    /// # Errors
    /// The database.
    pub async fn lease_reconciliation(
        &self,
        interval: Duration,
        long: Duration,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        // The row of the INSERT is not seen by the UPDATE beside it, and is not due anyway.
        let row = sqlx::query_scalar!(
            "WITH first AS (
                INSERT INTO reconciliations (due_at) VALUES (now() + make_interval(secs => $1))
                ON CONFLICT ON CONSTRAINT reconciliations_pkey DO NOTHING
            )
            UPDATE reconciliations SET due_at = now() + make_interval(secs => $2)
            WHERE only_one AND due_at <= now()
            RETURNING due_at",
            interval.as_secs_f64(),
            long.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .traced("lease reconciliation")
        .await?;
        Ok(row)
    }

    /// Keeps the lease for so long from now. `None`: it was lost.
    ///
    /// # Errors
    /// The database.
    pub async fn keep_reconciliation(
        &self,
        token: OffsetDateTime,
        long: Duration,
    ) -> Result<Option<OffsetDateTime>, StoreError> {
        let row = sqlx::query_scalar!(
            "UPDATE reconciliations SET due_at = GREATEST(due_at, now() + make_interval(secs => $2))
             WHERE only_one AND due_at = $1
             RETURNING due_at",
            token,
            long.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .traced("keep reconciliation")
        .await?;
        Ok(row)
    }

    /// Ends a comparison: it is due again after `rest`. What it found is kept, if it saw everything. `false`: the lease was
    /// lost, and nothing was written.
    ///
    /// # Errors
    /// The database.
    pub async fn end_reconciliation(
        &self,
        token: OffsetDateTime,
        rest: Duration,
        found: Option<&BTreeMap<Difference, i64>>,
    ) -> Result<bool, StoreError> {
        let found = found.map(|found| {
            let counts = found.iter().map(|(kind, count)| (kind.name().to_owned(), (*count).into()));
            serde_json::Value::Object(counts.collect())
        });
        let done = sqlx::query!(
            "UPDATE reconciliations
             SET due_at = now() + make_interval(secs => $2),
                 finished_at = CASE WHEN $3::jsonb IS NULL THEN finished_at ELSE now() END,
                 differences = COALESCE($3, differences)
             WHERE only_one AND due_at = $1",
            token,
            rest.as_secs_f64(),
            found,
        )
        .execute(&self.pool)
        .traced("end reconciliation")
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// What the last comparison found; `None`: there was none.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn last_reconciliation(&self) -> Result<Option<Reconciled>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT EXTRACT(EPOCH FROM now() - finished_at)::float8 AS "age!", differences AS "differences!"
               FROM reconciliations WHERE only_one AND finished_at IS NOT NULL"#
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let counts = row.differences.as_object();
            let counts = counts.ok_or(StoreError::Unreadable("reconciliations.differences"))?;
            // a kind that only another release knows is left to it
            let known = counts.iter().filter_map(|(name, n)| Some((Difference::parse(name)?, n.as_i64()?)));
            let age = Duration::try_from_secs_f64(row.age).unwrap_or_default();
            Ok(Reconciled { age, differences: known.collect() })
        })
        .transpose()
    }
}

struct PaymentRow {
    merchant_id: Uuid,
    payment_id: Uuid,
    status: String,
    amount: i64,
    currency: String,
    amount_captured: i64,
    amount_refunded: i64,
    refunds: i64,
    intent_id: Option<String>,
    open: bool,
    updated_at: OffsetDateTime,
}

struct RefundRow {
    merchant_id: Uuid,
    payment_id: Uuid,
    refund_id: Uuid,
    status: String,
    amount: i64,
    currency: String,
    intent_id: Option<String>,
    provider_refund_id: Option<String>,
    open: bool,
    updated_at: OffsetDateTime,
}

impl TryFrom<PaymentRow> for BookedPayment {
    type Error = StoreError;

    fn try_from(row: PaymentRow) -> Result<Self, StoreError> {
        Ok(Self {
            owner: owner(row.merchant_id, row.payment_id),
            status: Status::parse(&row.status).ok_or(StoreError::Unreadable("payments.status"))?,
            amount: row.amount,
            currency: row.currency,
            amount_captured: row.amount_captured,
            amount_refunded: row.amount_refunded,
            refunds: row.refunds,
            intent: intent(row.intent_id)?,
            open: row.open,
            updated_at: row.updated_at,
        })
    }
}

impl TryFrom<RefundRow> for BookedRefund {
    type Error = StoreError;

    fn try_from(row: RefundRow) -> Result<Self, StoreError> {
        const OBJECT: StoreError = StoreError::Unreadable("refunds.provider_refund_id");
        let object = row.provider_refund_id;
        Ok(Self {
            owner: owner(row.merchant_id, row.payment_id),
            refund_id: RefundId(row.refund_id),
            status: RefundStatus::parse(&row.status).ok_or(StoreError::Unreadable("refunds.status"))?,
            amount: row.amount,
            currency: row.currency,
            intent: intent(row.intent_id)?,
            object: object.map(|id| RefundObjectId::parse(&id).ok_or(OBJECT)).transpose()?,
            open: row.open,
            updated_at: row.updated_at,
        })
    }
}

fn owner(merchant_id: Uuid, payment_id: Uuid) -> Owner {
    Owner { merchant_id: MerchantId(merchant_id), payment_id: PaymentId(payment_id) }
}

fn intent(id: Option<String>) -> Result<Option<IntentId>, StoreError> {
    const INTENT: StoreError = StoreError::Unreadable("payments.intent_id");
    id.map(|id| IntentId::parse(&id).ok_or(INTENT)).transpose()
}
