//! Shows that refunds never give back more than came in, however many ask at the same moment, and in whichever process:
//! 200 refunds of 10 on 1,000 captured, then sizes 10 and 70 mixed, then with three of ten answers lost.

use anyhow::Result;
use clap::Args;
use e2e::{Profile, RefundContest, WorldOptions, refund_race};

/// Simultaneous refunds through two processes: exactly what there is.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill refunds --callers 50")]
pub struct Options {
    /// How many simultaneous refunds
    #[arg(long, default_value_t = 200)]
    callers: usize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let world = WorldOptions::default().instances(2).profile(Profile::Release).start().await?;
    let mut verdicts = Vec::new();
    for (contest, name) in [
        (RefundContest::Equal, "of 10"),
        (RefundContest::Mixed, "of 10 and 70"),
        (RefundContest::LostAnswers, "of 10 while 30 % of the provider's answers are lost"),
    ] {
        let figures = refund_race(&world, contest, options.callers).await?;
        println!("{} simultaneous refunds {name}:\n{figures}", options.callers);
        verdicts.push(figures.verdict());
    }
    world.stop().await?;
    verdicts.into_iter().collect()
}
