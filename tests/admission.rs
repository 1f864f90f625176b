//! Who gets in when there is too much to do: what reads, asks again or gives money back before what is new, and nobody for
//! longer than the work takes.

use crate::support::{SOON, Wire, captured, post, provider_was_asked};
use anyhow::Result;
use e2e::{Answer, Api, World, WorldOptions, eventually, payment};
use futures_util::future::join_all;
use serde_json::json;
use sqlx::{Postgres, Transaction};
use tokio::task::JoinHandle;

/// Nobody writes payments until the end of the transaction; whoever reads them may.
pub(crate) async fn no_writes(world: &World) -> Result<Transaction<'static, Postgres>> {
    let mut lock = world.pool.begin().await?;
    sqlx::query("LOCK TABLE payments IN SHARE ROW EXCLUSIVE MODE").execute(&mut *lock).await?;
    Ok(lock)
}

/// A create that takes a place, again and again, until it can be carried out.
pub(crate) fn insist(api: &Api, key: &str) -> JoinHandle<Result<Answer>> {
    let (api, key) = (api.clone(), key.to_owned());
    tokio::spawn(async move {
        loop {
            let answer = api.create(&key, &payment(&key)).await?;
            if answer.status != 503 {
                return Ok(answer);
            }
        }
    })
}

#[tokio::test]
async fn a_reserve_is_kept_for_what_people_need_most() -> Result<()> {
    // of these, two
    let world = WorldOptions::default().set("PAYWRIGHT_MAX_IN_FLIGHT", "16").start().await?;
    let api = &world.api;
    let paid = captured(api, "paid").await?;
    let known = api.create("known", &payment("known")).await?;
    let lock = no_writes(&world).await?;
    let insisting: Vec<_> = (0..14).map(|at| insist(api, &format!("insisting-{at}"))).collect();
    eventually(SOON, "no place for what is new", async || {
        Ok(api.create("new", &payment("new")).await?.code() == "overloaded")
    })
    .await?;

    assert_eq!(api.get(&paid).await?.status, 200);
    // let in, and held up by the lock like all others
    assert_eq!(api.create("known", &payment("known")).await?.code(), "unavailable");
    let refund = api.post(&format!("{paid}/refunds"), "refund", &json!({})).await?;
    assert_eq!(refund.code(), "unavailable");

    lock.rollback().await?;
    for answer in join_all(insisting).await {
        assert_eq!(answer??.status, 201);
    }
    let again = api.create("known", &payment("known")).await?;
    assert_eq!((again.status, again.body), (201, known.body));
    world.finish().await
}

#[tokio::test]
async fn a_body_that_is_not_there_yet_takes_no_place() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_MAX_IN_FLIGHT", "1").start().await?;
    let api = &world.api;
    let body = payment("order-1").to_string();
    let request = post(api, "slow", &body).replacen("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n", 1);
    let (head, rest) = request.split_at(request.len() - body.len());
    let mut slow = Wire::to(&api.url).await?;
    slow.send(head.as_bytes()).await?;
    // it was let in, and is waited for
    assert_eq!(slow.read().await?.status, 100);
    for at in 0..3 {
        let key = format!("quick-{at}");
        assert_eq!(api.create(&key, &payment(&key)).await?.status, 201);
    }
    slow.send(rest.as_bytes()).await?;
    let answer = slow.read().await?;
    assert_eq!(answer.status, 201, "{}", answer.json());
    world.finish().await
}

#[tokio::test]
async fn only_so_many_of_a_merchants_callers_wait_for_a_first_request() -> Result<()> {
    const ASKING: usize = 70;
    const WAITING: usize = 64;
    let world = WorldOptions::default().start().await?;
    world.simulator.create_fault("delay", Some(1), 4000).await?;
    let first = tokio::spawn({
        let api = world.api.clone();
        async move { api.create("key", &payment("order-1")).await }
    });
    provider_was_asked(&world, 1).await?;
    let body = payment("order-1");
    let asking = (0..ASKING).map(|_| world.api.create_preferring("key", &body, Some("wait=20")));
    let answers = join_all(asking).await.into_iter().collect::<Result<Vec<_>>>()?;
    let with = |status: u16| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((with(201), with(409)), (WAITING, ASKING - WAITING));
    assert!(answers.iter().all(|answer| answer.status == 201 || answer.code() == "request_in_progress"));
    assert_eq!(first.await??.status, 201);
    world.finish().await
}
