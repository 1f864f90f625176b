//! The steps of a capture and of a cancel at the provider. Who of the two was first is decided by our own row; what
//! happened at the provider meanwhile, an authorisation that expired, say, is decided by the provider.

use crate::app::operations::{Attempt, PaymentEnds, Verdict};
use domain::operation::looks_first;
use domain::payment::{Change, PendingOperation};
use domain::provider::{Failure, Found, Outcome, Target};

/// Captures or cancels, or finds that it is done.
pub(super) async fn take_step(attempt: &Attempt<'_>, asked: PendingOperation, target: &Target) -> Verdict {
    let Attempt { app, provider, operation, lease, .. } = attempt;
    if looks_first(&operation.progress, &app.settings.windows) {
        match provider.retrieve(target).await {
            // not done yet
            Outcome::Settled(Found::Authorized(_) | Found::RequiresAction(..) | Found::Declined(..)) => {}
            other => return conclude(attempt, asked, other),
        }
    }
    let outcome = match asked {
        PendingOperation::Capture(amount) => provider.capture(target, amount, operation.id, lease).await,
        PendingOperation::Cancel => provider.cancel(target, Some(operation.id), lease).await,
    };
    conclude(attempt, asked, outcome)
}

fn conclude(attempt: &Attempt<'_>, asked: PendingOperation, outcome: Outcome<Found>) -> Verdict {
    let found = match attempt.settled(outcome) {
        Ok(found) => found,
        Err(open) => return Verdict::Open(open),
    };
    let ends = |change| Verdict::Payment(PaymentEnds::by(change));
    match found {
        Found::Captured(_, amount) => ends(Change::Captured(amount)),
        Found::Canceled(_) => ends(Change::Canceled),
        // the answer to our request, not a state of the intent: nothing changed there
        Found::Declined(None, failure) | Found::Rejected(failure) => refused(asked, failure),
        // Refused for its state, which allows it by now. The refusal stands for our key; a new request may be taken.
        Found::Authorized(_)
        | Found::RequiresAction(..)
        | Found::Unconfirmed(_)
        | Found::Declined(Some(_), _) => refused(asked, Failure::refused_for_now()),
    }
}

fn refused(asked: PendingOperation, failure: Failure) -> Verdict {
    let change = match asked {
        PendingOperation::Capture(_) => Change::CaptureFailed,
        PendingOperation::Cancel => Change::CancelFailed,
    };
    Verdict::Payment(PaymentEnds { failure: Some(failure), ..PaymentEnds::by(change) })
}
