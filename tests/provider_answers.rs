//! What the provider answered, and what it means.

use crate::support::{
    Form, PAYMENTS, SOON, assert_problem, count, id, impatient, once, scripted_provider, seconds,
};
use anyhow::{Context, Result};
use e2e::{Answer, World, WorldOptions, eventually, payment};
use serde_json::{Value, json};
use std::time::Duration;

const CREATE: &str = "POST /v1/payment_intents";
const LIST: &str = "GET /v1/payment_intents";

fn paid_with(reference: &str, token: &str) -> Value {
    let mut body = payment(reference);
    body["payment_method"] = json!(token);
    body
}

/// The payment, once it has left `processing`.
async fn settled(world: &World, created: &Answer) -> Result<Value> {
    let mut payment = Value::Null;
    eventually(seconds(30), "settled", async || {
        payment = world.api.get(created.header("location")).await?.json();
        Ok(payment["status"] != "processing")
    })
    .await?;
    Ok(payment)
}

async fn charge_window_has_passed(world: &World) -> Result<()> {
    eventually(SOON, "the charge window has passed", async || {
        let statement = "SELECT count(*) FROM operations WHERE created_at < now() - interval '2100 ms'";
        Ok(count(world, statement).await? == 1)
    })
    .await
}

#[tokio::test]
async fn a_declined_payment_is_never_charged_nor_confirmed_again() -> Result<()> {
    let world = World::start().await?;
    let tokens = [
        ("pm_card_visa_chargeDeclined", "card_declined", json!("generic_decline")),
        ("pm_card_chargeDeclined", "card_declined", json!("generic_decline")),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "card_declined", json!("insufficient_funds")),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", json!("expired_card")),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", json!("incorrect_cvc")),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", json!("processing_error")),
        ("pm_card_chargeCustomerFail", "card_declined", json!("generic_decline")),
    ];
    for (token, code, decline_code) in &tokens {
        let answer = world.api.create(token, &paid_with(token, token)).await?;
        assert_problem(&answer, 402, "payment_declined");
        let payment = &answer.json()["payment"];
        assert_eq!((&payment["status"], &payment["amount_captured"]), (&json!("failed"), &json!(0)));
        assert_eq!(payment["failure"]["code"], *code, "{token}");
        assert_eq!(payment["failure"]["decline_code"], *decline_code, "{token}");
        assert!(payment["failure"]["message"].as_str().is_some_and(|message| !message.is_empty()));
        let read =
            world.api.get(&format!("{PAYMENTS}/{}", payment["id"].as_str().unwrap_or_default())).await?;
        assert_eq!((read.status, &read.json()), (200, payment));
    }
    let ledger = world.simulator.ledger().await?;
    assert_eq!(ledger["charges"], json!([]));
    assert_eq!(ledger["calls"], json!({ CREATE: tokens.len() }), "each was asked for once");
    world.finish().await
}

#[tokio::test]
async fn what_the_provider_rejects_fails() -> Result<()> {
    let world = World::start().await?;
    let answer = world.api.create("key", &paid_with("order-1", "pm_1NoSuchToken")).await?;
    assert_problem(&answer, 402, "payment_declined");
    let failure = &answer.json()["payment"]["failure"];
    assert_eq!((&failure["code"], &failure["decline_code"]), (&json!("provider_rejected"), &Value::Null));
    assert_eq!(world.simulator.calls(CREATE).await?, 1, "asking again would change nothing");
    world.finish().await
}

#[tokio::test]
async fn an_answer_that_is_lost_or_unreadable_never_makes_a_second_charge() -> Result<()> {
    let world = impatient().start().await?;
    let faults = [
        "http_429",
        "http_500_before",
        "http_500_after",
        "reset_before",
        "reset_after",
        "half_body",
        "garbage",
        "hang_before",
        "hang_after",
        "slow_body",
    ];
    for (at, fault) in faults.iter().enumerate() {
        let rule = |matching| json!({ "match": matching, "fault": fault, "times": 1, "delay_ms": 60_000 });
        world.simulator.faults(&json!([rule(CREATE)])).await?;
        let answer = world.api.create(fault, &payment(fault)).await?;
        assert_eq!((answer.status, answer.json()["status"].as_str()), (201, Some("captured")), "{fault}");
        assert_eq!(world.simulator.injected(fault).await?, 1, "{fault}");
        assert_eq!(world.simulator.charges().await?, at + 1, "{fault}");
        let calls = world.simulator.calls(CREATE).await?;
        assert_eq!(calls, 2 * u64::try_from(at + 1)?, "{fault}: one call in vain");
    }
    assert_eq!(world.simulator.calls(LIST).await?, 0, "the same key was enough");
    world.finish().await
}

#[tokio::test]
async fn who_does_not_wait_gets_no_second_try() -> Result<()> {
    let world = World::start().await?;
    for (key, prefer, attempts) in [("waits", None, 0), ("leaves", Some("respond-async"), 1)] {
        world.simulator.create_fault("reset_before", Some(1), 0).await?;
        world.api.create_preferring(key, &payment(key), prefer).await?;
        world.at_rest(SOON).await?;
        let handed_back = "SELECT sum(attempts) FROM operations WHERE idempotency_key IS NOT NULL";
        assert_eq!(count(&world, handed_back).await?, attempts, "{key}");
    }
    assert_eq!(world.simulator.calls(CREATE).await?, 4);
    world.finish().await
}

#[tokio::test]
async fn a_declined_charge_stays_declined_when_its_answer_is_lost() -> Result<()> {
    let world = impatient().start().await?;
    world.simulator.create_fault("reset_after", Some(1), 0).await?;
    let answer = world.api.create("key", &paid_with("order-1", "pm_card_visa_chargeDeclined")).await?;
    assert_problem(&answer, 402, "payment_declined");
    assert_eq!(answer.json()["payment"]["failure"]["decline_code"], "generic_decline");
    assert_eq!(world.simulator.injected("reset_after").await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_500_that_the_provider_stored_is_looked_up() -> Result<()> {
    let world = World::start().await?;
    world.simulator.create_fault("http_500_stored", Some(1), 0).await?;
    let answer = world.api.create("key", &payment("order-1")).await?;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (201, Some("captured")));
    assert_eq!(world.simulator.calls(CREATE).await?, 1, "the same 500 would come again");
    assert!(world.simulator.calls(LIST).await? >= 1);
    world.finish().await
}

#[tokio::test]
async fn three_500s_to_one_key_are_taken_as_stored() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    // executed, and the answer is a 500 that does not say it is final
    world.simulator.create_fault("http_500_after", None, 0).await?;
    let accepted = world.api.create("key", &payment("order-1")).await?;
    assert_eq!(accepted.status, 202);
    assert_eq!(settled(&world, &accepted).await?["status"], "captured");
    assert_eq!(world.simulator.calls(CREATE).await?, 3);
    world.finish().await
}

#[tokio::test]
async fn what_the_provider_still_processes_is_looked_at_until_it_ends() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    for (key, outcome, status) in [("good", "succeed", "captured"), ("bad", "fail", "failed")] {
        let body = paid_with(key, "pm_card_processing");
        let accepted = world.api.create(key, &body).await?;
        assert_eq!((accepted.status, accepted.json()["status"].as_str()), (202, Some("processing")));
        let mut intents = Vec::new();
        eventually(SOON, "the provider works on it", async || {
            intents = world.simulator.intents_of(&id(&accepted)).await?;
            Ok(!intents.is_empty())
        })
        .await?;
        assert_eq!(intents.len(), 1);
        // it is only read from now on
        let calls = world.simulator.calls(CREATE).await?;
        let reads = world.simulator.calls("GET /v1/payment_intents/{id}").await?;
        eventually(SOON, "it is read again", async || {
            Ok(world.simulator.calls("GET /v1/payment_intents/{id}").await? > reads)
        })
        .await?;
        assert_eq!(world.simulator.calls(CREATE).await?, calls);
        assert_eq!(world.api.get(accepted.header("location")).await?.json()["status"], "processing");

        world.simulator.complete(&intents[0].0, outcome).await?;
        assert_eq!(settled(&world, &accepted).await?["status"], status);
        let replay = world.api.create(key, &body).await?;
        assert_eq!(replay.status, if status == "captured" { 201 } else { 402 });
    }
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn refused_credentials_stop_what_is_new_and_lose_nothing() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "1s").start().await?;
    let before = world.api.create("before", &payment("before")).await?;
    assert_eq!(before.status, 201);
    world.simulator.settings(&json!({ "accept_key": "sk_test_another" })).await?;
    let during = world.api.create("during", &payment("during")).await?;
    assert_eq!((during.status, during.json()["status"].as_str()), (202, Some("processing")));

    let refused = world.api.create("new", &payment("new")).await?;
    assert_problem(&refused, 503, "provider_misconfigured");
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    assert_eq!(count(&world, "SELECT count(*) FROM operations").await?, 2, "nothing was written");
    assert_eq!(count(&world, "SELECT count(*) FROM payments").await?, 2, "nothing was written");
    // what is known is answered
    let replayed = world.api.create("before", &payment("before")).await?;
    assert_eq!((replayed.status, &replayed.body), (201, &before.body));
    let open = world.api.create("during", &payment("during")).await?;
    assert_eq!((open.status, open.header("idempotent-replayed")), (202, "true"));
    let reused = world.api.create("before", &payment("new")).await?;
    assert_problem(&reused, 422, "idempotency_key_reused");
    assert_eq!(world.api.get("/readyz").await?.status, 200, "reading still works");
    assert_eq!(world.api.get(before.header("location")).await?.status, 200);

    world.simulator.settings(&json!({ "accept_key": null })).await?;
    assert_eq!(settled(&world, &during).await?["status"], "captured");
    let new = world.api.create("new", &payment("new")).await?;
    assert_eq!((new.status, new.header("idempotent-replayed")), (201, ""), "{}", new.json());
    assert_eq!(world.simulator.charges().await?, 3);
    world.finish().await
}

#[tokio::test]
async fn credentials_are_asked_about_when_nothing_else_would() -> Result<()> {
    let mut world = WorldOptions::default()
        .set("PAYWRIGHT_SYNC_WAIT", "1s")
        // at the provider a key without the right: 403
        .set("PAYWRIGHT_PROVIDER_API_KEY", "rk_test_without_rights")
        .start()
        .await?;
    let open = world.api.create("open", &payment("open")).await?;
    assert_eq!(open.status, 202);
    assert_problem(&world.api.create("new", &payment("new")).await?, 503, "provider_misconfigured");
    let asked = world.simulator.calls(LIST).await?;
    eventually(SOON, "asked for nothing in particular", async || {
        Ok(world.simulator.calls(LIST).await? > asked)
    })
    .await?;
    assert_problem(&world.api.create("new", &payment("new")).await?, 503, "provider_misconfigured");
    let repaired = [("PAYWRIGHT_PROVIDER_API_KEY".to_owned(), "sk_test_devstack".to_owned())];
    world.stack.restart_service_with(0, &repaired.into()).await?;
    assert_eq!(settled(&world, &open).await?["status"], "captured");
    assert_eq!(world.api.create("new", &payment("new")).await?.status, 201);
    world.finish().await
}

#[tokio::test]
async fn a_customer_who_has_to_act_is_sent_or_the_payment_fails() -> Result<()> {
    let world = World::start().await?;
    let mut with_url = paid_with("with", "pm_card_authenticationRequired");
    with_url["return_url"] = json!("https://shop.example/back");
    let waits = world.api.create("with", &with_url).await?;
    assert_eq!((waits.status, waits.json()["status"].as_str()), (201, Some("requires_action")));
    assert_eq!(waits.json()["next_action"]["type"], "redirect");
    assert!(waits.json()["next_action"]["redirect_url"].as_str().is_some_and(|url| url.starts_with("http")));
    assert_eq!(waits.header("location"), format!("{PAYMENTS}/{}", id(&waits)));

    let without =
        world.api.create("without", &paid_with("without", "pm_card_authenticationRequired")).await?;
    assert_problem(&without, 402, "payment_declined");
    let failed = &without.json()["payment"];
    assert_eq!(failed["failure"]["code"], "authentication_required");
    assert_eq!(failed["next_action"], Value::Null);
    let intents = world.simulator.intents_of(failed["id"].as_str().unwrap_or_default()).await?;
    assert_eq!(intents.iter().map(|(_, status)| status.as_str()).collect::<Vec<_>>(), ["canceled"]);
    assert_eq!(world.simulator.charges().await?, 0);
    world.finish().await
}

#[tokio::test]
async fn a_provider_that_is_down_charges_once_when_it_is_back() -> Result<()> {
    let mut world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "500ms").start().await?;
    world.stack.simulator()?.kill().await?;
    let accepted = world.api.create("key", &payment("order-1")).await?;
    assert_eq!(accepted.status, 202);
    assert_eq!(world.api.get("/readyz").await?.status, 200, "payments are still accepted");
    eventually(SOON, "tried again", async || {
        Ok(count(&world, "SELECT count(*) FROM operations WHERE attempts >= 2").await? == 1)
    })
    .await?;
    world.stack.restart_simulator().await?;
    assert_eq!(settled(&world, &accepted).await?["status"], "captured");
    assert_eq!(world.simulator.charges().await?, 1);
    assert_eq!(world.simulator.calls(CREATE).await?, 1);
    world.finish().await
}

/// A create whose first request is still under way while everything else hangs, until the charge window has passed.
async fn overtaken(world: &World, delay: Duration, and: Value) -> Result<Answer> {
    let delay = u64::try_from(delay.as_millis())?;
    let mut rules = vec![
        json!({ "match": CREATE, "fault": "late", "times": 1, "delay_ms": delay }),
        json!({ "match": CREATE, "fault": "hang_before", "delay_ms": 60_000 }),
    ];
    rules.extend(and.as_array().cloned().unwrap_or_default());
    world.simulator.faults(&rules.into()).await?;
    let accepted = world.api.create_preferring("key", &payment("order-1"), Some("respond-async")).await?;
    assert_eq!(accepted.status, 202);
    eventually(SOON, "the first request is under way", async || {
        Ok(world.simulator.injected("late").await? == 1)
    })
    .await?;
    Ok(accepted)
}

#[tokio::test]
async fn a_request_that_arrives_after_its_charge_was_closed_charges_nothing() -> Result<()> {
    const DELAY: Duration = Duration::from_secs(9);
    let world = impatient().set("PAYWRIGHT_CHARGE_WINDOW", "2s").start().await?;
    // An intent of nobody's, to be canceled by a request that is as late: once that has arrived, so has the charge.
    let marker = world.simulator.post("/v1/payment_intents", "amount=100&currency=eur").send().await?;
    let marker = crate::support::text(&marker.json::<Value>().await?["id"]);
    let cancel = format!("/v1/payment_intents/{marker}/cancel");
    let delay = u64::try_from(DELAY.as_millis())?;
    let late = json!([{ "match": format!("POST {cancel}"), "fault": "late", "times": 1, "delay_ms": delay }]);
    let accepted = overtaken(&world, DELAY, late).await?;
    assert!(world.simulator.post(&cancel, "").send().await.is_err(), "its connection is reset");
    let marker_has_arrived = async || -> Result<bool> {
        let ledger = world.simulator.ledger().await?;
        let intent = ledger["intents"].as_array().into_iter().flatten();
        let mut intent = intent.filter(|intent| intent["payment_intent"] == marker.as_str());
        Ok(intent.next().context("the marker")?["status"] == "canceled")
    };
    charge_window_has_passed(&world).await?;
    world.simulator.heal().await?;

    let failed = settled(&world, &accepted).await?;
    assert!(!marker_has_arrived().await?, "closed before the charge arrived");
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["failure"]["code"], "provider_unavailable");
    let intents = world.simulator.intents_of(&id(&accepted)).await?;
    assert_eq!(intents.iter().map(|(_, status)| status.as_str()).collect::<Vec<_>>(), ["canceled"]);

    eventually(DELAY + SOON, "the late request arrives", marker_has_arrived).await?;
    assert_eq!(world.simulator.charges().await?, 0);
    let replay = world.api.create("key", &payment("order-1")).await?;
    assert_eq!((replay.status, replay.code().as_str()), (402, "payment_declined"));
    // the merchant may charge the order anew
    assert_eq!(world.api.create("anew", &payment("order-1")).await?.status, 201);
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_request_that_arrives_before_its_charge_is_closed_is_found() -> Result<()> {
    let world = impatient().set("PAYWRIGHT_CHARGE_WINDOW", "2s").start().await?;
    let accepted = overtaken(&world, Duration::from_millis(300), Value::Null).await?;
    eventually(SOON, "it arrives", async || Ok(world.simulator.charges().await? == 1)).await?;
    charge_window_has_passed(&world).await?;
    assert_eq!(world.open_operations().await?, 1, "nobody has told the service");
    world.simulator.heal().await?;
    let captured = settled(&world, &accepted).await?;
    assert_eq!((&captured["status"], &captured["amount_captured"]), (&json!("captured"), &json!(1999)));
    assert!(world.simulator.calls(LIST).await? >= 1, "by listing");
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_charge_that_is_late_within_its_window_is_charged_once() -> Result<()> {
    let world = impatient().start().await?;
    let accepted = overtaken(&world, Duration::from_millis(300), Value::Null).await?;
    eventually(SOON, "it arrives", async || Ok(world.simulator.charges().await? == 1)).await?;
    world.simulator.heal().await?;
    assert_eq!(settled(&world, &accepted).await?["status"], "captured");
    assert_eq!(world.simulator.calls(LIST).await?, 0, "the same key brings the answer");
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn once_the_provider_may_have_forgotten_a_key_only_looking_decides() -> Result<()> {
    let world = impatient().start().await?;
    // No create is answered any more, to the end of this test: what settles was looked up.
    let rule = |fault, times| json!({ "match": CREATE, "fault": fault, "times": times, "delay_ms": 60_000 });
    world.simulator.faults(&json!([rule("hang_after", json!(1)), rule("hang_before", Value::Null)])).await?;
    let executed =
        world.api.create_preferring("executed", &payment("executed"), Some("respond-async")).await?;
    eventually(SOON, "charged", async || Ok(world.simulator.charges().await? == 1)).await?;
    let never = world.api.create_preferring("never", &payment("never"), Some("respond-async")).await?;
    sqlx::query("UPDATE operations SET created_at = created_at - interval '25 h'")
        .execute(&world.pool)
        .await?;

    assert_eq!(settled(&world, &executed).await?["status"], "captured");
    let failed = settled(&world, &never).await?;
    assert_eq!(
        (&failed["status"], &failed["failure"]["code"]),
        (&json!("failed"), &json!("provider_unavailable"))
    );
    let apart = "SELECT count(*) FROM operations WHERE settled_at - absent_since >= interval '6500 ms'";
    assert_eq!(count(&world, apart).await?, 1, "looked for twice, a lease apart");
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn an_answer_that_cannot_be_the_charges_is_recorded_once_and_never_believed() -> Result<()> {
    let (url, lying) = scripted_provider(lie).await?;
    let world = impatient().set("PAYWRIGHT_SYNC_WAIT", "0ms").provider(&url).start().await?;
    for (amount, lie) in LIES {
        let mut body = payment(lie);
        body["amount"] = json!(amount);
        assert_eq!(world.api.create(lie, &body).await?.status, 202, "{lie}");
    }
    let contradicted = "SELECT count(*) FROM events WHERE type = 'payment.contradicted'";
    let lies = i64::try_from(LIES.len())?;
    eventually(SOON, "each is recorded", async || Ok(count(&world, contradicted).await? == lies)).await?;
    let paused = "SELECT count(*) FROM operations WHERE attempts >= 1 AND contradicted_at IS NOT NULL";
    eventually(SOON, "each is put off", async || Ok(count(&world, paused).await? == lies)).await?;
    // the pause is long: nobody holds what is put off, so it may be made due at once
    sqlx::query("UPDATE operations SET lease_until = now() WHERE attempts >= 1").execute(&world.pool).await?;
    let again = "SELECT count(*) FROM operations WHERE attempts >= 2";
    eventually(SOON, "each is asked again", async || Ok(count(&world, again).await? == lies)).await?;

    assert_eq!(count(&world, contradicted).await?, lies, "once each");
    assert_eq!(world.open_operations().await?, lies);
    let payments = world.api.get(PAYMENTS).await?.json();
    for payment in payments["data"].as_array().into_iter().flatten() {
        assert_eq!((&payment["status"], &payment["amount_captured"]), (&json!("processing"), &json!(0)));
    }
    let fields: Vec<String> = sqlx::query_scalar(
        "SELECT data ->> 'field' FROM events WHERE type = 'payment.contradicted' ORDER BY 1",
    )
    .fetch_all(&world.pool)
    .await?;
    let mut expected: Vec<&str> = LIES.iter().map(|(_, lie)| *lie).collect();
    expected.sort_unstable();
    assert_eq!(fields, expected);
    lying.abort();
    world.stop().await
}

/// Which lie is told about which amount.
const LIES: [(i64, &str); 6] = [
    (1001, "amount"),
    (1002, "currency"),
    (1003, "payment_id"),
    (1004, "merchant_id"),
    (1005, "object"),
    (1006, "amount_received"),
];

/// Answers every create with a success that cannot be.
fn lie(_: &str, form: &Form) -> (u16, Value) {
    let amount: i64 = form.get("amount").and_then(|amount| amount.parse().ok()).unwrap_or(0);
    let of = |name: &str| json!(form.get(&format!("metadata[{name}]")));
    let mut intent = json!({
        "id": "pi_lie", "object": "payment_intent", "status": "succeeded", "amount": amount,
        "amount_received": amount, "currency": form.get("currency"), "capture_method": "automatic",
        "metadata": {
            "payment_id": of("payment_id"), "operation_id": of("operation_id"), "merchant_id": of("merchant_id"),
        },
    });
    let lie = LIES.iter().find(|(about, _)| *about == amount).map(|(_, lie)| *lie);
    match lie {
        Some("amount") => intent["amount"] = json!(amount + 1),
        Some("currency") => intent["currency"] = json!("usd"),
        Some("object") => intent["object"] = json!("charge"),
        Some("amount_received") => intent["amount_received"] = json!(amount - 1),
        Some(id) => intent["metadata"][id] = json!("0190a1b2-0000-7000-8000-000000000000"),
        None => {}
    }
    (200, intent)
}

#[tokio::test]
async fn keys_forgotten_while_nobody_knows_the_outcome_make_no_second_effect() -> Result<()> {
    let world = WorldOptions::default()
        .set("PAYWRIGHT_SYNC_WAIT", "0ms")
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "400ms")
        .set("PAYWRIGHT_LEASE", "5500ms")
        .start()
        .await?;
    let api = &world.api;
    let paid = async |key: &str, capture: &str, status: &str| {
        let mut body = payment(key);
        body["capture"] = json!(capture);
        let path = api.create(key, &body).await?.header("location").to_owned();
        once(api, &path, |payment| payment["status"] == status).await?;
        anyhow::Ok(path)
    };
    let (held, captured) =
        (paid("held", "manual", "authorized").await?, paid("captured", "automatic", "captured").await?);
    world.simulator.settings(&json!({ "key_retention_ms": 5_000 })).await?;
    let endpoints = ["/v1/payment_intents", "/v1/payment_intents/*/capture", "/v1/refunds"];
    let lost = endpoints.map(|path| {
        json!({ "match": format!("POST {path}"), "fault": "reset_after", "probability": 1, "times": 1, "delay_ms": 0 })
    });
    let dark = json!({ "match": "*", "fault": "reset_before", "probability": 1, "delay_ms": 0 });
    world.simulator.faults(&json!([&lost[0], &lost[1], &lost[2], dark])).await?;
    assert_eq!(api.create("charge", &payment("charge")).await?.status, 202);
    assert_eq!(api.post(&format!("{held}/capture"), "capture", &json!({})).await?.status, 202);
    assert_eq!(api.post(&format!("{captured}/refunds"), "refund", &json!({})).await?.status, 202);
    eventually(SOON, "all is executed", async || Ok(world.simulator.injected("reset_after").await? == 3))
        .await?;
    // for the service a day has passed before the provider forgets
    sqlx::query("UPDATE operations SET created_at = now() - interval '25 h' WHERE settled_at IS NULL")
        .execute(&world.pool)
        .await?;
    let unknown = "SELECT count(*) FROM operations WHERE settled_at IS NULL AND idempotency_key IS NOT NULL
                     AND created_at < now() - interval '25 h 20 s'";
    eventually(seconds(40), "nobody has known for 20 s", async || {
        Ok(sqlx::query_scalar::<_, i64>(unknown).fetch_one(&world.pool).await? == 3)
    })
    .await?;
    world.simulator.heal().await?;
    // one effect each, by the checker
    world.finish().await
}
