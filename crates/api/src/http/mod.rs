//! HTTP: all routes in one table, all layers in one function, in order.

pub mod bodies;
pub mod error;
pub mod events;
pub mod extract;
pub mod health;
pub mod json;
pub mod list;
pub mod payments;
pub mod prefer;
pub mod refunds;
pub mod told;

use crate::middleware::{auth, limits, rate_limit, shed, trace};
use crate::problem::{Code, Problem};
use crate::state::App;
use axum::Router;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post};
use error::render;
use std::sync::Arc;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;

/// The public listener.
pub fn router(app: &Arc<App>) -> Router {
    let merchants = |routes| for_merchants(routes, app);
    let routes = Router::new()
        .route("/v1/payments", merchants(get(payments::list).post(payments::create)))
        .route("/v1/payments/{id}", merchants(get(payments::show)))
        .route("/v1/payments/{id}/capture", merchants(post(payments::capture)))
        .route("/v1/payments/{id}/cancel", merchants(post(payments::cancel)))
        .route("/v1/payments/{id}/refunds", merchants(get(refunds::list).post(refunds::create)))
        .route("/v1/payments/{id}/events", merchants(get(events::list)))
        .route("/v1/refunds/{id}", merchants(get(refunds::show)))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready));
    layered(routes, app)
}

/// The operations listener.
pub fn operations_router(app: &Arc<App>) -> Router {
    let routes = Router::new().route("/livez", get(health::live)).route("/readyz", get(health::ready));
    layered(routes, app)
}

/// What every request passes through, from the outside in.
fn layered(routes: Router<Arc<App>>, app: &Arc<App>) -> Router {
    let layers = ServiceBuilder::new()
        .layer(from_fn(trace::trace))
        .layer(from_fn(limits::no_store))
        .layer(from_fn(limits::take_the_rest))
        .layer(from_fn(render))
        .layer(CatchPanicLayer::custom(|_| axum::response::IntoResponse::into_response(panicked())))
        .layer(from_fn(limits::headers))
        .layer(from_fn_with_state(Arc::clone(app), limits::drain))
        .layer(from_fn_with_state(Arc::clone(app), limits::deadline));
    routes
        .fallback(|| async { Problem::new(Code::NotFound, "There is no such path.") })
        .method_not_allowed_fallback(|method: Method| async move {
            Problem::new(Code::MethodNotAllowed, format!("{method} is not allowed here; see Allow."))
        })
        .layer(layers)
        .with_state(Arc::clone(app))
}

/// What requests of merchants pass through besides, once path and method are known: who asks, then load, then rate.
fn for_merchants(routes: MethodRouter<Arc<App>>, app: &Arc<App>) -> MethodRouter<Arc<App>> {
    routes.route_layer(
        ServiceBuilder::new()
            .layer(from_fn_with_state(Arc::clone(app), auth::authenticate))
            .layer(from_fn_with_state(Arc::clone(app), shed::shed))
            .layer(from_fn_with_state(Arc::clone(app), rate_limit::limit)),
    )
}

fn panicked() -> Problem {
    tracing::error!("a request panicked");
    Problem::new(
        Code::Internal,
        "A fault of the service. Nothing is known about the outcome; ask again with the same key.",
    )
}
