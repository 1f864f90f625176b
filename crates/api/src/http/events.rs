//! The audit trail of a payment.

use crate::answer::EventBody;
use crate::http::cards::CardsFound;
use crate::http::extract::Id;
use crate::http::list::{self, ListBody, Page};
use crate::http::payments;
use crate::http::told::json;
use crate::middleware::auth::Caller;
use crate::problem::Problem;
use crate::state::App;
use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::sync::Arc;

/// A page of events.
type EventList<'a> = ListBody<EventBody<'a>>;

/// `GET /v1/payments/{id}/events`
///
/// # Errors
/// 404 as for the payment itself; 422 for an unknown, repeated or unreadable parameter.
#[utoipa::path(
    get,
    path = "/v1/payments/{id}/events",
    operation_id = "list_events",
    tag = "Events",
    summary = "List the events of a payment",
    description = "Its audit trail, oldest first: every change has exactly one event.",
    params(("id" = Uuid, Path, description = "The payment's id."), Page),
    responses((status = 200, body = EventList, description = "A page.")),
)]
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Id,
    RawQuery(query): RawQuery,
    cards: CardsFound,
) -> Result<Response, Problem> {
    let query = list::read_page(query.as_deref().unwrap_or_default(), &format!("events {id}"));
    let (cursor, page) = cards.or_refuse(query)?;
    let id = payments::find(&app, &caller, &id).await?.id;
    // sequences begin at 1, and only this service writes cursors
    let after = cursor.and_then(|at| i32::try_from(at).ok()).unwrap_or(0);
    let mut events = app.store.list_events(caller.merchant_id, id, after, page.to_read()).await?;
    let next = page.next(&mut events, |last| u128::try_from(last.sequence).unwrap_or(0));
    json(StatusCode::OK, &ListBody::new(events.iter().map(EventBody::from), next))
}
