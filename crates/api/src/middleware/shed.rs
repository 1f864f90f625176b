//! Load: at most so many requests do database work at once, and the rest hears so in an instant instead of waiting in a
//! queue that only grows.

use crate::middleware::Next;
use crate::problem::{Code, Problem};
use crate::state::App;
use axum::extract::{Request, State};
use axum::response::Response;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// A place among the requests that do database work. It is given back as soon as a request only waits.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Slot {
    /// Gives the place back before the request ends.
    pub fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The layer.
///
/// # Errors
/// 503 `overloaded` when every place is taken.
pub async fn shed(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: impl Next,
) -> Result<Response, Problem> {
    let Ok(permit) = Arc::clone(&app.slots).try_acquire_owned() else {
        return Err(Problem::passing(
            Code::Overloaded,
            "Too much to do. Send the request again a little later.",
            1,
        ));
    };
    request.extensions_mut().insert(Slot(Arc::new(Mutex::new(Some(permit)))));
    Ok(next.run(request).await)
}
