//! Shows that the checker is worth believing: the same short run with one rule after the other not kept, each of which it
//! must catch, and with all of them kept, which it must let pass.

use anyhow::Result;
use clap::Args;
use e2e::{Figures, Planted, Profile, Rule, gauntlet, programs};
use futures_util::stream::{self, StreamExt};
use std::time::Duration;

/// A run takes no longer than this.
const BOUND: Duration = Duration::from_secs(15);

/// Plant one bug after the other, and see each of them caught.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill bugs --runs 5 --only \"lease ignored\"")]
pub struct Options {
    /// How often each bug is planted
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// How often the program runs as it is
    #[arg(long, default_value_t = 3)]
    without: usize,
    /// How many run at once
    #[arg(long, default_value_t = 3)]
    at_once: usize,
    /// One bug only
    #[arg(long)]
    only: Option<String>,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    // no run is to wait for the build
    tokio::task::spawn_blocking(|| programs(Profile::Proof)).await??;
    let bugs =
        Planted::ALL.into_iter().filter(|bug| options.only.as_deref().is_none_or(|only| only == bug.name));
    let planted = bugs.flat_map(|bug| std::iter::repeat_n(Some(bug), options.runs));
    let runs = planted.chain(std::iter::repeat_n(None, options.without));
    let runs = stream::iter(runs).map(async |bug| (bug, gauntlet(bug).await));
    let ended: Vec<_> = runs.buffered(options.at_once).collect().await;

    let mut figures = Figures::default();
    for (bug, run) in ended {
        let name = bug.map_or("no bug", |bug| bug.name);
        let run = match run {
            Ok(run) => run,
            Err(error) => {
                figures.bound(name, format_args!("{error:#}"), "the run counts", false);
                continue;
            }
        };
        let took = format!("{:.1} s", run.took.as_secs_f64());
        let (verdict, is_right) = match bug {
            Some(bug) => {
                let broken: Vec<&str> = run.findings.broken().map(Rule::violation).collect();
                (format!("caught: {}", broken.join("; ")), run.findings.count(bug.found_by) > 0)
            }
            None => (format!("passes: {}", run.findings), run.findings.verdict().is_ok()),
        };
        figures.bound(name, took, verdict, is_right && run.took <= BOUND);
    }
    println!("bugs that were planted, and what the checker says:\n{figures}");
    figures.verdict()
}
