//! What every request passes through. [`crate::http::router`] says in which order.

pub mod auth;
pub mod limits;
pub mod rate_limit;
pub mod shed;
pub mod trace;
