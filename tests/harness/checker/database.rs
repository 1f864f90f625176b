//! The second witness: the database, after everything came to rest.

use anyhow::Result;
use sqlx::{PgPool, Row};

/// What the database holds of everybody.
#[derive(Debug, Clone, Default)]
pub struct Database {
    /// Every payment.
    pub payments: Vec<PaymentRow>,
    /// Every refund.
    pub refunds: Vec<RefundRow>,
    /// Every operation that somebody asked for.
    pub operations: Vec<OperationRow>,
    /// The audit trail, by payment and then by sequence.
    pub events: Vec<EventRow>,
}

/// A payment.
#[derive(Debug, Clone, Default)]
pub struct PaymentRow {
    /// Whose it is.
    pub merchant_id: String,
    /// Its id.
    pub id: String,
    /// The merchant's order number.
    pub reference: String,
    /// Its status.
    pub status: String,
    /// In minor units.
    pub amount: i64,
    /// Of the amount.
    pub captured: i64,
    /// Of what was captured.
    pub refunded: i64,
    /// In upper case.
    pub currency: String,
    /// The number of its newest event.
    pub last_event: i32,
}

/// A refund.
#[derive(Debug, Clone, Default)]
pub struct RefundRow {
    /// Whose it is.
    pub merchant_id: String,
    /// Its id.
    pub id: String,
    /// Of which payment.
    pub payment_id: String,
    /// In minor units.
    pub amount: i64,
    /// Its status.
    pub status: String,
}

/// An operation with the key that asked for it.
#[derive(Debug, Clone, Default)]
pub struct OperationRow {
    /// Whose it is.
    pub merchant_id: String,
    /// The caller's key.
    pub key: String,
    /// What it is about.
    pub payment_id: String,
    /// Its kind.
    pub kind: String,
    /// How far it got, for whoever has to look into it.
    pub progress: String,
    /// The answer it ended with, if it has.
    pub answer: Option<(u16, Vec<u8>)>,
}

/// An entry of the audit trail.
#[derive(Debug, Clone, Default)]
pub struct EventRow {
    /// Whose it is.
    pub merchant_id: String,
    /// Of which payment.
    pub payment_id: String,
    /// From 1.
    pub sequence: i32,
    /// What happened.
    pub kind: String,
    /// To which refund.
    pub refund_id: Option<String>,
    /// Whether the one before it is not younger.
    pub in_order: bool,
}

impl Database {
    /// Reads all of it.
    ///
    /// # Errors
    /// The database.
    pub async fn read(pool: &PgPool) -> Result<Self> {
        let payments = sqlx::query(
            "SELECT merchant_id::text, payment_id::text, reference, status, amount, amount_captured, amount_refunded,
                    currency, last_event FROM payments",
        );
        let refunds = sqlx::query(
            "SELECT merchant_id::text, refund_id::text, payment_id::text, amount, status FROM refunds",
        );
        let operations = sqlx::query(
            "SELECT merchant_id::text, idempotency_key, payment_id::text, kind, answer_status, answer_body,
                    format('%s attempts, %s 5xx, due at %s, absent since %s, contradicted at %s', attempts, server_errors,
                           lease_until, absent_since, contradicted_at)
             FROM operations WHERE idempotency_key IS NOT NULL",
        );
        let events = sqlx::query(
            "SELECT merchant_id::text, payment_id::text, sequence, type, data->>'refund_id',
                    COALESCE(occurred_at >= lag(occurred_at) OVER (
                        PARTITION BY merchant_id, payment_id ORDER BY sequence), true)
             FROM events ORDER BY merchant_id, payment_id, sequence",
        );
        Ok(Self {
            payments: payments
                .fetch_all(pool)
                .await?
                .iter()
                .map(|row| PaymentRow {
                    merchant_id: row.get(0),
                    id: row.get(1),
                    reference: row.get(2),
                    status: row.get(3),
                    amount: row.get(4),
                    captured: row.get(5),
                    refunded: row.get(6),
                    currency: row.get(7),
                    last_event: row.get(8),
                })
                .collect(),
            refunds: refunds
                .fetch_all(pool)
                .await?
                .iter()
                .map(|row| RefundRow {
                    merchant_id: row.get(0),
                    id: row.get(1),
                    payment_id: row.get(2),
                    amount: row.get(3),
                    status: row.get(4),
                })
                .collect(),
            operations: operations
                .fetch_all(pool)
                .await?
                .iter()
                .map(|row| OperationRow {
                    merchant_id: row.get(0),
                    key: row.get(1),
                    payment_id: row.get(2),
                    kind: row.get(3),
                    progress: row.get(6),
                    answer: row.get::<Option<i16>, _>(4).map(|status| (status.unsigned_abs(), row.get(5))),
                })
                .collect(),
            events: events
                .fetch_all(pool)
                .await?
                .iter()
                .map(|row| EventRow {
                    merchant_id: row.get(0),
                    payment_id: row.get(1),
                    sequence: row.get(2),
                    kind: row.get(3),
                    refund_id: row.get(4),
                    in_order: row.get(5),
                })
                .collect(),
        })
    }
}
