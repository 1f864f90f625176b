//! Shows that no crash charges twice, loses a charge, or takes back what a client was told.
//!
//! Customers pay, capture, cancel and refund at their own pace while services, PostgreSQL and the provider are killed with
//! SIGKILL, each time with work under way. The provider executes and loses the answer, executes later, and
//! forgets keys. Whoever is killed is started again at once. Then the checker compares three witnesses: the provider's
//! ledger, the database, and what the clients remember of every answer.

use anyhow::Result;
use clap::Args;
use e2e::{Least, Profile, Storm};

/// Kill services, PostgreSQL and the provider under load, and compare what everybody remembers.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill kills --services-killed 10 --postgres-killed 2 --provider-killed 2")]
pub struct Options {
    /// How often a service is killed
    #[arg(long, default_value_t = 40)]
    services_killed: usize,
    /// How often PostgreSQL is killed
    #[arg(long, default_value_t = 10)]
    postgres_killed: usize,
    /// How often the provider is killed
    #[arg(long, default_value_t = 10)]
    provider_killed: usize,
    /// How many services there are
    #[arg(long, default_value_t = 3)]
    services: usize,
    /// New customers per second
    #[arg(long, default_value_t = 60.0)]
    rate: f64,
    /// How many operations are open at each kill, at least
    #[arg(long, default_value_t = 20)]
    open: i64,
    /// Attempts of clients without which the run does not count
    #[arg(long, default_value_t = 1_000)]
    attempts: usize,
    /// Answers lost after the provider executed, without which the run does not count
    #[arg(long, default_value_t = 20)]
    lost: u64,
    /// Operations taken over from the dead, without which the run does not count
    #[arg(long, default_value_t = 5)]
    taken_over: i64,
    /// Drive the debug build, which is there after any test
    #[arg(long)]
    debug: bool,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let Options { services_killed, postgres_killed, provider_killed, services, rate, open, .. } = options;
    let least = Least { attempts: options.attempts, lost: options.lost, taken_over: options.taken_over };
    let storm = Storm {
        services_killed,
        postgres_killed,
        provider_killed,
        services,
        rate,
        open,
        least,
        ..Storm::default()
    };
    let profile = if options.debug { Profile::Debug } else { Profile::Release };
    let mut world = storm.world(profile).start().await?;
    let figures = storm.blow(&mut world).await?.figures();
    println!("services, PostgreSQL and the provider killed under load:\n{figures}");
    world.stop().await?;
    figures.verdict()
}
