//! What requests have in common: the id in their path, and of every POST that moves money, read in the order in which
//! its faults are answered, media type, size, key and JSON.

use crate::http::cards::CardsFound;
use crate::http::json::{self, Json};
use crate::http::prefer::Prefer;
use crate::middleware::shed::Slot;
use crate::problem::{Code, FieldCode, Problem};
use crate::state::App;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};
use bytes::Bytes;
use domain::idempotency::IdempotencyKey;
use futures_util::future::poll_immediate;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::convert::Infallible;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use uuid::Uuid;

/// The largest body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// An id as it stands in the path. What is none names nothing, which is only told when everything before it is right.
pub struct Id(String);

impl Id {
    /// The id, if it is one. Other spellings of a UUID are not what was given out.
    #[must_use]
    pub fn uuid(&self) -> Option<Uuid> {
        Uuid::try_parse(&self.0).ok().filter(|uuid| uuid.to_string() == self.0)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        // what is not UTF-8 is no id either
        let path = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(path.map(|Path(id)| id).unwrap_or_default()))
    }
}

/// A request that moves money, before its fields are looked at.
pub struct MoneyPost {
    /// The caller's key.
    pub key: IdempotencyKey,
    /// How long the caller wants to wait.
    pub prefer: Prefer,
    body: Json,
    cards: CardsFound,
}

impl MoneyPost {
    /// Reads the body. It is gone afterwards.
    ///
    /// # Errors
    /// Those of `read`, and every card number in the request.
    pub fn read<T>(&mut self, read: impl FnOnce(Json) -> Result<T, Problem>) -> Result<T, Problem> {
        let body = std::mem::replace(&mut self.body, Json::Null);
        let cards = std::mem::take(&mut self.cards).and_in(&body);
        cards.or_refuse(read(body))
    }

    async fn receive(request: Request, app: &App, body_is_optional: bool) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        check_content_coding(&parts.headers)?;
        let body = match check_media_type(&parts.headers) {
            Ok(()) => read(app, &parts, body).await?,
            Err(refused) if body_is_optional => match read(app, &parts, body).await {
                Ok(body) if body.is_empty() => body,
                _ => return Err(refused),
            },
            Err(refused) => return Err(refused),
        };
        let key = idempotency_key(&parts.headers)?;
        let body = match body_is_optional && body.is_empty() {
            true => Json::Object(Vec::new()),
            false => json::parse(&body)?,
        };
        let cards = CardsFound::outside_of_body(&parts);
        Ok(Self { key, prefer: Prefer::of(&parts.headers), body, cards })
    }
}

impl FromRequest<Arc<App>> for MoneyPost {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        Self::receive(request, app, false).await
    }
}

/// The same where an empty body counts as `{}` and needs no media type.
pub struct OptionalBody(pub MoneyPost);

impl FromRequest<Arc<App>> for OptionalBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        MoneyPost::receive(request, app, true).await.map(Self)
    }
}

fn check_media_type(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = || Problem::new(Code::UnsupportedMediaType, "Send the body as application/json in UTF-8.");
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return Err(refuse()) };
    let mut parts = line.to_str().map_err(|_| refuse())?.split(';').map(str::trim);
    let json = parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/json"));
    let utf8 = parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset")
            || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if json && utf8 { Ok(()) } else { Err(refuse()) }
}

/// A body that is packed is none that we read: nobody says how much comes out of it.
fn check_content_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut lines = headers.get_all(header::CONTENT_ENCODING).iter();
    if lines.all(|line| line.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    Err(Problem::new(Code::UnsupportedMediaType, "Send the body as it is, without Content-Encoding."))
}

/// The whole body. While it is not there the request has no place among those that do work: how long that takes is up to
/// the caller.
async fn read(app: &App, parts: &Parts, body: Body) -> Result<Bytes, Problem> {
    let too_large =
        || Problem::new(Code::PayloadTooLarge, format!("The body may have at most {MAX_BODY} bytes."));
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > MAX_BODY)) {
        return Err(too_large());
    }
    let mut collecting = pin!(Limited::new(body, MAX_BODY).collect());
    let collected = match poll_immediate(&mut collecting).await {
        Some(collected) => collected,
        None => match parts.extensions.get::<Slot>() {
            Some(slot) => wait(app, slot, collecting).await?,
            None => collecting.await,
        },
    };
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Problem::new(
            Code::MalformedJson,
            "The body cannot be read to its end: it is cut off, or its chunks are malformed.",
        )),
    }
}

/// Waits for a body. One that comes too late ends its request (see [`crate::middleware::limits::deadline`]).
async fn wait<T>(app: &App, slot: &Slot, body: impl Future<Output = T>) -> Result<T, Problem> {
    let waiting = app.admission.wait_for_body()?;
    slot.release();
    let body = body.await;
    drop(waiting);
    slot.regain()?;
    Ok(body)
}

/// The caller's key.
///
/// # Errors
/// 400 for none, for one that is none, and for two.
pub fn idempotency_key(headers: &HeaderMap) -> Result<IdempotencyKey, Problem> {
    const NAME: HeaderName = HeaderName::from_static("idempotency-key");
    let refused = |code, kind, detail: &str| Problem::of_header(code, "Idempotency-Key", kind, detail);
    let mut lines = headers.get_all(&NAME).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Err(refused(
            Code::IdempotencyKeyMissing,
            FieldCode::Required,
            "must have a value of your own, such as a UUID, and the same one when you try again",
        )),
        (Some(_), Some(_)) => {
            Err(refused(Code::IdempotencyKeyInvalid, FieldCode::Unsupported, "must not be repeated"))
        }
        (Some(line), None) => IdempotencyKey::parse(line.as_bytes()).map_err(|error| {
            refused(Code::IdempotencyKeyInvalid, FieldCode::Unsupported, &error.to_string())
        }),
    }
}
