//! Capturing and canceling what is held.

use crate::support::{
    FAULTS, Form, PAYMENTS, SOON, assert_problem, captured, count, held, id, impatient, manual, once,
    scripted_provider, text, trail,
};
use anyhow::Result;
use e2e::{Answer, World, WorldOptions, eventually, payment};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

const CAPTURE: &str = "POST /v1/payment_intents/*/capture";
const CANCEL: &str = "POST /v1/payment_intents/*/cancel";

#[track_caller]
fn assert_conflict(answer: &Answer, status: &str, pending: Option<&str>) {
    assert_problem(answer, 409, "payment_state_conflict");
    let body = answer.json();
    assert_eq!((&body["payment_status"], &body["pending_operation"]), (&json!(status), &json!(pending)));
    assert!(body["payment_id"].is_string(), "{body}");
}

/// The provider's entries of a kind for a payment: amount each.
async fn effects(world: &World, kind: &str, path: &str) -> Result<Vec<Value>> {
    let ledger = world.simulator.ledger().await?;
    let id = path.rsplit('/').next().unwrap_or_default();
    let entries = ledger["entries"].as_array().cloned().unwrap_or_default();
    let theirs = entries.iter().filter(|entry| entry["kind"] == kind && entry["payment_id"] == id);
    Ok(theirs.map(|entry| entry["amount"].clone()).collect())
}

#[tokio::test]
async fn a_held_payment_is_captured_in_whole_or_once_in_part() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let whole = held(api, "whole").await?;
    let answer = api.post(&format!("{whole}/capture"), "c1", &json!({})).await?;
    let body = answer.json();
    assert_eq!(
        (answer.status, &body["status"], &body["amount_captured"]),
        (200, &json!("captured"), &json!(1999))
    );
    assert_eq!((answer.header("location"), &body["pending_operation"]), ("", &Value::Null));
    assert_eq!(api.get(&whole).await?.json(), body);
    assert_eq!(effects(&world, "capture", &whole).await?, [json!(1999)]);
    let expected = ["payment.created", "payment.authorized", "payment.capture_requested", "payment.captured"];
    assert_eq!(trail(api, &whole).await?, expected);

    let part = held(api, "part").await?;
    let answer = api.post(&format!("{part}/capture"), "c2", &json!({ "amount": 1500 })).await?;
    let body = answer.json();
    assert_eq!((answer.status, &body["amount"], &body["amount_captured"]), (200, &json!(1999), &json!(1500)));
    // less is allowed once, and the rest is gone
    assert_conflict(
        &api.post(&format!("{part}/capture"), "c3", &json!({ "amount": 1 })).await?,
        "captured",
        None,
    );
    assert_conflict(&api.post(&format!("{part}/cancel"), "c4", &json!({})).await?, "captured", None);
    let charge = world.simulator.ledger().await?["charges"][1].clone();
    assert_eq!((&charge["amount_captured"], &charge["status"]), (&json!(1500), &json!("succeeded")));
    world.finish().await
}

#[tokio::test]
async fn what_is_held_can_be_released() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    let answer = api.post(&format!("{path}/cancel"), "c1", &json!({})).await?;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("canceled")));
    assert_eq!((&answer.json()["failure"], answer.header("location")), (&Value::Null, ""));
    assert_eq!(effects(&world, "cancel", &path).await?, [json!(1999)]);
    let expected = ["payment.created", "payment.authorized", "payment.cancel_requested", "payment.canceled"];
    assert_eq!(trail(api, &path).await?, expected);
    // and its reference is free
    assert_eq!(api.create("again", &payment("order-1")).await?.status, 201);
    world.finish().await
}

#[tokio::test]
async fn an_empty_body_counts_as_an_empty_object() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let (one, other) = (held(api, "one").await?, held(api, "other").await?);
    let bare = api.send(api.money_post(&format!("{one}/capture"), "c1")).await?;
    assert_eq!((bare.status, &bare.json()["amount_captured"]), (200, &json!(1999)));
    // the same request as one with an object
    let again = api.post(&format!("{one}/capture"), "c1", &json!({ "amount": null })).await?;
    assert_eq!((again.status, again.body == bare.body), (200, true));
    let typed = api.money_post(&format!("{other}/cancel"), "c2").header("Content-Type", "text/plain");
    assert_eq!(api.send(typed).await?.status, 200, "nothing has no type");
    let refund = api.send(api.money_post(&format!("{one}/refunds"), "c3")).await?;
    assert_eq!((refund.status, &refund.json()["amount"]), (201, &json!(1999)));

    let full = api.money_post(&format!("{one}/capture"), "c4").body("{}");
    assert_problem(&api.send(full).await?, 415, "unsupported_media_type");
    let blank =
        api.money_post(&format!("{one}/capture"), "c4").header("Content-Type", "application/json").body(" ");
    assert_problem(&api.send(blank).await?, 400, "malformed_json");
    // a create has no defaults
    assert_problem(&api.send(api.money_post(PAYMENTS, "c5")).await?, 415, "unsupported_media_type");
    world.finish().await
}

#[tokio::test]
async fn the_wrong_state_is_told_before_the_amount_and_uses_no_key_up() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let captured = captured(api, "captured").await?;
    let canceled = held(api, "canceled").await?;
    assert_eq!(api.post(&format!("{canceled}/cancel"), "cancel", &json!({})).await?.status, 200);
    let mut declined = payment("failed");
    declined["payment_method"] = json!("pm_card_chargeDeclined");
    let failed =
        format!("{PAYMENTS}/{}", text(&api.create("failed", &declined).await?.json()["payment"]["id"]));
    let mut waiting = payment("waiting");
    waiting["payment_method"] = json!("pm_card_processing");
    let processing = api.create_preferring("waiting", &waiting, Some("respond-async")).await?;
    let processing = processing.header("location").to_owned();
    let held = held(api, "held").await?;
    let too_much = json!({ "amount": 99_999_999 });
    for (path, status, verbs) in [
        (&captured, "captured", &["capture", "cancel"][..]),
        (&canceled, "canceled", &["capture", "cancel", "refunds"]),
        (&failed, "failed", &["capture", "cancel", "refunds"]),
        (&processing, "processing", &["capture", "cancel", "refunds"]),
        (&held, "authorized", &["refunds"]),
    ] {
        for verb in verbs {
            let body = if *verb == "cancel" { json!({}) } else { too_much.clone() };
            let answer = api.post(&format!("{path}/{verb}"), "free", &body).await?;
            assert_conflict(&answer, status, None);
            assert_eq!(answer.header("idempotent-replayed"), "");
        }
    }
    assert_eq!(count(&world, "SELECT count(*) FROM operations WHERE idempotency_key = 'free'").await?, 0);
    let answer = api.post(&format!("{held}/capture"), "free", &json!({})).await?;
    assert_eq!(answer.status, 200, "the key was never used: {}", answer.json());
    let intents = world.simulator.intents_of(processing.rsplit('/').next().unwrap_or_default());
    world.simulator.complete(&intents.await?[0].0, "succeed").await?;
    world.finish().await
}

#[tokio::test]
async fn no_more_is_captured_than_was_authorised() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    let capture = format!("{path}/capture");
    let answer = api.post(&capture, "c1", &json!({ "amount": 2000 })).await?;
    assert_problem(&answer, 422, "capture_amount_too_large");
    assert_eq!(
        answer.errors().into_iter().collect::<Vec<_>>(),
        [("/amount".to_owned(), "out_of_range".to_owned())]
    );
    assert_problem(&api.post(&capture, "c1", &json!({ "amount": 0 })).await?, 422, "validation_failed");
    assert_problem(&api.post(&capture, "c1", &json!({ "amuont": 5 })).await?, 422, "validation_failed");
    let answer = api.post(&format!("{path}/cancel"), "c1", &json!({ "amount": 5 })).await?;
    assert_problem(&answer, 422, "validation_failed");

    let mut dinar = manual("dinar");
    dinar["currency"] = json!("KWD");
    dinar["amount"] = json!(5000);
    let dinar = api.create("dinar", &dinar).await?.header("location").to_owned();
    let answer = api.post(&format!("{dinar}/capture"), "c1", &json!({ "amount": 1005 })).await?;
    assert_problem(&answer, 422, "validation_failed");
    assert_eq!(answer.errors().get("/amount").map(String::as_str), Some("out_of_range"));
    assert_eq!(api.post(&format!("{dinar}/capture"), "c1", &json!({ "amount": 1010 })).await?.status, 200);
    assert_eq!(world.simulator.calls("POST /v1/payment_intents/{id}/capture").await?, 1);
    world.finish().await
}

#[tokio::test]
async fn one_capture_or_cancel_is_open_at_a_time_and_shown() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    world.simulator.fault(CAPTURE, "http_429", None, 0).await?;
    let accepted = api.money_post(&format!("{path}/capture"), "c1").header("Prefer", "respond-async");
    let accepted = api.send(accepted).await?;
    let body = accepted.json();
    assert_eq!((accepted.status, &body["status"]), (202, &json!("authorized")), "it keeps its status");
    assert_eq!(body["pending_operation"], "capture");
    assert_eq!((accepted.header("location"), accepted.header("retry-after")), (path.as_str(), "1"));
    assert_eq!(accepted.header("preference-applied"), "respond-async");

    for verb in ["capture", "cancel"] {
        let answer = api.post(&format!("{path}/{verb}"), "c2", &json!({})).await?;
        assert_conflict(&answer, "authorized", Some("capture"));
    }
    let open = api.get(&format!("{PAYMENTS}?open=true")).await?.json();
    assert_eq!(open["data"].as_array().map(Vec::len), Some(1));
    world.simulator.heal().await?;
    let settled = once(api, &path, |payment| payment["status"] == "captured").await?;
    assert_eq!(settled["pending_operation"], Value::Null);
    assert_eq!(api.get(&format!("{PAYMENTS}?open=true")).await?.json()["data"], json!([]));
    // the answer that nobody waited for, ever after
    let answer = api.send(api.money_post(&format!("{path}/capture"), "c1")).await?;
    assert_eq!((answer.status, answer.header("idempotent-replayed"), answer.json()), (200, "true", settled));
    world.finish().await
}

/// Does at the provider what nobody asked us for.
async fn at_the_provider(world: &World, path: &str, verb: &str) -> Result<()> {
    let id = path.rsplit('/').next().unwrap_or_default();
    let intent = world.simulator.intents_of(id).await?.swap_remove(0).0;
    let request = world.simulator.post(&format!("/v1/payment_intents/{intent}/{verb}"), "");
    anyhow::ensure!(request.send().await?.status().is_success(), "{verb}");
    Ok(())
}

#[tokio::test]
async fn when_the_provider_had_moved_on_the_payment_ends_where_the_provider_has_it() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    for (asked, done, status, last) in [
        ("capture", "cancel", "canceled", "payment.canceled"),
        ("cancel", "capture", "captured", "payment.captured"),
    ] {
        let path = held(api, asked).await?;
        // the watch looks now and then: what it would find is what we find
        at_the_provider(&world, &path, done).await?;
        let answer = api.post(&format!("{path}/{asked}"), &format!("{asked}-key"), &json!({})).await?;
        assert_conflict(&answer, status, None);
        let payment = api.get(&path).await?.json();
        assert_eq!((&payment["status"], &payment["pending_operation"]), (&json!(status), &Value::Null));
        assert_eq!(trail(api, &path).await?.last().map(String::as_str), Some(last));
    }
    world.finish().await
}

#[tokio::test]
async fn an_operation_that_lost_at_the_provider_keeps_its_answer() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    // on its way while somebody cancels at the provider
    world.simulator.fault(CAPTURE, "http_429", None, 0).await?;
    let accepted = api.money_post(&format!("{path}/capture"), "c1").header("Prefer", "respond-async");
    assert_eq!(api.send(accepted).await?.status, 202);
    at_the_provider(&world, &path, "cancel").await?;
    world.simulator.heal().await?;
    once(api, &path, |payment| payment["status"] == "canceled").await?;
    let first = api.post(&format!("{path}/capture"), "c1", &json!({})).await?;
    let second = api.post(&format!("{path}/capture"), "c1", &json!({})).await?;
    assert_eq!((first.status, first.json()["code"].as_str()), (409, Some("payment_state_conflict")));
    assert_eq!(
        (second.body == first.body, second.header("content-type")),
        (true, "application/problem+json")
    );
    assert_eq!(
        (&first.json()["payment_status"], &first.json()["pending_operation"]),
        (&json!("canceled"), &Value::Null)
    );
    let expected = ["payment.created", "payment.authorized", "payment.capture_requested", "payment.canceled"];
    assert_eq!(trail(api, &path).await?, expected);
    world.finish().await
}

#[tokio::test]
async fn a_lost_answer_never_makes_a_second_effect() -> Result<()> {
    let world = impatient().start().await?;
    let api = &world.api;
    for fault in FAULTS {
        for (verb, endpoint, effect) in [("capture", CAPTURE, "capture"), ("cancel", CANCEL, "cancel")] {
            let path = held(api, &format!("{fault}-{verb}")).await?;
            world.simulator.fault(endpoint, fault, Some(1), 60_000).await?;
            let answer =
                api.post(&format!("{path}/{verb}"), &format!("{fault}-{verb}-key"), &json!({})).await?;
            assert_eq!(answer.status, 200, "{fault} {verb}: {}", answer.json());
            assert_eq!(effects(&world, effect, &path).await?, [json!(1999)], "{fault} {verb}");
        }
        assert_eq!(world.simulator.injected(fault).await?, 2, "{fault}");
    }
    world.finish().await
}

#[tokio::test]
async fn three_500s_are_looked_behind_and_tried_again() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    let api = &world.api;
    let path = held_async(&world, "order-1").await?;
    world.simulator.fault(CAPTURE, "http_500_before", Some(4), 0).await?;
    assert_eq!(api.post(&format!("{path}/capture"), "c1", &json!({})).await?.status, 202);
    once(api, &path, |payment| payment["status"] == "captured").await?;
    assert_eq!(effects(&world, "capture", &path).await?, [json!(1999)]);
    assert!(world.simulator.calls("GET /v1/payment_intents/{id}").await? >= 1, "it was looked for");
    world.finish().await
}

/// A held payment of a service that never waits.
async fn held_async(world: &World, reference: &str) -> Result<String> {
    let path = world.api.create(reference, &manual(reference)).await?.header("location").to_owned();
    once(&world.api, &path, |payment| payment["status"] == "authorized").await?;
    Ok(path)
}

#[tokio::test]
async fn a_request_that_arrives_late_has_one_effect() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    let api = &world.api;
    for (verb, endpoint, status) in [("capture", CAPTURE, "captured"), ("cancel", CANCEL, "canceled")] {
        let path = held_async(&world, verb).await?;
        // nothing but the late one gets through, until it has
        let rule =
            |fault, times| json!({ "match": endpoint, "fault": fault, "times": times, "delay_ms": 500 });
        world.simulator.faults(&json!([rule("late", Some(1)), rule("http_429", None)])).await?;
        assert_eq!(
            api.post(&format!("{path}/{verb}"), &format!("{verb}-key"), &json!({})).await?.status,
            202
        );
        eventually(SOON, "the late one has arrived", async || {
            Ok(!effects(&world, verb, &path).await?.is_empty())
        })
        .await?;
        world.simulator.heal().await?;
        once(api, &path, |payment| payment["status"] == status).await?;
        assert_eq!(effects(&world, verb, &path).await?, [json!(1999)], "{verb}");
    }
    world.finish().await
}

#[tokio::test]
async fn once_the_provider_may_have_forgotten_the_key_it_is_looked_for_first() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    let api = &world.api;
    for (key, fault) in [("executed", "reset_after"), ("not-executed", "reset_before")] {
        let path = held_async(&world, &format!("order-{key}")).await?;
        world.simulator.settings(&json!({ "key_retention_ms": 0 })).await?;
        world.simulator.fault(CAPTURE, fault, None, 0).await?;
        assert_eq!(api.post(&format!("{path}/capture"), key, &json!({})).await?.status, 202);
        let lost =
            format!("SELECT count(*) FROM operations WHERE idempotency_key = '{key}' AND attempts >= 1");
        eventually(SOON, "an answer was lost", async || {
            Ok(sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(lost.clone())).fetch_one(&world.pool).await?
                == 1)
        })
        .await?;
        sqlx::query("UPDATE operations SET created_at = now() - interval '25 h' WHERE idempotency_key = $1")
            .bind(key)
            .execute(&world.pool)
            .await?;
        world.simulator.heal().await?;
        once(api, &path, |payment| payment["status"] == "captured").await?;
        assert_eq!(effects(&world, "capture", &path).await?, [json!(1999)], "{key}");
    }
    world.finish().await
}

/// Holds what it is asked to, and says no to everything after.
fn stubborn(request: &str, form: &Form) -> (u16, Value) {
    let no = |status, code: &str| {
        (status, json!({ "error": { "type": "invalid_request_error", "code": code, "message": "No." } }))
    };
    match request {
        "POST /v1/payment_intents" => {
            let manual = form.get("capture_method").is_some_and(|method| method == "manual");
            let (status, received) = if manual { ("requires_capture", 0) } else { ("succeeded", 1999) };
            let of = |name: &str| json!(form.get(&format!("metadata[{name}]")));
            let intent = json!({
                "id": "pi_1", "object": "payment_intent", "status": status, "amount": 1999, "currency": "eur",
                "amount_received": received, "capture_method": form.get("capture_method"),
                "metadata": {
                    "payment_id": of("payment_id"), "operation_id": of("operation_id"),
                    "merchant_id": of("merchant_id"),
                },
            });
            (200, intent)
        }
        "POST /v1/refunds" | "POST /v1/payment_intents/pi_1/capture" => no(402, "card_declined"),
        "POST /v1/payment_intents/pi_1/cancel" => no(400, "not_today"),
        _ => no(404, "resource_missing"),
    }
}

#[tokio::test]
async fn what_the_provider_declines_changes_nothing_and_is_told() -> Result<()> {
    let (url, serving) = scripted_provider(stubborn).await?;
    let world = WorldOptions::default().provider(&url).start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    for (verb, failure) in [("capture", "card_declined"), ("cancel", "provider_rejected")] {
        let answer = api.post(&format!("{path}/{verb}"), verb, &json!({})).await?;
        assert_problem(&answer, 402, "payment_declined");
        let body = answer.json();
        assert_eq!(
            (&body["payment"]["status"], &body["payment"]["pending_operation"]),
            (&json!("authorized"), &Value::Null)
        );
        assert_eq!((&body["payment"]["failure"], &body["failure"]["code"]), (&Value::Null, &json!(failure)));
        assert_eq!(api.get(&path).await?.json(), body["payment"]);
        let again = api.post(&format!("{path}/{verb}"), verb, &json!({})).await?;
        assert_eq!((again.body == answer.body, again.header("idempotent-replayed")), (true, "true"));
        // it may be asked for anew
        assert_eq!(api.post(&format!("{path}/{verb}"), &format!("{verb}-2"), &json!({})).await?.status, 402);
    }
    let twice = |one, other| [one, other, one, other];
    let capture = twice("payment.capture_requested", "payment.capture_failed");
    let cancel = twice("payment.cancel_requested", "payment.cancel_failed");
    assert_eq!(trail(api, &path).await?[2..], [capture, cancel].concat());
    let events = api.get(&format!("{path}/events")).await?.json();
    assert_eq!(events["data"][3]["data"]["failure"]["code"], "card_declined");

    let captured = captured(api, "order-2").await?;
    let answer = api.post(&format!("{captured}/refunds"), "refund", &json!({ "amount": 5 })).await?;
    assert_problem(&answer, 402, "refund_declined");
    let refund = answer.json()["refund"].clone();
    assert_eq!((&refund["status"], &refund["failure"]["code"]), (&json!("failed"), &json!("card_declined")));
    assert_eq!(api.get(&format!("/v1/refunds/{}", text(&refund["id"]))).await?.json(), refund);
    assert_eq!(api.get(&captured).await?.json()["amount_refunded"], 0);
    serving.abort();
    world.stop().await
}

#[tokio::test]
async fn the_audit_trail_names_who_asked_and_in_which_trace() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let (key_id, other) = crate::support::another_key(&world, &[]).await?;
    let created = api.create("k", &manual("order-1")).await?;
    let path = created.header("location").to_owned();
    // carried out by the worker, asked for by a key
    world.simulator.fault(CAPTURE, "http_429", Some(1), 0).await?;
    let asked = other.money_post(&format!("{path}/capture"), "c1").header("Prefer", "respond-async");
    let asked = other.send(asked).await?;
    once(api, &path, |payment| payment["status"] == "captured").await?;
    let answer = api.get(&format!("{path}/events")).await?;
    let body = answer.json();
    let events = body["data"].as_array().cloned().unwrap_or_default();
    assert_eq!((answer.status, events.len(), &body["next_cursor"]), (200, 4, &Value::Null));
    let names = ["id", "payment_id", "sequence", "type", "occurred_at", "trace_id", "actor", "data"];
    for event in &events {
        assert!(names.iter().all(|name| !event[name].is_null()), "{event}");
        assert_eq!(event.as_object().map(serde_json::Map::len), Some(names.len()));
        assert_eq!(event["payment_id"], id(&created));
    }
    for event in &events[..2] {
        assert_eq!(event["trace_id"], created.header("request-id"));
        assert_ne!(event["actor"], key_id.as_str());
    }
    for event in &events[2..] {
        assert_eq!(
            (&event["trace_id"], &event["actor"]),
            (&json!(asked.header("request-id")), &json!(key_id))
        );
    }
    // page by page, each once
    let mut seen = Vec::new();
    let mut next = format!("{path}/events?limit=3");
    loop {
        let page = api.get(&next).await?.json();
        seen.extend(page["data"].as_array().cloned().unwrap_or_default());
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("{path}/events?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(seen, events);
    assert_problem(&api.get(&format!("{path}/events?type=x")).await?, 422, "validation_failed");
    world.finish().await
}

#[tokio::test]
async fn a_right_that_the_provider_key_lacks_stops_what_is_new() -> Result<()> {
    let asked = Arc::new(AtomicUsize::new(0));
    let (url, serving) = scripted_provider({
        let asked = Arc::clone(&asked);
        move |request, form| match request {
            "POST /v1/payment_intents/pi_1/capture" => {
                asked.fetch_add(1, Ordering::Relaxed);
                (403, json!({ "error": { "type": "invalid_request_error", "message": "No such right." } }))
            }
            "GET /v1/payment_intents?limit=1" => (200, json!({ "data": [] })),
            other => stubborn(other, form),
        }
    })
    .await?;
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "1s").provider(&url).start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    assert_eq!(api.post(&format!("{path}/capture"), "c1", &json!({})).await?.status, 202);
    // although creates would be taken, and reads are
    for times in [1, 3] {
        eventually(SOON, "it was asked again", async || Ok(asked.load(Ordering::Relaxed) >= times)).await?;
        let refused = api.create("new", &payment("new")).await?;
        assert_problem(&refused, 503, "provider_misconfigured");
    }
    serving.abort();
    world.stop().await
}

#[tokio::test]
async fn what_is_refused_for_a_state_that_has_passed_does_not_stay_open() -> Result<()> {
    // captures nothing, as if it had been at something else, and then has the payment as it was
    let held_for = Arc::new(Mutex::new(Value::Null));
    let (url, serving) = scripted_provider({
        let held_for = Arc::clone(&held_for);
        move |request, form| match request {
            "POST /v1/payment_intents/pi_1/capture" => {
                let code = "payment_intent_unexpected_state";
                (
                    400,
                    json!({ "error": { "type": "invalid_request_error", "code": code, "message": "Busy." } }),
                )
            }
            "GET /v1/payment_intents/pi_1" => (200, held_for.lock().expect("a value").clone()),
            other => {
                let (status, body) = stubborn(other, form);
                *held_for.lock().expect("a value") = body.clone();
                (status, body)
            }
        }
    })
    .await?;
    let world = WorldOptions::default().provider(&url).start().await?;
    let path = held(&world.api, "order-1").await?;
    let answer = world.api.post(&format!("{path}/capture"), "c1", &json!({})).await?;
    assert_problem(&answer, 402, "payment_declined");
    assert_eq!(answer.json()["failure"]["code"], "provider_rejected");
    assert_eq!(world.api.get(&path).await?.json()["status"], "authorized");
    serving.abort();
    world.stop().await
}
