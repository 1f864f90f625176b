//! PostgreSQL's server programs, where they are installed.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Installation;

/// Directories that hold one directory per version.
const DISTRIBUTIONS: &[&str] = &[
    "/usr/lib/postgresql",
    "/usr/local/opt",
    "/opt/homebrew/opt",
    "/Applications/Postgres.app/Contents/Versions",
];

/// `PG_BIN_DIR` if it is set, or else PATH, or else where distributions put them, the newest version first.
///
/// A version of `major` is preferred, because a cluster is only ever served by the version that made it.
///
/// # Errors
///
/// When `PG_BIN_DIR` is set and of no use.
pub(super) fn find(major: Option<u32>) -> Result<Option<Installation>> {
    if let Some(directory) = std::env::var_os("PG_BIN_DIR").filter(|value| !value.is_empty()) {
        return Installation::at(Path::new(&directory), None).map(Some).context("PG_BIN_DIR");
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
    has_programs.then(|| Installation::at(directory, libraries.map(OsStr::to_owned)).ok()).flatten()
}
