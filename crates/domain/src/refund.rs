//! A refund: money of a captured payment on its way back.

use crate::event::EventType;
use crate::id::{MerchantId, PaymentId, RefundId};
use crate::money::{Amount, Money};
use crate::payment::Metadata;
use crate::provider::{Failure, RefundObjectId};
use time::OffsetDateTime;

/// Why a merchant gives money back (Stripe API: the Refund object, `reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundReason {
    /// Charged twice by the merchant's own mistake.
    Duplicate,
    /// The customer did not order it.
    Fraudulent,
    /// The customer wants it.
    RequestedByCustomer,
}

impl RefundReason {
    /// Every reason there is.
    pub const ALL: [Self; 3] = [Self::Duplicate, Self::Fraudulent, Self::RequestedByCustomer];

    /// The name callers and the provider use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Fraudulent => "fraudulent",
            Self::RequestedByCustomer => "requested_by_customer",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// What a merchant asks for when it refunds a payment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRefund {
    /// Minor units; without it all that is left.
    pub amount: Option<Amount>,
    /// Why.
    pub reason: Option<RefundReason>,
    /// The merchant's notes. They stay here.
    pub metadata: Metadata,
}

/// What callers see of a refund's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundStatus {
    /// Asked for; no outcome yet. Its amount counts as refunded.
    Processing,
    /// The money is on its way to the customer.
    Succeeded,
    /// No money moved, or it came back.
    Failed,
}

impl RefundStatus {
    /// Every status there is.
    pub const ALL: [Self; 3] = [Self::Processing, Self::Succeeded, Self::Failed];

    /// The name callers see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

/// A refund as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// Its id.
    pub id: RefundId,
    /// Whose it is.
    pub merchant_id: MerchantId,
    /// What it gives back.
    pub payment_id: PaymentId,
    /// How much, in the payment's currency.
    pub money: Money,
    /// Why.
    pub reason: Option<RefundReason>,
    /// The merchant's notes.
    pub metadata: Metadata,
    /// Where it stands.
    pub status: RefundStatus,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// The provider's id of it, once it is known.
    pub object: Option<RefundObjectId>,
    /// When it was asked for, to the microsecond. Its id holds the same instant.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// What the provider says about a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundChange {
    /// The money is on its way.
    Succeeded,
    /// Declined, rejected or canceled; also after it had succeeded, when the bank sends the money back.
    Failed,
}

/// The refund's state does not allow the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{change:?} is not possible while the refund is {from:?}")]
pub struct IllegalRefundTransition {
    /// Where the refund stands.
    pub from: RefundStatus,
    /// What was to happen.
    pub change: RefundChange,
}

/// A legal step of a refund. Only [`Refund::transition`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefundTransition {
    from: RefundStatus,
    to: RefundStatus,
    event: EventType,
}

impl RefundTransition {
    /// The status the refund must still have.
    #[must_use]
    pub const fn from(&self) -> RefundStatus {
        self.from
    }

    /// The status it will have.
    #[must_use]
    pub const fn to(&self) -> RefundStatus {
        self.to
    }

    /// The event it leaves in the audit trail.
    #[must_use]
    pub const fn event(&self) -> EventType {
        self.event
    }
}

impl Refund {
    /// The table of legal transitions.
    ///
    /// # Errors
    /// Every pair of status and change that has no row: what failed stays failed, and nothing succeeds twice.
    pub const fn transition(
        &self,
        change: RefundChange,
    ) -> Result<RefundTransition, IllegalRefundTransition> {
        use RefundStatus::{Failed, Processing, Succeeded};

        let from = self.status;
        let (to, event) = match (from, change) {
            (Processing, RefundChange::Succeeded) => (Succeeded, EventType::RefundSucceeded),
            // a bank may send the money back weeks later
            (Processing | Succeeded, RefundChange::Failed) => (Failed, EventType::RefundFailed),
            _ => return Err(IllegalRefundTransition { from, change }),
        };
        Ok(RefundTransition { from, to, event })
    }

    /// The refund after a step that was made from it.
    #[must_use]
    pub fn after(mut self, step: &RefundTransition, at: OffsetDateTime) -> Self {
        self.status = step.to;
        self.updated_at = self.updated_at.max(at);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::{CaptureMethod, State, tests::payment};
    use RefundStatus::{Failed, Processing, Succeeded};

    fn refund(status: RefundStatus) -> Refund {
        let captured =
            payment(State::Captured { amount: Amount::new(1000).unwrap() }, CaptureMethod::Automatic);
        let refund = captured.request_refund(NewRefund::default(), captured.created_at).unwrap();
        Refund { status, ..refund }
    }

    #[test]
    fn every_step_is_in_the_table() {
        for (from, change, to) in [
            (Processing, RefundChange::Succeeded, Some(Succeeded)),
            (Processing, RefundChange::Failed, Some(Failed)),
            (Succeeded, RefundChange::Failed, Some(Failed)),
            (Succeeded, RefundChange::Succeeded, None),
            (Failed, RefundChange::Succeeded, None),
            (Failed, RefundChange::Failed, None),
        ] {
            let step = refund(from).transition(change);
            assert_eq!(step.as_ref().map(RefundTransition::to).ok(), to, "{from:?} {change:?}");
            if let Ok(step) = step {
                assert_eq!(step.event().name(), format!("refund.{}", step.to().name()));
            }
        }
    }

    #[test]
    fn a_refund_never_seems_to_change_before_it_last_did() {
        let refund = refund(Processing);
        let step = refund.transition(RefundChange::Succeeded).unwrap();
        let earlier = refund.created_at - time::Duration::SECOND;
        assert_eq!(refund.clone().after(&step, earlier).updated_at, refund.updated_at);
    }

    #[test]
    fn names_are_read_back() {
        for status in RefundStatus::ALL {
            assert_eq!(RefundStatus::parse(status.name()), Some(status));
        }
        for reason in RefundReason::ALL {
            assert_eq!(RefundReason::parse(reason.name()), Some(reason));
        }
        assert_eq!(RefundReason::parse("regret"), None);
    }
}
