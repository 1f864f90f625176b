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
}

impl EventType {
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
