//! A caller that hangs up changes nothing.

use crate::support::{PAYMENTS, SOON, Wire, count, post, provider_was_asked, seconds};
use anyhow::Result;
use e2e::{World, WorldOptions, eventually, payment};

const CALLERS: u64 = 50;
const CREATE: &str = "POST /v1/payment_intents";

/// So many callers that have sent a create each and wait for the answer.
async fn callers(world: &World, name: &str) -> Result<Vec<Wire>> {
    let mut callers = Vec::new();
    for at in 0..CALLERS {
        let mut wire = Wire::to(&world.api.url).await?;
        let key = format!("{name}-{at}");
        wire.send(post(&world.api, &key, &payment(&key).to_string()).as_bytes()).await?;
        callers.push(wire);
    }
    Ok(callers)
}

/// Every operation was carried out by the process that began it, in its first attempt.
async fn all_in_one_go(world: &World) -> Result<()> {
    // far less than the lease, after which anybody else would take it up
    world.at_rest(seconds(10)).await?;
    let operations = count(world, "SELECT count(*) FROM operations").await?;
    assert_eq!(count(world, "SELECT count(*) FROM operations WHERE attempts > 0").await?, 0);
    let captured = "SELECT count(*) FROM payments WHERE status = 'captured'";
    assert_eq!(count(world, captured).await?, operations);
    let in_time = "SELECT count(*) FROM operations WHERE settled_at < created_at + interval '30 s'";
    assert_eq!(count(world, in_time).await?, operations, "long before the lease of its process ended");
    assert_eq!(i64::try_from(world.simulator.calls(CREATE).await?)?, operations);
    assert_eq!(i64::try_from(world.simulator.charges().await?)?, operations);
    Ok(())
}

#[tokio::test]
async fn what_was_begun_is_finished_by_the_process_that_began_it() -> Result<()> {
    const CONNECTIONS: usize = 4;
    let world = WorldOptions::default()
        .set("PAYWRIGHT_DATABASE_CONNECTIONS", "4")
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "20s")
        .set("PAYWRIGHT_LEASE", "60s")
        .start()
        .await?;
    world.simulator.create_fault("delay", None, 4000).await?;
    // they hang up while the provider is asked
    let waiting = callers(&world, "charging").await?;
    provider_was_asked(&world, CALLERS).await?;
    assert_eq!(world.open_operations().await?, i64::try_from(CALLERS)?, "all of them are under way");
    drop(waiting);
    all_in_one_go(&world).await?;
    assert_eq!(count(&world, "SELECT count(*) FROM operations").await?, i64::try_from(CALLERS)?);

    // they hang up as soon as they have written: wherever their requests are by then
    world.simulator.heal().await?;
    drop(callers(&world, "sending").await?);
    // and somebody who stays gets an answer, which no key of theirs is in the way of
    for at in 0..CALLERS {
        let key = format!("sending-{at}");
        let mut answer = world.api.create(&key, &payment(&key)).await?;
        eventually(SOON, "an answer to the same key", async || {
            if answer.status != 201 {
                answer = world.api.create(&key, &payment(&key)).await?;
            }
            Ok(answer.status == 201)
        })
        .await?;
    }
    all_in_one_go(&world).await?;
    assert_eq!(count(&world, "SELECT count(*) FROM operations").await?, i64::try_from(2 * CALLERS)?);

    // no connection to the database is lost: as many requests as there are connections can be held up in it
    let mut lock = world.pool.begin().await?;
    sqlx::query("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
    let held = (0..CONNECTIONS).map(|_| {
        let api = world.api.clone();
        tokio::spawn(async move { api.get(PAYMENTS).await })
    });
    let held: Vec<_> = held.collect();
    eventually(seconds(3), "every connection is in use", async || {
        let statement = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'payments' AND wait_event_type = 'Lock'";
        Ok(count(&world, statement).await? == i64::try_from(CONNECTIONS)?)
    })
    .await?;
    lock.rollback().await?;
    for held in held {
        assert_eq!(held.await??.status, 200);
    }
    world.finish().await
}
