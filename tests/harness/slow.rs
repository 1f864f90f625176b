//! Callers that take their time, many at once, beside others who do not: how soon the slow ones are gone, and what the
//! others notice.

use crate::load::{Asked, Load, Seen, evenly, percentile};
use crate::{Api, Figures, World, payment};
use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

/// From the beginning of a connection to its end.
const CLOSED: Duration = Duration::from_secs(15);
/// A connection that is open for so long is never closed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two bytes.
const PAUSE: Duration = Duration::from_secs(1);
/// The least share of requests of others that are answered well.
const GOOD: f64 = 0.999;
/// The most memory of the service for each slow connection, in KiB.
const MEMORY: u64 = 64;
/// How often the service's memory is looked at.
const SAMPLE: Duration = Duration::from_millis(200);
/// What else this process has open: clients, a database, programs.
const OTHER_FILES: u64 = 500;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Kinds and flags of frames of HTTP/2 (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;

/// How many there are.
#[derive(Debug, Clone, Copy)]
pub struct Slow {
    /// Slow connections, all at once.
    pub connections: usize,
    /// Of the others: new payments per second.
    pub creates: f64,
    /// And reads.
    pub reads: f64,
}

/// How a caller is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Silent,
    HalfLine,
    Header,
    HalfBody,
    Body,
    Preface,
    HeaderBlock,
    HeaderBlockByBytes,
    Stream,
}

impl Way {
    const ALL: [Self; 9] = [
        Self::Silent,
        Self::HalfLine,
        Self::Header,
        Self::HalfBody,
        Self::Body,
        Self::Preface,
        Self::HeaderBlock,
        Self::HeaderBlockByBytes,
        Self::Stream,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Silent => "nothing is sent",
            Self::HalfLine => "half a request line",
            Self::Header => "a header, a byte per second",
            Self::HalfBody => "half a body",
            Self::Body => "a body, a byte per second",
            Self::Preface => "the preface of HTTP/2, a byte per second",
            Self::HeaderBlock => "HTTP/2, half a header block",
            Self::HeaderBlockByBytes => "HTTP/2, a header block, a byte per second",
            Self::Stream => "HTTP/2, a body, a byte per second",
        }
    }

    /// Whether it is heard to the point where it can be told what is wrong.
    const fn is_answered(self) -> bool {
        matches!(self, Self::HalfBody | Self::Body)
    }

    /// What is sent at first, and then piece by piece.
    fn plan(self, api: &Api) -> (Vec<u8>, Vec<Vec<u8>>) {
        let host = api.url.trim_start_matches("http://");
        let key = format!("slow-{}", Uuid::new_v4());
        let body = payment(&key).to_string().into_bytes();
        let head = format!(
            "POST /v1/payments HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n",
            api.key,
            body.len()
        );
        let bytes = |bytes: &[u8]| bytes.iter().map(|byte| vec![*byte]).collect::<Vec<_>>();
        let bearer = format!("Bearer {}", api.key);
        let block = fields(&[
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", host),
            (":path", "/v1/payments"),
            ("authorization", &bearer),
            ("content-type", "application/json"),
            ("idempotency-key", &key),
        ]);
        let begun = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let headers = frame(HEADERS, END_HEADERS, 1, &block);
        let (half, rest) = headers.split_at(headers.len() / 2);
        match self {
            Self::Silent => (Vec::new(), Vec::new()),
            Self::HalfLine => (b"POST /v1/paym".to_vec(), Vec::new()),
            Self::Header => (head.as_bytes()[..40].to_vec(), bytes(&head.as_bytes()[40..])),
            Self::HalfBody => ([head.as_bytes(), &body[..body.len() / 2]].concat(), Vec::new()),
            Self::Body => (head.into_bytes(), bytes(&body)),
            Self::Preface => (Vec::new(), bytes(PREFACE)),
            Self::HeaderBlock => ([&begun, half].concat(), Vec::new()),
            Self::HeaderBlockByBytes => ([&begun, half].concat(), bytes(rest)),
            Self::Stream => {
                let frames = body.iter().map(|byte| frame(DATA, 0, 1, &[*byte]));
                ([begun, headers].concat(), frames.collect())
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields as literals without a table (RFC 7541, section 6.2.2), each shorter than one byte can say.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap_or(0)], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// What became of a slow connection.
struct Ended {
    way: Way,
    /// `None`: it is open.
    after: Option<Duration>,
    read: Vec<u8>,
}

async fn be_slow(api: Api, way: Way) -> Result<Ended> {
    let (first, pieces) = way.plan(&api);
    let mut stream = TcpStream::connect(api.url.trim_start_matches("http://")).await?;
    let began = Instant::now();
    let (mut read, mut pieces) = (Vec::new(), pieces.into_iter());
    let mut ticks = tokio::time::interval(PAUSE);
    // who has been cut off finds out when it reads
    let _ = stream.write_all(&first).await;
    let closed = async {
        loop {
            tokio::select! {
                taken = stream.read_buf(&mut read) => {
                    if matches!(taken, Ok(0) | Err(_)) {
                        return;
                    }
                }
                _ = ticks.tick() => {
                    if let Some(piece) = pieces.next() {
                        let _ = stream.write_all(&piece).await;
                    }
                }
            }
        }
    };
    let is_closed = tokio::time::timeout(PATIENCE, closed).await.is_ok();
    Ok(Ended { way, after: is_closed.then(|| began.elapsed()), read })
}

impl Slow {
    /// Lets them come.
    ///
    /// # Errors
    /// It cannot be made. What went wrong is in the figures.
    pub async fn happen(&self, world: &mut World) -> Result<Figures> {
        raise_open_files(u64::try_from(self.connections)?.saturating_add(OTHER_FILES))?;
        let first = world.api.create("first", &payment("first")).await?;
        ensure!(first.status == 201, "the service does not work at all: {}", first.json());
        let path = first.header("location").to_owned();
        let (creator, reader) = (world.api.clone(), world.api.clone());
        let creates = Load::of(evenly(self.creates), move || create(creator.clone()));
        let reads = Load::of(evenly(self.reads), move || read(reader.clone(), path.clone()));
        // what load alone takes is there by then
        tokio::time::sleep(Duration::from_secs(3)).await;
        let memory = Memory::of(world)?;

        let mut slow = JoinSet::new();
        for way in Way::ALL.into_iter().cycle().take(self.connections) {
            slow.spawn(be_slow(world.api.clone(), way));
        }
        let mut ended = Vec::new();
        while let Some(one) = slow.join_next().await {
            ended.push(one??);
        }
        let grown = memory.stop().await?;
        let (creates, reads) = (creates.stop().await?, reads.stop().await?);

        let mut figures = Figures::default();
        figures.tell("slow connections at once", self.connections);
        let closed = ended.iter().filter(|one| one.after.is_some_and(|after| after <= CLOSED)).count();
        figures.exactly("closed within 15 s", closed, self.connections);
        for way in Way::ALL {
            let times = ended.iter().filter(|one| one.way == way).map(|one| one.after.unwrap_or(PATIENCE));
            let last = times.max().unwrap_or_default();
            figures.tell(way.name(), format_args!("{:.1} s", last.as_secs_f64()));
        }
        let heard = ended.iter().filter(|one| one.way.is_answered());
        let told = heard.clone().filter(|one| is_timeout(&one.read)).count();
        figures.exactly("slow bodies of HTTP/1 told `timeout`", told, heard.count());
        healthy("creates of others", &creates, &[201], &mut figures);
        healthy("reads of others", &reads, &[200], &mut figures);
        let most = u64::try_from(self.connections)?.saturating_mul(MEMORY) / 1024;
        figures.at_most("memory the service grew by, in MiB", grown / 1024, most);
        world.at_rest(CLOSED).await?;
        let begun = "SELECT count(*) FROM payments WHERE reference LIKE 'slow-%'";
        let begun: i64 = sqlx::query_scalar(begun).fetch_one(&world.pool).await?;
        figures.exactly("payments of slow callers", begun, 0);
        figures.findings(&world.check().await?);
        Ok(figures)
    }
}

async fn create(api: Api) -> Seen {
    let key = Uuid::new_v4().to_string();
    Seen::of(api.create(&key, &payment(&key)).await.ok().as_ref())
}

async fn read(api: Api, path: String) -> Seen {
    Seen::of(api.get(&path).await.ok().as_ref())
}

fn is_timeout(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    text.starts_with("HTTP/1.1 503")
        && text.contains("retry-after: ")
        && text.contains("\"code\":\"timeout\"")
}

fn healthy(name: &str, asked: &[Asked], wanted: &[u16], figures: &mut Figures) {
    let good = asked.iter().filter(|one| wanted.contains(&one.status)).count();
    let as_float = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let share = as_float(good) / as_float(asked.len().max(1));
    figures.tell(name, asked.len());
    figures.bound(
        "  of them good",
        format_args!("{:.2} %", share * 100.0),
        format_args!("at least {} %", GOOD * 100.0),
        share >= GOOD,
    );
    let mut times: Vec<_> = asked.iter().map(|one| one.took).collect();
    times.sort_unstable();
    figures.tell("  their p99 in ms", percentile(&times, 99).as_millis());
    if let Some(bad) = asked.iter().find(|one| !wanted.contains(&one.status)) {
        figures.tell("  the first that was not", bad.status);
    }
}

fn raise_open_files(needed: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    ensure!(hard >= needed, "{needed} open files are needed, and {hard} are allowed");
    Ok(())
}

/// The most memory that the first service has meanwhile.
struct Memory {
    before: u64,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<u64>>,
}

impl Memory {
    fn of(world: &mut World) -> Result<Self> {
        let pid = world.stack.service(0)?.pid();
        let before = resident(pid)?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut most = before;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(resident(pid)?);
                tokio::time::sleep(SAMPLE).await;
            }
            Ok(most)
        });
        Ok(Self { before, stop, task })
    }

    /// By how much it grew, in KiB.
    async fn stop(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.task.await?.context("the service is gone")?.saturating_sub(self.before))
    }
}

/// What a process has in memory, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?.parse()?)
}
