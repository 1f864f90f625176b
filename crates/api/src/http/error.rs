//! Problems on their way out.
//!
//! A [`Problem`] becomes a response without a body; the outermost layer, which knows the trace id, writes the body. So
//! there is one place where a problem is rendered, and no answer of the framework's own gets past it.

use crate::middleware::trace::RequestTrace;
use crate::problem::{Code, Problem};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use persistence::StoreError;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        for (name, value) in self.headers() {
            response.headers_mut().insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The layer that writes the bodies of problems.
pub async fn render(request: Request, next: Next) -> Response {
    let trace_id = request.extensions().get::<RequestTrace>().map(|trace| trace.0.trace_id.to_string());
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        *response.body_mut() = Body::from(problem.body(trace_id.as_deref().unwrap_or_default()));
    }
    response
}

/// What the database's errors are to callers. A fault is logged here, where it ends.
impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(source) => {
                tracing::warn!(error = %source, "the database is unavailable");
                let detail =
                    "The database cannot be used right now. Send the request again with the same key.";
                Self::passing(Code::Unavailable, detail, 1)
            }
            StoreError::StateMoved | StoreError::ReferenceInUse => {
                tracing::warn!(error = %error, "a race was lost too often");
                Self::passing(
                    Code::Unavailable,
                    "Others were faster. Send the request again with the same key.",
                    1,
                )
            }
            fault @ (StoreError::Fault(_) | StoreError::Unreadable(_)) => Self::fault(&fault),
        }
    }
}
