//! The background worker: finishes what a request left open, forgets what is old, and compares with the provider.

mod reconcile;
mod settle;
mod sweep;

use crate::state::App;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many calls to the provider are made at once for work that nobody waits for: what the worker carries out, a
/// comparison, and looks whether the provider is there and takes our credentials.
pub const PLACES: usize = settle::AT_ONCE + 4;
/// How often a process without a worker looks whether the provider is to be probed.
const LOOK: Duration = Duration::from_millis(200);

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

/// Probes a provider that is down, in a process without a worker: there is nothing it could finish on the way. Runs until
/// the process stops taking new work.
pub async fn keep_probing(app: Arc<App>) {
    let probing = async {
        loop {
            tokio::time::sleep(LOOK).await;
            if app.breaker.wants_probe(Instant::now()) {
                probe(&app).await;
            }
        }
    };
    tokio::select! {
        () = app.stop.worker.cancelled() => {}
        () = probing => {}
    }
}

/// Asks the provider for nothing in particular. What comes of it the circuit breaker sees by itself.
async fn probe(app: &App) {
    let _ = app.provider.check_credentials().await;
}
