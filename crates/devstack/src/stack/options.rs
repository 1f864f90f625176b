//! What a stack consists of, and what its services are told.

use std::path::PathBuf;

use anyhow::Result;

use crate::postgres::Wanted;
use crate::process::Environment;
use crate::{Report, login, silent};

/// The key that the simulator is spoken to with; it takes any.
const PROVIDER_API_KEY: &str = "sk_test_devstack";
/// Settings that the stack decides by itself, so that the caller's would only contradict it.
const DECIDED_HERE: &[&str] = &[
    "PAYWRIGHT_BIN_DIR",
    "PAYWRIGHT_LISTEN",
    "PAYWRIGHT_OPS_LISTEN",
    "PAYWRIGHT_PROVIDER_URL",
    "PAYWRIGHT_PROVIDER_URL_FILE",
    MIGRATION_DATABASE_URL,
    "PAYWRIGHT_MIGRATION_DATABASE_URL_FILE",
];
const MIGRATION_DATABASE_URL: &str = "PAYWRIGHT_MIGRATION_DATABASE_URL";

/// What to run, and how. [`StackOptions::new`] is what a test wants.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// Where everything that lasts is kept; a later stack with the same directory goes on with it.
    ///
    /// A cluster started by root runs as another user: where that user cannot pass, its data goes below `/var/tmp`.
    pub data_dir: PathBuf,
    /// The database: the owner's URL, or where the PostgreSQL for a cluster of our own comes from.
    pub postgres: Wanted,
    /// Whether to migrate; not needed on a database that has been.
    pub migrate: bool,
    /// A provider to use instead of the simulator.
    pub provider_url: Option<String>,
    /// Whether a [`crate::FaultProxy`] stands between the services and the database.
    pub database_proxy: bool,
    /// The same between the services and the provider.
    pub provider_proxy: bool,
    /// How many services to start.
    pub instances: usize,
    /// The first service's public port, 0 for a free one. Further services get free ones.
    pub api_port: u16,
    /// The first service's operations port, 0 for a free one.
    pub ops_port: u16,
    /// The simulator's port, 0 for a free one.
    pub simulator_port: u16,
    /// Settings for all services, `PAYWRIGHT_SYNC_WAIT` for example.
    pub environment: Environment,
    /// Where the programs are, if not beside this one.
    pub programs: Option<PathBuf>,
    /// Whether services write to our standard output and error instead of files in the data directory.
    pub inherit_output: bool,
    /// Where progress is told.
    pub report: Report,
}

impl StackOptions {
    /// One service, the simulator and a cluster of our own, on free ports, in silence.
    pub fn new(data_dir: impl Into<PathBuf>) -> StackOptions {
        StackOptions {
            data_dir: data_dir.into(),
            postgres: Wanted::default(),
            migrate: true,
            provider_url: None,
            database_proxy: false,
            provider_proxy: false,
            instances: 1,
            api_port: 0,
            ops_port: 0,
            simulator_port: 0,
            environment: Environment::new(),
            programs: None,
            inherit_output: false,
            report: silent,
        }
    }

    /// The same with a database that exists, such as a [`crate::TestDatabase`]'s `owner_url`.
    #[must_use]
    pub fn database(mut self, owner_url: impl Into<String>) -> StackOptions {
        self.postgres = Wanted { url: Some(owner_url.into()), ..Wanted::default() };
        self
    }

    /// The whole environment, listeners aside, with which a service joins.
    pub(super) fn service_env(&self, owner_url: &str, provider_url: &str) -> Result<Environment> {
        let mut environment = Environment::from([("PAYWRIGHT_RATE_LIMIT".to_owned(), "0".to_owned())]);
        if !self.environment.contains_key("PAYWRIGHT_PROVIDER_API_KEY_FILE") {
            environment.insert("PAYWRIGHT_PROVIDER_API_KEY".to_owned(), PROVIDER_API_KEY.to_owned());
        }
        let passed_on = self.environment.iter().filter(|(name, _)| !DECIDED_HERE.contains(&name.as_str()));
        environment.extend(passed_on.map(|(name, value)| (name.clone(), value.clone())));
        environment.insert("DATABASE_URL".to_owned(), login::service_url(owner_url)?);
        environment.insert("PAYWRIGHT_PROVIDER_URL".to_owned(), provider_url.to_owned());
        Ok(environment)
    }

    /// The services' environment with the owner's database.
    pub(super) fn migration_env(
        &self,
        owner_url: &str,
        provider_url: &str,
        is_own_cluster: bool,
    ) -> Result<Environment> {
        let mut environment = self.service_env(owner_url, provider_url)?;
        environment.insert("DATABASE_URL".to_owned(), owner_url.to_owned());
        // It names a database of the caller's, so it has no meaning for a cluster of ours.
        if let Some(url) = self.environment.get(MIGRATION_DATABASE_URL).filter(|_| !is_own_cluster) {
            environment.insert(MIGRATION_DATABASE_URL.to_owned(), url.clone());
        }
        Ok(environment)
    }
}
