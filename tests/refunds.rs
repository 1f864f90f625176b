//! Giving money back.

use crate::support::{
    FAULTS, PAYMENTS, SOON, assert_problem, captured, count, held, id, impatient, once, text, trail,
};
use anyhow::Result;
use e2e::{RefundContest, World, WorldOptions, eventually, payment, refund_race};
use serde_json::{Value, json};

const REFUND: &str = "POST /v1/refunds";

/// A captured payment whose refunds behave as `token` says; its path.
async fn captured_with(world: &World, reference: &str, token: &str) -> Result<String> {
    let mut body = payment(reference);
    body["payment_method"] = json!(token);
    Ok(world.api.create(reference, &body).await?.header("location").to_owned())
}

/// The provider's refunds: amount and status each.
async fn at_the_provider(world: &World) -> Result<Vec<(i64, String)>> {
    let ledger = world.simulator.ledger().await?;
    let charges = ledger["charges"].as_array().cloned().unwrap_or_default();
    let refunds = charges.iter().flat_map(|charge| charge["refunds"].as_array().cloned().unwrap_or_default());
    Ok(refunds.map(|refund| (refund["amount"].as_i64().unwrap_or(0), text(&refund["status"]))).collect())
}

#[tokio::test]
async fn a_refund_gives_back_what_it_says_or_all_that_is_left() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = captured(api, "order-1").await?;
    let refunds = format!("{path}/refunds");
    let body = json!({ "amount": 500, "reason": "requested_by_customer", "metadata": { "ticket": "größe" } });
    let answer = api.post(&refunds, "r1", &body).await?;
    let refund = answer.json();
    assert_eq!(answer.status, 201, "{refund}");
    assert_eq!(answer.header("location"), format!("/v1/refunds/{}", text(&refund["id"])));
    assert_eq!(
        (&refund["amount"], &refund["currency"], &refund["status"]),
        (&json!(500), &json!("EUR"), &json!("succeeded"))
    );
    assert_eq!((&refund["reason"], &refund["metadata"]), (&body["reason"], &body["metadata"]));
    assert_eq!((&refund["failure"], &refund["payment_id"]), (&Value::Null, &json!(path.rsplit('/').next())));
    assert_eq!(refund.as_object().map(serde_json::Map::len), Some(10), "every field is there: {refund}");
    assert_eq!(api.get(answer.header("location")).await?.json(), refund);

    let rest = api.post(&refunds, "r2", &json!({})).await?.json();
    assert_eq!(
        (&rest["amount"], &rest["reason"], &rest["metadata"]),
        (&json!(1499), &Value::Null, &json!({}))
    );
    let payment = api.get(&path).await?.json();
    assert_eq!((&payment["status"], &payment["amount_refunded"]), (&json!("captured"), &json!(1999)));
    let nothing_left = api.post(&refunds, "r3", &json!({})).await?;
    assert_problem(&nothing_left, 422, "refund_amount_too_large");
    // a refunded payment keeps its reference
    assert_problem(&api.create("again", &self::payment("order-1")).await?, 409, "reference_already_used");

    let list = api.get(&refunds).await?.json();
    assert_eq!(list, json!({ "data": [rest, refund], "next_cursor": null }), "newest first");
    let page = api.get(&format!("{refunds}?limit=1")).await?.json();
    let next = api.get(&format!("{refunds}?limit=1&cursor={}", text(&page["next_cursor"]))).await?.json();
    assert_eq!((&page["data"], &next["data"]), (&json!([rest]), &json!([refund])));
    assert_problem(&api.get(&format!("{refunds}?status=failed")).await?, 422, "validation_failed");
    assert_eq!(
        at_the_provider(&world).await?,
        [(500, "succeeded".to_owned()), (1499, "succeeded".to_owned())]
    );
    let expected = [
        "payment.created",
        "payment.captured",
        "refund.created",
        "refund.succeeded",
        "refund.created",
        "refund.succeeded",
    ];
    assert_eq!(trail(api, &path).await?, expected);
    world.finish().await
}

#[tokio::test]
async fn no_more_goes_back_than_came_in() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    assert_eq!(api.post(&format!("{path}/capture"), "c", &json!({ "amount": 1000 })).await?.status, 200);
    let refunds = format!("{path}/refunds");
    let answer = api.post(&refunds, "r", &json!({ "amount": 1001 })).await?;
    assert_problem(&answer, 422, "refund_amount_too_large");
    assert_eq!(answer.errors().get("/amount").map(String::as_str), Some("out_of_range"));
    for body in
        [json!({ "amount": 0 }), json!({ "amount": "1" }), json!({ "reason": "regret" }), json!({ "x": 1 })]
    {
        assert_problem(&api.post(&refunds, "r", &body).await?, 422, "validation_failed");
    }
    assert_eq!(api.post(&refunds, "r", &json!({ "amount": 1000 })).await?.status, 201, "the key was free");
    assert_eq!(world.simulator.calls("POST /v1/refunds").await?, 1);
    world.finish().await
}

#[tokio::test]
async fn an_open_refund_counts_as_refunded_until_it_failed() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = captured_with(&world, "order-1", "pm_card_pendingRefund").await?;
    let refunds = format!("{path}/refunds");
    let begun = api.money_post(&refunds, "r1").header("Prefer", "wait=0").json(&json!({ "amount": 1500 }));
    let begun = api.send(begun).await?;
    let (refund, at) = (begun.json(), begun.header("location").to_owned());
    assert_eq!(
        (begun.status, &refund["status"], begun.header("retry-after")),
        (202, &json!("processing"), "1")
    );
    assert_eq!(api.get(&path).await?.json()["amount_refunded"], 1500);
    assert_eq!(
        api.get(&format!("{PAYMENTS}?open=true")).await?.json()["data"][0]["id"],
        refund["payment_id"]
    );
    assert_problem(
        &api.post(&refunds, "r2", &json!({ "amount": 500 })).await?,
        422,
        "refund_amount_too_large",
    );
    // the same key shows it as it stands
    let again = api.post(&refunds, "r1", &json!({ "amount": 1500 })).await?;
    assert_eq!(
        (again.status, again.json(), again.header("idempotent-replayed")),
        (202, refund.clone(), "true")
    );
    assert_eq!(again.header("location"), at);

    // the provider knows of it, and the bank sends it back
    let mut object = String::new();
    eventually(SOON, "the provider has it", async || {
        object = world.simulator.refund_of(&text(&refund["id"])).await.unwrap_or_default();
        Ok(!object.is_empty())
    })
    .await?;
    world.simulator.complete_refund(&object, "fail").await?;
    let failed = once(api, &at, |refund| refund["status"] != "processing").await?;
    assert_eq!(
        (&failed["status"], &failed["failure"]["code"]),
        (&json!("failed"), &json!("expired_or_canceled_card"))
    );
    assert_eq!(api.get(&path).await?.json()["amount_refunded"], 0);
    let answer = api.post(&refunds, "r1", &json!({ "amount": 1500 })).await?;
    assert_problem_of_refund(&answer, &failed);
    // and is left to be refunded again
    let second = api.money_post(&refunds, "r3").header("Prefer", "respond-async");
    let second = api.send(second).await?.header("location").to_owned();
    let mut object = String::new();
    eventually(SOON, "the provider has it", async || {
        let id = second.rsplit('/').next().unwrap_or_default();
        object = world.simulator.refund_of(id).await.unwrap_or_default();
        Ok(!object.is_empty())
    })
    .await?;
    world.simulator.complete_refund(&object, "succeed").await?;
    let refund = once(api, &second, |refund| refund["status"] != "processing").await?;
    assert_eq!((&refund["status"], &refund["amount"]), (&json!("succeeded"), &json!(1999)));
    assert_eq!(world.simulator.calls(REFUND).await?, 2, "what the provider works on is only read");
    world.finish().await
}

#[track_caller]
fn assert_problem_of_refund(answer: &e2e::Answer, refund: &Value) {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (402, &json!("refund_declined")));
    assert_eq!((answer.header("idempotent-replayed"), &body["refund"]), ("true", refund));
}

#[tokio::test]
async fn a_refund_that_the_bank_takes_back_after_it_succeeded_is_noticed() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = captured_with(&world, "order-1", "pm_card_refundFail").await?;
    let answer = api.post(&format!("{path}/refunds"), "r1", &json!({ "amount": 700 })).await?;
    assert_eq!((answer.status, &answer.json()["status"]), (201, &json!("succeeded")));
    let failed = once(api, answer.header("location"), |refund| refund["status"] == "failed").await?;
    assert_eq!(failed["failure"]["code"], "expired_or_canceled_card");
    assert_eq!(api.get(&path).await?.json()["amount_refunded"], 0);
    // what was answered stays what was answered
    let again = api.post(&format!("{path}/refunds"), "r1", &json!({ "amount": 700 })).await?;
    assert_eq!((again.status, again.body == answer.body), (201, true));
    let expected =
        ["payment.created", "payment.captured", "refund.created", "refund.succeeded", "refund.failed"];
    assert_eq!(trail(api, &path).await?, expected);
    let events = api.get(&format!("{path}/events")).await?.json();
    assert_eq!(events["data"][4]["actor"], "worker", "nobody asked");
    world.finish().await
}

#[tokio::test]
async fn a_refund_canceled_at_the_provider_has_failed() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = captured(api, "order-1").await?;
    let answer = api.post(&format!("{path}/refunds"), "r1", &json!({})).await?;
    assert_eq!(answer.status, 201);
    world.simulator.complete_refund(&world.simulator.refund_of(&id(&answer)).await?, "cancel").await?;
    let failed = once(api, answer.header("location"), |refund| refund["status"] == "failed").await?;
    assert_eq!(failed["failure"]["code"], "refund_canceled");
    world.finish().await
}

#[tokio::test]
async fn a_lost_answer_never_gives_the_money_back_twice() -> Result<()> {
    let world = impatient().start().await?;
    let api = &world.api;
    let path = captured(api, "order-1").await?;
    for (at, fault) in FAULTS.iter().enumerate() {
        world.simulator.fault(REFUND, fault, Some(1), 60_000).await?;
        let answer = api.post(&format!("{path}/refunds"), fault, &json!({ "amount": 10 })).await?;
        assert_eq!((answer.status, &answer.json()["status"]), (201, &json!("succeeded")), "{fault}");
        assert_eq!(world.simulator.injected(fault).await?, 1, "{fault}");
        assert_eq!(at_the_provider(&world).await?.len(), at + 1, "{fault}");
    }
    world.finish().await
}

#[tokio::test]
async fn a_refund_that_arrives_late_has_one_effect() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    let api = &world.api;
    let path = api.create("order-1", &payment("order-1")).await?.header("location").to_owned();
    once(api, &path, |payment| payment["status"] == "captured").await?;
    let rule = |fault, times| json!({ "match": REFUND, "fault": fault, "times": times, "delay_ms": 500 });
    world.simulator.faults(&json!([rule("late", Some(1)), rule("http_429", None)])).await?;
    let answer = api.post(&format!("{path}/refunds"), "r1", &json!({ "amount": 10 })).await?;
    assert_eq!(answer.status, 202);
    eventually(SOON, "it has arrived", async || Ok(at_the_provider(&world).await?.len() == 1)).await?;
    world.simulator.heal().await?;
    once(api, answer.header("location"), |refund| refund["status"] == "succeeded").await?;
    assert_eq!(at_the_provider(&world).await?.len(), 1);
    world.finish().await
}

#[tokio::test]
async fn once_the_provider_may_have_forgotten_the_key_the_refund_is_looked_for_first() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    let api = &world.api;
    let path = api.create("order-1", &payment("order-1")).await?.header("location").to_owned();
    once(api, &path, |payment| payment["status"] == "captured").await?;
    world.simulator.settings(&json!({ "key_retention_ms": 0 })).await?;
    for (made, (key, fault)) in (1..).zip([("executed", "reset_after"), ("not-executed", "reset_before")]) {
        // the first gets through, or not; then nothing does until its key is old
        let rule = |fault, times| json!({ "match": REFUND, "fault": fault, "times": times });
        world.simulator.faults(&json!([rule(fault, Some(1)), rule("http_429", None)])).await?;
        let answer = api.post(&format!("{path}/refunds"), key, &json!({ "amount": 10 })).await?;
        let lost =
            "SELECT count(*) FROM operations WHERE settled_at IS NULL AND kind = 'refund' AND attempts >= 1";
        eventually(SOON, "an answer was lost", async || Ok(count(&world, lost).await? == 1)).await?;
        sqlx::query("UPDATE operations SET created_at = now() - interval '25 h' WHERE idempotency_key = $1")
            .bind(key)
            .execute(&world.pool)
            .await?;
        world.simulator.heal().await?;
        once(api, answer.header("location"), |refund| refund["status"] == "succeeded").await?;
        assert_eq!(at_the_provider(&world).await?.len(), made, "{key}");
    }
    world.finish().await
}

#[tokio::test]
async fn nothing_but_what_the_provider_needs_travels_to_it() -> Result<()> {
    let world = World::start().await?;
    let path = captured(&world.api, "order-1").await?;
    let body = json!({ "metadata": { "secret": "geheim" } });
    assert_eq!(world.api.post(&format!("{path}/refunds"), "r1", &body).await?.status, 201);
    let ledger = world.simulator.ledger().await?.to_string();
    assert!(!ledger.contains("geheim"));
    world.finish().await
}

async fn race(contest: RefundContest) -> Result<()> {
    let world = WorldOptions::default().instances(2).start().await?;
    refund_race(&world, contest, 40).await?.verdict()?;
    world.finish().await
}

#[tokio::test]
async fn simultaneous_refunds_never_take_more_than_there_is() -> Result<()> {
    race(RefundContest::Equal).await
}

#[tokio::test]
async fn simultaneous_refunds_of_different_sizes_never_take_more_than_there_is() -> Result<()> {
    race(RefundContest::Mixed).await
}

#[tokio::test]
async fn a_refund_is_watched_for_a_month() -> Result<()> {
    let world = World::start().await?;
    let path = captured(&world.api, "order-1").await?;
    assert_eq!(world.api.post(&format!("{path}/refunds"), "r1", &json!({})).await?.status, 201);
    let watching = "SELECT count(*) FROM operations WHERE kind = 'watch_refund' AND settled_at IS NULL";
    assert_eq!(count(&world, watching).await?, 1);
    let older = "UPDATE operations SET created_at = now() - interval '31 days', lease_until = now()
                 WHERE kind = 'watch_refund'";
    sqlx::query(older).execute(&world.pool).await?;
    eventually(SOON, "nobody looks any longer", async || Ok(count(&world, watching).await? == 0)).await?;
    world.finish().await
}
