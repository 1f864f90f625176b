//! Every request is answered in its time, whatever fails behind it; and what it has begun goes on.

use crate::support::{PAYMENTS, SOON, Wire, assert_problem, count, post, provider_was_asked, seconds};
use anyhow::Result;
use e2e::{World, WorldOptions, eventually, payment};
use sqlx::{Postgres, Transaction};
use std::time::Instant;

/// Nobody else reads or writes the table until the end of the transaction.
async fn held_up(world: &World, statement: &'static str) -> Result<Transaction<'static, Postgres>> {
    let mut lock = world.pool.begin().await?;
    sqlx::query(statement).execute(&mut *lock).await?;
    Ok(lock)
}

const PAYMENTS_HELD: &str = "LOCK TABLE payments IN ACCESS EXCLUSIVE MODE";
const OPERATIONS_HELD: &str = "LOCK TABLE operations IN ACCESS EXCLUSIVE MODE";

#[tokio::test]
async fn a_database_that_holds_a_request_up_makes_it_no_longer() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_REQUEST_TIMEOUT", "1s").start().await?;
    let lock = held_up(&world, PAYMENTS_HELD).await?;
    let began = Instant::now();
    let body = payment("order-1");
    let (read, created) = tokio::join!(world.api.get(PAYMENTS), world.api.create("key", &body));
    assert!((seconds(1)..seconds(3)).contains(&began.elapsed()), "{:?}", began.elapsed());
    for answer in [read?, created?] {
        assert_problem(&answer, 503, "timeout");
        assert!(answer.header("retry-after").parse::<u32>().is_ok());
    }
    assert_eq!(world.api.get("/livez").await?.status, 200);
    lock.rollback().await?;
    // whether it was written after all: the same key tells, and it is carried out once
    eventually(SOON, "carried out", async || Ok(world.api.create("key", &body).await?.status == 201)).await?;
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_payment_that_is_written_is_answered_202_when_its_time_is_up() -> Result<()> {
    let world = WorldOptions::default()
        .set("PAYWRIGHT_SYNC_WAIT", "1s")
        .set("PAYWRIGHT_REQUEST_TIMEOUT", "3s")
        .start()
        .await?;
    world.simulator.create_fault("delay", Some(1), 300).await?;
    let asked = tokio::spawn({
        let api = world.api.clone();
        async move {
            let began = Instant::now();
            (api.create("key", &payment("order-1")).await, began.elapsed())
        }
    });
    provider_was_asked(&world, 1).await?;
    // charged, and the outcome cannot be written down
    let lock = held_up(&world, OPERATIONS_HELD).await?;
    let (answer, took) = asked.await?;
    let answer = answer?;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (202, Some("processing")));
    assert!(took < seconds(3), "{took:?}");
    lock.rollback().await?;
    eventually(seconds(30), "settled", async || {
        Ok(world.api.create("key", &payment("order-1")).await?.status == 201)
    })
    .await?;
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_caller_may_wait_longer_than_requests_take_and_not_shorter() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_REQUEST_TIMEOUT", "1s").start().await?;
    world.simulator.create_fault("delay", None, 4000).await?;
    // the preference, and the answer's earliest and latest second; without one the wait would be 8 s
    let table = [(None, 0, 1), (Some("wait=2"), 2, 3)];
    for (at, (prefer, least, most)) in table.into_iter().enumerate() {
        let began = Instant::now();
        let body = payment(&format!("order-{at}"));
        let answer = world.api.create_preferring(&format!("key-{at}"), &body, prefer).await?;
        let took = began.elapsed();
        assert_eq!(answer.status, 202, "{prefer:?}: {}", answer.json());
        assert!((seconds(least)..seconds(most)).contains(&took), "{prefer:?}: {took:?}");
    }
    assert_eq!(count(&world, "SELECT count(*) FROM operations").await?, 2);
    world.finish().await
}

#[tokio::test]
async fn a_body_that_comes_slowly_takes_time_from_the_wait() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_REQUEST_TIMEOUT", "4s").start().await?;
    world.simulator.create_fault("delay", Some(1), 4000).await?;
    let request = post(&world.api, "key", &payment("order-1").to_string());
    let (head, rest) = request.split_at(request.len() - 1);
    let mut wire = Wire::to(&world.api.url).await?;
    let began = Instant::now();
    wire.send(head.as_bytes()).await?;
    tokio::time::sleep(seconds(2)).await;
    wire.send(rest.as_bytes()).await?;
    let answer = wire.read().await?;
    assert_eq!((answer.status, answer.json()["status"].as_str()), (202, Some("processing")));
    assert!(began.elapsed() < seconds(4), "{:?}", began.elapsed());

    // and one that never ends is no longer waited for
    let mut wire = Wire::to(&world.api.url).await?;
    wire.send(post(&world.api, "never", &payment("order-2").to_string()).trim_end_matches('}').as_bytes())
        .await?;
    let answer = wire.read().await?;
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("timeout")));
    assert_eq!((answer.header("connection"), answer.header("retry-after")), ("close", "1"));
    assert!(wire.is_at_its_end().await?);
    assert_eq!(count(&world, "SELECT count(*) FROM operations").await?, 1);
    world.finish().await
}
