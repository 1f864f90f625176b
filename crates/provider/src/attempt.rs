//! One request to the provider: sent at most once, bounded from connect to last byte.

use crate::breaker::Health;
use crate::classify::{Meaning, classify};
use crate::wire::{ErrorEnvelope, ErrorObject, Form};
use domain::provider::{NotExecuted, Unknown};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Histogram;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};
use tracing::{Instrument, field};

/// An answer longer than this is none.
const MAX_BODY: usize = 1 << 20;
/// A provider that does not take a connection in this time is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A provider that asks for more patience than this is asked again after this: what is open must not wait much longer than
/// the trouble lasts.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(20);
/// The version of the protocol that [`crate::wire`] was written for.
const API_VERSION: &str = "2024-06-20";

/// A way to the provider: connections that are shared and kept.
pub(crate) struct Transport {
    http: reqwest::Client,
    /// What every request begins as: where to, and who asks.
    every: reqwest::Request,
    host: String,
    calls: Histogram<f64>,
}

/// A path, and the id in it. Without the id it is what calls are counted by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Endpoint<'a> {
    template: &'static str,
    id: &'a str,
}

impl<'a> Endpoint<'a> {
    /// A path without an id.
    pub(crate) const fn all(template: &'static str) -> Self {
        Self { template, id: "" }
    }

    /// A path with an id in place of `{id}`.
    pub(crate) const fn one(template: &'static str, id: &'a str) -> Self {
        Self { template, id }
    }

    /// What calls are counted by.
    pub(crate) const fn template(self) -> &'static str {
        self.template
    }

    fn path(self) -> String {
        self.template.replace("{id}", self.id)
    }
}

/// What is sent.
pub(crate) struct Request<'a> {
    pub(crate) method: Method,
    pub(crate) endpoint: Endpoint<'a>,
    pub(crate) query: Form,
    pub(crate) form: Option<Form>,
    pub(crate) idempotency_key: Option<String>,
}

/// What came back, classified.
pub(crate) enum Reply<T> {
    /// The object asked for.
    Object(T),
    /// A no: [`Meaning::Declined`], [`Meaning::Rejected`], [`Meaning::UnexpectedState`] or
    /// [`Meaning::OtherParameters`].
    Refused(Meaning, ErrorObject),
    /// Surely nothing happened.
    NotExecuted(NotExecuted),
    /// Nobody can tell.
    Unknown(Unknown),
}

impl<T> Reply<T> {
    /// A name for what it is, of a closed set.
    const fn outcome(&self) -> &'static str {
        match self {
            Self::Object(_) => "object",
            Self::Refused(meaning, _) => match meaning {
                Meaning::Declined => "declined",
                Meaning::UnexpectedState => "unexpected_state",
                Meaning::OtherParameters => "other_parameters",
                _ => "rejected",
            },
            Self::NotExecuted(why) => match why {
                NotExecuted::Unreachable => "unreachable",
                NotExecuted::Throttled(_) => "throttled",
                NotExecuted::Misconfigured => "misconfigured",
                NotExecuted::LeaseTooShort | NotExecuted::BreakerOpen | NotExecuted::BulkheadFull => {
                    "not_sent"
                }
            },
            Self::Unknown(why) => match why {
                Unknown::NoAnswer => "no_answer",
                Unknown::ServerError(_) => "server_error",
                Unknown::StoredServerError => "stored_server_error",
                Unknown::Busy => "busy",
                _ => "unreadable",
            },
        }
    }

    /// What it says about the provider. A no is an answer, one to too many requests or to the wrong credentials as well:
    /// what is wrong then is on this side.
    pub(crate) const fn health(&self) -> Health {
        match self {
            Self::NotExecuted(NotExecuted::Unreachable)
            | Self::Unknown(
                Unknown::NoAnswer
                | Unknown::ServerError(_)
                | Unknown::StoredServerError
                | Unknown::Unreadable,
            ) => Health::Failed,
            Self::Object(_) | Self::Refused(..) | Self::NotExecuted(_) | Self::Unknown(_) => Health::Answered,
        }
    }
}

impl Transport {
    pub(crate) fn new(base: &str, api_key: &SecretString, timeout: Duration) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder();
        if base.starts_with("http://") {
            // no TLS, so no roots: a bare machine has none, and the client would not start without
            builder = builder.tls_certs_only([]);
        }
        let http = builder
            .connect_timeout(timeout.min(CONNECT_TIMEOUT))
            .timeout(timeout)
            // a redirected or silently repeated request would be a second one that nobody counted
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_idle_timeout(Duration::from_secs(30))
            .user_agent(concat!("payments/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let calls = opentelemetry::global::meter("provider")
            .f64_histogram("http.client.request.duration")
            .with_unit("s")
            .with_description(
                "Calls to the payment provider by endpoint and outcome, from connect to last byte.",
            )
            .build();
        let every = http
            .get(base)
            .bearer_auth(api_key.expose_secret())
            .header("Stripe-Version", API_VERSION)
            .build()?;
        let host = every.url().host_str().unwrap_or_default().to_owned();
        Ok(Self { http, every, host, calls })
    }

    pub(crate) async fn send<T: DeserializeOwned>(&self, request: Request<'_>) -> Reply<T> {
        let method = if request.method == Method::GET { "GET" } else { "POST" };
        let labels = [
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.template", request.endpoint.template),
        ];
        let template = request.endpoint.template;
        let span = tracing::debug_span!(
            "call",
            otel.name = format!("{method} {template}"),
            otel.kind = "client",
            otel.status_code = field::Empty,
            http.request.method = method,
            http.response.status_code = field::Empty,
            url.template = template,
            server.address = self.host,
            payments.provider.outcome = field::Empty,
            error.r#type = field::Empty,
        );
        let began = Instant::now();
        let reply = self.exchange(request).instrument(span.clone()).await;
        let outcome = reply.outcome();
        span.record("payments.provider.outcome", outcome);
        if matches!(reply, Reply::NotExecuted(_) | Reply::Unknown(_)) {
            span.record("otel.status_code", "ERROR").record("error.type", outcome);
        }
        let [method, template] = labels;
        let outcome = KeyValue::new("payments.provider.outcome", outcome);
        self.calls.record(began.elapsed().as_secs_f64(), &[method, template, outcome]);
        reply
    }

    async fn exchange<T: DeserializeOwned>(&self, request: Request<'_>) -> Reply<T> {
        let mut url = self.every.url().clone();
        url.set_path(&format!("{}{}", url.path().trim_end_matches('/'), request.endpoint.path()));
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut sent = reqwest::Request::new(request.method, url);
        sent.headers_mut().clone_from(self.every.headers());
        let mut builder = RequestBuilder::from_parts(self.http.clone(), sent);
        if let Some(key) = request.idempotency_key {
            builder = builder.header("Idempotency-Key", key);
        }
        if let Some(form) = request.form {
            builder = builder.form(&form);
        }
        match builder.send().await {
            Ok(response) => read(response).await,
            // a connection that was never made carried nothing
            Err(error) if error.is_connect() || error.is_builder() => {
                tracing::debug!(error = %error.without_url(), "no connection to the provider");
                Reply::NotExecuted(NotExecuted::Unreachable)
            }
            Err(error) => {
                tracing::debug!(error = %error.without_url(), "the provider's answer was lost");
                Reply::Unknown(Unknown::NoAnswer)
            }
        }
    }
}

async fn read<T: DeserializeOwned>(mut response: Response) -> Reply<T> {
    let status = response.status().as_u16();
    tracing::Span::current().record("http.response.status_code", status);
    let retry_after = retry_after(&response);
    let should_retry =
        match response.headers().get("stripe-should-retry").map(reqwest::header::HeaderValue::as_bytes) {
            Some(b"true") => Some(true),
            Some(b"false") => Some(false),
            _ => None,
        };
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len().saturating_add(chunk.len()) <= MAX_BODY => {
                body.extend_from_slice(&chunk);
            }
            Ok(None) => break,
            // half an answer may be half of anything
            Ok(Some(_)) | Err(_) => return Reply::Unknown(Unknown::NoAnswer),
        }
    }
    let error = match response.status().is_success() {
        true => None,
        false => serde_json::from_slice::<ErrorEnvelope>(&body).ok().map(|envelope| envelope.error),
    };
    let meaning = classify(status, should_retry, error.as_ref());
    match meaning {
        Meaning::Object => match serde_json::from_slice(&body) {
            Ok(object) => Reply::Object(object),
            Err(_) => Reply::Unknown(Unknown::Unreadable),
        },
        Meaning::Declined | Meaning::Rejected | Meaning::UnexpectedState | Meaning::OtherParameters => {
            match error {
                Some(error) => Reply::Refused(meaning, error),
                // a status alone, with a body that is not the provider's, may come from anything on the way
                None => Reply::Unknown(Unknown::Unreadable),
            }
        }
        Meaning::Misconfigured => Reply::NotExecuted(NotExecuted::Misconfigured),
        Meaning::Throttled => Reply::NotExecuted(NotExecuted::Throttled(retry_after)),
        Meaning::Busy => Reply::Unknown(Unknown::Busy),
        Meaning::StoredServerError => Reply::Unknown(Unknown::StoredServerError),
        Meaning::ServerError => Reply::Unknown(Unknown::ServerError(retry_after)),
        Meaning::Unreadable => Reply::Unknown(Unknown::Unreadable),
    }
}

/// How long the provider wants to be left alone (RFC 9110, 10.2.3), in seconds. The other form, a date, is not used by
/// interfaces such as this one, and would need two clocks that agree.
fn retry_after(response: &Response) -> Duration {
    let header = response.headers().get(reqwest::header::RETRY_AFTER);
    let seconds = header.and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(0)).min(LONGEST_RETRY_AFTER)
}
