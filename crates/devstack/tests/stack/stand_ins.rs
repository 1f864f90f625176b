//! Programs that look like ours from outside: shell scripts for what ends by itself, and this very test program for what
//! serves.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const SERVICE: &str = r#"#!/bin/sh
case "$1" in
  serve) env > "$(dirname "$0")/environment"
    FAKE_LISTEN="$PAYWRIGHT_LISTEN $PAYWRIGHT_OPS_LISTEN" exec "TEST_PROGRAM" --exact stand_ins::serves --nocapture ;;
  migrate) echo "$@ on $DATABASE_URL" >> "$(dirname "$0")/calls" ;;
  merchant) echo "$@" >> "$(dirname "$0")/calls"
    echo '{"merchant_id": "m1", "key_id": "k1", "api_key": "sk_m1"}' ;;
esac
"#;
const SIMULATOR: &str = r#"#!/bin/sh
FAKE_LISTEN="$2" exec "TEST_PROGRAM" --exact stand_ins::serves --nocapture
"#;

/// The stand-in's server; as a test of its own it has nothing to do.
#[test]
fn serves() {
    let Ok(addresses) = std::env::var("FAKE_LISTEN") else { return };
    let mut threads = Vec::new();
    for address in addresses.split_whitespace() {
        let listener = TcpListener::bind(address).unwrap();
        threads.push(std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let _ = connection.read(&mut [0; 4096]);
                let _ = connection
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
            }
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A directory that PostgreSQL's user can reach, with stand-ins in `bin`.
pub(crate) fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let this = std::env::current_exe().unwrap();
    for (name, script) in [("paywright", SERVICE), ("provider-simulator", SIMULATOR)] {
        let path = bin.join(name);
        install(&path, &script.replace("TEST_PROGRAM", this.to_str().unwrap()));
    }
    directory
}

/// Writes a program by way of another process: a file that this one has open for writing, or a child of another thread
/// that has not executed its own program yet, cannot be executed ("text file busy").
pub(crate) fn install(path: &Path, script: &str) {
    let write = "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"";
    let status = Command::new("/bin/sh").args(["-c", write, "install", script]).arg(path).status().unwrap();
    assert!(status.success());
}
