//! A simulator of one's own, on a free port, with a ledger in a folder of its own.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

/// How long a test waits for something that should happen soon.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Simulator {
    pub child: Child,
    pub address: SocketAddr,
    client: Client,
    folder: TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A field of the answer, by RFC 6901 pointer.
    pub(crate) fn at(&self, pointer: &str) -> Value {
        self.json().pointer(pointer).cloned().unwrap_or(Value::Null)
    }

    pub(crate) fn id(&self) -> String {
        self.at("/id").as_str().unwrap_or_else(|| panic!("no id: {self:?}")).to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Simulator {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (child, address) = spawn(&folder.path().join("ledger")).await;
        // A kept connection that a fault broke would make the next request fail.
        let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build().unwrap();
        Self { child, address, client, folder }
    }

    pub(crate) fn ledger_path(&self) -> PathBuf {
        self.folder.path().join("ledger")
    }

    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Starts again on the same ledger.
    pub(crate) async fn restart(&mut self) {
        (self.child, self.address) = spawn(&self.ledger_path()).await;
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.address)).bearer_auth("sk_test_wire")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await.unwrap()
    }

    /// A POST as Stripe wants it: a form, and a key unless it is empty.
    pub(crate) async fn try_post(&self, path: &str, key: &str, form: &str) -> reqwest::Result<Answer> {
        let mut request = self.request(Method::POST, path).body(form.to_owned());
        request = request.header("content-type", "application/x-www-form-urlencoded");
        if !key.is_empty() {
            request = request.header("idempotency-key", key);
        }
        send(request).await
    }

    pub(crate) async fn post(&self, path: &str, key: &str, form: &str) -> Answer {
        self.try_post(path, key, form).await.unwrap()
    }

    /// Creates and confirms.
    pub(crate) async fn charge(&self, key: &str, rest: &str) -> Answer {
        self.post("/v1/payment_intents", key, &charge_form(rest)).await
    }

    pub(crate) async fn control(&self, method: Method, path: &str, body: Value) -> Answer {
        send(self.request(method, path).body(body.to_string())).await.unwrap()
    }

    pub(crate) async fn complete(&self, path: &str, outcome: &str) -> Answer {
        self.control(Method::POST, &format!("/_sim/{path}/complete"), json!({"outcome": outcome})).await
    }

    /// Replaces all faults by one that is used once, for creates.
    pub(crate) async fn inject(&self, fault: &str, delay_ms: Option<u64>) {
        let rule =
            json!({"match": "POST /v1/payment_intents", "fault": fault, "times": 1, "delay_ms": delay_ms});
        let answer = self.control(Method::PUT, "/_sim/faults", json!([rule])).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }

    pub(crate) async fn ledger(&self) -> Value {
        self.get("/_sim/ledger").await.json()
    }

    /// The kinds of all entries, in order.
    pub(crate) async fn kinds(&self) -> Vec<String> {
        let ledger = self.ledger().await;
        let entries = ledger["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the ledger is as wanted.
    pub(crate) async fn ledger_when(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let ledger = self.ledger().await;
            if wanted(&ledger) {
                return ledger;
            }
            assert!(start.elapsed() < PATIENCE, "the ledger never got there: {ledger:#}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends bytes of our own making, for what an HTTP client would hide.
    pub(crate) async fn raw_charge(&self, key: &str) -> TcpStream {
        let form = charge_form("payment_method=pm_card_visa");
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!(
            "POST /v1/payment_intents HTTP/1.1\r\nhost: simulator\r\nauthorization: Bearer sk_test_wire\r\n\
             idempotency-key: {key}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }
}

pub(crate) fn charge_form(rest: &str) -> String {
    format!("amount=1999&currency=eur&confirm=true&{rest}")
}

/// Reads until the other side ends the connection; the error is how it ended if not in order.
pub(crate) async fn read_to_end(mut stream: TcpStream) -> (Vec<u8>, Option<std::io::ErrorKind>) {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.unwrap();
    (bytes, read.err().map(|error| error.kind()))
}

async fn send(request: RequestBuilder) -> reqwest::Result<Answer> {
    let response = request.send().await?;
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        body: response.text().await?,
    })
}

async fn spawn(ledger: &std::path::Path) -> (Child, SocketAddr) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_provider-simulator"))
        .args(["--listen", "127.0.0.1:0", "--ledger"])
        .arg(ledger)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let address = line.trim().strip_prefix("provider-simulator listening on http://");
    (child, address.unwrap_or_else(|| panic!("unexpected first line {line:?}")).parse().unwrap())
}
