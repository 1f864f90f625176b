//! What is checked: sub-models that together have every request, and are each small enough to be visited to the end.

use super::properties;
use super::protocol::Scope;
use super::rules::Rule;
use super::state::{Payment, Request};

/// Two keys create a payment on one reference.
pub const CREATE: Scope = Scope {
    name: "create",
    payments: &[Payment::NONE; 2],
    requests: &[Request::Create; 2],
    sometimes: &[
        properties::SETTLED_AFTER_ALL_DEATHS,
        properties::TAKEN_OVER,
        properties::GOES_ON_TOO_LATE,
        properties::DONE_UNKNOWN,
        properties::ID_FORGOTTEN,
        properties::CLOSED_IN_TIME,
        properties::FAILED_BY_SEARCHING,
        properties::TURNED_AWAY,
        properties::REFERENCE_USED_AGAIN,
    ],
    rules: &[
        Rule::OperationsIdempotencyKey,
        Rule::PaymentsLiveReferenceKey,
        Rule::OperationIdAsProviderKey,
        Rule::LeaseRunsOut,
        Rule::MaySend,
        Rule::ChargingLease,
        Rule::StepClose,
        Rule::IsAbsent,
        Rule::NextStepMargin,
    ],
    ..NOTHING
};

/// Two captures and a cancel of one payment: whoever is refused leaves room for the next.
pub const CHANGE: Scope = Scope {
    name: "capture and cancel",
    payments: &[Payment::HELD],
    requests: &[Request::Capture(2), Request::Capture(3), Request::Cancel],
    sometimes: &[
        properties::SETTLED_AFTER_ALL_DEATHS,
        properties::TAKEN_OVER,
        properties::GOES_ON_TOO_LATE,
        properties::DONE_UNKNOWN,
        properties::ID_FORGOTTEN,
        properties::DECIDED_AT_ONCE,
        properties::CAPTURED_AT_LAST,
    ],
    rules: &[Rule::SettleToken, Rule::ClaimStepGuard],
    ..NOTHING
};

/// A capture, a cancel, and two refunds that together are more than the capture.
pub const REFUND: Scope = Scope {
    name: "capture, cancel and refund",
    payments: &[Payment::HELD],
    requests: &[Request::Capture(2), Request::Cancel, Request::Refund(1), Request::Refund(2)],
    sometimes: &[
        properties::SETTLED_AFTER_ALL_DEATHS,
        properties::TAKEN_OVER,
        properties::GOES_ON_TOO_LATE,
        properties::DONE_UNKNOWN,
        properties::ID_FORGOTTEN,
        properties::DECIDED_AT_ONCE,
        properties::REFUNDED,
    ],
    rules: &[
        Rule::OperationIdAsProviderKey,
        Rule::MaySend,
        Rule::LooksFirst,
        Rule::LooksFirstMargin,
        Rule::ClaimRefundGuard,
    ],
    ..NOTHING
};

/// Two refunds that the payment has enough for, open at the same time.
pub const TWO_REFUNDS: Scope = Scope {
    name: "two refunds",
    payments: &[Payment::MOVED],
    requests: &[Request::Refund(1), Request::Refund(2)],
    sometimes: &[
        properties::SETTLED_AFTER_ALL_DEATHS,
        properties::TAKEN_OVER,
        properties::GOES_ON_TOO_LATE,
        properties::DONE_UNKNOWN,
        properties::ID_FORGOTTEN,
        properties::BOTH_OPEN,
    ],
    ..NOTHING
};

/// All of them.
pub const ALL: [Scope; 4] = [CREATE, CHANGE, REFUND, TWO_REFUNDS];

const NOTHING: Scope = Scope {
    name: "",
    payments: &[],
    requests: &[],
    workers: 3,
    crashes: 2,
    pauses: 1,
    in_one_go: false,
    sometimes: &[],
    rules: &[],
};
