//! The command line.

use crate::app::merchants::{self, CreateKeyError};
use crate::app::reconcile::{self, Report, Sources};
use crate::config::{ConfigError, Database, Listeners, ProviderApi, SETTINGS, Service, Source};
use crate::http::openapi;
use crate::server::{OTHER_CONNECTIONS, Parts, Sockets, open_files, run as run_server};
use crate::state::App;
use crate::telemetry::Telemetry;
use crate::worker;
use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::id::{KeyId, MerchantId};
use domain::text::MerchantName;
use persistence::merchants::Scope;
use persistence::migrate::{self, Direction, Plan, Step};
use persistence::{Store, StoreError};
use prometheus::Registry;
use provider::Places;
use serde_json::json;
use std::fmt::Display;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::runtime::Runtime;
use uuid::Uuid;

/// What still runs when the service has stopped, a name that is looked up, say, is not waited for longer.
const LEFTOVERS: Duration = Duration::from_millis(500);
/// How far `reconcile` looks back, unless `--since` says.
const RECONCILED: time::Duration = time::Duration::hours(24);
/// How long `healthcheck` waits.
const HEALTH_PATIENCE: Duration = Duration::from_secs(2);

/// A payment service: payments are taken once, whatever fails.
#[derive(Debug, Parser)]
#[command(name = "paywright", version, after_help = settings_help())]
struct Cli {
    /// A TOML file with settings; the environment wins
    #[arg(long, global = true, value_name = "PATH")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve HTTP and, unless --no-worker, finish what was left open
    #[command(
        after_help = "Example:\n  DATABASE_URL=postgres://... PAYWRIGHT_PROVIDER_URL=https://api.stripe.com \\\n  PAYWRIGHT_PROVIDER_API_KEY_FILE=/run/secrets/provider paywright serve"
    )]
    Serve {
        /// Leave the background work to `paywright worker` processes
        #[arg(long)]
        no_worker: bool,
    },
    /// Only finish what was left open, with the operations listener
    #[command(after_help = "Example:\n  PAYWRIGHT_OPS_LISTEN=127.0.0.1:9465 paywright worker")]
    Worker,
    /// Apply, revert or list migrations, as the database's owner
    #[command(
        subcommand,
        after_help = "Example:\n  PAYWRIGHT_MIGRATION_DATABASE_URL=postgres://owner@... paywright migrate up"
    )]
    Migrate(Migrate),
    /// Manage merchants
    #[command(subcommand, after_help = "Example:\n  paywright merchant create 'Tea Shop' --json")]
    Merchant(Merchant),
    /// Manage API keys
    #[command(
        subcommand,
        after_help = "Example:\n  paywright key create 0190... --scope read --expires 2027-01-01T00:00:00Z"
    )]
    Key(Key),
    /// Compare provider and database: exit 0 if they agree, 1 and a table if not, 2 if it could not be found out
    #[command(
        after_help = "It only looks; nothing is changed on either side.\n\nExample:\n  paywright reconcile --since 2027-01-01T00:00:00Z"
    )]
    Reconcile {
        /// What was created at this time or later [24 hours ago]
        #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
        since: Option<OffsetDateTime>,
    },
    /// Print the OpenAPI document; needs no settings
    #[command(after_help = "Example:\n  paywright openapi > openapi.json")]
    Openapi,
    /// Ask the operations listener whether this machine's service is ready: exit 0 or 1
    #[command(after_help = "Example:\n  paywright healthcheck && echo ready")]
    Healthcheck,
}

#[derive(Debug, Subcommand)]
enum Migrate {
    /// Apply what is missing
    #[command(after_help = "Example:\n  paywright migrate up --dry-run")]
    Up(Steps),
    /// Revert, one migration unless --steps says more
    #[command(after_help = "Example:\n  paywright migrate down --steps 1")]
    Down(Down),
    /// List migrations and whether they are applied
    #[command(after_help = "Example:\n  paywright migrate status")]
    Status,
}

#[derive(Debug, Args)]
struct Steps {
    /// At most so many
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Down {
    #[command(flatten)]
    steps: Steps,
    /// Revert although data is lost with it
    #[arg(long)]
    lose_data: bool,
}

#[derive(Debug, Subcommand)]
enum Merchant {
    /// Create a merchant with a first API key, which is shown once
    #[command(after_help = "Example:\n  paywright merchant create 'Tea Shop' --json")]
    Create {
        /// The merchant's name, 1 to 200 characters
        name: String,
        /// Print one line of JSON and nothing else
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Create a further key, which is shown once
    #[command(after_help = "Example:\n  paywright key create 0190... --scope read --json")]
    Create {
        /// The merchant's id
        merchant: Uuid,
        /// What the key may do
        #[arg(long, value_enum, default_value = "write")]
        scope: KeyScope,
        /// When it stops being valid
        #[arg(long, value_name = "RFC3339", value_parser = parse_time)]
        expires: Option<OffsetDateTime>,
        /// Print one line of JSON and nothing else
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key for good; within 5 seconds no process takes it any more
    #[command(after_help = "Example:\n  paywright key revoke 0190... 0191...")]
    Revoke {
        /// The merchant's id
        merchant: Uuid,
        /// The key's id
        key: Uuid,
        /// Print one line of JSON and nothing else
        #[arg(long)]
        json: bool,
    },
    /// List a merchant's keys, without secrets
    #[command(after_help = "Example:\n  paywright key list 0190...")]
    List {
        /// The merchant's id
        merchant: Uuid,
        /// Print one line of JSON and nothing else
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KeyScope {
    Read,
    Write,
}

impl From<KeyScope> for Scope {
    fn from(scope: KeyScope) -> Self {
        match scope {
            KeyScope::Read => Self::Read,
            KeyScope::Write => Self::Write,
        }
    }
}

fn parse_time(text: &str) -> Result<OffsetDateTime, &'static str> {
    OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| "must be a time of RFC 3339, such as 2027-01-01T00:00:00Z")
}

fn settings_help() -> String {
    let mut text =
        "Settings, from the environment or --config; any may come from a file by NAME_FILE:\n".to_owned();
    let width = SETTINGS.iter().map(|setting| setting.name.len()).max().unwrap_or_default();
    for setting in &SETTINGS {
        let default = setting.default.map(|value| format!(" [{value}]")).unwrap_or_default();
        text.push_str(&format!("  {:<width$} {}{default}\n", setting.name, setting.help));
    }
    text
}

/// Why a command did not do what it was asked to: one message, and how the program exits.
struct Failure {
    message: String,
    exit: u8,
}

/// A wrong setting or argument.
fn wrong(message: impl Display) -> Failure {
    Failure { message: message.to_string(), exit: 2 }
}

/// Something outside went wrong.
fn failed(message: impl Display) -> Failure {
    Failure { message: message.to_string(), exit: 1 }
}

/// Whether something is so could not be found out: where exit 1 says that it is not.
fn undecided(message: impl Display) -> Failure {
    Failure { message: message.to_string(), exit: 2 }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        wrong(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        failed(error)
    }
}

impl From<CreateKeyError> for Failure {
    fn from(error: CreateKeyError) -> Self {
        match error {
            CreateKeyError::Store(error) => error.into(),
            other => failed(other),
        }
    }
}

/// Runs the command that was asked for.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(failure) => {
            // the last word of the program, also where logs go elsewhere
            let _ = writeln!(std::io::stderr(), "paywright: {}", failure.message);
            ExitCode::from(failure.exit)
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode, Failure> {
    if let Command::Openapi = cli.command {
        print(openapi::text().trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let source = Source::open(cli.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    match cli.command {
        Command::Serve { no_worker } => {
            return serve(&source, runtime, Parts { http: true, worker: !no_worker });
        }
        Command::Worker => return serve(&source, runtime, Parts { http: false, worker: true }),
        _ => {}
    }
    // a pool starts its upkeep where it is made
    let _context = runtime.enter();
    match cli.command {
        Command::Migrate(command) => runtime.block_on(migrate(&source, command))?,
        Command::Merchant(Merchant::Create { name, json }) => {
            runtime.block_on(create_merchant(&store(&source)?, &name, json))?;
        }
        Command::Key(command) => return runtime.block_on(manage_keys(&store(&source)?, command)),
        Command::Reconcile { since } => return runtime.block_on(reconcile(&source, since)),
        Command::Healthcheck => return healthcheck(&source),
        // answered above
        Command::Openapi | Command::Serve { .. } | Command::Worker => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn store(source: &Source) -> Result<Store, Failure> {
    let database = source.database()?;
    Ok(Store::open(database.options, 1, database.pooler))
}

/// Runs the service in `runtime`. Telemetry begins before it and ends after it.
fn serve(source: &Source, runtime: Runtime, parts: Parts) -> Result<ExitCode, Failure> {
    let settings = Settings::read(source)?;
    let telemetry = Telemetry::start(source.log_format()?, &source.otlp()?).map_err(wrong)?;
    let served = runtime.block_on(run_service(settings, parts, telemetry.registry()));
    runtime.shutdown_timeout(LEFTOVERS);
    telemetry.stop();
    served.map(|()| ExitCode::SUCCESS)
}

/// What the service needs to know before it starts.
struct Settings {
    database: Database,
    provider: ProviderApi,
    service: Service,
    listeners: Listeners,
}

impl Settings {
    fn read(source: &Source) -> Result<Self, ConfigError> {
        let provider = source.provider()?;
        let service = source.service(&provider)?;
        Ok(Self { database: source.database()?, provider, service, listeners: source.listeners()? })
    }
}

async fn run_service(settings: Settings, parts: Parts, registry: Registry) -> Result<(), Failure> {
    let Settings { database, provider, service, mut listeners } = settings;
    // whoever may be in a request may wait for the provider: fewer places would refuse what was let in
    let places = Places { callers: service.max_in_flight, background: worker::PLACES };
    let client =
        provider::Client::new(&provider.url, &provider.api_key, provider.timeout, places).map_err(failed)?;
    if parts.http {
        let others = usize::try_from(database.connections)
            .unwrap_or(usize::MAX)
            .saturating_add(places.callers)
            .saturating_add(places.background)
            .saturating_add(OTHER_CONNECTIONS);
        listeners.max_connections = open_files::connections(listeners.max_connections, others);
    }
    let sockets = Sockets::bind(listeners, parts)
        .map_err(|(name, address, error)| wrong(format!("{name}: cannot listen on {address}: {error}")))?;
    let shutdown = terminated()?;
    let store = Store::open(database.options, database.connections, database.pooler);
    let app = Arc::new(App::new(store, client, service, registry));
    if !parts.worker {
        tokio::spawn(worker::keep_probing(Arc::clone(&app)));
    }
    let public = parts.http.then(|| tracing::field::display(listeners.public));
    tracing::info!(public, operations = %listeners.operations, worker = parts.worker, "started");
    run_server(app, sockets, parts, shutdown).await;
    Ok(())
}

/// Ends with SIGTERM or SIGINT.
fn terminated() -> Result<impl Future<Output = ()>, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn migrate(source: &Source, command: Migrate) -> Result<(), Failure> {
    let options = source.migration_database()?;
    let plan = match command {
        Migrate::Status => {
            for Step { version, name, applied } in migrate::status(&options).await.map_err(failed)? {
                print(&format!("{version:04} {name}: {}", if applied { "applied" } else { "missing" }))?;
            }
            return Ok(());
        }
        Migrate::Up(Steps { steps, dry_run }) => {
            Plan { direction: Direction::Up, steps, dry_run, lose_data: false }
        }
        // without a number everything would go, and that is never what was meant
        Migrate::Down(Down { steps: Steps { steps, dry_run }, lose_data }) => {
            Plan { direction: Direction::Down, steps: steps.or(Some(1)), dry_run, lose_data }
        }
    };
    let made = migrate::migrate(&options, plan).await.map_err(failed)?;
    let word = match (plan.direction, plan.dry_run) {
        (Direction::Up, false) => "applied",
        (Direction::Up, true) => "would be applied",
        (Direction::Down, false) => "reverted",
        (Direction::Down, true) => "would be reverted",
    };
    for step in &made {
        print(&format!("{:04} {}: {word}", step.version, step.name))?;
    }
    if made.is_empty() {
        print("nothing to do")?;
    }
    Ok(())
}

async fn create_merchant(store: &Store, name: &str, json: bool) -> Result<(), Failure> {
    let name = MerchantName::parse(name).map_err(|error| wrong(format!("the merchant's name {error}")))?;
    let (key_id, key) = merchants::create(store, &name).await?;
    if json {
        return print_key(key_id, &key);
    }
    print(&format!("merchant  {}\nkey       {key_id}\napi key   {}", key.merchant_id(), key.reveal()))?;
    print("The API key is shown only now: keep it.")
}

fn print_key(key_id: KeyId, key: &merchants::ApiKey) -> Result<(), Failure> {
    let line = json!({
        "merchant_id": key.merchant_id().to_string(), "key_id": key_id.to_string(), "api_key": key.reveal(),
    });
    print(&line.to_string())
}

async fn manage_keys(store: &Store, command: Key) -> Result<ExitCode, Failure> {
    match command {
        Key::Create { merchant, scope, expires, json } => {
            let (key_id, key) =
                merchants::create_key(store, MerchantId(merchant), scope.into(), expires).await?;
            if json {
                print_key(key_id, &key)?;
            } else {
                print(&format!("key       {key_id}\napi key   {}", key.reveal()))?;
                print("The API key is shown only now: keep it.")?;
            }
        }
        Key::Revoke { merchant, key, json } => {
            let revoked = store.revoke_key(MerchantId(merchant), KeyId(key)).await?;
            if json {
                print(&json!({ "key_id": key, "revoked": revoked }).to_string())?;
            } else if revoked {
                print("revoked")?;
            }
            if !revoked {
                return Err(failed("there is no such key, or it was revoked before"));
            }
        }
        Key::List { merchant, json } => {
            let keys = store.list_keys(MerchantId(merchant)).await?;
            let time = |at: Option<OffsetDateTime>| at.map(crate::answer::rfc3339);
            if json {
                let list: Vec<_> = keys
                    .iter()
                    .map(|key| {
                        json!({
                            "key_id": key.key_id.to_string(), "scope": key.scope.name(),
                            "created_at": time(Some(key.created_at)), "expires_at": time(key.expires_at),
                            "revoked_at": time(key.revoked_at),
                        })
                    })
                    .collect();
                print(&serde_json::Value::Array(list).to_string())?;
            } else {
                for key in keys {
                    let end = match (key.revoked_at, key.expires_at) {
                        (Some(at), _) => format!("revoked {}", crate::answer::rfc3339(at)),
                        (None, Some(at)) => format!("expires {}", crate::answer::rfc3339(at)),
                        (None, None) => "valid".to_owned(),
                    };
                    print(&format!("{}  {:<5}  {end}", key.key_id, key.scope.name()))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn reconcile(source: &Source, since: Option<OffsetDateTime>) -> Result<ExitCode, Failure> {
    let now = OffsetDateTime::now_utc();
    let since = since.unwrap_or(now - RECONCILED);
    if since > now {
        return Err(wrong("--since is in the future, where there is nothing to compare yet"));
    }
    let provider = source.provider()?;
    let windows = source.service(&provider)?.windows;
    let store = store(source)?;
    let places = Places { callers: 0, background: 1 };
    let client = provider::Client::new(&provider.url, &provider.api_key, provider.timeout, places)
        .map_err(undecided)?;
    let sources = Sources { store: &store, provider: &client, windows: &windows };
    let compared = reconcile::run(&sources, since).await;
    let report = compared.map_err(|error| undecided(format!("not compared: {error}")))?;
    print(&told(&report, since))?;
    Ok(if report.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn told(report: &Report, since: OffsetDateTime) -> String {
    let Report { charges, refunds, in_flight, foreign, differences } = report;
    let mut text = format!(
        "compared since {}: charges {charges}, refunds {refunds}\nnot compared: in flight {in_flight}, of other programs {foreign}",
        crate::answer::rfc3339(since)
    );
    if differences.is_empty() {
        text.push_str("\nno differences");
        return text;
    }
    text.push_str(&format!("\n\n{:<16}  {:>6}  first", "difference", "count"));
    for (kind, found) in differences {
        let mut head = format!("{:<16}  {:>6}", kind.name(), found.count);
        for first in &found.first {
            text.push_str(&format!("\n{head:<24}  {first}"));
            head.clear();
        }
    }
    text
}

/// Without a client library and without a shell: containers have neither.
fn healthcheck(source: &Source) -> Result<ExitCode, Failure> {
    let mut address = source.listeners()?.operations;
    if address.ip().is_unspecified() {
        let loopback: std::net::IpAddr = match address {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        };
        address.set_ip(loopback);
    }
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTH_PATIENCE)?;
        stream.set_read_timeout(Some(HEALTH_PATIENCE))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| failed(format!("{address} does not answer: {error}")))?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    print(body)?;
    let ready = answer.split(' ').nth(1) == Some("200");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A closed pipe is the reader's choice, and no panic.
fn print(line: &str) -> Result<(), Failure> {
    writeln!(std::io::stdout(), "{line}").map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_explains_itself_with_an_example() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example:"), "{} has no example", command.get_name());
            command.get_subcommands().for_each(check);
        }
        let cli = Cli::command();
        cli.clone().debug_assert();
        cli.get_subcommands().for_each(check);
    }
}
