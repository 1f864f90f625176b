//! Tells the difference between a service that works and this one: the same is done to both, and what came of it is put
//! side by side.
//!
//! What works is the service that most tutorials end with, `tests/it-works/main.rs`. Both have a database and a provider
//! of their own, and what is told is counted from outside: in the provider's ledger, and in what the customers were
//! answered. The first story has mishaps, the second names, the third a launch day, the fourth a provider that goes dark.
//! The drill fails when this service is not without fault, and also when the other one is: then it shows nothing.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use e2e::{ItWorks, Pressure, Profile, Trouble, WorldOptions, double_charges, mangled_names, pressure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Short, so that a killed service's lease is over soon, and the story with it.
const PROVIDER_TIMEOUT: Duration = Duration::from_secs(3);
const LEASE: Duration = Duration::from_millis(8500);

/// How long a customer looks at a page that does not come.
const PATIENCE: Duration = Duration::from_secs(45);

/// One of the five stories, told at the service that most tutorials end with and at this one.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill story 1 --customers 5")]
pub struct Options {
    /// Which story
    story: Story,
    /// How many customers each scenario of the first story has
    #[arg(long, default_value_t = 20)]
    customers: usize,
    /// How long the trouble of the third and the fourth story lasts
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How many more customers come per second on the launch day of the third
    #[arg(long, default_value_t = 1500.0)]
    crowd: f64,
    /// Where the charts of the third and the fourth are written
    #[arg(long, default_value = "docs/charts")]
    charts: PathBuf,
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
    /// Launch day made pages take 45 s
    #[value(name = "3")]
    LaunchDay,
    /// One third party went offline and the whole API hung
    #[value(name = "4")]
    DarkProvider,
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
        Story::LaunchDay => {
            let lasting = Duration::from_secs(options.seconds);
            let trouble = Trouble::LaunchDay(options.crowd);
            let launch_day = Pressure { trouble, lasting, creates: 20.0, reads: 20.0, patience: PATIENCE };
            under_pressure(launch_day, profile, &options.charts.join("story-3.svg")).await
        }
        Story::DarkProvider => {
            let lasting = Duration::from_secs(options.seconds);
            let dark = Pressure {
                trouble: Trouble::DarkProvider,
                lasting,
                creates: 10.0,
                reads: 20.0,
                patience: PATIENCE,
            };
            under_pressure(dark, profile, &options.charts.join("story-4.svg")).await
        }
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

async fn under_pressure(trouble: Pressure, profile: Profile, chart: &Path) -> Result<()> {
    // all customers are one merchant's, and what is to be seen is not its limit
    let world =
        WorldOptions::default().profile(profile).set("RUST_LOG", "warn").set("PAYWRIGHT_RATE_LIMIT", "0");
    let (there, here) = tokio::try_join!(world.clone().start(), world.start())?;
    let it_works = ItWorks::beside(&there).await?;
    let report = pressure(trouble, &it_works, &here).await?;
    println!("there: the service that most tutorials end with; here: this one\n{report}");
    let folder = chart.parent().context("a folder")?;
    std::fs::create_dir_all(folder)?;
    std::fs::write(chart, report.chart()).with_context(|| chart.display().to_string())?;
    println!("  as a chart: {}", chart.display());
    it_works.stop().await?;
    there.stop().await?;
    here.finish().await?;
    report.verdict()
}
