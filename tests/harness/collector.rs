//! Where services send their telemetry: a receiver of OTLP over HTTP (OpenTelemetry Protocol 1.x, section "OTLP/HTTP").

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A receiver that keeps what it is sent. It ends with its value.
#[derive(Debug)]
pub struct Collector {
    url: String,
    received: Arc<Mutex<Received>>,
    serving: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Received {
    requests: usize,
    spans: Vec<Span>,
    metrics: BTreeSet<String>,
    resource: BTreeSet<String>,
}

impl Collector {
    /// One that takes everything.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start() -> Result<Self> {
        Self::listen(true).await
    }

    /// One that reads and never answers.
    ///
    /// # Errors
    /// There is no port.
    pub async fn mute() -> Result<Self> {
        Self::listen(false).await
    }

    async fn listen(answers: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let received = Arc::new(Mutex::new(Received::default()));
        let kept = Arc::clone(&received);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&kept), answers));
            }
        });
        Ok(Self { url, received, serving })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Requests that came, answered or not.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.look().requests
    }

    /// The spans of a trace, by its id in hexadecimal.
    #[must_use]
    pub fn trace(&self, id: &str) -> Vec<Span> {
        self.look().spans.iter().filter(|span| hex(&span.trace_id) == id).cloned().collect()
    }

    /// The ids of all traces.
    #[must_use]
    pub fn traces(&self) -> BTreeSet<String> {
        self.look().spans.iter().map(|span| hex(&span.trace_id)).collect()
    }

    /// The names of all metrics.
    #[must_use]
    pub fn metrics(&self) -> BTreeSet<String> {
        self.look().metrics.clone()
    }

    /// What the senders say about themselves, as `name=value`.
    #[must_use]
    pub fn resource(&self) -> BTreeSet<String> {
        self.look().resource.clone()
    }

    fn look(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Bytes as they are written in logs.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn converse(mut stream: TcpStream, received: Arc<Mutex<Received>>, answers: bool) -> Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head)?.to_ascii_lowercase();
        ensure!(head.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.context("a length")?.parse()?];
        stream.read_exact(&mut body).await?;
        received.lock().unwrap_or_else(PoisonError::into_inner).take(&head, &body)?;
        if answers {
            // an empty message: everything was taken
            stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
                )
                .await?;
        }
    }
}

impl Received {
    fn take(&mut self, head: &str, body: &[u8]) -> Result<()> {
        self.requests += 1;
        if head.starts_with("post /v1/traces ") {
            for sender in ExportTraceServiceRequest::decode(body)?.resource_spans {
                let attributes = sender.resource.unwrap_or_default().attributes;
                let value = |value: Option<_>| value.map(|value| format!("{value:?}")).unwrap_or_default();
                self.resource.extend(attributes.into_iter().map(|a| format!("{}={}", a.key, value(a.value))));
                self.spans.extend(sender.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        } else {
            for sender in ExportMetricsServiceRequest::decode(body)?.resource_metrics {
                let metrics = sender.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
                self.metrics.extend(metrics.map(|metric| metric.name));
            }
        }
        Ok(())
    }
}
