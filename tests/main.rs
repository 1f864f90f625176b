//! End to end: service, database and simulator as real processes, over real sockets. A module per story.

mod takes_a_payment;
