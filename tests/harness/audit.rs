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
    /// Charges and refunds that belong to nothing.
    pub unknown_charges: usize,
    /// Payments or refunds with more than one effect of a kind at the provider, or both captured and canceled there.
    pub repeated_effects: usize,
    /// Refunds whose end, or amount, is another at the provider.
    pub refunds_differ: usize,
    /// Payments whose refunded amount is not the sum of their refunds, here or at the provider.
    pub wrong_sums: usize,
    /// Operations without an outcome.
    pub open: usize,
    /// Payments whose events have a gap, go back in time, or do not end where the payment stands.
    pub broken_trails: usize,
}

struct PaymentRow {
    status: String,
    amount: i64,
    captured: i64,
    refunded: i64,
    currency: String,
}

struct RefundRow {
    payment_id: String,
    amount: i64,
    status: String,
}

impl Audit {
    /// Compares.
    ///
    /// # Errors
    /// The database.
    pub async fn of(ledger: &Value, pool: &PgPool) -> Result<Self> {
        let rows = sqlx::query(
            "SELECT payment_id::text, status, amount, amount_captured, currency, amount_refunded FROM payments",
        );
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
                    refunded: row.get(5),
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
        audit.effects(ledger);
        audit.refunds(&charges, &payments, pool).await?;
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM operations WHERE settled_at IS NULL AND idempotency_key IS NOT NULL",
        )
        .fetch_one(pool)
        .await?;
        audit.open = usize::try_from(open)?;
        let broken: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM payments p LEFT JOIN (
                SELECT merchant_id, payment_id, count(*) AS events, min(sequence) AS first, max(sequence) AS last,
                       (array_agg(type ORDER BY sequence DESC) FILTER (WHERE type IN (
                           'payment.created', 'payment.authorized', 'payment.captured', 'payment.requires_action',
                           'payment.canceled', 'payment.failed')))[1] AS latest,
                       count(*) FILTER (WHERE type = 'refund.created') AS refunds
                FROM events GROUP BY merchant_id, payment_id
             ) e USING (merchant_id, payment_id)
             WHERE e.first IS DISTINCT FROM 1 OR e.events <> e.last OR e.last <> p.last_event
                OR e.latest <> CASE p.status WHEN 'processing' THEN 'payment.created' ELSE 'payment.' || p.status END
                OR EXISTS (SELECT FROM events a JOIN events b USING (merchant_id, payment_id)
                           WHERE (a.merchant_id, a.payment_id) = (p.merchant_id, p.payment_id)
                             AND b.sequence = a.sequence + 1 AND b.occurred_at < a.occurred_at)
                OR e.refunds <> (SELECT count(*) FROM refunds r
                                 WHERE (r.merchant_id, r.payment_id) = (p.merchant_id, p.payment_id))",
        )
        .fetch_one(pool)
        .await?;
        audit.broken_trails = usize::try_from(broken)?;
        Ok(audit)
    }

    /// Counts what the provider did twice.
    fn effects(&mut self, ledger: &Value) {
        let mut seen: HashMap<(String, String), usize> = HashMap::new();
        for entry in ledger["entries"].as_array().into_iter().flatten() {
            // a capture and a cancel exclude each other
            let (kind, subject) = match entry["kind"].as_str().unwrap_or_default() {
                "refund" => ("refund", &entry["refund_id"]),
                "authorize" => ("authorize", &entry["payment_id"]),
                _ => ("end", &entry["payment_id"]),
            };
            // what was canceled to close a key never held anything
            if kind == "end" && entry["amount"] == 0 {
                continue;
            }
            *seen.entry((kind.to_owned(), subject.to_string())).or_default() += 1;
        }
        self.repeated_effects = seen.values().filter(|count| **count > 1).count();
    }

    async fn refunds(
        &mut self,
        charges: &[Value],
        payments: &HashMap<String, PaymentRow>,
        pool: &PgPool,
    ) -> Result<()> {
        let rows = sqlx::query("SELECT refund_id::text, payment_id::text, amount, status FROM refunds");
        let refunds: HashMap<String, RefundRow> = rows
            .fetch_all(pool)
            .await?
            .into_iter()
            .map(|row| {
                (row.get(0), RefundRow { payment_id: row.get(1), amount: row.get(2), status: row.get(3) })
            })
            .collect();
        let mut ends: HashMap<&str, &Value> = HashMap::new();
        for refund in charges.iter().flat_map(|charge| charge["refunds"].as_array().into_iter().flatten()) {
            match refund["refund_id"].as_str().filter(|id| refunds.contains_key(*id)) {
                Some(id) => _ = ends.insert(id, refund),
                None => self.unknown_charges += 1,
            }
        }
        let mut sums: HashMap<&str, i64> = HashMap::new();
        for (id, refund) in &refunds {
            if refund.status != "failed" {
                *sums.entry(&refund.payment_id).or_default() += refund.amount;
            }
            let agrees = match (refund.status.as_str(), ends.get(id.as_str())) {
                ("succeeded", Some(there)) => {
                    there["amount"] == refund.amount && matches!(there["status"].as_str(), Some("succeeded"))
                }
                ("failed", Some(there)) => matches!(there["status"].as_str(), Some("failed" | "canceled")),
                ("failed", None) => true,
                // open, and counted as such
                ("processing", _) => true,
                _ => false,
            };
            self.refunds_differ += usize::from(!agrees);
        }
        let open = refunds.values().filter(|refund| refund.status == "processing");
        let open: Vec<&str> = open.map(|refund| refund.payment_id.as_str()).collect();
        for (id, payment) in payments {
            let here = sums.get(id.as_str()).copied().unwrap_or(0);
            let there = charges.iter().find(|charge| charge["payment_id"] == id.as_str());
            let there = there.and_then(|charge| charge["amount_refunded"].as_i64()).unwrap_or(0);
            let same_there = there == payment.refunded || open.contains(&id.as_str());
            self.wrong_sums += usize::from(here != payment.refunded || !same_there);
        }
        Ok(())
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
             charges of nobody {}, repeated effects {}, refunds that differ {}, wrong sums {}, open {}, broken trails {}",
            self.payments,
            self.charges,
            self.charged_twice,
            self.not_charged,
            self.failed_with_money,
            self.unknown_charges,
            self.repeated_effects,
            self.refunds_differ,
            self.wrong_sums,
            self.open,
            self.broken_trails
        )
    }
}
