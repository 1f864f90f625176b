//! Load: whoever finds no place among the requests that do database work hears so in an instant, instead of waiting in a
//! queue that only grows.

use crate::admission::{Admission, Place, Priority, overloaded};
use crate::http::extract::idempotency_key;
use crate::middleware::Next;
use crate::middleware::auth::Caller;
use crate::problem::Problem;
use crate::state::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Method;
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A request's place, held while it does database work and given back while it waits for anything else.
#[derive(Clone)]
pub struct Slot {
    admission: Arc<Admission>,
    priority: Priority,
    place: Arc<Mutex<Option<Place>>>,
}

impl Slot {
    /// Gives the place back: the request waits.
    pub fn release(&self) {
        self.place().take();
    }

    /// Gives the place back: the claim of a payment is written.
    pub fn claimed(&self) {
        let place = self.place().take();
        if let Some(place) = place {
            place.claimed();
        }
    }

    /// Takes a place again.
    ///
    /// # Errors
    /// 503 `overloaded`.
    pub fn regain(&self) -> Result<(), Problem> {
        let place = self.admission.admit(self.priority).ok_or_else(overloaded)?;
        *self.place() = Some(place);
        Ok(())
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On the answer to a request that found no place. There may be thousands of them per second: they are counted, and not
/// told one by one.
#[derive(Debug, Clone, Copy)]
pub struct Shed;

/// The layer: 503 `overloaded` when every place is taken.
pub async fn shed(State(app): State<Arc<App>>, mut request: Request, next: impl Next) -> Response {
    let admit = |priority| app.admission.admit(priority).map(|place| (priority, place));
    let admitted = admit(Priority::Ordinary)
        .or_else(|| if has_priority(&app.admission, &request) { admit(Priority::High) } else { None });
    let Some((priority, place)) = admitted else {
        app.metrics.refused();
        let mut refused = overloaded().into_response();
        refused.extensions_mut().insert(Shed);
        return refused;
    };
    request.extensions_mut().insert(Slot {
        admission: Arc::clone(&app.admission),
        priority,
        place: Arc::new(Mutex::new(Some(place))),
    });
    next.run(request).await
}

/// Whether a request reads, gives money back, or asks what became of one that was carried out.
fn has_priority(admission: &Admission, request: &Request) -> bool {
    let refunds = || {
        let path = request.extensions().get::<MatchedPath>();
        path.is_some_and(|path| path.as_str().ends_with("/refunds"))
    };
    let repeats = || {
        let (caller, key) = (request.extensions().get::<Caller>(), idempotency_key(request.headers()));
        caller.zip(key.ok()).is_some_and(|(caller, key)| admission.is_used(caller.merchant_id, &key))
    };
    matches!(*request.method(), Method::GET | Method::HEAD) || refunds() || repeats()
}
