//! Leasing what is due and carrying it out: the same steps, by the same code, as in the first request.

use crate::app::operations::carry_out;
use crate::state::App;
use crate::telemetry;
use persistence::operations::Due;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::Instrument;

/// How many operations a worker carries out at once.
const AT_ONCE: usize = 32;
/// How long it rests when nothing is due.
const REST: Duration = Duration::from_millis(200);
/// How long it rests when the database does not answer.
const DATABASE_REST: Duration = Duration::from_secs(1);

/// Never ends by itself.
pub(super) async fn run(app: &Arc<App>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut database_was_there = true;
    loop {
        let free = i64::try_from(places.available_permits()).unwrap_or(0);
        let rest = match app.store.due_operations(free.max(1)).await {
            Ok(due) => {
                if !std::mem::replace(&mut database_was_there, true) {
                    tracing::info!("the database is there again");
                }
                let nothing = due.is_empty();
                for operation in due {
                    take(app, &places, &operation).await;
                }
                if nothing { REST } else { Duration::ZERO }
            }
            Err(error) => {
                if std::mem::replace(&mut database_was_there, false) {
                    tracing::warn!(%error, "the worker waits for the database");
                }
                DATABASE_REST
            }
        };
        // several workers that were started together do not stay together
        let jitter = rand::rng().random_range(Duration::ZERO..=rest / 4 + Duration::from_millis(1));
        tokio::time::sleep(rest.saturating_add(jitter)).await;
    }
}

/// Leases an operation just before it is worked on, when there is a place for it.
async fn take(app: &Arc<App>, places: &Arc<Semaphore>, due: &Due) {
    let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
    match app.store.lease(due, app.settings.windows.lease).await {
        Ok(Some(leased)) => {
            let operation = &leased.operation;
            let span = tracing::info_span!(
                "worker",
                trace_id = %operation.trace.trace_id,
                payments.operation.id = %operation.id,
                payments.payment.id = %operation.payment_id,
                payments.operation.attempts = operation.progress.attempts,
            );
            telemetry::join(&span, operation.trace);
            telemetry::name(&span, format!("finish {}", operation.kind.name()));
            let app = Arc::clone(app);
            let tasks = app.stop.tasks.clone();
            tasks.spawn(
                async move {
                    carry_out(&app, &leased).await;
                    drop(place);
                }
                .instrument(span),
            );
        }
        // another worker was faster
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(operation_id = %due.operation_id, %error, "operation not leased");
        }
    }
}
