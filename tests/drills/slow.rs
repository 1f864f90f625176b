//! Shows what a thousand connections that take their time are to everybody else: nothing. They are closed within 15 s.

use anyhow::Result;
use clap::Args;
use e2e::{Profile, Slow, WorldOptions};

/// Slow connections, all at once, beside callers who are not.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill slow --connections 2000")]
pub struct Options {
    /// How many slow connections there are
    #[arg(long, default_value_t = 1000)]
    connections: usize,
    /// Of the others: new payments per second
    #[arg(long, default_value_t = 50.0)]
    creates: f64,
    /// And reads
    #[arg(long, default_value_t = 150.0)]
    reads: f64,
    /// Drive the debug build
    #[arg(long)]
    debug: bool,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let Options { connections, creates, reads, debug } = options;
    let profile = if debug { Profile::Debug } else { Profile::Release };
    let mut world = WorldOptions::default().profile(profile).start().await?;
    let figures = Slow { connections, creates, reads }.happen(&mut world).await?;
    println!("slow connections:\n{figures}");
    world.stop().await?;
    figures.verdict()
}
