//! Tells the difference between a service that works and this one: the same is done to both, and what came of it is put
//! side by side.
//!
//! What works is the service that most tutorials end with, `tests/it-works/main.rs`. Both have a database and a provider
//! of their own, and what is told is counted from outside: in the provider's ledger, and in what the customers were
//! answered. The first story has mishaps, the second names: what people write, and what pranksters do. The drill fails when this service is not without fault, and also when the other one is: then it shows nothing.

use anyhow::Result;
use clap::{Args, ValueEnum};
use e2e::{ItWorks, Profile, WorldOptions, double_charges, mangled_names};
use std::time::Duration;

/// Short, so that a killed service's lease is over soon, and the story with it.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_millis(8500);

/// One of the five stories, told at the service that most tutorials end with and at this one.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill story 1 --customers 5")]
pub struct Options {
    /// Which story
    story: Story,
    /// How many customers each scenario of the first story has
    #[arg(long, default_value_t = 20)]
    customers: usize,
    /// Drive the debug build, which is there after any test
    #[arg(long)]
    debug: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Story {
    /// Two requests at the same moment charged a customer twice
    #[value(name = "1")]
    ChargedTwice,
    /// One emoji took a login down
    #[value(name = "2")]
    OneEmoji,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or it does not show what it is there to show.
pub async fn run(options: Options) -> Result<()> {
    let profile = if options.debug { Profile::Debug } else { Profile::Release };
    match options.story {
        Story::ChargedTwice => charged_twice(options.customers, profile).await,
        Story::OneEmoji => one_emoji(profile).await,
    }
}

async fn charged_twice(customers: usize, profile: Profile) -> Result<()> {
    let world = WorldOptions::default()
        .profile(profile)
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", &format!("{}s", PROVIDER_TIMEOUT.as_secs()))
        .set("PAYWRIGHT_LEASE", &format!("{}ms", LEASE.as_millis()));
    let (there, mut here) = tokio::try_join!(world.clone().start(), world.start())?;
    let mut it_works = ItWorks::beside(&there).await?;
    let report = double_charges(&mut it_works, &mut here, customers).await?;
    println!("there: the service that most tutorials end with; here: this one\n{report}");
    it_works.stop().await?;
    there.stop().await?;
    here.finish().await?;
    report.verdict()
}

async fn one_emoji(profile: Profile) -> Result<()> {
    let world = WorldOptions::default().profile(profile);
    let (there, here) = tokio::try_join!(world.clone().start(), world.start())?;
    let it_works = ItWorks::beside(&there).await?;
    let report = mangled_names(&it_works, &here, 1).await?;
    println!("there: the service that most tutorials end with; here: this one\n{report}");
    it_works.stop().await?;
    there.stop().await?;
    here.finish().await?;
    report.verdict()
}
