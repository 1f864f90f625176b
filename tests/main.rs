//! End to end: service, database and simulator as real processes, over real sockets. A module per story.

mod crash;
mod deadlines;
mod hang_up;
mod idempotency;
mod lifecycle;
mod openapi;
mod order_of_checks;
mod provider_answers;
mod race;
mod schemathesis;
mod support;
mod takes_a_payment;
mod validation;
