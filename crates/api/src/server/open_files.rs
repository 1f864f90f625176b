//! How many connections the process may have open: each is a file to the system.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Beside connections: the runtime's own files, log, listeners, the collector of telemetry, names that are looked up.
const OTHERS: usize = 64;

/// How many connections can be served at once, of those that are `wanted`, when `needed` others may be open. Raises the
/// limit of open files to the most that the system allows, and says so if it is not enough.
pub(crate) fn connections(wanted: usize, needed: usize) -> usize {
    let Some(files) = raise() else { return wanted };
    let connections = affordable(wanted, needed, files);
    if connections < wanted {
        tracing::warn!(
            connections,
            wanted,
            open_files = files,
            "fewer connections than PAYWRIGHT_MAX_CONNECTIONS, because of the limit of open files"
        );
    }
    connections
}

/// The limit, once it is raised; `None`: it is not known.
fn raise() -> Option<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    let limit = if raised.is_ok() { hard } else { soft };
    // one without a limit is larger than any
    Some(usize::try_from(limit).unwrap_or(usize::MAX))
}

fn affordable(wanted: usize, needed: usize, files: usize) -> usize {
    wanted.min(files.saturating_sub(needed).saturating_sub(OTHERS)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_else_is_open_comes_first() {
        assert_eq!(affordable(4096, 500, 1_048_576), 4096);
        assert_eq!(affordable(4096, 500, 1024), 1024 - 500 - OTHERS);
        assert_eq!(affordable(4096, 500, 256), 1, "it starts, and says why it serves one");
    }
}
