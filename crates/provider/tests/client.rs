//! The client against a provider that says whatever a test wants it to say.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a test's verdict"
)]

use domain::id::{MerchantId, OperationId, PaymentId, RefundId};
use domain::money::{Amount, Currency, Money};
use domain::operation::Lease;
use domain::payment::CaptureMethod;
use domain::provider::{
    Charge, Closed, Found, FoundRefund, IntentId, NotExecuted, Outcome, Provider, RefundObjectId,
    RefundOrder, Target, Unknown,
};
use domain::reconcile::{Owner, RefundStanding, Standing};
use domain::refund::RefundReason;
use domain::text::{PaymentMethod, ReturnUrl, StatementDescriptor};
use provider::{Client, Places, State};
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
        client(&self.url)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn client(url: &str) -> Client {
    Client::new(url, &"sk_test_1".into(), TIMEOUT, Places { callers: 2, background: 2 }).unwrap()
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
    assert!(matches!(stub.client().charge(&charge, &lease()).await, Outcome::Settled(Found::Captured(..))));
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
        Found::Captured(..)
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
        ("500 Internal Server Error", json!({}), Unknown::ServerError(Duration::ZERO)),
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
        ("429 Too Many Requests", NotExecuted::Throttled(Duration::ZERO)),
        ("401 Unauthorized", NotExecuted::Misconfigured),
        ("403 Forbidden", NotExecuted::Misconfigured),
    ] {
        assert_eq!(charged(status, json!({}), &charge).await, Outcome::NotExecuted(why));
    }
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client(&format!("http://{port}"));
    assert_eq!(client.charge(&charge, &lease()).await, Outcome::NotExecuted(NotExecuted::Unreachable));
}

#[tokio::test]
async fn how_long_the_provider_wants_to_be_left_alone_is_told_within_a_bound() {
    let charge = charge();
    for (header, seconds) in [("3", 3), ("86400", 20), ("Wed, 21 Oct 2026 07:28:00 GMT", 0), ("-1", 0)] {
        let said = |status: &str| format!("{status}\r\nRetry-After: {header}").leak();
        let after = Duration::from_secs(seconds);
        let throttled = Outcome::NotExecuted(NotExecuted::Throttled(after));
        assert_eq!(charged(said("429 Too Many Requests"), json!({}), &charge).await, throttled);
        let unavailable = Outcome::Unknown(Unknown::ServerError(after));
        assert_eq!(charged(said("503 Service Unavailable"), json!({}), &charge).await, unavailable);
    }
}

/// Says the same so often, to calls of the background.
async fn state_after(times: usize, status: &'static str) -> State {
    let answer = Some((status, json!({"error": {"type": "card_error"}}).to_string()));
    let stub = Stub::saying(vec![answer; times]).await;
    let client = stub.client();
    for _ in 0..times {
        client.charge(&charge(), &lease()).await;
    }
    client.breaker().state()
}

#[tokio::test]
async fn a_provider_that_says_no_is_not_down() {
    for status in [
        "402 Payment Required",
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "409 Conflict",
        "429 Too Many Requests",
    ] {
        assert_eq!(state_after(8, status).await, State::Closed, "{status}");
    }
    for status in ["500 Oops", "503 Oops", "500 Oops\r\nStripe-Should-Retry: false", "302 Found"] {
        assert_eq!(state_after(5, status).await, State::Open, "{status}");
    }
}

#[tokio::test]
async fn callers_do_not_wait_for_a_provider_that_is_down_and_the_background_probes_it() {
    let charge = charge();
    let mut answers = vec![None; 5];
    answers.push(Some(("200 OK", intent(&charge, "succeeded").to_string())));
    let stub = Stub::saying(answers).await;
    let background = stub.client();
    let callers = background.for_callers();
    for _ in 0..5 {
        assert_eq!(callers.charge(&charge, &lease()).await, Outcome::Unknown(Unknown::NoAnswer));
    }
    let refused = Outcome::NotExecuted(NotExecuted::BreakerOpen);
    assert_eq!(callers.charge(&charge, &lease()).await, refused);
    while !background.breaker().wants_probe(Instant::now()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(callers.charge(&charge, &lease()).await, refused, "a caller is no probe");
    assert!(matches!(background.charge(&charge, &lease()).await, Outcome::Settled(Found::Captured(..))));
    assert_eq!((background.breaker().state(), stub.asked().len()), (State::Closed, 6));
}

#[tokio::test]
async fn a_call_without_a_place_is_not_made() {
    let stub = Stub::saying(vec![None, None]).await;
    let callers = stub.client().for_callers();
    let charge = charge();
    let lease = lease();
    let hang = || callers.charge(&charge, &lease);
    let (_, _, third) = tokio::join!(hang(), hang(), hang());
    assert_eq!(third, Outcome::NotExecuted(NotExecuted::BulkheadFull));
    assert_eq!(stub.asked().len(), 2);
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
    let found = stub.client().find(&charge, since).await;
    assert!(matches!(found, Outcome::Settled(Some(Found::Captured(..)))));
    assert!(stub.asked()[1].contains("starting_after=pi_9"));

    let absent = Stub::saying(vec![page(vec![other.clone()], false)]).await;
    assert_eq!(absent.client().find(&charge, since).await, Outcome::Settled(None));

    // a provider that does not know the filter is left once its pages are older than the charge
    let old = Stub::saying(vec![page(vec![with(other, "created", json!(1))], true)]).await;
    assert_eq!(old.client().find(&charge, since).await, Outcome::Settled(None));

    // what closed the key may stand beside the charge: the charge counts
    let both = vec![intent(&charge, "requires_confirmation"), intent(&charge, "succeeded")];
    let stub = Stub::saying(vec![page(both, false)]).await;
    assert!(matches!(stub.client().find(&charge, since).await, Outcome::Settled(Some(Found::Captured(..)))));
}

#[tokio::test]
async fn charges_are_listed_as_they_are_page_by_page() {
    let charge = charge();
    let since = OffsetDateTime::from_unix_timestamp(1_799_999_000).unwrap();
    let page = |intents: Vec<Value>, more: bool| {
        Some(("200 OK", json!({"object": "list", "data": intents, "has_more": more}).to_string()))
    };
    let others = with(intent(&charge, "succeeded"), "metadata", json!({ "payment_id": "17" }));
    let less = with(intent(&charge, "succeeded"), "amount_received", json!(700));
    let old = with(others.clone(), "created", json!(1));
    let stub = Stub::saying(vec![
        page(vec![less, with(others.clone(), "id", json!("pi_9"))], true),
        page(vec![intent(&charge, "requires_capture"), old.clone()], true),
        page(vec![with(others.clone(), "id", json!("../etc"))], false),
    ])
    .await;
    let client = stub.client();
    let Outcome::Settled(first) = client.list_charges(since, None).await else { panic!("no page") };
    let owner = Owner { merchant_id: charge.merchant_id, payment_id: charge.payment_id };
    assert_eq!(first.items[0].owner, Some(owner));
    assert_eq!((first.items[0].amount, first.items[0].currency.as_str()), (1999, "EUR"));
    assert_eq!((first.items[0].standing, first.items[1].owner), (Standing::Moved(700), None));
    assert_eq!(first.items[0].created_at.unix_timestamp(), 1_800_000_000);
    assert_eq!(first.next.as_deref(), Some("pi_9"));
    // a provider that does not know the filter is left once its pages are older
    let Outcome::Settled(last) = client.list_charges(since, first.next.as_deref()).await else {
        panic!("no page")
    };
    assert_eq!((last.items.len(), last.items[0].standing, last.next), (1, Standing::Held(1999), None));
    assert_eq!(client.list_charges(since, None).await, Outcome::Unknown(Unknown::Unreadable));
    let asked = stub.asked();
    assert!(
        asked[0].starts_with("GET /v1/payment_intents?created%5Bgte%5D=1799999000&limit=100 "),
        "{}",
        asked[0]
    );
    assert!(asked[1].contains("&starting_after=pi_9 "), "{}", asked[1]);
}

#[tokio::test]
async fn what_the_provider_says_is_not_there_is_told_from_what_it_does_not_say() {
    let read = async |status, body| {
        let stub = Stub::answering(status, body).await;
        let intent = IntentId::parse("pi_1").unwrap();
        stub.client().read_charge(&intent).await
    };
    let charge = charge();
    let found = read("200 OK", intent(&charge, "requires_action")).await;
    assert!(matches!(found, Outcome::Settled(Some(listed)) if listed.standing == Standing::Waiting));
    let error = |code: &str| json!({ "error": { "type": "invalid_request_error", "code": code } });
    assert_eq!(read("404 Not Found", error("resource_missing")).await, Outcome::Settled(None));
    for (status, body) in [
        ("404 Not Found", error("url_invalid")),
        ("404 Not Found", json!("<html>")),
        ("400 Bad Request", error("parameter_unknown")),
    ] {
        assert_eq!(read(status, body).await, Outcome::Unknown(Unknown::Unreadable), "{status}");
    }
}

#[tokio::test]
async fn refunds_are_listed_with_whom_they_name() {
    let order = order();
    let since = OffsetDateTime::from_unix_timestamp(1_799_999_000).unwrap();
    let at = |refund: Value, id: &str| with(with(refund, "created", json!(1_800_000_000)), "id", json!(id));
    let nobodys = with(at(refund(&order, "canceled"), "re_2"), "metadata", json!({}));
    let data = vec![at(refund(&order, "succeeded"), "re_3"), nobodys, refund(&order, "pending")];
    let stub = Stub::answering("200 OK", json!({ "object": "list", "data": data, "has_more": true })).await;
    let Outcome::Settled(page) = stub.client().list_refunds(since, None).await else { panic!("no page") };
    assert_eq!((page.items.len(), page.next), (2, None), "the third is older");
    let owner = Owner { merchant_id: order.merchant_id, payment_id: order.payment_id };
    assert_eq!((page.items[0].owner, page.items[1].owner), (Some((owner, order.refund_id)), None));
    assert_eq!(page.items[0].intent, IntentId::parse("pi_1"));
    let ends = (page.items[0].standing, page.items[1].standing);
    assert_eq!(ends, (RefundStanding::Succeeded, RefundStanding::Failed));
    assert!(stub.asked()[0].starts_with("GET /v1/refunds?limit=100 "), "{}", stub.asked()[0]);
}

fn target(charge: &Charge) -> Target {
    Target {
        intent: IntentId::parse("pi_1").unwrap(),
        merchant_id: charge.merchant_id,
        payment_id: charge.payment_id,
        money: charge.money,
        capture: charge.capture,
    }
}

fn manual() -> Charge {
    Charge { capture: CaptureMethod::Manual, ..charge() }
}

fn refused(code: &str) -> String {
    json!({ "error": { "type": "invalid_request_error", "code": code, "message": "No." } }).to_string()
}

#[tokio::test]
async fn an_intent_that_cannot_be_canceled_answers_with_what_it_is() {
    let charge = charge();
    let stub = Stub::saying(vec![
        Some(("400 Bad Request", refused("payment_intent_unexpected_state"))),
        Some(("200 OK", intent(&charge, "succeeded").to_string())),
    ])
    .await;
    let outcome = stub.client().cancel(&target(&charge), None, &lease()).await;
    assert!(matches!(outcome, Outcome::Settled(Found::Captured(..))));
    assert!(!stub.asked()[0].contains("idempotency-key"), "canceling twice is the same as once");
    assert!(stub.asked()[1].starts_with("GET /v1/payment_intents/pi_1"));
}

#[tokio::test]
async fn what_cannot_be_read_is_no_proof() {
    let stub = Stub::answering("404 Not Found", json!({ "error": { "code": "resource_missing" } })).await;
    assert_eq!(stub.client().retrieve(&target(&charge())).await, Outcome::Unknown(Unknown::Unreadable));
}

#[tokio::test]
async fn a_capture_says_how_much_and_repeats_with_its_key() {
    let charge = manual();
    let (asked, key) = (Amount::new(1200).unwrap(), OperationId::at(OffsetDateTime::UNIX_EPOCH));
    let captured = with(intent(&charge, "succeeded"), "amount_received", json!(1200)).to_string();
    let stub = Stub::saying(vec![Some(("500 Oops", "{}".to_owned())), Some(("200 OK", captured))]).await;
    let client = stub.client();
    let first = client.capture(&target(&charge), asked, key, &lease()).await;
    assert_eq!(first, Outcome::Unknown(Unknown::ServerError(Duration::ZERO)));
    let second = client.capture(&target(&charge), asked, key, &lease()).await;
    assert_eq!(second, Outcome::Settled(Found::Captured(IntentId::parse("pi_1").unwrap(), asked)));
    let [one, two] = &stub.asked()[..] else { panic!("two requests") };
    assert_eq!(one.split_once("\r\n\r\n").unwrap().1, "amount_to_capture=1200");
    assert!(one.starts_with("POST /v1/payment_intents/pi_1/capture "));
    for request in [one, two] {
        assert!(request.contains(&format!("idempotency-key: {key}")), "{request}");
    }
}

#[tokio::test]
async fn a_capture_of_another_sum_is_contradicted_and_one_without_a_sum_is_believed() {
    let charge = manual();
    let asked = Amount::new(1200).unwrap();
    let captured = async |received: Value| {
        let stub =
            Stub::answering("200 OK", with(intent(&charge, "succeeded"), "amount_received", received)).await;
        let key = OperationId::at(OffsetDateTime::UNIX_EPOCH);
        stub.client().capture(&target(&charge), asked, key, &lease()).await
    };
    assert!(
        matches!(captured(json!(1999)).await, Outcome::Unknown(Unknown::Contradicted(c)) if c.field == "amount_received")
    );
    assert!(matches!(captured(json!(null)).await, Outcome::Settled(Found::Captured(_, sum)) if sum == asked));
}

#[tokio::test]
async fn what_another_captured_in_part_is_what_it_is() {
    let charge = manual();
    let stub =
        Stub::answering("200 OK", with(intent(&charge, "succeeded"), "amount_received", json!(7))).await;
    let found = stub.client().retrieve(&target(&charge)).await;
    assert!(matches!(found, Outcome::Settled(Found::Captured(_, sum)) if sum.get() == 7));
}

#[tokio::test]
async fn every_no_to_a_capture_has_its_meaning() {
    let charge = manual();
    let ask = async |answers| {
        let key = OperationId::at(OffsetDateTime::UNIX_EPOCH);
        Stub::saying(answers)
            .await
            .client()
            .capture(&target(&charge), charge.money.amount(), key, &lease())
            .await
    };
    let said = |status, body: String| vec![Some((status, body))];
    assert!(matches!(
        ask(said("402 Payment Required", refused("card_declined"))).await,
        Outcome::Settled(Found::Declined(None, _))
    ));
    assert!(matches!(
        ask(said("400 Bad Request", refused("amount_too_large"))).await,
        Outcome::Settled(Found::Rejected(_))
    ));
    let reused = json!({ "error": { "type": "idempotency_error" } }).to_string();
    assert_eq!(ask(said("400 Bad Request", reused)).await, Outcome::Unknown(Unknown::StoredServerError));
    assert_eq!(ask(said("409 Conflict", refused("lock_timeout"))).await, Outcome::Unknown(Unknown::Busy));
    assert_eq!(ask(vec![None]).await, Outcome::Unknown(Unknown::NoAnswer));
    let moved_on = vec![
        Some(("400 Bad Request", refused("payment_intent_unexpected_state"))),
        Some(("200 OK", intent(&charge, "canceled").to_string())),
    ];
    assert!(matches!(ask(moved_on).await, Outcome::Settled(Found::Canceled(_))));
}

fn order() -> RefundOrder {
    let charge = charge();
    RefundOrder {
        operation_id: charge.operation_id,
        refund_id: RefundId::at(OffsetDateTime::UNIX_EPOCH),
        payment_id: charge.payment_id,
        merchant_id: charge.merchant_id,
        intent: IntentId::parse("pi_1").unwrap(),
        money: Money::new(Amount::new(700).unwrap(), Currency::parse("EUR").unwrap()).unwrap(),
        reason: Some(RefundReason::Duplicate),
    }
}

fn refund(order: &RefundOrder, status: &str) -> Value {
    json!({
        "id": "re_1", "object": "refund", "status": status, "amount": 700, "currency": "eur",
        "payment_intent": "pi_1",
        "metadata": {
            "refund_id": order.refund_id.to_string(), "payment_id": order.payment_id.to_string(),
            "operation_id": order.operation_id.to_string(), "merchant_id": order.merchant_id.to_string(),
        },
    })
}

#[tokio::test]
async fn a_refund_says_what_the_provider_needs_and_nothing_else() {
    let order = order();
    let stub = Stub::answering("200 OK", refund(&order, "succeeded")).await;
    let found = stub.client().refund(&order, &lease()).await;
    assert_eq!(found, Outcome::Settled(FoundRefund::Succeeded(RefundObjectId::parse("re_1").unwrap())));
    let asked = stub.asked().remove(0);
    let (head, body) = asked.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1/refunds "));
    assert!(head.contains(&format!("idempotency-key: {}", order.operation_id)));
    let names: Vec<&str> = body.split('&').filter_map(|pair| pair.split('=').next()).collect();
    let expected = [
        "payment_intent",
        "amount",
        "metadata%5Brefund_id%5D",
        "metadata%5Bpayment_id%5D",
        "metadata%5Boperation_id%5D",
        "metadata%5Bmerchant_id%5D",
        "reason",
    ];
    assert_eq!(names, expected);

    // other implementations refuse what they do not know
    let order = RefundOrder { reason: None, ..order };
    let stub = Stub::answering("200 OK", refund(&order, "succeeded")).await;
    stub.client().refund(&order, &lease()).await;
    assert!(!stub.asked()[0].contains("reason"));
}

#[tokio::test]
async fn every_end_of_a_refund_has_its_meaning() {
    let order = order();
    let ask = async |status, body: String| {
        Stub::saying(vec![Some((status, body))]).await.client().refund(&order, &lease()).await
    };
    for status in ["pending", "requires_action"] {
        let found = ask("200 OK", refund(&order, status).to_string()).await;
        assert!(matches!(found, Outcome::Settled(FoundRefund::Pending(_))), "{status}");
    }
    for (status, reason, code) in [
        ("failed", json!("lost_or_stolen_card"), "lost_or_stolen_card"),
        ("failed", json!(null), "refund_failed"),
        ("canceled", json!(null), "refund_canceled"),
    ] {
        let body = with(refund(&order, status), "failure_reason", reason).to_string();
        match ask("200 OK", body).await {
            Outcome::Settled(FoundRefund::Failed(Some(_), failure)) => assert_eq!(failure.code, code),
            other => panic!("{status}: {other:?}"),
        }
    }
    for (status, code, expected) in [
        ("402 Payment Required", "card_declined", "card_declined"),
        ("400 Bad Request", "charge_already_refunded", "provider_rejected"),
        ("400 Bad Request", "payment_intent_unexpected_state", "provider_rejected"),
        ("404 Not Found", "resource_missing", "provider_rejected"),
    ] {
        match ask(status, refused(code)).await {
            Outcome::Settled(FoundRefund::Failed(None, failure)) => assert_eq!(failure.code, expected),
            other => panic!("{status}: {other:?}"),
        }
    }
    assert_eq!(
        ask("500 Oops", "{}".to_owned()).await,
        Outcome::Unknown(Unknown::ServerError(Duration::ZERO))
    );
}

#[tokio::test]
async fn a_refund_that_is_not_ours_is_contradicted() {
    let order = order();
    for (field, value) in [
        ("object", json!("charge")),
        ("amount", json!(701)),
        ("currency", json!("usd")),
        ("payment_intent", json!("pi_2")),
    ] {
        let body = with(refund(&order, "succeeded"), field, value);
        let found = Stub::answering("200 OK", body).await.client().refund(&order, &lease()).await;
        assert!(matches!(found, Outcome::Unknown(Unknown::Contradicted(c)) if c.field == field), "{field}");
    }
    for key in ["merchant_id", "payment_id", "refund_id"] {
        let mut body = refund(&order, "succeeded");
        body["metadata"][key] = json!("another");
        let found = Stub::answering("200 OK", body).await.client().refund(&order, &lease()).await;
        assert!(matches!(found, Outcome::Unknown(Unknown::Contradicted(c)) if c.field == key), "{key}");
    }
}

#[tokio::test]
async fn an_object_of_another_id_is_contradicted() {
    let charge = manual();
    let key = OperationId::at(OffsetDateTime::UNIX_EPOCH);
    let other = with(intent(&charge, "succeeded"), "id", json!("pi_other"));
    for verb in ["retrieve", "capture", "cancel"] {
        let client = Stub::answering("200 OK", other.clone()).await.client();
        let (target, lease) = (target(&charge), lease());
        let found = match verb {
            "retrieve" => client.retrieve(&target).await,
            "capture" => client.capture(&target, charge.money.amount(), key, &lease).await,
            _ => client.cancel(&target, Some(key), &lease).await,
        };
        assert!(matches!(found, Outcome::Unknown(Unknown::Contradicted(c)) if c.field == "id"), "{verb}");
    }
    let order = order();
    let other = with(refund(&order, "succeeded"), "id", json!("re_other"));
    let known = RefundObjectId::parse("re_1").unwrap();
    let found =
        Stub::answering("200 OK", other).await.client().find_refund(&order, Some(&known), &lease()).await;
    assert!(matches!(found, Outcome::Unknown(Unknown::Contradicted(c)) if c.field == "id"));
}

#[tokio::test]
async fn a_refund_is_found_among_those_of_its_intent() {
    let order = order();
    let mut other = refund(&order, "succeeded");
    other["metadata"] = json!({});
    other["id"] = json!("re_0");
    let page = |data: &[&Value], has_more: bool| {
        Some(("200 OK", json!({ "data": data, "has_more": has_more }).to_string()))
    };
    let ours = refund(&order, "pending");
    let stub = Stub::saying(vec![page(&[&other], true), page(&[&ours], false)]).await;
    let found = stub.client().find_refund(&order, None, &lease()).await;
    assert!(matches!(found, Outcome::Settled(Some(FoundRefund::Pending(_)))));
    let asked = stub.asked();
    assert!(asked[0].starts_with("GET /v1/refunds?payment_intent=pi_1&limit=100 "), "{}", asked[0]);
    assert!(asked[1].contains("starting_after=re_0"));

    let stub = Stub::saying(vec![page(&[&other], false)]).await;
    assert_eq!(stub.client().find_refund(&order, None, &lease()).await, Outcome::Settled(None));
    let stub = Stub::answering("200 OK", ours).await;
    let known = RefundObjectId::parse("re_1").unwrap();
    let found = stub.client().find_refund(&order, Some(&known), &lease()).await;
    assert!(matches!(found, Outcome::Settled(Some(FoundRefund::Pending(_)))));
    assert!(stub.asked()[0].starts_with("GET /v1/refunds/re_1 "));
}

#[tokio::test]
async fn a_short_lease_sends_nothing_that_changes_anything() {
    let stub = Stub::saying(Vec::new()).await;
    let client = stub.client();
    let short = Lease::new(OffsetDateTime::UNIX_EPOCH, Instant::now(), TIMEOUT / 2);
    let (charge, key) = (manual(), OperationId::at(OffsetDateTime::UNIX_EPOCH));
    let too_short = NotExecuted::LeaseTooShort;
    let target = target(&charge);
    assert_eq!(
        client.capture(&target, charge.money.amount(), key, &short).await,
        Outcome::NotExecuted(too_short)
    );
    assert_eq!(client.cancel(&target, Some(key), &short).await, Outcome::NotExecuted(too_short));
    assert_eq!(client.refund(&order(), &short).await, Outcome::NotExecuted(too_short));
    assert_eq!(stub.asked(), Vec::<String>::new());
}
