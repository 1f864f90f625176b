//! `devstack`: everything on one machine, for people who want to see the service work and for drills that break it.

mod guide;
mod ready_file;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use devstack::postgres::Wanted;
use devstack::process::Environment;
use devstack::{Stack, StackOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

use ready_file::ReadyFile;

/// How often the children are looked after.
const ATTENTION_INTERVAL: Duration = Duration::from_millis(100);

/// Runs everything on this machine: PostgreSQL, the provider's simulator and the service. Ctrl-C stops it all.
///
/// PostgreSQL comes from the first that works: --database-url or DATABASE_URL, server programs on this machine
/// (PG_BIN_DIR, PATH, where distributions put them), Docker (TEST_POSTGRES_IMAGE, or else the official image), the
/// system's packages. POSTGRES_FROM=url|binaries|docker|packages forces one. Every PAYWRIGHT_*, OTEL_* and RUST_LOG of the environment is passed on to the service.
///
/// Example: devstack --instances 2 --restart
#[derive(Debug, Parser)]
#[command(name = "devstack", version)]
struct Arguments {
    /// Port of the public API, 0 for a free one. Further instances get free ones.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    api_port: u16,
    /// Port of the operations listener (metrics, health), 0 for a free one.
    #[arg(long, value_name = "PORT", default_value_t = 9464)]
    ops_port: u16,
    /// Port of the provider's simulator, 0 for a free one.
    #[arg(long, value_name = "PORT", default_value_t = 12111)]
    simulator_port: u16,
    /// The database owner's URL, instead of a PostgreSQL of our own.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Where everything that lasts is kept.
    #[arg(long, value_name = "DIRECTORY", default_value = ".data")]
    data_dir: PathBuf,
    /// How many services to run.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    instances: u16,
    /// Start children that die again, on their ports.
    #[arg(long)]
    restart: bool,
    /// A provider to use instead of the simulator, with PAYWRIGHT_PROVIDER_API_KEY.
    #[arg(long, value_name = "URL")]
    provider_url: Option<String>,
    /// Write down where everything is, as JSON, once everything answers.
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// Keep the service's log in the data directory instead of showing it.
    #[arg(long)]
    quiet: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> Result<()> {
    let mut stop = StopSignals::new()?;
    let ready_file = arguments.ready_file.clone().map(ReadyFile::new).transpose()?;
    let restart = arguments.restart;
    let mut stack = Stack::new(options(arguments)?)?;

    let result = tokio::select! {
        started = stack.bring_up() => Some(started),
        () = stop.received() => None,
    };
    let result = match result {
        Some(Ok(())) => serve(&mut stack, restart, ready_file.as_ref(), &mut stop).await,
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    if result.is_ok() {
        tell("stopping");
    }
    if let Some(file) = ready_file {
        file.remove();
    }
    // What stopped it matters more than what its stopping met with.
    let stopped = stack.shutdown().await;
    result.and(stopped)
}

async fn serve(
    stack: &mut Stack,
    restart: bool,
    ready_file: Option<&ReadyFile>,
    stop: &mut StopSignals,
) -> Result<()> {
    if let Some(file) = ready_file {
        file.write(&stack.description()?)?;
    }
    print!("{}", guide::text(stack)?);
    let mut tick = interval(ATTENTION_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.received() => return Ok(()),
            _ = tick.tick() => {}
        }
        let attended = tokio::select! {
            () = stop.received() => return Ok(()),
            attended = stack.attend(restart) => attended,
        };
        match attended {
            Ok(true) => {
                if let Some(file) = ready_file {
                    file.write(&stack.description()?)?;
                }
            }
            Ok(false) => {}
            // The others go on; the next look may succeed.
            Err(error) => tell(&format!("{error:#}")),
        }
    }
}

fn options(arguments: Arguments) -> Result<StackOptions> {
    let given = Wanted::from_environment()?;
    Ok(StackOptions {
        postgres: Wanted { url: arguments.database_url.or(given.url), ..given },
        provider_url: arguments.provider_url,
        instances: arguments.instances.into(),
        api_port: arguments.api_port,
        ops_port: arguments.ops_port,
        simulator_port: arguments.simulator_port,
        environment: passed_on(std::env::vars()),
        inherit_output: !arguments.quiet,
        report: tell,
        ..StackOptions::new(arguments.data_dir)
    })
}

fn passed_on(environment: impl Iterator<Item = (String, String)>) -> Environment {
    environment
        .filter(|(name, _)| name.starts_with("PAYWRIGHT_") || name.starts_with("OTEL_") || name == "RUST_LOG")
        .collect()
}

fn tell(line: &str) {
    eprintln!("devstack: {line}");
}

/// The signals that ask us to stop.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignals {
    fn new() -> Result<StopSignals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(StopSignals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_on_what_concerns_the_service() {
        let environment =
            ["PAYWRIGHT_LEASE", "OTEL_SERVICE_NAME", "RUST_LOG", "RUST_LOGGER", "DATABASE_URL", "HOME"];

        let passed = passed_on(environment.iter().map(|name| ((*name).to_owned(), "x".to_owned())));

        let names: Vec<&String> = passed.keys().collect();
        let mut expected = ["OTEL_SERVICE_NAME", "PAYWRIGHT_LEASE", "RUST_LOG"];
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}
