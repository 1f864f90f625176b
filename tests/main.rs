//! End to end: service, database and simulator as real processes, over real sockets. A module per story.

mod crash;
mod idempotency;
mod race;
mod support;
mod takes_a_payment;
