//! The whole system as processes: PostgreSQL, the simulator and any number of services.
//!
//! The stack that developers run is the stack that tests run. What a test breaks, it breaks from outside: it kills,
//! pauses and restarts real processes, and the survivors have to cope.

mod description;
mod http;
mod merchant;
mod options;
mod programs;
mod server;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use sqlx::Connection;
use tokio::time::Instant;
use url::Url;

pub use description::Description;
pub use merchant::Merchant;
pub use options::StackOptions;

use crate::fault_proxy::FaultProxy;
use crate::lock::DirectoryLock;
use crate::login;
use crate::port::Port;
use crate::postgres::{self, Cluster, Durability, Postgres, Wanted};
use crate::process::{Environment, Output, Process, Spec};
use crate::watchdog::Guard;
use description::ServiceDescription;
use programs::Programs;
use server::{Attention, Server, attend};

/// The database in a cluster of our own.
const DATABASE: &str = "payments";
/// How long a program may take until it answers.
const READY_BOUND: Duration = Duration::from_secs(30);
/// What services get to finish their work in: their own default is as long. With the rest it stays below 15 seconds.
const SERVICE_GRACE: Duration = Duration::from_millis(10_500);
const SIMULATOR_GRACE: Duration = Duration::from_secs(1);

/// A service, with the ports that stay its own while it is restarted.
#[derive(Debug)]
struct Service {
    server: Server,
    api_url: String,
    ops_url: String,
    _ports: [Port; 2],
}

/// Everything that runs. Dropping it ends all of it at once, [`Stack::shutdown`] does so in order.
#[derive(Debug)]
pub struct Stack {
    options: StackOptions,
    programs: Programs,
    services: Vec<Service>,
    simulator: Option<Server>,
    simulator_port: Option<Port>,
    cluster: Option<Cluster>,
    cluster_attention: Attention,
    _cluster_port: Option<Port>,
    owner_url: String,
    provider_url: String,
    database_proxy: Option<FaultProxy>,
    provider_proxy: Option<FaultProxy>,
    merchant: Option<Merchant>,
    /// After the children, so that it outlives them when the stack is dropped.
    guard: Guard,
    /// Keeps a second stack out of the data directory.
    _lock: DirectoryLock,
}

impl Stack {
    /// Starts everything and waits until it answers.
    ///
    /// # Errors
    ///
    /// When something is missing or does not answer, with what to do about it.
    pub async fn start(options: StackOptions) -> Result<Stack> {
        let mut stack = Stack::new(options)?;
        stack.bring_up().await?;
        Ok(stack)
    }

    /// Takes the data directory and finds the programs; nothing runs yet.
    ///
    /// # Errors
    ///
    /// When a program is missing, or another stack uses the data directory.
    pub fn new(options: StackOptions) -> Result<Stack> {
        let programs = Programs::find(options.programs.as_deref(), options.provider_url.is_none())?;
        // PostgreSQL may run as another user, who has to pass through.
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&options.data_dir)
            .with_context(|| format!("cannot create {}", options.data_dir.display()))?;
        let options = StackOptions { data_dir: options.data_dir.canonicalize()?, ..options };
        let lock = DirectoryLock::take(&options.data_dir)?.ok_or_else(|| {
            let directory = options.data_dir.display();
            anyhow!("{directory} is in use by another devstack: stop it, or choose another --data-dir")
        })?;
        Ok(Stack {
            programs,
            services: Vec::new(),
            simulator: None,
            simulator_port: None,
            cluster: None,
            cluster_attention: Attention::default(),
            _cluster_port: None,
            owner_url: String::new(),
            database_proxy: None,
            provider_proxy: None,
            provider_url: String::new(),
            merchant: None,
            guard: Guard::start()?,
            _lock: lock,
            options,
        })
    }

    /// Starts everything. It may be abandoned half way: [`Stack::shutdown`] stops what was started.
    ///
    /// # Errors
    ///
    /// When something is missing or does not answer, with what to do about it.
    pub async fn bring_up(&mut self) -> Result<()> {
        // All ports first: a taken one should not be found out after a minute of installing packages.
        let first = [port(self.options.api_port, "--api-port")?, port(self.options.ops_port, "--ops-port")?];
        if self.options.provider_url.is_none() {
            self.simulator_port = Some(port(self.options.simulator_port, "--simulator-port")?);
        }
        self.clear_logs()?;
        self.bring_up_database().await?;
        self.bring_up_provider().await?;
        if self.options.database_proxy {
            self.database_proxy = Some(FaultProxy::start(host_and_port(&self.owner_url, 5432)?).await?);
        }
        if self.options.provider_proxy {
            self.provider_proxy = Some(FaultProxy::start(host_and_port(&self.provider_url, 80)?).await?);
        }

        if self.options.instances > 0 {
            self.tell("starting the service");
            self.spawn_service(first, &Environment::new())?;
        }
        for _ in 1..self.options.instances {
            self.spawn_service([Port::free()?, Port::free()?], &Environment::new())?;
        }
        for service in &mut self.services {
            service.server.ready(READY_BOUND).await?;
        }
        self.bring_up_merchant().await
    }

    /// Adds a service with settings of its own, waits until it is ready and returns its number.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub async fn add_service(&mut self, environment: &Environment) -> Result<usize> {
        let number = self.spawn_service([Port::free()?, Port::free()?], environment)?;
        self.service_server(number)?.ready(READY_BOUND).await?;
        Ok(number)
    }

    /// The URL of a service's public listener. Services are counted from 0.
    ///
    /// # Errors
    ///
    /// When there is no such service.
    pub fn api_url(&self, service: usize) -> Result<&str> {
        let found = self.services.get(service).ok_or_else(|| no_service(service))?;
        Ok(&found.api_url)
    }

    /// The URL of a service's operations listener.
    ///
    /// # Errors
    ///
    /// When there is no such service.
    pub fn ops_url(&self, service: usize) -> Result<&str> {
        let found = self.services.get(service).ok_or_else(|| no_service(service))?;
        Ok(&found.ops_url)
    }

    /// The simulator's URL, or that of the provider which replaces it.
    pub fn simulator_url(&self) -> &str {
        &self.provider_url
    }

    /// Whether the provider is the simulator.
    pub fn has_simulator(&self) -> bool {
        self.simulator.is_some()
    }

    /// The URL of the database's owner.
    pub fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// The merchant that everybody may play with; there is none before [`Stack::bring_up`] is through.
    ///
    /// # Errors
    ///
    /// When there is none yet.
    pub fn merchant(&self) -> Result<&Merchant> {
        self.merchant.as_ref().ok_or_else(|| anyhow!("there is no merchant before the stack is up"))
    }

    /// The whole environment, listeners aside, with which a further service joins.
    ///
    /// # Errors
    ///
    /// When the database's URL has no host.
    pub fn service_env(&self) -> Result<Environment> {
        let database_url = behind(self.database_proxy.as_ref(), &self.owner_url)?;
        let provider_url = behind(self.provider_proxy.as_ref(), &self.provider_url)?;
        self.options.service_env(&database_url, provider_url.trim_end_matches('/'))
    }

    /// What stands between the services and the database.
    ///
    /// # Errors
    ///
    /// When the options did not ask for it.
    pub fn database_proxy(&self) -> Result<&FaultProxy> {
        self.database_proxy.as_ref().ok_or_else(|| anyhow!("this stack has no proxy before its database"))
    }

    /// What stands between the services and the provider.
    ///
    /// # Errors
    ///
    /// When the options did not ask for it.
    pub fn provider_proxy(&self) -> Result<&FaultProxy> {
        self.provider_proxy.as_ref().ok_or_else(|| anyhow!("this stack has no proxy before its provider"))
    }

    /// Where everything is.
    ///
    /// # Errors
    ///
    /// Before the stack is up.
    pub fn description(&self) -> Result<Description> {
        let merchant = self.merchant()?;
        let services = self.services.iter().map(|service| ServiceDescription {
            api: service.api_url.clone(),
            ops: service.ops_url.clone(),
            pid: service.server.pid(),
        });
        Ok(Description {
            api: self.api_url(0)?.to_owned(),
            ops: self.ops_url(0)?.to_owned(),
            simulator: self.provider_url.clone(),
            database_url: self.owner_url.clone(),
            merchant_id: merchant.merchant_id.clone(),
            api_key: merchant.api_key.clone(),
            services: services.collect(),
            simulator_pid: self.simulator.as_ref().map(Server::pid),
            postgres_pid: self.cluster.as_ref().and_then(Cluster::pid),
            service_env: self.service_env()?,
        })
    }

    /// A service's process, to be killed, terminated, paused, resumed or waited for.
    ///
    /// # Errors
    ///
    /// When there is no such service.
    pub fn service(&mut self, service: usize) -> Result<&mut Process> {
        Ok(self.service_server(service)?.process())
    }

    /// The simulator's process.
    ///
    /// # Errors
    ///
    /// When another provider replaces it.
    pub fn simulator(&mut self) -> Result<&mut Process> {
        let simulator = self.simulator.as_mut().ok_or_else(|| anyhow!("this stack has no simulator"))?;
        Ok(simulator.process())
    }

    /// The process of the cluster's server.
    ///
    /// # Errors
    ///
    /// When the database was given by its URL.
    pub fn postgres(&mut self) -> Result<&mut Process> {
        self.cluster
            .as_mut()
            .and_then(Cluster::server)
            .ok_or_else(|| anyhow!("this stack runs no PostgreSQL"))
    }

    /// Kills a service if it still runs, starts it on its ports and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub async fn restart_service(&mut self, service: usize) -> Result<()> {
        self.restart_service_with(service, &Environment::new()).await
    }

    /// [`Stack::restart_service`] with settings that are added to its own, for good.
    ///
    /// # Errors
    ///
    /// When it does not become ready.
    pub async fn restart_service_with(&mut self, service: usize, environment: &Environment) -> Result<()> {
        let server = self.service_server(service)?;
        server.process().kill().await?;
        server.add_environment(environment);
        server.spawn()?;
        self.watch_children()?;
        self.service_server(service)?.ready(READY_BOUND).await
    }

    /// Kills the simulator if it still runs, starts it on its port and waits until it answers. Its ledger survives.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn restart_simulator(&mut self) -> Result<()> {
        let simulator = self.simulator.as_mut().ok_or_else(|| anyhow!("this stack has no simulator"))?;
        simulator.process().kill().await?;
        simulator.spawn()?;
        simulator.ready(READY_BOUND).await?;
        self.watch_children()
    }

    /// Kills PostgreSQL if it still runs, starts it on its port and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not answer.
    pub async fn restart_postgres(&mut self) -> Result<()> {
        let cluster = self.cluster.as_mut().ok_or_else(|| anyhow!("this stack runs no PostgreSQL"))?;
        if let Some(server) = cluster.server() {
            server.kill().await?;
        }
        cluster.start().await?;
        self.watch_children()
    }

    /// Looks after the children once, to be called several times a second: says which have ended and, if wanted,
    /// starts them again. True when one that was started again answers now.
    ///
    /// # Errors
    ///
    /// When a program can no longer be executed.
    pub async fn attend(&mut self, restart: bool) -> Result<bool> {
        let report = self.options.report;
        let mut answers = false;
        if let Some(cluster) = &mut self.cluster {
            answers |= attend(cluster, &mut self.cluster_attention, restart, report).await?;
        }
        let servers =
            self.simulator.iter_mut().chain(self.services.iter_mut().map(|service| &mut service.server));
        for server in servers {
            answers |= server.attend(restart, report).await?;
        }
        self.watch_children()?;
        Ok(answers)
    }

    /// Stops everything in order: services finish what they do, then the simulator, then PostgreSQL.
    ///
    /// # Errors
    ///
    /// When a process cannot be ended at all.
    pub async fn shutdown(mut self) -> Result<()> {
        let deadline = Instant::now() + SERVICE_GRACE;
        // All are asked first, or the time of one would be added to that of the next.
        for service in &mut self.services {
            service.server.process().terminate()?;
            service.server.process().resume()?;
        }
        for service in &mut self.services {
            let left = deadline.saturating_duration_since(Instant::now());
            service.server.process().stop(left).await?;
        }
        if let Some(simulator) = &mut self.simulator {
            simulator.process().stop(SIMULATOR_GRACE).await?;
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.stop().await?;
        }
        postgres::settled().await;
        self.guard.watch(std::iter::empty())
    }

    async fn bring_up_database(&mut self) -> Result<()> {
        let directory = self.options.data_dir.join("postgres");
        let wanted = Wanted { major: Cluster::version_of(&directory), ..self.options.postgres.clone() };
        match postgres::find(&wanted, self.options.report).await? {
            Postgres::Url(url) => self.owner_url = url,
            Postgres::Installed(installation) => {
                self.tell(&format!(
                    "starting PostgreSQL {} from {}",
                    installation.major(),
                    installation.origin()
                ));
                let port = Port::free()?;
                let durability = Durability::Durable;
                let report = self.options.report;
                let cluster =
                    Cluster::open(installation, &directory, durability, port.number(), report).await?;
                self.owner_url = cluster.url(DATABASE);
                self._cluster_port = Some(port);
                self.cluster.insert(cluster).start().await?;
                self.watch_children()?;
                create_database(&self.owner_url).await?;
            }
        }
        if self.options.migrate {
            self.tell("migrating the database");
            let environment =
                self.options.migration_env(&self.owner_url, &self.provider_url, self.cluster.is_some())?;
            self.programs.run(&["migrate", "up"], &environment).await?;
        }
        login::ensure(&self.owner_url).await
    }

    async fn bring_up_provider(&mut self) -> Result<()> {
        if let Some(url) = &self.options.provider_url {
            self.provider_url = url.trim_end_matches('/').to_owned();
            return Ok(());
        }
        let Some(port) = &self.simulator_port else { bail!("the simulator has no port") };
        self.tell("starting the provider's simulator");
        let listen = format!("127.0.0.1:{}", port.number());
        self.provider_url = format!("http://{listen}");
        let spec = Spec::new("the simulator", self.programs.simulator(), self.log("simulator"))
            .argument("--listen")
            .argument(listen)
            .argument("--ledger")
            .argument(self.options.data_dir.join("ledger.jsonl"));
        let simulator = Server::spawn_from(spec, format!("{}/_sim/settings", self.provider_url), None)?;
        let simulator = self.simulator.insert(simulator);
        simulator.ready(READY_BOUND).await?;
        self.watch_children()
    }

    fn spawn_service(&mut self, ports: [Port; 2], environment: &Environment) -> Result<usize> {
        let number = self.services.len();
        let [api, ops] = ports.each_ref().map(|port| format!("127.0.0.1:{}", port.number()));
        let listeners = Environment::from([
            ("PAYWRIGHT_LISTEN".to_owned(), api.clone()),
            ("PAYWRIGHT_OPS_LISTEN".to_owned(), ops.clone()),
        ]);
        let output = if self.options.inherit_output {
            Output::Inherit
        } else {
            self.log(&format!("service-{number}"))
        };
        let spec = Spec::new(format!("service {number}"), self.programs.service(), output)
            .argument("serve")
            .environment(&self.service_env()?)
            .environment(environment)
            .environment(&listeners);
        let (api_url, ops_url) = (format!("http://{api}"), format!("http://{ops}"));
        // Ready says that it can work, live that it is there: a restart must not wait for the database.
        let server = Server::spawn_from(spec, format!("{ops_url}/readyz"), Some(format!("{ops_url}/livez")))?;
        self.services.push(Service { server, api_url, ops_url, _ports: ports });
        self.watch_children()?;
        Ok(number)
    }

    async fn bring_up_merchant(&mut self) -> Result<()> {
        let file = self.options.data_dir.join("merchant.json");
        let api_url = self.services.first().map(|service| service.api_url.clone());
        let merchant = match merchant::read(&file) {
            Some(known) if merchant::is_valid(&known, api_url.as_deref()).await? => known,
            _ => {
                self.tell("creating a merchant to play with");
                let arguments = ["merchant", "create", "demo", "--json"];
                let line = self.programs.run(&arguments, &self.service_env()?).await?;
                merchant::keep(&line, &file)?
            }
        };
        self.merchant = Some(merchant);
        Ok(())
    }

    fn service_server(&mut self, service: usize) -> Result<&mut Server> {
        let found = self.services.get_mut(service).ok_or_else(|| no_service(service))?;
        Ok(&mut found.server)
    }

    /// Keeps the watchdog's list what it should be: a number that is free again may be anybody's.
    fn watch_children(&mut self) -> Result<()> {
        let services = self.services.iter().map(|service| ("TERM", service.server.pid()));
        let simulator = self.simulator.iter().map(|simulator| ("TERM", simulator.pid()));
        let postgres = self.cluster.iter().filter_map(Cluster::pid).map(|pid| ("INT", pid));
        self.guard.watch(services.chain(simulator).chain(postgres))
    }

    fn log(&self, name: &str) -> Output {
        Output::File(self.options.data_dir.join("logs").join(format!("{name}.log")))
    }

    fn clear_logs(&self) -> Result<()> {
        let logs = self.options.data_dir.join("logs");
        if logs.exists() {
            fs::remove_dir_all(&logs)?;
        }
        fs::create_dir(&logs)?;
        Ok(())
    }

    fn tell(&self, line: &str) {
        (self.options.report)(line);
    }
}

fn host_and_port(url: &str, usual: u16) -> Result<String> {
    let url = Url::parse(url)?;
    let host = url.host_str().ok_or_else(|| anyhow!("only what has a host can stand behind a proxy"))?;
    Ok(format!("{host}:{}", url.port_or_known_default().unwrap_or(usual)))
}

/// The URL as it is seen from before the proxy, if there is one.
fn behind(proxy: Option<&FaultProxy>, url: &str) -> Result<String> {
    let Some(proxy) = proxy else { return Ok(url.to_owned()) };
    let mut url = Url::parse(url)?;
    url.set_host(Some("127.0.0.1"))?;
    url.set_port(Some(proxy.port())).map_err(|()| anyhow!("{url} can have no port"))?;
    Ok(url.into())
}

fn no_service(service: usize) -> anyhow::Error {
    anyhow!("there is no service {service}")
}

fn port(number: u16, flag: &str) -> Result<Port> {
    Port::of(number)?.ok_or_else(|| {
        anyhow!("port {number} is taken: stop what listens there, or choose another with {flag}")
    })
}

async fn create_database(owner_url: &str) -> Result<()> {
    let mut connection = login::connect_common(owner_url).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(DATABASE)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        login::execute(&mut connection, format!("CREATE DATABASE {DATABASE}")).await?;
    }
    connection.close().await?;
    Ok(())
}
