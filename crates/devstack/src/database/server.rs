//! One PostgreSQL server per test run, shared by all of its processes.
//!
//! Under nextest every test is a process, so the server belongs to the run: the first process starts it under a file
//! lock and writes down where it is, the others read that. When the runner is gone a watchdog stops the server and
//! removes its directory, however the run ended.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statvfs::statvfs;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use sqlx::Connection;
use tokio::task::spawn_blocking;

use crate::port::Port;
use crate::postgres::{self, Cluster, Durability, Postgres, Wanted};
use crate::{login, watchdog};

/// A few hundred databases; containers often have 64 MiB there.
const ENOUGH_MEMORY: u64 = 2 << 30;

/// Where the run's databases are made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Server {
    /// The URL of a role that may create databases and roles.
    pub(super) owner_url: String,
    /// Whether it outlives the run.
    pub(super) is_kept: bool,
}

/// Finds the run's server, or starts it.
pub(super) async fn of_this_run() -> Result<Server> {
    let directory = directory()?;
    let path = directory.join("server.json");
    let mut state =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path)?;
    // Held until the server answers, so that exactly one process starts it; the descriptor's end releases it.
    state = spawn_blocking(move || state.lock().map(|()| state)).await??;
    let mut text = String::new();
    state.read_to_string(&mut text)?;
    if let Ok(server) = serde_json::from_str::<Server>(&text)
        && let Ok(connection) = login::connect_common(&server.owner_url).await
    {
        connection.close().await?;
        return Ok(server);
    }
    let server = start(&directory).await?;
    prepare(&server).await?;
    write(&mut state, &server)?;
    Ok(server)
}

async fn start(directory: &Path) -> Result<Server> {
    let installation = match postgres::find(&Wanted::from_environment()?, tell).await? {
        Postgres::Url(url) => {
            watchdog::after_run(runner(), &directory.join("none"), directory)?;
            return Ok(Server { owner_url: url, is_kept: true });
        }
        Postgres::Installed(installation) => installation,
    };
    let port = Port::free()?;
    let mut cluster =
        Cluster::open(installation, &directory.join("postgres"), Durability::Throwaway, port.number(), tell)
            .await?;
    // Before the start, or a process killed between the two would leave the server for ever.
    watchdog::after_run(runner(), &cluster.pid_file(), directory)?;
    cluster.start().await?;
    let owner_url = cluster.url("postgres");
    cluster.let_go();
    Ok(Server { owner_url, is_kept: false })
}

async fn prepare(server: &Server) -> Result<()> {
    login::ensure(&server.owner_url).await?;
    if server.is_kept {
        let mut connection = login::connect_common(&server.owner_url).await?;
        super::sweep(&mut connection).await?;
        connection.close().await?;
    }
    Ok(())
}

/// Installing PostgreSQL takes a while, and a test that waits for it should say so.
fn tell(line: &str) {
    eprintln!("{line}");
}

fn write(state: &mut File, server: &Server) -> Result<()> {
    state.rewind()?;
    state.set_len(0)?;
    serde_json::to_writer(&*state, server)?;
    state.flush()?;
    Ok(())
}

/// The process whose end is the run's end: nextest, or cargo for all test binaries of one `cargo test`.
fn runner() -> u32 {
    parent_id()
}

fn run_key() -> String {
    std::env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| format!("runner-{}", runner()))
}

fn directory() -> Result<PathBuf> {
    let memory = Path::new("/dev/shm");
    let base = if has_room(memory) { memory.to_owned() } else { std::env::temp_dir() };
    let directory = base.join(format!("payments-test-{}-{}", Uid::effective(), run_key()));
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    // The server may run as another user, who has to pass through but not to look around.
    fs::set_permissions(&directory, Permissions::from_mode(0o711))?;
    Ok(directory)
}

#[allow(clippy::useless_conversion, reason = "on macOS these numbers have 32 bits")]
fn has_room(memory: &Path) -> bool {
    let Ok(found) = statvfs(memory) else { return false };
    u64::from(found.blocks_available()).saturating_mul(u64::from(found.fragment_size())) >= ENOUGH_MEMORY
}
