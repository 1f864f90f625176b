//! Shows that of a capture and a cancel at the same moment one happens, and that both sides know which: 500 payments,
//! each captured at one process and canceled at another, while the provider executes and does not answer.

use anyhow::Result;
use clap::Args;
use e2e::{Profile, WorldOptions, duel};

/// Captures against cancels through two processes: one effect each, and the provider's state.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill duels --rounds 50")]
pub struct Options {
    /// How many payments are fought over
    #[arg(long, default_value_t = 500)]
    rounds: usize,
    /// How many at a time
    #[arg(long, default_value_t = 20)]
    at_once: usize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let world = WorldOptions::default()
        .instances(2)
        .profile(Profile::Release)
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "2s")
        .set("PAYWRIGHT_LEASE", "8s")
        .start()
        .await?;
    let figures = duel(&world, options.rounds, options.at_once).await?;
    println!("a capture against a cancel:\n{figures}");
    world.stop().await?;
    figures.verdict()
}
