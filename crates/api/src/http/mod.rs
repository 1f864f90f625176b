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
use crate::middleware::{Next, auth, limits, rate_limit, shed, through, trace};
use crate::problem::{Code, Problem};
use crate::state::App;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use error::render;
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// The public listener.
pub fn router(app: &Arc<App>) -> Router {
    let guard =
        |routes: MethodRouter<_>| routes.route_layer(from_fn_with_state(Arc::clone(app), of_merchants));
    let (routes, _) = table(guard).split_for_parts();
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
async fn all(app: State<Arc<App>>, request: Request, next: axum::middleware::Next) -> Response {
    through!(request, next;
        trace::trace(),
        metrics::measure(app),
        limits::no_store(),
        limits::take_the_rest(),
        render(),
        answer_panics(),
        limits::headers(),
        limits::drain(app),
        limits::deadline(app),
    )
    .await
}

/// What requests of merchants pass through besides, once path and method are known: who asks, then load, then rate.
async fn of_merchants(app: State<Arc<App>>, request: Request, next: axum::middleware::Next) -> Response {
    through!(request, next; auth::authenticate(app), shed::shed(app), rate_limit::limit(app),).await
}

fn layered(routes: Router<Arc<App>>, app: &Arc<App>) -> Router {
    routes
        .fallback(|| async { Problem::new(Code::NotFound, "There is no such path.") })
        .method_not_allowed_fallback(|| async {
            Problem::new(Code::MethodNotAllowed, "This method is not allowed here; see Allow.")
        })
        .layer(from_fn_with_state(Arc::clone(app), all))
        .with_state(Arc::clone(app))
}

/// The layer that turns a panic into an answer.
async fn answer_panics(request: Request, next: impl Next) -> Response {
    AssertUnwindSafe(Box::pin(next.run(request))).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!("a request panicked");
        let detail =
            "A fault of the service. Nothing is known about the outcome; ask again with the same key.";
        Problem::new(Code::Internal, detail).into_response()
    })
}
