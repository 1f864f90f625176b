//! Requests that come at their own pace, as people do, whether those before them are answered or not.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::{JoinHandle, JoinSet};

/// A request, and what came of it.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// When it was due. A generator that is late itself does not hide what others had to wait.
    pub due: Instant,
    /// From then to the whole answer.
    pub took: Duration,
    /// The status; 0 when the connection broke or nobody answered in time.
    pub status: u16,
}

/// Requests under way, and more to come.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<Asked>>,
}

impl Load {
    /// So many requests per second, each of which is made by `ask` and answered with its status.
    pub fn of<A>(rate: f64, ask: impl Fn() -> A + Send + 'static) -> Self
    where
        A: Future<Output = u16> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut asking = JoinSet::new();
            let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
            while !is_over.load(Ordering::Relaxed) {
                let (due, answer) = (ticks.tick().await.into_std(), ask());
                asking.spawn(async move {
                    let status = answer.await;
                    Asked { due, took: due.elapsed(), status }
                });
            }
            asking.join_all().await
        });
        Self { stop, task }
    }

    /// No more of them; those that are under way come to their end.
    ///
    /// # Errors
    /// Asking panicked.
    pub async fn stop(self) -> Result<Vec<Asked>> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.context("the load broke down")
    }
}

/// The time that so many percent stayed below, of times that are sorted.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let place = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(place).copied().unwrap_or_default()
}
