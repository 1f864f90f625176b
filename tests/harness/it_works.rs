//! The service that most tutorials end with, as a process beside a world's own: `tests/it-works/main.rs`.

use crate::{Api, Simulator, World, eventually, programs};
use anyhow::{Result, bail};
use devstack::port::Port;
use devstack::process::{Environment, Output, Process, Spec};
use devstack::{Guard, TestDatabase};
use std::time::Duration;

/// How long it may take until it answers.
const READY_BOUND: Duration = Duration::from_secs(30);
/// It has nothing to finish when it is asked to end.
const GRACE: Duration = Duration::from_secs(1);

/// The program `it-works`, with a database of its own and a world's provider. It does not ask who calls.
#[derive(Debug)]
pub struct ItWorks {
    /// As a customer sees it.
    pub api: Api,
    /// Its provider, which is the world's.
    pub simulator: Simulator,
    process: Process,
    spec: Spec,
    database: TestDatabase,
    _port: Port,
    /// After the process, so that it outlives it when this value is dropped.
    guard: Guard,
}

impl ItWorks {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// It cannot be started.
    pub async fn beside(world: &World) -> Result<Self> {
        let profile = world.profile;
        let directory = tokio::task::spawn_blocking(move || programs(profile)).await??;
        let database = TestDatabase::empty().await?;
        let port = Port::free()?;
        let listen = format!("127.0.0.1:{}", port.number());
        let settings = [
            ("DATABASE_URL", database.owner_url()),
            ("LISTEN", &listen),
            ("PROVIDER_URL", world.stack.simulator_url()),
            ("PROVIDER_API_KEY", "sk_test_devstack"),
        ];
        let settings: Environment =
            settings.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let log = Output::File(world.directory().join("it-works.log"));
        let spec = Spec::new("it-works", directory.join("it-works"), log).environment(&settings);
        let guard = Guard::start()?;
        let process = spec.spawn()?;
        let api = world.api.at(&format!("http://{listen}"));
        let simulator = world.simulator.clone();
        let mut started = Self { api, simulator, process, spec, database, _port: port, guard };
        started.ready().await?;
        Ok(started)
    }

    /// Ends it at once, with SIGKILL.
    ///
    /// # Errors
    /// It is still there.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await?;
        Ok(())
    }

    /// Kills it if it still runs, starts it on its port and waits until it answers.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill().await?;
        self.process = self.spec.spawn()?;
        self.ready().await
    }

    /// Ends it and drops its database.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(mut self) -> Result<()> {
        self.process.stop(GRACE).await?;
        // its number may soon be anybody's
        self.guard.watch(std::iter::empty())?;
        self.database.close().await
    }

    async fn ready(&mut self) -> Result<()> {
        self.guard.watch(std::iter::once(("TERM", self.process.pid())))?;
        let (process, api, log) = (&mut self.process, &self.api, self.spec.log());
        eventually(READY_BOUND, "it-works answers", async || {
            if let Some(status) = process.exited()? {
                let words = log.map(std::fs::read_to_string).transpose()?.unwrap_or_default();
                bail!("it-works has ended ({status}): {words}");
            }
            Ok(api.get("/").await.is_ok())
        })
        .await
    }
}
