//! Requests that come at their own pace, as people do, whether those before them are answered or not.

use crate::Answer;
use anyhow::{Context, Result};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep_until;

/// What somebody saw who asked. By default nothing: the connection broke, or nobody answered in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// The status; 0 is nothing.
    pub status: u16,
    /// Whether the answer had a `Retry-After`.
    pub says_when: bool,
}

impl Seen {
    /// What a library saw for them.
    #[must_use]
    pub fn of(answer: Option<&Answer>) -> Self {
        answer.map_or_else(Self::default, |answer| Self {
            status: answer.status,
            says_when: !answer.header("retry-after").is_empty(),
        })
    }
}

/// A request, and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// When it was due. A generator that is late itself does not hide what others had to wait.
    pub due: Instant,
    /// How much later it was sent than it was due.
    pub late: Duration,
    /// From when it was due to the whole answer.
    pub took: Duration,
    /// The status; 0 when the connection broke or nobody answered in time.
    pub status: u16,
    /// Whether the answer had a `Retry-After`.
    pub says_when: bool,
}

/// Requests under way, and more to come.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<Vec<Asked>>>,
}

impl Load {
    /// A request at each of these times, counted from now, each of which is made by `ask`.
    pub fn of<A>(
        arrivals: impl Iterator<Item = Duration> + Send + 'static,
        ask: impl Fn() -> A + Send + 'static,
    ) -> Self
    where
        A: Future<Output = Seen> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let began = Instant::now();
        let task = tokio::spawn(async move {
            let (mut asking, mut asked) = (JoinSet::new(), Vec::new());
            for arrival in arrivals {
                let due = began + arrival;
                sleep_until(due.into()).await;
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                let answer = ask();
                asking.spawn(async move {
                    let late = due.elapsed();
                    let Seen { status, says_when } = answer.await;
                    Asked { due, late, took: due.elapsed(), status, says_when }
                });
                while let Some(done) = asking.try_join_next() {
                    asked.push(done?);
                }
            }
            while let Some(done) = asking.join_next().await {
                asked.push(done?);
            }
            Ok(asked)
        });
        Self { stop, task }
    }

    /// No more of them; those that are under way come to their end.
    ///
    /// # Errors
    /// Asking panicked.
    pub async fn stop(self) -> Result<Vec<Asked>> {
        self.stop.store(true, Ordering::Relaxed);
        self.end().await
    }

    /// Waits until the last one has come to its end.
    ///
    /// # Errors
    /// Asking panicked.
    pub async fn end(self) -> Result<Vec<Asked>> {
        self.task.await.context("the load broke down")?
    }
}

/// So many arrivals per second, one like the other, without end.
pub fn evenly(rate: f64) -> impl Iterator<Item = Duration> {
    (0..).map(move |place| Duration::from_secs_f64(f64::from(place) / rate))
}

/// Arrivals that know nothing of each other (a Poisson process), for so long and at the rate per second that `rate` says
/// for each time; the same at every run.
pub fn by_chance(long: Duration, rate: impl Fn(Duration) -> f64) -> impl Iterator<Item = Duration> {
    let (mut random, mut at) = (StdRng::seed_from_u64(1), Duration::ZERO);
    std::iter::from_fn(move || {
        let pause = -(1.0 - random.random::<f64>()).ln();
        at += Duration::from_secs_f64(pause / rate(at));
        (at < long).then_some(at)
    })
}

/// The time that so many percent stayed below, of times that are sorted.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_keeps_to_the_rate_and_repeats_itself() {
        let rise = |at: Duration| if at < Duration::from_secs(10) { 100.0 } else { 1000.0 };
        let arrivals = || by_chance(Duration::from_secs(20), rise);
        let (before, after): (Vec<_>, Vec<_>) = arrivals().partition(|at| *at < Duration::from_secs(10));
        assert!((900..1100).contains(&before.len()), "{}", before.len());
        assert!((9_700..10_300).contains(&after.len()), "{}", after.len());
        assert!(arrivals().eq(arrivals()));
    }

    #[tokio::test]
    async fn time_is_counted_from_when_a_request_was_due() {
        // both are due at once, and the first keeps the thread busy
        let late = Duration::from_millis(50);
        let arrivals = [Duration::ZERO; 2].into_iter();
        let load = Load::of(arrivals, move || async move {
            let began = Instant::now();
            while began.elapsed() < late {}
            Seen::default()
        });
        let asked = load.end().await.unwrap();
        assert!(asked[1].late >= late && asked[1].took >= 2 * late, "{asked:?}");
    }
}
