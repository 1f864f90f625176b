//! Simultaneous callers at two processes. The drills run the same for longer.

use crate::support::impatient;
use anyhow::{Context, Result};
use e2e::{Contest, WorldOptions, duel, race, tenants};

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

#[tokio::test]
async fn of_a_capture_and_a_cancel_one_happens() -> Result<()> {
    let world = impatient().instances(2).start().await?;
    duel(&world, 40, 10).await?.verdict()?;
    world.finish().await
}

#[tokio::test]
async fn merchants_never_see_what_is_anothers() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_DATABASE_CONNECTIONS", "5").start().await?;
    let figures = tenants(&world, 5, 400).await?;
    figures.verdict().with_context(|| figures.to_string())?;
    world.finish().await
}
