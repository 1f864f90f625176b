//! Processor time, as Linux counts it for each process.

use anyhow::{Context, Result};
use std::collections::HashMap;
use std::fs;

/// The unit of `/proc/PID/stat`, the same on every Linux that matters: a hundredth of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processes of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Pids {
    /// `paywright serve`
    pub service: u32,
    /// `provider-simulator`
    pub simulator: u32,
    /// The server; its children count with it.
    pub postgres: u32,
}

/// Seconds of processor time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    /// The service.
    pub service: f64,
    /// The simulator.
    pub simulator: f64,
    /// PostgreSQL.
    pub postgres: f64,
    /// This process: the load generator.
    pub load: f64,
}

impl Cpu {
    /// What was used up to now.
    ///
    /// # Errors
    /// There is no `/proc`, or a process has ended.
    pub fn of(pids: Pids) -> Result<Self> {
        let stats = all()?;
        let own = |pid: u32| stats.get(&pid).map(|stat| stat.own).context("a process has ended");
        let postgres = stats.get(&pids.postgres).context("PostgreSQL has ended")?;
        // a backend that has ended is in its parent's account
        let living = stats.values().filter(|stat| stat.parent == pids.postgres).map(|stat| stat.own);
        Ok(Self {
            service: own(pids.service)?,
            simulator: own(pids.simulator)?,
            postgres: postgres.own + postgres.ended_children + living.sum::<f64>(),
            load: own(std::process::id())?,
        })
    }

    /// What was used between two moments.
    pub fn since(self, before: Self) -> Self {
        Self {
            service: self.service - before.service,
            simulator: self.simulator - before.simulator,
            postgres: self.postgres - before.postgres,
            load: self.load - before.load,
        }
    }

    /// The share of each of so many.
    pub fn per(self, count: usize) -> Self {
        self.over(f64::from(u32::try_from(count.max(1)).unwrap_or(u32::MAX)))
    }

    /// Of each second, of so many.
    pub fn over(self, seconds: f64) -> Self {
        Self {
            service: self.service / seconds,
            simulator: self.simulator / seconds,
            postgres: self.postgres / seconds,
            load: self.load / seconds,
        }
    }

    /// Of all together.
    pub fn sum(self) -> f64 {
        self.service + self.simulator + self.postgres + self.load
    }
}

/// The most memory that a process has had, in KiB. See proc_pid_status(5).
///
/// # Errors
/// There is no `/proc`, or the process has ended.
pub fn most_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

struct Stat {
    parent: u32,
    own: f64,
    ended_children: f64,
}

fn all() -> Result<HashMap<u32, Stat>> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc").context("this drill needs Linux's /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // processes come and go while the list is read
        if let Some(stat) = fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(read) {
            stats.insert(pid, stat);
        }
    }
    Ok(stats)
}

/// See proc_pid_stat(5). The name in parentheses may contain anything, so fields are counted from behind it.
fn read(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let seconds = |place: usize| Some(fields.get(place)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: seconds(11)? + seconds(12)?,
        ended_children: seconds(13)? + seconds(14)?,
    })
}
