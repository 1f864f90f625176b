//! Metrics: what is counted, by which labels, and `/metrics`.
//!
//! Names follow OpenTelemetry's semantic conventions where there is one. Every label has a closed set of values: a route's
//! template, a method of the standard, a kind, an outcome. What a caller writes never becomes a label.

use crate::admission::Admission;
use crate::app::once::Told;
use crate::middleware::Next;
use crate::state::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::operation::OperationKind;
use domain::reconcile::Difference;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram};
use persistence::Store;
use persistence::operations::Backlog;
use persistence::reconcile::Reconciled;
use prometheus::{Encoder, Registry, TextEncoder};
use provider::{Breaker, State as BreakerState};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the database is asked what is open, and what the last comparison found.
const BACKLOG_EVERY: Duration = Duration::from_secs(5);

/// What this process counts.
pub struct Metrics {
    registry: Registry,
    requests: Histogram<f64>,
    active: Arc<[AtomicI64; METHODS.len()]>,
    operations: Counter<u64>,
    keys: Counter<u64>,
    reconciliations: Counter<u64>,
    retries: Counter<u64>,
    refused: Counter<u64>,
    backlog: Arc<Mutex<Option<Backlog>>>,
    reconciled: Arc<Mutex<Option<Reconciled>>>,
}

impl Metrics {
    /// All instruments of the service; those of the provider's client are in its crate.
    #[must_use]
    pub fn new(
        registry: Registry,
        store: &Store,
        breaker: &Arc<Breaker>,
        admission: &Arc<Admission>,
    ) -> Self {
        let meter = opentelemetry::global::meter("payments");
        let backlog = Arc::new(Mutex::new(None));
        let reconciled = Arc::new(Mutex::new(None));
        let active = Arc::new([const { AtomicI64::new(0) }; METHODS.len()]);
        let metrics = Self {
            registry,
            requests: meter
                .f64_histogram("http.server.request.duration")
                .with_unit("s")
                .with_description("Requests by method, route and status, from their head to the answer's.")
                .build(),
            active: Arc::clone(&active),
            operations: meter
                .u64_counter("payments.operations")
                .with_unit("{operation}")
                .with_description("Operations that this process settled, by kind and outcome.")
                .build(),
            keys: meter
                .u64_counter("payments.idempotency.results")
                .with_unit("{request}")
                .with_description("What requests that move money came to, by what was known of their key.")
                .build(),
            reconciliations: meter
                .u64_counter("payments.reconciliation.runs")
                .with_unit("{run}")
                .with_description(
                    "Comparisons of provider and database by this process, by what they came to.",
                )
                .build(),
            retries: meter
                .u64_counter("payments.provider.retries")
                .with_unit("{call}")
                .with_description(
                    "Second tries at the payment provider within a request, by what the first came to.",
                )
                .build(),
            refused: meter
                .u64_counter("payments.admission.refused")
                .with_unit("{request}")
                .with_description("Requests for which there was no place.")
                .build(),
            backlog: Arc::clone(&backlog),
            reconciled: Arc::clone(&reconciled),
        };
        // a counter that is not there before its first request looks as if it had never grown
        metrics.refused.add(0, &[]);
        observe_active(&active);
        observe_backlog(&backlog);
        observe_reconciled(&reconciled);
        observe_pool(store);
        observe_breaker(breaker);
        observe_admission(admission);
        metrics
    }

    /// There was no place for a request.
    pub fn refused(&self) {
        self.refused.add(1, &[]);
    }

    /// An operation was settled by this process.
    pub fn settled(&self, kind: OperationKind, outcome: &'static str) {
        let labels = [
            KeyValue::new("payments.operation.kind", kind.name()),
            KeyValue::new("payments.outcome", outcome),
        ];
        self.operations.add(1, &labels);
    }

    /// Provider and database were compared by this process.
    pub fn reconciled(&self, result: &'static str) {
        self.reconciliations.add(1, &[KeyValue::new("payments.reconciliation.result", result)]);
    }

    /// The provider is asked once more within a request, after a first try that came to this.
    pub fn retried(&self, outcome: &'static str) {
        self.retries.add(1, &[KeyValue::new("payments.provider.outcome", outcome)]);
    }

    /// A request that moves money is told something.
    pub fn told(&self, told: &Told) {
        let result = match told {
            Told::Answered { replayed: false, .. } => "executed",
            Told::Answered { replayed: true, .. } => "replayed",
            Told::Accepted { replayed: false, .. } => "accepted",
            Told::Accepted { replayed: true, .. } => "still_open",
            Told::InProgress => "in_progress",
            Told::KeyReused => "reused",
            Told::Refused(_) => "refused",
        };
        self.keys.add(1, &[KeyValue::new("payments.idempotency.result", result)]);
    }
}

/// Counted apart from the others: twice per request, the instruments' way from labels to a number is what a refusal is
/// made of.
fn observe_active(active: &Arc<[AtomicI64; METHODS.len()]>) {
    let active = Arc::clone(active);
    opentelemetry::global::meter("payments")
        .i64_observable_up_down_counter("http.server.active_requests")
        .with_unit("{request}")
        .with_description("Requests under way.")
        .with_callback(move |gauge| {
            for (count, method) in active.iter().zip(METHODS) {
                gauge.observe(count.load(Ordering::Relaxed), &[KeyValue::new("http.request.method", method)]);
            }
        })
        .build();
}

fn observe_backlog(backlog: &Arc<Mutex<Option<Backlog>>>) {
    let meter = opentelemetry::global::meter("payments");
    let read = |backlog: &Mutex<Option<Backlog>>| *backlog.lock().unwrap_or_else(PoisonError::into_inner);
    let count = Arc::clone(backlog);
    meter
        .i64_observable_gauge("payments.operations.open")
        .with_unit("{operation}")
        .with_description("Operations of all merchants without an outcome, by the database.")
        // without a database nothing is told: an old number would look like a new one
        .with_callback(move |gauge| {
            if let Some(backlog) = read(&count) {
                gauge.observe(backlog.open, &[]);
            }
        })
        .build();
    let oldest = Arc::clone(backlog);
    meter
        .f64_observable_gauge("payments.operations.oldest_open.age")
        .with_unit("s")
        .with_description("The age of the oldest of them.")
        .with_callback(move |gauge| {
            if let Some(backlog) = read(&oldest) {
                gauge.observe(backlog.oldest.as_secs_f64(), &[]);
            }
        })
        .build();
}

fn observe_reconciled(reconciled: &Arc<Mutex<Option<Reconciled>>>) {
    let meter = opentelemetry::global::meter("payments");
    let read = |last: &Mutex<Option<Reconciled>>| last.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let found = Arc::clone(reconciled);
    meter
        .i64_observable_gauge("payments.reconciliation.differences")
        .with_unit("{difference}")
        .with_description("What the last comparison of provider and database found, by kind.")
        .with_callback(move |gauge| {
            if let Some(last) = read(&found) {
                // also those that were not found, so that an alert ends
                for kind in Difference::ALL {
                    let count = last.differences.get(&kind).copied().unwrap_or(0);
                    gauge.observe(count, &[KeyValue::new("payments.difference.kind", kind.name())]);
                }
            }
        })
        .build();
    let last = Arc::clone(reconciled);
    meter
        .f64_observable_gauge("payments.reconciliation.last.age")
        .with_unit("s")
        .with_description("How long ago that was.")
        .with_callback(move |gauge| {
            if let Some(last) = read(&last) {
                gauge.observe(last.age.as_secs_f64(), &[]);
            }
        })
        .build();
}

fn observe_pool(store: &Store) {
    let meter = opentelemetry::global::meter("payments");
    let labels = |state: &'static str| {
        [
            KeyValue::new("db.client.connection.pool.name", "payments"),
            KeyValue::new("db.client.connection.state", state),
        ]
    };
    let (pool, most) = (store.clone(), i64::from(store.most_connections()));
    meter
        .i64_observable_gauge("db.client.connection.count")
        .with_unit("{connection}")
        .with_description("Connections to the database, in use and at rest.")
        .with_callback(move |gauge| {
            let (all, idle) = pool.connections();
            let idle = i64::try_from(idle).unwrap_or(i64::MAX);
            gauge.observe(idle, &labels("idle"));
            gauge.observe(i64::from(all).saturating_sub(idle), &labels("used"));
        })
        .build();
    meter
        .i64_observable_gauge("db.client.connection.max")
        .with_unit("{connection}")
        .with_description("The most connections there can be.")
        .with_callback(move |gauge| {
            gauge.observe(most, &[KeyValue::new("db.client.connection.pool.name", "payments")]);
        })
        .build();
}

fn observe_breaker(breaker: &Arc<Breaker>) {
    let breaker = Arc::clone(breaker);
    opentelemetry::global::meter("payments")
        .i64_observable_gauge("payments.provider.breaker")
        .with_description("What the circuit breaker before the payment provider does: 1 for its state.")
        .with_callback(move |gauge| {
            let now = breaker.state();
            for state in BreakerState::ALL {
                let label = KeyValue::new("payments.provider.breaker.state", state.name());
                gauge.observe(i64::from(state == now), &[label]);
            }
        })
        .build();
}

fn observe_admission(admission: &Arc<Admission>) {
    let taken = Arc::clone(admission);
    let meter = opentelemetry::global::meter("payments");
    meter
        .u64_observable_gauge("payments.admission.taken")
        .with_unit("{request}")
        .with_description("Requests that do database work at the moment.")
        .with_callback(move |gauge| gauge.observe(number(taken.count().0), &[]))
        .build();
    let places = Arc::clone(admission);
    meter
        .u64_observable_gauge("payments.admission.places")
        .with_unit("{request}")
        .with_description(
            "How many may do so at once and begin something new; fewer while the database has a queue.",
        )
        .with_callback(move |gauge| gauge.observe(number(places.count().1), &[]))
        .build();
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// The layer.
pub async fn measure(State(app): State<Arc<App>>, request: Request, next: impl Next) -> Response {
    let method = method(request.method());
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let _active = Active::new(&app.metrics.active, method);
    let began = Instant::now();
    let response = next.run(request).await;
    let status = response.status();
    let method = KeyValue::new("http.request.method", method);
    let mut labels = vec![method, KeyValue::new("http.response.status_code", i64::from(status.as_u16()))];
    labels.extend(route.map(|route| KeyValue::new("http.route", route)));
    if status.is_server_error() {
        labels.push(KeyValue::new("error.type", status.as_str().to_owned()));
    }
    app.metrics.requests.record(began.elapsed().as_secs_f64(), &labels);
    response
}

/// A request under way, until it is dropped: a caller that hangs up leaves as well.
struct Active<'a>(Option<&'a AtomicI64>);

impl<'a> Active<'a> {
    fn new(active: &'a [AtomicI64; METHODS.len()], method: &str) -> Self {
        let count = METHODS.iter().zip(active).find(|(name, _)| **name == method).map(|(_, count)| count);
        if let Some(count) = count {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self(count)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What [`method`] answers.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER"];

/// A method of the standard, or `_OTHER`: whoever calls could invent any number of them.
pub fn method(method: &Method) -> &'static str {
    METHODS.into_iter().find(|name| *name == method.as_str()).unwrap_or("_OTHER")
}

/// `GET /metrics`, in the text format of Prometheus.
pub async fn show(State(app): State<Arc<App>>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&app.metrics.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Asks the database now and then what is open, and what the last comparison found. Never ends by itself.
pub async fn keep_backlog(app: Arc<App>) {
    loop {
        let backlog = app.store.backlog().await.ok();
        *app.metrics.backlog.lock().unwrap_or_else(PoisonError::into_inner) = backlog;
        let reconciled = app.store.last_reconciliation().await.ok().flatten();
        *app.metrics.reconciled.lock().unwrap_or_else(PoisonError::into_inner) = reconciled;
        tokio::time::sleep(BACKLOG_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_somebody_invents_is_no_label() {
        assert_eq!(method(&Method::GET), "GET");
        assert_eq!(method(&Method::from_bytes(b"BREW").unwrap()), "_OTHER");
    }
}
