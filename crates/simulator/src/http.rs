//! Stripe's side of HTTP: every request under `/v1` goes through `v1`, faults included.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, Method, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
        request, response,
    },
    response::{IntoResponse, Response},
    routing::any,
};
use futures_util::stream;
use tokio::{sync::oneshot, time::sleep};
use uuid::Uuid;

use crate::{
    auth,
    command::{Action, Endpoint},
    commit::KeyUse,
    connection::Peer,
    control,
    faults::{Fault, FaultKind},
    form::Params,
    objects::ApiError,
    simulator::{Disturbance, Failed, Simulator},
    wire,
};

/// The largest request body, in bytes. Stripe's forms are far smaller.
const MAX_BODY: usize = 1024 * 1024;

/// How long a caller hangs that does not leave by itself, unless the rule says otherwise.
const HANG: Duration = Duration::from_secs(300);

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
static REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");

/// All routes. Those below `/v1` are in `Endpoint::of`.
pub(crate) fn router(simulator: Arc<Simulator>) -> Router {
    Router::new().nest("/_sim", control::router()).fallback(any(v1)).with_state(simulator)
}

/// A request, read to its end.
#[derive(Debug)]
struct Call {
    parts: request::Parts,
    body: Bytes,
}

/// One request: counted, possibly broken by a fault, answered.
async fn v1(
    State(simulator): State<Arc<Simulator>>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return refusal(&ApiError::bad_request("The request body is too large or ended early."));
    };
    let call = Call { parts, body };
    let fault = {
        let (method, path) = (&call.parts.method, call.parts.uri.path());
        let mut traffic = simulator.traffic();
        if let Some(endpoint) = Endpoint::of(method, path) {
            traffic.count(endpoint.template());
        }
        if path.starts_with("/v1/") { traffic.draw(method, path) } else { None }
    };
    match fault {
        None => detached(simulator, call, Disturbance::default()).await,
        Some(fault) => disturbed(simulator, &peer, call, fault).await,
    }
}

/// A request that goes wrong as the fault says.
async fn disturbed(simulator: Arc<Simulator>, peer: &Peer, call: Call, fault: Fault) -> Response {
    let delay = fault.delay.unwrap_or_default();
    let mut disturbance = Disturbance { answer_lost: fault.kind.spoils_answer(), ..Disturbance::default() };
    match fault.kind {
        FaultKind::Http429 => {
            let mut response = refusal(&ApiError::rate_limited());
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            return response;
        }
        FaultKind::Http500Before => return refusal(&ApiError::internal()),
        FaultKind::ResetBefore => return peer.reset().await,
        FaultKind::HangBefore => return hang(peer, fault.delay).await,
        FaultKind::Late => {
            // Still on its way: it takes its idempotency key only when it arrives.
            tokio::spawn(async move {
                sleep(delay).await;
                answer(&simulator, call, disturbance, || true).await;
            });
            return peer.reset().await;
        }
        FaultKind::Delay => disturbance.delay = delay,
        FaultKind::Http500Stored => disturbance.store_500 = true,
        FaultKind::Http500After
        | FaultKind::ResetAfter
        | FaultKind::HangAfter
        | FaultKind::HalfBody
        | FaultKind::Garbage
        | FaultKind::SlowBody => {}
    }
    let response = detached(simulator, call, disturbance).await;
    match fault.kind {
        FaultKind::Http500After => refusal(&ApiError::internal()),
        FaultKind::ResetAfter => peer.reset().await,
        FaultKind::HangAfter => hang(peer, fault.delay).await,
        FaultKind::HalfBody => {
            let (head, body) = dissect(response).await;
            Response::from_parts(head, half(&body))
        }
        FaultKind::SlowBody => {
            let (head, body) = dissect(response).await;
            Response::from_parts(head, drop_by_drop(body, delay))
        }
        FaultKind::Garbage => {
            (StatusCode::OK, [(CONTENT_TYPE, "application/json")], &b"\x00\xff{\"id\": pi_"[..])
                .into_response()
        }
        _ => response,
    }
}

/// Answers in a task of its own: a caller that hangs up does not stop what has begun.
async fn detached(simulator: Arc<Simulator>, call: Call, disturbance: Disturbance) -> Response {
    let (answered, waiting) = oneshot::channel();
    tokio::spawn(async move {
        let response = answer(&simulator, call, disturbance, || answered.is_closed()).await;
        // The caller may have left.
        let _ = answered.send(response);
    });
    waiting.await.unwrap_or_else(|_| refusal(&ApiError::internal()))
}

/// The answer Stripe would give.
async fn answer(
    simulator: &Simulator,
    call: Call,
    disturbance: Disturbance,
    caller_left: impl Fn() -> bool + Send,
) -> Response {
    match try_answer(simulator, call, disturbance, caller_left).await {
        Ok(response) => response,
        Err(Failed::Refused(error)) => refusal(&error),
        Err(Failed::Broken) => refusal(&ApiError::internal()),
    }
}

async fn try_answer(
    simulator: &Simulator,
    call: Call,
    disturbance: Disturbance,
    caller_left: impl Fn() -> bool + Send,
) -> Result<Response, Failed> {
    let request::Parts { method, uri, headers, .. } = call.parts;
    auth::check(&headers, simulator.settings().accept_key.as_deref())?;
    let Some(endpoint) = Endpoint::of(&method, uri.path()) else {
        return Err(ApiError::unknown_url(method.as_str(), uri.path()).into());
    };
    if method == Method::GET {
        return match Action::parse(endpoint, Params::parse(uri.query().unwrap_or_default().as_bytes()))? {
            Action::Read(query) => Ok(reply(200, simulator.read(&query, disturbance.delay).await?)),
            Action::Write(_) => Err(ApiError::unknown_url(method.as_str(), uri.path()).into()),
        };
    }
    let is_form = headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    if !is_form && !call.body.is_empty() {
        return Err(ApiError::bad_request(
            "Invalid request (check that your POST content type is application/x-www-form-urlencoded).",
        )
        .into());
    }
    let params = Params::parse(&call.body);
    let key =
        idempotency_key(headers.get(&IDEMPOTENCY_KEY))?.map(|key| KeyUse::new(key, uri.path(), &params));
    let echoed = headers.get(&IDEMPOTENCY_KEY).cloned();
    let command = match Action::parse(endpoint, params) {
        Ok(Action::Write(command)) => Ok(command),
        Ok(Action::Read(_)) => Err(ApiError::unknown_url(method.as_str(), uri.path())),
        Err(error) => Err(error),
    };
    let executed = simulator.write(command, key, disturbance, caller_left).await?;
    let (status, body) = wire::answer(&executed.commit);
    let mut response = reply(status, body);
    let headers = response.headers_mut();
    if let Some(echoed) = echoed {
        headers.insert(&IDEMPOTENCY_KEY, echoed);
    }
    if executed.replayed {
        headers.insert(&IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    if status >= 500 {
        // Stripe API, error handling: repeating this request cannot help, its answer is stored.
        headers.insert(&SHOULD_RETRY, HeaderValue::from_static("false"));
    }
    Ok(response)
}

fn idempotency_key(value: Option<&HeaderValue>) -> Result<Option<String>, ApiError> {
    let Some(value) = value else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= 255 => Ok(Some(key.to_owned())),
        _ => Err(ApiError::bad_request("Idempotency-Key must have 1 to 255 visible ASCII characters.")),
    }
}

fn reply(status: u16, body: Vec<u8>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(CONTENT_TYPE, "application/json")], body).into_response();
    if let Ok(id) = HeaderValue::try_from(format!("req_{}", Uuid::new_v4().simple())) {
        response.headers_mut().insert(&REQUEST_ID, id);
    }
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"Stripe\""));
    }
    response
}

fn refusal(error: &ApiError) -> Response {
    reply(error.status, wire::error(error, None))
}

/// Keeps the caller waiting until it leaves or the time is up.
async fn hang<T>(peer: &Peer, delay: Option<Duration>) -> T {
    sleep(delay.unwrap_or(HANG)).await;
    peer.close().await
}

/// The head of a response, promising the whole body, and that body to send in another way.
async fn dissect(response: Response) -> (response::Parts, Bytes) {
    let (mut head, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    (head, body)
}

/// Half of a body, and then the connection ends.
fn half(body: &Bytes) -> Body {
    let first = body.slice(..body.len() / 2);
    Body::from_stream(stream::unfold(Some(first), |rest| async {
        match rest {
            Some(first) if !first.is_empty() => Some((Ok(first), None)),
            _ => {
                // An error drops what is not yet on the wire; hyper flushes when the body makes it wait.
                tokio::task::yield_now().await;
                Some((Err(std::io::Error::other("an injected fault")), None))
            }
        }
    }))
}

/// A byte at a time, each after a pause.
fn drop_by_drop(body: Bytes, pause: Duration) -> Body {
    Body::from_stream(stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        sleep(pause).await;
        let byte = rest.split_to(1);
        Some((Ok::<_, std::convert::Infallible>(byte), rest))
    }))
}
