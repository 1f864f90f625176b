//! Two witnesses compared: the provider's ledger, and the database after everything came to rest.

use anyhow::{Result, ensure};
use serde_json::Value;
use sqlx::{PgPool, Row};
use std::collections::HashMap;
use std::fmt;

/// What was found. Every count but the first two must be 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audit {
    /// Payments in the database.
    pub payments: usize,
    /// Charges in the ledger.
    pub charges: usize,
    /// Payments with more than one charge.
    pub charged_twice: usize,
    /// Payments that hold or moved money by the database and not, or for another amount, at the provider.
    pub not_charged: usize,
    /// Payments that failed or were canceled by the database and hold money at the provider.
    pub failed_with_money: usize,
    /// Charges that belong to no payment.
    pub unknown_charges: usize,
    /// Operations without an outcome.
    pub open: usize,
    /// Payments whose events have a gap, or do not end where the payment stands.
    pub broken_trails: usize,
}

struct PaymentRow {
    status: String,
    amount: i64,
    captured: i64,
    currency: String,
}

impl Audit {
    /// Compares.
    ///
    /// # Errors
    /// The database.
    pub async fn of(ledger: &Value, pool: &PgPool) -> Result<Self> {
        let rows =
            sqlx::query("SELECT payment_id::text, status, amount, amount_captured, currency FROM payments");
        let payments: HashMap<String, PaymentRow> = rows
            .fetch_all(pool)
            .await?
            .into_iter()
            .map(|row| {
                let payment = PaymentRow {
                    status: row.get(1),
                    amount: row.get(2),
                    captured: row.get(3),
                    currency: row.get(4),
                };
                (row.get(0), payment)
            })
            .collect();
        let charges = ledger["charges"].as_array().cloned().unwrap_or_default();
        let mut audit = Self { payments: payments.len(), charges: charges.len(), ..Self::default() };

        let mut by_payment: HashMap<&str, Vec<&Value>> = HashMap::new();
        for charge in &charges {
            match charge["payment_id"].as_str().filter(|id| payments.contains_key(*id)) {
                Some(id) => by_payment.entry(id).or_default().push(charge),
                None => audit.unknown_charges += 1,
            }
        }
        for (id, payment) in &payments {
            let charges = by_payment.get(id.as_str()).map_or(&[][..], Vec::as_slice);
            audit.charged_twice += usize::from(charges.len() > 1);
            let holds = charges.iter().any(|charge| charge["status"] != "canceled");
            match payment.status.as_str() {
                "captured" | "authorized" => {
                    let same = charges.first().is_some_and(|charge| {
                        charge["amount"] == payment.amount
                            && charge["amount_captured"] == payment.captured
                            && charge["currency"].as_str().map(str::to_uppercase).as_ref()
                                == Some(&payment.currency)
                    });
                    audit.not_charged += usize::from(!(same && holds));
                }
                "failed" | "canceled" => audit.failed_with_money += usize::from(holds),
                _ => {}
            }
        }
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM operations WHERE settled_at IS NULL AND idempotency_key IS NOT NULL",
        )
        .fetch_one(pool)
        .await?;
        audit.open = usize::try_from(open)?;
        let broken: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM payments p LEFT JOIN (
                SELECT merchant_id, payment_id, count(*) AS events, min(sequence) AS first, max(sequence) AS last,
                       (array_agg(type ORDER BY sequence DESC))[1] AS latest
                FROM events GROUP BY merchant_id, payment_id
             ) e USING (merchant_id, payment_id)
             WHERE e.first IS DISTINCT FROM 1 OR e.events <> e.last OR e.last <> p.last_event
                OR (p.status <> 'processing' AND e.latest <> 'payment.' || p.status)",
        )
        .fetch_one(pool)
        .await?;
        audit.broken_trails = usize::try_from(broken)?;
        Ok(audit)
    }

    /// Whether everything that must be 0 is.
    ///
    /// # Errors
    /// Something is not.
    pub fn verdict(&self) -> Result<()> {
        let clean = Self { payments: self.payments, charges: self.charges, ..Self::default() };
        ensure!(*self == clean, "the books do not agree: {self}");
        Ok(())
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} payments, {} charges; charged twice {}, acknowledged without charge {}, failed with money {}, \
             charges of nobody {}, open {}, broken trails {}",
            self.payments,
            self.charges,
            self.charged_twice,
            self.not_charged,
            self.failed_with_money,
            self.unknown_charges,
            self.open,
            self.broken_trails
        )
    }
}
