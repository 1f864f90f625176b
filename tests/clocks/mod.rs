//! Clocks that jump, and clocks of two processes that differ, change nothing: who owns what is decided by the database's clock,
//! and how long something takes by a monotonic one.

use crate::support::{SOON, count, impatient, provider_was_asked, seconds};
use anyhow::{Context, Result, ensure};
use e2e::{Api, World, payment};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use tokio::process::Command;

/// More than any window within which something is decided: a charge is given up after half of it.
const HOUR: i64 = 3600;

/// A wall clock that can be put wrong, for a process that is started with it.
struct Clock {
    directory: TempDir,
}

impl Clock {
    async fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clocks/wrong_clock.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-o"])
            .arg(directory.path().join("clock.so"))
            .arg(source)
            .arg("-ldl");
        ensure!(compiler.status().await.context("cc")?.success(), "the clock cannot be compiled");
        let clock = Self { directory };
        clock.set(0)?;
        Ok(clock)
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("seconds")
    }

    fn set(&self, seconds: i64) -> Result<()> {
        // in one step: whoever looks at the clock sees one of the two times
        let next = self.directory.path().join("next");
        fs::write(&next, seconds.to_string())?;
        Ok(fs::rename(next, self.file())?)
    }

    /// Another service process, with this clock.
    async fn service(&self, world: &mut World) -> Result<Api> {
        let path = |path: PathBuf| path.display().to_string();
        let environment = [
            ("LD_PRELOAD".to_owned(), path(self.directory.path().join("clock.so"))),
            ("WRONG_CLOCK".to_owned(), path(self.file())),
        ];
        let number = world.stack.add_service(&environment.into()).await?;
        world.api_of(number)
    }
}

async fn pay(api: &Api, key: &str) -> Result<()> {
    let answer = api.create(key, &payment(key)).await?;
    ensure!(answer.status == 201, "{key}: {}", answer.json());
    Ok(())
}

#[tokio::test]
async fn a_clock_that_jumps_or_differs_changes_nothing() -> Result<()> {
    let mut world = impatient().start().await?;
    let clock = Clock::new().await?;
    let wrong = clock.service(&mut world).await?;
    let right = world.api.clone();
    for jump in [HOUR, -HOUR, 0] {
        clock.set(jump)?;
        let key = format!("paid-{jump}");
        pay(&wrong, &key).await?;
        let there = wrong.create(&key, &payment(&key)).await?;
        let here = right.create(&key, &payment(&key)).await?;
        assert_eq!((here.status, &here.body), (201, &there.body), "one answer, whoever is asked");
    }
    clock.set(HOUR)?;
    let dated = "SELECT count(*) FROM payments WHERE created_at > now() + interval '50 min'";
    pay(&wrong, "dated").await?;
    assert_eq!(count(&world, dated).await?, 2, "the clock is really wrong: it dates payments");

    // Half an hour after its creation a charge is given up. By this clock it is an hour old before its first retry.
    clock.set(0)?;
    let asked_before = world.simulator.calls("POST /v1/payment_intents").await?;
    world.simulator.create_fault("hang_before", Some(3), 60_000).await?;
    let answer = wrong.create_preferring("open", &payment("open"), Some("respond-async")).await?;
    assert_eq!(answer.status, 202, "{}", answer.json());
    provider_was_asked(&world, asked_before + 1).await?;
    clock.set(HOUR)?;
    world.at_rest(seconds(30)).await?;
    let kept = "SELECT count(*) FROM payments WHERE reference = 'open' AND status = 'captured'";
    assert_eq!(count(&world, kept).await?, 1);

    // nobody takes up what another is at, however late it is there
    world.simulator.create_fault("delay", Some(1), 700).await?;
    let asked_before = world.simulator.calls("POST /v1/payment_intents").await?;
    clock.set(-HOUR)?;
    let body = payment("slow");
    let (slow, ()) = tokio::try_join!(right.create("slow", &body), async {
        provider_was_asked(&world, asked_before + 1).await?;
        clock.set(HOUR)
    })?;
    assert_eq!(slow.status, 201, "{}", slow.json());
    assert_eq!(world.simulator.calls("POST /v1/payment_intents").await?, asked_before + 1);
    world.at_rest(SOON).await?;
    world.finish().await
}
