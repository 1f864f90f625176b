//! Shows that no crash of the service charges twice, loses a charge, or takes back what a client was told.
//!
//! Clients create payments at their own pace while services are killed with SIGKILL, each time with at least 20
//! operations open, and the provider loses answers: it charges and resets the connection, or resets the connection and
//! charges later. Killed services are started again at once. Then three witnesses are compared: the database, the
//! provider's ledger, and what the clients remember of every answer.

use anyhow::Result;
use clap::Args;
use e2e::{Profile, Storm};

/// Kill services under load while the provider loses answers, and compare what everybody remembers.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill kills --kills 10 --rate 120")]
pub struct Options {
    /// How often a service is killed
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// How many services there are
    #[arg(long, default_value_t = 2)]
    services: usize,
    /// New payments per second
    #[arg(long, default_value_t = 80.0)]
    rate: f64,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let Options { kills, services, rate } = options;
    let storm = Storm { kills, services, rate, ..Storm::default() };
    let mut world = storm.world(Profile::Release).start().await?;
    let figures = storm.blow(&mut world).await?.figures();
    println!("services killed under load:\n{figures}");
    world.stop().await?;
    figures.verdict()
}
