//! How often a request goes to the database and back: latency that no machine makes up for.

use anyhow::Result;
use e2e::{World, WorldOptions, payment};

/// The worker looks what is due five times a second, and a key is asked for every three: some requests are undisturbed.
const TRIES: usize = 20;

/// The round trips of a request that nothing else fell into.
async fn least(world: &World, ask: impl AsyncFn(usize) -> Result<u16>, status: u16) -> Result<u64> {
    let proxy = world.stack.database_proxy()?;
    let mut least = u64::MAX;
    for number in 0..TRIES {
        let before = proxy.round_trips();
        assert_eq!(ask(number).await?, status);
        least = least.min(proxy.round_trips() - before);
    }
    Ok(least)
}

#[tokio::test]
async fn a_payment_and_a_replay_take_two_and_a_read_one() -> Result<()> {
    let world = WorldOptions::default().database_proxy().start().await?;
    // connections, and the texts of statements
    let first = world.api.create("first", &payment("first")).await?;
    let (first, path) = (first.status, first.header("location").to_owned());
    assert_eq!(first, 201);

    let pay = async |number: usize| {
        let key = format!("order-{number}");
        Ok(world.api.create(&key, &payment(&key)).await?.status)
    };
    assert_eq!(least(&world, pay, 201).await?, 2, "a payment: claim and settle");
    let replay = async |_| Ok(world.api.create("first", &payment("first")).await?.status);
    assert_eq!(least(&world, replay, 201).await?, 2, "a replay: claim and look up");
    let read = async |_| Ok(world.api.get(&path).await?.status);
    assert_eq!(least(&world, read, 200).await?, 1, "a read");
    world.finish().await
}
