//! Whether the process lives, and whether it should get requests.

use crate::schema;
use crate::state::App;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use persistence::StoreError;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// A database that does not answer in this time is as good as absent.
const PATIENCE: Duration = Duration::from_secs(1);

/// What `/readyz` answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    #[schema(schema_with = schema::readiness)]
    status: &'static str,
    checks: Checks,
}

/// `ok`, or a reason, of each.
#[derive(Debug, Serialize, ToSchema)]
struct Checks {
    database: String,
    migrations: String,
    draining: String,
}

/// 200 while the process can answer at all.
#[utoipa::path(
    get,
    path = "/livez",
    operation_id = "live",
    tag = "Health",
    summary = "Does the process live?",
    description = "200 while it can answer at all.",
    responses((status = 200, body = String, content_type = "text/plain", description = "It does.")),
)]
pub async fn live() -> &'static str {
    "ok"
}

/// 503 while requests would fail, and why. The provider is not asked: without it payments are still accepted.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "ready",
    tag = "Health",
    summary = "Should this process get requests?",
    description = "The provider is not asked: without it payments are still accepted.",
    responses(
        (status = 200, body = Readiness, description = "It should."),
        (status = 503, body = Readiness, description = "It should not, and why."),
    ),
)]
pub async fn ready(State(app): State<Arc<App>>) -> (StatusCode, Json<Readiness>) {
    let ok = || "ok".to_owned();
    let looked = async {
        let schema = app.store.check_schema().await?;
        Ok((schema, app.store.condition().await?))
    };
    let (database, migrations) = match tokio::time::timeout(PATIENCE, looked).await {
        Ok(Ok((schema, condition))) => (
            condition.map_or_else(ok, |condition| condition.name().to_owned()),
            schema.map_or_else(|mismatch| mismatch.to_string(), |()| ok()),
        ),
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
