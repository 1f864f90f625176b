//! Forgetting: keys and answers that settled long enough ago, in batches, so that no table grows without bound.

use crate::state::App;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(60);
const BATCH: i64 = 1_000;

/// Never ends by itself.
pub(super) async fn run(app: &App) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Some(limit) = &app.rate_limit {
            limit.sweep();
        }
        loop {
            match app.store.sweep_operations(app.settings.idempotency_ttl, BATCH).await {
                Ok(0) => break,
                Ok(swept) => tracing::info!(swept, "old idempotency keys forgotten"),
                Err(error) => {
                    tracing::warn!(%error, "old idempotency keys not forgotten yet");
                    break;
                }
            }
        }
    }
}
