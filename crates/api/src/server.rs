//! Starting and stopping: two listeners, the worker, and an end in which nothing is lost.

mod accept;
mod connection;
pub(crate) mod open_files;
mod timeouts;

pub use accept::Exchange;

use crate::config::{Listeners, Service};
use crate::http::{operations_router, router};
use crate::metrics;
use crate::state::App;
use crate::worker;
use accept::{Door, REFUSALS};
use domain::provider::{NotExecuted, Outcome};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use timeouts::Timeouts;
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

/// So long before the end of the shutdown time waiting ends and open operations are handed back.
const HAND_BACK: Duration = Duration::from_secs(2);
/// What is behind the last answer: handing back, returning connections.
const AFTERMATH: Duration = Duration::from_millis(500);
/// How often a provider that does not take our credentials is asked again.
const ASK_CREDENTIALS: Duration = Duration::from_secs(2);
/// Connections to the operations listener, at most: probes and a scraper or two.
const OPERATIONS_CONNECTIONS: usize = 64;
/// What the two listeners may have open beside the public connections.
pub const OTHER_CONNECTIONS: usize = OPERATIONS_CONNECTIONS + 2 * REFUSALS;

/// Connections that nobody has accepted yet. Of those beyond it a caller believes that they are open, and is never heard. The
/// system may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4_096;

/// Which parts of the service a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// The public listener.
    pub http: bool,
    /// The worker.
    pub worker: bool,
}

/// The sockets, bound before anything else is started.
pub struct Sockets {
    public: Option<TcpListener>,
    operations: TcpListener,
    max_connections: usize,
}

impl Sockets {
    /// Binds.
    ///
    /// # Errors
    /// The name of the setting whose address cannot be bound, and why.
    pub fn bind(listeners: Listeners, parts: Parts) -> Result<Self, (&'static str, SocketAddr, io::Error)> {
        let bind = |name, address| listen(address).map_err(|error| (name, address, error));
        let public = if parts.http { Some(bind("PAYWRIGHT_LISTEN", listeners.public)?) } else { None };
        let operations = bind("PAYWRIGHT_OPS_LISTEN", listeners.operations)?;
        Ok(Self { public, operations, max_connections: listeners.max_connections })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // or a restart would wait for connections of the process before it
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Runs until `shutdown` ends, then stops in order.
pub async fn run(app: Arc<App>, sockets: Sockets, parts: Parts, shutdown: impl Future<Output = ()>) {
    let Service { shutdown_grace, shutdown_timeout, .. } = app.settings;
    let accept = CancellationToken::new();
    let operations_accept = CancellationToken::new();
    let door = |router, connections| Door::new(router, connections, Timeouts::DEFAULT);
    let public = sockets.public.map(|socket| {
        tokio::spawn(door(router(&app), sockets.max_connections).serve(socket, accept.clone()))
    });
    // a door of its own, so that probes are answered however many come to the other
    let operations = door(operations_router(&app), OPERATIONS_CONNECTIONS);
    let operations = tokio::spawn(operations.serve(sockets.operations, operations_accept.clone()));
    let background = [
        tokio::spawn(Arc::clone(&app).keep_credentials()),
        tokio::spawn(metrics::keep_backlog(Arc::clone(&app))),
    ];
    let working = parts.worker.then(|| tokio::spawn(worker::run(Arc::clone(&app))));

    shutdown.await;
    tracing::info!("stopping");
    app.stop.drain();
    tokio::time::sleep(shutdown_grace).await;

    app.stop.refuse();
    let end = tokio::time::Instant::now() + shutdown_timeout;
    let waiting = async {
        tokio::time::sleep_until(end - HAND_BACK.min(shutdown_timeout)).await;
        app.stop.give_up();
        tokio::time::sleep_until(end).await;
    };
    tokio::select! {
        () = app.stop.finished() => {}
        () = waiting => tracing::warn!("not everything ended in time; what is open is finished by another process"),
    }
    // only now: until here connections that were open got an answer
    accept.cancel();
    operations_accept.cancel();
    for task in &background {
        task.abort();
    }
    let connections = async {
        for listener in public.into_iter().chain([operations]).chain(working) {
            let _ = listener.await;
        }
        app.store.close().await;
    };
    let _ = tokio::time::timeout(AFTERMATH, connections).await;
    tracing::info!("stopped");
}

impl App {
    /// While the provider does not take our credentials, asks it now and then: no request of a merchant has to find out.
    async fn keep_credentials(self: Arc<Self>) {
        loop {
            tokio::time::sleep(ASK_CREDENTIALS).await;
            if !self.credentials.are_refused() {
                continue;
            }
            match self.provider.check_credentials().await {
                Outcome::Settled(()) => self.credentials.asked(true),
                Outcome::NotExecuted(NotExecuted::Misconfigured) => {
                    tracing::error!("the provider still does not take our credentials");
                    self.credentials.asked(false);
                }
                Outcome::NotExecuted(_) | Outcome::Unknown(_) => {}
            }
        }
    }
}
