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

/// What came of it.
#[derive(Debug)]
pub struct Load {
    /// How long it went on.
    pub took: Duration,
    /// How long each payment took, shortest first.
    pub times: Vec<Duration>,
}

impl Load {
    /// Payments per second.
    pub fn rate(&self) -> f64 {
        let payments = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        f64::from(payments) / self.took.as_secs_f64()
    }

    /// The time that so many percent of the payments stayed below.
    pub fn percentile(&self, percent: usize) -> Duration {
        let place = (self.times.len() * percent / 100).min(self.times.len().saturating_sub(1));
        self.times.get(place).copied().unwrap_or_default()
    }
}

/// Creates payments on `connections` connections, on each one after the other, for so long.
///
/// # Errors
/// A payment is not answered with 201.
pub async fn create_payments(target: &Arc<Target>, connections: usize, long: Duration) -> Result<Load> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..connections {
        let target = Arc::clone(target);
        clients.spawn(async move {
            let mut connection = Connection::to(&target).await?;
            let mut times = Vec::new();
            while began.elapsed() < long {
                let asked = Instant::now();
                connection.create_payment(&target).await?;
                times.push(asked.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = clients.join_all().await.into_iter().collect::<Result<Vec<_>>>()?.concat();
    times.sort_unstable();
    Ok(Load { took: began.elapsed(), times })
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn to(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(&target.host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    async fn create_payment(&mut self, Target { host, api_key }: &Target) -> Result<()> {
        let key = Uuid::new_v4();
        let body = format!(
            r#"{{"amount":1999,"currency":"EUR","reference":"{key}","payment_method":"pm_card_visa"}}"#
        );
        let length = body.len();
        let request = format!(
            "POST /v1/payments HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n\
             Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes()).await?;
        self.buffer.clear();
        let end = loop {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection ended");
            if let Some(end) = end_of_answer(&self.buffer)? {
                break end;
            }
        };
        let text = String::from_utf8_lossy(&self.buffer);
        ensure!(self.buffer.len() == end && text.starts_with("HTTP/1.1 201 "), "not created: {text}");
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
