//! PostgreSQL's server programs from an image, run by Docker.
//!
//! The image is taken for its programs alone. Its containers see the cluster's directory under its own name, share this
//! machine's network, processes and shared memory, and run as the user that programs on this machine would run as. So
//! a cluster looks the same whoever serves it: it listens on 127.0.0.1 and nowhere else, its files belong to the user,
//! and what keeps PostgreSQL from serving one directory twice works between a container and programs outside. A server
//! is known by its process id, here as elsewhere, and when that process ends Docker removes the container, even if
//! nobody of ours is left to ask for it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::StreamExt;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};
use testcontainers::bollard::Docker;
use testcontainers::bollard::errors::Error as DockerError;
use testcontainers::bollard::models::HostConfig;
use testcontainers::bollard::query_parameters::{
    InspectContainerOptions, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use testcontainers::core::client::docker_client_instance;
use testcontainers::core::wait::ExitWaitStrategy;
use testcontainers::core::{Mount, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, ContainerRequest, GenericImage, ImageExt};
use tokio::sync::{RwLock, watch};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Installation, Programs, account};
use crate::Report;
use crate::process::{Account, Process};

/// The official image's version for new data; data that exists gets the version that made it.
const NEWEST_MAJOR: u32 = 18;
/// Every container of ours has it. Its value is the directory that the container works on.
const LABEL: &str = "payments-devstack";
/// A Docker that is there answers at once, and one that is broken may never.
const ANSWER_BOUND: Duration = Duration::from_secs(2);
const PULL_BOUND: Duration = Duration::from_secs(5 * 60);
/// What a container may take to start, or to do its work and end.
const START_BOUND: Duration = Duration::from_secs(60);
/// A container that does not run and is older than this belongs to nobody.
const STALE_AFTER: Duration = Duration::from_secs(2 * 60);
/// How long to wait for containers whose start was abandoned.
const SETTLE_BOUND: Duration = Duration::from_secs(3);

/// The fast shutdown, as for programs on this machine.
const STOP_SIGNAL: Signal = Signal::SIGINT;

/// The file that a probing container has to read.
const PROBE: &str = "probe";
const PROBE_CONTENT: &str = "shared";

/// Held, for reading, by everything that is about containers and must not be abandoned half way.
static BUSY: RwLock<()> = RwLock::const_new(());

/// An image that holds server programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    name: String,
    tag: String,
}

impl fmt::Display for Image {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.name, self.tag)
    }
}

/// Whether there is a Docker that answers quickly, where `DOCKER_HOST` says or in its usual place.
pub(super) async fn answers() -> Result<()> {
    client().await.map(drop)
}

/// The image that `TEST_POSTGRES_IMAGE` names, or else the official one: of version `major`, or the newest.
///
/// # Errors
///
/// When Docker does not answer, has no such image and cannot get it, or cannot run it as we need it.
pub(super) async fn find(major: Option<u32>, report: Report) -> Result<Installation> {
    if !cfg!(target_os = "linux") {
        bail!("Docker runs PostgreSQL for us on Linux only: install PostgreSQL, or set DATABASE_URL");
    }
    let docker = client().await?;
    sweep(&docker).await;
    let given = std::env::var("TEST_POSTGRES_IMAGE").ok().filter(|name| !name.is_empty());
    let image = Image::named(given.as_deref(), major);
    image.ensure(&docker, report).await?;
    let major = image.version().await?;
    Installation::new(Programs::Image(image), major)
}

/// Waits for containers whose start was abandoned, so that none is left when this process ends.
pub(crate) async fn settled() {
    let _ = timeout(SETTLE_BOUND, BUSY.write()).await;
}

async fn client() -> Result<Docker> {
    let answering = async {
        let docker = docker_client_instance().await?;
        docker.ping().await?;
        Ok::<_, anyhow::Error>(docker)
    };
    let advice = "Docker does not answer: start it, or say with DOCKER_HOST where it listens";
    timeout(ANSWER_BOUND, answering).await.map_err(|_| anyhow!(advice))?.context(advice)
}

/// Removes what is left of containers that were created and never started, or could not be removed.
async fn sweep(docker: &Docker) {
    let filters = [("label", vec![LABEL]), ("status", vec!["created", "exited", "dead"])];
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters.into()).build();
    let Ok(found) = docker.list_containers(Some(options)).await else { return };
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else { return };
    for container in found {
        let created = container.created.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
        if created < now.saturating_sub(STALE_AFTER).as_secs()
            && let Some(id) = container.id
        {
            remove(docker, &id).await;
        }
    }
}

/// Somebody else may have removed it already, which is as well.
async fn remove(docker: &Docker, container: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    let _ = docker.remove_container(container, Some(options)).await;
}

/// Does `work` to its end even if nobody waits for it any more.
async fn to_its_end<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let busy = BUSY.read().await;
    // Results that nobody takes are dropped in this order: the process, which ends it, and then the lock.
    let (result, _busy) = tokio::spawn(async move { (work.await, busy) }).await?;
    result
}

impl Image {
    fn named(given: Option<&str>, major: Option<u32>) -> Image {
        let default = format!("postgres:{}", major.unwrap_or(NEWEST_MAJOR));
        let whole = given.unwrap_or(&default);
        // What follows a colon may also be the port of a registry.
        match whole.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((name, tag)) => Image { name: name.to_owned(), tag: tag.to_owned() },
            None => Image { name: whole.to_owned(), tag: "latest".to_owned() },
        }
    }

    async fn ensure(&self, docker: &Docker, report: Report) -> Result<()> {
        match docker.inspect_image(&self.to_string()).await {
            Ok(_) => return Ok(()),
            Err(DockerError::DockerResponseServerError { status_code: 404, .. }) => {}
            Err(error) => return Err(error).context("Docker cannot say which images it has"),
        }
        report(&format!("pulling the image {self} (takes a minute)"));
        let pulled = timeout(PULL_BOUND, GenericImage::new(&self.name, &self.tag).pull_image()).await;
        let failure = match pulled {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => one_line(&error.to_string()),
            Err(_) => format!("not within {PULL_BOUND:?}"),
        };
        bail!(
            "the image {self} is not here and cannot be pulled: name another with TEST_POSTGRES_IMAGE, or build one \
             with `make test-images` ({failure})"
        )
    }

    /// Asks the programs for their version, and finds out whether containers can do what they have to.
    async fn version(&self) -> Result<u32> {
        let account = account::for_server()?;
        let probe = Probe::new(account)?;
        let read = ["-c", r#"cat "$1" && exec postgres --version"#, "probe"].map(OsString::from);
        let file = probe.directory.join(PROBE).into();
        let said = self.run("/bin/sh", &[&read[..], &[file]].concat(), &probe.directory, account).await;
        let said = said.with_context(|| {
            format!(
                "Docker cannot run {self} on this machine's files, processes and network, as it must not if it is \
                 elsewhere or maps users: install PostgreSQL, or set DATABASE_URL"
            )
        })?;
        said.strip_prefix(PROBE_CONTENT)
            .and_then(super::major_version)
            .ok_or_else(|| anyhow!("postgres --version in the image {self} says {:?}", said.trim()))
    }

    /// Runs a program to its end in a container that sees `directory`, and returns what it printed.
    pub(super) async fn run(
        &self,
        program: &str,
        arguments: &[OsString],
        directory: &Path,
        account: Option<Account>,
    ) -> Result<String> {
        let user = user(account);
        // initdb wants to know what its user is called, and the image has never heard of it.
        let users = format!("root:x:0:0::/:/bin/sh\npostgres:x:{}:{}::/:/bin/sh\n", user.uid, user.gid);
        let ended = ExitWaitStrategy::new().with_poll_interval(Duration::from_millis(20));
        let name = container_name();
        let request = self
            .container(program, &words(arguments)?, &name, directory, user)?
            .with_copy_to("/etc/passwd", users.into_bytes())
            .with_host_config_modifier(share)
            .with_ready_conditions(vec![WaitFor::exit(ended)]);
        let program = program.to_owned();
        to_its_end(async move {
            let container = start(request, &name).await?;
            let output = container.stdout_to_vec().await?;
            let complaint = container.stderr_to_vec().await?;
            let code = container.exit_code().await?;
            container.rm().await?;
            if code != Some(0) {
                bail!("{program} failed: {}", String::from_utf8_lossy(&complaint).trim());
            }
            Ok(String::from_utf8_lossy(&output).into_owned())
        })
        .await
    }

    /// Starts the server of the cluster in `directory`. Docker removes its container when it ends.
    pub(super) async fn serve(
        &self,
        arguments: &[OsString],
        directory: &Path,
        account: Option<Account>,
        log: &Path,
    ) -> Result<Process> {
        let cannot = || format!("cannot write {}", log.display());
        OpenOptions::new().create(true).append(true).mode(0o600).open(log).with_context(cannot)?;
        account::hand_over(log, account)?;
        let script = ["-c".into(), r#"exec postgres "$@" >>"$0" 2>&1"#.into(), log.into()];
        let name = container_name();
        let request = self
            .container(
                "/bin/sh",
                &words(&[&script[..], arguments].concat())?,
                &name,
                directory,
                user(account),
            )?
            .with_host_config_modifier(|host| {
                share(host);
                host.auto_remove = Some(true);
            });
        to_its_end(async move {
            // Its destructor would remove the container, which must be able to outlive this process.
            std::mem::forget(start(request, &name).await?);
            let docker = docker_client_instance().await?;
            let ended = follow(docker.clone(), name.clone());
            match pid_of(&docker, &name).await {
                Ok(pid) => Process::told("PostgreSQL", pid, STOP_SIGNAL, ended),
                Err(error) => {
                    remove(&docker, &name).await;
                    Err(error)
                }
            }
        })
        .await
    }

    fn container(
        &self,
        entrypoint: &str,
        arguments: &[String],
        name: &str,
        directory: &Path,
        user: Account,
    ) -> Result<ContainerRequest<GenericImage>> {
        let directory = word(directory.as_os_str())?;
        let mut request = GenericImage::new(&self.name, &self.tag)
            .with_entrypoint(entrypoint)
            .with_container_name(name)
            .with_label(LABEL, &directory)
            .with_user(format!("{}:{}", user.uid, user.gid))
            .with_mount(Mount::bind_mount(&directory, &directory))
            // It needs no right that its user has not, and where SELinux labels files, these keep their labels.
            .with_cap_drop("ALL")
            .with_security_opt("no-new-privileges")
            .with_security_opt("label=disable")
            .with_startup_timeout(START_BOUND)
            .with_cmd(arguments);
        for (name, value) in super::environment() {
            request = request.with_env_var(name, value);
        }
        Ok(request)
    }
}

/// Whom a container runs as: root's servers have a user of their own, anybody else's belong to whoever starts them.
fn user(account: Option<Account>) -> Account {
    account.unwrap_or_else(|| Account { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() })
}

fn share(host: &mut HostConfig) {
    host.network_mode = Some("host".to_owned());
    host.pid_mode = Some("host".to_owned());
    host.ipc_mode = Some("host".to_owned());
    host.publish_all_ports = Some(false);
}

async fn start(request: ContainerRequest<GenericImage>, name: &str) -> Result<ContainerAsync<GenericImage>> {
    match request.start().await {
        Ok(container) => Ok(container),
        Err(error) => {
            // One that was created and could not be started would stay.
            remove(&client().await?, name).await;
            Err(anyhow!(one_line(&error.to_string())))
        }
    }
}

/// Learns from Docker when a container's program has ended, and how.
fn follow(docker: Docker, name: String) -> watch::Receiver<Option<ExitStatus>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let status = exit_status(&docker, &name, "not-running").await;
        // Whoever starts the next server need not wait until this container is gone; whoever wants to leave must.
        let _busy = BUSY.read().await;
        sender.send_replace(Some(status));
        exit_status(&docker, &name, "removed").await;
    });
    receiver
}

async fn exit_status(docker: &Docker, name: &str, condition: &str) -> ExitStatus {
    let options = WaitContainerOptionsBuilder::new().condition(condition).build();
    let code = match docker.wait_container(name, Some(options)).next().await {
        Some(Ok(answer)) => answer.status_code,
        Some(Err(DockerError::DockerContainerWaitError { code, .. })) => code,
        // It was gone before we asked.
        _ => 0,
    };
    from_code(code)
}

/// Docker adds 128 to the number of a signal, as shells do.
fn from_code(code: i64) -> ExitStatus {
    let code = i32::try_from(code).unwrap_or(1);
    ExitStatus::from_raw(if code > 128 { code - 128 } else { code << 8 })
}

async fn pid_of(docker: &Docker, name: &str) -> Result<u32> {
    let found = docker.inspect_container(name, None::<InspectContainerOptions>).await;
    let pid = found.ok().and_then(|container| container.state?.pid).unwrap_or_default();
    match u32::try_from(pid) {
        Ok(pid) if pid > 0 && Path::new("/proc").join(pid.to_string()).exists() => Ok(pid),
        _ => bail!("PostgreSQL's container ended at once, or its process is not among this machine's"),
    }
}

fn container_name() -> String {
    format!("{LABEL}-{}", Uuid::new_v4().simple())
}

fn words(arguments: &[OsString]) -> Result<Vec<String>> {
    arguments.iter().map(|argument| word(argument)).collect()
}

fn word(argument: &OsStr) -> Result<String> {
    let word = argument
        .to_str()
        .ok_or_else(|| anyhow!("Docker cannot be told of {}: it is not UTF-8", argument.display()))?;
    Ok(word.to_owned())
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A file that only the server's user can read, in a directory that is removed with this value.
struct Probe {
    directory: PathBuf,
}

impl Probe {
    fn new(account: Option<Account>) -> Result<Probe> {
        let directory = std::env::temp_dir().join(format!("payments-probe-{}", Uuid::new_v4().simple()));
        let cannot = || format!("cannot create {}", directory.display());
        DirBuilder::new().mode(0o700).create(&directory).with_context(cannot)?;
        let probe = Probe { directory };
        let file = probe.directory.join(PROBE);
        fs::write(&file, PROBE_CONTENT)?;
        fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        account::hand_over(&file, account)?;
        account::hand_over(&probe.directory, account)?;
        Ok(probe)
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_image_is_of_the_version_that_made_the_data() {
        assert_eq!(Image::named(None, None).to_string(), "postgres:18");
        assert_eq!(Image::named(None, Some(15)).to_string(), "postgres:15");
        assert_eq!(
            Image::named(Some("mirror.example:5000/pg"), Some(15)).to_string(),
            "mirror.example:5000/pg:latest"
        );
        assert_eq!(
            Image::named(Some("mirror.example:5000/pg:16-alpine"), None).to_string(),
            "mirror.example:5000/pg:16-alpine"
        );
    }

    #[test]
    fn docker_tells_signals_as_shells_do() {
        assert_eq!(from_code(137).signal(), Some(9));
        assert_eq!(from_code(1).code(), Some(1));
        assert!(from_code(0).success());
    }
}
