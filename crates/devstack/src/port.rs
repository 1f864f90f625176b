//! Ports on 127.0.0.1 for servers that start a moment after their port was chosen.
//!
//! Binding port 0 and closing it again is not enough: the system hands the same number to the next process that asks,
//! or to an outgoing connection while the server that owned it restarts. So ports are taken from below the range that
//! the system hands out, and are reserved among all stacks of this machine by locking a file per port.

use std::fs::{self, File, OpenOptions, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, anyhow};
use uuid::Uuid;

/// Below Linux's 32768, where ports of outgoing connections begin, and above the ports of well-known servers.
const FIRST: u16 = 15_000;
const LAST: u16 = 32_000;
const ATTEMPTS: usize = 1_000;

/// A port that stays ours while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// None for a port that the caller chose: it is theirs to keep apart.
    _reservation: Option<File>,
}

impl Port {
    /// A port that nobody listens on and no other stack has been given.
    ///
    /// # Errors
    ///
    /// When none is found.
    pub fn free() -> Result<Port> {
        let directory = std::env::temp_dir().join("payments-devstack-ports");
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        // Other users reserve ports here too. Only the owner can change this, and has done so.
        let _ = fs::set_permissions(&directory, Permissions::from_mode(0o1777));
        for _ in 0..ATTEMPTS {
            let number = candidate();
            let file = OpenOptions::new()
                .create(true)
                .append(true)
                .open(directory.join(format!("{number}-{}", nix::unistd::Uid::effective())));
            let Ok(file) = file else { continue };
            if file.try_lock().is_ok() && is_free(number) {
                return Ok(Port { number, _reservation: Some(file) });
            }
        }
        Err(anyhow!("no free port between {FIRST} and {LAST}"))
    }

    /// The port `number`, or a free one if it is 0. None when somebody listens there.
    ///
    /// # Errors
    ///
    /// When 0 was asked for and no port is free.
    pub fn of(number: u16) -> Result<Option<Port>> {
        if number == 0 {
            return Port::free().map(Some);
        }
        Ok(is_free(number).then_some(Port { number, _reservation: None }))
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

fn candidate() -> u16 {
    let [.., high, low] = Uuid::new_v4().into_bytes();
    FIRST + u16::from_be_bytes([high, low]) % (LAST - FIRST)
}

fn is_free(number: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn free_ports_differ() {
        let ports: Vec<Port> = (0..50).map(|_| Port::free().unwrap()).collect();

        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();

        assert_eq!(numbers.len(), 50);
    }

    #[test]
    fn a_port_in_use_is_refused() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let number = taken.local_addr().unwrap().port();

        assert!(Port::of(number).unwrap().is_none());
        drop(taken);
        assert_eq!(Port::of(number).unwrap().unwrap().number(), number);
    }
}
