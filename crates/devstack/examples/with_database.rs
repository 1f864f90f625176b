//! Runs a command with `DATABASE_URL` set to a database of its own on which all migrations have run.
//!
//! `cargo run -p devstack --example with_database -- cargo sqlx prepare --workspace`

use anyhow::{Context, Result};
use devstack::TestDatabase;
use std::process::{Command, ExitCode};

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().context("say what to run")?;
    let migrations = std::env::current_dir()?.join("migrations");
    let database = TestDatabase::create(&migrations).await?;
    // the one place where a build asks a database
    let status = Command::new(program)
        .args(words)
        .env("DATABASE_URL", database.owner_url())
        .env("SQLX_OFFLINE", "false")
        .status()?;
    database.close().await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
