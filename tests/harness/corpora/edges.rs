//! A text in every header, every segment of a path and every part of a query.

use super::fields::{is_success, names_unknown, post};
use super::sender::{Sender, encoded};
use super::watch::Fault;
use crate::{RawRequest, payment};
use serde_json::json;
use uuid::Uuid;

/// A request that only its fields are wrong of. So its answer tells whether a header was refused, which comes first.
fn nothing_wrong_before_its_fields() -> RawRequest {
    post("/v1/payments", &json!({}))
}

/// In every header that is read, in some that are not, and as a header's name.
pub(super) async fn headers(sender: &Sender<'_>, text: &str) -> Option<()> {
    let quoted = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let values = [
        ("Accept", "header Accept", text.to_owned()),
        ("Authorization", "header Authorization", text.to_owned()),
        ("Authorization", "header Authorization, key", format!("Bearer {text}")),
        ("Content-Type", "header Content-Type", text.to_owned()),
        ("Content-Type", "header Content-Type, charset", format!("application/json; charset={text}")),
        ("Host", "header Host", text.to_owned()),
        ("Prefer", "header Prefer", text.to_owned()),
        ("Prefer", "header Prefer, wait", format!("wait={text}")),
        ("traceparent", "header traceparent", text.to_owned()),
        ("tracestate", "header tracestate", text.to_owned()),
        ("X-Anything", "header X-Anything", text.to_owned()),
    ];
    for (name, position, value) in values {
        let answer = sender.ask(&nothing_wrong_before_its_fields().header(name, value), text).await?;
        sender.count(position, answer.status == 422);
    }
    // a key that is taken is stored, so its payment is real
    for (position, key) in [("header Idempotency-Key", text), ("header Idempotency-Key, quoted", &quoted)] {
        let request = post("/v1/payments", &payment(&format!("order-{}", Uuid::new_v4())));
        let answer = sender.ask(&request.header("Idempotency-Key", key), text).await?;
        // the same key bare and quoted is one key
        sender.count(position, is_success(&answer) || answer.code() == "idempotency_key_reused");
    }
    let named = nothing_wrong_before_its_fields().header(text, "x");
    let answer = sender.ask(&named, text).await?;
    sender.count("a header's name", answer.status == 422);

    // as many bytes as it says, unless that is more than a body may have
    let length = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<usize>().ok()).flatten();
    let body = "x".repeat(length.filter(|length| *length <= 64 * 1024).unwrap_or(2));
    let announced = post("/v1/payments", &json!({})).json(body).header("Content-Length", text);
    let answer = sender.ask(&announced, text).await?;
    let is_read = answer.code() == "malformed_json" && answer.header("connection") != "close";
    sender.count("header Content-Length", is_read);
    Some(())
}

/// In every segment of a path.
pub(super) async fn paths(sender: &Sender<'_>, text: &str) -> Option<()> {
    let segment = encoded(text);
    let reads = [
        ("path /v1/payments/{}", "/v1/payments/{}"),
        ("path /v1/payments/{}/refunds", "/v1/payments/{}/refunds"),
        ("path /v1/payments/{}/events", "/v1/payments/{}/events"),
        ("path /v1/refunds/{}", "/v1/refunds/{}"),
        ("path /docs/errors/{}", "/docs/errors/{}"),
        ("path /v1/{}", "/v1/{}"),
        ("path /{}", "/{}"),
    ];
    for (position, template) in reads {
        let path = template.replace("{}", &segment);
        let answer = sender.ask(&RawRequest::new("GET", path), text).await?;
        sender.count(position, is_success(&answer));
    }
    let writes = [
        ("path /v1/payments/{}/capture", "capture"),
        ("path /v1/payments/{}/cancel", "cancel"),
        ("path POST /v1/payments/{}/refunds", "refunds"),
    ];
    for (position, verb) in writes {
        let answer = sender.ask(&post(&format!("/v1/payments/{segment}/{verb}"), &json!({})), text).await?;
        sender.count(position, is_success(&answer));
    }
    let answer = sender.ask(&RawRequest::new("GET", format!("/v1/payments/{text}")), text).await?;
    sender.count("path, bytes as they are", is_success(&answer));
    Some(())
}

/// A parameter's name, and its position.
type Parameter = (&'static str, &'static str);

/// In every parameter of every list, and as a parameter's name. All at once, and again what nothing was said against.
pub(super) async fn queries(sender: &Sender<'_>, payment: &str, text: &str) -> Option<()> {
    let value = encoded(text);
    let refunds = format!("/v1/payments/{payment}/refunds");
    let events = format!("/v1/payments/{payment}/events");
    let lists: [(&str, &[Parameter], [&'static str; 2]); 3] = [
        (
            "/v1/payments",
            &[
                ("limit", "query payments limit"),
                ("cursor", "query payments cursor"),
                ("status", "query payments status"),
                ("open", "query payments open"),
                ("reference", "query payments reference"),
                ("created_from", "query payments created_from"),
                ("created_to", "query payments created_to"),
            ],
            ["query payments, unknown", "query payments, unknown's name"],
        ),
        (
            &refunds,
            &[("limit", "query refunds limit"), ("cursor", "query refunds cursor")],
            ["query refunds, unknown", "query refunds, unknown's name"],
        ),
        (
            &events,
            &[("limit", "query events limit"), ("cursor", "query events cursor")],
            ["query events, unknown", "query events, unknown's name"],
        ),
    ];
    for (path, parameters, unknown) in lists {
        let pairs: Vec<String> = parameters.iter().map(|(name, _)| format!("{name}={value}")).collect();
        let all = format!("{path}?{}&nobody={value}&{value}=x", pairs.join("&"));
        let answer = sender.ask(&RawRequest::new("GET", all), text).await?;
        let errors = answer.errors();
        for (position, name) in unknown.into_iter().zip(["nobody", text]) {
            sender.count(position, false);
            if answer.status != 422 || !names_unknown(&errors, name, "query") {
                sender.blame(Fault::Unnamed, format_args!("{position}: {text:?}: {}", answer.json()));
            }
        }
        let mut open = Vec::new();
        for (name, position) in parameters {
            let is_taken = !errors.contains_key(*name);
            sender.count(position, is_taken);
            open.extend(is_taken.then(|| format!("{name}={value}")));
        }
        if !open.is_empty() {
            let answer =
                sender.ask(&RawRequest::new("GET", format!("{path}?{}", open.join("&"))), text).await?;
            if answer.status != 200 {
                sender.blame(Fault::NotTaken, format_args!("{open:?}: {}", answer.json()));
            }
        }
    }
    for (position, query) in [
        ("query, bytes as they are", text.to_owned()),
        ("query reference, bytes as they are", format!("reference={text}")),
    ] {
        let answer = sender.ask(&RawRequest::new("GET", format!("/v1/payments?{query}")), text).await?;
        sender.count(position, is_success(&answer));
    }
    Some(())
}
