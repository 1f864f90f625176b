//! Shows that the service works behind a transaction pooler, and only with the setting that says so.
//!
//! PgBouncer shares a few connections to the server among many of the service's, one transaction each. What is prepared on
//! one of them is not there on the next, and settings at the start are refused.

use anyhow::{Context, Result, ensure};
use clap::Args;
use devstack::port::Port;
use devstack::process::{Environment, Output, Process, Spec};
use e2e::{Client, Figures, World, WorldOptions, eventually};
use reqwest::Url;
use sqlx::postgres::PgConnectOptions;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;
use tokio::task::JoinSet;

/// Connections of the service, and what they share at the server.
const CONNECTIONS: &str = "20";
const SHARED: i64 = 3;
const AT_ONCE: usize = 20;
const PATIENCE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(15);

/// The service behind PgBouncer in transaction mode: twenty connections that are three at the server.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill pooler --customers 200")]
pub struct Options {
    /// How many customers there are
    #[arg(long, default_value_t = 400)]
    customers: usize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let Some(program) = find("pgbouncer") else {
        ensure!(std::env::var_os("NO_SKIP").is_none(), "no pgbouncer, and NO_SKIP is set");
        println!("skipped: no pgbouncer; Debian has it as a package of this name");
        return Ok(());
    };
    let mut world = WorldOptions::default()
        .own_cluster()
        .set("PAYWRIGHT_DATABASE_CONNECTIONS", CONNECTIONS)
        .start()
        .await?;
    let pooler = Pooler::start(&world, &program).await?;
    let mut figures = Figures::default();

    let url = ("DATABASE_URL".to_owned(), pooler.url.clone());
    let without = world.stack.restart_service_with(0, &Environment::from([url])).await;
    figures.holds("it is not ready without the setting", without.is_err());
    let setting = ("PAYWRIGHT_DATABASE_POOLER".to_owned(), "transaction".to_owned());
    world.stack.restart_service_with(0, &Environment::from([setting])).await?;

    let (served, most) = serve(&world, options.customers).await?;
    figures.exactly("customers served", served, options.customers);
    figures.exactly("connections at the server", most, SHARED);
    world.at_rest(PATIENCE).await?;
    figures.findings(&world.check().await?);
    println!("behind a transaction pooler:\n{figures}");
    // the service's connections go before the pooler, and the pooler before the server
    world.stack.service(0)?.stop(SOON).await?;
    pooler.stop().await?;
    world.stop().await?;
    figures.verdict()
}

/// How many stories came to their end, and how many connections the server saw at most.
async fn serve(world: &World, customers: usize) -> Result<(usize, i64)> {
    let client = Client::of(&world.apis(), PATIENCE);
    let (mut serving, mut begun, mut served, mut most) = (JoinSet::new(), 0, 0, 0);
    loop {
        while serving.len() < AT_ONCE && begun < customers {
            let client = client.clone();
            serving.spawn(async move { client.serve_customer().await });
            begun += 1;
        }
        let Some(story) = serving.join_next().await else { return Ok((served, most)) };
        served += usize::from(story?.is_ok());
        let statement = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'payments_login'";
        most = most.max(sqlx::query_scalar(statement).fetch_one(&world.pool).await?);
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|folder| folder.join(program)).find(|file| file.is_file())
}

struct Pooler {
    process: Process,
    /// The database, through it.
    url: String,
    directory: PathBuf,
    _port: Port,
}

impl Pooler {
    async fn start(world: &World, program: &Path) -> Result<Self> {
        let environment = world.stack.service_env()?;
        let mut url = Url::parse(environment.get("DATABASE_URL").context("a database")?)?;
        let (user, password) = (url.username().to_owned(), url.password().unwrap_or_default().to_owned());
        let (host, server) = (url.host_str().context("a host")?.to_owned(), url.port().unwrap_or(5432));
        let port = Port::free()?;
        let directory = PathBuf::from(format!("/var/tmp/payments-pooler-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        fs::write(directory.join("users"), format!("\"{user}\" \"{password}\"\n"))?;
        let settings = directory.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = host={host} port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {SHARED}\n",
            port.number(),
            directory.join("users").display(),
        );
        fs::write(&settings, text)?;
        let mut spec = Spec::new("PgBouncer", program, Output::File(directory.join("log")));
        // it refuses to be root
        if fs::metadata(&directory)?.uid() == 0 {
            spec = spec.argument("-u").argument("nobody");
        }
        let process = spec.argument(&settings).spawn()?;
        url.set_port(Some(port.number())).ok().context("a port")?;
        let pooler = Self { process, url: url.into(), directory, _port: port };
        let options = PgConnectOptions::from_str(&pooler.url)?.extra_float_digits(None);
        eventually(SOON, "PgBouncer answers", async || {
            Ok(sqlx::PgPool::connect_with(options.clone()).await.is_ok())
        })
        .await
        .with_context(|| fs::read_to_string(pooler.directory.join("log")).unwrap_or_default())?;
        Ok(pooler)
    }

    async fn stop(mut self) -> Result<()> {
        self.process.stop(SOON).await?;
        Ok(fs::remove_dir_all(&self.directory)?)
    }
}
