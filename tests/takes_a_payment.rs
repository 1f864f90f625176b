//! The first thing that has to work.

use anyhow::Result;
use e2e::{World, payment};

#[tokio::test]
async fn a_payment_is_taken_and_taken_once() -> Result<()> {
    let world = World::start().await?;
    let first = world.api.create("key-1", &payment("order-1")).await?;
    assert_eq!(first.status, 201, "{:?}", first.json());
    assert_eq!(first.json()["status"], "captured");
    assert_eq!(first.header("location"), format!("/v1/payments/{}", first.json()["id"].as_str().unwrap()));

    let again = world.api.create("key-1", &payment("order-1")).await?;
    assert_eq!((again.status, &again.body), (201, &first.body), "byte for byte");
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(world.simulator.charges().await?, 1);

    let read = world.api.get(first.header("location")).await?;
    assert_eq!((read.status, read.json()), (200, first.json()));
    world.finish().await
}
