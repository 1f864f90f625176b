//! What is known about a caller's key.

use crate::span::Traced;
use crate::{Store, StoreError};
use domain::faults::{Bug, planted};
use domain::id::{MerchantId, OperationId, PaymentId, RefundId};
use domain::idempotency::{Fingerprint, IdempotencyKey};
use std::time::Duration;

/// An answer as it was first given, and is given ever after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// The HTTP status: 200, 201, 402 or 409.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

impl StoredAnswer {
    pub(crate) fn status_column(&self) -> Result<i16, StoreError> {
        i16::try_from(self.status).map_err(|_| StoreError::Unreadable("answer status"))
    }
}

/// A key that an operation was written for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownKey {
    /// The operation.
    pub operation_id: OperationId,
    /// What it is about.
    pub payment_id: PaymentId,
    /// The refund, if it is one.
    pub refund_id: Option<RefundId>,
    /// How far it is.
    pub state: KeyState,
    fingerprint: Vec<u8>,
}

/// How far the operation of a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyState {
    /// It ended with this answer.
    Settled(StoredAnswer),
    /// The first caller still waits.
    BeingServed,
    /// The first caller got its 202, or is gone.
    Open,
}

impl KnownKey {
    /// Whether the key was used for the same request.
    #[must_use]
    pub fn is_same_request(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint == fingerprint.as_bytes() || planted(Bug::FingerprintIgnored)
    }
}

impl Store {
    /// Looks a key up.
    ///
    /// # Errors
    /// The database.
    pub async fn find_idempotency_key(
        &self,
        merchant_id: MerchantId,
        key: &IdempotencyKey,
    ) -> Result<Option<KnownKey>, StoreError> {
        let row = sqlx::query!(
            r#"SELECT operation_id, payment_id, refund_id, fingerprint AS "fingerprint!",
                      answer_status, answer_location, answer_body,
                      COALESCE(served_until > now(), false) AS "being_served!"
               FROM operations WHERE merchant_id = $1 AND idempotency_key = $2"#,
            merchant_id.0,
            key.as_str(),
        )
        .fetch_optional(&self.pool)
        .traced("find idempotency key")
        .await?;
        row.map(|row| {
            let state = match (row.answer_status, row.answer_body) {
                (Some(status), Some(body)) => KeyState::Settled(StoredAnswer {
                    status: u16::try_from(status)
                        .map_err(|_| StoreError::Unreadable("operations.answer_status"))?,
                    location: row.answer_location,
                    body,
                }),
                _ if row.being_served => KeyState::BeingServed,
                _ => KeyState::Open,
            };
            Ok(KnownKey {
                operation_id: OperationId(row.operation_id),
                payment_id: PaymentId(row.payment_id),
                refund_id: row.refund_id.map(RefundId),
                state,
                fingerprint: row.fingerprint,
            })
        })
        .transpose()
    }

    /// Says that the first caller still waits, for at most `longer` from now on.
    ///
    /// # Errors
    /// The database.
    pub async fn keep_serving(
        &self,
        merchant_id: MerchantId,
        operation_id: OperationId,
        longer: Duration,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE operations SET served_until = now() + make_interval(secs => $3)
             WHERE merchant_id = $1 AND operation_id = $2 AND lease_until < 'infinity'",
            merchant_id.0,
            operation_id.0,
            longer.as_secs_f64(),
        )
        .execute(&self.pool)
        .traced("keep serving")
        .await?;
        Ok(())
    }

    /// Says that the first caller gets its 202 now. `false`: the operation settled in the meantime, and there is a
    /// better answer.
    ///
    /// # Errors
    /// The database.
    pub async fn acknowledge(
        &self,
        merchant_id: MerchantId,
        operation_id: OperationId,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE operations SET served_until = NULL
             WHERE merchant_id = $1 AND operation_id = $2 AND lease_until < 'infinity'",
            merchant_id.0,
            operation_id.0,
        )
        .execute(&self.pool)
        .traced("acknowledge operation")
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
