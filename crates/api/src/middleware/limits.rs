//! Bounds on a whole request: how large its headers may be, how long it may take, and what is answered while the process
//! stops.

use crate::http::prefer::Prefer;
use crate::middleware::Next;
use crate::problem::{Code, Problem};
use crate::server::TwoLengths;
use crate::state::App;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// The most header lines.
pub const MAX_HEADER_LINES: usize = 100;
/// The most bytes of header names and values.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// So much of a body that nobody reads is taken from its sender ...
const MAX_REST: usize = 1024 * 1024;
/// ... and for so long.
const REST_TIME: Duration = Duration::from_secs(5);

/// Takes the rest of a body that was refused unread. Closing the connection of a caller that still sends resets it, and
/// the caller would see that instead of the answer.
pub async fn take_the_rest(request: Request, next: impl Next) -> Response {
    next.run(request.map(|body| Body::new(Unread(body)))).await
}

struct Unread(Body);

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if self.0.is_end_stream() {
            return;
        }
        let mut rest = std::mem::take(&mut self.0);
        tokio::spawn(tokio::time::timeout(REST_TIME, async move {
            let mut taken = 0;
            while let Some(Ok(frame)) = rest.frame().await
                && taken < MAX_REST
            {
                taken = frame.data_ref().map_or(taken, |data| taken.saturating_add(data.len()));
            }
        }));
    }
}

/// Refuses headers that are too many or too large, and those of which two readers could understand two things.
pub async fn headers(request: Request, next: impl Next) -> Response {
    let lines = request.headers().len();
    let bytes = request
        .headers()
        .iter()
        // a line is a name, a colon, a blank, a value and an end
        .map(|(name, value)| name.as_str().len().saturating_add(value.len()).saturating_add(4))
        .fold(request.uri().to_string().len(), usize::saturating_add);
    if lines > MAX_HEADER_LINES || bytes > MAX_HEADER_BYTES {
        let detail =
            format!("At most {MAX_HEADER_LINES} header lines and {MAX_HEADER_BYTES} bytes are read.");
        return Problem::new(Code::HeadersTooLarge, detail).into_response();
    }
    if let Some(detail) = ambiguity(&request) {
        let problem = Problem::new(Code::MalformedJson, detail);
        return problem.header(header::CONNECTION, HeaderValue::from_static("close")).into_response();
    }
    next.run(request).await
}

/// What hyper lets pass of HTTP/1 (RFC 9112, sections 3.2 and 6.1), and a proxy before us may have read otherwise.
fn ambiguity(request: &Request) -> Option<&'static str> {
    if request.version() >= Version::HTTP_2 {
        return None;
    }
    let hosts = request.headers().get_all(header::HOST).iter().count();
    if hosts > 1 || (hosts == 0 && request.version() == Version::HTTP_11) {
        return Some("A request of HTTP/1.1 has exactly one Host line.");
    }
    let two_lengths = request.extensions().get::<TwoLengths>();
    two_lengths
        .is_some_and(TwoLengths::seen)
        .then_some("A request has Transfer-Encoding or Content-Length, and never both.")
}

/// When waiting has to end, so that the answer is there in time. The time that a slow body took is over by then.
#[derive(Debug, Clone, Copy)]
pub struct Latest(pub Instant);

/// Between the end of waiting and the deadline.
const MARGIN: Duration = Duration::from_secs(1);

/// Answers in time, whatever happens behind. What was begun goes on: see [`crate::app::once`].
pub async fn deadline(State(app): State<Arc<App>>, mut request: Request, next: impl Next) -> Response {
    let preferred = match *request.method() {
        Method::POST => Prefer::of(request.headers()).wait().unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let limit = app.settings.request_timeout;
    let limit = if preferred > limit { preferred.saturating_add(Duration::from_secs(1)) } else { limit };
    let waiting = limit.saturating_sub(MARGIN.min(limit / 4));
    request.extensions_mut().insert(Latest(Instant::now() + waiting));
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = "No answer in time. Send the request again with the same key.";
            Problem::passing(Code::Timeout, detail, 1).into_response()
        }
    }
}

/// While the process stops: every answer closes its connection, and what comes after the grace is sent elsewhere.
pub async fn drain(State(app): State<Arc<App>>, request: Request, next: impl Next) -> Response {
    let http1 = request.version() < Version::HTTP_2;
    let _under_way = app.stop.request_token();
    let mut response = if app.stop.is_refusing() && request.uri().path().starts_with("/v1/") {
        Problem::passing(Code::Draining, "This process is about to stop. Send the request again.", 1)
            .into_response()
    } else {
        next.run(request).await
    };
    if http1 && app.stop.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// What is under `/v1` is about money and people: nobody keeps a copy.
pub async fn no_store(request: Request, next: impl Next) -> Response {
    let private = request.uri().path().starts_with("/v1/");
    let mut response = next.run(request).await;
    if private {
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
