//! The use cases: what happens, in which order. No SQL and no HTTP.

pub mod charge;
pub mod merchants;
pub mod payments;
