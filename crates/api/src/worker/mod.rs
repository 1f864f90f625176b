//! The background worker: finishes what a request left open, and forgets what is old.

mod settle;
mod sweep;

use crate::state::App;
use std::sync::Arc;

/// Runs until the process stops taking new work.
pub async fn run(app: Arc<App>) {
    let stopped = app.stop.worker.clone();
    tokio::select! {
        () = stopped.cancelled() => {}
        () = settle::run(&app) => {}
        () = sweep::run(&app) => {}
    }
}
