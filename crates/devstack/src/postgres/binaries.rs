//! PostgreSQL's server programs, where they are installed.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;

use super::{Installation, Programs};
use crate::process::{Account, Environment, Output, Process, Spec};

/// Directories that hold one directory per version.
const DISTRIBUTIONS: &[&str] = &[
    "/usr/lib/postgresql",
    "/usr/local/opt",
    "/opt/homebrew/opt",
    "/Applications/Postgres.app/Contents/Versions",
];

/// A directory with server programs, and where the libraries are that they need if the system has none.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
    libraries: Option<OsString>,
}

impl Directory {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) async fn run(
        &self,
        program: &str,
        arguments: &[OsString],
        account: Option<Account>,
    ) -> Result<()> {
        let mut command = tokio::process::Command::new(self.path.join(program));
        command.args(arguments).envs(&self.environment()).current_dir("/").kill_on_drop(true);
        if let Some(account) = account {
            command.uid(account.uid).gid(account.gid);
        }
        let output = command.output().await.with_context(|| format!("cannot run {program}"))?;
        if !output.status.success() {
            bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    pub(super) fn serve(
        &self,
        arguments: &[OsString],
        account: Option<Account>,
        log: &Path,
    ) -> Result<Process> {
        let mut spec = Spec::new("PostgreSQL", self.path.join("postgres"), Output::File(log.to_owned()))
            .environment(&self.environment())
            .account(account)
            // The fast shutdown. SIGTERM would wait for every client to leave, SIGQUIT leaves shared memory behind.
            .stop_signal(Signal::SIGINT);
        for argument in arguments {
            spec = spec.argument(argument);
        }
        spec.spawn()
    }

    fn version(&self) -> Result<u32> {
        let postgres = self.path.join("postgres");
        let output = std::process::Command::new(&postgres)
            .arg("--version")
            .envs(&self.environment())
            .output()
            .with_context(|| format!("cannot run {}", postgres.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        super::major_version(&text).with_context(|| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            format!("{} says {:?} {}", postgres.display(), text.trim(), complaint.trim())
        })
    }

    fn environment(&self) -> Environment {
        let mut environment = super::environment();
        if let Some(path) = self.libraries.as_ref().and_then(|path| path.to_str()) {
            environment.insert("LD_LIBRARY_PATH".to_owned(), path.to_owned());
        }
        environment
    }
}

/// The programs in `directory`, if they are there and new enough.
fn installation_at(directory: &Path, libraries: Option<OsString>) -> Result<Installation> {
    // The link is followed because initdb looks for its companions beside itself.
    let initdb = directory.join("initdb").canonicalize();
    let path = initdb.ok().and_then(|path| path.parent().map(Path::to_owned));
    let path = path
        .filter(|found| found.join("postgres").is_file())
        .ok_or_else(|| anyhow!("{} has no PostgreSQL server programs", directory.display()))?;
    let directory = Directory { path, libraries };
    let major = directory.version()?;
    Installation::new(Programs::Here(directory), major)
}

/// `PG_BIN_DIR` if it is set, or else PATH, or else where distributions put them, the newest version first.
///
/// A version of `major` is preferred, because a cluster is only ever served by the version that made it.
///
/// # Errors
///
/// When `PG_BIN_DIR` is set and of no use.
pub(super) fn find(major: Option<u32>) -> Result<Option<Installation>> {
    if let Some(directory) = std::env::var_os("PG_BIN_DIR").filter(|value| !value.is_empty()) {
        return installation_at(Path::new(&directory), None).map(Some).context("PG_BIN_DIR");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found: Vec<Installation> =
        std::env::split_paths(&path).filter_map(|directory| usable(&directory, None)).collect();
    found.extend(distributed());
    if let Some(same) = found.iter().position(|installation| Some(installation.major()) == major) {
        return Ok(Some(found.swap_remove(same)));
    }
    Ok(found.into_iter().next())
}

/// The versions that `root` has a directory for, newest first.
pub(super) fn versions_below(root: &Path, libraries: Option<&OsStr>) -> Vec<Installation> {
    let directories = root.read_dir().into_iter().flatten().flatten();
    newest_first(directories.filter_map(|entry| usable(&entry.path().join("bin"), libraries)).collect())
}

fn distributed() -> Vec<Installation> {
    let mut found: Vec<Installation> =
        DISTRIBUTIONS.iter().flat_map(|root| versions_below(Path::new(root), None)).collect();
    // Red Hat's packages put the version into the name of the root.
    let red_hat = (super::OLDEST_MAJOR..40).map(|major| PathBuf::from(format!("/usr/pgsql-{major}/bin")));
    found.extend(red_hat.filter_map(|bin| usable(&bin, None)));
    newest_first(found)
}

fn newest_first(mut found: Vec<Installation>) -> Vec<Installation> {
    found.sort_by_key(|installation| std::cmp::Reverse(installation.major()));
    found
}

fn usable(directory: &Path, libraries: Option<&OsStr>) -> Option<Installation> {
    // What is there but broken or too old is passed over: a better one may follow.
    let has_programs = directory.join("initdb").is_file();
    has_programs.then(|| installation_at(directory, libraries.map(OsStr::to_owned)).ok()).flatten()
}
