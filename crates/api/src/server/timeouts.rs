//! How long a connection may take, and who ends it. hyper has a time-out for heads of HTTP/1 alone, which also runs while a
//! kept connection rests, and none while it finds out the version.

use hyper_util::server::graceful::GracefulConnection;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker, ready};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How long a connection may take for what. A slow first request is over, and its connection closed, within
/// [`body`](Self::body) and [`goodbye`](Self::goodbye).
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeouts {
    /// From the first byte of a request to the end of its head. What a new connection sends is due from its first moment on.
    pub(super) head: Duration,
    /// The same, to the end of the body.
    pub(super) body: Duration,
    /// Between two requests. Longer than the 60 s after which load balancers usually give a connection up: whoever closes
    /// first must not be the one to whom the next request is on its way.
    pub(super) idle: Duration,
    /// Without a byte taken of what there is to send.
    pub(super) stall: Duration,
    /// From the head of a request to the last byte of its answer; more than the longest `Prefer: wait`.
    pub(super) exchange: Duration,
    /// Once a connection is to end and nothing is under way.
    pub(super) goodbye: Duration,
    /// HTTP/2: without a frame that was asked for, until a ping is sent ...
    pub(super) ping: Duration,
    /// ... and from there to its answer. Whoever stalls in the middle of a frame or of a header block cannot send one.
    pub(super) pong: Duration,
}

impl Timeouts {
    /// Those of every listener.
    pub(super) const DEFAULT: Self = Self {
        head: Duration::from_secs(10),
        body: Duration::from_secs(12),
        idle: Duration::from_secs(75),
        stall: Duration::from_secs(10),
        exchange: Duration::from_secs(60),
        goodbye: Duration::from_secs(2),
        ping: Duration::from_secs(7),
        pong: Duration::from_secs(4),
    };
}

/// What a connection has come to. Its stream, its requests and its task share it.
#[derive(Debug)]
pub(super) struct Progress {
    timeouts: Timeouts,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Requests whose answers are not sent to their end.
    under_way: usize,
    is_http2: bool,
    /// Since when it is to end.
    ending: Option<Instant>,
    /// Since when nothing is taken of what there is to send.
    stalled: Option<Instant>,
    /// Of the connection's task, while it waits.
    waker: Option<Waker>,
}

/// What is waited for, and since when.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// A request.
    Arriving(Instant),
    /// The last answer; since the youngest request.
    Answering(Instant),
    /// Whatever comes next.
    Resting(Instant),
}

/// What is done about a connection that took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is told to end: what is under way is answered first.
    End,
    /// It is closed.
    Cut,
}

impl Progress {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        let state = State {
            phase: Phase::Arriving(Instant::now()),
            under_way: 0,
            is_http2: false,
            ending: None,
            stalled: None,
            waker: None,
        };
        Self { timeouts, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was read. In HTTP/2 that need not be a request: there the ping tells who stalls within one.
    pub(super) fn read(&self, now: Instant) {
        let mut state = self.state();
        if !state.is_http2
            && state.ending.is_none()
            && let Phase::Resting(_) = state.phase
        {
            state.phase = Phase::Arriving(now);
        }
    }

    /// Something was to be written, and taken or not.
    pub(super) fn written(&self, is_taken: bool, now: Instant) {
        let mut state = self.state();
        state.stalled = if is_taken { None } else { state.stalled.or(Some(now)) };
    }

    /// The head of a request is there. Answers by when its body has to be.
    pub(super) fn begin(&self, is_http2: bool, now: Instant) -> Instant {
        let mut state = self.state();
        let since = match state.phase {
            Phase::Arriving(since) => since,
            Phase::Answering(_) | Phase::Resting(_) => now,
        };
        state.phase = Phase::Answering(now);
        state.under_way = state.under_way.saturating_add(1);
        state.is_http2 |= is_http2;
        since + self.timeouts.body
    }

    /// The answer of a request was sent to its end, or nobody wants it any more.
    pub(super) fn finish(&self, now: Instant) {
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        if state.under_way == 0 {
            state.phase = Phase::Resting(now);
            wake(state);
        }
    }

    /// The connection is to end behind what is under way.
    pub(super) fn end(&self, now: Instant) {
        let mut state = self.state();
        state.ending = state.ending.or(Some(now));
        wake(state);
    }

    fn is_ending(&self) -> bool {
        self.state().ending.is_some()
    }

    /// What is to be done next, and when, unless something happens before.
    fn due(&self, state: &State) -> (Instant, Step) {
        let Timeouts { head, idle, stall, exchange, goodbye, .. } = self.timeouts;
        let next = match (state.phase, state.ending) {
            (Phase::Arriving(since), _) => (since + head, Step::Cut),
            // a stream of HTTP/2 that takes too long ends alone, and before
            (Phase::Answering(since), _) => (since + exchange + goodbye, Step::Cut),
            (Phase::Resting(since), None) => (since + idle, Step::End),
            (Phase::Resting(since), Some(ending)) => (since.max(ending) + goodbye, Step::Cut),
        };
        match state.stalled.map(|since| since + stall) {
            Some(at) if at < next.0 => (at, Step::Cut),
            _ => next,
        }
    }
}

fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Serves a connection until it ends, takes too long, or is asked to `stop` and has answered what is under way.
pub(super) async fn attend<C: GracefulConnection>(
    connection: C,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    let mut stop = pin!(stop.cancelled());
    let first = progress.due(&progress.state()).0;
    let mut timer = pin!(sleep_until(first));
    let mut is_told = false;
    poll_fn(|cx| {
        // what happens from here on is seen without being woken
        progress.state().waker = None;
        if !is_told && stop.as_mut().poll(cx).is_ready() {
            progress.end(Instant::now());
        }
        loop {
            if !is_told && progress.is_ending() {
                is_told = true;
                connection.as_mut().graceful_shutdown();
            }
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let (at, step) = {
                let mut state = progress.state();
                if state.ending.is_some() && !is_told {
                    continue;
                }
                state.waker = Some(cx.waker().clone());
                progress.due(&state)
            };
            // one that is armed too early is armed again then: most requests are over long before
            if at < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(cx));
            let now = Instant::now();
            match step {
                Step::Cut if at <= now => return Poll::Ready(Ok(())),
                Step::End if at <= now => progress.end(now),
                Step::Cut | Step::End => {}
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that was just accepted, and a clock that counts seconds from then.
    fn accepted() -> (Progress, impl Fn(u64) -> Instant) {
        let progress = Progress::new(Timeouts::DEFAULT);
        let Phase::Arriving(start) = progress.state().phase else { panic!("it waits for a request") };
        (progress, move |seconds| start + Duration::from_secs(seconds))
    }

    fn due(progress: &Progress) -> (Instant, Step) {
        progress.due(&progress.state())
    }

    #[test]
    fn a_request_is_due_from_its_first_byte_and_the_first_from_the_start() {
        let (progress, at) = accepted();
        assert_eq!(due(&progress), (at(10), Step::Cut));
        progress.read(at(9));
        assert_eq!(due(&progress), (at(10), Step::Cut));
        assert_eq!(progress.begin(false, at(9)), at(12), "the body is due");
        assert_eq!(due(&progress), (at(71), Step::Cut));
        progress.finish(at(10));
        assert_eq!(due(&progress), (at(85), Step::End));
        progress.read(at(84));
        progress.read(at(90));
        assert_eq!(due(&progress), (at(94), Step::Cut));
        assert_eq!(progress.begin(false, at(91)), at(96));
        // one that came along with it, and was read before
        progress.finish(at(92));
        assert_eq!(progress.begin(false, at(92)), at(104));
    }

    #[test]
    fn what_is_to_end_is_closed_soon_after_the_last_answer() {
        let (progress, at) = accepted();
        progress.begin(true, at(0));
        progress.begin(true, at(1));
        progress.end(at(2));
        progress.finish(at(3));
        assert_eq!(due(&progress), (at(63), Step::Cut), "one is still under way");
        progress.finish(at(4));
        assert_eq!(due(&progress), (at(6), Step::Cut));
        // the rest of a body, say
        progress.read(at(5));
        assert_eq!(due(&progress), (at(6), Step::Cut));
    }

    #[test]
    fn frames_at_rest_are_no_request() {
        let (progress, at) = accepted();
        progress.begin(true, at(0));
        progress.finish(at(1));
        progress.read(at(50));
        assert_eq!(due(&progress), (at(76), Step::End));
    }

    #[test]
    fn whoever_takes_nothing_is_cut_off() {
        let (progress, at) = accepted();
        progress.begin(false, at(0));
        progress.written(false, at(1));
        progress.written(false, at(5));
        assert_eq!(due(&progress), (at(11), Step::Cut));
        progress.written(true, at(10));
        assert_eq!(due(&progress), (at(62), Step::Cut));
    }
}
