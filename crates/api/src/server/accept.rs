//! Accepts connections, up to a cap, and serves what comes over them.

use super::connection::{Connection, TwoLengths};
use super::timeouts::{Progress, Timeouts, attend};
use crate::problem::Code;
use axum::Router;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use opentelemetry::metrics::Counter;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Connections beyond the cap that are sent away in peace at once. More of them get the same answer, and a reset behind it.
pub(super) const REFUSALS: usize = 128;
/// How long that may take.
const REFUSAL_TIME: Duration = Duration::from_secs(3);
/// How often the log says that connections are refused.
const TELL_REFUSALS: Duration = Duration::from_secs(10);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Room for headers that [`crate::middleware::limits`] then refuses with all that an answer has. What does not fit into this
/// either is refused below: by [`super::connection`] in HTTP/1, and by a bare 431 in HTTP/2, where it is also announced.
const HTTP1_BUFFER: usize = 64 * 1024;
const HTTP1_LINES: usize = 512;
const HTTP2_HEADERS: u32 = 128 * 1024;
/// Requests at once on a connection of HTTP/2: no fewer are recommended (RFC 9113, section 6.5.2).
const HTTP2_STREAMS: u32 = 100;
/// Of a body that nobody has read yet: the largest that is taken, so that none has to wait for its window.
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// The same, of all bodies on a connection.
const HTTP2_CONNECTION_WINDOW: u32 = 128 * 1024;
/// Of an answer that is not sent yet.
const HTTP2_SEND_BUFFER: usize = 64 * 1024;
/// Requests that their caller has reset before they were seen; with one more the connection ends.
const HTTP2_RESETS: usize = 20;

/// What a request knows of its connection.
#[derive(Debug, Clone)]
pub struct Exchange {
    two_lengths: TwoLengths,
    progress: Arc<Progress>,
    body_by: Instant,
    has_place: bool,
}

impl Exchange {
    /// Whether the connection has brought a head with both `Transfer-Encoding` and `Content-Length`.
    #[must_use]
    pub fn has_two_lengths(&self) -> bool {
        self.two_lengths.seen()
    }

    /// By when the body has to be there.
    #[must_use]
    pub fn body_by(&self) -> Instant {
        self.body_by
    }

    /// Whether the request is one of as many as the process serves at once.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.has_place
    }

    /// Ends the connection behind what is under way.
    pub fn end_connection(&self) {
        self.progress.end(Instant::now());
    }
}

/// A listener's way to serve connections.
pub(super) struct Door {
    router: Router,
    builder: auto::Builder<Streams>,
    timeouts: Timeouts,
    /// For connections.
    places: Arc<Semaphore>,
    /// For requests: in HTTP/2 a connection has many at once, and each may bring a body.
    request_places: Arc<Semaphore>,
}

impl Door {
    /// With so many connections at once, and as many requests.
    pub(super) fn new(router: Router, connections: usize, timeouts: Timeouts) -> Arc<Self> {
        let mut builder = auto::Builder::new(Streams(timeouts.exchange));
        builder
            .http1()
            .timer(TokioTimer::new())
            // ours: see `timeouts`
            .header_read_timeout(None)
            .max_buf_size(HTTP1_BUFFER)
            .max_headers(HTTP1_LINES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_header_list_size(HTTP2_HEADERS)
            .max_concurrent_streams(HTTP2_STREAMS)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .max_send_buf_size(HTTP2_SEND_BUFFER)
            .max_pending_accept_reset_streams(HTTP2_RESETS)
            .keep_alive_interval(timeouts.ping)
            .keep_alive_timeout(timeouts.pong);
        Arc::new(Self {
            router,
            builder,
            timeouts,
            places: Arc::new(Semaphore::new(connections)),
            request_places: Arc::new(Semaphore::new(connections)),
        })
    }

    /// Accepts until it is told to `stop`, and waits for the connections that are open then.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let connections = TaskTracker::new();
        let mut refusals = Refusals::default();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // out of file descriptors, say: the connections that are there end some day
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // answers are small and waited for
            let _ = stream.set_nodelay(true);
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => {
                    let (door, stop) = (Arc::clone(&self), stop.clone());
                    connections.spawn(async move {
                        door.attend(stream, &stop).await;
                        drop(place);
                    });
                }
                Err(_) => refusals.refuse(stream),
            }
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    /// Serves one connection to its end.
    async fn attend<S>(&self, stream: S, stop: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let progress = Arc::new(Progress::new(self.timeouts));
        let stream = Connection::new(stream, Arc::clone(&progress));
        let two_lengths = stream.two_lengths();
        let service = service_fn(|mut request: Request<Incoming>| {
            let is_http2 = request.version() >= Version::HTTP_2;
            let body_by = progress.begin(is_http2, Instant::now());
            let place = Arc::clone(&self.request_places).try_acquire_owned().ok();
            let exchange = Exchange {
                two_lengths: two_lengths.clone(),
                progress: Arc::clone(&progress),
                body_by,
                has_place: place.is_some(),
            };
            request.extensions_mut().insert(exchange);
            let under_way = UnderWay { progress: Arc::clone(&progress), _place: place };
            let answer = self.router.clone().call(request);
            async move { answer.await.map(|answer| answer.map(|body| Answer { body, _under_way: under_way })) }
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        if let Err(error) = attend(connection, &progress, stop).await {
            tracing::debug!(error = %error, "a connection ended early");
        }
    }
}

/// Where the requests of a connection of HTTP/2 run. Whoever takes nothing of an answer, because the window is closed, say,
/// has its stream reset.
#[derive(Debug, Clone, Copy)]
struct Streams(Duration);

impl<F> Executor<F> for Streams
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, stream: F) {
        TokioExecutor::new().execute(tokio::time::timeout(self.0, stream));
    }
}

/// A request until its answer was sent.
struct UnderWay {
    progress: Arc<Progress>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.progress.finish(Instant::now());
    }
}

/// The body of an answer. It is dropped when the last of it is on its way.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Connections that are sent away.
struct Refusals {
    places: Arc<Semaphore>,
    counter: Counter<u64>,
    /// How many nobody was told of, and since when.
    untold: u64,
    told: Option<Instant>,
}

impl Default for Refusals {
    fn default() -> Self {
        let counter = opentelemetry::global::meter("payments")
            .u64_counter("payments.connections.refused")
            .with_unit("{connection}")
            .with_description("Connections beyond the cap, which were answered 503 and closed.")
            .build();
        // a counter that is not there before its first connection looks as if it had never grown
        counter.add(0, &[]);
        Self { places: Arc::new(Semaphore::new(REFUSALS)), counter, untold: 0, told: None }
    }
}

impl Refusals {
    /// Answers 503 before anything is read. Whoever is to be heard to the end has little time for it, and few may at once.
    fn refuse(&mut self, stream: TcpStream) {
        self.counter.add(1, &[]);
        self.tell();
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => {
                tokio::spawn(async move {
                    let progress = Arc::new(Progress::new(Timeouts::DEFAULT));
                    let refusal = Connection::new(stream, progress).refuse(Code::Overloaded);
                    let _ = tokio::time::timeout(REFUSAL_TIME, refusal).await;
                    drop(place);
                });
            }
            Err(_) => super::connection::say_and_close(stream, Code::Overloaded),
        }
    }

    fn tell(&mut self) {
        self.untold = self.untold.saturating_add(1);
        if self.told.is_none_or(|told| told.elapsed() >= TELL_REFUSALS) {
            tracing::warn!(refused = self.untold, "too many connections are open; more are refused");
            (self.untold, self.told) = (0, Some(Instant::now()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::time::Instant as Clock;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    const SHORT: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);
    /// Nothing ends by itself.
    const PATIENT: Timeouts = Timeouts {
        head: LONG,
        body: LONG,
        idle: LONG,
        stall: LONG,
        exchange: LONG,
        goodbye: LONG,
        ping: LONG,
        pong: LONG,
    };
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    /// The preface, and no settings.
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    /// A whole GET of `/`, and of `/large`, in the names and values that HTTP/2 knows by heart.
    const HTTP2_GET: &[u8] = b"\0\0\x06\x01\x05\0\0\0\x01\x82\x86\x84\x41\x01a";
    const HTTP2_GET_LARGE: &[u8] = b"\0\0\x0d\x01\x05\0\0\0\x01\x82\x86\x04\x06/large\x41\x01a";
    const RST_STREAM: u8 = 3;
    const GOAWAY: u8 = 7;

    struct Caller {
        stream: DuplexStream,
        serving: JoinHandle<()>,
        stop: CancellationToken,
    }

    fn connect(timeouts: Timeouts) -> Caller {
        let router = Router::new()
            .route("/", get(async || "well"))
            .route("/large", get(async || "x".repeat(1024 * 1024)));
        let (stream, theirs) = duplex(16 * 1024);
        let (door, stop) = (Door::new(router, 1, timeouts), CancellationToken::new());
        let stopped = stop.clone();
        let serving = tokio::spawn(async move { door.attend(theirs, &stopped).await });
        Caller { stream, serving, stop }
    }

    impl Caller {
        /// What comes until the connection is closed, and how long that takes.
        async fn until_closed(mut self) -> (Vec<u8>, Duration) {
            let (began, mut read) = (Clock::now(), Vec::new());
            let reading = self.stream.read_to_end(&mut read);
            tokio::time::timeout(LONG / 2, reading).await.unwrap().unwrap();
            (read, began.elapsed())
        }

        async fn is_served(&mut self) -> bool {
            self.stream.write_all(GET).await.unwrap();
            let mut read = Vec::new();
            while !read.ends_with(b"well") {
                match self.stream.read_u8().await {
                    Ok(byte) => read.push(byte),
                    Err(_) => return false,
                }
            }
            read.starts_with(b"HTTP/1.1 200")
        }

        /// The kind of the next frame of HTTP/2, if it is one of these.
        async fn frame(&mut self, kinds: &[u8]) -> u8 {
            loop {
                let mut head = [0; 9];
                self.stream.read_exact(&mut head).await.unwrap();
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let mut payload = vec![0; usize::try_from(length).unwrap()];
                self.stream.read_exact(&mut payload).await.unwrap();
                if kinds.contains(&head[3]) {
                    return head[3];
                }
            }
        }
    }

    #[tokio::test]
    async fn a_request_that_does_not_come_closes_its_connection() {
        let timeouts = Timeouts { head: SHORT, ..PATIENT };
        for sent in [b"".as_slice(), b"G", b"GET / HTTP/1.1\r\nHos", b"PRI * HT", HTTP2, &HTTP2_GET[..7]] {
            let sent = if sent.first() == Some(&0) { [HTTP2, sent].concat() } else { sent.to_vec() };
            let mut caller = connect(timeouts);
            caller.stream.write_all(&sent).await.unwrap();
            let (read, took) = caller.until_closed().await;
            assert!(!read.starts_with(b"HTTP/1"), "{sent:?}");
            assert!((SHORT..LONG / 2).contains(&(took + Duration::from_millis(5))), "{sent:?}: {took:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_rests_longer_than_a_head_may_take() {
        let mut caller = connect(Timeouts { head: SHORT, ..PATIENT });
        assert!(caller.is_served().await);
        tokio::time::sleep(SHORT * 3).await;
        assert!(caller.is_served().await);
        // and the next request has as much time as the first
        caller.stream.write_all(&GET[..5]).await.unwrap();
        assert_eq!(caller.until_closed().await.0, b"");
    }

    #[tokio::test]
    async fn who_rests_too_long_is_sent_away() {
        let timeouts = Timeouts { idle: SHORT, goodbye: SHORT, ..PATIENT };
        let mut caller = connect(timeouts);
        assert!(caller.is_served().await);
        assert_eq!(caller.until_closed().await.0, b"");

        let mut caller = connect(timeouts);
        caller.stream.write_all(&[HTTP2, HTTP2_GET].concat()).await.unwrap();
        assert_eq!(caller.frame(&[GOAWAY]).await, GOAWAY);
        // it was told, says nothing, and is cut off
        caller.until_closed().await;
    }

    #[tokio::test]
    async fn who_takes_nothing_of_an_answer_is_cut_off() {
        let mut caller = connect(Timeouts { stall: SHORT, ..PATIENT });
        caller.stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        tokio::time::timeout(LONG / 2, &mut caller.serving).await.unwrap().unwrap();

        // with a window that is closed the connection is well, and only the stream is not
        let mut caller = connect(Timeouts { exchange: SHORT, ..PATIENT });
        let no_window = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0";
        let request = [&HTTP2[..24], no_window, HTTP2_GET_LARGE].concat();
        caller.stream.write_all(&request).await.unwrap();
        assert_eq!(caller.frame(&[RST_STREAM, GOAWAY]).await, RST_STREAM);
    }

    #[tokio::test]
    async fn who_stalls_within_a_header_block_cannot_answer_a_ping() {
        let mut caller = connect(Timeouts { ping: SHORT, pong: SHORT, ..PATIENT });
        let begun = b"\0\0\x06\x01\x01\0\0\0\x03\x82\x86\x84\x41\x01a";
        caller.stream.write_all(&[HTTP2, HTTP2_GET, begun].concat()).await.unwrap();
        let (_, took) = caller.until_closed().await;
        assert!(took >= SHORT, "{took:?}");
    }

    #[tokio::test]
    async fn requests_at_once_are_bounded_whatever_they_come_over() {
        let places = async |request: Request<Body>| {
            request.extensions().get::<Exchange>().is_some_and(Exchange::has_place).to_string()
        };
        let (one, theirs) = duplex(1024);
        let (other, others) = duplex(1024);
        let door = Door::new(Router::new().route("/", get(places)), 1, PATIENT);
        let held = Arc::clone(&door.request_places).try_acquire_owned().unwrap();
        let mut ends = Vec::new();
        for (mut ours, stream, held) in [(one, theirs, Some(held)), (other, others, None)] {
            let door = Arc::clone(&door);
            tokio::spawn(async move { door.attend(stream, &CancellationToken::new()).await });
            ours.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
            let mut read = String::new();
            ours.read_to_string(&mut read).await.unwrap();
            ends.push(read.rsplit("\r\n").next().unwrap_or_default().to_owned());
            drop(held);
        }
        assert_eq!(ends, ["false", "true"]);
    }

    #[tokio::test]
    async fn a_process_that_stops_closes_what_rests() {
        let mut caller = connect(PATIENT);
        assert!(caller.is_served().await);
        caller.stop.cancel();
        assert_eq!(caller.until_closed().await.0, b"");
    }
}
