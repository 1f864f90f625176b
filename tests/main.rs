//! End to end: service, database and simulator as real processes, over real sockets. A module per story.

mod capture_and_cancel;
mod card_numbers;
mod clients;
mod coverage;
mod crash;
mod deadlines;
mod documents;
mod hang_up;
mod idempotency;
mod interop;
mod it_works;
mod lifecycle;
mod metrics;
mod openapi;
mod order_of_checks;
mod provider_answers;
mod race;
mod reconcile;
mod refunds;
mod requires_action;
mod schemathesis;
mod support;
mod takes_a_payment;
mod traces;
mod validation;
