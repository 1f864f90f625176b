//! Connections, before anybody knows whose they are: slow ones, too many, and too few files for them. The drill `slow` does the
//! first with the release build.

use crate::support::{SOON, Wire, WireAnswer, post, program};
use anyhow::{Context, Result};
use devstack::port::Port;
use e2e::{Slow, World, eventually, payment};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

#[tokio::test]
async fn slow_connections_are_closed_and_nobody_else_notices() -> Result<()> {
    let mut world = World::start().await?;
    let figures = Slow { connections: 1000, creates: 5.0, reads: 25.0 }.happen(&mut world).await?;
    println!("{figures}");
    figures.verdict()?;
    world.finish().await
}

/// A further service, with settings of its own.
struct Another {
    process: Child,
    url: String,
    ops: String,
    _ports: [Port; 2],
}

impl Another {
    async fn start(
        world: &World,
        more: &[(&str, &str)],
        run: impl FnOnce(Command) -> Command,
    ) -> Result<Self> {
        let ports = [Port::free()?, Port::free()?];
        let [listen, ops] = [0, 1].map(|at| format!("127.0.0.1:{}", ports[at].number()));
        let settings = world.stack.service_env()?;
        let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = [("PAYWRIGHT_LISTEN", listen.as_str()), ("PAYWRIGHT_OPS_LISTEN", ops.as_str())];
        let settings = settings.chain(own).chain(more.iter().copied());
        let process = run(program(&["serve"], settings).await?).spawn()?;
        let another =
            Self { process, url: format!("http://{listen}"), ops: format!("http://{ops}"), _ports: ports };
        eventually(SOON, "it answers", async || {
            Ok(ask(&another.ops, "/readyz").await.is_ok_and(|answer| answer.status == 200))
        })
        .await?;
        Ok(another)
    }

    /// A connection that was served, and is open.
    async fn served(&self) -> Result<Wire> {
        let mut served = None;
        eventually(SOON, "one more is served", async || {
            let mut wire = Wire::to(&self.url).await?;
            let is_served = wire.send(&get("/livez")).await.is_ok()
                && wire.read().await.is_ok_and(|answer| answer.status == 200);
            served = is_served.then_some(wire);
            Ok(is_served)
        })
        .await?;
        served.context("a connection")
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

async fn ask(url: &str, path: &str) -> Result<WireAnswer> {
    let mut wire = Wire::to(url).await?;
    wire.send(&get(path)).await?;
    wire.read().await
}

#[tokio::test]
async fn one_connection_too_many_is_answered_at_once() -> Result<()> {
    const MOST: usize = 4;
    let world = World::start().await?;
    let settings = [("PAYWRIGHT_MAX_CONNECTIONS", "4")];
    let quiet = |mut command: Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let another = Another::start(&world, &settings, quiet).await?;
    let mut open = Vec::new();
    for _ in 0..MOST {
        open.push(another.served().await?);
    }
    // before it asks for anything
    let began = Instant::now();
    let mut wire = Wire::to(&another.url).await?;
    let answer = wire.read().await?;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("overloaded")));
    assert_eq!((answer.header("retry-after"), answer.header("connection")), ("1", "close"));
    assert_eq!(answer.json()["trace_id"], answer.header("request-id"));
    // also to whoever asks first and listens then
    wire.send(&get("/livez")).await?;
    assert!(wire.is_at_its_end().await?);
    assert_eq!(ask(&another.url, "/livez").await?.status, 503);
    // probes come through a door of their own
    assert_eq!(ask(&another.ops, "/readyz").await?.status, 200);
    // those that are open are as good as ever, and the next one is when one of them goes
    let mut kept = open.pop().context("a connection")?;
    let request = post(&world.api.at(&another.url), "key", &payment("order-1").to_string());
    kept.send(request.as_bytes()).await?;
    assert_eq!(kept.read().await?.status, 201);
    drop(kept);
    another.served().await?;
    world.finish().await
}

#[tokio::test]
async fn a_low_limit_of_open_files_is_said_and_kept() -> Result<()> {
    let world = World::start().await?;
    // 2 + 8 connections to others, the worker's, and what the listeners have beside: room for ten
    let settings = [("PAYWRIGHT_DATABASE_CONNECTIONS", "2"), ("PAYWRIGHT_MAX_IN_FLIGHT", "8")];
    let limited = |command: Command| {
        let program = command.as_std();
        let mut shell = Command::new("sh");
        shell.arg("-c").arg("ulimit -n 440 && exec \"$0\" serve").arg(Path::new(program.get_program()));
        let set = program.get_envs().filter_map(|(name, value)| Some((name, value?)));
        shell.env_clear().envs(set).stdin(Stdio::null()).kill_on_drop(true);
        shell.stdout(Stdio::null()).stderr(Stdio::piped());
        shell
    };
    let mut another = Another::start(&world, &settings, limited).await?;
    let log = another.process.stderr.take().context("its log")?;
    let mut lines = BufReader::new(log).lines();
    let line = loop {
        let line = lines.next_line().await?.context("it says so")?;
        if line.contains("because of the limit of open files") {
            break line;
        }
    };
    let said: serde_json::Value = serde_json::from_str(&line)?;
    let connections = said["fields"]["connections"].as_u64().or(said["connections"].as_u64());
    let connections = usize::try_from(connections.with_context(|| line.clone())?)?;
    assert!((1..40).contains(&connections), "{line}");
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(another.served().await?);
    }
    assert_eq!(ask(&another.url, "/livez").await?.status, 503);
    world.finish().await
}
