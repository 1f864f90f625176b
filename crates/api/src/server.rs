//! Starting and stopping: two listeners, the worker, and an end in which nothing is lost.

mod connection;

pub use connection::TwoLengths;

use crate::config::{Listeners, Service};
use crate::http::{operations_router, router};
use crate::metrics;
use crate::state::App;
use crate::worker;
use axum::Router;
use connection::Connection;
use domain::provider::{NotExecuted, Outcome};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// So long before the end of the shutdown time waiting ends and open operations are handed back.
const HAND_BACK: Duration = Duration::from_secs(2);
/// What is behind the last answer: handing back, returning connections.
const AFTERMATH: Duration = Duration::from_millis(500);
/// How often a provider that does not take our credentials is asked again.
const ASK_CREDENTIALS: Duration = Duration::from_secs(2);
/// Room for headers that [`crate::middleware::limits`] then refuses with all that an answer has. What does not fit into this
/// either is refused below: by [`connection`] in HTTP/1, and by a bare 431 in HTTP/2, where it is also announced.
const READ_BUFFER: u32 = 128 * 1024;
const READ_LINES: usize = 512;

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
}

impl Sockets {
    /// Binds.
    ///
    /// # Errors
    /// The name of the setting whose address cannot be bound, and why.
    pub async fn bind(
        listeners: Listeners,
        parts: Parts,
    ) -> Result<Self, (&'static str, SocketAddr, io::Error)> {
        let bind =
            async |name, address| TcpListener::bind(address).await.map_err(|error| (name, address, error));
        let public = if parts.http { Some(bind("PAYWRIGHT_LISTEN", listeners.public).await?) } else { None };
        Ok(Self { public, operations: bind("PAYWRIGHT_OPS_LISTEN", listeners.operations).await? })
    }
}

/// Runs until `shutdown` ends, then stops in order.
pub async fn run(app: Arc<App>, sockets: Sockets, parts: Parts, shutdown: impl Future<Output = ()>) {
    let Service { shutdown_grace, shutdown_timeout, .. } = app.settings;
    let accept = CancellationToken::new();
    let operations_accept = CancellationToken::new();
    let public = sockets.public.map(|socket| serve(socket, router(&app), accept.clone()));
    let public = public.map(tokio::spawn);
    let operations =
        tokio::spawn(serve(sockets.operations, operations_router(&app), operations_accept.clone()));
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

async fn serve(listener: TcpListener, router: Router, accept: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    configure(builder.http1());
    builder.http2().timer(TokioTimer::new()).max_header_list_size(READ_BUFFER);
    let connections = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = accept.cancelled() => break,
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                // out of file descriptors, say: the connections that are there end some day
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        // answers are small and waited for
        let _ = stream.set_nodelay(true);
        let stream = Connection::new(stream);
        let two_lengths = stream.two_lengths();
        let service =
            router.clone().map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(two_lengths.clone());
                request
            });
        let service = TowerToHyperService::new(service);
        let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}

fn configure(mut http1: auto::Http1Builder<'_, TokioExecutor>) {
    http1
        .timer(TokioTimer::new())
        .max_buf_size(usize::try_from(READ_BUFFER).unwrap_or(usize::MAX))
        .max_headers(READ_LINES);
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
