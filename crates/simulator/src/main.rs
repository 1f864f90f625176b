//! `provider-simulator`: a payment provider that speaks Stripe's PaymentIntents protocol, keeps its own ledger and
//! injects faults.
//!
//! It shares no code with the client it is tested against, so that the two cannot share a mistake. A request goes
//! through `connection` (sockets), `http` (faults, authentication, headers), `command` (validation), `simulator`
//! (idempotency, order), `execute` (Stripe's rules) and `ledger` (disk), and back through `wire` (objects as JSON).

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::Parser;
use tokio::{
    net::{TcpListener, lookup_host},
    signal::unix::{SignalKind, signal},
};

use crate::simulator::Simulator;

mod auth;
mod command;
mod commit;
mod connection;
mod control;
mod execute;
mod faults;
mod form;
mod http;
mod ledger;
mod objects;
mod simulator;
mod state;
mod tokens;
mod wire;

const EXAMPLE: &str = "\
Example:
  provider-simulator --listen 127.0.0.1:0 --ledger /tmp/provider.ledger

  curl http://127.0.0.1:12111/v1/payment_intents -u sk_test_anything: -H 'Idempotency-Key: order-1' \\
    -d amount=1999 -d currency=eur -d payment_method=pm_card_visa -d confirm=true
  curl http://127.0.0.1:12111/_sim/ledger
  curl -X PUT http://127.0.0.1:12111/_sim/faults \\
    -d '[{\"match\": \"POST /v1/payment_intents\", \"fault\": \"reset_after\", \"times\": 1}]'";

/// A payment provider for development and tests: Stripe's PaymentIntents protocol, a ledger, and faults on demand.
#[derive(Debug, Parser)]
#[command(name = "provider-simulator", version, after_help = EXAMPLE)]
struct Options {
    /// Where to listen, as HOST:PORT. Port 0 takes a free one; the line on standard output says which.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:12111")]
    listen: String,

    /// The append-only file with everything the provider remembers. Created if it does not exist.
    #[arg(long, value_name = "PATH", default_value = "provider-simulator.ledger")]
    ledger: PathBuf,

    /// Allow a host that other machines can reach. Anybody who reaches it controls the simulator.
    #[arg(long)]
    allow_remote: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let (listener, simulator, broken) = match prepare(&options).await {
        Ok(ready) => ready,
        Err(error) => return complain(&error, 2),
    };
    match run(listener, simulator, broken).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&error, 1),
    }
}

/// Everything that can fail because of how the simulator was started.
async fn prepare(options: &Options) -> anyhow::Result<(TcpListener, Simulator, ledger::Failure)> {
    let address = resolve(&options.listen, options.allow_remote).await?;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {}", options.listen))?;
    let (simulator, broken) = Simulator::open(&options.ledger)?;
    Ok((listener, simulator, broken))
}

async fn resolve(listen: &str, allow_remote: bool) -> anyhow::Result<SocketAddr> {
    let mut addresses = lookup_host(listen)
        .await
        .with_context(|| format!("--listen {listen} is no HOST:PORT, such as 127.0.0.1:12111"))?;
    let Some(address) = addresses.next() else { bail!("--listen {listen} has no address") };
    if !allow_remote && !address.ip().is_loopback() {
        bail!("--listen {listen} can be reached from other machines; allow that with --allow-remote");
    }
    Ok(address)
}

/// Serves until a signal asks for the end or the ledger cannot be written.
async fn run(listener: TcpListener, simulator: Simulator, broken: ledger::Failure) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut stdout = io::stdout();
    writeln!(stdout, "provider-simulator listening on http://{}", listener.local_addr()?)
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")?;
    // Nothing is drained: what was acknowledged is on disk, and callers have to cope with a provider that is gone.
    tokio::select! {
        () = connection::serve(listener, http::router(Arc::new(simulator))) => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        error = broken => match error {
            Ok(error) => Err(error).context("cannot write the ledger"),
            Err(_) => bail!("the ledger's writer ended"),
        },
    }
}

fn complain(error: &anyhow::Error, status: u8) -> ExitCode {
    // With standard error closed the status still tells.
    let _ = writeln!(io::stderr(), "provider-simulator: {error:#}");
    ExitCode::from(status)
}
