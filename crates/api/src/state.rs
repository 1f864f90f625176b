//! What all requests and the worker share.

use crate::admission::Admission;
use crate::config::Service;
use crate::metrics::Metrics;
use crate::middleware::auth::KeyCache;
use crate::middleware::rate_limit::RateLimit;
use domain::operation::OperationKind;
use domain::provider::Provider;
use persistence::Store;
use prometheus::Registry;
use provider::{Breaker, RetryBudget};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What all requests and the worker share.
pub struct App {
    /// The database.
    pub store: Store,
    /// The payment provider, for work that nobody waits for.
    pub provider: Arc<dyn Provider>,
    /// The payment provider, for callers who wait.
    pub provider_for_callers: Arc<dyn Provider>,
    /// Whether the provider is down.
    pub breaker: Arc<Breaker>,
    /// How many calls may be made a second time for callers who wait.
    pub retry_budget: RetryBudget,
    /// How the service behaves.
    pub settings: Service,
    /// Keys that were valid a moment ago.
    pub keys: KeyCache,
    /// Who gets in.
    pub admission: Arc<Admission>,
    /// A merchant's own limit, if there is one.
    pub rate_limit: Option<RateLimit>,
    /// Whether the provider takes our credentials.
    pub credentials: Credentials,
    /// What is counted.
    pub metrics: Metrics,
    /// How the process ends.
    pub stop: Stop,
}

impl App {
    /// Everything at its beginning.
    #[must_use]
    pub fn new(store: Store, provider: provider::Client, settings: Service, registry: Registry) -> Self {
        let breaker = provider.breaker();
        let admission = Arc::new(Admission::new(settings.max_in_flight));
        Self {
            metrics: Metrics::new(registry, &store, &breaker, &admission),
            admission,
            store,
            provider_for_callers: Arc::new(provider.for_callers()),
            provider: Arc::new(provider),
            breaker,
            retry_budget: RetryBudget::default(),
            keys: KeyCache::default(),
            rate_limit: RateLimit::per_second(settings.rate_limit),
            credentials: Credentials::default(),
            stop: Stop::default(),
            settings,
        }
    }
}

/// Whether the provider takes our credentials: 401 or 403 says that it does not. While it does not, no new payment is
/// begun.
///
/// A key may have the right to charge and not the right to capture. So a call that is answered well clears only what it is
/// itself about, and the rest is cleared when nothing was refused for a while.
#[derive(Debug, Default)]
pub struct Credentials {
    refused: Mutex<Refused>,
    /// Whether anything was refused lately: what is asked for every payment, without the lock.
    any: AtomicBool,
}

#[derive(Debug, Default)]
struct Refused {
    /// When a call for this kind of operation was refused last.
    of: HashMap<&'static str, Instant>,
    /// Whether even a call about nothing in particular was refused.
    all: bool,
}

impl Refused {
    /// Something was taken: if nothing at all was before, everything is again.
    fn taken_again(&mut self) {
        if std::mem::take(&mut self.all) {
            self.of.clear();
        }
    }
}

/// An operation that is refused is tried again within this.
const REFUSED_FOR: Duration = Duration::from_secs(20);

impl Credentials {
    /// The provider answered 401 or 403 to a call for this kind of operation.
    pub fn refused(&self, kind: OperationKind) {
        self.lock().of.insert(kind.name(), Instant::now());
        if !self.any.swap(true, Ordering::Relaxed) {
            tracing::error!(
                operation = kind.name(),
                "the provider does not take our credentials; new payments are refused until it does"
            );
        }
    }

    /// The provider answered a call for this kind of operation.
    pub fn accepted(&self, kind: OperationKind) {
        // reading first keeps the cache line shared: this is called for every payment
        if self.are_refused() {
            let mut refused = self.lock();
            refused.of.remove(kind.name());
            refused.taken_again();
            drop(refused);
            self.look();
        }
    }

    /// The provider was asked about nothing in particular, and took our credentials or not.
    pub fn asked(&self, taken: bool) {
        let mut refused = self.lock();
        if taken {
            refused.taken_again();
        } else {
            refused.all = true;
        }
        refused.of.retain(|_, last| last.elapsed() < REFUSED_FOR);
        drop(refused);
        self.look();
    }

    /// Whether new payments are to be refused.
    #[must_use]
    pub fn are_refused(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        let refused = self.lock();
        let any = refused.all || !refused.of.is_empty();
        if self.any.swap(any, Ordering::Relaxed) && !any {
            tracing::info!("the provider takes our credentials again");
        }
    }
}

/// How the process ends, in four steps; [`crate::server`] takes them.
#[derive(Debug, Default)]
pub struct Stop {
    draining: AtomicBool,
    refusing: AtomicBool,
    /// Ends when the worker takes nothing new.
    pub worker: CancellationToken,
    give_up: CancellationToken,
    /// What must be finished, waiting callers or not.
    pub tasks: TaskTracker,
    requests: TaskTracker,
}

impl Stop {
    /// First: unready, so that nobody new is sent here. Connections are closed behind their answers.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Second: nothing new is begun.
    pub fn refuse(&self) {
        self.refusing.store(true, Ordering::Relaxed);
        self.worker.cancel();
        self.requests.close();
        self.tasks.close();
    }

    /// Third, when the time is nearly up: waiting ends, and open operations are handed back.
    pub fn give_up(&self) {
        self.give_up.cancel();
    }

    /// Fourth: everything has ended.
    pub async fn finished(&self) {
        self.requests.wait().await;
        self.tasks.wait().await;
    }

    /// Whether the process is unready because it stops.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Whether new requests are refused.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Ends when whatever waits must stop waiting.
    pub async fn giving_up(&self) {
        self.give_up.cancelled().await;
    }

    /// Held while a request is under way.
    pub fn request_token(&self) -> TaskTrackerToken {
        self.requests.token()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_is_not_hidden_by_those_that_are_there() {
        let credentials = Credentials::default();
        credentials.refused(OperationKind::Capture);
        credentials.accepted(OperationKind::Charge);
        credentials.asked(true);
        assert!(credentials.are_refused());
        credentials.accepted(OperationKind::Capture);
        assert!(!credentials.are_refused());
    }

    #[test]
    fn a_provider_that_took_nothing_and_takes_us_again_takes_everything() {
        let credentials = Credentials::default();
        credentials.refused(OperationKind::Charge);
        credentials.refused(OperationKind::Capture);
        credentials.asked(false);
        assert!(credentials.are_refused());
        credentials.asked(true);
        assert!(!credentials.are_refused());
        // or whoever is first to be answered
        credentials.refused(OperationKind::Capture);
        credentials.asked(false);
        credentials.accepted(OperationKind::Charge);
        assert!(!credentials.are_refused());
    }
}
