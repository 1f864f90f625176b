//! The trace of a request: the caller's, by its `traceparent` (W3C Trace Context), or a new one. Its id is in every log line,
//! in every answer as `Request-Id`, and with every event that the request leaves.

use crate::metrics::method;
use crate::middleware::Next;
use crate::middleware::shed::Shed;
use crate::telemetry;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use domain::trace::TraceContext;
use opentelemetry::trace::Status;
use std::time::Instant;
use tracing::{Instrument, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Routes that are asked by machines, again and again.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// Where a request stands in its trace.
#[derive(Debug, Clone, Copy)]
pub struct RequestTrace(pub TraceContext);

/// The layer. The span has the names of OpenTelemetry's semantic conventions for HTTP, and the route instead of the path:
/// in a path callers write what they like.
pub async fn trace(mut request: Request, next: impl Next) -> Response {
    let route =
        request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let method = method(request.method());
    let span = tracing::info_span!(
        "request",
        trace_id = field::Empty,
        otel.kind = "server",
        http.request.method = method,
        http.route = &route,
    );
    // whoever asks every few seconds whether we live would be most of all traces, and of the log of a service at rest
    let is_probe = PROBES.contains(&route.as_str());
    let caller = if is_probe { Some(TraceContext::random()) } else { from_caller(request.headers()) };
    if let Some(caller) = caller {
        telemetry::join(&span, caller);
    }
    let place = telemetry::place_of(&span).or(caller).unwrap_or_else(TraceContext::random);
    if !span.is_disabled() {
        telemetry::name(&span, format!("{method} {route}").trim_end().to_owned());
    }
    span.record("trace_id", field::display(place.trace_id));
    request.extensions_mut().insert(RequestTrace(place));
    let began = Instant::now();
    async move {
        let mut response = next.run(request).await;
        if let Ok(id) = HeaderValue::try_from(place.trace_id.to_string()) {
            response.headers_mut().insert("request-id", id);
        }
        let status = response.status();
        let span = tracing::Span::current();
        span.set_attribute("http.response.status_code", i64::from(status.as_u16()));
        if status.is_server_error() {
            span.set_attribute("error.type", status.as_str().to_owned());
            span.set_status(Status::error(""));
        }
        let (status, duration_us) =
            (status.as_u16(), u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        if is_probe || response.extensions().get::<Shed>().is_some() {
            tracing::debug!(status, duration_us, "request answered");
        } else {
            tracing::info!(status, duration_us, "request answered");
        }
        response
    }
    .instrument(span)
    .await
}

/// The one `traceparent`, if it is one.
fn from_caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut lines = headers.get_all("traceparent").iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    TraceContext::parse(line.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_traceparent_goes_on_and_of_two_none() {
        let line = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        assert_eq!(from_caller(&headers), None);
        headers.append("traceparent", HeaderValue::from_static(line));
        assert_eq!(from_caller(&headers), TraceContext::parse(line));
        headers.append("traceparent", HeaderValue::from_static(line));
        assert_eq!(from_caller(&headers), None);
    }
}
