//! What a request that moves money is told, as a response. Every such handler ends here.

use crate::answer::{PaymentBody, RefundBody, payment_location, refund_location};
use crate::app::once::{Asked, MoneyRequest, Object, OnceError, Refused, Told, once};
use crate::http::extract::MoneyPost;
use crate::middleware::auth::Caller;
use crate::middleware::limits::Latest;
use crate::middleware::shed::Slot;
use crate::middleware::trace::RequestTrace;
use crate::problem::{Code, FieldCode, FieldError, Place, Problem};
use crate::state::App;
use axum::Extension;
use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::idempotency::Fingerprint;
use domain::payment::Refusal;
use serde::Serialize;
use std::sync::Arc;

/// How soon an open operation is worth asking about again, in seconds.
const ASK_AGAIN: u32 = 1;

/// What a request that moves money brings along, beside what it asks for.
#[derive(FromRequestParts)]
pub struct Context {
    #[from_request(via(Extension))]
    caller: Caller,
    #[from_request(via(Extension))]
    trace: RequestTrace,
    #[from_request(via(Extension))]
    slot: Slot,
    #[from_request(via(Extension))]
    latest: Latest,
}

/// Carries a request out, and tells its caller.
///
/// # Errors
/// See the table of problems.
pub async fn tell(
    app: &Arc<App>,
    context: Context,
    post: MoneyPost,
    fingerprint: Fingerprint,
    asked: Asked,
) -> Result<Response, Problem> {
    let request = MoneyRequest {
        caller: context.caller,
        trace: context.trace.0,
        key: post.key,
        fingerprint,
        asked,
        wait: post.prefer.wait(),
        latest: context.latest.0,
        slot: context.slot,
    };
    let mut response = match once(app, request).await {
        Ok(told) => {
            app.metrics.told(&told);
            respond(told)?
        }
        Err(OnceError::Store(error)) => return Err(error.into()),
        Err(OnceError::Misconfigured) => {
            let detail =
                "The payment provider does not take the service's credentials. Its operators are told.";
            return Err(Problem::passing(Code::ProviderMisconfigured, detail, 10));
        }
        Err(OnceError::TooLate) => return Err(Problem::too_late()),
        Err(lost @ OnceError::Lost) => return Err(Problem::fault(&lost)),
    };
    if let Some(applied) = post.prefer.applied() {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

fn respond(told: Told) -> Result<Response, Problem> {
    Ok(match told {
        Told::Answered { answer, replayed } => {
            let status = StatusCode::from_u16(answer.status).map_err(|error| Problem::fault(&error))?;
            let problem = status.is_client_error();
            let content_type = if problem { "application/problem+json" } else { "application/json" };
            let mut response = (status, [(header::CONTENT_TYPE, content_type)], answer.body).into_response();
            if let Some(location) = answer.location {
                set(&mut response, header::LOCATION, &location);
            }
            mark_replayed(&mut response, replayed);
            response
        }
        Told::Accepted { object, replayed } => {
            let (mut response, location) = match &object {
                Object::Payment(payment) => {
                    (json(StatusCode::ACCEPTED, &PaymentBody::from(&**payment))?, payment_location(payment))
                }
                Object::Refund(refund) => {
                    (json(StatusCode::ACCEPTED, &RefundBody::from(&**refund))?, refund_location(refund))
                }
            };
            set(&mut response, header::LOCATION, &location);
            response.headers_mut().insert(header::RETRY_AFTER, ASK_AGAIN.into());
            mark_replayed(&mut response, replayed);
            response
        }
        Told::InProgress => {
            let detail =
                "The first request with this key is still being served. Send it again a little later.";
            Problem::passing(Code::RequestInProgress, detail, ASK_AGAIN).into_response()
        }
        Told::KeyReused => {
            let detail = "This key was used for another request. Use a new key for a new request.";
            Problem::new(Code::IdempotencyKeyReused, detail).into_response()
        }
        Told::Refused(refused) => problem(refused).into_response(),
    })
}

fn problem(refused: Refused) -> Problem {
    match refused {
        Refused::NoSuchPayment => Problem::no_such("payment"),
        Refused::ReferenceUsed(id) => Problem::reference_used(id),
        Refused::ByPayment(payment, refusal) => match refusal {
            Refusal::State => Problem::state_conflict(&payment),
            Refusal::CaptureTooLarge { most } => Problem::too_large(Code::CaptureAmountTooLarge, most),
            Refusal::RefundTooLarge { most } => Problem::too_large(Code::RefundAmountTooLarge, most),
            Refusal::Amount(error) => Problem::validation(vec![FieldError {
                place: Place::Pointer("/amount".to_owned()),
                code: FieldCode::OutOfRange,
                detail: error.to_string(),
            }]),
        },
    }
}

fn mark_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

/// An object as a response.
///
/// # Errors
/// It cannot be written as JSON: a fault of this program.
pub fn json(status: StatusCode, body: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(body).map_err(|error| Problem::fault(&error))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}
