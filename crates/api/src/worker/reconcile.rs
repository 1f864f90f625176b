//! Comparing provider and database once an hour, by one process of however many there are. What differs is raised, and
//! kept in the database, where every process reads it for its metrics.

use crate::app::reconcile::{Report, Sources, Unfinished, run as compare};
use crate::state::App;
use crate::telemetry;
use persistence::StoreError;
use std::time::Duration;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// From the end of one comparison to the next.
const EVERY: Duration = Duration::from_secs(3600);
/// How far it looks back: a day, and what the last comparison of it took.
const BACK: time::Duration = time::Duration::hours(25);
/// How soon one that did not see everything is followed by the next.
const AGAIN: Duration = Duration::from_secs(300);
/// How often a process looks whether it is due.
const LOOK: Duration = Duration::from_secs(2);
/// How long a process that died keeps it from the others.
const LEASE: Duration = Duration::from_secs(60);
/// How often the lease is prolonged meanwhile.
const KEEP: Duration = Duration::from_secs(15);

/// Never ends by itself.
pub(super) async fn run(app: &App) {
    loop {
        match app.store.lease_reconciliation(EVERY, LEASE).await {
            Ok(Some(token)) => {
                let span = tracing::info_span!("worker");
                telemetry::name(&span, "reconcile".to_owned());
                turn(app, token).instrument(span).await;
            }
            Ok(None) => {}
            // whoever looks for what is due says that the database is not there
            Err(error) => tracing::debug!(%error, "nobody knows whether a comparison is due"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn turn(app: &App, token: OffsetDateTime) {
    let sources =
        Sources { store: &app.store, provider: app.provider.as_ref(), windows: &app.settings.windows };
    let (ended, lost) = (CancellationToken::new(), CancellationToken::new());
    let comparing = async {
        let compared = tokio::select! {
            compared = compare(&sources, OffsetDateTime::now_utc() - BACK) => Some(compared),
            () = lost.cancelled() => None,
        };
        ended.cancel();
        compared
    };
    // not beside it in one `select!`: a statement that is dropped half-way may have moved the token
    let (compared, token) = tokio::join!(comparing, keep(app, token, &ended, &lost));
    let (Some(compared), Some(token)) = (compared, token) else {
        tracing::warn!("the comparison with the provider was lost to another process");
        return;
    };
    match end(app, token, compared).await {
        Ok(true) => {}
        Ok(false) => tracing::warn!("what was compared is not written: another process has the lease"),
        Err(error) => tracing::warn!(%error, "what was compared is not written; it is compared again"),
    }
}

/// Prolongs the lease until the comparison has `ended`. `None`: it was lost.
async fn keep(
    app: &App,
    mut token: OffsetDateTime,
    ended: &CancellationToken,
    lost: &CancellationToken,
) -> Option<OffsetDateTime> {
    loop {
        tokio::select! {
            () = ended.cancelled() => return Some(token),
            () = tokio::time::sleep(KEEP) => {}
        }
        match app.store.keep_reconciliation(token, LEASE).await {
            Ok(Some(prolonged)) => token = prolonged,
            Ok(None) => {
                lost.cancel();
                return None;
            }
            Err(error) => tracing::warn!(%error, "the lease of the comparison is not prolonged yet"),
        }
    }
}

/// Raises what was found and keeps it. `false`: the lease was lost, and it is not kept.
async fn end(
    app: &App,
    token: OffsetDateTime,
    compared: Result<Report, Unfinished>,
) -> Result<bool, StoreError> {
    let report = match compared {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(%error, "provider and database were not compared to the end");
            app.metrics.reconciled("unfinished");
            return app.store.end_reconciliation(token, AGAIN, None).await;
        }
    };
    for (kind, found) in &report.differences {
        tracing::error!(
            difference = kind.name(),
            count = found.count,
            first = found.first.join(", "),
            "provider and database differ; a person has to look"
        );
    }
    let Report { charges, refunds, in_flight, foreign, .. } = report;
    tracing::info!(charges, refunds, in_flight, foreign, "provider and database were compared");
    app.metrics.reconciled(if report.differences.is_empty() { "agreed" } else { "differs" });
    app.store.end_reconciliation(token, EVERY, Some(&report.counts())).await
}
