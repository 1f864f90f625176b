//! A child process that can be killed, paused, waited for with a bound, and never outlives its handle by accident.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

/// Names and values for a process' environment.
pub type Environment = BTreeMap<String, String>;

/// What a child inherits besides what it is given: enough to run anywhere, nothing that would make a test depend on
/// the shell it was started from.
const INHERITED: &[&str] = &[
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "LLVM_PROFILE_FILE",
    "RUST_BACKTRACE",
];

/// How long a stopped process may take to end after it was killed; only a process stuck in the kernel exceeds it.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Where a process' standard output and error go.
#[derive(Debug, Clone)]
pub enum Output {
    /// To the streams of this process.
    Inherit,
    /// To the end of this file.
    File(PathBuf),
}

/// The user a process runs as when it must not be the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// How to start a process. It can be started again from the same description.
#[derive(Debug, Clone)]
pub struct Spec {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    environment: Environment,
    output: Output,
    account: Option<Account>,
    stop_signal: Signal,
}

impl Spec {
    /// A process called `name` in messages.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>, output: Output) -> Spec {
        Spec {
            name: name.into(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Environment::new(),
            output,
            account: None,
            stop_signal: Signal::SIGTERM,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn argument(mut self, argument: impl AsRef<OsStr>) -> Spec {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds variables; a later value of the same name wins.
    #[must_use]
    pub fn environment(mut self, more: &Environment) -> Spec {
        self.environment.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
        self
    }

    /// Runs as another user, which only root may ask for.
    #[must_use]
    pub fn account(mut self, account: Option<Account>) -> Spec {
        self.account = account;
        self
    }

    /// The signal that asks this program to end: SIGTERM unless said otherwise.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Spec {
        self.stop_signal = signal;
        self
    }

    /// What the process is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the process writes, if not to our own streams.
    pub fn log(&self) -> Option<&Path> {
        match &self.output {
            Output::Inherit => None,
            Output::File(path) => Some(path),
        }
    }

    /// Starts the process.
    ///
    /// # Errors
    ///
    /// When the program cannot be executed or its log cannot be opened.
    pub fn spawn(&self) -> Result<Process> {
        let (stdout, stderr) = self.streams()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).stdin(Stdio::null()).stdout(stdout).stderr(stderr).env_clear();
        command.envs(inherited()).envs(&self.environment);
        // A group of its own, or Ctrl-C on the terminal would reach it before whoever depends on it has finished.
        command.process_group(0);
        if let Some(account) = self.account {
            // Its new user may not be allowed to be where we are.
            command.uid(account.uid).gid(account.gid).current_dir("/");
        }
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let pid = child.id().ok_or_else(|| anyhow!("{} has no process id", self.name))?;
        Ok(Process {
            name: self.name.clone(),
            life: Some(Life::Child(child)),
            pid: Pid::from_raw(i32::try_from(pid)?),
            stop_signal: self.stop_signal,
        })
    }

    fn streams(&self) -> Result<(Stdio, Stdio)> {
        match &self.output {
            Output::Inherit => Ok((Stdio::inherit(), Stdio::inherit())),
            Output::File(path) => {
                let open = || -> Result<File> {
                    OpenOptions::new()
                        .create(true)
                        .append(true)
                        .mode(0o600)
                        .open(path)
                        .with_context(|| format!("cannot write {}", path.display()))
                };
                Ok((open()?.into(), open()?.into()))
            }
        }
    }
}

/// The part of our environment that every child gets.
pub(crate) fn inherited() -> impl Iterator<Item = (&'static str, OsString)> {
    INHERITED.iter().filter_map(|name| std::env::var_os(name).map(|value| (*name, value)))
}

/// A process that we started. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    /// None once it was let go.
    life: Option<Life>,
    pid: Pid,
    stop_signal: Signal,
}

/// How we learn that a process has ended.
#[derive(Debug)]
enum Life {
    Child(Child),
    /// Somebody else's child, who says so here.
    Told(watch::Receiver<Option<ExitStatus>>),
}

impl Process {
    /// A process that another one started for us, and whose end is told by `ended`.
    pub(crate) fn told(
        name: impl Into<String>,
        pid: u32,
        stop_signal: Signal,
        ended: watch::Receiver<Option<ExitStatus>>,
    ) -> Result<Process> {
        let pid = Pid::from_raw(i32::try_from(pid)?);
        Ok(Process { name: name.into(), life: Some(Life::Told(ended)), pid, stop_signal })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// How it ended, or None while it runs.
    ///
    /// # Errors
    ///
    /// When the operating system cannot say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.life {
            Some(Life::Child(child)) => Ok(child.try_wait()?),
            Some(Life::Told(ended)) => Ok(*ended.borrow()),
            None => Ok(None),
        }
    }

    /// Ends it at once, with SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    ///
    /// When it is still there after five seconds.
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(KILL_GRACE).await
    }

    /// Asks it to end, with its stop signal, and does not wait.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(self.stop_signal)
    }

    /// Stops the clock for it (SIGSTOP): connections stay open and nothing is answered.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on after [`Process::pause`].
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    ///
    /// When it still runs after `bound`.
    pub async fn wait(&mut self, bound: Duration) -> Result<ExitStatus> {
        let ended = async {
            match &mut self.life {
                Some(Life::Child(child)) => Ok(child.wait().await?),
                Some(Life::Told(ended)) => {
                    let told = ended.wait_for(Option::is_some).await.ok().and_then(|status| *status);
                    told.ok_or_else(|| anyhow!("nobody is left to say whether {} has ended", self.name))
                }
                None => Err(anyhow!("{} was let go and cannot be waited for", self.name)),
            }
        };
        timeout(bound, ended)
            .await
            .map_err(|_| anyhow!("{} (pid {}) still runs after {bound:?}", self.name, self.pid))?
    }

    /// Asks it to end and kills it when it has not within `grace`.
    ///
    /// # Errors
    ///
    /// When even SIGKILL does not end it.
    pub async fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.terminate()?;
        // A paused process would not see the request.
        self.resume()?;
        match self.wait(grace).await {
            Ok(status) => Ok(status),
            Err(_) => self.kill().await,
        }
    }

    /// Lets it go on without us: it is not killed when this handle is dropped.
    pub fn let_go(mut self) -> u32 {
        self.life = None;
        self.pid()
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // Once it has been waited for, its number may belong to another process.
        if self.life.is_none() || self.exited()?.is_some() {
            return Ok(());
        }
        match signal::kill(self.pid, signal) {
            // It has ended, and we have not been told yet. A child of ours would have waited for us.
            Err(Errno::ESRCH) => Ok(()),
            sent => sent.with_context(|| format!("cannot send {signal} to {}", self.name)),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nobody is left to hear about a failure; the watchdog of the stack has its own list.
        let _ = self.signal(Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn shell(script: &str, directory: &Path) -> Spec {
        Spec::new("shell", "/bin/sh", Output::File(directory.join("log"))).argument("-c").argument(script)
    }

    async fn until(what: &str, mut met: impl FnMut() -> bool) {
        for _ in 0..500 {
            if met() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within five seconds: {what}");
    }

    fn state_of(pid: u32) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    #[tokio::test]
    async fn writes_to_its_log_and_reports_its_status() {
        let directory = tempfile::tempdir().unwrap();
        let given = Environment::from([("WHO".to_owned(), "world".to_owned())]);
        let spec = shell("echo hello $WHO; exit 3", directory.path()).environment(&given);

        let status = spec.spawn().unwrap().wait(Duration::from_secs(5)).await.unwrap();

        assert_eq!(status.code(), Some(3));
        assert_eq!(std::fs::read_to_string(directory.path().join("log")).unwrap(), "hello world\n");
    }

    #[tokio::test]
    async fn inherits_only_what_is_listed() {
        let directory = tempfile::tempdir().unwrap();
        let spec = shell("env | cut -d= -f1", directory.path());

        spec.spawn().unwrap().wait(Duration::from_secs(5)).await.unwrap();

        let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
        assert!(log.contains("PATH"));
        assert!(!log.contains("CARGO"), "{log}");
    }

    #[tokio::test]
    async fn a_stubborn_process_is_killed_after_its_grace() {
        let directory = tempfile::tempdir().unwrap();
        let mut process =
            shell("trap '' TERM; echo deaf; while :; do sleep 1; done", directory.path()).spawn().unwrap();
        let log = directory.path().join("log");
        until("the trap is set", || std::fs::read_to_string(&log).is_ok_and(|text| text == "deaf\n")).await;

        let status = process.stop(Duration::from_millis(50)).await.unwrap();

        assert_eq!(status.signal(), Some(9));
    }

    #[tokio::test]
    async fn pauses_and_resumes() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = shell("exec sleep 60", directory.path()).spawn().unwrap();

        process.pause().unwrap();
        until("it is stopped", || state_of(process.pid()) == Some('T')).await;
        process.resume().unwrap();
        until("it goes on", || state_of(process.pid()) != Some('T')).await;

        // A paused process must still end when asked.
        process.pause().unwrap();
        let status = process.stop(Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.signal(), Some(15));
    }

    #[tokio::test]
    async fn is_killed_with_its_handle_unless_let_go() {
        let directory = tempfile::tempdir().unwrap();
        let process = shell("exec sleep 60", directory.path()).spawn().unwrap();
        let pid = process.pid();

        drop(process);

        until("it is gone", || matches!(state_of(pid), None | Some('Z'))).await;
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Spec::new("ghost", "/nowhere/ghost", Output::Inherit).spawn().unwrap_err();

        assert!(error.to_string().contains("/nowhere/ghost"), "{error}");
    }
}
