//! The client against a provider that says whatever a test wants it to say.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a test's verdict"
)]

use domain::id::{MerchantId, OperationId, PaymentId};
use domain::money::{Amount, Currency, Money};
use domain::operation::Lease;
use domain::payment::CaptureMethod;
use domain::provider::{Charge, Closed, Found, NotExecuted, Outcome, Provider, Unknown};
use domain::text::{PaymentMethod, ReturnUrl, StatementDescriptor};
use provider::Client;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const TIMEOUT: Duration = Duration::from_millis(300);

/// Answers one scripted answer per request, in order, and keeps what it was asked. An answer is a status line's end,
/// headers included, and a body; without one it stays silent.
struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    async fn saying(answers: Vec<Option<(&'static str, String)>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            let mut silent = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read_request(&mut stream).await;
                log.lock().unwrap().push(request);
                match answer {
                    Some((status, body)) => {
                        let length = body.len();
                        let head = format!(
                            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                        );
                        stream.write_all((head + &body).as_bytes()).await.unwrap();
                    }
                    None => silent.push(stream),
                }
            }
        });
        Self { url, asked }
    }

    async fn answering(status: &'static str, body: Value) -> Self {
        Self::saying(vec![Some((status, body.to_string()))]).await
    }

    fn client(&self) -> Client {
        Client::new(&self.url, "sk_test_1".into(), TIMEOUT).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn read_request(stream: &mut tokio::net::TcpStream) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .to_lowercase()
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
    }
}

fn lease() -> Lease {
    Lease::new(OffsetDateTime::UNIX_EPOCH, Instant::now(), Duration::from_secs(60))
}

fn charge() -> Charge {
    let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
    Charge {
        operation_id: OperationId::at(at),
        payment_id: PaymentId::at(at),
        merchant_id: MerchantId::at(at),
        money: Money::new(Amount::new(1999).unwrap(), Currency::parse("EUR").unwrap()).unwrap(),
        capture: CaptureMethod::Automatic,
        payment_method: PaymentMethod::parse("pm_card_visa").unwrap(),
        statement_descriptor: None,
        return_url: None,
    }
}

fn intent(charge: &Charge, status: &str) -> Value {
    json!({
        "id": "pi_1", "object": "payment_intent", "status": status, "amount": 1999, "amount_received": 1999,
        "amount_capturable": 1999, "currency": "eur", "capture_method": charge.capture.name(),
        "created": 1_800_000_000,
        "metadata": {
            "payment_id": charge.payment_id.to_string(), "operation_id": charge.operation_id.to_string(),
            "merchant_id": charge.merchant_id.to_string(),
        },
    })
}

fn with(mut object: Value, field: &str, value: Value) -> Value {
    object[field] = value;
    object
}

async fn charged(status: &'static str, body: Value, charge: &Charge) -> Outcome<Found> {
    Stub::answering(status, body).await.client().charge(charge, &lease()).await
}

#[tokio::test]
async fn a_charge_says_what_the_provider_needs_and_nothing_else() {
    let charge = Charge {
        statement_descriptor: Some(StatementDescriptor::parse("SHOP 42").unwrap()),
        return_url: Some(ReturnUrl::parse("https://shop.example/back").unwrap()),
        ..charge()
    };
    let stub = Stub::answering("200 OK", intent(&charge, "succeeded")).await;
    assert!(matches!(stub.client().charge(&charge, &lease()).await, Outcome::Settled(Found::Captured(_))));
    let asked = stub.asked().remove(0);
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/payment_intents HTTP/1.1"));
    assert!(head.contains(&format!("idempotency-key: {}", charge.operation_id)));
    assert!(head.contains("authorization: Bearer sk_test_1"));
    let names: Vec<&str> = body.split('&').filter_map(|pair| pair.split('=').next()).collect();
    let expected = [
        "amount",
        "currency",
        "payment_method",
        "payment_method_types%5B%5D",
        "capture_method",
        "metadata%5Bpayment_id%5D",
        "metadata%5Boperation_id%5D",
        "metadata%5Bmerchant_id%5D",
        "statement_descriptor_suffix",
        "confirm",
        "return_url",
    ];
    assert_eq!(names, expected);
    assert!(body.contains("currency=eur&"));
}

#[tokio::test]
async fn closing_is_the_same_request_without_a_confirmation() {
    let charge =
        Charge { return_url: Some(ReturnUrl::parse("https://shop.example/back").unwrap()), ..charge() };
    let stub = Stub::answering("200 OK", intent(&charge, "requires_confirmation")).await;
    let outcome = stub.client().close(&charge, &lease()).await;
    assert!(matches!(outcome, Outcome::Settled(Closed::Ours(id)) if id.as_str() == "pi_1"));
    let asked = stub.asked().remove(0);
    assert!(asked.contains(&format!("idempotency-key: {}", charge.operation_id)), "the same key");
    assert!(!asked.contains("confirm") && !asked.contains("return_url"));
}

#[tokio::test]
async fn every_status_of_an_intent_has_its_meaning() {
    let charge = charge();
    let manual = Charge { capture: CaptureMethod::Manual, ..charge.clone() };
    let settled = |outcome| match outcome {
        Outcome::Settled(found) => found,
        other => panic!("{other:?}"),
    };
    assert!(matches!(
        settled(charged("200 OK", intent(&charge, "succeeded"), &charge).await),
        Found::Captured(_)
    ));
    let held = charged("200 OK", intent(&manual, "requires_capture"), &manual).await;
    assert!(matches!(settled(held), Found::Authorized(_)));
    let action = with(
        intent(&charge, "requires_action"),
        "next_action",
        json!({"type": "redirect_to_url", "redirect_to_url": {"url": "https://bank.example"}}),
    );
    assert!(matches!(
        settled(charged("200 OK", action, &charge).await),
        Found::RequiresAction(_, Some(url)) if url == "https://bank.example"
    ));
    assert!(matches!(
        settled(charged("200 OK", intent(&charge, "canceled"), &charge).await),
        Found::Canceled(_)
    ));
    let still = charged("200 OK", intent(&charge, "processing"), &charge).await;
    assert!(matches!(still, Outcome::Unknown(Unknown::StillProcessing(_))));
    let new = charged("200 OK", intent(&charge, "a_status_of_next_year"), &charge).await;
    assert_eq!(new, Outcome::Unknown(Unknown::Unreadable));
}

#[tokio::test]
async fn an_object_that_is_not_the_charges_is_never_settled() {
    let charge = charge();
    let good = intent(&charge, "succeeded");
    let metadata = |key: &str| {
        let mut other = good.clone();
        other["metadata"][key] = json!("another");
        other
    };
    for (field, body) in [
        ("object", with(good.clone(), "object", json!("charge"))),
        ("amount", with(good.clone(), "amount", json!(2000))),
        ("amount_received", with(good.clone(), "amount_received", json!(1))),
        ("currency", with(good.clone(), "currency", json!("usd"))),
        ("capture_method", with(good.clone(), "capture_method", json!("manual"))),
        ("merchant_id", metadata("merchant_id")),
        ("payment_id", metadata("payment_id")),
        ("operation_id", metadata("operation_id")),
    ] {
        match charged("200 OK", body, &charge).await {
            Outcome::Unknown(Unknown::Contradicted(contradiction)) => assert_eq!(contradiction.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let capturable = Charge { capture: CaptureMethod::Manual, ..charge };
    let less = with(intent(&capturable, "requires_capture"), "amount_capturable", json!(1));
    assert!(matches!(charged("200 OK", less, &capturable).await, Outcome::Unknown(Unknown::Contradicted(_))));
}

#[tokio::test]
async fn a_no_is_settled_with_its_reason() {
    let charge = charge();
    let error = |kind: &str| json!({"error": {"type": kind, "code": "card_declined", "decline_code": "lost_card", "message": "No."}});
    for kind in ["card_error", "invalid_request_error"] {
        match charged("402 Payment Required", error(kind), &charge).await {
            Outcome::Settled(Found::Declined(None, failure)) => {
                assert_eq!(
                    (failure.code.as_str(), failure.decline_code.as_deref()),
                    ("card_declined", Some("lost_card"))
                );
            }
            other => panic!("{other:?}"),
        }
    }
    match charged("400 Bad Request", error("invalid_request_error"), &charge).await {
        Outcome::Settled(Found::Rejected(failure)) => assert_eq!(failure.code, "provider_rejected"),
        other => panic!("{other:?}"),
    }
    // a decline whose intent holds money is no decline
    let mut lie = error("card_error");
    lie["error"]["payment_intent"] = intent(&charge, "succeeded");
    assert!(matches!(
        charged("402 Payment Required", lie, &charge).await,
        Outcome::Unknown(Unknown::Contradicted(_))
    ));
}

#[tokio::test]
async fn what_is_no_answer_is_unknown() {
    let charge = charge();
    let key_reused = json!({"error": {"type": "idempotency_error", "message": "."}});
    for (status, body, unknown) in [
        ("500 Internal Server Error", json!({}), Unknown::ServerError),
        ("500 Internal Server Error\r\nStripe-Should-Retry: false", json!({}), Unknown::StoredServerError),
        ("409 Conflict", key_reused.clone(), Unknown::Busy),
        ("424 Failed Dependency", json!({}), Unknown::Busy),
        ("400 Bad Request", key_reused, Unknown::OtherParameters),
        ("200 OK", json!("garbage"), Unknown::Unreadable),
        ("402 Payment Required", json!("garbage"), Unknown::Unreadable),
        ("400 Bad Request", json!("garbage"), Unknown::Unreadable),
        ("302 Found\r\nLocation: /elsewhere", json!({}), Unknown::Unreadable),
    ] {
        assert_eq!(charged(status, body, &charge).await, Outcome::Unknown(unknown), "{status}");
    }
    let silent = Stub::saying(vec![None]).await;
    assert_eq!(silent.client().charge(&charge, &lease()).await, Outcome::Unknown(Unknown::NoAnswer));
    let long = json!("x".repeat(2 << 20));
    assert_eq!(charged("200 OK", long, &charge).await, Outcome::Unknown(Unknown::NoAnswer));
}

#[tokio::test]
async fn what_surely_did_not_happen_is_told_apart() {
    let charge = charge();
    for (status, why) in [
        ("429 Too Many Requests", NotExecuted::Throttled),
        ("401 Unauthorized", NotExecuted::Misconfigured),
        ("403 Forbidden", NotExecuted::Misconfigured),
    ] {
        assert_eq!(charged(status, json!({}), &charge).await, Outcome::NotExecuted(why));
    }
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::new(&format!("http://{port}"), "sk_test_1".into(), TIMEOUT).unwrap();
    assert_eq!(client.charge(&charge, &lease()).await, Outcome::NotExecuted(NotExecuted::Unreachable));
}

#[tokio::test]
async fn nothing_is_sent_that_the_lease_does_not_cover() {
    let charge = charge();
    let stub = Stub::answering("200 OK", intent(&charge, "succeeded")).await;
    let short = Lease::new(OffsetDateTime::UNIX_EPOCH, Instant::now(), TIMEOUT);
    let refused = Outcome::NotExecuted(NotExecuted::LeaseTooShort);
    assert_eq!(stub.client().charge(&charge, &short).await, refused);
    assert_eq!(stub.client().close(&charge, &short).await, Outcome::NotExecuted(NotExecuted::LeaseTooShort));
    assert!(stub.asked().is_empty());
}

#[tokio::test]
async fn a_search_turns_the_pages_until_it_is_found() {
    let charge = charge();
    let since = OffsetDateTime::from_unix_timestamp(1_799_999_000).unwrap();
    let page = |intents: Vec<Value>, more: bool| {
        Some(("200 OK", json!({"object": "list", "data": intents, "has_more": more}).to_string()))
    };
    let other = with(intent(&charge, "succeeded"), "metadata", json!({}));
    let stub = Stub::saying(vec![
        page(vec![with(other.clone(), "id", json!("pi_9"))], true),
        page(vec![intent(&charge, "succeeded")], true),
    ])
    .await;
    let found = stub.client().find(&charge, since, &lease()).await;
    assert!(matches!(found, Outcome::Settled(Some(Found::Captured(_)))));
    assert!(stub.asked()[1].contains("starting_after=pi_9"));

    let absent = Stub::saying(vec![page(vec![other.clone()], false)]).await;
    assert_eq!(absent.client().find(&charge, since, &lease()).await, Outcome::Settled(None));

    // a provider that does not know the filter is left once its pages are older than the charge
    let old = Stub::saying(vec![page(vec![with(other, "created", json!(1))], true)]).await;
    assert_eq!(old.client().find(&charge, since, &lease()).await, Outcome::Settled(None));

    // what closed the key may stand beside the charge: the charge counts
    let both = vec![intent(&charge, "requires_confirmation"), intent(&charge, "succeeded")];
    let stub = Stub::saying(vec![page(both, false)]).await;
    assert!(matches!(
        stub.client().find(&charge, since, &lease()).await,
        Outcome::Settled(Some(Found::Captured(_)))
    ));
}

#[tokio::test]
async fn an_intent_that_cannot_be_canceled_answers_with_what_it_is() {
    let charge = charge();
    let state =
        json!({"error": {"type": "invalid_request_error", "code": "payment_intent_unexpected_state"}});
    let stub = Stub::saying(vec![
        Some(("400 Bad Request", state.to_string())),
        Some(("200 OK", intent(&charge, "succeeded").to_string())),
    ])
    .await;
    let id = domain::provider::IntentId::parse("pi_1").unwrap();
    let outcome = stub.client().cancel(&charge, &id, &lease()).await;
    assert!(matches!(outcome, Outcome::Settled(Found::Captured(_))));
    assert!(stub.asked()[1].starts_with("GET /v1/payment_intents/pi_1"));
}

#[tokio::test]
async fn what_cannot_be_read_is_no_proof() {
    let charge = charge();
    let id = domain::provider::IntentId::parse("pi_1").unwrap();
    let missing = json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}});
    let stub = Stub::answering("404 Not Found", missing).await;
    assert_eq!(stub.client().retrieve(&charge, &id).await, Outcome::Unknown(Unknown::Unreadable));
}
