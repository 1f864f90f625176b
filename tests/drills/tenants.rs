//! Shows that merchants never see or move what is another's: 50 of them, 10,000 requests in no order over a pool of five
//! connections, a tenth of them with another merchant's ids.

use anyhow::Result;
use clap::Args;
use e2e::{Profile, WorldOptions, tenants};

/// Many merchants over a few connections: nothing of another's is read, moved or told apart from what is not there.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill tenants --requests 1000")]
pub struct Options {
    /// How many merchants
    #[arg(long, default_value_t = 50)]
    merchants: usize,
    /// How many requests
    #[arg(long, default_value_t = 10_000)]
    requests: usize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let world = WorldOptions::default()
        .profile(Profile::Release)
        .set("PAYWRIGHT_DATABASE_CONNECTIONS", "5")
        .start()
        .await?;
    let figures = tenants(&world, options.merchants, options.requests).await?;
    println!("many merchants over five connections:\n{figures}");
    world.stop().await?;
    figures.verdict()
}
