//! Cleaning up after processes that were killed and could not do it themselves.
//!
//! A small shell script in a process group of its own, holding none of our streams, so that neither Ctrl-C nor a test
//! runner that waits for its children's output notices it.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};
use tokio::process::Child;

/// Reads lines of `SIGNAL:PID ...`, each replacing the one before, until the writer is gone; then asks those processes
/// to end and, ten seconds later, kills what is left.
const GUARD: &str = r#"
children=
while read -r line; do children=$line; done
[ -n "$children" ] || exit 0
for child in $children; do kill -"${child%%:*}" "${child##*:}"; kill -CONT "${child##*:}"; done
for tick in 1 2 3 4 5 6 7 8 9 10; do
  left=
  for child in $children; do kill -0 "${child##*:}" && left=yes; done
  [ -n "$left" ] || exit 0
  sleep 1
done
for child in $children; do kill -KILL "${child##*:}"; done
"#;

/// Waits until the process $1 is gone, stops the server whose pid file is $2 and removes the directory $3.
///
/// A fast shutdown, because an immediate one leaves shared memory behind.
const AFTER_RUN: &str = r#"
while kill -0 "$1"; do sleep 0.5; done
if pid=$(head -n 1 "$2"); then
  kill -INT "$pid" && while kill -0 "$pid"; do sleep 0.1; done
fi
rm -rf "$3"
"#;

/// Ends the children of this process when it dies without having done so.
#[derive(Debug)]
pub struct Guard {
    /// Its other end is closed with this process, whatever ends it: that is the shell's signal.
    list: File,
    _shell: Child,
}

impl Guard {
    /// Starts the shell that watches; there is nothing to end yet.
    ///
    /// # Errors
    ///
    /// When there is no `/bin/sh`.
    pub fn start() -> Result<Guard> {
        // Tokio reaps a dropped child, the standard library would leave a zombie.
        let mut shell = tokio::process::Command::from(detached(GUARD))
            .stdin(Stdio::piped())
            .spawn()
            .context("cannot run /bin/sh")?;
        let pipe = shell.stdin.take().ok_or_else(|| anyhow!("the watchdog has no input"))?;
        Ok(Guard { list: File::from(pipe.into_owned_fd()?), _shell: shell })
    }

    /// Replaces the list of what is to be ended: signal names without SIG, and process ids.
    ///
    /// # Errors
    ///
    /// When the shell is gone.
    pub fn watch<'a>(&mut self, children: impl Iterator<Item = (&'a str, u32)>) -> Result<()> {
        let list: Vec<String> = children.map(|(signal, pid)| format!("{signal}:{pid}")).collect();
        writeln!(self.list, "{}", list.join(" ")).context("the watchdog is gone")
    }
}

/// Stops a test run's server once `runner` is gone, and removes `directory`.
pub(crate) fn after_run(runner: u32, pid_file: &Path, directory: &Path) -> Result<()> {
    detached(AFTER_RUN)
        .arg(runner.to_string())
        .arg(pid_file)
        .arg(directory)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot run /bin/sh")?;
    Ok(())
}

fn detached(script: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, "watchdog"]).current_dir("/").process_group(0);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
