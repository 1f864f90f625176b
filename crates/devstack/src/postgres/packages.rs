//! PostgreSQL from the system's packages: installed as root, unpacked beside the user's caches as anybody else.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::Uid;
use tokio::process::Command;
use tokio::task::spawn_blocking;

use super::{Installation, binaries};
use crate::Report;

/// Where the package puts its programs, by version.
const INSTALLED: &str = "/usr/lib/postgresql";
/// Held while root installs.
const INSTALL_LOCK: &str = "/run/payments-devstack.lock";
/// Where Debian's cluster tool reads further settings from.
const CREATE_CLUSTER_SETTINGS: &str = "/etc/postgresql-common/createcluster.d";

/// Installs or unpacks PostgreSQL, or finds what it unpacked before.
///
/// # Errors
///
/// When this system has no apt, or the packages cannot be had.
pub(super) async fn install(report: Report) -> Result<Installation> {
    if !on_path("apt-get") {
        bail!("this system has no apt-get, and other package managers are not tried");
    }
    if Uid::effective().is_root() {
        install_for_all(report).await
    } else {
        unpack_for_user(&cache_directory()?, report).await
    }
}

async fn install_for_all(report: Report) -> Result<Installation> {
    let lock = OpenOptions::new().create(true).append(true).open(INSTALL_LOCK)?;
    // apt-get would refuse whoever comes second; here it waits, and finds what the first installed.
    let _lock = spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if let Ok(installed) = newest(INSTALLED.as_ref(), None) {
        return Ok(installed);
    }
    report("PostgreSQL is not installed: installing the package postgresql with apt-get (takes a minute)");
    // Without this the package would create and start a cluster that nobody asked for.
    fs::create_dir_all(CREATE_CLUSTER_SETTINGS)?;
    let setting = Path::new(CREATE_CLUSTER_SETTINGS).join("no-main-cluster.conf");
    fs::write(setting, "create_main_cluster = false\n")?;
    apt_get(&["-qq".into(), "update".into()]).await?;
    apt_get(&[
        "-qq".into(),
        "install".into(),
        "-y".into(),
        "--no-install-recommends".into(),
        "postgresql".into(),
    ])
    .await?;
    newest(INSTALLED.as_ref(), None)
}

/// Does what apt does, short of being root: downloads the packages that are missing and unpacks them.
async fn unpack_for_user(cache: &Path, report: Report) -> Result<Installation> {
    let root = cache.join("root");
    let lock = OpenOptions::new().create(true).append(true).open(cache.join("lock"))?;
    // Whoever comes second finds what the first unpacked; the descriptor's end releases it.
    let _lock = spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    if root.is_dir() {
        return newest(&root.join("usr/lib/postgresql"), library_path(&root).as_deref());
    }
    report(&format!(
        "PostgreSQL is not installed: downloading its packages with apt-get into {} (takes a minute)",
        cache.display()
    ));
    // The system's own lists may be missing or too old, and only root may refresh them.
    let private = PrivateApt::below(cache)?;
    apt_get(&private.command(["-qq", "update"])).await?;
    let packages = missing_packages(&private).await?;

    let archives = cache.join("archives");
    fs::create_dir_all(&archives)?;
    let mut download = private.command(["-qq", "download"]);
    download.extend(packages.iter().map(OsString::from));
    run_in("apt-get", &download, &archives).await?;

    // Renamed when complete, so that what an interrupted start left is not taken for PostgreSQL.
    let unfinished = cache.join("root.new");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    for entry in archives.read_dir()? {
        let archive = entry?.path();
        if archive.extension() == Some(OsStr::new("deb")) {
            run_in("dpkg", &["-x".into(), archive.into(), unfinished.clone().into()], cache).await?;
        }
    }
    fs::rename(&unfinished, &root)?;
    fs::remove_dir_all(&archives)?;
    fs::remove_dir_all(private.state)?;
    newest(&root.join("usr/lib/postgresql"), library_path(&root).as_deref())
}

/// The server, its client programs and the libraries that this system lacks.
async fn missing_packages(private: &PrivateApt) -> Result<BTreeSet<String>> {
    // A simulated installation on a system that has nothing: apt knows best how dependencies are resolved, and what
    // this system lacks is decided here, because PostgreSQL itself is wanted even where it is installed.
    let nothing = ["-o", "Dir::State::status=/dev/null"];
    let install = ["-s", "install", "--no-install-recommends", "postgresql"];
    let mut simulation = private.command(nothing);
    simulation.extend(install.map(OsString::from));
    let simulation = apt_get(&simulation).await?;
    let installed = run_in(
        "dpkg-query",
        &["-W".into(), "-f".into(), "${db:Status-Abbrev} ${Package}\n".into()],
        Path::new("/"),
    )
    .await?;
    let packages = needed(&simulation, &installed);
    if !packages.iter().any(|name| is_server(name)) {
        bail!("the package lists have no package postgresql");
    }
    Ok(packages)
}

/// Picks from a simulated installation what a server needs at run time; what only packages' scripts need is left out.
fn needed(simulation: &str, installed: &str) -> BTreeSet<String> {
    let installed: BTreeSet<&str> = installed.lines().filter_map(|line| line.strip_prefix("ii  ")).collect();
    let names = simulation.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    names
        .filter(|name| {
            let is_library = name.starts_with("lib") && !name.contains("perl");
            is_server(name) || is_client(name) || is_library && !installed.contains(name)
        })
        .map(str::to_owned)
        .collect()
}

fn is_client(package: &str) -> bool {
    package.strip_prefix("postgresql-client-").is_some_and(|version| version.parse::<u32>().is_ok())
}

fn is_server(package: &str) -> bool {
    package.strip_prefix("postgresql-").is_some_and(|version| version.parse::<u32>().is_ok())
}

/// Settings that make apt keep its lists below a directory of ours.
struct PrivateApt {
    state: PathBuf,
    settings: Vec<OsString>,
}

impl PrivateApt {
    fn below(cache: &Path) -> Result<PrivateApt> {
        let state = cache.join("apt");
        fs::create_dir_all(state.join("lists/partial"))?;
        fs::create_dir_all(state.join("archives/partial"))?;
        let mut settings = Vec::new();
        for (name, value) in [("Dir::State", state.as_path()), ("Dir::Cache", state.as_path())] {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(value);
            settings.extend(["-o".into(), setting]);
        }
        settings.extend(["-o".into(), "Dir::State::status=/var/lib/dpkg/status".into()]);
        Ok(PrivateApt { state, settings })
    }

    fn command<const N: usize>(&self, arguments: [&str; N]) -> Vec<OsString> {
        self.settings.iter().cloned().chain(arguments.map(OsString::from)).collect()
    }
}

fn cache_directory() -> Result<PathBuf> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = given("XDG_CACHE_HOME")
        .or_else(|| given("HOME").map(|home| home.join(".cache")))
        .ok_or_else(|| anyhow!("neither XDG_CACHE_HOME nor HOME is set"))?;
    let cache = caches.join("payments-devstack/postgresql");
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    Ok(cache)
}

fn newest(root: &Path, libraries: Option<&OsStr>) -> Result<Installation> {
    let found = binaries::versions_below(root, libraries);
    found.into_iter().next().ok_or_else(|| {
        anyhow!(
            "the system's packages have no PostgreSQL {} or newer in {}",
            super::OLDEST_MAJOR,
            root.display()
        )
    })
}

/// Where the unpacked libraries are: a search path, because packages differ in where they put them, and Debian names
/// the directories after the machine.
fn library_path(root: &Path) -> Option<OsString> {
    let parents = [root.join("usr/lib"), root.join("lib")];
    let entries = parents.iter().filter_map(|parent| parent.read_dir().ok()).flatten().flatten();
    let directories =
        entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with("-linux-gnu"));
    std::env::join_paths(directories).ok().filter(|path| !path.is_empty())
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

async fn apt_get(arguments: &[OsString]) -> Result<String> {
    run_in("apt-get", arguments, Path::new("/")).await
}

/// Runs a program to its end even if we are interrupted: a half configured package is worse than a late exit.
async fn run_in(program: &str, arguments: &[OsString], directory: &Path) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .await
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}", complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_server_and_the_libraries_that_are_missing() {
        let simulation = "NOTE: This is only a simulation!\nInst libc6 (2.36 Debian:12 [amd64]) []\n\
             Inst perl (5.36 Debian:12 [amd64])\nInst libperl5.36 (5.36 Debian:12 [amd64])\n\
             Inst libpq5 (15.4 Debian:12 [amd64])\nInst postgresql-client-common (248 Debian:12 [all])\n\
             Inst postgresql-client-15 (15.4 Debian:12 [amd64])\nInst postgresql-common (248 Debian:12 [all])\n\
             Inst postgresql-15 (15.4 Debian:12 [amd64])\nInst postgresql (15+248 Debian:12 [all])\n\
             Conf libpq5 (15.4 Debian:12 [amd64])\n";
        let installed = "ii  libc6\nrc  libpq5\n";

        let needed: Vec<String> = needed(simulation, installed).into_iter().collect();

        assert_eq!(needed, ["libpq5", "postgresql-15", "postgresql-client-15"]);
    }
}
