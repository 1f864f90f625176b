//! Payments that wait for the customer, and what the provider ends by itself.

use crate::support::{PAYMENTS, SOON, assert_problem, count, held, id, impatient, manual, once, trail};
use anyhow::Result;
use e2e::{World, WorldOptions, eventually, payment};
use serde_json::{Value, json};

const SECURE: &str = "pm_card_authenticationRequired";

fn waiting(mut body: Value) -> Value {
    body["payment_method"] = json!(SECURE);
    body["return_url"] = json!("https://shop.example/back");
    body
}

async fn intent_of(world: &World, path: &str) -> Result<(String, String)> {
    let id = path.rsplit('/').next().unwrap_or_default();
    Ok(world.simulator.intents_of(id).await?.swap_remove(0))
}

#[tokio::test]
async fn a_payment_that_needs_the_customer_says_where_to_go_and_ends_as_the_customer_does() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    for (reference, body, outcome, status, last) in [
        ("paid", payment("paid"), "succeed", "captured", "payment.captured"),
        ("held", manual("held"), "succeed", "authorized", "payment.authorized"),
        ("refused", payment("refused"), "fail", "failed", "payment.failed"),
    ] {
        let created = api.create(reference, &waiting(body.clone())).await?;
        let shown = created.json();
        assert_eq!((created.status, &shown["status"]), (201, &json!("requires_action")));
        assert_eq!(shown["next_action"]["type"], "redirect");
        assert!(shown["next_action"]["redirect_url"].as_str().is_some_and(|url| url.starts_with("http")));
        let path = created.header("location");
        // nothing of it is open: it is the customer's turn
        assert_eq!(api.get(&format!("{PAYMENTS}?open=true")).await?.json()["data"], json!([]));
        assert_problem(
            &api.post(&format!("{path}/capture"), "c", &json!({})).await?,
            409,
            "payment_state_conflict",
        );

        world.simulator.complete(&intent_of(&world, path).await?.0, outcome).await?;
        let ended = once(api, path, |payment| payment["status"] != "requires_action").await?;
        assert_eq!((&ended["status"], &ended["next_action"]), (&json!(status), &Value::Null));
        assert_eq!(ended["failure"].is_null(), status != "failed");
        assert_eq!(trail(api, path).await?, ["payment.created", "payment.requires_action", last]);
        let events = api.get(&format!("{path}/events")).await?.json();
        assert_eq!(events["data"][2]["actor"], events["data"][0]["actor"], "who asked for the payment");
        // the create is answered as it was
        let again = api.create(reference, &waiting(body)).await?;
        assert_eq!(again.body, created.body);
    }
    world.finish().await
}

#[tokio::test]
async fn nobody_waits_for_the_customer_longer_than_the_window() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_ACTION_WINDOW", "1s").start().await?;
    let api = &world.api;
    let created = api.create("order-1", &waiting(payment("order-1"))).await?;
    let path = created.header("location");
    assert_eq!(created.json()["status"], "requires_action");
    let ended = once(api, path, |payment| payment["status"] != "requires_action").await?;
    assert_eq!((&ended["status"], &ended["failure"]), (&json!("canceled"), &Value::Null));
    assert_eq!(intent_of(&world, path).await?.1, "canceled", "at the provider as well");
    assert_eq!(trail(api, path).await?, ["payment.created", "payment.requires_action", "payment.canceled"]);
    let events = api.get(&format!("{path}/events")).await?.json();
    assert_eq!(events["data"][2]["actor"], "worker", "nobody asked");
    assert_eq!(api.create("again", &payment("order-1")).await?.status, 201, "its reference is free");
    world.finish().await
}

#[tokio::test]
async fn the_end_of_the_window_survives_a_provider_that_loses_answers() -> Result<()> {
    let world = impatient().set("PAYWRIGHT_ACTION_WINDOW", "1s").start().await?;
    let api = &world.api;
    let created = api.create("order-1", &waiting(payment("order-1"))).await?;
    world.simulator.fault("POST /v1/payment_intents/*/cancel", "reset_after", Some(1), 0).await?;
    let ended =
        once(api, created.header("location"), |payment| payment["status"] != "requires_action").await?;
    assert_eq!(ended["status"], "canceled");
    assert_eq!(world.simulator.injected("reset_after").await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_merchant_may_cancel_while_the_customer_is_away() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = api.create("order-1", &waiting(payment("order-1"))).await?.header("location").to_owned();
    let answer = api.post(&format!("{path}/cancel"), "c1", &json!({})).await?;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("canceled")));
    assert_eq!(answer.json()["next_action"], Value::Null);
    let expected =
        ["payment.created", "payment.requires_action", "payment.cancel_requested", "payment.canceled"];
    assert_eq!(trail(api, &path).await?, expected);

    // the customer was faster: the provider decides
    let path = api.create("order-2", &waiting(payment("order-2"))).await?.header("location").to_owned();
    world.simulator.fault("POST /v1/payment_intents/*/cancel", "http_429", None, 0).await?;
    let asked = api.money_post(&format!("{path}/cancel"), "c2").header("Prefer", "respond-async");
    let asked = api.send(asked).await?;
    assert_eq!((asked.status, &asked.json()["pending_operation"]), (202, &json!("cancel")));
    world.simulator.complete(&intent_of(&world, &path).await?.0, "succeed").await?;
    world.simulator.heal().await?;
    once(api, &path, |payment| payment["status"] == "captured").await?;
    let answer = api.post(&format!("{path}/cancel"), "c2", &json!({})).await?;
    assert_eq!((answer.status, &answer.json()["payment_status"]), (409, &json!("captured")));
    world.finish().await
}

#[tokio::test]
async fn a_hold_that_expires_at_the_provider_is_noticed() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let path = held(api, "order-1").await?;
    let intent = intent_of(&world, &path).await?.0;
    let expires = world.simulator.post(&format!("/v1/payment_intents/{intent}/cancel"), "");
    assert!(expires.send().await?.status().is_success());
    let ended = once(api, &path, |payment| payment["status"] != "authorized").await?;
    assert_eq!(ended["status"], "canceled");
    assert_eq!(trail(api, &path).await?, ["payment.created", "payment.authorized", "payment.canceled"]);
    let events = api.get(&format!("{path}/events")).await?.json();
    assert_eq!(events["data"][2]["actor"], "worker");
    world.finish().await
}

#[tokio::test]
async fn a_watch_ends_with_what_it_watches() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let created = api.create("order-1", &manual("order-1")).await?;
    let watching = "SELECT count(*) FROM operations WHERE kind = 'watch_payment' AND settled_at IS NULL";
    assert_eq!(count(&world, watching).await?, 1);
    let capture = format!("{PAYMENTS}/{}/capture", id(&created));
    assert_eq!(api.post(&capture, "c", &json!({})).await?.status, 200);
    eventually(SOON, "the watch is over", async || Ok(count(&world, watching).await? == 0)).await?;
    world.finish().await
}
