//! Every fault, as a caller meets it and as the ledger tells it.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{Simulator, read_to_end};

const CARD: &str = "payment_method=pm_card_visa";
const NOTHING: [&str; 0] = [];
const CHARGED: [&str; 2] = ["authorize", "capture"];

/// Repeats the charge with the key `key`; returns whether the first one had been executed.
async fn replayed(simulator: &Simulator) -> bool {
    let again = simulator.charge("key", CARD).await;
    assert_eq!(again.status, StatusCode::OK, "{again:?}");
    assert_eq!(simulator.kinds().await, CHARGED);
    again.header("idempotent-replayed") == Some("true")
}

#[tokio::test]
async fn http_429_executes_nothing() {
    let simulator = Simulator::start().await;
    simulator.inject("http_429", None).await;
    let answer = simulator.charge("key", CARD).await;
    assert_eq!((answer.status, answer.header("retry-after")), (StatusCode::TOO_MANY_REQUESTS, Some("1")));
    assert_eq!(simulator.kinds().await, NOTHING);
    assert!(!replayed(&simulator).await);
}

#[tokio::test]
async fn http_500_before_executes_nothing() {
    let simulator = Simulator::start().await;
    simulator.inject("http_500_before", None).await;
    let answer = simulator.charge("key", CARD).await;
    assert_eq!((answer.status.as_u16(), answer.at("/error/type")), (500, "api_error".into()));
    assert_eq!(simulator.kinds().await, NOTHING);
    assert!(!replayed(&simulator).await);
}

#[tokio::test]
async fn http_500_after_loses_only_the_answer() {
    let simulator = Simulator::start().await;
    simulator.inject("http_500_after", None).await;
    assert_eq!(simulator.charge("key", CARD).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    let ledger = simulator.ledger().await;
    assert_eq!(ledger["entries"][0]["answered"], false);
    assert_eq!(ledger["injected"], json!({"http_500_after": 1}));
    assert!(replayed(&simulator).await);
}

#[tokio::test]
async fn http_500_stored_is_the_answer_for_good() {
    let simulator = Simulator::start().await;
    simulator.inject("http_500_stored", None).await;
    for replayed in [None, Some("true")] {
        let answer = simulator.charge("key", CARD).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.header("idempotent-replayed"), replayed);
        assert_eq!(answer.header("stripe-should-retry"), Some("false"));
    }
    assert_eq!(simulator.kinds().await, CHARGED);
    assert_eq!(simulator.get("/v1/payment_intents").await.at("/data/0/status"), "succeeded");
}

#[tokio::test]
async fn reset_before_executes_nothing() {
    let simulator = Simulator::start().await;
    simulator.inject("reset_before", None).await;
    let ending = read_to_end(simulator.raw_charge("key").await).await;
    assert_eq!(ending, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(simulator.kinds().await, NOTHING);
    assert!(!replayed(&simulator).await);
}

#[tokio::test]
async fn reset_after_loses_only_the_answer() {
    let simulator = Simulator::start().await;
    simulator.inject("reset_after", None).await;
    let ending = read_to_end(simulator.raw_charge("key").await).await;
    assert_eq!(ending, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(simulator.ledger().await["entries"][0]["answered"], false);
    assert!(replayed(&simulator).await);
}

#[tokio::test]
async fn hang_before_answers_and_executes_nothing() {
    let simulator = Simulator::start().await;
    simulator.inject("hang_before", Some(50)).await;
    let start = Instant::now();
    assert_eq!(read_to_end(simulator.raw_charge("key").await).await, (Vec::new(), None));
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(simulator.kinds().await, NOTHING);
    assert!(!replayed(&simulator).await);
}

#[tokio::test]
async fn hang_after_executes_while_the_caller_waits() {
    let simulator = Simulator::start().await;
    simulator.inject("hang_after", None).await;
    let _waiting = simulator.raw_charge("key").await;
    simulator.ledger_when(|ledger| ledger["entries"].as_array().unwrap().len() == 2).await;
    assert!(replayed(&simulator).await);
}

#[tokio::test]
async fn late_resets_now_and_executes_later() {
    let simulator = Simulator::start().await;
    simulator.inject("late", Some(200)).await;
    let start = Instant::now();
    let ending = read_to_end(simulator.raw_charge("key").await).await;
    assert_eq!(ending, (Vec::new(), Some(ErrorKind::ConnectionReset)));
    let ledger = simulator.ledger_when(|ledger| ledger["entries"].as_array().unwrap().len() == 2).await;
    assert!(start.elapsed() >= Duration::from_millis(200));
    assert_eq!(ledger["entries"][1]["answered"], false);
    assert!(replayed(&simulator).await);
}

#[tokio::test]
async fn a_late_request_finds_its_key_taken() {
    let simulator = Simulator::start().await;
    simulator.inject("late", Some(1_000)).await;
    read_to_end(simulator.raw_charge("key").await).await;
    let form = format!("amount=1999&currency=eur&{CARD}");
    let other = simulator.post("/v1/payment_intents", "key", &form).await;
    assert_eq!((other.status, other.at("/status")), (StatusCode::OK, "requires_confirmation".into()));
    // A second late request arrives after the first one would have.
    simulator.inject("late", Some(1_000)).await;
    read_to_end(simulator.raw_charge("another key").await).await;
    let ledger = simulator.ledger_when(|ledger| ledger["entries"].as_array().unwrap().len() == 2).await;
    assert_eq!(ledger["entries"][0]["idempotency_key"], "another key");
}

#[tokio::test]
async fn half_body_ends_in_the_middle() {
    let simulator = Simulator::start().await;
    simulator.inject("half_body", None).await;
    let (bytes, ending) = read_to_end(simulator.raw_charge("key").await).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let whole = simulator.charge("key", CARD).await;
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains(&format!("content-length: {}", whole.body.len())), "{head}");
    assert_eq!((body, ending), (&whole.body[..whole.body.len() / 2], None));
    assert_eq!(simulator.ledger().await["entries"][0]["answered"], false);
}

#[tokio::test]
async fn garbage_is_200_and_no_json() {
    let simulator = Simulator::start().await;
    simulator.inject("garbage", None).await;
    let answer = simulator.charge("key", CARD).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(serde_json::from_str::<serde_json::Value>(&answer.body).is_err());
    assert!(replayed(&simulator).await);
}

#[tokio::test]
async fn slow_body_comes_a_byte_at_a_time() {
    let simulator = Simulator::start().await;
    simulator.inject("slow_body", Some(1)).await;
    let start = Instant::now();
    let slow = simulator.charge("key", CARD).await;
    let bytes = u64::try_from(slow.body.len()).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(bytes));
    assert_eq!(slow.header("content-length"), Some(bytes.to_string().as_str()));
    assert_eq!(simulator.charge("key", CARD).await.body, slow.body);
}

#[tokio::test]
async fn delay_takes_time_and_keeps_the_key_in_use() {
    let simulator = Simulator::start().await;
    simulator.inject("delay", Some(3_000)).await;
    let start = Instant::now();
    let first = simulator.charge("key", CARD);
    let others = async {
        simulator.ledger_when(|ledger| ledger["injected"]["delay"] == 1).await;
        // An invalid request never takes the key: it is refused for itself until the first one has it.
        loop {
            let probe = simulator.post("/v1/payment_intents", "key", "amount=0").await;
            if probe.status == StatusCode::CONFLICT {
                return probe;
            }
            assert_eq!(probe.at("/error/code"), "parameter_invalid_integer");
        }
    };
    let (first, conflict) = tokio::join!(first, others);
    assert_eq!(conflict.at("/error/code"), "idempotency_key_in_use");
    assert_eq!(first.at("/status"), "succeeded");
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(simulator.ledger().await["entries"][0]["answered"], true);
}

#[tokio::test]
async fn a_caller_that_leaves_does_not_stop_the_charge() {
    let simulator = Simulator::start().await;
    simulator.inject("delay", Some(1_000)).await;
    let stream = simulator.raw_charge("key").await;
    simulator.ledger_when(|ledger| ledger["injected"]["delay"] == 1).await;
    drop(stream);
    let ledger = simulator.ledger_when(|ledger| ledger["entries"].as_array().unwrap().len() == 2).await;
    assert_eq!(ledger["entries"][0]["answered"], false);
    assert!(replayed(&simulator).await);
}

#[tokio::test]
async fn rules_are_shown_as_they_are_used_up_and_replaced_as_a_whole() {
    let simulator = Simulator::start().await;
    let rules = json!([
        {"match": "GET /v1/payment_intents/*", "fault": "http_429", "probability": 1.0, "times": 2, "delay_ms": null},
        {"match": "*", "fault": "http_500_before", "probability": 0.0, "times": null, "delay_ms": null},
    ]);
    let shown = simulator.control(Method::PUT, "/_sim/faults", rules.clone()).await;
    assert_eq!((shown.status, shown.json()), (StatusCode::OK, rules));
    let expected = [(StatusCode::TOO_MANY_REQUESTS, json!(1)), (StatusCode::TOO_MANY_REQUESTS, json!(null))];
    for (status, left) in expected {
        assert_eq!(simulator.get("/v1/payment_intents/pi_1").await.status, status);
        assert_eq!(simulator.get("/_sim/faults").await.at("/0/times"), left);
    }
    assert_eq!(simulator.get("/v1/payment_intents/pi_1").await.status, StatusCode::NOT_FOUND);

    let wrong = json!([{"match": "*", "fault": "http_429"}, {"match": "nonsense", "fault": "http_429"}]);
    let refused = simulator.control(Method::PUT, "/_sim/faults", wrong).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.at("/error/message").as_str().unwrap().contains("rule 1"), "{refused:?}");
    assert_eq!(simulator.get("/_sim/faults").await.at("/0/fault"), "http_500_before");
    let cleared = simulator.control(Method::DELETE, "/_sim/faults", json!(null)).await;
    assert_eq!(cleared.status, StatusCode::NO_CONTENT);
    assert_eq!(simulator.get("/_sim/faults").await.json(), json!([]));
}
