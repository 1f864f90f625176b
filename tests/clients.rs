//! The two clients that `docs/api.md` shows, run as a merchant's system would run them.

use crate::support::{PAYMENTS, SOON, has_programs, seconds};
use anyhow::{Context, Result};
use devstack::port::Port;
use e2e::{World, WorldOptions, payment};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

/// How long a client may take that is told the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the documentation.
struct Client {
    file: &'static str,
    /// What runs it.
    runs_on: &'static str,
    /// What its code block is marked with.
    language: &'static str,
    needs: &'static [&'static str],
}

const BASH: Client = Client { file: "pay.sh", runs_on: "bash", language: "bash", needs: &["bash", "curl"] };
const PYTHON: Client = Client { file: "pay.py", runs_on: "python3", language: "python", needs: &["python3"] };

/// How a client ended.
struct Ended {
    exit: Option<i32>,
    body: String,
    errors: String,
    took: Duration,
}

impl Ended {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

impl Client {
    /// Runs it to its end.
    async fn run(
        &self,
        (url, api_key): (&str, &str),
        patience: Duration,
        arguments: &[&str],
    ) -> Result<Ended> {
        let mut command = Command::new(self.runs_on);
        command.arg(docs().join("clients").join(self.file)).args(arguments);
        command.env("API", url).env("API_KEY", api_key).env("PATIENCE", patience.as_secs().to_string());
        // a proxy for the machine's own address would be asked by curl
        command.env("no_proxy", "*").stdin(Stdio::null()).kill_on_drop(true);
        let began = Instant::now();
        let output = timeout(patience + SOON, command.output()).await.context("it has no end")??;
        Ok(Ended {
            exit: output.status.code(),
            body: String::from_utf8(output.stdout)?,
            errors: String::from_utf8(output.stderr)?,
            took: began.elapsed(),
        })
    }

    /// Pays, at the world's service.
    async fn pay(&self, world: &World, key: &str, body: &Value) -> Result<Ended> {
        self.run((&world.api.url, &world.api.key), PATIENCE, &[key, &body.to_string()]).await
    }
}

#[test]
fn the_documentation_shows_the_clients_as_they_are() -> Result<()> {
    let read = |path: &str| std::fs::read_to_string(docs().join(path)).with_context(|| path.to_owned());
    let guide = read("api.md")?;
    for client in [BASH, PYTHON] {
        let opening = format!("\n```{}\n", client.language);
        assert_eq!(guide.matches(&opening).count(), 1, "one block of {}", client.language);
        let shown = format!("{opening}{}```\n", read(&format!("clients/{}", client.file))?);
        assert!(guide.contains(&shown), "docs/api.md shows another {}", client.file);
    }
    Ok(())
}

async fn pays_and_says_how_it_ended(client: &Client) -> Result<()> {
    if !has_programs(client.needs)? {
        return Ok(());
    }
    let world = World::start().await?;
    let paid = client.pay(&world, "key", &payment("order-1")).await?;
    assert_eq!(paid.exit, Some(0), "{}", paid.errors);
    assert_eq!(paid.json()["status"], "captured");
    let again = client.pay(&world, "key", &payment("order-1")).await?;
    assert_eq!((again.exit, &again.body), (Some(0), &paid.body));

    let mut declined = payment("order-2");
    declined["payment_method"] = json!("pm_card_visa_chargeDeclined");
    let declined = client.pay(&world, "declined", &declined).await?;
    assert_eq!(declined.exit, Some(2), "{}", declined.errors);
    assert_eq!(declined.json()["code"], "payment_declined");
    assert_eq!(declined.json()["payment"]["status"], "failed");

    let mut invalid = payment("order-3");
    invalid["amount"] = json!(0);
    let (invalid, good) = (invalid.to_string(), payment("order-3").to_string());
    let (url, api_key) = (world.api.url.as_str(), world.api.key.as_str());
    let refusals: [(&str, &str, &[&str]); 4] = [
        ("validation_failed", api_key, &["invalid", &invalid]),
        ("idempotency_key_reused", api_key, &["key", &good]),
        ("unauthorized", "sk_nobody", &["stranger", &good]),
        ("not_found", api_key, &["elsewhere", "", "/v1/payments/none/cancel/at/all"]),
    ];
    for (code, api_key, arguments) in refusals {
        let refused = client.run((url, api_key), PATIENCE, arguments).await?;
        assert_eq!(refused.exit, Some(3), "{code}: {}", refused.errors);
        assert_eq!(refused.json()["code"], code, "{}", refused.body);
    }
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn pay_sh_pays_and_says_how_it_ended() -> Result<()> {
    pays_and_says_how_it_ended(&BASH).await
}

#[tokio::test]
async fn pay_py_pays_and_says_how_it_ended() -> Result<()> {
    pays_and_says_how_it_ended(&PYTHON).await
}

async fn insists_while_answers_are_lost(client: &Client) -> Result<()> {
    if !has_programs(client.needs)? {
        return Ok(());
    }
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    world.simulator.create_fault("reset_after", Some(3), 0).await?;
    let order = payment("order-1");
    let paid = client.pay(&world, "key", &order).await?;
    assert_eq!(paid.exit, Some(0), "{}", paid.errors);
    assert_eq!(paid.json()["status"], "captured");
    assert!(paid.took >= seconds(1), "the 202 says when to come back: {:?}", paid.took);
    assert!(world.simulator.injected("reset_after").await? >= 1);

    let settled = world.api.create("key", &order).await?;
    assert_eq!((settled.status, settled.header("idempotent-replayed")), (201, "true"));
    assert_eq!(paid.body.trim_end().as_bytes(), settled.body.as_slice());
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn pay_sh_insists_while_answers_are_lost() -> Result<()> {
    insists_while_answers_are_lost(&BASH).await
}

#[tokio::test]
async fn pay_py_insists_while_answers_are_lost() -> Result<()> {
    insists_while_answers_are_lost(&PYTHON).await
}

async fn does_not_know_when_nobody_listens(client: &Client) -> Result<()> {
    const IN_ALL: Duration = Duration::from_secs(5);
    if !has_programs(client.needs)? {
        return Ok(());
    }
    let nobody = Port::free()?;
    let url = format!("http://127.0.0.1:{}", nobody.number());
    let body = payment("order-1").to_string();
    let ended = client.run((&url, "sk_any"), IN_ALL, &["key", &body]).await?;
    assert_eq!((ended.exit, ended.body.as_str()), (Some(4), ""), "{}", ended.errors);
    assert!(ended.errors.contains("unknown"), "{}", ended.errors);
    assert!(ended.errors.lines().count() > 2, "more than one attempt: {}", ended.errors);
    // and the time in which its process starts and ends
    assert!(ended.took < IN_ALL + seconds(3), "{:?}", ended.took);
    Ok(())
}

#[tokio::test]
async fn pay_sh_does_not_know_when_nobody_listens() -> Result<()> {
    does_not_know_when_nobody_listens(&BASH).await
}

#[tokio::test]
async fn pay_py_does_not_know_when_nobody_listens() -> Result<()> {
    does_not_know_when_nobody_listens(&PYTHON).await
}

/// What every scripted request sends, and what the last answer to it says.
const BODY: &str = r#"{"amount": 500}"#;
const END: &str = r#"{"the": "end"}"#;
const IN_PROGRESS: &str = r#"{"status": 409, "code": "request_in_progress"}"#;

/// An answer of a scripted service: a status and a body. Without a status these are all the bytes that are sent.
type Scripted = (u16, &'static str);
const HANGS_UP: Scripted = (0, "");
const BREAKS_OFF: Scripted = (0, "HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{\"the\": ");

/// Gives each attempt its answer, in order, and then is gone. Returns the attempts in lower case.
async fn serve(listener: TcpListener, answers: &[Scripted]) -> Result<Vec<String>> {
    let mut attempts = Vec::new();
    for &(status, body) in answers {
        let (mut stream, _) = listener.accept().await?;
        let mut request = Vec::new();
        while !request.ends_with(BODY.as_bytes()) {
            request.push(stream.read_u8().await?);
        }
        attempts.push(String::from_utf8(request)?.to_ascii_lowercase());
        let answer = match status {
            0 => body.to_owned(),
            status => format!(
                "HTTP/1.1 {status} Scripted\r\nLocation: /elsewhere\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
        };
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(attempts)
}

async fn repeats_what_may_be_repeated(client: &Client) -> Result<()> {
    if !has_programs(client.needs)? {
        return Ok(());
    }
    let table: [(&[Scripted], i32); 9] = [
        (&[(409, IN_PROGRESS), (503, ""), (202, "{}"), (201, END)], 0),
        (&[(500, ""), (200, END)], 0),
        (&[BREAKS_OFF, (201, END)], 0),
        (&[HANGS_UP, (402, END)], 2),
        (&[(302, END)], 3),
        (&[(409, END)], 3),
        // too many requests is an answer that leaves no doubt
        (&[(429, ""), (422, END)], 3),
        // none at all is not: it may have been carried out, whatever is refused later
        (&[HANGS_UP, (401, END)], 4),
        (&[(202, "{}"), (403, END)], 4),
    ];
    for (answers, exit) in table {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (attempts, ended) = tokio::join!(
            timeout(PATIENCE, serve(listener, answers)),
            client.run((&url, "sk_any"), PATIENCE, &["Some-Key", BODY]),
        );
        let (attempts, ended) = (attempts.with_context(|| format!("fewer attempts: {answers:?}"))??, ended?);
        assert_eq!(ended.exit, Some(exit), "{answers:?}: {}", ended.errors);
        assert_eq!(ended.body.trim_end(), END, "{answers:?}");
        for attempt in attempts {
            assert!(attempt.starts_with(&format!("post {PAYMENTS} http/1.1\r\n")), "{attempt}");
            for header in ["authorization: bearer sk_any", "idempotency-key: some-key"] {
                assert!(attempt.contains(&format!("\r\n{header}\r\n")), "{attempt}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn pay_sh_repeats_what_may_be_repeated() -> Result<()> {
    repeats_what_may_be_repeated(&BASH).await
}

#[tokio::test]
async fn pay_py_repeats_what_may_be_repeated() -> Result<()> {
    repeats_what_may_be_repeated(&PYTHON).await
}
