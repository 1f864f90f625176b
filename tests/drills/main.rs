//! Drills: each shows one thing at full size, prints its figures, and fails when a bound is missed.
//!
//! One program for all of them, because linking it takes longer than most of them run.

mod bench;
mod hangups;
mod kills;
mod pages;
mod race;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Shows at full size what the tests show in passing.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    drill: Drill,
}

#[derive(Debug, Subcommand)]
enum Drill {
    Bench(bench::Options),
    Hangups(hangups::Options),
    Kills(kills::Options),
    Pages(pages::Options),
    Race(race::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().drill {
        Drill::Bench(options) => bench::run(options).await,
        Drill::Hangups(options) => hangups::run(options).await,
        Drill::Kills(options) => kills::run(options).await,
        Drill::Pages(options) => pages::run(options).await,
        Drill::Race(options) => race::run(options).await,
    }
}
