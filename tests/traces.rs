//! One payment, one tree: from the caller's span to the worker that settles it.

use crate::support::{PAYMENTS, SOON, impatient, seconds};
use anyhow::{Context, Result, ensure};
use e2e::{Collector, World, WorldOptions, eventually, payment};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// All attributes that spans and their events may have. Whoever adds one looks first whether it can hold what a customer or
/// a merchant wrote.
const ATTRIBUTES: [&str; 15] = [
    "db.query.summary",
    "db.response.status_code",
    "db.system.name",
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "payments.operation.attempts",
    "payments.operation.id",
    "payments.payment.id",
    "payments.provider.outcome",
    "server.address",
    "trace_id",
    "url.scheme",
    "url.template",
];

async fn traced(options: WorldOptions, collector: &Collector) -> Result<World> {
    options.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()).start().await
}

/// How many spans have a name.
fn count(spans: &[Span], name: &str, kind: SpanKind) -> usize {
    spans.iter().filter(|span| span.name == name && span.kind() == kind).count()
}

/// The spans that nobody in the trace is the parent of.
fn roots(spans: &[Span]) -> Vec<&Span> {
    let known: BTreeSet<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    spans.iter().filter(|span| !known.contains(span.parent_span_id.as_slice())).collect()
}

/// A line for each span, children behind their parents: what a failed test shows.
fn drawn(spans: &[Span]) -> String {
    fn draw(spans: &[Span], parent: &[u8], depth: usize, text: &mut String) {
        for span in spans.iter().filter(|span| span.parent_span_id == parent) {
            text.push_str(&format!("{}{} ({:?})\n", "  ".repeat(depth), span.name, span.kind()));
            draw(spans, &span.span_id, depth + 1, text);
        }
    }
    let mut text = String::new();
    for parent in roots(spans).iter().map(|root| &root.parent_span_id).collect::<BTreeSet<_>>() {
        draw(spans, parent, 0, &mut text);
    }
    text
}

#[tokio::test]
async fn a_payment_that_needed_a_retry_and_the_worker_is_one_tree_without_personal_data() -> Result<()> {
    let collector = Collector::start().await?;
    let world = traced(impatient(), &collector).await?;
    world.simulator.fault("POST /v1/payment_intents", "reset_before", Some(3), 0).await?;
    let mut body = payment("reference-of-the-merchant");
    body["description"] = json!("description of the goods");
    body["customer"] = json!({ "name": "Zoë Ångström", "email": "zoe@customer.example" });
    body["metadata"] = json!({ "note": "something private" });
    body["statement_descriptor"] = json!("GOODS OF MINE");
    body["return_url"] = json!("https://shop.example/return");
    let request =
        world.api.request(reqwest::Method::POST, PAYMENTS).header("idempotency-key", "key-of-the-caller");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01")).json(&body);
    let answer = world.api.send(request).await?;
    assert_eq!((answer.status, answer.header("request-id")), (201, TRACE), "{}", answer.json());
    let api_key = world.api.key.clone();
    // the end of a process sends what it still has
    world.finish().await?;

    let spans = collector.trace(TRACE);
    let tree = drawn(&spans);
    println!("{tree}");
    let [root] = roots(&spans)[..] else { panic!("more than one tree:\n{tree}") };
    assert_eq!(
        (root.name.as_str(), root.kind(), format!("{:02x?}", root.parent_span_id)),
        (
            "POST /v1/payments",
            SpanKind::Server,
            format!("{:02x?}", u64::from_str_radix(CALLER, 16)?.to_be_bytes())
        )
    );
    assert_eq!(count(&spans, "create payment", SpanKind::Internal), 1, "{tree}");
    assert_eq!(count(&spans, "claim operation", SpanKind::Client), 1, "{tree}");
    assert_eq!(count(&spans, "POST /v1/payment_intents", SpanKind::Client), 4, "{tree}");
    assert_eq!(count(&spans, "finish charge", SpanKind::Internal), 2, "{tree}");
    assert_eq!(count(&spans, "settle payment", SpanKind::Client), 1, "{tree}");
    let failed = spans.iter().filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2));
    assert_eq!(failed.count(), 3, "the three calls without an answer\n{tree}");

    let attributes = |span: &Span| -> Vec<KeyValue> {
        let events = span.events.iter().flat_map(|event| event.attributes.clone());
        span.attributes.iter().cloned().chain(events).collect()
    };
    let secrets = [
        "reference-of-the-merchant",
        "description",
        "Zo",
        "customer.example",
        "private",
        "GOODS",
        "shop.example",
        "key-of-the-caller",
        "pm_card",
        &api_key,
    ];
    for span in &spans {
        for KeyValue { key, value, .. } in attributes(span) {
            assert!(ATTRIBUTES.contains(&key.as_str()), "{key} of {}", span.name);
            let value = format!("{value:?}");
            let told = secrets.iter().find(|secret| value.contains(**secret));
            assert_eq!(told, None, "{key}={value} of {}", span.name);
        }
    }
    let resource = collector.resource();
    assert!(
        resource.iter().any(|a| a.starts_with("service.name=") && a.contains("paywright")),
        "{resource:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_requests_span_ends_with_its_answer_and_its_use_case_goes_on() -> Result<()> {
    let collector = Collector::start().await?;
    let world = traced(WorldOptions::default(), &collector).await?;
    world.simulator.fault("POST /v1/payment_intents", "delay", Some(1), 1_000).await?;
    let answer = world.api.create_preferring("key", &payment("order-1"), Some("respond-async")).await?;
    let trace = answer.header("request-id").to_owned();
    assert_eq!(answer.status, 202, "{}", answer.json());
    world.finish().await?;
    let spans = collector.trace(&trace);
    let end =
        |name| spans.iter().find(|span| span.name == name).map(|span| span.end_time_unix_nano).context(name);
    let (request, use_case) = (end("POST /v1/payments")?, end("create payment")?);
    assert!(request < use_case, "{}", drawn(&spans));
    assert!(end("POST /v1/payment_intents")? <= use_case, "{}", drawn(&spans));
    Ok(())
}

#[tokio::test]
async fn metrics_are_sent_as_well_as_shown() -> Result<()> {
    let collector = Collector::start().await?;
    let world = traced(WorldOptions::default(), &collector).await?;
    assert_eq!(world.api.create("key", &payment("order-1")).await?.status, 201);
    world.finish().await?;
    let metrics = collector.metrics();
    for name in ["http.server.request.duration", "http.client.request.duration", "payments.operations"] {
        assert!(metrics.contains(name), "{name} is not in {metrics:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_trace_that_the_caller_does_not_record_is_not_sent_and_goes_on_all_the_same() -> Result<()> {
    let collector = Collector::start().await?;
    let world = traced(WorldOptions::default(), &collector).await?;
    let request = world.api.request(reqwest::Method::POST, PAYMENTS).header("idempotency-key", "key");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-00")).json(&payment("order-1"));
    let answer = world.api.send(request).await?;
    assert_eq!((answer.status, answer.header("request-id")), (201, TRACE));
    let other = world.api.create("another", &payment("order-2")).await?;
    world.finish().await?;
    let traces = collector.traces();
    assert!(!traces.contains(TRACE), "{traces:?}");
    assert!(traces.contains(other.header("request-id")), "{traces:?}");
    Ok(())
}

#[tokio::test]
async fn where_nothing_is_traced_the_callers_place_is_kept_for_who_comes_later() -> Result<()> {
    let world = World::start().await?;
    let caller = format!("00-{TRACE}-{CALLER}-01");
    let request = world.api.request(reqwest::Method::POST, PAYMENTS).header("idempotency-key", "key");
    assert_eq!(
        world.api.send(request.header("traceparent", &caller).json(&payment("order-1"))).await?.status,
        201
    );
    let kept: String =
        sqlx::query_scalar("SELECT traceparent FROM operations").fetch_one(&world.pool).await?;
    assert_eq!(kept, caller);
    world.finish().await
}

#[tokio::test]
async fn a_collector_that_is_mute_or_absent_costs_no_request_anything() -> Result<()> {
    let mute = Collector::mute().await?;
    let absent = devstack::port::Port::free()?;
    for url in [mute.url(), &format!("http://127.0.0.1:{}", absent.number())] {
        let options = WorldOptions::default()
            .set("OTEL_EXPORTER_OTLP_ENDPOINT", url)
            .set("OTEL_BSP_SCHEDULE_DELAY", "10")
            // what does not fit is dropped: nobody waits for a place
            .set("OTEL_BSP_MAX_QUEUE_SIZE", "4")
            .set("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4");
        let mut world = options.start().await?;
        for round in 0..20 {
            let answer = world.api.create(&format!("k{round}"), &payment(&format!("order-{round}"))).await?;
            assert_eq!(answer.status, 201, "{url}: {}", answer.json());
        }
        if url == mute.url() {
            eventually(SOON, "something was sent", async || Ok(mute.requests() > 0)).await?;
        }
        // nor does the end of the process wait for it
        let stopped = world.stack.service(0)?.stop(seconds(10)).await?;
        ensure!(stopped.success(), "{url}: {stopped}");
        world.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn log_lines_have_the_trace_of_their_request() -> Result<()> {
    let collector = Collector::start().await?;
    let world = traced(WorldOptions::default(), &collector).await?;
    let answer = world.api.create("key", &payment("order-1")).await?;
    let trace = answer.header("request-id").to_owned();
    let lines = || -> Result<Vec<Value>> {
        Ok(world.log(0)?.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    };
    eventually(SOON, "the request is in the log", async || {
        Ok(lines()?
            .iter()
            .any(|line| line["message"] == "request answered" && line["span"]["trace_id"] == *trace))
    })
    .await?;
    let settled = lines()?.into_iter().find(|line| line["message"] == "payment settled").context("a line")?;
    assert_eq!(settled["span"]["trace_id"], *trace, "{settled:?}");
    world.finish().await?;
    assert!(collector.traces().contains(&trace));
    Ok(())
}
