//! One core for what is measured, and another for the load.

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The thread that asks.
const THIS: Pid = Pid::from_raw(0);

/// Two cores of those that this process may use.
#[derive(Debug, Clone, Copy)]
pub struct Cores {
    /// For service, database and provider.
    pub stack: usize,
    /// For the load.
    pub load: usize,
}

impl Cores {
    /// The first two.
    ///
    /// # Errors
    /// There is one only.
    pub fn find() -> Result<Self> {
        let allowed = sched_getaffinity(THIS)?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        let (stack, load) = (cores.next(), cores.next());
        let [stack, load] = [stack, load].map(|core| {
            core.context("this drill needs two cores: one for what is measured, another for the load")
        });
        Ok(Self { stack: stack?, load: load? })
    }
}

/// Keeps this thread, and whatever it starts from now on, on one core.
///
/// # Errors
/// The system refuses.
pub fn stay_on(core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core)?;
    sched_setaffinity(THIS, &only).with_context(|| format!("core {core}"))
}

/// Whether a process may run on this core and nowhere else.
///
/// # Errors
/// It may: a database in a container, for example, was started by somebody else.
pub fn ensure_on(core: usize, pid: u32) -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(i32::try_from(pid)?))?;
    let is_only = (0..CpuSet::count()).all(|other| allowed.is_set(other).unwrap_or(false) == (other == core));
    ensure!(is_only, "process {pid} is not kept on core {core}");
    Ok(())
}
