//! HTTP: all routes in one table, all layers in one function, in order. The table makes the OpenAPI document as well, so a
//! route that the document does not have is none.

pub mod bodies;
pub mod cards;
pub mod docs;
pub mod error;
pub mod events;
pub mod extract;
pub mod health;
pub mod json;
pub mod list;
pub mod openapi;
pub mod payments;
pub mod prefer;
pub mod refunds;
mod samples;
pub mod told;

use crate::metrics;
use crate::middleware::{auth, limits, rate_limit, shed, trace};
use crate::problem::{Code, Problem};
use crate::state::App;
use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get};
use error::render;
use std::sync::Arc;
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The public listener.
pub fn router(app: &Arc<App>) -> Router {
    let (routes, _) = table(|merchants| for_merchants(merchants, app)).split_for_parts();
    layered(routes.merge(docs::router()), app)
}

/// The operations listener.
pub fn operations_router(app: &Arc<App>) -> Router {
    let (routes, _) = health().split_for_parts();
    layered(routes.route("/metrics", get(metrics::show)), app)
}

/// All routes; those of merchants are given to `guard`.
fn table(guard: impl Fn(MethodRouter<Arc<App>>) -> MethodRouter<Arc<App>>) -> OpenApiRouter<Arc<App>> {
    let merchants = |(schemas, paths, methods)| (schemas, paths, guard(methods));
    OpenApiRouter::new()
        .routes(merchants(routes!(payments::list, payments::create)))
        .routes(merchants(routes!(payments::show)))
        .routes(merchants(routes!(payments::capture)))
        .routes(merchants(routes!(payments::cancel)))
        .routes(merchants(routes!(refunds::list, refunds::create)))
        .routes(merchants(routes!(events::list)))
        .routes(merchants(routes!(refunds::show)))
        .merge(health())
}

/// What both listeners have.
fn health() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(health::live)).routes(routes!(health::ready))
}

/// What every request passes through, from the outside in.
fn layered(routes: Router<Arc<App>>, app: &Arc<App>) -> Router {
    let layers = ServiceBuilder::new()
        .layer(from_fn(trace::trace))
        .layer(from_fn_with_state(Arc::clone(app), metrics::measure))
        .layer(from_fn(limits::no_store))
        .layer(from_fn(limits::take_the_rest))
        .layer(from_fn(render))
        .layer(CatchPanicLayer::custom(|_| axum::response::IntoResponse::into_response(panicked())))
        .layer(from_fn(limits::headers))
        .layer(from_fn_with_state(Arc::clone(app), limits::drain))
        .layer(from_fn_with_state(Arc::clone(app), limits::deadline));
    routes
        .fallback(|| async { Problem::new(Code::NotFound, "There is no such path.") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "This method is not allowed here; see Allow.")
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
