//! A world for one test: a database, a simulator, services.

use crate::checker::{Attempt, Database, Ledger, check};
use crate::{Api, Findings, History, Profile, Simulator, programs};
use anyhow::{Context, Result, anyhow, ensure};
use devstack::{Stack, StackOptions, TestDatabase};
use sqlx::PgPool;
use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// How many keys are asked for at once.
const AT_ONCE: usize = 32;

/// How a world is made.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    instances: usize,
    profile: Profile,
    environment: Vec<(&'static str, String)>,
    provider: Option<String>,
    own_cluster: bool,
    proxied: [bool; 2],
}

impl Default for WorldOptions {
    fn default() -> Self {
        Self {
            instances: 1,
            profile: Profile::Debug,
            environment: Vec::new(),
            provider: None,
            own_cluster: false,
            proxied: [false; 2],
        }
    }
}

impl WorldOptions {
    /// So many service processes.
    #[must_use]
    pub fn instances(mut self, instances: usize) -> Self {
        self.instances = instances;
        self
    }

    /// This build.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// A setting of all services.
    #[must_use]
    pub fn set(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    /// A provider of the test's own instead of the simulator.
    #[must_use]
    pub fn provider(mut self, url: &str) -> Self {
        self.provider = Some(url.to_owned());
        self
    }

    /// A PostgreSQL of its own, which may be killed, with durable defaults.
    #[must_use]
    pub fn own_cluster(mut self) -> Self {
        self.own_cluster = true;
        self
    }

    /// A [`devstack::FaultProxy`] between the services and the database.
    #[must_use]
    pub fn database_proxy(mut self) -> Self {
        self.proxied[0] = true;
        self
    }

    /// A [`devstack::FaultProxy`] between the services and the provider.
    #[must_use]
    pub fn provider_proxy(mut self) -> Self {
        self.proxied[1] = true;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn start(self) -> Result<World> {
        let profile = self.profile;
        let programs = tokio::task::spawn_blocking(move || programs(profile)).await??;
        let data = tempfile::tempdir()?;
        let mut options = StackOptions::new(data.path());
        let mut database = None;
        if !self.own_cluster {
            let migrations = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
            let created = TestDatabase::create(&migrations).await?;
            options = options.database(created.owner_url());
            options.migrate = false;
            database = Some(created);
        }
        options.instances = self.instances;
        options.programs = Some(programs);
        options.provider_url = self.provider;
        [options.database_proxy, options.provider_proxy] = self.proxied;
        options.environment =
            self.environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let stack = Stack::start(options).await?;
        let pool = PgPool::connect(stack.owner_url()).await?;
        let http = reqwest::Client::builder().tls_certs_only([]).build()?;
        let api = Api {
            url: stack.api_url(0)?.to_owned(),
            key: stack.merchant()?.api_key.clone(),
            http: http.clone(),
            history: History::default(),
        };
        let simulator = Simulator::at(stack.simulator_url(), http);
        Ok(World { api, simulator, stack, pool, database, profile, data })
    }
}

/// A database, a simulator and services of a test's own.
pub struct World {
    /// The first service, as its merchant sees it.
    pub api: Api,
    /// The provider.
    pub simulator: Simulator,
    /// The processes.
    pub stack: Stack,
    /// The database, as its owner.
    pub pool: PgPool,
    /// The database, if it is not in a cluster of the world's own.
    database: Option<TestDatabase>,
    pub(crate) profile: Profile,
    data: TempDir,
}

impl World {
    /// One service with its default settings.
    ///
    /// # Errors
    /// Something cannot be started.
    pub async fn start() -> Result<Self> {
        WorldOptions::default().start().await
    }

    /// A service, as the merchant sees it.
    ///
    /// # Errors
    /// There is no such service.
    pub fn api_of(&self, service: usize) -> Result<Api> {
        Ok(self.api.at(self.stack.api_url(service)?))
    }

    /// What a service has logged.
    ///
    /// # Errors
    /// It has no log.
    pub fn log(&self, service: usize) -> Result<String> {
        let path = self.data.path().join("logs").join(format!("service-{service}.log"));
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Where what this world runs may write; it is removed with it.
    pub(crate) fn directory(&self) -> &Path {
        self.data.path()
    }

    /// All services, as the merchant sees them.
    #[must_use]
    pub fn apis(&self) -> Vec<Api> {
        (0..).map_while(|service| self.api_of(service).ok()).collect()
    }

    /// A further merchant, as it sees the first service.
    ///
    /// # Errors
    /// The program fails.
    pub async fn new_merchant(&self, name: &str) -> Result<Api> {
        let mut command = tokio::process::Command::new(programs(self.profile)?.join("paywright"));
        command.args(["merchant", "create", name, "--json"]).envs(self.stack.service_env()?);
        let output = command.output().await?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let created: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let key = created["api_key"].as_str().context("an API key")?.to_owned();
        Ok(Api { key, ..self.api.clone() })
    }

    /// Waits until no operation is open.
    ///
    /// # Errors
    /// It takes longer than `bound`.
    pub async fn at_rest(&self, bound: Duration) -> Result<()> {
        eventually(bound, "every operation settled", async || Ok(self.open_operations().await? == 0)).await
    }

    /// How many operations that somebody asked for have no outcome.
    ///
    /// # Errors
    /// The database.
    pub async fn open_operations(&self) -> Result<i64> {
        let count = sqlx::query_scalar(
            "SELECT count(*) FROM operations WHERE settled_at IS NULL AND idempotency_key IS NOT NULL",
        );
        Ok(count.fetch_one(&self.pool).await?)
    }

    /// Asks once more for everything that was settled, at all services: the answers belong to the history.
    pub async fn ask_again(&self) {
        let mut asked = HashSet::new();
        let attempts = self.api.history.attempts().into_iter().filter(Attempt::is_settled);
        let mut settled =
            attempts.filter(|attempt| asked.insert((attempt.api_key.clone(), attempt.key.clone())));
        loop {
            let mut asking = JoinSet::new();
            for (attempt, api) in settled.by_ref().take(AT_ONCE).zip(self.apis().into_iter().cycle()) {
                let api = Api { key: attempt.api_key, ..api };
                asking.spawn(async move { api.post(&attempt.path, &attempt.key, &attempt.body).await });
            }
            if asking.is_empty() {
                return;
            }
            // who is not there does not answer
            asking.join_all().await;
        }
    }

    /// Asks all three witnesses: the provider's ledger, the database, and what the clients remember.
    ///
    /// # Errors
    /// One of them does not answer.
    pub async fn check(&self) -> Result<Findings> {
        let ledger = Ledger::read(&self.simulator.ledger().await?)?;
        let database = Database::read(&self.pool).await?;
        Ok(check(&ledger, &database, &self.api.history.attempts()))
    }

    /// Ends a test: nothing may be open, and all witnesses must agree. Then everything is stopped.
    ///
    /// # Errors
    /// Something is left, or does not agree.
    pub async fn finish(self) -> Result<()> {
        self.at_rest(Duration::from_secs(60)).await?;
        self.check().await?.verdict()?;
        self.stop().await
    }

    /// Stops everything without looking at it.
    ///
    /// # Errors
    /// Something does not stop.
    pub async fn stop(self) -> Result<()> {
        self.stack.shutdown().await?;
        self.pool.close().await;
        match self.database {
            Some(database) => database.close().await,
            None => Ok(()),
        }
    }
}

/// Waits for a value, not for time: asks until `probe` says yes.
///
/// # Errors
/// It has not said so within `bound`, or fails.
pub async fn eventually(
    bound: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let began = Instant::now();
    while !probe().await? {
        if began.elapsed() > bound {
            return Err(anyhow!("not within {bound:?}: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
