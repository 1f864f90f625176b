//! A TCP proxy that breaks the network between two programs, without root.
//!
//! It stands on 127.0.0.1 before a server and passes bytes on until a [`Fault`] is set. A fault takes effect at once, on
//! connections that are open as well as on new ones. What only the kernel can do, such as dropping packets, it cannot:
//! its own end always acknowledges what it is sent, so a TCP user timeout sees nothing wrong where a deadline must.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::port::Port;

/// How much is read at once.
const CHUNK: usize = 16 * 1024;
/// How long a new listener may take.
const TURN: Duration = Duration::from_secs(5);

/// What the proxy does to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: bytes pass.
    Pass,
    /// Nobody listens, and open connections are reset.
    Refuse,
    /// Connections are made, and nothing ever comes through in either direction or is closed. What was sent meanwhile is
    /// lost, so that a connection which met this fault stays dead when it is over.
    BlackHole,
    /// Every piece waits so long, and each direction carries at most so many bytes in a second, if it says so.
    Slow {
        /// Before each piece.
        latency: Duration,
        /// At least 1.
        bytes_per_second: Option<u32>,
    },
    /// Resets a connection once the client sends something; the server sees nothing of it.
    ResetOnRequest,
    /// Passes what the client sends, and of what the server says so many bytes. Then it ends.
    CutAnswer {
        /// Bytes of each connection, counted from the moment the fault was set.
        after: u64,
        /// How it ends.
        end: End,
    },
}

/// How an answer that is cut ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Not at all: nothing follows, and nothing is closed.
    Hang,
    /// As if the server had closed it in good order.
    Close,
    /// By a reset.
    Reset,
}

/// What has gone through.
#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    open: AtomicU64,
    to_server: AtomicU64,
    to_client: AtomicU64,
    round_trips: AtomicU64,
}

/// What holds for all connections.
#[derive(Debug, Clone, Copy)]
struct State {
    fault: Fault,
    /// Grows with every order.
    order: u64,
    /// Connections made before this order are dead.
    dead_before: u64,
}

/// A proxy that runs until it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    port: Port,
    state: watch::Sender<State>,
    listening: watch::Receiver<bool>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// Stands before the server at `upstream`, a host and a port, and passes everything.
    ///
    /// # Errors
    ///
    /// When there is no port to listen on.
    pub async fn start(upstream: impl Into<String>) -> Result<FaultProxy> {
        let port = Port::free()?;
        let listener = listen(port.number()).await.context("cannot listen for the fault proxy")?;
        let first = State { fault: Fault::Pass, order: 0, dead_before: 0 };
        let (state, _) = watch::channel(first);
        let (told, listening) = watch::channel(true);
        let counts = Arc::new(Counts::default());
        let proxy = Proxy {
            number: port.number(),
            upstream: upstream.into(),
            state: state.subscribe(),
            counts: Arc::clone(&counts),
        };
        let task = tokio::spawn(proxy.run(listener, told));
        Ok(FaultProxy { port, state, listening, counts, task })
    }

    /// Where it listens, as `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Does this from now on. A port that was refused is open again when this returns, and the other way round.
    ///
    /// # Errors
    ///
    /// When the port cannot be listened on again.
    pub async fn set(&self, fault: Fault) -> Result<()> {
        self.state.send_modify(|state| {
            state.order += 1;
            if fault == Fault::BlackHole {
                state.dead_before = state.order;
            }
            state.fault = fault;
        });
        let mut listening = self.listening.clone();
        let open = fault != Fault::Refuse;
        let turned = timeout(TURN, listening.wait_for(|now| *now == open)).await;
        turned.ok().and_then(Result::ok).context("the fault proxy cannot listen again")?;
        Ok(())
    }

    /// Every connection that is open falls silent for good; new ones are not touched by it.
    pub fn silence(&self) {
        self.state.send_modify(|state| {
            state.order += 1;
            state.dead_before = state.order;
        });
    }

    /// How many connections were made in all.
    pub fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// How many connections are open, dead ones included until the client leaves.
    pub fn open(&self) -> u64 {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// How many bytes have reached the server, and how many the client.
    pub fn bytes(&self) -> (u64, u64) {
        (self.counts.to_server.load(Ordering::Relaxed), self.counts.to_client.load(Ordering::Relaxed))
    }

    /// How often a client has spoken at the beginning of its connection or after the server: what it says in several pieces,
    /// without waiting for an answer, is one round trip.
    pub fn round_trips(&self) -> u64 {
        self.counts.round_trips.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // its connections go with it
        self.task.abort();
    }
}

async fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await
}

/// What the task knows.
struct Proxy {
    number: u16,
    upstream: String,
    state: watch::Receiver<State>,
    counts: Arc<Counts>,
}

impl Proxy {
    async fn run(mut self, first: TcpListener, told: watch::Sender<bool>) {
        let mut links = JoinSet::new();
        let mut listener = Some(first);
        loop {
            let state = *self.state.borrow_and_update();
            match (&listener, state.fault) {
                (Some(_), Fault::Refuse) => listener = None,
                (None, fault) if fault != Fault::Refuse => listener = listen(self.number).await.ok(),
                _ => {}
            }
            told.send_replace(listener.is_some());
            tokio::select! {
                changed = self.state.changed() => if changed.is_err() { return },
                accepted = accept(listener.as_ref()) => if let Ok(client) = accepted {
                    self.counts.connections.fetch_add(1, Ordering::Relaxed);
                    links.spawn(self.link(state.order).run(client, self.upstream.clone()));
                },
                Some(_) = links.join_next() => {}
            }
        }
    }

    fn link(&self, born: u64) -> Link {
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        Link {
            open: Open(Arc::clone(&self.counts)),
            state: self.state.clone(),
            born,
            up: Way::default(),
            down: Way::default(),
            clients_turn: AtomicBool::new(true),
            cut: None,
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

/// Counts a connection while it is open.
struct Open(Arc<Counts>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection.
struct Link {
    open: Open,
    state: watch::Receiver<State>,
    /// The order in force when it was made.
    born: u64,
    up: Way,
    down: Way,
    /// Whether what the client says next begins a round trip.
    clients_turn: AtomicBool,
    /// What is left of the answer, and since which order it is cut.
    cut: Option<(u64, u64)>,
}

/// How a connection goes on.
enum Next {
    /// As the new order says.
    Ordered,
    /// It is closed in good order.
    Close,
    /// It is reset.
    Reset,
    /// Nothing more is carried.
    Hang,
}

impl Link {
    async fn run(mut self, mut client: TcpStream, upstream: String) {
        let mut server = None;
        let reset = loop {
            let state = *self.state.borrow_and_update();
            if self.born < state.dead_before || state.fault == Fault::BlackHole {
                // the server's end stays open too: it has not heard that its client is gone
                break self.hang(&client).await;
            }
            if state.fault == Fault::Refuse {
                break true;
            }
            let Some(server) = &mut server else {
                match TcpStream::connect(&upstream).await {
                    Ok(connected) => server = Some(connected),
                    Err(_) => break true,
                }
                continue;
            };
            match self.carry(state, &mut client, server).await {
                Next::Ordered => {}
                Next::Close => break false,
                Next::Reset => break true,
                Next::Hang => break self.hang(&client).await,
            }
        };
        if reset {
            let _ = client.set_zero_linger();
        }
    }

    /// Says nothing until the client leaves, and drops what it sends. Returns whether the connection is to be reset.
    async fn hang(&mut self, client: &TcpStream) -> bool {
        let mut lost = vec![0; CHUNK];
        loop {
            tokio::select! {
                ready = client.readable() => match ready.and_then(|()| client.try_read(&mut lost)) {
                    Ok(0) => return false,
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => return false,
                    _ => {}
                },
                refused = self.state.wait_for(|state| state.fault == Fault::Refuse) => return refused.is_ok(),
            }
        }
    }

    async fn carry(&mut self, state: State, client: &mut TcpStream, server: &mut TcpStream) -> Next {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let pace = match state.fault {
            Fault::Slow { latency, bytes_per_second } => Pace { latency, bytes_per_second },
            _ => Pace::default(),
        };
        if let Fault::CutAnswer { after, .. } = state.fault
            && self.cut.is_none_or(|(_, since)| since != state.order)
        {
            self.cut = Some((after, state.order));
        }
        let counts = Arc::clone(&self.open.0);
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        let client_spoke = || {
            if self.clients_turn.swap(false, Ordering::Relaxed) {
                counts.round_trips.fetch_add(1, Ordering::Relaxed);
            }
        };
        let server_spoke = || self.clients_turn.store(true, Ordering::Relaxed);
        let up = async {
            if state.fault == Fault::ResetOnRequest {
                return self.up.swallow(&mut from_client).await;
            }
            let count = (&counts.to_server, client_spoke);
            let ended = self.up.carry(&mut from_client, &mut to_server, pace, count, None).await;
            if ended.is_ok() {
                // the server's last words still go through
                let _ = tokio::io::AsyncWriteExt::shutdown(&mut to_server).await;
                return std::future::pending().await;
            }
            Next::Close
        };
        let down = async {
            let left = match (state.fault, &mut self.cut) {
                (Fault::CutAnswer { .. }, Some((left, _))) => Some(left),
                _ => None,
            };
            let count = (&counts.to_client, server_spoke);
            let ended = self.down.carry(&mut from_server, &mut to_client, pace, count, left).await;
            match (ended, state.fault) {
                (Ok(Ended::Cut), Fault::CutAnswer { end: End::Hang, .. }) => Next::Hang,
                (Ok(Ended::Cut), Fault::CutAnswer { end: End::Reset, .. }) => Next::Reset,
                (Err(error), _) if error.kind() == io::ErrorKind::ConnectionReset => Next::Reset,
                _ => Next::Close,
            }
        };
        tokio::select! {
            changed = self.state.changed() => if changed.is_ok() { Next::Ordered } else { Next::Close },
            next = up => next,
            next = down => next,
        }
    }
}

/// How fast bytes travel.
#[derive(Debug, Clone, Copy, Default)]
struct Pace {
    latency: Duration,
    bytes_per_second: Option<u32>,
}

/// How one direction ended.
enum Ended {
    /// Its sender has no more to say.
    Finished,
    /// As much as may pass has passed.
    Cut,
}

/// One direction. What was read and is not yet written survives a change of the fault.
#[derive(Default)]
struct Way {
    held: Vec<u8>,
}

impl Way {
    async fn carry(
        &mut self,
        from: &mut ReadHalf<'_>,
        to: &mut WriteHalf<'_>,
        pace: Pace,
        (carried, spoke): (&AtomicU64, impl Fn()),
        mut left: Option<&mut u64>,
    ) -> io::Result<Ended> {
        loop {
            if self.held.is_empty() {
                from.readable().await?;
                self.held.reserve(CHUNK);
                match from.try_read_buf(&mut self.held) {
                    Ok(0) => return Ok(Ended::Finished),
                    Ok(_) => {
                        spoke();
                        sleep(pace.latency).await;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error),
                }
            }
            let may = left.as_ref().map_or(usize::MAX, |left| usize::try_from(**left).unwrap_or(usize::MAX));
            if may == 0 {
                return Ok(Ended::Cut);
            }
            let may = if pace.bytes_per_second.is_some() { 1 } else { may };
            to.writable().await?;
            let piece = self.held.get(..may).unwrap_or(&self.held);
            match to.try_write(piece) {
                Ok(written) => {
                    self.held.drain(..written);
                    let written = u64::try_from(written).unwrap_or(u64::MAX);
                    carried.fetch_add(written, Ordering::Relaxed);
                    if let Some(left) = &mut left {
                        **left = left.saturating_sub(written);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if let Some(rate) = pace.bytes_per_second {
                sleep(Duration::from_secs(1) / rate.max(1)).await;
            }
        }
    }

    /// Waits until something is sent, and passes nothing of it.
    async fn swallow(&mut self, from: &mut ReadHalf<'_>) -> Next {
        let mut lost = vec![0; CHUNK];
        loop {
            match from.readable().await.and_then(|()| from.try_read(&mut lost)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) => return Next::Close,
                _ => return Next::Reset,
            }
        }
    }
}
