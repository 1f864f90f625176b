//! What the process tells of itself: logs, traces and metrics.
//!
//! Logs are one line each on standard error, as JSON for machines or as text for people, with the trace id of the request.
//! Traces and metrics are sent by OTLP if an endpoint is set; metrics are at `/metrics` in any case.
//!
//! Whoever collects them may be slow or absent: what is to be sent waits in queues that are bounded, a thread of their own
//! sends it, and what does not fit is dropped. No request ever waits for it.

use crate::config::{LogFormat, Otlp};
use domain::card;
use domain::id::TraceId;
use domain::trace::TraceContext;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue, trace};
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::{
    Aggregation, Instrument, InstrumentKind, PeriodicReader, SdkMeterProvider, Stream,
};
use opentelemetry_sdk::trace::SdkTracerProvider;
use prometheus::Registry;
use std::borrow::Cow;
use std::io::{IsTerminal, Result as IoResult, Write};
use std::num::NonZeroU64;
use std::time::Duration;
use tracing::subscriber::Interest;
use tracing::{Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};
use uuid::Uuid;

/// The upper bounds of durations, in seconds (OpenTelemetry, semantic conventions for HTTP metrics).
const DURATIONS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
/// More combinations of labels than this are counted as one: memory is bounded even if a label were not.
const CARDINALITY: usize = 500;
/// How long the end of the process waits for what is still to be sent, for traces and for metrics.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The crates whose spans are in traces. Others name their fields as they like, and might put anything into them.
const OURS: [&str; 3] = ["api", "persistence", "provider"];

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The way to the collector cannot be made of the settings.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT and its companions cannot be used: {0}")]
    Exporter(#[from] ExporterBuildError),
    /// The client that sends cannot be made.
    #[error("no client for OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Client(#[from] reqwest::Error),
    /// The metrics cannot be registered.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] OTelSdkError),
}

/// Logs, traces and metrics of the process, until [`Telemetry::stop`].
pub struct Telemetry {
    registry: Registry,
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging and, if there is where to send them, traces and metrics. It must come before anything is measured,
    /// and outside of any runtime: the client that sends has one of its own.
    ///
    /// # Errors
    /// See [`TelemetryError`].
    pub fn start(format: Option<LogFormat>, otlp: &Otlp) -> Result<Self, TelemetryError> {
        let resource = resource();
        let registry = Registry::new();
        let scraped = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()?;
        let mut meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(scraped)
            .with_view(durations);
        if let Some(endpoint) = &otlp.metrics {
            let exporter = MetricExporter::builder()
                .with_http()
                .with_endpoint(endpoint)
                .with_http_client(client(endpoint)?)
                .build()?;
            meters = meters.with_reader(PeriodicReader::builder(exporter).build());
        }
        let meters = meters.build();
        opentelemetry::global::set_meter_provider(meters.clone());
        let mut tracers = None;
        if let Some(endpoint) = &otlp.traces {
            let exporter = SpanExporter::builder()
                .with_http()
                .with_endpoint(endpoint)
                .with_http_client(client(endpoint)?)
                .build()?;
            let provider = SdkTracerProvider::builder().with_resource(resource).with_batch_exporter(exporter);
            tracers = Some(provider.build());
        }
        subscribe(format, tracers.as_ref());
        Ok(Self { registry, meters, tracers })
    }

    /// Where all metrics of the process are kept.
    #[must_use]
    pub fn registry(&self) -> Registry {
        self.registry.clone()
    }

    /// Sends what is still to be sent, as far as that is soon possible.
    pub fn stop(self) {
        let sent = self.tracers.map_or(Ok(()), |tracers| tracers.shutdown_with_timeout(LAST_WORDS));
        let counted = self.meters.shutdown_with_timeout(LAST_WORDS);
        if let Err(error) = sent.and(counted) {
            tracing::warn!(%error, "the last traces or metrics were not sent");
        }
    }
}

/// What every trace and metric says about who sent it.
fn resource() -> Resource {
    let mut resource = Resource::builder();
    if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name("paywright");
    }
    let instance = KeyValue::new("service.instance.id", Uuid::new_v4().to_string());
    resource.with_attributes([KeyValue::new("service.version", env!("CARGO_PKG_VERSION")), instance]).build()
}

fn client(endpoint: &str) -> Result<reqwest::blocking::Client, reqwest::Error> {
    let mut builder = reqwest::blocking::Client::builder().redirect(reqwest::redirect::Policy::none());
    if endpoint.starts_with("http://") {
        // no TLS, so no roots: a bare machine has none, and the client would not start without
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

fn durations(instrument: &Instrument) -> Option<Stream> {
    let is_duration = instrument.kind() == InstrumentKind::Histogram && instrument.unit() == "s";
    let buckets =
        Aggregation::ExplicitBucketHistogram { boundaries: DURATIONS.to_vec(), record_min_max: false };
    let stream = Stream::builder().with_aggregation(buckets).with_cardinality_limit(CARDINALITY);
    is_duration.then(|| stream.build().ok()).flatten()
}

/// `RUST_LOG` chooses what is logged, without it everything from `info` on, and of OpenTelemetry what goes wrong. It does not
/// choose what is traced.
fn subscribe(format: Option<LogFormat>, tracers: Option<&SdkTracerProvider>) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,opentelemetry=warn"));
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Masked(std::io::stderr()));
    let lines = match format {
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        }
        LogFormat::Text => lines.with_ansi(terminal).boxed(),
    };
    // a second start within one process, as in a test, keeps the first
    let _ = match tracers {
        None => tracing_subscriber::registry().with(lines).with(filter).try_init(),
        Some(tracers) => {
            let spans = tracing_opentelemetry::layer()
                .with_tracer(tracers.tracer("payments"))
                .with_location(false)
                .with_threads(false)
                .with_target(false)
                .with_level(false)
                .with_tracked_inactivity(false);
            // Asked for every span anew. What every filter takes always is not asked for at all, and is then lost behind a
            // question that nothing follows, as sqlx asks whether its queries are logged: the subscriber still has that
            // answer at hand.
            let ours =
                dynamic_filter_fn(|metadata, _| is_traced(metadata)).with_callsite_filter(|metadata| {
                    if is_traced(metadata) { Interest::sometimes() } else { Interest::never() }
                });
            let traced = spans.with_filter(ours.with_max_level_hint(LevelFilter::DEBUG));
            tracing_subscriber::registry().with(lines.with_filter(filter)).with(traced).try_init()
        }
    };
}

/// Takes whole lines, and masks the card numbers in them. None should come so far, but what libraries, the provider and
/// the database have to say is not ours, and with `RUST_LOG=trace` it is much.
struct Masked<W>(W);

impl<W: Write> Write for Masked<W> {
    fn write(&mut self, line: &[u8]) -> IoResult<usize> {
        match str::from_utf8(line).map(card::mask) {
            Ok(Cow::Owned(masked)) => self.0.write_all(masked.as_bytes())?,
            _ => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> IoResult<()> {
        self.0.flush()
    }
}

/// Our spans, and of what is logged within them what went wrong.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target().split("::").next().is_some_and(|name| OURS.contains(&name));
    let level = if metadata.is_span() { tracing::Level::DEBUG } else { tracing::Level::WARN };
    ours && *metadata.level() <= level
}

/// Makes `span` a child of `parent`. It must be new: what has children or a place already stays where it is.
pub fn join(span: &Span, parent: TraceContext) {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let parent = SpanContext::new(
        trace::TraceId::from_bytes(parent.trace_id.as_uuid().into_bytes()),
        SpanId::from_bytes(parent.span_id.get().to_be_bytes()),
        flags,
        true,
        TraceState::NONE,
    );
    // fails where nothing is traced, and then there is nothing to join
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Where `span` stands in its trace; `None` where nothing is traced.
#[must_use]
pub fn place_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let place = context.span().span_context().clone();
    Some(TraceContext {
        trace_id: TraceId::from_uuid(Uuid::from_bytes(place.trace_id().to_bytes()))?,
        span_id: NonZeroU64::new(u64::from_be_bytes(place.span_id().to_bytes()))?,
        sampled: place.is_sampled(),
    })
}

/// Gives `span` a name in its trace that is made of values. The name in the code is for logs.
pub fn name(span: &Span, name: String) {
    span.context().span().update_name(name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_no_card_number_and_is_otherwise_as_it_was() {
        let ids = r#"{"timestamp":"2026-11-24T12:34:56.123456Z","trace_id":"41111111111111111111111111111111","duration_us":4111}"#;
        for (line, expected) in [
            ("the provider says: no 4111 1111 1111 1111\n", "the provider says: no **** **** **** ****\n"),
            (ids, ids),
        ] {
            let mut written = Vec::new();
            Masked(&mut written).write_all(line.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected);
        }
        let mut written = Vec::new();
        Masked(&mut written).write_all(b"\xff 4111").unwrap();
        assert_eq!(written, b"\xff 4111");
    }

    #[test]
    fn without_traces_nothing_has_a_place() {
        let span = tracing::info_span!("somewhere");
        join(&span, TraceContext::random());
        assert_eq!(place_of(&span), None);
    }
}
