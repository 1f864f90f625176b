//! The other programs of the workspace, where they were built.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};
use tokio::process::Command;

use crate::process::{Environment, inherited};

const SERVICE: &str = "paywright";
const SIMULATOR: &str = "provider-simulator";

/// The directory with the programs.
#[derive(Debug)]
pub(super) struct Programs {
    directory: PathBuf,
}

impl Programs {
    /// Looks in `given`, else in `PAYWRIGHT_BIN_DIR`, else beside this program and, for a test, above it.
    pub(super) fn find(given: Option<&Path>, with_simulator: bool) -> Result<Programs> {
        let directories = match given.map(Path::to_owned).or_else(from_environment) {
            Some(directory) => vec![directory],
            None => beside_this_program()?,
        };
        let mut names = vec![SERVICE];
        if with_simulator {
            names.push(SIMULATOR);
        }
        let complete = |directory: &&PathBuf| names.iter().all(|name| directory.join(name).is_file());
        let directory = directories.iter().find(complete).ok_or_else(|| {
            let searched: Vec<String> = directories.iter().map(|path| path.display().to_string()).collect();
            anyhow!(
                "{} not found in {}: run `cargo build --workspace --bins`, or say with PAYWRIGHT_BIN_DIR where",
                names.join(" and "),
                searched.join(" or ")
            )
        })?;
        Ok(Programs { directory: directory.clone() })
    }

    pub(super) fn service(&self) -> PathBuf {
        self.directory.join(SERVICE)
    }

    pub(super) fn simulator(&self) -> PathBuf {
        self.directory.join(SIMULATOR)
    }

    /// Runs the service's program to its end and returns what it printed.
    pub(super) async fn run(&self, arguments: &[&str], environment: &Environment) -> Result<String> {
        let output = Command::new(self.service())
            .args(arguments)
            .env_clear()
            .envs(inherited())
            .envs(environment)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {}", self.service().display()))?;
        if !output.status.success() {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!("`{SERVICE} {}` failed ({}): {}", arguments.join(" "), output.status, complaint.trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn from_environment() -> Option<PathBuf> {
    std::env::var_os("PAYWRIGHT_BIN_DIR").filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn beside_this_program() -> Result<Vec<PathBuf>> {
    let program = std::env::current_exe()?;
    let directory = program.parent().ok_or_else(|| anyhow!("{} has no directory", program.display()))?;
    let mut directories = vec![directory.to_owned()];
    // Cargo puts tests one level below the programs.
    if directory.ends_with("deps") {
        directories.extend(directory.parent().map(Path::to_owned));
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_to_build_what_is_missing() {
        let empty = tempfile::tempdir().unwrap();

        let error = Programs::find(Some(empty.path()), true).unwrap_err().to_string();

        assert!(error.contains("cargo build --workspace --bins"), "{error}");
        assert!(error.contains("provider-simulator"), "{error}");
    }

    #[test]
    fn a_real_provider_needs_no_simulator() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(SERVICE), "").unwrap();

        assert!(Programs::find(Some(directory.path()), false).is_ok());
        assert!(Programs::find(Some(directory.path()), true).is_err());
    }
}
