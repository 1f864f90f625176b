//! The audit trail: every change of a payment leaves exactly one event, numbered from 1 without gaps.

use crate::id::KeyId;

/// What happened to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// The payment was accepted and its first charge has no outcome yet.
    Created,
    /// The provider holds the money until it is captured.
    Authorized,
    /// The money moved.
    Captured,
    /// The customer has to confirm at a page of the bank.
    RequiresAction,
    /// Released without moving money.
    Canceled,
    /// It ended without holding or moving money.
    Failed,
    /// A capture was asked for.
    CaptureRequested,
    /// The provider declined the capture.
    CaptureFailed,
    /// A cancel was asked for.
    CancelRequested,
    /// The cancel could not be carried out.
    CancelFailed,
    /// The provider answered something that cannot belong to this payment. A person has to look.
    Contradicted,
    /// A refund was asked for, and its amount counts as refunded.
    RefundCreated,
    /// The money is on its way back.
    RefundSucceeded,
    /// No money went back, or it returned. Its amount counts as refunded no longer.
    RefundFailed,
}

impl EventType {
    /// Every type there is.
    pub const ALL: [Self; 14] = [
        Self::Created,
        Self::Authorized,
        Self::Captured,
        Self::RequiresAction,
        Self::Canceled,
        Self::Failed,
        Self::CaptureRequested,
        Self::CaptureFailed,
        Self::CancelRequested,
        Self::CancelFailed,
        Self::Contradicted,
        Self::RefundCreated,
        Self::RefundSucceeded,
        Self::RefundFailed,
    ];

    /// The name callers see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "payment.created",
            Self::Authorized => "payment.authorized",
            Self::Captured => "payment.captured",
            Self::RequiresAction => "payment.requires_action",
            Self::Canceled => "payment.canceled",
            Self::Failed => "payment.failed",
            Self::CaptureRequested => "payment.capture_requested",
            Self::CaptureFailed => "payment.capture_failed",
            Self::CancelRequested => "payment.cancel_requested",
            Self::CancelFailed => "payment.cancel_failed",
            Self::Contradicted => "payment.contradicted",
            Self::RefundCreated => "refund.created",
            Self::RefundSucceeded => "refund.succeeded",
            Self::RefundFailed => "refund.failed",
        }
    }
}

/// Who asked for a change. Whoever carries it out later does not change it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A merchant, by one of its keys.
    Key(KeyId),
    /// The service itself: something that nobody completed in time.
    Worker,
    /// An operator's comparison of provider and database.
    Reconcile,
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::Worker => f.write_str("worker"),
            Self::Reconcile => f.write_str("reconcile"),
        }
    }
}
