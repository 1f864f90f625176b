//! Carrying out a charge: one step at the provider, then settled or paused. The first request does it and so does the
//! worker, whoever holds the lease; there is no other road to recovery.
//!
//! No transaction is open and no connection is held while the network is.

use crate::answer;
use crate::state::App;
use domain::operation::{LOOK_UP_AFTER, Lease, Operation, Step, is_absent, next_step};
use domain::payment::{Change, Payment};
use domain::provider::{Charge, Closed, Failure, Found, IntentId, NotExecuted, Outcome, Unknown};
use persistence::StoreError;
use persistence::idempotency::StoredAnswer;
use persistence::operations::Pause;
use rand::Rng;
use std::time::{Duration, Instant};

/// The pause before the second attempt is at most this, and doubles from there ...
const PAUSE: Duration = Duration::from_millis(200);
/// ... to this. Whatever was wrong, it is tried again so soon after it has ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often a settlement is tried within the lease. After that it is the next holder's.
const SETTLE_TRIES: u32 = 3;

/// What a step at the provider came to.
enum Verdict {
    /// The payment changes for good.
    Ends { change: Change, intent: Option<IntentId>, failure: Option<Failure>, redirect_url: Option<String> },
    /// Nobody can tell yet.
    Open { why: Open, intent: Option<IntentId> },
}

/// Why an operation stays open.
enum Open {
    /// Tried again after a growing pause.
    Again,
    /// Nothing was sent; at once, by whoever has a lease that is long enough.
    AtOnce,
    /// So many 5xx to its key.
    ServerErrors(u8),
    /// What can no longer execute was not found; searched once more after a lease.
    Absent,
    /// The provider's answer cannot be this charge's.
    Contradicted(&'static str),
}

/// Takes the operation one step further. An answer means that it is settled; `None` that somebody will take it up again.
pub async fn carry_out(
    app: &App,
    operation: &Operation,
    lease: &Lease,
    payment: Payment,
) -> Option<StoredAnswer> {
    let attempt =
        Attempt { app, operation, lease, payment: &payment, charge: Charge::of(operation, &payment) };
    let verdict = tokio::select! {
        verdict = attempt.take_step() => verdict,
        // the process stops and cannot wait for the provider: whoever is next repeats the step, with the same key
        () = app.stop.giving_up() => Verdict::Open { why: Open::AtOnce, intent: None },
    };
    match verdict {
        Verdict::Ends { change, intent, failure, redirect_url } => {
            let payment = Payment { intent: intent.or(payment.intent), failure, redirect_url, ..payment };
            settle(app, operation, lease, payment, change).await
        }
        Verdict::Open { why, intent } => {
            pause(app, operation, lease, &why, intent.as_ref()).await;
            None
        }
    }
}

/// One step at the provider, under a lease.
struct Attempt<'a> {
    app: &'a App,
    operation: &'a Operation,
    lease: &'a Lease,
    payment: &'a Payment,
    charge: Charge,
}

impl Attempt<'_> {
    async fn take_step(&self) -> Verdict {
        let Self { app, operation, lease, payment, charge } = self;
        let windows = &app.settings.windows;
        match (next_step(&operation.progress, payment.intent.is_some(), windows), &payment.intent) {
            (Step::Retrieve, Some(intent)) => {
                self.conclude(app.provider.retrieve(charge, intent).await).await
            }
            (Step::Send | Step::Retrieve, _) => {
                let lease = windows.charging_lease(lease, &operation.progress);
                self.conclude(app.provider.charge(charge, &lease).await).await
            }
            (Step::LookUp, _) => self.look_up(Open::Again).await,
            (Step::Close, _) => self.close().await,
            (Step::Decide, _) => self.decide().await,
        }
    }

    /// Makes sure that the charge can never execute. Then it is either canceled or found.
    async fn close(&self) -> Verdict {
        let outcome = self.app.provider.close(&self.charge, self.lease).await;
        self.note_credentials(&outcome);
        match outcome {
            Outcome::Settled(Closed::Ours(intent)) => {
                self.conclude(Outcome::Settled(Found::Unconfirmed(intent))).await
            }
            Outcome::Settled(Closed::AlreadyExecuted | Closed::Refused) => self.decide().await,
            Outcome::NotExecuted(why) => not_executed(why),
            Outcome::Unknown(why) => unknown(why),
        }
    }

    /// Searches a charge that can no longer execute. Found, it is settled; not found twice, a lease apart, it never was.
    async fn decide(&self) -> Verdict {
        let verdict = self.look_up(Open::Absent).await;
        match verdict {
            Verdict::Open { why: Open::Absent, .. }
                if is_absent(&self.operation.progress, &self.app.settings.windows) =>
            {
                failed(None, Failure::provider_unavailable())
            }
            other => other,
        }
    }

    /// Searches the charge and concludes from what is found. `absent` says what it means to find nothing.
    async fn look_up(&self, absent: Open) -> Verdict {
        // the provider's clock is not ours
        const SKEW: time::Duration = time::Duration::minutes(10);
        let since = self.operation.created_at.saturating_sub(SKEW);
        match self.app.provider.find(&self.charge, since, self.lease).await {
            Outcome::Settled(Some(found)) => self.conclude(Outcome::Settled(found)).await,
            Outcome::Settled(None) => {
                self.app.credentials.accepted();
                Verdict::Open { why: absent, intent: None }
            }
            Outcome::NotExecuted(why) => self.conclude(Outcome::NotExecuted(why)).await,
            Outcome::Unknown(why) => self.conclude(Outcome::Unknown(why)).await,
        }
    }

    /// What the provider's word on the charge means for the payment.
    async fn conclude(&self, outcome: Outcome<Found>) -> Verdict {
        self.note_credentials(&outcome);
        let found = match outcome {
            Outcome::Settled(found) => found,
            Outcome::NotExecuted(why) => return not_executed(why),
            Outcome::Unknown(why) => return unknown(why),
        };
        let nowhere_to_go = self.payment.request.return_url.is_none();
        let found = match found {
            // Never confirmed, or without a place to send the customer to: nothing will come of it, and it must not hold
            // money later.
            Found::Unconfirmed(intent) => self.cancel(intent).await,
            Found::RequiresAction(intent, _) if nowhere_to_go => self.cancel(intent).await,
            other => Ok(other),
        };
        let ends = |change, intent| Verdict::Ends {
            change,
            intent: Some(intent),
            failure: None,
            redirect_url: None,
        };
        match found {
            Ok(Found::Authorized(intent)) => ends(Change::Authorized, intent),
            Ok(Found::Captured(intent)) => {
                ends(Change::Captured(self.payment.request.money.amount()), intent)
            }
            Ok(Found::RequiresAction(intent, redirect_url)) => Verdict::Ends {
                change: Change::RequiresAction,
                intent: Some(intent),
                failure: None,
                redirect_url,
            },
            Ok(Found::Declined(intent, failure)) => failed(intent, failure),
            Ok(Found::Rejected(failure)) => failed(None, failure),
            Ok(Found::Canceled(intent)) => failed(Some(intent), self.why_canceled()),
            // not canceled yet: what it is, is read next time
            Ok(Found::Unconfirmed(intent)) | Err(intent) => {
                Verdict::Open { why: Open::Again, intent: Some(intent) }
            }
        }
    }

    /// Cancels the intent, or learns what it is instead. `Err`: nobody can tell yet.
    async fn cancel(&self, intent: IntentId) -> Result<Found, IntentId> {
        match self.app.provider.cancel(&self.charge, &intent, self.lease).await {
            Outcome::Settled(found) => Ok(found),
            Outcome::NotExecuted(_) | Outcome::Unknown(_) => Err(intent),
        }
    }

    /// Within the window nothing but a missing return URL makes us cancel; after it, it is the closing of the charge.
    fn why_canceled(&self) -> Failure {
        let within = self.operation.progress.age < self.app.settings.windows.charge;
        if within && self.payment.request.return_url.is_none() {
            Failure::authentication_required()
        } else {
            Failure::provider_unavailable()
        }
    }

    fn note_credentials<T>(&self, outcome: &Outcome<T>) {
        match outcome {
            Outcome::NotExecuted(NotExecuted::Misconfigured) => self.app.credentials.refused(),
            Outcome::Settled(_) => self.app.credentials.accepted(),
            Outcome::NotExecuted(_) | Outcome::Unknown(_) => {}
        }
    }
}

fn failed(intent: Option<IntentId>, failure: Failure) -> Verdict {
    Verdict::Ends { change: Change::Failed, intent, failure: Some(failure), redirect_url: None }
}

fn not_executed(why: NotExecuted) -> Verdict {
    let why = match why {
        NotExecuted::Unreachable | NotExecuted::Throttled | NotExecuted::Misconfigured => Open::Again,
        NotExecuted::LeaseTooShort => Open::AtOnce,
    };
    Verdict::Open { why, intent: None }
}

fn unknown(why: Unknown) -> Verdict {
    let (why, intent) = match why {
        Unknown::NoAnswer | Unknown::Busy | Unknown::OtherParameters | Unknown::Unreadable => {
            (Open::Again, None)
        }
        Unknown::ServerError => (Open::ServerErrors(1), None),
        Unknown::StoredServerError => (Open::ServerErrors(LOOK_UP_AFTER), None),
        Unknown::StillProcessing(intent) => (Open::Again, Some(intent)),
        // its id is not learnt: it is not ours
        Unknown::Contradicted(contradiction) => (Open::Contradicted(contradiction.field), None),
    };
    Verdict::Open { why, intent }
}

async fn settle(
    app: &App,
    operation: &Operation,
    lease: &Lease,
    payment: Payment,
    change: Change,
) -> Option<StoredAnswer> {
    let step = match payment.transition(change) {
        Ok(step) => step,
        Err(illegal) => {
            // the provider's word, and no way to believe it: captured what was only to be held, say
            tracing::error!(payment_id = %payment.id, error = %illegal, "the provider contradicts the payment");
            pause(app, operation, lease, &Open::Contradicted("status"), None).await;
            return None;
        }
    };
    let payment = payment.after(&step, answer::now());
    let answer = match answer::created(&payment, operation.trace_id) {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(payment_id = %payment.id, %error, "an answer could not be written");
            return None;
        }
    };
    for attempt in 1..=SETTLE_TRIES {
        match app.store.settle(operation, lease, &payment, &step, &answer).await {
            Ok(true) => {
                let status = payment.state.status().name();
                tracing::info!(payment_id = %payment.id, operation_id = %operation.id, status, "payment settled");
                return Some(answer);
            }
            // somebody else has the lease, or settled it, or our own answer was lost: what is written counts
            Ok(false) => return None,
            Err(error) => {
                tracing::warn!(operation_id = %operation.id, attempt, %error, "not settled yet");
                if !lease.covers(Instant::now(), PAUSE) || matches!(error, StoreError::StateMoved) {
                    break;
                }
                tokio::time::sleep(PAUSE.saturating_mul(attempt)).await;
            }
        }
    }
    None
}

async fn pause(app: &App, operation: &Operation, lease: &Lease, why: &Open, intent: Option<&IntentId>) {
    let growing = full_jitter(operation.progress.attempts);
    let mut pause = Pause { delay: growing, attempted: true, intent, ..Pause::default() };
    match why {
        Open::Again => {}
        Open::AtOnce => pause = Pause { delay: Duration::ZERO, attempted: false, ..pause },
        Open::ServerErrors(count) => pause.server_errors = *count,
        Open::Absent => pause = Pause { delay: app.settings.windows.lease, absent: true, ..pause },
        Open::Contradicted(field) => {
            if !operation.progress.contradicted {
                tracing::error!(
                    payment_id = %operation.payment_id, operation_id = %operation.id, field,
                    "the provider's answer cannot belong to this payment; a person has to look"
                );
                if let Err(error) = app.store.record_contradiction(operation, lease, field, intent).await {
                    tracing::warn!(operation_id = %operation.id, %error, "contradiction not recorded yet");
                }
            }
            pause.delay = LONGEST_PAUSE;
        }
    }
    match app.store.pause(operation, lease, &pause).await {
        Ok(_) => {
            tracing::debug!(operation_id = %operation.id, delay_ms = ?pause.delay, "operation stays open");
        }
        // the lease runs out by itself
        Err(error) => {
            tracing::warn!(operation_id = %operation.id, %error, "operation not handed back");
        }
    }
}

/// Uniform between nothing and a bound that doubles: callers that failed together do not come back together.
fn full_jitter(attempts: u32) -> Duration {
    let bound = PAUSE.saturating_mul(2_u32.saturating_pow(attempts)).min(LONGEST_PAUSE);
    rand::rng().random_range(Duration::ZERO..=bound)
}
