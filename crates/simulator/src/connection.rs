//! Accepts connections, and gives each request a handle to the socket it came on, so that a fault can break it.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::sleep,
};
use tower::ServiceExt as _;

/// The connection a request came on. HTTP/1.1 answers one request at a time, so breaking it breaks that request only.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer(Arc<Break>);

#[derive(Debug, Default)]
struct Break {
    /// Set by `Peer`, waited for by `serve_connection`, which then drops the socket.
    asked: Notify,
    /// Whether the end is a TCP reset, or else an orderly close.
    reset: AtomicBool,
}

impl Peer {
    /// Resets the connection (TCP RST). Never returns: the request is dropped with its connection.
    pub(crate) async fn reset<T>(&self) -> T {
        self.0.reset.store(true, Ordering::Release);
        self.close().await
    }

    /// Closes the connection without an answer. Never returns.
    pub(crate) async fn close<T>(&self) -> T {
        self.0.asked.notify_one();
        pending().await
    }
}

/// Serves connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, router: Router) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(stream, router.clone()));
            }
            // Out of file descriptors, or a caller that left while it was queued: neither ends the server.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Router) {
    // Answers are small and latency counts; if the option is refused, they only take longer.
    let _ = stream.set_nodelay(true);
    let peer = Peer::default();
    let service = {
        let peer = peer.clone();
        service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            router.clone().oneshot(request.map(Body::new))
        })
    };
    let mut connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A connection that breaks is the caller's business.
        _ = &mut connection => {}
        () = peer.0.asked.notified() => {
            let stream = connection.into_parts().io.into_inner();
            if peer.0.reset.load(Ordering::Acquire) {
                // Without lingering the kernel answers whatever the caller still expects with RST.
                let _ = stream.set_zero_linger();
            }
        }
    }
}
