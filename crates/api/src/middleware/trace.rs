//! The trace id: taken from the caller's `traceparent` (W3C Trace Context) or made here, in every log line, in every
//! answer as `Request-Id`, and with every event that the request leaves.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use domain::id::TraceId;
use std::time::Instant;
use tracing::Instrument;

/// The trace a request belongs to.
#[derive(Debug, Clone, Copy)]
pub struct RequestTrace(pub TraceId);

/// The layer.
pub async fn trace(mut request: Request, next: Next) -> Response {
    let trace_id = from_caller(request.headers()).unwrap_or_else(TraceId::random);
    request.extensions_mut().insert(RequestTrace(trace_id));
    let route =
        request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let span = tracing::info_span!("request", %trace_id, method = %request.method(), route);
    let began = Instant::now();
    async move {
        let mut response = next.run(request).await;
        if let Ok(id) = HeaderValue::try_from(trace_id.to_string()) {
            response.headers_mut().insert("request-id", id);
        }
        tracing::info!(
            status = response.status().as_u16(),
            duration_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX),
            "request answered"
        );
        response
    }
    .instrument(span)
    .await
}

/// Version 00, and what later versions must look like to older readers.
fn from_caller(headers: &HeaderMap) -> Option<TraceId> {
    let mut lines = headers.get_all("traceparent").iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let mut parts = line.to_str().ok()?.split('-');
    let version = parts.next().filter(|version| version.len() == 2 && *version != "ff")?;
    let trace_id = TraceId::parse(parts.next()?)?;
    let parent = parts.next().filter(|parent| parent.len() == 16 && parent.bytes().any(|b| b != b'0'));
    let flags = parts.next().filter(|flags| flags.len() == 2);
    let complete = parent.is_some() && flags.is_some() && (version != "00" || parts.next().is_none());
    complete.then_some(trace_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_trace_goes_on_and_anything_else_begins_a_new_one() {
        let of = |line: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::try_from(line).unwrap());
            from_caller(&headers).map(|id| id.to_string())
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(of(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(), Some(id));
        for bad in [
            "",
            id,
            &format!("00-{id}-00f067aa0ba902b7"),
            &format!("ff-{id}-00f067aa0ba902b7-01"),
            &format!("00-{id}-0000000000000000-01"),
            &format!("00-{id}-00f067aa0ba902b7-01-x"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
