//! Callers who go on while something behind the service is broken, and what they are told meanwhile.

use crate::support::{PAYMENTS, SOON, seconds};
use anyhow::{Context, Result};
use e2e::{Answer, Api, World, WorldOptions, eventually, payment};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use uuid::Uuid;

/// What the services are told: a request is answered within this.
const DEADLINE: Duration = Duration::from_secs(3);
/// What the answer may take beyond it on its way.
const MARGIN: Duration = Duration::from_millis(500);
/// From the repair to the first answer that is as it should be.
const RECOVERY: Duration = Duration::from_secs(3);
/// How long a fault lasts: longer than any request, so that some meet nothing else.
pub(crate) const LASTING: Duration = Duration::from_secs(6);
/// How many ask at the same time, and their pause.
const CALLERS: usize = 8;
const PAUSE: Duration = Duration::from_millis(50);

/// Services that wait for nothing very long.
pub(crate) fn impatient() -> WorldOptions {
    WorldOptions::default()
        .set("PAYWRIGHT_REQUEST_TIMEOUT", &format!("{}s", DEADLINE.as_secs()))
        .set("PAYWRIGHT_SYNC_WAIT", "2s")
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "1s")
        .set("PAYWRIGHT_LEASE", "7s")
}

/// A request and its answer.
pub(crate) struct Asked {
    pub(crate) what: &'static str,
    pub(crate) at: Instant,
    pub(crate) took: Duration,
    pub(crate) answer: Answer,
}

/// What callers may be told.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    /// As it should be.
    pub(crate) good: fn(&Asked) -> bool,
    /// As it may be while something is broken.
    pub(crate) fair: fn(&Asked) -> bool,
}

/// Callers who create payments and read them, again and again, and note what they are told.
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Result<(Vec<Asked>, Vec<String>)>>,
    api: Api,
}

impl Callers {
    pub(crate) fn of(world: &World) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..CALLERS {
            let (api, stop) = (world.api.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                let (mut asked, mut open) = (Vec::new(), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let key = Uuid::new_v4().to_string();
                    let at = Instant::now();
                    let answer = api.create(&key, &payment(&key)).await?;
                    if Api::is_worth_repeating(&answer) {
                        open.push(key);
                    }
                    asked.push(Asked { what: "create", at, took: at.elapsed(), answer });
                    let at = Instant::now();
                    let answer = api.get(PAYMENTS).await?;
                    asked.push(Asked { what: "list", at, took: at.elapsed(), answer });
                    tokio::time::sleep(PAUSE).await;
                }
                Ok((asked, open))
            });
        }
        Self { stop, tasks, api: world.api.clone() }
    }

    /// Lets them go on until some are answered as they should be, counted from the repair.
    pub(crate) async fn rest(
        mut self,
        fault: &str,
        expected: Expected,
        broken: Instant,
        repaired: Instant,
    ) -> Result<Vec<Asked>> {
        tokio::time::sleep_until((repaired + RECOVERY + seconds(1)).into()).await;
        self.stop.store(true, Ordering::Relaxed);
        let (mut asked, mut open) = (Vec::new(), Vec::new());
        while let Some(told) = self.tasks.join_next().await {
            let (some, left) = told??;
            asked.extend(some);
            open.extend(left);
        }
        for one in &asked {
            let Asked { what, took, answer, .. } = one;
            assert!(*took <= DEADLINE + MARGIN, "{fault}: {what} answered after {took:?}: {}", answer.status);
            assert!((expected.fair)(one), "{fault}: {what}: {} {}", answer.status, answer.json());
        }
        for what in ["create", "list"] {
            let good = asked.iter().filter(|one| one.what == what && (expected.good)(one));
            let first = good.map(|one| one.at + one.took).filter(|end| *end >= repaired).min();
            let first = first.with_context(|| format!("{fault}: no {what} is answered well"))? - repaired;
            println!("{fault}: first {what} {} ms after the repair", first.as_millis());
            assert!(first <= RECOVERY, "{fault}: {what} after {first:?}");
        }
        let meanwhile = asked.iter().filter(|one| (broken..repaired).contains(&(one.at + one.took)));
        let (good, bad): (Vec<&Asked>, Vec<&Asked>) = meanwhile.partition(|one| (expected.good)(one));
        let longest = asked.iter().map(|one| one.took).max().unwrap_or_default();
        println!("{fault}: {} good, {} not meanwhile; longest {longest:?}", good.len(), bad.len());
        // a good client repeats what it was not told, with the same key, and is told
        for key in open {
            let mut told = 0;
            eventually(SOON * 2, "what was asked for is carried out", async || {
                told = self.api.create(&key, &payment(&key)).await?.status;
                Ok(told == 201)
            })
            .await
            .with_context(|| format!("{fault}: last told {told}"))?;
        }
        Ok(asked)
    }
}
