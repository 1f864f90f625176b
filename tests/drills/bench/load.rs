//! So many clients, each of which asks for one thing after the other.

use anyhow::{Context, Result, ensure};
use e2e::{Wire, WireHead};
use std::sync::Arc;
use std::time::{Duration, Instant};
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
    /// How often a client was told to come back before.
    pub refused: usize,
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

/// When somebody who was told to come back does so: sooner than the answer asks for, so that there is no pause in the load.
const BACK_AFTER: Duration = Duration::from_millis(10);

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
                client.ask(work).await?;
                times.push(asked.elapsed());
            }
            anyhow::Ok((times, client.refused))
        });
    }
    let (times, refused): (Vec<_>, Vec<_>) =
        clients.join_all().await.into_iter().collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let mut times = times.concat();
    times.sort_unstable();
    Ok(Load { took: began.elapsed(), times, refused: refused.iter().sum() })
}

/// A connection, and the payment that was made on it first.
struct Client {
    wire: Wire,
    head: WireHead,
    key: Uuid,
    path: String,
    refused: usize,
}

impl Client {
    async fn of(Target { host, api_key }: &Target) -> Result<Self> {
        let (wire, head) = (Wire::to(host).await?, WireHead::of(host, api_key));
        let mut client = Self { wire, head, key: Uuid::new_v4(), path: String::new(), refused: 0 };
        client.path = client.ask(Work::Replay).await?.context("a payment without a Location")?;
        Ok(client)
    }

    /// Answers with the `Location`, if there is one.
    async fn ask(&mut self, work: Work) -> Result<Option<String>> {
        let (request, status) = match work {
            Work::Pay => (self.head.pay(Uuid::new_v4()), 201),
            Work::Replay => (self.head.pay(self.key), 201),
            Work::Read => (self.head.get(&self.path), 200),
        };
        loop {
            let answer = self.wire.exchange(request.as_bytes()).await?;
            if answer.status == 503 {
                self.refused += 1;
                tokio::time::sleep(BACK_AFTER).await;
                continue;
            }
            let body = String::from_utf8_lossy(answer.body);
            ensure!(answer.status == status, "answered with {}: {body}", answer.status);
            return Ok(answer.header("location").map(str::to_owned));
        }
    }
}
