//! The provider itself: state, ledger and settings in one place, and the order in which a request meets them.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use crate::{
    command::{Command, Query},
    commit::{Commit, KeyUse, now_micros},
    execute::{self, Outcome},
    faults::Traffic,
    ledger::{Failure, Ledger, LedgerBroken, Receipt},
    objects::ApiError,
    state::{Known, Snapshot, State},
    wire,
};

/// One simulated provider. It is shared by all requests.
#[derive(Debug)]
pub(crate) struct Simulator {
    /// Never held across an await.
    state: Mutex<State>,
    ledger: Ledger,
    settings: Mutex<Settings>,
    traffic: Mutex<Traffic>,
}

/// What can be turned while the simulator runs. Like the fault rules, settings end with the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Settings {
    /// How long every request under `/v1` takes, in milliseconds.
    pub latency_ms: u64,
    /// How long an idempotency key is remembered, in milliseconds. Stripe: at least 24 hours.
    pub key_retention_ms: u64,
    /// The only accepted API key; `None` accepts every `sk_test_...`.
    pub accept_key: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { latency_ms: 0, key_retention_ms: 86_400_000, accept_key: None }
    }
}

/// Settings to change; what is absent stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettingsPatch {
    latency_ms: Option<u64>,
    key_retention_ms: Option<u64>,
    /// An explicit null clears it, so absent and null have to differ.
    #[serde(default, deserialize_with = "present")]
    accept_key: Option<Option<String>>,
}

fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// What a fault does to an execution.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Disturbance {
    /// On top of the latency.
    pub delay: Duration,
    /// The caller will not get the answer in good order.
    pub answer_lost: bool,
    /// The answer is a 500, for good.
    pub store_500: bool,
}

/// A good answer to a POST.
#[derive(Debug)]
pub(crate) struct Executed {
    pub commit: Arc<Commit>,
    /// Whether it was executed before, by another request with the same key.
    pub replayed: bool,
}

/// Why there is no good answer.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The provider refuses, and nothing was stored.
    Refused(Box<ApiError>),
    /// The provider itself is broken.
    Broken,
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<LedgerBroken> for Failed {
    fn from(LedgerBroken: LedgerBroken) -> Self {
        Self::Broken
    }
}

impl Simulator {
    /// Opens the ledger and remembers everything in it.
    pub(crate) fn open(ledger: &Path) -> anyhow::Result<(Self, Failure)> {
        let mut state = State::default();
        let (ledger, failure) = Ledger::open(ledger, |commit| state.apply(Arc::new(commit)))?;
        let simulator =
            Self { state: Mutex::new(state), ledger, settings: Mutex::default(), traffic: Mutex::default() };
        Ok((simulator, failure))
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> Settings {
        lock(&self.settings).clone()
    }

    /// Changes settings and returns all of them.
    pub(crate) fn change_settings(&self, patch: SettingsPatch) -> Settings {
        let mut settings = lock(&self.settings);
        settings.latency_ms = patch.latency_ms.unwrap_or(settings.latency_ms);
        settings.key_retention_ms = patch.key_retention_ms.unwrap_or(settings.key_retention_ms);
        if let Some(accept_key) = patch.accept_key {
            settings.accept_key = accept_key;
        }
        settings.clone()
    }

    /// Fault rules and counters. Not to be held across an await.
    pub(crate) fn traffic(&self) -> MutexGuard<'_, Traffic> {
        lock(&self.traffic)
    }

    /// Answers a GET.
    pub(crate) async fn read(&self, query: &Query, delay: Duration) -> Result<Vec<u8>, Failed> {
        self.take_time(delay).await;
        let body = {
            let state = lock(&self.state);
            match query {
                Query::RetrieveIntent(id) => wire::intent(state.intent(id, "intent")?),
                Query::RetrieveRefund(id) => wire::refund(state.refund(id)?),
                Query::ListIntents(created, page) => {
                    let listing = state.list_intents(*created, page)?;
                    wire::intents(&listing.data, listing.has_more)
                }
                Query::ListRefunds { payment_intent, page } => {
                    let listing = state.list_refunds(payment_intent.as_deref(), page)?;
                    wire::refunds(&listing.data, listing.has_more)
                }
            }
        };
        // What was read may be newer than the disk, and a crash would make the answer a lie.
        self.ledger.barrier().synced().await?;
        Ok(body)
    }

    /// Answers a POST: looks its key up, executes it if it is new, and waits for the disk.
    ///
    /// `command` is the result of validation, which counts only if the key is new: a key that is known is compared
    /// before its parameters are judged. `caller_left` says whether anybody still waits for the answer.
    pub(crate) async fn write(
        &self,
        command: Result<Command, ApiError>,
        key: Option<KeyUse>,
        disturbance: Disturbance,
        caller_left: impl Fn() -> bool + Send,
    ) -> Result<Executed, Failed> {
        let known = match &key {
            Some(key) => self.claim(key, command.is_ok())?,
            None => None,
        };
        if let Some(commit) = known {
            self.take_time(disturbance.delay).await;
            self.ledger.barrier().synced().await?;
            return Ok(Executed { commit, replayed: true });
        }
        let command = command?;
        // The key is ours from here on: another request with it is answered 409 while this one takes its time.
        self.take_time(disturbance.delay).await;
        let (commit, receipt) = self.commit(|state, now| {
            let mut commit = execute::execute(state, command, key.as_ref().map(|key| key.key.as_str()), now);
            if disturbance.store_500 {
                commit.error = Some(ApiError::internal());
            }
            commit.answered = !disturbance.answer_lost && !caller_left();
            commit.key = key;
            Ok(commit)
        })?;
        receipt.synced().await?;
        Ok(Executed { commit, replayed: false })
    }

    /// Plays the customer or the card network.
    pub(crate) async fn complete_intent(&self, id: &str, outcome: Outcome) -> Result<Arc<Commit>, Failed> {
        let (commit, receipt) =
            self.commit(|state, now| execute::complete_intent(state, id, outcome, now))?;
        receipt.synced().await?;
        Ok(commit)
    }

    /// Plays the bank.
    pub(crate) async fn complete_refund(&self, id: &str, outcome: Outcome) -> Result<Arc<Commit>, Failed> {
        let (commit, receipt) =
            self.commit(|state, now| execute::complete_refund(state, id, outcome, now))?;
        receipt.synced().await?;
        Ok(commit)
    }

    /// Everything that is on disk.
    pub(crate) async fn snapshot(&self) -> Result<Snapshot, Failed> {
        let snapshot = lock(&self.state).snapshot();
        self.ledger.barrier().synced().await?;
        Ok(snapshot)
    }

    /// Returns the answer of an execution that is over, or makes the key this request's own. An invalid request
    /// claims nothing: it will not be executed.
    fn claim(&self, key: &KeyUse, valid: bool) -> Result<Option<Arc<Commit>>, ApiError> {
        let retention = lock(&self.settings).key_retention_ms.saturating_mul(1_000);
        let mut state = lock(&self.state);
        match state.look_up(key, now_micros(), retention) {
            Known::Executed(commit) => Ok(Some(commit)),
            Known::Refused(error) => Err(error),
            Known::New => {
                if valid {
                    state.claim(&key.key);
                }
                Ok(None)
            }
        }
    }

    /// Makes a commit under the lock, so that the order of the ledger is the order of the state.
    fn commit(
        &self,
        make: impl FnOnce(&State, u64) -> Result<Commit, ApiError>,
    ) -> Result<(Arc<Commit>, Receipt), ApiError> {
        let mut state = lock(&self.state);
        let commit = Arc::new(make(&state, now_micros())?);
        let mut receipt = self.ledger.append(&commit);
        state.apply(Arc::clone(&commit));
        if let Some(after) = execute::aftermath(&state, &commit) {
            receipt = self.ledger.append(&after);
            state.apply(Arc::new(after));
        }
        Ok((commit, receipt))
    }

    async fn take_time(&self, delay: Duration) {
        let latency = Duration::from_millis(lock(&self.settings).latency_ms).saturating_add(delay);
        // Even the shortest sleep costs a timer tick.
        if !latency.is_zero() {
            sleep(latency).await;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave these half changed: each is changed by whole values.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
