//! A child that serves HTTP, and looking after children that may die.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use super::http;
use crate::Report;
use crate::postgres::Cluster;
use crate::process::{Environment, Process, Spec};

const POLL: Duration = Duration::from_millis(20);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// Between two starts of a child that dies at once: short enough to be back within a second.
const START_GAP: Duration = Duration::from_millis(300);

/// A child that says over HTTP whether it is ready.
#[derive(Debug)]
pub(super) struct Server {
    spec: Spec,
    process: Process,
    ready_url: String,
    live_url: String,
    http: reqwest::Client,
    attention: Attention,
}

impl Server {
    /// Starts `spec`. It is ready when `ready_url` answers 200, and there when `live_url` does.
    pub(super) fn spawn_from(spec: Spec, ready_url: String, live_url: Option<String>) -> Result<Server> {
        let process = spec.spawn()?;
        let http = http::client(PROBE_TIMEOUT)?;
        let live_url = live_url.unwrap_or_else(|| ready_url.clone());
        Ok(Server { spec, process, ready_url, live_url, http, attention: Attention::default() })
    }

    pub(super) fn spawn(&mut self) -> Result<()> {
        self.process = self.spec.spawn()?;
        Ok(())
    }

    pub(super) fn add_environment(&mut self, more: &Environment) {
        self.spec = self.spec.clone().environment(more);
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Waits until it is ready, and no longer when it has ended.
    pub(super) async fn ready(&mut self, bound: Duration) -> Result<()> {
        let deadline = Instant::now() + bound;
        while !self.says_yes(&self.ready_url).await {
            if let Some(status) = self.process.exited()? {
                bail!("{} ended before it was ready ({status}){}", self.spec.name(), self.last_words());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} is not ready after {bound:?}{}{}",
                    self.spec.name(),
                    self.reason().await,
                    self.last_words()
                );
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// See [`attend`].
    pub(super) async fn attend(&mut self, restart: bool, report: Report) -> Result<bool> {
        let mut attention = std::mem::take(&mut self.attention);
        let answers = attend(self, &mut attention, restart, report).await;
        self.attention = attention;
        answers
    }

    async fn says_yes(&self, url: &str) -> bool {
        self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// What it says itself about not being ready.
    async fn reason(&self) -> String {
        let Ok(answer) = self.http.get(&self.ready_url).send().await else { return String::new() };
        format!(": {}", answer.text().await.unwrap_or_default())
    }

    fn last_words(&self) -> String {
        let Some(log) = self.spec.log() else { return String::new() };
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().rev().take(10).collect();
        lines.reverse();
        format!("; the end of {}:\n{}", log.display(), lines.join("\n"))
    }
}

/// What is remembered about a child between two looks at it.
#[derive(Debug, Default)]
pub(super) struct Attention {
    last_start: Option<Instant>,
    /// Whether its end has been told; nobody wants to read it ten times a second.
    end_is_told: bool,
    /// Whether it was started again and has not answered yet.
    is_awaited: bool,
}

/// A child that can be started again.
pub(super) trait Child {
    fn name(&self) -> &str;
    /// How it ended, in words; None while it runs.
    fn ended(&mut self) -> Result<Option<String>>;
    /// Starts it without waiting until it answers: meanwhile another child may die.
    async fn spawn_again(&mut self) -> Result<()>;
    async fn answers(&self) -> bool;
}

/// Looks at a child once. True when it was started again and answers now for the first time.
pub(super) async fn attend(
    child: &mut impl Child,
    attention: &mut Attention,
    restart: bool,
    report: Report,
) -> Result<bool> {
    if let Some(how) = child.ended()? {
        if !attention.end_is_told {
            report(&format!(
                "{} ended ({how}){}",
                child.name(),
                if restart { ": starting it again" } else { "" }
            ));
            attention.end_is_told = true;
        }
        if restart && attention.last_start.is_none_or(|start| start.elapsed() >= START_GAP) {
            attention.last_start = Some(Instant::now());
            attention.is_awaited = true;
            child.spawn_again().await.with_context(|| format!("cannot start {} again", child.name()))?;
        }
        return Ok(false);
    }
    if attention.is_awaited && child.answers().await {
        attention.is_awaited = false;
        attention.end_is_told = false;
        return Ok(true);
    }
    Ok(false)
}

impl Child for Server {
    fn name(&self) -> &str {
        self.spec.name()
    }

    fn ended(&mut self) -> Result<Option<String>> {
        Ok(self.process.exited()?.map(|status| status.to_string()))
    }

    async fn spawn_again(&mut self) -> Result<()> {
        self.spawn()
    }

    async fn answers(&self) -> bool {
        self.says_yes(&self.live_url).await
    }
}

impl Child for Cluster {
    fn name(&self) -> &'static str {
        "PostgreSQL"
    }

    fn ended(&mut self) -> Result<Option<String>> {
        match self.server() {
            Some(server) => Ok(server.exited()?.map(|status| status.to_string())),
            None => Ok(Some("stopped".to_owned())),
        }
    }

    async fn spawn_again(&mut self) -> Result<()> {
        self.spawn().await
    }

    async fn answers(&self) -> bool {
        Cluster::answers(self).await
    }
}
