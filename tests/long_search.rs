//! Searching a charge among so many others that it takes longer than a lease.

use crate::support::{SOON, seconds, text};
use anyhow::Result;
use e2e::{World, WorldOptions, eventually, payment};
use serde_json::json;
use tokio::task::JoinSet;

const LIST: &str = "GET /v1/payment_intents";
/// Each of them takes this long, which is less than an attempt may take ...
const PAGE_MS: u64 = 800;
/// ... and there are so many, which together take longer than the lease.
const PAGES: u64 = 10;

/// Other programs' intents, newer than what is searched.
async fn fill(world: &World) -> Result<()> {
    for _ in 1..PAGES {
        let mut page = JoinSet::new();
        for _ in 0..100 {
            page.spawn(world.simulator.post("/v1/payment_intents", "amount=100&currency=eur").send());
        }
        for answer in page.join_all().await {
            answer?.error_for_status()?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_search_that_takes_longer_than_a_lease_comes_to_its_end() -> Result<()> {
    let world = WorldOptions::default()
        .instances(2)
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "2s")
        .set("PAYWRIGHT_LEASE", "7100ms")
        .start()
        .await?;
    let create =
        json!({ "match": "POST /v1/payment_intents", "fault": "hang_after", "times": 1, "delay_ms": 60_000 });
    let list = json!({ "match": LIST, "fault": "http_500_before" });
    world.simulator.faults(&json!([create, list])).await?;
    let accepted = world.api.create_preferring("key", &payment("order-1"), Some("respond-async")).await?;
    assert_eq!(accepted.status, 202);
    eventually(SOON, "charged", async || Ok(world.simulator.charges().await? == 1)).await?;
    sqlx::query("UPDATE operations SET created_at = created_at - interval '25 h'")
        .execute(&world.pool)
        .await?;
    eventually(SOON, "searched", async || Ok(world.simulator.calls(LIST).await? > 0)).await?;

    fill(&world).await?;
    let before = world.simulator.calls(LIST).await?;
    world.simulator.fault(LIST, "delay", None, PAGE_MS).await?;
    let path = format!("/v1/payments/{}", text(&accepted.json()["id"]));
    eventually(seconds(40), "found", async || Ok(world.api.get(&path).await?.json()["status"] == "captured"))
        .await?;
    assert!(world.simulator.calls(LIST).await? - before >= PAGES, "it is on the last page");
    world.finish().await
}
