//! Whatever becomes of the provider, every request is answered in its time, reads notice nothing, and soon after the repair
//! payments are taken again; what was left open is carried out, once.

use crate::callers::{Asked, Callers, Expected, LASTING, impatient};
use anyhow::{Result, ensure};
use devstack::Fault;
use e2e::{World, WorldOptions};
use serde_json::json;
use std::time::{Duration, Instant};

/// A payment is taken, or it will be. Reads notice nothing.
const TAKEN_OR_ACCEPTED: Expected =
    Expected { good: is_good, fair: |asked| is_good(asked) || is_create(asked, 202) };
/// New payments are refused by their name, and nothing is begun.
const OR_MISCONFIGURED: Expected = Expected {
    good: is_good,
    fair: |asked| {
        let is_refused = is_create(asked, 503) && asked.answer.code() == "provider_misconfigured";
        is_good(asked) || is_create(asked, 202) || is_refused
    },
};

fn is_create(asked: &Asked, status: u16) -> bool {
    asked.what == "create" && asked.answer.status == status
}

fn is_good(asked: &Asked) -> bool {
    is_create(asked, 201) || asked.what == "list" && asked.answer.status == 200
}

fn options() -> WorldOptions {
    impatient().provider_proxy()
}

/// A row of the matrix.
async fn row(
    fault: &str,
    expected: Expected,
    begin: impl AsyncFnOnce(&World) -> Result<()>,
    end: impl AsyncFnOnce(&World) -> Result<()>,
) -> Result<()> {
    let world = options().start().await?;
    let callers = Callers::of(&world);
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(world.simulator.charges().await? > 0, "nobody has paid");
    begin(&world).await?;
    let broken = Instant::now();
    tokio::time::sleep(LASTING).await;
    end(&world).await?;
    let repaired = Instant::now();
    let asked = callers.rest(fault, expected, broken, repaired).await?;
    let meanwhile = asked.iter().filter(|one| (broken..repaired).contains(&one.at));
    assert!(meanwhile.filter(|one| !is_good(one)).count() > 0, "{fault}: nobody noticed");
    // one effect each, and nothing failed that holds money
    world.finish().await
}

/// A row that the network between here and the provider makes.
async fn network(name: &str, fault: Fault) -> Result<()> {
    row(
        name,
        TAKEN_OR_ACCEPTED,
        async |world| world.stack.provider_proxy()?.set(fault).await,
        async |world| world.stack.provider_proxy()?.set(Fault::Pass).await,
    )
    .await
}

/// A row that the provider makes by itself, at every request.
async fn provider(fault: &str) -> Result<()> {
    row(
        fault,
        TAKEN_OR_ACCEPTED,
        async |world| {
            world.simulator.faults(&json!([{ "match": "*", "fault": fault, "delay_ms": 60_000 }])).await
        },
        async |world| world.simulator.heal().await,
    )
    .await
}

#[tokio::test]
async fn nobody_listens() -> Result<()> {
    network("refused", Fault::Refuse).await
}

#[tokio::test]
async fn a_black_hole() -> Result<()> {
    network("black hole", Fault::BlackHole).await
}

#[tokio::test]
async fn thirty_seconds_slow() -> Result<()> {
    let latency = Duration::from_secs(30);
    network("30 s slow", Fault::Slow { latency, bytes_per_second: None }).await
}

#[tokio::test]
async fn one_byte_per_second() -> Result<()> {
    network("a byte per second", Fault::Slow { latency: Duration::ZERO, bytes_per_second: Some(1) }).await
}

#[tokio::test]
async fn half_an_answer() -> Result<()> {
    provider("half_body").await
}

#[tokio::test]
async fn garbage() -> Result<()> {
    provider("garbage").await
}

#[tokio::test]
async fn a_storm_of_500() -> Result<()> {
    provider("http_500_before").await
}

#[tokio::test]
async fn too_many_requests() -> Result<()> {
    provider("http_429").await
}

#[tokio::test]
async fn reset_before_charging() -> Result<()> {
    provider("reset_before").await
}

#[tokio::test]
async fn reset_after_charging() -> Result<()> {
    provider("reset_after").await
}

#[tokio::test]
async fn our_credentials_are_not_taken() -> Result<()> {
    row(
        "401",
        OR_MISCONFIGURED,
        async |world| world.simulator.settings(&json!({ "accept_key": "sk_test_another" })).await,
        async |world| world.simulator.settings(&json!({ "accept_key": null })).await,
    )
    .await
}
