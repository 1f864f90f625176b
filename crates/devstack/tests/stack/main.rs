//! The stack's own work: starting, supervising, restarting and stopping processes.
//!
//! The programs are stand-ins; the real ones are driven by the workspace's end-to-end tests.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

mod library;
mod program;
mod stand_ins;

use std::fs;
use std::time::{Duration, Instant};

fn runs(pid: impl std::fmt::Display) -> bool {
    // A zombie has ended, whoever still has to read its status.
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

async fn until(what: &str, mut met: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !met().await {
        assert!(Instant::now() < deadline, "not within twenty seconds: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
