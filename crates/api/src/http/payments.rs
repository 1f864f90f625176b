//! `/v1/payments`: headers, bodies and parameters become what the use cases take, and back.

use crate::answer::PaymentBody;
use crate::app::once::Asked;
use crate::http::bodies::{CancelBody, CaptureBody, CreateBody, read_cancel, read_capture, read_new_payment};
use crate::http::cards::CardsFound;
use crate::http::extract::{Id, MoneyPost, OptionalBody};
use crate::http::list::{self, ListBody, Query};
use crate::http::told::{Context, json, tell};
use crate::middleware::auth::Caller;
use crate::problem::Problem;
use crate::state::App;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use domain::id::PaymentId;
use domain::idempotency::Fingerprint;
use domain::payment::Payment;
use std::sync::Arc;

/// A page of payments.
type PaymentList<'a> = ListBody<PaymentBody<'a>>;

/// `POST /v1/payments`
///
/// # Errors
/// See the table of problems.
#[utoipa::path(
    post,
    path = "/v1/payments",
    operation_id = "create_payment",
    tag = "Payments",
    summary = "Create a payment",
    description = "Charges a payment method, or holds the money if capture is manual.",
    request_body = CreateBody,
    responses(
        (status = 201, body = PaymentBody, description = "Settled: authorized, captured, or requires_action."),
        (status = 202, body = PaymentBody, description = "No outcome yet: the payment is processing."),
    ),
    extensions(("x-problems" = json!(["payment_declined", "reference_already_used", "provider_misconfigured"]))),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    context: Context,
    mut post: MoneyPost,
) -> Result<Response, Problem> {
    let request = post.read(read_new_payment)?;
    let fingerprint = Fingerprint::of_payment(&request);
    tell(&app, context, post, fingerprint, Asked::Create(Box::new(request))).await
}

/// `POST /v1/payments/{id}/capture`
///
/// # Errors
/// See the table of problems.
#[utoipa::path(
    post,
    path = "/v1/payments/{id}/capture",
    operation_id = "capture_payment",
    tag = "Payments",
    summary = "Capture an authorized payment",
    description = "Everything, unless there is an amount. A part can be captured one time only: what is left \
                   of the payment goes back to the customer.",
    params(("id" = Uuid, Path, description = "The payment's id.")),
    request_body = CaptureBody,
    responses(
        (status = 200, body = PaymentBody, description = "Captured."),
        (status = 202, body = PaymentBody, description = "No outcome yet: pending_operation is capture."),
    ),
    extensions(("x-problems" = json!(["payment_declined", "payment_state_conflict", "capture_amount_too_large"]))),
)]
pub async fn capture(
    State(app): State<Arc<App>>,
    context: Context,
    id: Id,
    OptionalBody(mut post): OptionalBody,
) -> Result<Response, Problem> {
    let amount = post.read(read_capture)?;
    let fingerprint = Fingerprint::of_capture(&format!("/v1/payments/{id}/capture"), amount);
    tell(&app, context, post, fingerprint, Asked::Capture(id.uuid().map(PaymentId), amount)).await
}

/// `POST /v1/payments/{id}/cancel`
///
/// # Errors
/// See the table of problems.
#[utoipa::path(
    post,
    path = "/v1/payments/{id}/cancel",
    operation_id = "cancel_payment",
    tag = "Payments",
    summary = "Cancel a payment",
    description = "Releases the money of a payment that is authorized, or ends one that requires action.",
    params(("id" = Uuid, Path, description = "The payment's id.")),
    request_body = CancelBody,
    responses(
        (status = 200, body = PaymentBody, description = "Canceled."),
        (status = 202, body = PaymentBody, description = "No outcome yet: pending_operation is cancel."),
    ),
    extensions(("x-problems" = json!(["payment_declined", "payment_state_conflict"]))),
)]
pub async fn cancel(
    State(app): State<Arc<App>>,
    context: Context,
    id: Id,
    OptionalBody(mut post): OptionalBody,
) -> Result<Response, Problem> {
    post.read(read_cancel)?;
    let fingerprint = Fingerprint::of_cancel(&format!("/v1/payments/{id}/cancel"));
    tell(&app, context, post, fingerprint, Asked::Cancel(id.uuid().map(PaymentId))).await
}

/// `GET /v1/payments/{id}`
///
/// # Errors
/// 404 also for another merchant's payment, and for an id that is no UUID; 422 for a card number.
#[utoipa::path(
    get,
    path = "/v1/payments/{id}",
    operation_id = "get_payment",
    tag = "Payments",
    summary = "Read a payment",
    description = "As it stands now, in every status.",
    params(("id" = Uuid, Path, description = "The payment's id.")),
    responses((status = 200, body = PaymentBody, description = "The payment.")),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Id,
    cards: CardsFound,
) -> Result<Response, Problem> {
    cards.or_refuse(Ok(()))?;
    let payment = find(&app, &caller, &id).await?;
    json(StatusCode::OK, &PaymentBody::from(&payment))
}

/// The caller's payment that a path names.
///
/// # Errors
/// 404 also for another merchant's payment, and for an id that is no UUID.
pub(super) async fn find(app: &App, caller: &Caller, id: &Id) -> Result<Payment, Problem> {
    let found = match id.uuid() {
        Some(id) => app.store.find_payment(caller.merchant_id, PaymentId(id)).await?,
        None => None,
    };
    found.ok_or_else(|| Problem::no_such("payment"))
}

/// `GET /v1/payments`
///
/// # Errors
/// 422 for an unknown, repeated or unreadable parameter.
#[utoipa::path(
    get,
    path = "/v1/payments",
    operation_id = "list_payments",
    tag = "Payments",
    summary = "List payments",
    description = "Newest first. Whoever follows next_cursor to the end sees each payment \
                   that was there at the start, and none twice.",
    params(Query),
    responses((status = 200, body = PaymentList, description = "A page.")),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
    cards: CardsFound,
) -> Result<Response, Problem> {
    let query = list::read_payments_query(query.as_deref().unwrap_or_default());
    let Query { filter, cursor, page } = cards.or_refuse(query)?;
    let mut payments = app.store.list_payments(caller.merchant_id, &filter, cursor, page.to_read()).await?;
    let next = page.next(&mut payments, |last| last.id.0.as_u128());
    json(StatusCode::OK, &ListBody::new(payments.iter().map(PaymentBody::from), next))
}
