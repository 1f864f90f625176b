//! Simultaneous callers at two processes: one payment, one charge. `make race` runs the same for longer.

use anyhow::Result;
use e2e::{Contest, WorldOptions, race};

const ROUNDS: usize = 10;
const CALLERS: usize = 50;

async fn one_winner_each_round(contest: Contest) -> Result<()> {
    let world = WorldOptions::default().instances(2).start().await?;
    race(&world, contest, ROUNDS, CALLERS).await?.figures().verdict()?;
    world.finish().await
}

#[tokio::test]
async fn one_key_is_charged_once() -> Result<()> {
    one_winner_each_round(Contest::OneKey).await
}

#[tokio::test]
async fn one_reference_is_charged_once() -> Result<()> {
    one_winner_each_round(Contest::OneReference).await
}
