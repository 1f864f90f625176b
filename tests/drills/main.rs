//! Drills: each shows one thing at full size, prints its figures, and fails when a bound is missed.
//!
//! One program for all of them, because linking it takes longer than most of them run.

mod bench;
mod bugs;
mod corpora;
mod crashes;
mod diskfull;
mod duels;
mod hangups;
mod kills;
mod migrations;
mod model;
mod outage;
mod overload;
mod pages;
mod pooler;
mod race;
mod refunds;
mod slow;
mod story;
mod tenants;

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
    Bugs(bugs::Options),
    Corpora(corpora::Options),
    Crashes(crashes::Options),
    Diskfull(diskfull::Options),
    Duels(duels::Options),
    Hangups(hangups::Options),
    Kills(kills::Options),
    Migrations(migrations::Options),
    Model(model::Options),
    Outage(outage::Options),
    Overload(overload::Options),
    Pages(pages::Options),
    Pooler(pooler::Options),
    Race(race::Options),
    Refunds(refunds::Options),
    Slow(slow::Options),
    Story(story::Options),
    Tenants(tenants::Options),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().drill {
        Drill::Bench(options) => bench::run(options).await,
        Drill::Bugs(options) => bugs::run(options).await,
        Drill::Corpora(options) => corpora::run(options).await,
        Drill::Crashes(options) => crashes::run(options).await,
        Drill::Diskfull(options) => diskfull::run(options).await,
        Drill::Duels(options) => duels::run(options).await,
        Drill::Hangups(options) => hangups::run(options).await,
        Drill::Kills(options) => kills::run(options).await,
        Drill::Migrations(options) => migrations::run(options).await,
        Drill::Model(options) => model::run(options),
        Drill::Outage(options) => outage::run(options).await,
        Drill::Overload(options) => overload::run(options).await,
        Drill::Pages(options) => pages::run(options).await,
        Drill::Pooler(options) => pooler::run(options).await,
        Drill::Race(options) => race::run(options).await,
        Drill::Refunds(options) => refunds::run(options).await,
        Drill::Slow(options) => slow::run(options).await,
        Drill::Story(options) => story::run(options).await,
        Drill::Tenants(options) => tenants::run(options).await,
    }
}
