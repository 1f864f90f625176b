//! A load generator that is as cheap as can be, because it shares the machine with what it measures: plain HTTP/1.1 over
//! connections that are kept, requests glued together from text, answers read no further than their status and length.

use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

/// Where the load goes.
#[derive(Debug)]
pub struct Target {
    /// Host and port.
    pub host: String,
    /// The merchant's key.
    pub api_key: String,
}

/// What callers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A new payment, captured by one request.
    Pay,
    /// The same request again, of a payment that is settled.
    Replay,
    /// To read a payment.
    Read,
}

/// What came of it.
#[derive(Debug)]
pub struct Load {
    /// How long it went on.
    pub took: Duration,
    /// How long each request took, shortest first.
    pub times: Vec<Duration>,
}

impl Load {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        let requests = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        f64::from(requests) / self.took.as_secs_f64()
    }

    /// The time that so many percent of the requests stayed below.
    pub fn percentile(&self, percent: usize) -> Duration {
        let place = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(place).copied().unwrap_or_default()
    }
}

/// Does the work on `connections` connections, on each one request after the other, for so long.
///
/// # Errors
/// A request is not answered as it should be.
pub async fn drive(target: &Arc<Target>, work: Work, connections: usize, long: Duration) -> Result<Load> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let target = Arc::clone(target);
        clients.spawn(async move {
            let mut client = Client::of(&target).await?;
            let mut times = Vec::new();
            while began.elapsed() < long {
                let asked = Instant::now();
                client.ask(&target, work).await?;
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = clients.join_all().await.into_iter().collect::<Result<Vec<_>>>()?.concat();
    times.sort_unstable();
    Ok(Load { took: began.elapsed(), times })
}

/// A connection, and the payment that was made on it first.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    key: Uuid,
    path: String,
}

impl Client {
    async fn of(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.host).await?;
        stream.set_nodelay(true)?;
        let (buffer, path) = (Vec::with_capacity(4096), String::new());
        let mut client = Self { stream, buffer, key: Uuid::new_v4(), path };
        client.ask(target, Work::Replay).await?;
        let answer = String::from_utf8_lossy(&client.buffer);
        let location = answer.lines().find_map(|line| line.strip_prefix("location: "));
        client.path = location.context("a payment without a Location")?.to_owned();
        Ok(client)
    }

    async fn ask(&mut self, Target { host, api_key }: &Target, work: Work) -> Result<()> {
        let head = format!("HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n");
        let (key, status) = match work {
            Work::Pay => (Some(Uuid::new_v4()), "201"),
            Work::Replay => (Some(self.key), "201"),
            Work::Read => (None, "200"),
        };
        let request = match key {
            Some(key) => {
                let body = format!(
                    r#"{{"amount":1999,"currency":"EUR","reference":"{key}","payment_method":"pm_card_visa"}}"#
                );
                let length = body.len();
                format!(
                    "POST /v1/payments {head}Idempotency-Key: {key}\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                )
            }
            None => format!("GET {} {head}\r\n", self.path),
        };
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let end = loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection ended");
            if let Some(end) = end_of_answer(&self.buffer)? {
                break end;
            }
        };
        let is_good = self.buffer.get(9..12) == Some(status.as_bytes()) && self.buffer.len() == end;
        ensure!(is_good, "not answered with {status}: {}", String::from_utf8_lossy(&self.buffer));
        Ok(())
    }
}

/// The length of head and body, once the head is complete and as soon as the body is.
fn end_of_answer(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head])?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let end = head + 4 + length.context("an answer without a length")??;
    Ok((bytes.len() >= end).then_some(end))
}
