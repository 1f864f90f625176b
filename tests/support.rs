//! What the modules share: the command line, a second merchant, bytes by hand, the shape of a problem.

use anyhow::{Context, Result, ensure};
use e2e::{Answer, Api, Profile, World, WorldOptions, eventually, payment, programs};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// The path that creates payments.
pub(crate) const PAYMENTS: &str = "/v1/payments";
/// Longer than anything takes that is on its way.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Every way in which a request or its answer can be lost, but for the slow and the late ones.
pub(crate) const FAULTS: [&str; 10] = [
    "http_429",
    "http_500_before",
    "http_500_after",
    "http_500_stored",
    "reset_before",
    "reset_after",
    "half_body",
    "garbage",
    "hang_before",
    "hang_after",
];

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The service's program with these settings and nothing else, not yet started.
pub(crate) async fn program<'a>(
    arguments: &[&str],
    settings: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<Command> {
    let directory = tokio::task::spawn_blocking(|| programs(Profile::Debug)).await??;
    let mut command = Command::new(directory.join("paywright"));
    command.args(arguments).env_clear().envs(settings).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Runs the service's program to its end, as it would join this world.
pub(crate) async fn run(world: &World, arguments: &[&str], more: &[(&str, &str)]) -> Result<Output> {
    let settings = world.stack.service_env()?;
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut command = program(arguments, settings.chain(more.iter().copied())).await?;
    Ok(command.output().await?)
}

/// Runs a command that must succeed, and reads the one line of JSON that it prints.
pub(crate) async fn run_json(world: &World, arguments: &[&str]) -> Result<Value> {
    let output = run(world, arguments, &[]).await?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().count(), 1, "{text}");
    Ok(serde_json::from_str(&text)?)
}

/// A further key of the world's merchant: its id, and an API that uses it.
pub(crate) async fn another_key(world: &World, arguments: &[&str]) -> Result<(String, Api)> {
    let merchant = world.stack.merchant()?.merchant_id.clone();
    let created = run_json(world, &[&["key", "create", &merchant, "--json"], arguments].concat()).await?;
    Ok((text(&created["key_id"]), Api { key: text(&created["api_key"]), ..world.api.clone() }))
}

/// A string's content.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A payment's id.
pub(crate) fn id(answer: &Answer) -> String {
    text(&answer.json()["id"])
}

/// Checks that an answer is a problem, in the one shape that problems have.
#[track_caller]
pub(crate) fn assert_problem(answer: &Answer, status: u16, code: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["code"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{code}");
    assert_eq!(body["type"], format!("/docs/errors/{code}"));
    assert_eq!(body["status"], status);
    for member in ["title", "detail"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {body}");
    }
    assert_eq!(body["trace_id"], answer.header("request-id"), "{body}");
    assert_eq!(answer.header("request-id").len(), 32);
    assert_eq!(answer.header("cache-control"), "no-store", "{code}");
}

/// Attempts that end soon, in a lease that is as short as it may be.
pub(crate) fn impatient() -> WorldOptions {
    WorldOptions::default().set("PAYWRIGHT_PROVIDER_TIMEOUT", "1s").set("PAYWRIGHT_LEASE", "6500ms")
}

/// A payment that is to be captured by hand.
pub(crate) fn manual(reference: &str) -> Value {
    let mut body = payment(reference);
    body["capture"] = json!("manual");
    body
}

/// A payment that is held; its path.
pub(crate) async fn held(api: &Api, reference: &str) -> Result<String> {
    let answer = api.create(reference, &manual(reference)).await?;
    ensure!(answer.json()["status"] == "authorized", "{}", answer.json());
    Ok(answer.header("location").to_owned())
}

/// A payment that was captured; its path.
pub(crate) async fn captured(api: &Api, reference: &str) -> Result<String> {
    let answer = api.create(reference, &payment(reference)).await?;
    ensure!(answer.json()["status"] == "captured", "{}", answer.json());
    Ok(answer.header("location").to_owned())
}

/// An object that can be read at a path, once it is as it should be.
pub(crate) async fn once(api: &Api, path: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut object = Value::Null;
    let seen = eventually(Duration::from_secs(30), "it is as it should be", async || {
        object = api.get(path).await?.json();
        Ok(wanted(&object))
    });
    seen.await.with_context(|| format!("{path} is {object}"))?;
    Ok(object)
}

/// The types of a payment's events, in order. They must be numbered without gaps.
pub(crate) async fn trail(api: &Api, payment: &str) -> Result<Vec<String>> {
    let events = api.get(&format!("{payment}/events?limit=100")).await?.json();
    let events = events["data"].as_array().cloned().unwrap_or_default();
    for (sequence, event) in (1..).zip(&events) {
        ensure!(event["sequence"] == sequence, "{event}");
    }
    Ok(events.iter().map(|event| text(&event["type"])).collect())
}

/// A form that the service sent to a provider.
pub(crate) type Form = HashMap<String, String>;

/// A provider that answers what a test wants: `respond` is given method and path, and the form.
pub(crate) async fn scripted_provider(
    respond: impl Fn(&str, &Form) -> (u16, Value) + Clone + Send + 'static,
) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, respond.clone()));
        }
    });
    Ok((url, serving))
}

async fn converse(mut stream: TcpStream, respond: impl Fn(&str, &Form) -> (u16, Value)) -> Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        let request = head.split(" HTTP/").next().unwrap_or_default().to_owned();
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut form = vec![0; length.map_or(Ok(0), str::parse)?];
        stream.read_exact(&mut form).await?;
        let form = String::from_utf8(form)?.replace("%5B", "[").replace("%5D", "]");
        let form = form.split('&').filter_map(|pair| pair.split_once('='));
        let form = form.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (status, body) = respond(&request, &form);
        let body = body.to_string();
        let answer = format!(
            "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// Waits until the provider has been asked to create so many intents.
pub(crate) async fn provider_was_asked(world: &World, times: u64) -> Result<()> {
    eventually(SOON, "the provider was asked", async || {
        Ok(world.simulator.calls("POST /v1/payment_intents").await? >= times)
    })
    .await
}

/// A number from the database.
pub(crate) async fn count(world: &World, statement: &'static str) -> Result<i64> {
    Ok(sqlx::query_scalar(statement).fetch_one(&world.pool).await?)
}

/// Where a URL's server listens.
pub(crate) fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

/// A POST to `/v1/payments` byte by byte.
pub(crate) fn post(api: &Api, key: &str, body: &str) -> String {
    format!(
        "POST {PAYMENTS} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
        address(&api.url),
        api.key,
        body.len()
    )
}

/// A connection that is written to and read from by hand.
pub(crate) struct Wire(TcpStream);

/// What came back over a [`Wire`].
#[derive(Debug)]
pub(crate) struct WireAnswer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl WireAnswer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

impl Wire {
    pub(crate) async fn to(url: &str) -> Result<Self> {
        Ok(Self(TcpStream::connect(address(url)).await?))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).await?;
        Ok(self.0.flush().await?)
    }

    /// Reads one answer with a length.
    pub(crate) async fn read(&mut self) -> Result<WireAnswer> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.context("the connection ended before an answer")?);
        }
        let head = String::from_utf8(head)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status")?.parse()?;
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.get("content-length").map_or(Ok(0), |length| length.parse())?;
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await?;
        Ok(WireAnswer { status, headers, body })
    }

    /// Whether the other side has closed the connection, and nothing is left to read.
    pub(crate) async fn is_at_its_end(&mut self) -> Result<bool> {
        let rest = tokio::time::timeout(SOON, self.0.read_u8()).await?;
        Ok(rest.is_err())
    }
}

/// Whether a test can run that needs something of the machine. If not, it says so aloud; where `NO_SKIP` is set, it is a
/// failure.
fn is_there(what: &str, is_there: bool) -> Result<bool> {
    ensure!(is_there || std::env::var_os("NO_SKIP").is_none(), "no {what}, and NO_SKIP is set");
    if !is_there {
        say(&format!("skipped: no {what}"));
    }
    Ok(is_there)
}

/// Says something to whoever runs the tests, also of one that passes. What a macro prints, the harness swallows.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn succeeds(command: &mut std::process::Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether these programs can be run.
pub(crate) fn has_programs(programs: &[&str]) -> Result<bool> {
    let missing = programs.iter().find(|name| !succeeds(std::process::Command::new(name).arg("--version")));
    missing.map_or(Ok(true), |name| is_there(name, false))
}

/// The Python that `make ci` makes under `target/`, if it has the module.
pub(crate) fn python_with(module: &str) -> Result<Option<PathBuf>> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/python/bin/python");
    let imports =
        succeeds(std::process::Command::new(&python).args(["-I", "-c", &format!("import {module}")]));
    Ok(is_there(&format!("Python module {module}"), imports)?.then_some(python))
}
