//! Text of this world, held against the types.
#![allow(clippy::unwrap_used, reason = "a panic is a test's verdict")]

mod emoji;
mod names;
