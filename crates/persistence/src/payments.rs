//! Payments: claiming a new one, reading, listing.

use crate::idempotency::KnownKey;
use crate::operations::{Claim, claim};
use crate::span::Traced;
use crate::{Store, StoreError, events};
use domain::event::EventType;
use domain::id::{EventId, MerchantId, PaymentId};
use domain::money::{Amount, Currency, Money};
use domain::operation::{Lease, Operation, OperationKind};
use domain::payment::{
    CaptureMethod, Customer, Metadata, NewPayment, Payment, PendingOperation, State, Status,
};
use domain::provider::{Failure, IntentId};
use domain::text::{
    Description, Email, MetadataKey, MetadataValue, PaymentMethod, PersonName, Reference, ReturnUrl,
    StatementDescriptor,
};
use std::time::Instant;
use time::OffsetDateTime;
use uuid::Uuid;

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The payment is written, and the operation is ours to carry out.
    Ours(Operation, Lease),
    /// The key is known. Nothing was written.
    KeyKnown(KnownKey),
    /// A living payment has the reference. Nothing was written.
    ReferenceUsed(PaymentId),
}

/// What a list is narrowed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Any of these.
    pub statuses: Vec<Status>,
    /// Only what has work without an outcome.
    pub open: bool,
    /// Only this order number.
    pub reference: Option<Reference>,
    /// Created at or after.
    pub created_from: Option<OffsetDateTime>,
    /// Created before.
    pub created_to: Option<OffsetDateTime>,
}

/// A payment's columns, in the order of the table. The texts behind are the rest of the statement.
macro_rules! select_payments {
    ($($rest:literal)+, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            PaymentRow,
            "SELECT merchant_id, payment_id, reference, status, pending_operation, pending_amount, amount,
                    amount_captured, amount_refunded, currency, capture, payment_method, description, customer_name,
                    customer_email, statement_descriptor, return_url, metadata, failure_code, failure_message,
                    failure_decline_code, redirect_url, intent_id, created_at, updated_at
             FROM payments " $(+ $rest)+,
            $($argument),*
        )
    };
}

impl Store {
    /// Writes a new payment with its operation, key and first event, or nothing of it: one statement. Of simultaneous
    /// claims with one key or one reference exactly one gets [`Claimed::Ours`].
    ///
    /// # Errors
    /// The database.
    pub async fn claim_payment(&self, payment: &Payment, claim: &Claim<'_>) -> Result<Claimed, StoreError> {
        // The loser of a race sees neither its own insert nor the winner's row within the same statement, so the winner
        // is read by a second one. It can be gone by then: swept, or its payment failed. Then there is a free place.
        const TRIES: usize = 5;
        for _ in 0..TRIES {
            match self.insert_payment(payment, claim).await {
                Ok(Some((operation, lease))) => return Ok(Claimed::Ours(operation, lease)),
                Ok(None) => {
                    if let Some(known) = self.find_idempotency_key(payment.merchant_id, claim.key).await? {
                        return Ok(Claimed::KeyKnown(known));
                    }
                }
                Err(StoreError::ReferenceInUse) => {
                    let reference = &payment.request.reference;
                    if let Some(id) = self.find_by_live_reference(payment.merchant_id, reference).await? {
                        return Ok(Claimed::ReferenceUsed(id));
                    }
                }
                Err(other) => return Err(other),
            }
        }
        Err(StoreError::StateMoved)
    }

    /// `None`: the key is known.
    async fn insert_payment(
        &self,
        payment: &Payment,
        claim: &Claim<'_>,
    ) -> Result<Option<(Operation, Lease)>, StoreError> {
        let request = &payment.request;
        // A used reference raises, so that the key's row goes with it: DO NOTHING there would leave a key without a
        // payment.
        Ok(claim!(
            self,
            payment,
            OperationKind::Charge,
            claim,
            "created AS (
                INSERT INTO payments
                    (merchant_id, payment_id, reference, live_reference, status, amount, currency, capture,
                     payment_method, description, customer_name, customer_email, statement_descriptor, return_url,
                     metadata, last_event, created_at, updated_at)
                SELECT $1, $3, $12, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, 1, $24, $24
                FROM claimed
            ), recorded AS (
                INSERT INTO events
                    (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
                SELECT $1, $3, 1, $25, $26, $24, substr($7, 4, 32)::uuid, $6, $27 FROM claimed
            )",
            request.reference.as_str(),
            payment.state.status().name(),
            request.money.amount().get(),
            request.money.currency().code(),
            request.capture.name(),
            request.payment_method.as_str(),
            request.description.as_ref().map(Description::as_str),
            request.customer.name.as_ref().map(PersonName::as_str),
            request.customer.email.as_ref().map(Email::as_str),
            request.statement_descriptor.as_ref().map(StatementDescriptor::as_str),
            request.return_url.as_ref().map(ReturnUrl::as_str),
            metadata_to_json(&request.metadata),
            payment.created_at,
            EventId::at(payment.created_at).0,
            EventType::Created.name(),
            events::created(request),
        ))
    }

    async fn find_by_live_reference(
        &self,
        merchant_id: MerchantId,
        reference: &Reference,
    ) -> Result<Option<PaymentId>, StoreError> {
        let id = sqlx::query_scalar!(
            "SELECT payment_id FROM payments WHERE merchant_id = $1 AND live_reference = $2",
            merchant_id.0,
            reference.as_str(),
        )
        .fetch_optional(&self.pool)
        .traced("find payment by reference")
        .await?;
        Ok(id.map(PaymentId))
    }

    /// Reads a payment of the merchant.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn find_payment(
        &self,
        merchant_id: MerchantId,
        id: PaymentId,
    ) -> Result<Option<Payment>, StoreError> {
        select_payments!("WHERE merchant_id = $1 AND payment_id = $2", merchant_id.0, id.0)
            .fetch_optional(&self.pool)
            .traced("find payment")
            .await?
            .map(Payment::try_from)
            .transpose()
    }

    /// At most `limit` payments, newest first, older than `before`.
    ///
    /// Ids sort by creation, so a page begins where the one before ended, at the same cost however far the walk got, and
    /// a time range is a range of ids. Each way into the table is a statement of its own, planned for its own index.
    ///
    /// # Errors
    /// The database; a row that this version cannot read.
    pub async fn list_payments(
        &self,
        merchant_id: MerchantId,
        filter: &Filter,
        before: Option<PaymentId>,
        limit: i64,
    ) -> Result<Vec<Payment>, StoreError> {
        let from_time = filter.created_from.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let to_time = filter.created_to.unwrap_or(time::macros::datetime!(9999-12-31 0:00 UTC));
        let lowest = domain::id::lowest_at(from_time);
        // an id of the last millisecond may still be within the range; created_at decides
        let highest = domain::id::lowest_at(to_time.saturating_add(time::Duration::milliseconds(1)));
        let highest = before.map_or(highest, |id| id.0.min(highest));
        let statuses: Vec<String> = filter.statuses.iter().map(|s| s.name().to_owned()).collect();

        macro_rules! page {
            ($narrower:literal $(, $argument:expr)*) => {
                select_payments!(
                    "WHERE merchant_id = $1 AND payment_id < $2 AND payment_id >= $3
                       AND created_at >= $4 AND created_at < $5 AND status = ANY($6) "
                    $narrower
                    " ORDER BY payment_id DESC LIMIT $7",
                    merchant_id.0, highest, lowest, from_time, to_time, &statuses, limit $(, $argument)*
                )
                .fetch_all(&self.pool)
                .traced("list payments")
                .await?
            };
        }
        let rows = match &filter.reference {
            Some(reference) => page!(
                "AND reference = $8 AND (NOT $9 OR payment_id IN (
                     SELECT o.payment_id FROM operations o WHERE o.merchant_id = $1 AND o.settled_at IS NULL
                       AND o.idempotency_key IS NOT NULL))",
                reference.as_str(),
                filter.open
            ),
            None if filter.open => page!(
                "AND payment_id IN (
                     SELECT o.payment_id FROM operations o WHERE o.merchant_id = $1 AND o.settled_at IS NULL
                       AND o.idempotency_key IS NOT NULL)"
            ),
            None => page!(""),
        };
        rows.into_iter().map(Payment::try_from).collect()
    }
}

struct PaymentRow {
    merchant_id: Uuid,
    payment_id: Uuid,
    reference: String,
    status: String,
    pending_operation: Option<String>,
    pending_amount: Option<i64>,
    amount: i64,
    amount_captured: i64,
    amount_refunded: i64,
    currency: String,
    capture: String,
    payment_method: String,
    description: Option<String>,
    customer_name: Option<String>,
    customer_email: Option<String>,
    statement_descriptor: Option<String>,
    return_url: Option<String>,
    metadata: serde_json::Value,
    failure_code: Option<String>,
    failure_message: Option<String>,
    failure_decline_code: Option<String>,
    redirect_url: Option<String>,
    intent_id: Option<String>,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl TryFrom<PaymentRow> for Payment {
    type Error = StoreError;

    fn try_from(row: PaymentRow) -> Result<Self, StoreError> {
        let state = state(&row)?;
        let amount = Amount::new(row.amount).map_err(|_| StoreError::Unreadable("payments.amount"))?;
        let currency =
            Currency::parse(&row.currency).map_err(|_| StoreError::Unreadable("payments.currency"))?;
        Ok(Self {
            id: PaymentId(row.payment_id),
            merchant_id: MerchantId(row.merchant_id),
            request: NewPayment {
                money: Money::new(amount, currency).map_err(|_| StoreError::Unreadable("payments.amount"))?,
                reference: Reference::from_stored(row.reference),
                payment_method: PaymentMethod::from_stored(row.payment_method),
                capture: CaptureMethod::parse(&row.capture)
                    .ok_or(StoreError::Unreadable("payments.capture"))?,
                description: row.description.map(Description::from_stored),
                customer: Customer {
                    name: row.customer_name.map(PersonName::from_stored),
                    email: row.customer_email.map(Email::from_stored),
                },
                statement_descriptor: row.statement_descriptor.map(StatementDescriptor::from_stored),
                return_url: row.return_url.map(ReturnUrl::from_stored),
                metadata: metadata_from_json(row.metadata)?,
            },
            state,
            amount_refunded: row.amount_refunded,
            failure: failure(row.failure_code, row.failure_message, row.failure_decline_code),
            redirect_url: row.redirect_url,
            intent: row
                .intent_id
                .map(|id| IntentId::parse(&id).ok_or(StoreError::Unreadable("payments.intent_id")))
                .transpose()?,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// The three columns that say why something failed.
pub(crate) fn failure(
    code: Option<String>,
    message: Option<String>,
    decline_code: Option<String>,
) -> Option<Failure> {
    Some(Failure { code: code?, message: message?, decline_code })
}

fn state(row: &PaymentRow) -> Result<State, StoreError> {
    const STATE: StoreError = StoreError::Unreadable("payments.status");
    let amount =
        |minor: i64| Amount::new(minor).map_err(|_| StoreError::Unreadable("payments.amount_captured"));
    let pending = match (row.pending_operation.as_deref(), row.pending_amount) {
        (None, _) => None,
        (Some("capture"), Some(minor)) => Some(PendingOperation::Capture(amount(minor)?)),
        (Some("cancel"), _) => Some(PendingOperation::Cancel),
        _ => return Err(StoreError::Unreadable("payments.pending_operation")),
    };
    Ok(match Status::parse(&row.status).ok_or(STATE)? {
        Status::Processing => State::Processing,
        Status::RequiresAction => {
            State::RequiresAction { canceling: pending == Some(PendingOperation::Cancel) }
        }
        Status::Authorized => State::Authorized { pending },
        Status::Captured => State::Captured { amount: amount(row.amount_captured)? },
        Status::Canceled => State::Canceled,
        Status::Failed => State::Failed,
    })
}

pub(crate) fn metadata_to_json(metadata: &Metadata) -> serde_json::Value {
    metadata
        .iter()
        .map(|(key, value)| (key.as_str().to_owned(), serde_json::Value::from(value.as_str())))
        .collect()
}

pub(crate) fn metadata_from_json(json: serde_json::Value) -> Result<Metadata, StoreError> {
    const METADATA: StoreError = StoreError::Unreadable("metadata");
    let serde_json::Value::Object(entries) = json else { return Err(METADATA) };
    entries
        .into_iter()
        .map(|(key, value)| match value {
            serde_json::Value::String(text) => {
                Ok((MetadataKey::from_stored(key), MetadataValue::from_stored(text)))
            }
            _ => Err(METADATA),
        })
        .collect()
}
