//! Refunds: of a payment, and by their own id.

use crate::answer::RefundBody;
use crate::app::once::Asked;
use crate::http::bodies::{RefundBody as RefundFields, read_refund};
use crate::http::cards::CardsFound;
use crate::http::extract::{Id, OptionalBody};
use crate::http::list::{self, ListBody, Page};
use crate::http::payments;
use crate::http::told::{Context, json, tell};
use crate::middleware::auth::Caller;
use crate::problem::Problem;
use crate::state::App;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use domain::id::{PaymentId, RefundId};
use domain::idempotency::Fingerprint;
use std::sync::Arc;
use uuid::Uuid;

/// A page of refunds.
type RefundList<'a> = ListBody<RefundBody<'a>>;

/// `POST /v1/payments/{id}/refunds`
///
/// # Errors
/// See the table of problems.
#[utoipa::path(
    post,
    path = "/v1/payments/{id}/refunds",
    operation_id = "create_refund",
    tag = "Refunds",
    summary = "Refund a captured payment",
    description = "Everything that is left, unless there is an amount. What is on its way back already is not left.",
    params(("id" = Uuid, Path, description = "The payment's id.")),
    request_body = RefundFields,
    responses(
        (status = 201, body = RefundBody, description = "Succeeded: the money is on its way."),
        (status = 202, body = RefundBody, description = "No outcome yet: the refund is processing."),
    ),
    extensions(("x-problems" = json!(["refund_declined", "payment_state_conflict", "refund_amount_too_large"]))),
)]
pub async fn create(
    State(app): State<Arc<App>>,
    context: Context,
    id: Id,
    OptionalBody(mut post): OptionalBody,
) -> Result<Response, Problem> {
    let request = post.read(read_refund)?;
    let fingerprint = Fingerprint::of_refund(&format!("/v1/payments/{id}/refunds"), &request);
    tell(&app, context, post, fingerprint, Asked::Refund(id.uuid().map(PaymentId), request)).await
}

/// `GET /v1/payments/{id}/refunds`
///
/// # Errors
/// 404 as for the payment itself; 422 for an unknown, repeated or unreadable parameter.
#[utoipa::path(
    get,
    path = "/v1/payments/{id}/refunds",
    operation_id = "list_refunds",
    tag = "Refunds",
    summary = "List the refunds of a payment",
    description = "Newest first.",
    params(("id" = Uuid, Path, description = "The payment's id."), Page),
    responses((status = 200, body = RefundList, description = "A page.")),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Id,
    RawQuery(query): RawQuery,
    cards: CardsFound,
) -> Result<Response, Problem> {
    let query = list::read_page(query.as_deref().unwrap_or_default(), &format!("refunds {id}"));
    let (cursor, page) = cards.or_refuse(query)?;
    let id = payments::find(&app, &caller, &id).await?.id;
    let before = cursor.map(|at| RefundId(Uuid::from_u128(at)));
    let mut refunds = app.store.list_refunds(caller.merchant_id, id, before, page.to_read()).await?;
    let next = page.next(&mut refunds, |last| last.id.0.as_u128());
    json(StatusCode::OK, &ListBody::new(refunds.iter().map(RefundBody::from), next))
}

/// `GET /v1/refunds/{id}`
///
/// # Errors
/// 404 also for another merchant's refund, and for an id that is no UUID; 422 for a card number.
#[utoipa::path(
    get,
    path = "/v1/refunds/{id}",
    operation_id = "get_refund",
    tag = "Refunds",
    summary = "Read a refund",
    description = "As it stands now, in every status.",
    params(("id" = Uuid, Path, description = "The refund's id.")),
    responses((status = 200, body = RefundBody, description = "The refund.")),
)]
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Id,
    cards: CardsFound,
) -> Result<Response, Problem> {
    cards.or_refuse(Ok(()))?;
    let absent = || Problem::no_such("refund");
    let id = RefundId(id.uuid().ok_or_else(absent)?);
    let refund = app.store.find_refund(caller.merchant_id, id).await?.ok_or_else(absent)?;
    json(StatusCode::OK, &RefundBody::from(&refund))
}
