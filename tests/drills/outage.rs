//! Shows what a provider that is down for ten minutes is to everybody else: nothing to reads, 202 at once to creates, and a
//! backlog that is gone within a minute of its return. Then one whose name leads nowhere, to one of two processes: the
//! other carries out what the first accepts.

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use devstack::Fault;
use e2e::{Figures, Outage, Profile, WorldOptions, payment};
use std::time::{Duration, Instant};

/// By default the time of a request, a little included for its way.
const DEADLINE: Duration = Duration::from_millis(10_500);
/// How many payments are asked for by the process that cannot find its provider.
const LOST: usize = 20;
/// How long it takes until all of them are settled: far less than a lease would.
const FOUND: Duration = Duration::from_secs(10);

/// A provider that is down: callers go on, it is left alone, and what was accepted is carried out on its return.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill outage --seconds 60 --fault black-hole")]
pub struct Options {
    /// How long the provider is gone
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How it is gone
    #[arg(long, value_enum, default_value = "refused")]
    fault: Gone,
    /// New payments per second
    #[arg(long, default_value_t = 20.0)]
    creates: f64,
    /// Reads per second
    #[arg(long, default_value_t = 100.0)]
    reads: f64,
    /// Drive the debug build
    #[arg(long)]
    debug: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Gone {
    /// Nobody listens
    Refused,
    /// Connections are made, and nothing comes back; noticed first after the provider's time-out of 5 s
    BlackHole,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let profile = if options.debug { Profile::Debug } else { Profile::Release };
    let (fault, noticed_after) = match options.fault {
        Gone::Refused => (Fault::Refuse, Duration::ZERO),
        Gone::BlackHole => (Fault::BlackHole, Duration::from_secs(5)),
    };
    let lasting = Duration::from_secs(options.seconds);
    let outage = Outage {
        fault,
        noticed_after,
        lasting,
        before: (lasting / 5).max(Duration::from_secs(10)),
        creates: options.creates,
        reads: options.reads,
        alone: true,
    };
    let world = WorldOptions::default().profile(profile).provider_proxy().own_cluster().start().await?;
    let figures = outage.happen(&world).await?;
    world.stop().await?;
    println!("a provider that is down:\n{figures}");
    let lost = without_a_name(profile).await?;
    println!("a provider whose name leads nowhere, to one of two processes:\n{lost}");
    figures.verdict()?;
    lost.verdict()
}

async fn without_a_name(profile: Profile) -> Result<Figures> {
    let mut world = WorldOptions::default().profile(profile).start().await?;
    let nowhere = ("PAYWRIGHT_PROVIDER_URL".to_owned(), "https://provider.invalid".to_owned());
    let lost = world.stack.add_service(&[nowhere].into()).await?;
    let api = world.api_of(lost)?;
    let (mut longest, mut answered) = (Duration::ZERO, 0);
    for at in 0..LOST {
        let key = format!("lost-{at}");
        let began = Instant::now();
        let answer = api.create(&key, &payment(&key)).await.context("a process that answers")?;
        longest = longest.max(began.elapsed());
        answered += usize::from(matches!(answer.status, 201 | 202));
    }
    let mut figures = Figures::default();
    figures.exactly("creates answered 201 or 202", answered, LOST);
    figures.at_most("the longest in ms", longest.as_millis(), DEADLINE.as_millis());
    figures.holds("settled soon, by the other process", world.at_rest(FOUND).await.is_ok());
    figures.findings(&world.check().await?);
    world.stop().await?;
    Ok(figures)
}
