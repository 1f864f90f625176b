//! The program `devstack`, as people and drills use it.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::stand_ins::directory;
use crate::{runs, until};

/// The program with its ready file. Its error output goes to a file, because its children write there as well and a
/// pipe would stay open for as long as the last of them lives.
struct Program {
    child: Child,
    ready_file: PathBuf,
}

impl Program {
    fn start(directory: &Path, arguments: &[&str]) -> Program {
        let ready_file = directory.join("ready.json");
        let child = command(directory)
            .args(["--api-port", "0", "--ops-port", "0", "--simulator-port", "0", "--ready-file"])
            .arg(&ready_file)
            .args(arguments)
            .spawn()
            .unwrap();
        Program { child, ready_file }
    }

    fn ready(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(&self.ready_file).ok()?).ok()
    }

    async fn until_ready(&self) -> Value {
        until("the stack is ready", async || self.ready().is_some()).await;
        self.ready().unwrap()
    }

    fn send(&self, signal: &str) {
        send(signal, self.child.id().into());
    }
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_devstack"));
    command
        .env("PAYWRIGHT_BIN_DIR", directory.join("bin"))
        .env_remove("DATABASE_URL")
        .arg("--data-dir")
        .arg(directory.join("data"))
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("errors")).unwrap());
    command
}

fn send(signal: &str, pid: u64) {
    // the shell's own: a bare machine has no program of that name
    let kill = format!("kill {signal} {pid}");
    assert!(Command::new("/bin/sh").args(["-c", &kill]).status().unwrap().success());
}

fn pid(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn children(ready: &Value) -> Vec<u64> {
    vec![pid(&ready["services"][0]["pid"]), pid(&ready["simulator_pid"]), pid(&ready["postgres_pid"])]
}

#[tokio::test]
async fn a_signal_stops_everything_and_a_later_start_goes_on() {
    let directory = directory();
    let mut urls = Vec::new();
    for signal in ["-TERM", "-INT"] {
        let mut program = Program::start(directory.path(), &[]);
        let ready = program.until_ready().await;
        urls.push(
            ready["service_env"]["DATABASE_URL"].as_str().unwrap().split('@').next().unwrap().to_owned(),
        );

        program.send(signal);

        assert_eq!(program.child.wait().unwrap().code(), Some(0));
        assert!(!children(&ready).iter().any(runs));
        assert!(!program.ready_file.exists());
    }
    assert_eq!(urls[0], urls[1], "the password was kept");
}

#[tokio::test]
async fn its_children_do_not_survive_it() {
    let directory = directory();
    let mut program = Program::start(directory.path(), &[]);
    let ready = program.until_ready().await;

    program.send("-KILL");
    program.child.wait().unwrap();

    until("its children are gone", async || !children(&ready).iter().any(runs)).await;
}

#[tokio::test]
async fn the_ready_file_follows_every_restart() {
    let directory = directory();
    let mut program = Program::start(directory.path(), &["--restart", "--instances", "2"]);
    let before = program.until_ready().await;

    for child in children(&before) {
        send("-KILL", child);
    }

    until("three new processes are written down", async || {
        program.ready().is_some_and(|now| children(&now).iter().all(|pid| !children(&before).contains(pid)))
    })
    .await;
    let after = program.ready().unwrap();
    assert_eq!(after["services"][1], before["services"][1], "nobody touched it");
    assert_eq!(after["services"][0]["api"], before["services"][0]["api"]);
    program.send("-TERM");
    assert_eq!(program.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_bad_day_is_one_message_and_status_2() {
    let directory = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let unreachable = "postgres://nobody@127.0.0.1:1/none";
    let free = ["--api-port", "0", "--ops-port", "0", "--simulator-port", "0"];
    let days: &[(&str, &[&str], &str)] = &[
        ("PAYWRIGHT_BIN_DIR", &[], "cargo build --workspace --bins"),
        ("PG_BIN_DIR", &free, "PG_BIN_DIR"),
        ("RUST_LOG", &["--simulator-port", &port, "--api-port", "0", "--ops-port", "0"], "--simulator-port"),
        ("RUST_LOG", &[&free[..], &["--database-url", unreachable]].concat(), "does not answer"),
    ];
    for (variable, arguments, message) in days {
        let mut command = command(directory.path());
        // These are bad days for servers and programs that are there; an image would save them.
        command.env_remove("POSTGRES_FROM").env(variable, "/nowhere").args(*arguments);
        let status = command.status().unwrap();

        let errors = fs::read_to_string(directory.path().join("errors")).unwrap();
        assert_eq!(status.code(), Some(2), "{errors}");
        let last = errors.lines().last().unwrap();
        assert!(last.starts_with("devstack: error: ") && last.contains(message), "{errors}");
    }
}
