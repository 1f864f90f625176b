//! Services that are killed under load while the provider loses answers. `make storm` runs the same for longer.

use crate::support::{SOON, assert_problem, captured, held};
use anyhow::Result;
use e2e::{Profile, Storm, WorldOptions, eventually};
use serde_json::json;

#[tokio::test]
async fn what_the_killed_left_is_finished_by_the_living() -> Result<()> {
    let storm = Storm {
        services_killed: 5,
        postgres_killed: 0,
        provider_killed: 1,
        rate: 15.0,
        open: 5,
        services: 2,
        ..Storm::default()
    };
    let mut world = storm.world(Profile::Debug).start().await?;
    storm.blow(&mut world).await?.figures().verdict()?;
    world.finish().await
}

/// A service is killed after the provider executed and before it could answer; another finishes what it had begun.
async fn is_finished_by_another(verb: &str, endpoint: &str, counted: &str, status: u16) -> Result<()> {
    let mut world = WorldOptions::default()
        .instances(2)
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "2s")
        .set("PAYWRIGHT_LEASE", "7500ms")
        .start()
        .await?;
    let payment = match verb {
        "refunds" => captured(&world.api, "order-1").await?,
        _ => held(&world.api, "order-1").await?,
    };
    let path = format!("{payment}/{verb}");
    world.simulator.fault(endpoint, "hang_after", Some(1), 60_000).await?;
    let first = tokio::spawn({
        let (api, path) = (world.api.clone(), path.clone());
        async move { api.post(&path, "key", &json!({})).await }
    });
    eventually(SOON, "the provider was asked", async || Ok(world.simulator.calls(counted).await? > 0))
        .await?;
    world.stack.service(0)?.kill().await?;
    assert!(first.await?.is_err(), "the caller gets no answer");
    let survivor = world.api_of(1)?;
    assert_problem(&survivor.post(&path, "key", &json!({})).await?, 409, "request_in_progress");
    let mut answer = None;
    eventually(SOON, "it has ended", async || {
        let asked = survivor.post(&path, "key", &json!({})).await?;
        Ok(answer.insert(asked).status == status)
    })
    .await?;
    let first_answer = answer.map(|answer| answer.body);
    assert_eq!(Some(survivor.post(&path, "key", &json!({})).await?.body), first_answer);
    // one effect and a whole trail, by the audit
    world.finish().await
}

#[tokio::test]
async fn a_capture_of_the_killed_is_finished_by_another() -> Result<()> {
    let counted = "POST /v1/payment_intents/{id}/capture";
    is_finished_by_another("capture", "POST /v1/payment_intents/*/capture", counted, 200).await
}

#[tokio::test]
async fn a_cancel_of_the_killed_is_finished_by_another() -> Result<()> {
    let counted = "POST /v1/payment_intents/{id}/cancel";
    is_finished_by_another("cancel", "POST /v1/payment_intents/*/cancel", counted, 200).await
}

#[tokio::test]
async fn a_refund_of_the_killed_is_finished_by_another() -> Result<()> {
    is_finished_by_another("refunds", "POST /v1/refunds", "POST /v1/refunds", 201).await
}
