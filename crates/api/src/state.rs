//! What all requests and the worker share.

use crate::config::Service;
use crate::metrics::{Exporter, Metrics};
use crate::middleware::auth::KeyCache;
use crate::middleware::rate_limit::RateLimit;
use domain::provider::Provider;
use persistence::Store;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// What all requests and the worker share.
pub struct App {
    /// The database.
    pub store: Store,
    /// The payment provider.
    pub provider: Arc<dyn Provider>,
    /// How the service behaves.
    pub settings: Service,
    /// Keys that were valid a moment ago.
    pub keys: KeyCache,
    /// Places for requests that do database work.
    pub slots: Arc<Semaphore>,
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
    pub fn new(store: Store, provider: Arc<dyn Provider>, settings: Service, exporter: Exporter) -> Self {
        Self {
            metrics: Metrics::new(exporter, &store),
            store,
            provider,
            keys: KeyCache::default(),
            slots: Arc::new(Semaphore::new(settings.max_in_flight)),
            rate_limit: RateLimit::per_second(settings.rate_limit),
            credentials: Credentials::default(),
            stop: Stop::default(),
            settings,
        }
    }
}

/// Whether the provider takes our credentials. While it does not, nothing new is begun; whatever call is answered ends
/// that.
#[derive(Debug, Default)]
pub struct Credentials(AtomicBool);

impl Credentials {
    /// The provider answered 401 or 403.
    pub fn refused(&self) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "the provider does not take our credentials; new payments are refused until it does"
            );
        }
    }

    /// The provider answered a request.
    pub fn accepted(&self) {
        // reading first keeps the cache line shared: this is called for every payment
        if self.are_refused() && self.0.swap(false, Ordering::Relaxed) {
            tracing::info!("the provider takes our credentials again");
        }
    }

    /// Whether new payments are to be refused.
    #[must_use]
    pub fn are_refused(&self) -> bool {
        self.0.load(Ordering::Relaxed)
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
