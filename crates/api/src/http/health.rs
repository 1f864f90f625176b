//! Whether the process lives, and whether it should get requests.

use crate::state::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use persistence::StoreError;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// A database that does not answer in this time is as good as absent.
const PATIENCE: Duration = Duration::from_secs(1);

/// What `/readyz` answers.
#[derive(Debug, Serialize)]
pub struct Readiness {
    status: &'static str,
    checks: Checks,
}

#[derive(Debug, Serialize)]
struct Checks {
    database: String,
    migrations: String,
    draining: String,
}

/// 200 while the process can answer at all.
pub async fn live() -> &'static str {
    "ok"
}

/// 503 while requests would fail, and why. The provider is not asked: without it payments are still accepted.
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Readiness>) {
    let ok = || "ok".to_owned();
    let (database, migrations) = match tokio::time::timeout(PATIENCE, app.store.check_schema()).await {
        Ok(Ok(Ok(()))) => (ok(), ok()),
        Ok(Ok(Err(mismatch))) => (ok(), mismatch.to_string()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            (reason(&error), "unknown".to_owned())
        }
        Err(_) => ("no answer within 1 s".to_owned(), "unknown".to_owned()),
    };
    let draining = if app.stop.is_draining() { "the process is about to stop".to_owned() } else { ok() };
    let ready = [&database, &migrations, &draining].iter().all(|check| *check == "ok");
    let (status, word) =
        if ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "unready") };
    (status, Json(Readiness { status: word, checks: Checks { database, migrations, draining } }))
}

/// In words, without what the server said: it may name hosts and users.
fn reason(error: &StoreError) -> String {
    match error {
        StoreError::Unavailable(sqlx::Error::Io(io)) => format!("cannot be reached: {}", io.kind()),
        StoreError::Unavailable(sqlx::Error::PoolTimedOut) => "no connection in time".to_owned(),
        StoreError::Unavailable(sqlx::Error::Database(error)) => {
            format!("refuses (SQLSTATE {})", error.code().unwrap_or_default())
        }
        _ => "cannot be used; the log says why".to_owned(),
    }
}
