//! What Stripe's protocol promises, without faults.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Simulator, charge_form};

const INTENTS: &str = "/v1/payment_intents";

#[tokio::test]
async fn a_repeated_charge_is_replayed_byte_for_byte() {
    let simulator = Simulator::start().await;
    let first = simulator.charge("key", "payment_method=pm_card_visa&metadata[payment_id]=p1").await;
    assert_eq!(first.status, StatusCode::OK, "{first:?}");
    assert_eq!(first.at("/status"), "succeeded");
    assert_eq!(first.header("idempotent-replayed"), None);

    // The same parameters in another order, after the intent has moved on.
    simulator.post("/v1/refunds", "refund", &format!("payment_intent={}", first.id())).await;
    let again = "metadata[payment_id]=p1&payment_method=pm_card_visa&confirm=true&currency=eur&amount=1999";
    let again = simulator.post(INTENTS, "key", again).await;
    assert_eq!(again.body, first.body);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(simulator.kinds().await, ["authorize", "capture", "refund"]);
}

#[tokio::test]
async fn the_ledger_says_whose_money_moved() {
    let simulator = Simulator::start().await;
    let metadata = "metadata[payment_id]=p1&metadata[operation_id]=o1&metadata[merchant_id]=m1";
    let intent = simulator.charge("charge", &format!("payment_method=pm_card_visa&{metadata}")).await.id();
    let form = format!("payment_intent={intent}&amount=500&metadata[refund_id]=r1&metadata[operation_id]=o2");
    let refund = simulator.post("/v1/refunds", "refund", &form).await;

    let ledger = simulator.ledger().await;
    let charge = &ledger["charges"][0];
    let created = charge["created"].clone();
    assert_eq!(
        charge,
        &json!({
            "payment_intent": intent, "payment_id": "p1", "amount": 1999, "amount_captured": 1999,
            "amount_refunded": 500, "currency": "eur", "status": "succeeded",
            "idempotency_keys": ["charge", "refund"], "created": created,
            "refunds": [{"id": refund.id(), "refund_id": "r1", "amount": 500, "status": "succeeded"}],
        })
    );
    let at = ledger["entries"][2]["at"].clone();
    assert_eq!(
        ledger["entries"][2],
        json!({
            "seq": 3, "at": at, "kind": "refund", "payment_intent": intent, "payment_id": "p1",
            "operation_id": "o2", "refund_id": "r1", "merchant_id": "m1", "amount": 500,
            "idempotency_key": "refund", "answered": true,
        })
    );
    assert_eq!(ledger["calls"], json!({"POST /v1/payment_intents": 1, "POST /v1/refunds": 1}));
    assert_eq!(ledger["intents"][0]["payment_id"], "p1");
}

#[tokio::test]
async fn a_key_belongs_to_its_first_request() {
    let simulator = Simulator::start().await;
    let intent = simulator.charge("key", "payment_method=pm_card_visa").await.id();
    for (path, form) in [
        (INTENTS, charge_form("payment_method=pm_card_amex")),
        (INTENTS, "amount=1999&currency=eur&payment_method=pm_card_visa".to_owned()),
        ("/v1/refunds", format!("payment_intent={intent}")),
    ] {
        let answer = simulator.post(path, "key", &form).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert_eq!(answer.at("/error/type"), "idempotency_error");
    }
    assert_eq!(simulator.kinds().await, ["authorize", "capture"]);
}

#[tokio::test]
async fn a_refused_parameter_does_not_use_the_key_up() {
    let simulator = Simulator::start().await;
    for (form, code, param) in [
        ("currency=eur", "parameter_missing", "amount"),
        ("amount=10", "parameter_missing", "currency"),
        ("amount=0&currency=eur", "parameter_invalid_integer", "amount"),
        ("amount=100000000&currency=eur", "amount_too_large", "amount"),
        ("amount=10&currency=eur&amonut=1", "parameter_unknown", "amonut"),
        ("amount=10&currency=eur&payment_method=pm_unknown", "resource_missing", "payment_method"),
    ] {
        let answer = simulator.post(INTENTS, "key", form).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{form}");
        assert_eq!(
            (answer.at("/error/code"), answer.at("/error/param")),
            (code.into(), param.into()),
            "{form}"
        );
    }
    let answer = simulator.charge("key", "payment_method=pm_card_visa").await;
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (StatusCode::OK, None));
}

#[tokio::test]
async fn a_declined_charge_is_402_whenever_it_is_repeated() {
    let simulator = Simulator::start().await;
    let form = "payment_method=pm_card_visa_chargeDeclinedInsufficientFunds";
    let first = simulator.charge("key", form).await;
    assert_eq!(first.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(first.at("/error/type"), "card_error");
    assert_eq!(first.at("/error/code"), "card_declined");
    assert_eq!(first.at("/error/decline_code"), "insufficient_funds");
    assert_eq!(first.at("/error/payment_intent/status"), "requires_payment_method");
    assert_eq!(first.at("/error/payment_intent/last_payment_error/decline_code"), "insufficient_funds");
    let again = simulator.charge("key", form).await;
    assert_eq!((again.status, &again.body), (first.status, &first.body));

    let ledger = simulator.ledger().await;
    assert_eq!((&ledger["charges"], &ledger["entries"]), (&json!([]), &json!([])));
    assert_eq!(ledger["intents"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_intent_can_be_created_first_and_confirmed_later() {
    let simulator = Simulator::start().await;
    let created = simulator.post(INTENTS, "", "amount=10&currency=eur").await;
    assert_eq!(created.at("/status"), "requires_payment_method");
    let confirm = format!("{INTENTS}/{}/confirm", created.id());
    let declined = simulator.post(&confirm, "", "payment_method=pm_card_chargeCustomerFail").await;
    assert_eq!(declined.status, StatusCode::PAYMENT_REQUIRED);
    let paid = simulator.post(&confirm, "", "payment_method=pm_card_visa").await;
    assert_eq!((paid.status, paid.at("/status")), (StatusCode::OK, "succeeded".into()));
    let again = simulator.post(&confirm, "", "payment_method=pm_card_visa").await;
    assert_eq!(again.at("/error/code"), "payment_intent_unexpected_state");
    let missing = simulator.post(&format!("{INTENTS}/pi_none/confirm"), "", "").await;
    assert_eq!(
        (missing.status, missing.at("/error/code")),
        (StatusCode::NOT_FOUND, "resource_missing".into())
    );
}

#[tokio::test]
async fn a_held_amount_is_captured_once_and_the_rest_released() {
    let simulator = Simulator::start().await;
    let held = simulator.charge("", "payment_method=pm_card_visa&capture_method=manual").await;
    assert_eq!((held.at("/status"), held.at("/amount_capturable")), ("requires_capture".into(), 1999.into()));
    let capture = format!("{INTENTS}/{}/capture", held.id());
    let too_much = simulator.post(&capture, "", "amount_to_capture=2000").await;
    assert_eq!(
        (too_much.status, too_much.at("/error/code")),
        (StatusCode::BAD_REQUEST, "amount_too_large".into())
    );
    let captured = simulator.post(&capture, "", "amount_to_capture=1500").await;
    assert_eq!((captured.at("/amount_received"), captured.at("/amount_capturable")), (1500.into(), 0.into()));
    let again = simulator.post(&capture, "", "").await;
    assert_eq!(again.at("/error/code"), "payment_intent_unexpected_state");
    assert_eq!(again.at("/error/payment_intent/id"), captured.at("/id"));
    assert_eq!(simulator.kinds().await, ["authorize", "capture"]);
}

#[tokio::test]
async fn a_held_amount_can_be_canceled() {
    let simulator = Simulator::start().await;
    let held = simulator.charge("", "payment_method=pm_card_visa&capture_method=manual").await;
    let cancel = format!("{INTENTS}/{}/cancel", held.id());
    let wrong = simulator.post(&cancel, "", "cancellation_reason=boredom").await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    let canceled = simulator.post(&cancel, "", "cancellation_reason=abandoned").await;
    assert_eq!(canceled.at("/status"), "canceled");
    assert_eq!(canceled.at("/cancellation_reason"), "abandoned");
    assert_eq!(simulator.post(&cancel, "", "").await.at("/error/code"), "payment_intent_unexpected_state");
    let ledger = simulator.ledger().await;
    assert_eq!(ledger["charges"][0]["status"], "canceled");
    assert_eq!(ledger["entries"][1]["amount"], 1999);
    assert_eq!(simulator.kinds().await, ["authorize", "cancel"]);
}

#[tokio::test]
async fn the_customer_authenticates_or_does_not() {
    let simulator = Simulator::start().await;
    let card = "payment_method=pm_card_threeDSecure2Required";
    let here = simulator.charge("", card).await;
    assert_eq!(here.at("/next_action/type"), "use_stripe_sdk");
    let there = simulator.charge("", &format!("{card}&return_url=https://shop.example/back")).await;
    assert_eq!(there.at("/status"), "requires_action");
    assert_eq!(there.at("/next_action/redirect_to_url/return_url"), "https://shop.example/back");

    let failed = simulator.complete(&format!("payment_intents/{}", here.id()), "fail").await;
    assert_eq!(failed.at("/status"), "requires_payment_method");
    assert_eq!(failed.at("/last_payment_error/code"), "payment_intent_authentication_failure");
    let paid = simulator.complete(&format!("payment_intents/{}", there.id()), "succeed").await;
    assert_eq!((paid.at("/status"), paid.at("/next_action")), ("succeeded".into(), Value::Null));
    let twice = simulator.complete(&format!("payment_intents/{}", there.id()), "fail").await;
    assert_eq!(twice.status, StatusCode::BAD_REQUEST);
    assert_eq!(simulator.kinds().await, ["authorize", "capture"]);
}

#[tokio::test]
async fn a_charge_can_stay_processing() {
    let simulator = Simulator::start().await;
    let open = simulator.charge("", "payment_method=pm_card_processing").await;
    assert_eq!(open.at("/status"), "processing");
    let cancel = simulator.post(&format!("{INTENTS}/{}/cancel", open.id()), "", "").await;
    assert_eq!(cancel.at("/error/code"), "payment_intent_unexpected_state");
    simulator.complete(&format!("payment_intents/{}", open.id()), "succeed").await;
    assert_eq!(simulator.get(&format!("{INTENTS}/{}", open.id())).await.at("/status"), "succeeded");
}

#[tokio::test]
async fn refunds_never_exceed_the_charge() {
    let simulator = Simulator::start().await;
    let intent = simulator.charge("", "payment_method=pm_card_visa").await.id();
    let refund =
        async |rest: &str| simulator.post("/v1/refunds", "", &format!("payment_intent={intent}{rest}")).await;
    let first = refund("&amount=1000&reason=duplicate").await;
    assert_eq!((first.at("/status"), first.at("/reason")), ("succeeded".into(), "duplicate".into()));
    let too_much = refund("&amount=1000").await;
    assert_eq!((too_much.status, too_much.at("/error/param")), (StatusCode::BAD_REQUEST, "amount".into()));
    let rest = refund("").await;
    assert_eq!(rest.at("/amount"), 999);
    assert_eq!(refund("").await.at("/error/code"), "charge_already_refunded");

    let list = simulator.get(&format!("/v1/refunds?payment_intent={intent}&limit=1")).await;
    assert_eq!((list.at("/data/0/id"), list.at("/has_more")), (rest.at("/id"), true.into()));
    let next = format!("/v1/refunds?payment_intent={intent}&starting_after={}", rest.id());
    let next = simulator.get(&next).await;
    assert_eq!((next.at("/data/0/id"), next.at("/has_more")), (first.at("/id"), false.into()));
    assert_eq!(simulator.get(&format!("/v1/refunds/{}", first.id())).await.json(), first.json());
    assert_eq!(simulator.get("/v1/refunds/re_none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_refund_may_take_time_and_fail() {
    let simulator = Simulator::start().await;
    let slow = simulator.charge("", "payment_method=pm_card_pendingRefund").await.id();
    let pending = simulator.post("/v1/refunds", "", &format!("payment_intent={slow}")).await;
    assert_eq!(pending.at("/status"), "pending");
    let done = simulator.complete(&format!("refunds/{}", pending.id()), "fail").await;
    assert_eq!(done.at("/status"), "failed");
    assert_eq!(simulator.ledger().await["charges"][0]["amount_refunded"], 0);

    let bad = simulator.charge("", "payment_method=pm_card_refundFail").await.id();
    let answered = simulator.post("/v1/refunds", "key", &format!("payment_intent={bad}")).await;
    assert_eq!(answered.at("/status"), "succeeded");
    let later = simulator.get(&format!("/v1/refunds/{}", answered.id())).await;
    assert_eq!(later.at("/status"), "failed");
    let replayed = simulator.post("/v1/refunds", "key", &format!("payment_intent={bad}")).await;
    assert_eq!(replayed.body, answered.body);
}

#[tokio::test]
async fn lists_are_pages_newest_first() {
    let simulator = Simulator::start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.insert(0, simulator.charge("", "payment_method=pm_card_visa").await.id());
    }
    let page = simulator.get(&format!("{INTENTS}?limit=3&created[gte]=1")).await;
    assert_eq!((page.at("/object"), page.at("/has_more")), ("list".into(), true.into()));
    let shown: Vec<Value> =
        page.at("/data").as_array().unwrap().iter().map(|intent| intent["id"].clone()).collect();
    assert_eq!(shown, ids[..3]);
    let page = simulator.get(&format!("{INTENTS}?limit=3&starting_after={}", ids[2])).await;
    assert_eq!((page.at("/data/1/id"), page.at("/has_more")), (ids[4].as_str().into(), false.into()));
    assert_eq!(simulator.get(&format!("{INTENTS}?created[lte]=1")).await.at("/data"), json!([]));
    for query in ["limit=0", "limit=101", "starting_after=pi_none", "status=succeeded"] {
        assert_eq!(
            simulator.get(&format!("{INTENTS}?{query}")).await.status,
            StatusCode::BAD_REQUEST,
            "{query}"
        );
    }
}

#[tokio::test]
async fn keys_decide_who_may_call() {
    let simulator = Simulator::start().await;
    let url = format!("http://{}{INTENTS}", simulator.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let nobody = client.get(&url).send().await.unwrap();
    assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED);
    assert!(nobody.headers().contains_key("www-authenticate"));
    for (key, expected) in [("sk_test_1", 200), ("sk_live_1", 401), ("rk_test_1", 403)] {
        let answer = client.get(&url).basic_auth(key, Some("")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{key}");
    }

    let answer =
        simulator.control(Method::PUT, "/_sim/settings", json!({"accept_key": "sk_test_other"})).await;
    assert_eq!(
        answer.json(),
        json!({"latency_ms": 0, "key_retention_ms": 86_400_000, "accept_key": "sk_test_other"})
    );
    assert_eq!(simulator.get(INTENTS).await.status, StatusCode::UNAUTHORIZED);
    simulator.control(Method::PUT, "/_sim/settings", json!({"accept_key": null})).await;
    assert_eq!(simulator.get(INTENTS).await.status, StatusCode::OK);
    let wrong = simulator.control(Method::PUT, "/_sim/settings", json!({"latency": 5})).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_forgotten_key_executes_again() {
    let simulator = Simulator::start().await;
    simulator.charge("key", "payment_method=pm_card_visa").await;
    simulator.control(Method::PUT, "/_sim/settings", json!({"key_retention_ms": 0})).await;
    simulator.charge("key", "payment_method=pm_card_visa").await;
    assert_eq!(simulator.ledger().await["charges"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_is_no_form_or_no_endpoint_is_refused() {
    let simulator = Simulator::start().await;
    let json = simulator.request(Method::POST, INTENTS).header("content-type", "application/json").body("{}");
    assert_eq!(json.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(simulator.get("/v1/customers").await.status, StatusCode::NOT_FOUND);
    assert_eq!(simulator.get("/_sim/nothing").await.status, StatusCode::NOT_FOUND);
}
