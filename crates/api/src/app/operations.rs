//! Carrying out an operation: one step at the provider, then settled or paused. The first request does it and so does the
//! worker, whoever holds the lease; there is no other road to recovery.
//!
//! No transaction is open and no connection is held while the network is.

use crate::answer;
use crate::app::retry::Again;
use crate::app::{capture, charge, refunds, watch};
use crate::state::App;
use domain::event::Actor;
use domain::faults::{Bug, planted};
use domain::id::OperationId;
use domain::operation::{
    LOOK_UP_AFTER, Lease, Leased, Operation, OperationKind, rest_of_watch, rest_while_waiting,
};
use domain::payment::{Change, Payment, Status};
use domain::provider::{Failure, IntentId, NotExecuted, Outcome, Provider, RefundObjectId, Target, Unknown};
use domain::refund::{Refund, RefundChange, RefundStatus};
use persistence::StoreError;
use persistence::idempotency::StoredAnswer;
use persistence::operations::{Pause, Settlement, Watch};
use persistence::refunds::RefundSettlement;
use rand::Rng;
use std::pin::pin;
use std::time::{Duration, Instant};

/// The pause before the second attempt is at most this, and doubles from there ...
const PAUSE: Duration = Duration::from_millis(200);
/// ... to this. Whatever was wrong, it is tried again so soon after it has ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// So long before it has to be, a lease is prolonged. A lease exceeds an attempt by 5 s.
const TO_PROLONG: Duration = Duration::from_secs(2);
/// How often a settlement is tried within the lease. After that it is the next holder's.
const SETTLE_TRIES: u32 = 3;

/// What a step at the provider came to.
pub(super) enum Verdict {
    /// The payment changes for good.
    Payment(PaymentEnds),
    /// The refund, with what was learnt of it, changes for good.
    Refund(Refund, RefundChange),
    /// There is nothing more to watch.
    Over,
    /// Nobody can tell yet.
    Open(Open),
}

/// How a payment changes.
pub(super) struct PaymentEnds {
    pub(super) change: Change,
    /// The provider's id, if it was learnt.
    pub(super) intent: Option<IntentId>,
    pub(super) failure: Option<Failure>,
    pub(super) redirect_url: Option<String>,
    /// Whom the audit trail names, if it is not who asked.
    pub(super) actor: Option<Actor>,
}

impl PaymentEnds {
    pub(super) fn by(change: Change) -> Self {
        Self { change, intent: None, failure: None, redirect_url: None, actor: None }
    }
}

/// An operation that stays open, and what was learnt on the way.
pub(super) struct Open {
    pub(super) why: Why,
    pub(super) intent: Option<IntentId>,
    pub(super) refund: Option<RefundObjectId>,
    /// Whether another try may soon bring more.
    pub(super) again: Option<Again>,
}

impl Open {
    pub(super) fn new(why: Why) -> Self {
        Self { why, intent: None, refund: None, again: None }
    }

    /// What two tries taught together.
    fn then(self, second: Self) -> Self {
        let why = match (self.why, second.why) {
            (Why::ServerErrors(one), Why::ServerErrors(other)) => {
                Why::ServerErrors(one.saturating_add(other))
            }
            (first @ Why::ServerErrors(_), Why::Again) => first,
            // the second was not made
            (first, Why::AtOnce | Why::NotAsked) => first,
            (_, second) => second,
        };
        Self { why, ..second }
    }
}

/// Why an operation stays open.
pub(super) enum Why {
    /// Tried again after a growing pause.
    Again,
    /// Nothing was sent; at once, by whoever has a lease that is long enough.
    AtOnce,
    /// Nothing was sent, because the provider is down or too much is under way; by the worker, when it may.
    NotAsked,
    /// Somebody else has to end it; looked at again after so long.
    Later(Duration),
    /// So many 5xx to its key.
    ServerErrors(u8),
    /// What can no longer execute was not found; searched once more after a lease.
    Absent,
    /// The provider's answer cannot be about this payment.
    Contradicted { field: &'static str, object: Option<String> },
}

/// One step at the provider, under a lease.
pub(super) struct Attempt<'a> {
    pub(super) app: &'a App,
    /// For whoever carries it out.
    pub(super) provider: &'a dyn Provider,
    pub(super) operation: &'a Operation,
    pub(super) lease: Lease,
    pub(super) payment: &'a Payment,
}

impl Attempt<'_> {
    /// What is settled, or why the operation stays open.
    pub(super) fn settled<T>(&self, outcome: Outcome<T>) -> Result<T, Open> {
        match outcome {
            Outcome::Settled(value) => {
                self.app.credentials.accepted(self.operation.kind);
                Ok(value)
            }
            Outcome::NotExecuted(why) => {
                let again = Again::after_not_executed(why);
                Err(Open { again, ..Open::new(self.why_not_executed(why)) })
            }
            Outcome::Unknown(why) => {
                let again = Again::after_unknown(&why);
                Err(Open { again, ..self.why_unknown(why) })
            }
        }
    }

    fn why_not_executed(&self, why: NotExecuted) -> Why {
        match why {
            NotExecuted::Misconfigured => {
                self.app.credentials.refused(self.operation.kind);
                Why::Again
            }
            NotExecuted::Unreachable | NotExecuted::Throttled(_) => Why::Again,
            NotExecuted::LeaseTooShort => Why::AtOnce,
            NotExecuted::BreakerOpen | NotExecuted::BulkheadFull => Why::NotAsked,
        }
    }

    fn why_unknown(&self, why: Unknown) -> Open {
        match why {
            Unknown::NoAnswer | Unknown::Busy | Unknown::OtherParameters | Unknown::Unreadable => {
                Open::new(Why::Again)
            }
            Unknown::ServerError(_) => Open::new(Why::ServerErrors(1)),
            Unknown::StoredServerError => Open::new(Why::ServerErrors(LOOK_UP_AFTER)),
            Unknown::StillProcessing(intent) => {
                let why = Why::Later(rest_while_waiting(self.operation.progress.age));
                Open { intent: Some(intent), ..Open::new(why) }
            }
            // its id is not learnt: it is not ours
            Unknown::Contradicted(wrong) => {
                Open::new(Why::Contradicted { field: wrong.field, object: Some(wrong.object) })
            }
        }
    }

    /// A step, and the same once more if that may help a caller who waits `until` then.
    async fn take_steps(&mut self, refund: Option<&Refund>, until: Instant) -> Verdict {
        let open = match self.take_step(refund).await {
            Verdict::Open(open) => open,
            ended => return ended,
        };
        let Some(again) = open.again else { return Verdict::Open(open) };
        let Some(rest) = again.rest(self, until) else { return Verdict::Open(open) };
        tokio::time::sleep(rest).await;
        self.app.metrics.retried(again.reason);
        match self.take_step(refund).await {
            Verdict::Open(second) => Verdict::Open(open.then(second)),
            ended => ended,
        }
    }

    /// Waits for something that changes nothing and may take longer than the lease, which is prolonged meanwhile. What
    /// remains of it in the end suffices for one attempt. `Err`: it was lost.
    pub(super) async fn keeping_the_lease<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Open> {
        let windows = &self.app.settings.windows;
        let reserve = windows.attempt.saturating_add(TO_PROLONG);
        let mut work = pin!(work);
        loop {
            let in_time = self.lease.ends.checked_sub(reserve).unwrap_or(self.lease.taken);
            tokio::select! {
                done = &mut work => return Ok(done),
                () = tokio::time::sleep_until(in_time.into()) => {}
            }
            match self.app.store.keep_operation(self.operation, &self.lease, windows.lease).await {
                Ok(Some(prolonged)) => self.lease = prolonged,
                Ok(None) => return Err(Open::new(Why::AtOnce)),
                Err(error) if self.lease.covers(Instant::now(), windows.attempt) => {
                    tracing::warn!(operation_id = %self.operation.id, %error, "lease not prolonged yet");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(_) => return Err(Open::new(Why::AtOnce)),
            }
        }
    }

    async fn take_step(&mut self, refund: Option<&Refund>) -> Verdict {
        let intent = self.payment.intent.as_ref();
        let target = intent.map(|intent| Target::of(self.payment, intent.clone()));
        let pending = self.payment.state.pending();
        match (self.operation.kind, target, pending, refund, intent) {
            (OperationKind::Charge, ..) => charge::take_step(self).await,
            (OperationKind::Capture | OperationKind::Cancel, Some(target), Some(asked), ..) => {
                capture::take_step(self, asked, &target).await
            }
            (OperationKind::WatchPayment, Some(target), ..) => watch::watch_payment(self, &target).await,
            (OperationKind::Refund(_), _, _, Some(refund), Some(intent)) => {
                refunds::take_step(self, refund, intent).await
            }
            (OperationKind::WatchRefund(_), _, _, Some(refund), Some(intent)) => {
                watch::watch_refund(self, refund, intent).await
            }
            // the row says what the payment does not: nothing of it may be guessed
            _ => Verdict::Open(Open::new(Why::Contradicted { field: "operation", object: None })),
        }
    }
}

/// Who carries an operation out.
#[derive(Debug, Clone, Copy)]
pub enum Carrier {
    /// The first request, whose caller waits until then.
    Caller(Instant),
    /// The worker: nobody waits, and what brings no outcome is put off.
    Worker,
}

/// How carrying an operation out ended.
pub enum Carried {
    /// It is settled, with this answer.
    Settled(StoredAnswer),
    /// There is nothing to tell: if it is open, somebody will take it up again.
    Left,
    /// The provider was not asked, and nobody knows when it will be.
    NotAsked,
}

/// Takes the operation one step further.
pub async fn carry_out(app: &App, leased: &Leased, carrier: Carrier) -> Carried {
    let Leased { operation, lease, payment, refund } = leased;
    let provider = match carrier {
        Carrier::Caller(_) => app.provider_for_callers.as_ref(),
        Carrier::Worker => app.provider.as_ref(),
    };
    let mut attempt = Attempt { app, provider, operation, lease: *lease, payment };
    let steps = async {
        match carrier {
            Carrier::Caller(until) => {
                app.retry_budget.deposit();
                attempt.take_steps(refund.as_ref(), until).await
            }
            Carrier::Worker => attempt.take_step(refund.as_ref()).await,
        }
    };
    let verdict = tokio::select! {
        verdict = steps => verdict,
        // the process stops and cannot wait for the provider: whoever is next repeats the step, with the same key
        () = app.stop.giving_up() => Verdict::Open(Open::new(Why::AtOnce)),
    };
    let settled = match verdict {
        Verdict::Payment(ends) => settle_payment(&attempt, ends).await,
        Verdict::Refund(refund, change) => settle_refund(&attempt, refund, change).await,
        Verdict::Over => {
            if let Err(error) = app.store.end_watch(operation, &attempt.lease).await {
                tracing::warn!(operation_id = %operation.id, %error, "watch not ended yet");
            }
            Ok(None)
        }
        Verdict::Open(open) => Err(open),
    };
    match settled {
        Ok(answer) => answer.map_or(Carried::Left, Carried::Settled),
        Err(open) => {
            pause(&attempt, &open).await;
            if matches!(open.why, Why::NotAsked) { Carried::NotAsked } else { Carried::Left }
        }
    }
}

async fn settle_payment(attempt: &Attempt<'_>, ends: PaymentEnds) -> Result<Option<StoredAnswer>, Open> {
    let operation = attempt.operation;
    let before = attempt.payment.clone();
    let asked = before.state.pending();
    let step = match before.transition(ends.change) {
        Ok(step) => step,
        Err(illegal) => {
            // the provider's word, and no way to believe it: captured what was only to be held, say
            tracing::error!(payment_id = %before.id, error = %illegal, "the provider contradicts the payment");
            let object = ends.intent.map(|intent| intent.as_str().to_owned());
            return Err(Open::new(Why::Contradicted { field: "status", object }));
        }
    };
    let to = step.to().status();
    let payment = Payment {
        intent: ends.intent.or(before.intent.clone()),
        failure: ends.failure.clone().filter(|_| to == Status::Failed),
        redirect_url: ends
            .redirect_url
            .or(before.redirect_url.clone())
            .filter(|_| to == Status::RequiresAction),
        ..before
    }
    .after(&step, answer::now());
    let rendered = match (operation.kind, asked) {
        (OperationKind::Charge, _) => answer::created(&payment, operation.trace.trace_id).map(Some),
        (OperationKind::Capture | OperationKind::Cancel, Some(asked)) => {
            answer::changed(asked, &payment, ends.failure.as_ref(), operation.trace.trace_id).map(Some)
        }
        _ => Ok(None),
    };
    let answer = match rendered {
        Ok(answer) => answer,
        Err(error) => return Err(unwritten(operation, &error)),
    };
    let watch = match ends.change {
        // whoever asked for the charge asked for what the customer makes of it
        Change::RequiresAction => Some((operation.actor, rest_while_waiting(Duration::ZERO))),
        Change::Authorized => Some((Actor::Worker, rest_of_watch(Duration::ZERO))),
        _ => None,
    };
    let settlement = Settlement {
        payment: &payment,
        step: &step,
        failure: ends.failure.as_ref(),
        actor: ends.actor.unwrap_or(operation.actor),
        answer: answer.as_ref(),
        watch: watch.map(|(actor, first)| Watch { operation_id: new_operation(), actor, first }),
    };
    let settled = insist(attempt, &Settle::Payment(&settlement)).await;
    if settled {
        let event = step.event().name();
        attempt.app.metrics.settled(operation.kind, event);
        tracing::info!(payment_id = %payment.id, operation_id = %operation.id, event, "payment settled");
    }
    Ok(answer.filter(|_| settled))
}

async fn settle_refund(
    attempt: &Attempt<'_>,
    before: Refund,
    change: RefundChange,
) -> Result<Option<StoredAnswer>, Open> {
    let operation = attempt.operation;
    let step = match before.transition(change) {
        Ok(step) => step,
        Err(illegal) => {
            tracing::error!(refund_id = %before.id, error = %illegal, "the provider contradicts the refund");
            let object = before.object.map(|id| id.as_str().to_owned());
            return Err(Open::new(Why::Contradicted { field: "status", object }));
        }
    };
    let refund = before.after(&step, answer::now());
    let (answer, watch) = match operation.kind {
        OperationKind::Refund(_) => match answer::refunded(&refund, operation.trace.trace_id) {
            Ok(answer) => (Some(answer), step.to() == RefundStatus::Succeeded),
            Err(error) => return Err(unwritten(operation, &error)),
        },
        _ => (None, false),
    };
    let settlement = RefundSettlement {
        refund: &refund,
        step: &step,
        actor: operation.actor,
        answer: answer.as_ref(),
        watch: watch.then(|| Watch {
            operation_id: new_operation(),
            actor: Actor::Worker,
            first: rest_of_watch(Duration::ZERO),
        }),
    };
    let settled = insist(attempt, &Settle::Refund(&settlement)).await;
    if settled {
        let status = refund.status.name();
        attempt.app.metrics.settled(operation.kind, step.event().name());
        tracing::info!(refund_id = %refund.id, operation_id = %operation.id, status, "refund settled");
    }
    Ok(answer.filter(|_| settled))
}

fn new_operation() -> OperationId {
    OperationId::at(answer::now())
}

fn unwritten(operation: &Operation, error: &serde_json::Error) -> Open {
    tracing::error!(operation_id = %operation.id, %error, "an answer could not be written");
    Open::new(Why::Again)
}

/// What is to be written.
enum Settle<'a> {
    Payment(&'a Settlement<'a>),
    Refund(&'a RefundSettlement<'a>),
}

/// Settles, as long as the lease allows trying.
async fn insist(attempt: &Attempt<'_>, settle: &Settle<'_>) -> bool {
    let Attempt { app, operation, lease, .. } = attempt;
    if planted(Bug::AnswerBeforeCommit) {
        return true;
    }
    for tried in 1..=SETTLE_TRIES {
        let settled = match settle {
            Settle::Payment(settlement) => app.store.settle(operation, lease, settlement).await,
            Settle::Refund(settlement) => app.store.settle_refund(operation, lease, settlement).await,
        };
        match settled {
            // `false`: somebody else has the lease, or settled it, or our own answer was lost: what is written counts
            Ok(settled) => return settled,
            Err(error) => {
                tracing::warn!(operation_id = %operation.id, tried, %error, "not settled yet");
                let in_time = lease.covers(Instant::now(), PAUSE);
                if !in_time || matches!(error, StoreError::StateMoved) {
                    return false;
                }
                tokio::time::sleep(PAUSE.saturating_mul(tried)).await;
            }
        }
    }
    false
}

async fn pause(attempt: &Attempt<'_>, open: &Open) {
    let Attempt { app, operation, lease, .. } = attempt;
    let not_before = open.again.map(|again| again.not_before).unwrap_or_default();
    let mut pause = Pause {
        delay: not_before.saturating_add(full_jitter(operation.progress.attempts)),
        attempted: true,
        intent: open.intent.as_ref(),
        refund: open.refund.as_ref(),
        ..Pause::default()
    };
    match &open.why {
        Why::Again => {}
        Why::AtOnce | Why::NotAsked => pause = Pause { delay: Duration::ZERO, attempted: false, ..pause },
        Why::Later(delay) => pause.delay = *delay,
        Why::ServerErrors(count) => pause.server_errors = *count,
        Why::Absent => pause = Pause { delay: app.settings.windows.lease, absent: true, ..pause },
        Why::Contradicted { field, object } => {
            if !operation.progress.contradicted {
                tracing::error!(
                    payment_id = %operation.payment_id, operation_id = %operation.id, field,
                    "the provider's answer cannot be about this payment; a person has to look"
                );
                let recorded = app.store.record_contradiction(operation, lease, field, object.as_deref());
                if let Err(error) = recorded.await {
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
pub(super) fn full_jitter(attempts: u32) -> Duration {
    let bound = PAUSE.saturating_mul(2_u32.saturating_pow(attempts)).min(LONGEST_PAUSE);
    rand::rng().random_range(Duration::ZERO..=bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_tries_taught_is_added_up() {
        let errors = |first, second| match Open::new(first).then(Open::new(second)).why {
            Why::ServerErrors(count) => Some(count),
            _ => None,
        };
        assert_eq!(errors(Why::ServerErrors(1), Why::ServerErrors(1)), Some(2));
        assert_eq!(errors(Why::ServerErrors(1), Why::Again), Some(1));
        assert_eq!(errors(Why::Again, Why::ServerErrors(1)), Some(1));
        assert_eq!(errors(Why::ServerErrors(1), Why::NotAsked), Some(1), "the second was not made");
        assert_eq!(errors(Why::ServerErrors(1), Why::Later(PAUSE)), None);
    }
}
