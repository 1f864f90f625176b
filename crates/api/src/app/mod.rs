//! The use cases: what happens, in which order. No SQL and no HTTP.
//!
//! [`once`] is the road of every request that moves money, from its key to its answer; `payments` and `refunds` say what
//! each of them begins. [`operations`] carries out what was begun, whoever holds it: `charge`, `capture`, `refunds` and
//! `watch` have the steps at the provider, `retry` the second try of one. [`reconcile`] looks whether provider and database agree.

mod capture;
mod charge;
pub mod merchants;
pub mod once;
pub mod operations;
pub mod payments;
pub mod reconcile;
pub mod refunds;
mod retry;
mod watch;
