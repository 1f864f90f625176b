//! What every request passes through. [`crate::http::router`] says in which order.

use axum::extract::Request;
use axum::response::Response;

pub mod auth;
pub mod limits;
pub mod rate_limit;
pub mod shed;
pub mod trace;

/// What is behind a layer.
pub trait Next: Send {
    /// Passes the request on, and brings the answer back.
    fn run(self, request: Request) -> impl Future<Output = Response> + Send;
}

impl<N: FnOnce(Request) -> F + Send, F: Future<Output = Response> + Send> Next for N {
    fn run(self, request: Request) -> impl Future<Output = Response> + Send {
        self(request)
    }
}

/// Passes a request through layers, from the outside in, to `next`: calls within calls, and one future of all of them. A
/// layer of axum's `from_fn` clones all that is behind it, and puts its future into a box, for each request.
macro_rules! through {
    // a future holds those of its calls, some of them twice: what is behind all layers must not grow with each
    ($request:expr, $next:expr;) => { Box::pin($next.run($request)) };
    ($request:expr, $next:expr; $($layer:ident)::+($($state:expr)?), $($inner:tt)*) => {
        async move {
            let answer = $($layer)::+($($state.clone(),)? $request, |request: axum::extract::Request| {
                $crate::middleware::through!(request, $next; $($inner)*)
            });
            axum::response::IntoResponse::into_response(answer.await)
        }
    };
}
pub(crate) use through;
