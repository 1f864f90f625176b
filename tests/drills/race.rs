//! Shows that what may exist once exists once, however many ask for it at the same moment, and in whichever process.
//!
//! Each round is 50 requests behind a barrier, half of them at each of two services on one database: first the same
//! request with the same key, then different keys for the same order. Every round must leave one payment in the
//! database and one charge in the provider's ledger, and every caller must hear what it is promised.

use anyhow::Result;
use clap::Args;
use e2e::{Contest, Profile, WorldOptions, race};

/// Simultaneous creates through two processes: one payment and one charge each round.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill race --rounds 20")]
pub struct Options {
    /// How many rounds of each kind
    #[arg(long, default_value_t = 500)]
    rounds: usize,
    /// How many simultaneous requests a round has
    #[arg(long, default_value_t = 50)]
    callers: usize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let world = WorldOptions::default().instances(2).profile(Profile::Release).start().await?;
    let mut verdicts = Vec::new();
    for (contest, name) in [(Contest::OneKey, "one key"), (Contest::OneReference, "one reference")] {
        let figures = race(&world, contest, options.rounds, options.callers).await?.figures();
        println!("{} simultaneous creates with {name}:\n{figures}", options.callers);
        verdicts.push(figures.verdict());
    }
    world.stop().await?;
    verdicts.into_iter().collect()
}
