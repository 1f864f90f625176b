//! The service that most tutorials end with, and the tests that it passes. What they do not ask is what the last three
//! ask: the same as `make drill STORY=1`, `STORY=2` and `STORY=4`, for fewer customers and names, and for less time.

use crate::support::{id, seconds};
use anyhow::Result;
use e2e::{
    ItWorks, Pressure, Trouble, World, WorldOptions, double_charges, mangled_names, payment, pressure,
};
use serde_json::json;

async fn stop(it_works: ItWorks, world: World) -> Result<()> {
    it_works.stop().await?;
    world.stop().await
}

#[tokio::test]
async fn a_payment_is_taken() -> Result<()> {
    let world = World::start().await?;
    let it_works = ItWorks::beside(&world).await?;
    let created = it_works.api.create("key-1", &payment("order-1")).await?;
    assert_eq!(created.status, 201, "{}", created.json());
    for (name, value) in payment("order-1").as_object().unwrap() {
        assert_eq!(created.json()[name], *value, "{name}");
    }
    assert_eq!(created.json()["status"], "captured");
    let read = it_works.api.get(created.header("location")).await?;
    assert_eq!((read.status, read.json()), (200, created.json()));
    let ledger = world.simulator.ledger().await?;
    assert_eq!(ledger["charges"][0]["payment_id"], id(&created));
    assert_eq!(ledger["charges"][0]["amount_captured"], 1999);
    stop(it_works, world).await
}

#[tokio::test]
async fn the_same_key_again_gets_the_same_payment() -> Result<()> {
    let world = World::start().await?;
    let mut it_works = ItWorks::beside(&world).await?;
    let first = it_works.api.create("key-1", &payment("order-1")).await?;
    let second = it_works.api.create("key-1", &payment("order-1")).await?;
    assert_eq!((second.status, &second.body), (201, &first.body));
    // what it has written down it knows after a crash, too
    it_works.restart().await?;
    let third = it_works.api.create("key-1", &payment("order-1")).await?;
    assert_eq!((third.status, &third.body), (201, &first.body));
    assert_eq!(world.simulator.charges().await?, 1);
    let other = it_works.api.create("key-2", &payment("order-2")).await?;
    assert_eq!(other.status, 201);
    assert_ne!(id(&other), id(&first));
    assert_eq!(world.simulator.charges().await?, 2);
    stop(it_works, world).await
}

#[tokio::test]
async fn a_declined_card_is_declined() -> Result<()> {
    let world = World::start().await?;
    let it_works = ItWorks::beside(&world).await?;
    let mut body = payment("order-1");
    body["payment_method"] = json!("pm_card_visa_chargeDeclined");
    let declined = it_works.api.create("key-1", &body).await?;
    assert_eq!(declined.status, 402, "{}", declined.json());
    assert_eq!(declined.json()["status"], "failed");
    let again = it_works.api.create("key-1", &body).await?;
    assert_eq!((again.status, &again.body), (402, &declined.body));
    assert_eq!(it_works.api.get(declined.header("location")).await?.json(), declined.json());
    assert_eq!(world.simulator.charges().await?, 0);
    stop(it_works, world).await
}

#[tokio::test]
async fn what_is_no_payment_is_refused() -> Result<()> {
    let world = World::start().await?;
    let it_works = ItWorks::beside(&world).await?;
    let unknown = it_works.api.get("/v1/payments/00000000-0000-0000-0000-000000000000").await?;
    assert_eq!(unknown.status, 404);
    let without_key = it_works.api.request(reqwest::Method::POST, "/v1/payments").json(&payment("order-1"));
    assert_eq!(it_works.api.send(without_key).await?.status, 400);
    let mut nothing = payment("order-1");
    nothing["amount"] = json!(0);
    assert_eq!(it_works.api.create("key-1", &nothing).await?.status, 400);
    assert_eq!(it_works.api.create("key-1", &json!({ "amount": 1 })).await?.status, 422);
    assert_eq!(world.simulator.calls("POST /v1/payment_intents").await?, 0);
    stop(it_works, world).await
}

#[tokio::test]
async fn a_name_is_kept() -> Result<()> {
    let world = World::start().await?;
    let it_works = ItWorks::beside(&world).await?;
    for (at, name) in ["Zoë", "Maria Anna Mozart, Salzburg", "👍"].into_iter().enumerate() {
        let mut body = payment(&format!("order-{at}"));
        body["customer_name"] = json!(name);
        let created = it_works.api.create(&format!("key-{at}"), &body).await?;
        assert_eq!((created.status, &created.json()["customer_name"]), (201, &json!(name)));
    }
    let mut body = payment("order-x");
    body["customer_name"] = json!("x".repeat(41));
    assert_eq!(it_works.api.create("key-x", &body).await?.status, 400);
    stop(it_works, world).await
}

#[tokio::test]
async fn mishaps_tell_it_from_this_service() -> Result<()> {
    let world =
        WorldOptions::default().set("PAYWRIGHT_PROVIDER_TIMEOUT", "3s").set("PAYWRIGHT_LEASE", "8500ms");
    let (there, mut here) = tokio::try_join!(world.clone().start(), world.start())?;
    let mut it_works = ItWorks::beside(&there).await?;
    double_charges(&mut it_works, &mut here, 3).await?.verdict()?;
    here.finish().await?;
    stop(it_works, there).await
}

#[tokio::test]
async fn names_tell_it_from_this_service() -> Result<()> {
    let (there, here) = tokio::try_join!(World::start(), World::start())?;
    let it_works = ItWorks::beside(&there).await?;
    mangled_names(&it_works, &here, 50).await?.verdict()?;
    here.finish().await?;
    stop(it_works, there).await
}

#[tokio::test]
async fn a_dark_provider_tells_it_from_this_service() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "2s");
    let (there, here) = tokio::try_join!(world.clone().start(), world.start())?;
    let it_works = ItWorks::beside(&there).await?;
    let trouble = Trouble::DarkProvider;
    let dark = Pressure { trouble, lasting: seconds(6), creates: 20.0, reads: 10.0, patience: seconds(6) };
    let report = pressure(dark, &it_works, &here).await?;
    println!("{report}");
    report.verdict()?;
    here.finish().await?;
    stop(it_works, there).await
}
