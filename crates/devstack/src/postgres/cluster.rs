//! A cluster of our own: created once, started, stopped, and started again after it was killed.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{Installation, account};
use crate::Report;
use crate::lock::DirectoryLock;
use crate::process::{Account, Process};

/// As many as PostgreSQL allows by default.
const CONNECTIONS: usize = 100;
/// How long a start may take: replaying what a crash left can need most of it.
const START_BOUND: Duration = Duration::from_secs(60);
/// How long a fast shutdown may take before the server is killed, which costs a recovery and no data.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// How long another process may hold the cluster before we say so.
const LOCK_BOUND: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What a commit is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives a power failure: this is the database that people work with.
    Durable,
    /// It is fast: the data is gone after the test anyway.
    Throwaway,
}

impl Durability {
    fn settings(self) -> &'static [&'static str] {
        match self {
            Durability::Durable => &["fsync=on", "synchronous_commit=on", "max_connections=200"],
            Durability::Throwaway => &[
                "fsync=off",
                "synchronous_commit=off",
                "full_page_writes=off",
                "max_connections=300",
                "shared_buffers=64MB",
            ],
        }
    }
}

/// A cluster and, while it runs, its server.
///
/// The server listens on 127.0.0.1 alone and knows one superuser, `postgres`, whose random password lies beside the
/// data. Its death is noticed, and dropping the cluster stops it.
#[derive(Debug)]
pub struct Cluster {
    installation: Installation,
    directory: PathBuf,
    account: Option<Account>,
    durability: Durability,
    password: String,
    port: u16,
    server: Option<Process>,
    /// Whoever holds it is the only one to start or stop this cluster's server.
    _lock: DirectoryLock,
}

impl Cluster {
    /// The version that made the data in `directory`, if there is any.
    pub fn version_of(directory: &Path) -> Option<u32> {
        fs::read_to_string(directory.join("data/PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// Opens the cluster in `directory` and creates it when there is none. `port` is where it will listen.
    ///
    /// # Errors
    ///
    /// When the directory cannot be used, belongs to a running cluster, or holds the data of another version.
    pub async fn open(
        installation: Installation,
        directory: &Path,
        durability: Durability,
        port: u16,
        report: Report,
    ) -> Result<Cluster> {
        let account = account::for_server()?;
        let directory = account::directory_for(directory, account, report)?;
        let lock = lock(&directory).await?;
        let mut cluster = Cluster {
            installation,
            directory,
            account,
            durability,
            password: String::new(),
            port,
            server: None,
            _lock: lock,
        };
        if !cluster.data().join("PG_VERSION").exists() {
            report(&format!("creating a PostgreSQL cluster in {}", cluster.directory.display()));
            cluster.create().await?;
        }
        let made_by = Cluster::version_of(&cluster.directory);
        if made_by != Some(cluster.installation.major()) {
            let made_by = made_by.map_or_else(|| "?".to_owned(), |major| major.to_string());
            bail!(
                "the data in {} was made by PostgreSQL {made_by} and {} is PostgreSQL {}; set PG_BIN_DIR to the former, or \
                 POSTGRES_FROM=docker and TEST_POSTGRES_IMAGE=postgres:{made_by}, or remove the directory to start afresh",
                cluster.directory.display(),
                cluster.installation.origin(),
                cluster.installation.major()
            );
        }
        cluster.password = fs::read_to_string(cluster.password_file())?.trim().to_owned();
        Ok(cluster)
    }

    /// The superuser's URL for `database`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Where the cluster lies; not always where it was wished.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The server's process id while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Process::pid)
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it ends instead, with the last lines of its log.
    pub async fn start(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_BOUND;
        self.stop_orphan(deadline).await?;
        while !self.answers().await {
            if Instant::now() >= deadline {
                bail!(
                    "PostgreSQL does not answer after {START_BOUND:?}; its last words:\n{}",
                    self.last_words()
                );
            }
            if !self.is_running()? {
                self.spawn().await?;
            }
            sleep(POLL).await;
            // The processes of a killed server need a moment to notice it, and until then a new one refuses to start.
            if !self.is_running()? && !self.others_remain() {
                bail!("PostgreSQL did not start; its last words:\n{}", self.last_words());
            }
        }
        Ok(())
    }

    /// Starts the server process without waiting until it answers.
    ///
    /// # Errors
    ///
    /// When the program cannot be executed.
    pub async fn spawn(&mut self) -> Result<()> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), self.data().into()];
        let port = format!("port={}", self.port);
        let reachable = ["listen_addresses=127.0.0.1", "unix_socket_directories=", &port];
        for setting in reachable.iter().chain(self.durability.settings()) {
            arguments.extend(["-c".into(), setting.into()]);
        }
        let server = self.installation.serve(&arguments, &self.directory, self.account, &self.log()).await?;
        self.server = Some(server);
        Ok(())
    }

    /// Whether the server process is there, answering or not.
    ///
    /// # Errors
    ///
    /// When the operating system cannot say.
    pub fn is_running(&mut self) -> Result<bool> {
        match &mut self.server {
            Some(server) => Ok(server.exited()?.is_none()),
            None => Ok(false),
        }
    }

    /// Whether the server accepts our password now.
    pub async fn answers(&self) -> bool {
        let Ok(options) = PgConnectOptions::from_str(&self.url("postgres")) else { return false };
        let attempt =
            async { PgConnection::connect_with(&options.disable_statement_logging()).await?.close().await };
        self.server.is_some() && matches!(timeout(Duration::from_secs(2), attempt).await, Ok(Ok(())))
    }

    /// The server's process, to be killed, paused or resumed.
    pub fn server(&mut self) -> Option<&mut Process> {
        self.server.as_mut()
    }

    /// Stops the server; the data stays.
    ///
    /// # Errors
    ///
    /// When it cannot be ended at all.
    pub async fn stop(&mut self) -> Result<()> {
        if let Some(mut server) = self.server.take() {
            server.stop(STOP_GRACE).await?;
        }
        Ok(())
    }

    /// Lets the server run on without us.
    pub(crate) fn let_go(mut self) {
        if let Some(server) = self.server.take() {
            server.let_go();
        }
    }

    /// The file whose first line is the server's process id.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    fn password_file(&self) -> PathBuf {
        self.directory.join("password")
    }

    async fn create(&self) -> Result<()> {
        // Made under another name, so that what an interrupted creation left is never taken for a cluster.
        let unfinished = self.directory.join("data.new");
        for leftover in [&self.data(), &unfinished] {
            if leftover.exists() {
                fs::remove_dir_all(leftover)?;
            }
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.password_file())?;
        writeln!(file, "{}", uuid::Uuid::new_v4().simple())?;
        account::hand_over(&self.password_file(), self.account)?;

        let mut arguments: Vec<OsString> =
            ["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8"]
                .map(OsString::from)
                .to_vec();
        arguments.extend(["--data-checksums".into(), "--pwfile".into(), self.password_file().into()]);
        arguments.extend(["-D".into(), unfinished.clone().into()]);
        if self.durability == Durability::Throwaway {
            arguments.push("--no-sync".into());
        }
        self.installation.run("initdb", &arguments, &self.directory, self.account).await?;
        fs::rename(&unfinished, self.data())?;
        Ok(())
    }

    /// Ends a server that a killed predecessor left running: we hold the lock, so it belongs to nobody.
    ///
    /// A number in the file that now belongs to another program would keep PostgreSQL from starting for ever, so the
    /// file is removed then.
    async fn stop_orphan(&mut self, deadline: Instant) -> Result<()> {
        if self.is_running()? {
            return Ok(());
        }
        while let Some(pid) = self.recorded_pid() {
            // A server's working directory is its data; without /proc PostgreSQL has to sort it out by itself.
            let Ok(at) = fs::read_link(format!("/proc/{pid}/cwd")) else { return Ok(()) };
            if at != self.data() {
                fs::remove_file(self.pid_file())?;
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("another PostgreSQL (pid {pid}) serves {} and does not end", self.data().display());
            }
            // It may end between the look and the signal.
            let _ = signal::kill(pid, Signal::SIGINT);
            sleep(POLL).await;
        }
        Ok(())
    }

    fn recorded_pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        text.lines().next()?.trim().parse().ok().map(Pid::from_raw)
    }

    /// Whether the last start failed because of what a killed server left running.
    fn others_remain(&self) -> bool {
        // each of its connections says a word of its own after that
        let log = self.last_lines(CONNECTIONS);
        log.contains("shared memory block") || log.contains("Address already in use")
    }

    fn last_words(&self) -> String {
        self.last_lines(6)
    }

    fn last_lines(&self, count: usize) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let mut lines: Vec<&str> = log.lines().rev().take(count).collect();
        lines.reverse();
        lines.join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Asked before it is killed: a killed server leaves shared memory behind until its next start.
        if let Some(mut server) = self.server.take()
            && server.terminate().and_then(|()| server.resume()).is_ok()
        {
            server.let_go();
        }
    }
}

async fn lock(directory: &Path) -> Result<DirectoryLock> {
    let deadline = Instant::now() + LOCK_BOUND;
    loop {
        match DirectoryLock::take(directory)? {
            Some(lock) => return Ok(lock),
            None if Instant::now() >= deadline => {
                bail!("the PostgreSQL cluster in {} is in use", directory.display());
            }
            None => sleep(POLL).await,
        }
    }
}
