//! The background worker: finishes what a request left open, forgets what is old, and compares with the provider.

mod reconcile;
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
        () = reconcile::run(&app) => {}
    }
}
