//! Card numbers never enter: wherever a request holds one it is refused, and nothing of the number is left anywhere.

use crate::support::{PAYMENTS, SOON, assert_problem, captured, text};
use anyhow::{Context, Result};
use e2e::{Answer, Api, World, WorldOptions, eventually, payment};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

/// One number in many writings.
const WRITINGS: [&str; 7] = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111\u{a0}1111\u{2013}1111 \u{2212} 1111",
    "card4111111111111111x",
    "order 20261124 4111 1111 1111 1111",
    "４１１１ １１１１ １１１１ １１１１",
];
/// Numbers of other issuers.
const OTHERS: [&str; 5] =
    ["5555555555554444", "378282246310005", "30569309025904", "3566002020360505", "6200000000000005"];
const REFUSED: &str = "card_number_refused";

/// Whether a text has one of the numbers, in any writing.
fn leaks(text: &str) -> bool {
    let digits = |text: &str| -> String {
        let plain = |c: char| match u32::from(c).checked_sub(u32::from('０')) {
            Some(value @ 0..10) => char::from_digit(value, 10),
            _ => (c.is_ascii_digit() || c.is_alphabetic()).then_some(c),
        };
        text.chars().filter_map(plain).collect()
    };
    let text = digits(text);
    let hex = |number: &str| number.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    OTHERS.iter().chain(&WRITINGS[..1]).any(|number| text.contains(number) || text.contains(&hex(number)))
}

/// A refusal that names each of these places, and gives nothing back.
#[track_caller]
fn assert_refused(answer: &Answer, places: &[&str]) {
    assert_problem(answer, 422, "validation_failed");
    for place in places {
        let code = answer.errors().get(*place).cloned();
        assert_eq!(code.as_deref(), Some(REFUSED), "{place}: {}", answer.json());
    }
    assert_tells_nothing(answer);
}

#[track_caller]
fn assert_tells_nothing(answer: &Answer) {
    let body = String::from_utf8_lossy(&answer.body);
    assert!(!leaks(&body), "{body}");
    for (name, value) in &answer.headers {
        assert!(!leaks(&String::from_utf8_lossy(value.as_bytes())), "{name}");
    }
}

/// The least that a payment needs, with this number in one place; and the place.
fn creates(number: &str) -> Vec<(&'static str, Value)> {
    let with = |changes: Value| {
        let mut body = payment("order-1");
        body.as_object_mut().expect("an object").extend(changes.as_object().cloned().unwrap_or_default());
        body
    };
    vec![
        ("/currency", with(json!({ "currency": number }))),
        ("/reference", with(json!({ "reference": number }))),
        ("/payment_method", with(json!({ "payment_method": number }))),
        ("/payment_method", with(json!({ "payment_method": format!("pm_{number}") }))),
        ("/capture", with(json!({ "capture": number }))),
        ("/description", with(json!({ "description": format!("paid with {number}, thanks") }))),
        ("/customer/name", with(json!({ "customer": { "name": number } }))),
        ("/customer/email", with(json!({ "customer": { "email": format!("{number}@example.org") } }))),
        ("/statement_descriptor", with(json!({ "statement_descriptor": number }))),
        ("/return_url", with(json!({ "return_url": format!("https://example.org/?card={number}") }))),
        ("/metadata", with(json!({ "metadata": { number: "x" } }))),
        ("/metadata/note", with(json!({ "metadata": { "note": number } }))),
        // what nobody knows, or has another type
        ("/card", with(json!({ "card": number }))),
        ("", with(json!({ number: 1 }))),
        ("/card/numbers/1", with(json!({ "card": { "numbers": ["", number] } }))),
        ("/card", with(json!({ "card": { number: null } }))),
        ("/description/0", with(json!({ "description": [number] }))),
        ("", json!(number)),
    ]
}

async fn create(api: &Api, body: &Value) -> Result<Answer> {
    api.send(api.money_post(PAYMENTS, &uuid::Uuid::new_v4().to_string()).json(body)).await
}

/// Nothing of any number is in the database, in a log, or at the provider.
async fn nothing_is_left(world: &World, charges: u64) -> Result<()> {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(&world.pool)
            .await?;
    assert!(tables.len() > 4, "{tables:?}");
    for table in tables {
        let rows = format!("SELECT t::text FROM {table} t");
        for row in sqlx::query_scalar::<_, String>(AssertSqlSafe(rows)).fetch_all(&world.pool).await? {
            assert!(!leaks(&row), "{table}");
        }
    }
    // the last requests are in the log as well
    let marker = world.api.get("/v1/payments?limit=1").await?;
    let trace = marker.header("request-id").to_owned();
    eventually(SOON, "the log is written", async || Ok(world.log(0)?.contains(&trace))).await?;
    for line in world.log(0)?.lines() {
        assert!(!leaks(line), "{line}");
    }
    assert_eq!(world.simulator.calls("POST /v1/payment_intents").await?, charges);
    assert!(!leaks(&world.simulator.ledger().await?.to_string()));
    Ok(())
}

/// Also what libraries say must not hold a number.
fn talkative() -> WorldOptions {
    WorldOptions::default().set("RUST_LOG", "trace")
}

#[tokio::test]
async fn no_field_takes_a_card_number() -> Result<()> {
    let world = talkative().start().await?;
    for number in WRITINGS.iter().chain(&OTHERS) {
        for (place, body) in creates(number) {
            assert_refused(&create(&world.api, &body).await?, &[place]);
        }
    }
    nothing_is_left(&world, 0).await?;
    world.finish().await
}

#[tokio::test]
async fn every_place_is_told_at_once_and_a_number_for_an_amount_is_too_large() -> Result<()> {
    let world = World::start().await?;
    let number = "4111 1111 1111 1111";
    let body = json!({
        "amount": 4_111_111_111_111_111_i64, "reference": number, "capture": "later",
        "payment_method": "4111111111111111", "customer": { "name": number, "phone": number },
        "metadata": { number: "x", "a": number, "b": 1 }, number: "x",
    });
    let request = world
        .api
        .money_post(&format!("{PAYMENTS}?a=1&b=4111111111111111"), number.replace(' ', "-").as_str());
    let answer = world.api.send(request.header("X-Note", number).json(&body)).await?;
    assert_problem(&answer, 422, "validation_failed");
    let errors = answer.errors();
    let errors: Vec<_> = errors.iter().map(|(place, code)| (place.as_str(), code.as_str())).collect();
    let expected = [
        ("", REFUSED),
        ("/**** **** **** ****", "unknown_field"),
        ("/amount", "out_of_range"),
        ("/capture", "unsupported"),
        ("/currency", "required"),
        ("/customer/name", REFUSED),
        ("/customer/phone", REFUSED),
        ("/metadata", REFUSED),
        ("/metadata/a", REFUSED),
        ("/metadata/b", "wrong_type"),
        ("/payment_method", REFUSED),
        ("/reference", REFUSED),
        ("Idempotency-Key", REFUSED),
        ("X-Note", REFUSED),
        ("b", REFUSED),
    ];
    assert_eq!(errors, expected);
    assert_tells_nothing(&answer);
    nothing_is_left(&world, 0).await?;
    world.finish().await
}

#[tokio::test]
async fn no_operation_takes_one_in_a_header_or_the_query() -> Result<()> {
    let world = talkative().start().await?;
    let api = &world.api;
    let payment = captured(api, "order-1").await?;
    let refund = api.post(&format!("{payment}/refunds"), "refund", &json!({ "amount": 1 })).await?;
    let refund = refund.header("location").rsplit('/').next().context("an id")?.to_owned();
    let payment = payment.rsplit('/').next().context("an id")?;
    let document = api.send(api.http.get(format!("{}/openapi.json", api.url))).await?.json();
    let mut tried = 0;
    for (template, methods) in document["paths"].as_object().context("paths")? {
        let id = if template.starts_with("/v1/refunds") { &refund } else { payment };
        let path = template.replace("{id}", id);
        for (method, operation) in methods.as_object().into_iter().flatten() {
            if !template.starts_with("/v1/") {
                continue;
            }
            assert!(operation["responses"]["422"].is_object(), "{method} {template}");
            let method: Method = method.to_uppercase().parse()?;
            let request = |query: &str, key: &str| {
                let request = api.request(method.clone(), &format!("{path}{query}"));
                match method == Method::POST {
                    true => request.header("Idempotency-Key", key).json(&json!({})),
                    false => request,
                }
            };
            for query in
                ["note=4111111111111111", "note=4111+1111%201111-1111", "note=%EF%BC%94111-1111-1111-1111"]
            {
                let answer = api.send(request(&format!("?{query}"), "a")).await?;
                assert_refused(&answer, &["note"]);
            }
            let answer = api.send(request("?4111-1111-1111-1111=x", "b")).await?;
            assert_refused(&answer, &["****-****-****-****"]);
            for name in ["X-Note", "User-Agent", "Cookie", "Referer", "Prefer", "Tenant"] {
                for value in WRITINGS {
                    let answer = api.send(request("", "c").header(name, value.as_bytes())).await?;
                    assert_refused(&answer, &[name]);
                }
            }
            if method == Method::POST {
                for key in ["4111111111111111", "\"order-4111-1111-1111-1111\""] {
                    assert_refused(&api.send(request("", key)).await?, &["Idempotency-Key"]);
                }
            }
            tried += 1;
        }
    }
    assert_eq!(tried, 9);
    nothing_is_left(&world, 1).await?;
    world.finish().await
}

#[tokio::test]
async fn what_answers_before_the_fields_are_looked_at_repeats_no_number_either() -> Result<()> {
    let world = talkative().start().await?;
    let (api, number) = (&world.api, "4111111111111111");
    let url = |path: &str| format!("{}{path}", api.url);
    for path in [
        format!("/v1/payments/{number}"),
        format!("/v1/payments/{number}/events"),
        format!("/v1/{number}"),
        format!("/{number}?{number}"),
        format!("/docs/errors/{number}"),
    ] {
        let answer = api.send(api.http.get(url(&path)).bearer_auth(&api.key)).await?;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}");
        assert_tells_nothing(&answer);
    }
    for (status, request) in [
        (401, api.http.get(url(PAYMENTS)).bearer_auth(number)),
        (405, api.request(Method::from_bytes(number.as_bytes())?, PAYMENTS)),
        (415, api.money_post(PAYMENTS, "a").header("Content-Type", number).body("{}")),
        (400, api.money_post(PAYMENTS, number).header("Idempotency-Key", number).json(&json!({}))),
        (
            400,
            api.money_post(PAYMENTS, number)
                .header("Content-Type", "application/json")
                .body(format!("{{{number}")),
        ),
        (404, api.money_post(&format!("/v1/payments/{number}/cancel"), "b").json(&json!({}))),
    ] {
        let answer = api.send(request).await?;
        assert_eq!(answer.status, status, "{}", answer.json());
        assert_tells_nothing(&answer);
    }
    nothing_is_left(&world, 0).await?;
    world.finish().await
}

#[tokio::test]
async fn what_only_has_many_digits_is_taken() -> Result<()> {
    let world = World::start().await?;
    let mut body = payment("ORD-20261124-00012345");
    body["metadata"] = json!({
        "uuid": "41111111-1111-4111-8111-111111111111", "ulid": "01K4111111111111111ABCDEFG",
        "time": "2026-11-24 12-34-56-123456", "milliseconds": "1764000000123", "phone": "+4915112345678",
        "digest": "4111111111111111abcdefabcdefabcd", "wrong check digit": "4111 1111 1111 1112",
    });
    let request = world.api.money_post(PAYMENTS, "41111111-1111-4111-8111-111111111111");
    let request = request.header("X-Amzn-Trace-Id", "Root=1-67891233-41111111111111111111111a");
    let request = request.header("traceparent", "00-41111111111111111111111111111111-4111111111111111-01");
    let answer = world.api.send(request.json(&body)).await?;
    assert_eq!(answer.status, 201, "{}", answer.json());
    assert_eq!(answer.json()["metadata"], body["metadata"]);
    assert_eq!(text(&answer.json()["reference"]), "ORD-20261124-00012345");
    // cursors have many digits as well, and are random
    world.api.create("second", &payment("order-2")).await?;
    let page = world.api.get("/v1/payments?limit=1").await?.json();
    let next = world.api.get(&format!("/v1/payments?limit=1&cursor={}", text(&page["next_cursor"]))).await?;
    assert_eq!(next.status, 200, "{}", next.json());
    world.finish().await
}
