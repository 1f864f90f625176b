//! Leasing what is due and carrying it out: the same steps, by the same code, as in the first request. While the provider
//! is down, one operation at a time is its probe, and everything else stays where it is.

use super::probe;
use crate::app::operations::{Carrier, carry_out};
use crate::state::App;
use crate::telemetry;
use persistence::StoreError;
use persistence::operations::Due;
use provider::State;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tracing::Instrument;

/// How many operations a worker carries out at once.
pub(super) const AT_ONCE: usize = 32;
/// How long it rests when nothing is due.
const REST: Duration = Duration::from_millis(200);
/// How long it rests when the database does not answer.
const DATABASE_REST: Duration = Duration::from_secs(1);

/// Never ends by itself.
pub(super) async fn run(app: &Arc<App>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut database_was_there = true;
    loop {
        let rest = match turn(app, &places).await {
            Ok(rest) => {
                if !std::mem::replace(&mut database_was_there, true) {
                    tracing::info!("the database is there again");
                }
                rest
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

/// Begins what is due, or as much of it as a provider that is down allows. Says how long to rest.
async fn turn(app: &Arc<App>, places: &Arc<Semaphore>) -> Result<Duration, StoreError> {
    if is_closed(app) {
        let free = i64::try_from(places.available_permits()).unwrap_or(0);
        let due = app.store.due_operations(free.max(1)).await?;
        for operation in &due {
            // what cannot be sent is not leased
            if !is_closed(app) {
                return Ok(REST);
            }
            take(app, places, operation).await;
        }
        return Ok(if due.is_empty() { REST } else { Duration::ZERO });
    }
    if app.breaker.wants_probe(Instant::now()) {
        match app.store.due_operations(1).await?.first() {
            Some(operation) => take(app, places, operation).await,
            None => probe(app).await,
        }
    }
    Ok(REST)
}

fn is_closed(app: &App) -> bool {
    app.breaker.state() == State::Closed
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
                    carry_out(&app, &leased, Carrier::Worker).await;
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
