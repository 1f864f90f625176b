//! Runs the real `provider-simulator` and speaks to it over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a helper that fails fails its test; clippy.toml allows this in test functions only"
)]

mod faults;
mod harness;
mod process;
mod protocol;
