//! Problems on their way out.
//!
//! A [`Problem`] becomes a response without a body; the outermost layer, which knows the trace id, writes the body. So
//! there is one place where a problem is rendered, and no answer of the framework's own gets past it.

use crate::middleware::Next;
use crate::middleware::trace::RequestTrace;
use crate::problem::{Code, Problem};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
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

/// What problems are written in.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// The layer that writes the bodies of problems.
pub async fn render(request: Request, next: impl Next) -> Response {
    let trace = request.extensions().get::<RequestTrace>().copied();
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| in_place_of(&response));
    if let Some(problem) = problem {
        let trace_id = trace.map(|trace| trace.0.trace_id.to_string()).unwrap_or_default();
        let content_type = HeaderValue::from_static(CONTENT_TYPE);
        response.headers_mut().insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().remove(header::CONTENT_LENGTH);
        *response.status_mut() = problem.status();
        *response.body_mut() = Body::from(problem.body(&trace_id));
    }
    response
}

/// The framework says why it refuses in plain text. No handler leaves that to it, and if one does, callers get the shape
/// that they know.
fn in_place_of(response: &Response) -> Option<Problem> {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|content_type| {
        [CONTENT_TYPE.as_bytes(), b"application/json"].contains(&content_type.as_bytes())
    });
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return None;
    }
    tracing::error!(%status, "a refusal of the framework's own");
    let code = Code::ALL.iter().copied().find(|code| code.status() == status).unwrap_or(Code::Internal);
    Some(Problem::new(code, code.meaning()))
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

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::Query;
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router, middleware};
    use std::collections::HashMap;
    use tower::ServiceExt;

    #[tokio::test]
    async fn what_the_framework_refuses_by_itself_is_a_problem() {
        let routes = Router::new()
            .route("/query", get(|_: Query<HashMap<String, u8>>| async { "" }))
            .route("/body", get(async |_: Json<u8>| ""))
            .route("/teapot", get(async || StatusCode::IM_A_TEAPOT))
            .route("/ready", get(async || (StatusCode::SERVICE_UNAVAILABLE, Json("unready"))))
            .layer(middleware::from_fn(async |request, next: middleware::Next| {
                render(request, |request| next.run(request)).await
            }));
        for (path, code) in [
            ("/query?a=x", Some("malformed_json")),
            ("/body", Some("unsupported_media_type")),
            ("/teapot", Some("internal")),
            ("/ready", None),
        ] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = routes.clone().oneshot(request).await.unwrap();
            assert_eq!(response.headers()[header::CONTENT_TYPE] == CONTENT_TYPE, code.is_some(), "{path}");
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["code"].as_str(), code, "{path}");
            assert!(code.is_none() || body["status"] == status, "{path}: {body}");
        }
    }
}
