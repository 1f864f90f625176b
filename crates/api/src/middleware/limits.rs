//! Bounds on a whole request: how large its headers may be, how long it may take, and what is answered while the process
//! stops.

use crate::http::prefer::Prefer;
use crate::middleware::Next;
use crate::problem::{Code, Problem};
use crate::server::Exchange;
use crate::state::App;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Version, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// The most header lines.
pub const MAX_HEADER_LINES: usize = 100;
/// The most bytes of header names and values.
pub const MAX_HEADER_BYTES: usize = 32 * 1024;

/// So much of a body that nobody reads is taken from its sender ...
const MAX_REST: usize = 1024 * 1024;
/// ... and for so long: a slow one is to be over soon.
const REST_TIME: Duration = Duration::from_secs(2);

/// Takes the rest of a body that was refused unread. Closing the connection of a caller that still sends resets it, and
/// the caller would see that instead of the answer.
pub async fn take_the_rest(request: Request, next: impl Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let left = Left::default();
    // to look for a body is to ask for it (RFC 9110, section 10.1.1)
    let is_held_back = request.headers().contains_key(header::EXPECT);
    let response = next.run(request.map(|body| Body::new(Unread { body, left: Arc::clone(&left) }))).await;
    let rest = left.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(rest) = rest {
        match is_held_back {
            true => take_later(rest, 0),
            false => take_what_is_here(rest).await,
        }
    }
    response
}

/// What is here already, or comes along with what is here, is taken at once; the answer waits for no more.
async fn take_what_is_here(mut rest: Body) {
    let mut is_asked = false;
    let frame = poll_fn(|cx| match Pin::new(&mut rest).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(Some(frame)),
        Poll::Pending if is_asked => Poll::Ready(None),
        // hyper reads of a body only what somebody has asked for
        Poll::Pending => {
            is_asked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    });
    let taken = match frame.await {
        Some(None | Some(Err(_))) => return,
        Some(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
        None => 0,
    };
    if !rest.is_end_stream() {
        take_later(rest, taken);
    }
}

fn take_later(mut rest: Body, mut taken: usize) {
    tokio::spawn(tokio::time::timeout(REST_TIME, async move {
        while taken < MAX_REST
            && let Some(Ok(frame)) = rest.frame().await
        {
            taken = frame.data_ref().map_or(taken, |data| taken.saturating_add(data.len()));
        }
    }));
}

/// What nobody has read of a body.
type Left = Arc<Mutex<Option<Body>>>;

struct Unread {
    body: Body,
    left: Left,
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if !self.body.is_end_stream() {
            let rest = std::mem::take(&mut self.body);
            *self.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(rest);
        }
    }
}

/// Refuses headers that are too many or too large, and those of which two readers could understand two things.
pub async fn headers(request: Request, next: impl Next) -> Response {
    let lines = request.headers().len();
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    let bytes = request
        .headers()
        .iter()
        // a line is a name, a colon, a blank, a value and an end
        .map(|(name, value)| name.as_str().len().saturating_add(value.len()).saturating_add(4))
        .fold(target.saturating_add(authority), usize::saturating_add);
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
    let exchange = request.extensions().get::<Exchange>();
    exchange
        .is_some_and(Exchange::has_two_lengths)
        .then_some("A request has Transfer-Encoding or Content-Length, and never both.")
}

/// When waiting has to end, so that the answer is there in time. The time that a slow body took is over by then.
#[derive(Debug, Clone, Copy)]
pub struct Latest(pub Instant);

/// Between the end of waiting and the deadline.
const MARGIN: Duration = Duration::from_secs(1);

/// Answers in time, whatever happens behind. What was begun goes on: see [`crate::app::once`]. What comes too late to be done
/// in time is not begun.
pub async fn deadline(State(app): State<Arc<App>>, mut request: Request, next: impl Next) -> Response {
    let exchange = request.extensions_mut().remove::<Exchange>();
    if exchange.as_ref().is_some_and(|exchange| !exchange.has_place()) {
        let detail = "Too many requests are under way. Send the request again a little later.";
        return Problem::passing(Code::Overloaded, detail, 1).into_response();
    }
    let preferred = match *request.method() {
        Method::POST => Prefer::of(request.headers()).wait().unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let (began, usual) = (Instant::now(), app.settings.request_timeout);
    let latest = |limit: Duration| began + limit.saturating_sub(MARGIN.min(limit / 4));
    let limit = if preferred > usual { preferred.saturating_add(Duration::from_secs(1)) } else { usual };
    request.extensions_mut().insert(Latest(latest(limit)));
    // who may wait long for the answer has no more time to ask
    let body_by = exchange.as_ref().map_or(latest(usual), |exchange| exchange.body_by().min(latest(usual)));
    let is_http1 = request.version() < Version::HTTP_2;
    let (request, late) = Timed::body_of(request, body_by);
    let answered = tokio::select! {
        answered = tokio::time::timeout(limit, next.run(request)) => Some(answered),
        () = late.cancelled() => None,
    };
    match answered {
        Some(Ok(response)) if !late.is_cancelled() => response,
        Some(Err(_)) if !late.is_cancelled() => Problem::too_late().into_response(),
        _ => {
            if let Some(exchange) = exchange {
                exchange.end_connection();
            }
            let detail = "The body did not come in time. Nothing was done; send the request again.";
            let problem = Problem::passing(Code::Timeout, detail, 1);
            match is_http1 {
                true => problem.header(header::CONNECTION, HeaderValue::from_static("close")).into_response(),
                false => problem.into_response(),
            }
        }
    }
}

/// A body that has to be there by some time. One that is not never comes to its end, and whoever waits for `late` hears so.
struct Timed {
    body: Body,
    by: Instant,
    /// From the moment on when there is something to wait for.
    timer: Option<Pin<Box<Sleep>>>,
    late: CancellationToken,
}

impl Timed {
    fn body_of(request: Request, by: Instant) -> (Request, CancellationToken) {
        let late = CancellationToken::new();
        if request.body().is_end_stream() {
            return (request, late);
        }
        let timed = request.map(|body| Body::new(Self { body, by, timer: None, late: late.clone() }));
        (timed, late)
    }
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, by, timer, late } = &mut *self;
        let frame = Pin::new(body).poll_frame(cx);
        if frame.is_ready() && Instant::now() < *by {
            return frame;
        }
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*by)));
        if timer.as_mut().poll(cx).is_ready() {
            late.cancel();
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
