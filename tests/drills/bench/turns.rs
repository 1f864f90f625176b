//! Programs that share cores only to be measured.

use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Has this thread, and whatever it starts from now on, take turns with others like it (`SCHED_BATCH`, sched(7)). Otherwise
/// whoever gets a message interrupts whoever works, at every message, and the caches are cold for both. Programs with cores
/// of their own do not pay for that.
///
/// # Errors
/// There is no `chrt` (util-linux), or it is refused.
pub fn take_turns() -> Result<()> {
    let thread = nix::unistd::gettid().to_string();
    let set = Command::new("chrt")
        .args(["--batch", "--pid", "0", &thread])
        .status()
        .context("chrt (util-linux)")?;
    ensure!(set.success(), "chrt: {set}");
    Ok(())
}
