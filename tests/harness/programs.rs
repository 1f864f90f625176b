//! The programs under test, built once per run, so that no test drives a stale one.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Which build is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `cargo build`
    Debug,
    /// `cargo build --release`
    Release,
    /// The build with fail points and planted bugs, for proofs.
    Proof,
}

/// The directory with the programs, after a build that is quick when there is nothing to do. `PAYWRIGHT_BIN_DIR` names
/// programs that were built elsewhere, those for proofs aside.
///
/// # Errors
/// The build fails.
pub fn programs(profile: Profile) -> Result<PathBuf> {
    static BUILT: [OnceLock<Result<PathBuf, String>>; 3] = [const { OnceLock::new() }; 3];
    let [debug, release, proof] = &BUILT;
    let built = match profile {
        Profile::Debug => debug,
        Profile::Release => release,
        Profile::Proof => proof,
    };
    let built = built.get_or_init(|| build(profile).map_err(|error| format!("{error:#}")));
    built.clone().map_err(anyhow::Error::msg)
}

fn build(profile: Profile) -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("PAYWRIGHT_BIN_DIR").filter(|_| profile != Profile::Proof) {
        return Ok(directory.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    std::fs::create_dir_all(&target)?;
    // test processes of one run take turns; all but the first have nothing to do
    let lock = File::create(target.join("e2e-build.lock"))?;
    lock.lock()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // the very build that make does, drills included: any other choice of packages has other features, and builds half
    // of the dependencies again
    let (arguments, directory): (&[&str], _) = match profile {
        Profile::Debug => (&["--workspace", "--bins"], "debug"),
        Profile::Release => (&["--workspace", "--bins", "--release"], "release"),
        Profile::Proof => {
            (&["--profile", "proof", "-p", "api", "-p", "simulator", "--features", "api/faults"], "proof")
        }
    };
    command.args(["build", "--quiet"]).args(arguments).current_dir(root);
    ensure!(command.status()?.success(), "cargo build failed");
    Ok(target.join(directory))
}
