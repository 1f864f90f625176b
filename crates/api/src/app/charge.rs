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
    let verdict = tokio::select! {
        verdict = take_step(app, operation, lease, &payment) => verdict,
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

async fn take_step(app: &App, operation: &Operation, lease: &Lease, payment: &Payment) -> Verdict {
    let charge = charge_of(operation, payment);
    let windows = &app.settings.windows;
    let outcome = match (next_step(&operation.progress, payment.intent.is_some(), windows), &payment.intent) {
        (Step::Retrieve, Some(intent)) => app.provider.retrieve(&charge, intent).await,
        (Step::Send | Step::Retrieve, _) => {
            app.provider.charge(&charge, &windows.charging_lease(lease, &operation.progress)).await
        }
        (Step::LookUp, _) => match search(app, &charge, operation, lease).await {
            Outcome::Settled(Some(found)) => Outcome::Settled(found),
            Outcome::Settled(None) => return Verdict::Open { why: Open::Again, intent: None },
            Outcome::NotExecuted(why) => Outcome::NotExecuted(why),
            Outcome::Unknown(why) => Outcome::Unknown(why),
        },
        (Step::Close, _) => return close(app, &charge, operation, lease, payment).await,
        (Step::Decide, _) => return decide(app, &charge, operation, lease, payment).await,
    };
    conclude(app, &charge, operation, lease, payment, outcome).await
}

/// Makes sure that the charge can never execute. Then it is either canceled or found.
async fn close(
    app: &App,
    charge: &Charge,
    operation: &Operation,
    lease: &Lease,
    payment: &Payment,
) -> Verdict {
    let outcome = app.provider.close(charge, lease).await;
    note_credentials(app, &outcome);
    match outcome {
        Outcome::Settled(Closed::Ours(intent)) => {
            let unconfirmed = Outcome::Settled(Found::Unconfirmed(intent));
            conclude(app, charge, operation, lease, payment, unconfirmed).await
        }
        Outcome::Settled(Closed::AlreadyExecuted | Closed::Refused) => {
            decide(app, charge, operation, lease, payment).await
        }
        Outcome::NotExecuted(why) => not_executed(why),
        Outcome::Unknown(why) => unknown(why),
    }
}

/// Searches a charge that can no longer execute. Found, it is settled; not found twice, a lease apart, it never was.
async fn decide(
    app: &App,
    charge: &Charge,
    operation: &Operation,
    lease: &Lease,
    payment: &Payment,
) -> Verdict {
    match search(app, charge, operation, lease).await {
        Outcome::Settled(Some(found)) => {
            conclude(app, charge, operation, lease, payment, Outcome::Settled(found)).await
        }
        Outcome::Settled(None) if is_absent(&operation.progress, &app.settings.windows) => {
            failed(None, Failure::provider_unavailable())
        }
        Outcome::Settled(None) => Verdict::Open { why: Open::Absent, intent: None },
        Outcome::NotExecuted(why) => not_executed(why),
        Outcome::Unknown(why) => unknown(why),
    }
}

async fn search(app: &App, charge: &Charge, operation: &Operation, lease: &Lease) -> Outcome<Option<Found>> {
    // the provider's clock is not ours
    const SKEW: time::Duration = time::Duration::minutes(10);
    let outcome = app.provider.find(charge, operation.created_at.saturating_sub(SKEW), lease).await;
    note_credentials(app, &outcome);
    outcome
}

/// What the provider's word on the charge means for the payment.
async fn conclude(
    app: &App,
    charge: &Charge,
    operation: &Operation,
    lease: &Lease,
    payment: &Payment,
    outcome: Outcome<Found>,
) -> Verdict {
    note_credentials(app, &outcome);
    let found = match outcome {
        // Without a place to send the customer to, or never confirmed: nothing will come of it, and it must hold no money.
        Outcome::Settled(Found::RequiresAction(intent, _)) if payment.request.return_url.is_none() => {
            match app.provider.cancel(charge, &intent, lease).await {
                Outcome::Settled(found) => found,
                _ => return Verdict::Open { why: Open::Again, intent: Some(intent) },
            }
        }
        Outcome::Settled(Found::Unconfirmed(intent)) => {
            match app.provider.cancel(charge, &intent, lease).await {
                Outcome::Settled(found) => found,
                _ => return Verdict::Open { why: Open::Again, intent: Some(intent) },
            }
        }
        Outcome::Settled(found) => found,
        Outcome::NotExecuted(why) => return not_executed(why),
        Outcome::Unknown(why) => return unknown(why),
    };
    let ends =
        |change, intent| Verdict::Ends { change, intent: Some(intent), failure: None, redirect_url: None };
    match found {
        Found::Authorized(intent) => ends(Change::Authorized, intent),
        Found::Captured(intent) => ends(Change::Captured(payment.request.money.amount()), intent),
        Found::RequiresAction(intent, redirect_url) => Verdict::Ends {
            change: Change::RequiresAction,
            intent: Some(intent),
            failure: None,
            redirect_url,
        },
        Found::Declined(intent, failure) => failed(intent, failure),
        Found::Rejected(failure) => failed(None, failure),
        Found::Canceled(intent) => failed(Some(intent), why_canceled(app, operation, payment)),
        // the cancel above was answered with something else than a cancel: what it is, is read next time
        Found::Unconfirmed(intent) => Verdict::Open { why: Open::Again, intent: Some(intent) },
    }
}

/// Within the window nothing but a missing return URL makes us cancel; after it, it is the closing of the charge.
fn why_canceled(app: &App, operation: &Operation, payment: &Payment) -> Failure {
    let within = operation.progress.age < app.settings.windows.charge;
    if within && payment.request.return_url.is_none() {
        Failure::authentication_required()
    } else {
        Failure::provider_unavailable()
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

fn note_credentials<T>(app: &App, outcome: &Outcome<T>) {
    match outcome {
        Outcome::NotExecuted(NotExecuted::Misconfigured) => app.credentials.refused(),
        Outcome::Settled(_) => app.credentials.accepted(),
        Outcome::NotExecuted(_) | Outcome::Unknown(_) => {}
    }
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

fn charge_of(operation: &Operation, payment: &Payment) -> Charge {
    let request = &payment.request;
    Charge {
        operation_id: operation.id,
        payment_id: payment.id,
        merchant_id: payment.merchant_id,
        money: request.money,
        capture: request.capture,
        payment_method: request.payment_method.clone(),
        statement_descriptor: request.statement_descriptor.clone(),
        return_url: request.return_url.clone(),
    }
}
