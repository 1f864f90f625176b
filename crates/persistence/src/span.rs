//! Spans of statements, for traces.

use domain::faults::{When, point};
use sqlx::error::DatabaseError;
use std::future::Future;
use tracing::{Instrument, field};

/// A statement that is sent, with a span of its own.
pub(crate) trait Traced<T>: Future<Output = Result<T, sqlx::Error>> + Sized {
    /// `summary` says what the statement does, in a few words; neither its text nor its values are in any trace. The names
    /// are those of OpenTelemetry's semantic conventions for databases.
    ///
    /// A statement that belongs to nothing, such as the worker's look at what is due, has no span: it would be a trace by
    /// itself, five times a second.
    async fn traced(self, summary: &'static str) -> Result<T, sqlx::Error> {
        point(When::Before, summary);
        if tracing::Span::current().is_none() {
            let result = self.await;
            point(When::After, summary);
            return result;
        }
        let span = tracing::debug_span!(
            "statement",
            otel.name = summary,
            otel.kind = "client",
            otel.status_code = field::Empty,
            db.system.name = "postgresql",
            db.query.summary = summary,
            db.response.status_code = field::Empty,
            error.r#type = field::Empty,
        );
        let result = self.instrument(span.clone()).await;
        point(When::After, summary);
        if let Err(error) = &result {
            span.record("otel.status_code", "ERROR");
            match error.as_database_error().and_then(DatabaseError::code) {
                Some(code) => span.record("db.response.status_code", &*code).record("error.type", &*code),
                None => span.record("error.type", kind(error)),
            };
        }
        result
    }
}

impl<T, F: Future<Output = Result<T, sqlx::Error>>> Traced<T> for F {}

/// What went wrong before or behind the database, as one of a few words.
fn kind(error: &sqlx::Error) -> &'static str {
    match error {
        sqlx::Error::PoolTimedOut => "pool_timeout",
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => "connection",
        _ => "_OTHER",
    }
}
