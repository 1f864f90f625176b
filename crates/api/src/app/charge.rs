//! The steps of a charge at the provider: sending it, looking what became of it, and making sure that it never happens
//! once its window has passed.

use crate::app::operations::{Attempt, Open, PaymentEnds, Verdict, Why};
use domain::faults::{Bug, planted};
use domain::operation::{Step, is_absent, next_step};
use domain::payment::Change;
use domain::provider::{Charge, Closed, Failure, Found, IntentId, Outcome, Target, Unknown};

/// Takes the charge one step further.
pub(super) async fn take_step(attempt: &mut Attempt<'_>) -> Verdict {
    let Attempt { app, provider, operation, lease, payment } = *attempt;
    let mut charging = Charging { attempt, charge: Charge::of(operation, payment) };
    let windows = &app.settings.windows;
    match (next_step(&operation.progress, payment.intent.is_some(), windows), &payment.intent) {
        (Step::Retrieve, Some(intent)) => {
            let target = Target::of(payment, intent.clone());
            charging.conclude(provider.retrieve(&target).await).await
        }
        (Step::Send | Step::Retrieve, _) => {
            let lease = windows.charging_lease(&lease, &operation.progress);
            charging.conclude(provider.charge(&charging.charge, &lease).await).await
        }
        (Step::LookUp, _) => charging.look_up(Why::Again).await,
        (Step::Decide, _) if planted(Bug::PostsInsteadOfLooking) => {
            charging.conclude(provider.charge(&charging.charge, &lease).await).await
        }
        (Step::Close, _) => charging.close().await,
        (Step::Decide, _) => charging.decide().await,
    }
}

struct Charging<'a, 'b> {
    attempt: &'a mut Attempt<'b>,
    charge: Charge,
}

impl Charging<'_, '_> {
    /// Makes sure that the charge can never execute. Then it is either canceled or found.
    async fn close(&mut self) -> Verdict {
        let closed = self.attempt.provider.close(&self.charge, &self.attempt.lease).await;
        match self.attempt.settled(closed) {
            Ok(Closed::Ours(intent)) => self.conclude(Outcome::Settled(Found::Unconfirmed(intent))).await,
            Ok(Closed::AlreadyExecuted | Closed::Refused) => self.decide().await,
            Err(open) => Verdict::Open(open),
        }
    }

    /// Searches a charge that can no longer execute. Found, it is settled; not found twice, a lease apart, it never was.
    async fn decide(&mut self) -> Verdict {
        let Attempt { app, operation, .. } = *self.attempt;
        match self.look_up(Why::Absent).await {
            Verdict::Open(Open { why: Why::Absent, .. })
                if is_absent(&operation.progress, &app.settings.windows) =>
            {
                failed(None, Failure::provider_unavailable())
            }
            other => other,
        }
    }

    /// Searches the charge and concludes from what is found. `absent` says what it means to find nothing.
    async fn look_up(&mut self, absent: Why) -> Verdict {
        match self.find().await {
            Ok(Some(found)) => self.conclude(Outcome::Settled(found)).await,
            Ok(None) => Verdict::Open(Open::new(absent)),
            Err(open) => Verdict::Open(open),
        }
    }

    async fn find(&mut self) -> Result<Option<Found>, Open> {
        // the provider's clock is not ours
        const SKEW: time::Duration = time::Duration::minutes(10);
        let Attempt { provider, operation, .. } = *self.attempt;
        let since = operation.created_at.saturating_sub(SKEW);
        let found = self.attempt.keeping_the_lease(provider.find(&self.charge, since)).await?;
        self.attempt.settled(found)
    }

    /// What the provider's word on the charge means for the payment.
    async fn conclude(&mut self, outcome: Outcome<Found>) -> Verdict {
        let nowhere_to_go = self.attempt.payment.request.return_url.is_none();
        if let Some(guessed) = self.guess(&outcome).await {
            return guessed;
        }
        let found = match self.attempt.settled(outcome) {
            // Never confirmed, or without a place to send the customer to: nothing will come of it, and it must not hold
            // money later.
            Ok(Found::Unconfirmed(intent)) => self.cancel(intent).await,
            Ok(Found::RequiresAction(intent, _)) if nowhere_to_go => self.cancel(intent).await,
            Ok(other) => Ok(other),
            Err(open) => Err(open),
        };
        let ends = |change, intent| {
            Verdict::Payment(PaymentEnds { intent: Some(intent), ..PaymentEnds::by(change) })
        };
        match found {
            Ok(Found::Authorized(intent)) => ends(Change::Authorized, intent),
            Ok(Found::Captured(intent, amount)) => ends(Change::Captured(amount), intent),
            Ok(Found::RequiresAction(intent, redirect_url)) => Verdict::Payment(PaymentEnds {
                intent: Some(intent),
                redirect_url,
                ..PaymentEnds::by(Change::RequiresAction)
            }),
            Ok(Found::Declined(intent, failure)) => failed(intent, failure),
            Ok(Found::Rejected(failure)) => failed(None, failure),
            Ok(Found::Canceled(intent)) => failed(Some(intent), self.why_canceled()),
            // not canceled yet: what it is, is read next time
            Ok(Found::Unconfirmed(intent)) => {
                Verdict::Open(Open { intent: Some(intent), ..Open::new(Why::Again) })
            }
            Err(open) => Verdict::Open(open),
        }
    }

    /// What a program believes that takes no answer for a no: only in a build with planted bugs.
    async fn guess(&mut self, outcome: &Outcome<Found>) -> Option<Verdict> {
        if !matches!(outcome, Outcome::Unknown(Unknown::NoAnswer)) {
            return None;
        }
        let is_absent = planted(Bug::AbsenceIsProof) && matches!(self.find().await, Ok(None));
        let is_no = is_absent || planted(Bug::FailedOnTimeout);
        is_no.then(|| failed(None, Failure::provider_unavailable()))
    }

    /// Cancels the intent, or learns what it is instead. `Err`: nobody can tell yet.
    async fn cancel(&self, intent: IntentId) -> Result<Found, Open> {
        let target = Target::of(self.attempt.payment, intent.clone());
        match self.attempt.provider.cancel(&target, None, &self.attempt.lease).await {
            // refused outright, and perhaps for this moment only
            Outcome::Settled(Found::Rejected(_) | Found::Declined(None, _))
            | Outcome::NotExecuted(_)
            | Outcome::Unknown(_) => Err(Open { intent: Some(intent), ..Open::new(Why::Again) }),
            Outcome::Settled(found) => Ok(found),
        }
    }

    /// Within the window nothing but a missing return URL makes us cancel; after it, it is the closing of the charge.
    fn why_canceled(&self) -> Failure {
        let Attempt { app, operation, payment, .. } = *self.attempt;
        let within = operation.progress.age < app.settings.windows.charge;
        if within && payment.request.return_url.is_none() {
            Failure::authentication_required()
        } else {
            Failure::provider_unavailable()
        }
    }
}

fn failed(intent: Option<IntentId>, failure: Failure) -> Verdict {
    Verdict::Payment(PaymentEnds { intent, failure: Some(failure), ..PaymentEnds::by(Change::Failed) })
}
