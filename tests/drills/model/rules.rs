//! The rules of the protocol that can be taken away, one at a time.

use super::properties::{self, Always};
use super::protocol::Scope;

/// A rule, and where in the code it is.
///
/// Where the code says the same thing twice, a guarded UPDATE and a CHECK, say, both are one rule here: otherwise
/// nothing would follow from taking one of them away. The guard of `settle` on the payment's own state is not here for
/// that reason: in the model it says nothing that the token does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// The unique constraint on a merchant's key.
    OperationsIdempotencyKey,
    /// The unique constraint on a living payment's reference.
    PaymentsLiveReferenceKey,
    /// The operation's id is the provider's key at every attempt.
    OperationIdAsProviderKey,
    /// `lease_until <= now()`: a lease is lost by time alone.
    LeaseRunsOut,
    /// `may_send`, `Lease::covers`: nothing is sent that the lease does not cover.
    MaySend,
    /// `lease_until = $3` in `settle`: only the last token settles.
    SettleToken,
    /// `charging_lease`: no charge leaves after its window.
    ChargingLease,
    /// `Step::Close`: past its window the charge's id is taken.
    StepClose,
    /// `is_absent`: two searches, a lease apart.
    IsAbsent,
    /// The lease of margin in `next_step`: nothing is closed that the provider may forget meanwhile.
    NextStepMargin,
    /// `looks_first`: what may be forgotten is looked for before it is sent again.
    LooksFirst,
    /// The lease of margin in `looks_first`.
    LooksFirstMargin,
    /// The guard of `claim_step`: the payment still stands as the step was decided on.
    ClaimStepGuard,
    /// The guarded UPDATE of `claim_refund`, and CHECK `payments_amounts_ordered`.
    ClaimRefundGuard,
}

impl Rule {
    /// The name in the code.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OperationsIdempotencyKey => "operations_idempotency_key",
            Self::PaymentsLiveReferenceKey => "payments_live_reference_key",
            Self::OperationIdAsProviderKey => "operation id as provider key",
            Self::LeaseRunsOut => "lease_until <= now() in due_operations",
            Self::MaySend => "may_send (Lease::covers)",
            Self::SettleToken => "lease_until = $3 in settle",
            Self::ChargingLease => "charging_lease",
            Self::StepClose => "Step::Close",
            Self::IsAbsent => "is_absent",
            Self::NextStepMargin => "margin of next_step",
            Self::LooksFirst => "looks_first",
            Self::LooksFirstMargin => "margin of looks_first",
            Self::ClaimStepGuard => "guard of claim_step",
            Self::ClaimRefundGuard => "guard of claim_refund",
        }
    }

    /// What does not hold without it, in this scope.
    pub fn protects(self, scope: &Scope) -> Always {
        match self {
            Self::OperationsIdempotencyKey => properties::ONE_ANSWER,
            Self::PaymentsLiveReferenceKey => properties::ONE_LIVING_PAYMENT,
            Self::OperationIdAsProviderKey if scope.is_create() => properties::ONE_CHARGE,
            Self::MaySend if scope.is_create() => properties::NOTHING_ENDED_HOLDS_MONEY,
            Self::OperationIdAsProviderKey | Self::MaySend | Self::LooksFirst | Self::LooksFirstMargin => {
                properties::ONE_EFFECT
            }
            Self::LeaseRunsOut => properties::CAN_BE_SETTLED,
            Self::SettleToken => properties::ONE_SETTLEMENT,
            Self::ChargingLease | Self::StepClose | Self::IsAbsent | Self::NextStepMargin => {
                properties::NOTHING_ENDED_HOLDS_MONEY
            }
            Self::ClaimStepGuard => properties::ONE_OPEN_CHANGE,
            Self::ClaimRefundGuard => properties::REFUNDS_WITHIN_CAPTURE,
        }
    }
}
