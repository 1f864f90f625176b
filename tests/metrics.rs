//! What the service says about itself in numbers.

use crate::support::{PAYMENTS, SOON, assert_problem, id, once};
use anyhow::Result;
use e2e::{World, WorldOptions, eventually, payment};
use reqwest::Method;
use serde_json::json;

/// The text of the first service's `/metrics`.
async fn scrape(world: &World) -> Result<String> {
    scrape_of(world, 0).await
}

/// The text of a service's `/metrics`.
pub(crate) async fn scrape_of(world: &World, service: usize) -> Result<String> {
    let url = format!("{}/metrics", world.stack.ops_url(service)?);
    let answer = world.api.send(world.api.http.get(url)).await?;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain; version="), "{:?}", answer.headers);
    Ok(String::from_utf8(answer.body)?)
}

/// The sum of the series of a metric that have all of these labels; nothing if there is no such series.
pub(crate) fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let series = text.lines().filter(|line| {
        let is_it = line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        is_it && labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).reduce(|a: f64, b: f64| a + b)
}

#[tokio::test]
async fn requests_operations_keys_and_calls_are_counted() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let created = api.create("k1", &payment("order-1")).await?;
    assert_eq!(created.status, 201);
    assert_eq!(api.create("k1", &payment("order-1")).await?.header("idempotent-replayed"), "true");
    assert_problem(&api.create("k1", &payment("order-2")).await?, 422, "idempotency_key_reused");
    assert_problem(&api.create("k2", &payment("order-1")).await?, 409, "reference_already_used");
    let mut declined = payment("order-3");
    declined["payment_method"] = json!("pm_card_chargeDeclined");
    assert_eq!(api.create("k3", &declined).await?.status, 402);
    world.simulator.fault("POST /v1/refunds", "http_429", Some(1), 0).await?;
    let refunds = format!("{PAYMENTS}/{}/refunds", id(&created));
    assert_eq!(api.post(&refunds, "k4", &json!({})).await?.status, 201);

    let text = scrape(&world).await?;
    let requests = |status, route| {
        let labels =
            [("http_request_method", "POST"), ("http_response_status_code", status), ("http_route", route)];
        value(&text, "http_server_request_duration_seconds_count", &labels)
    };
    assert_eq!(requests("201", "/v1/payments"), Some(2.0), "{text}");
    assert_eq!(requests("402", "/v1/payments"), Some(1.0));
    assert_eq!(requests("201", "/v1/payments/{id}/refunds"), Some(1.0));
    let settled = |kind, outcome| {
        let labels = [("payments_operation_kind", kind), ("payments_outcome", outcome)];
        value(&text, "payments_operations_total", &labels)
    };
    assert_eq!(settled("charge", "payment.captured"), Some(1.0));
    assert_eq!(settled("charge", "payment.failed"), Some(1.0));
    assert_eq!(settled("refund", "refund.succeeded"), Some(1.0));
    for (result, count) in [("executed", 3.0), ("replayed", 1.0), ("reused", 1.0), ("refused", 1.0)] {
        let labels = [("payments_idempotency_result", result)];
        assert_eq!(value(&text, "payments_idempotency_results_total", &labels), Some(count), "{result}");
    }
    let calls = |template, outcome| {
        let labels = [("url_template", template), ("payments_provider_outcome", outcome)];
        value(&text, "http_client_request_duration_seconds_count", &labels)
    };
    assert_eq!(calls("/v1/payment_intents", "object"), Some(1.0));
    assert_eq!(calls("/v1/payment_intents", "declined"), Some(1.0));
    assert_eq!(calls("/v1/refunds", "throttled"), Some(1.0));
    assert_eq!(calls("/v1/refunds", "object"), Some(1.0));
    let retried = [("payments_provider_outcome", "throttled")];
    assert_eq!(value(&text, "payments_provider_retries_total", &retried), Some(1.0));
    let pool = [("db_client_connection_pool_name", "payments")];
    assert_eq!(value(&text, "db_client_connection_max", &pool), Some(20.0));
    assert!(value(&text, "db_client_connection_count", &pool) >= Some(1.0), "{text}");
    // nobody but operators reads it
    assert_eq!(api.get("/metrics").await?.status, 404);
    world.finish().await
}

#[tokio::test]
async fn what_is_open_and_for_how_long_is_told() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    world.simulator.create_fault("http_429", None, 0).await?;
    let accepted = world.api.create("k1", &payment("order-1")).await?;
    assert_eq!(accepted.status, 202);
    let open = async || -> Result<(Option<f64>, Option<f64>)> {
        let text = scrape(&world).await?;
        let age = value(&text, "payments_operations_oldest_open_age_seconds", &[]);
        Ok((value(&text, "payments_operations_open", &[]), age))
    };
    eventually(SOON, "one is open", async || {
        Ok(matches!(open().await?, (Some(1.0), Some(age)) if age > 0.0))
    })
    .await?;
    world.simulator.heal().await?;
    once(&world.api, accepted.header("location"), |payment| payment["status"] == "captured").await?;
    eventually(SOON, "nothing is open", async || Ok(open().await? == (Some(0.0), Some(0.0)))).await?;
    world.finish().await
}

#[tokio::test]
async fn what_callers_write_is_never_a_label() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let created = api.create("my-key", &payment("my-reference")).await?;
    let brew = api.request(Method::from_bytes(b"BREW")?, PAYMENTS);
    assert_eq!(api.send(brew).await?.status, 405);
    assert_eq!(api.get("/nowhere/at-all").await?.status, 404);
    assert_eq!(api.get(&format!("{PAYMENTS}/{}", id(&created))).await?.status, 200);
    let text = scrape(&world).await?;
    assert_eq!(
        value(&text, "http_server_request_duration_seconds_count", &[("http_request_method", "_OTHER")]),
        Some(1.0)
    );
    for written in ["BREW", "nowhere", "my-key", "my-reference", &id(&created), &api.key] {
        assert!(!text.contains(written), "{written} in {text}");
    }
    // every metric says what it is
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap_or_default();
        assert!(
            text.lines().any(|line| line
                .strip_prefix("# HELP ")
                .is_some_and(|help| help.starts_with(&format!("{name} ")))),
            "{name}"
        );
    }
    world.finish().await
}
