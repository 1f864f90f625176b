//! Looking whether the provider has moved on by itself: a customer confirmed or did not, a hold expired, a bank sent a
//! refund back. Nobody asked, and nobody waits; the audit trail learns of it all the same.

use crate::app::operations::{Attempt, Open, PaymentEnds, Verdict, Why};
use crate::app::refunds;
use domain::event::Actor;
use domain::operation::{REFUND_WATCHED_FOR, rest_of_watch, rest_while_waiting};
use domain::payment::{Change, Status};
use domain::provider::{Found, FoundRefund, IntentId, Outcome, RefundOrder, Target};
use domain::refund::{Refund, RefundStatus};
use std::time::Duration;

/// Looks at a payment that waits for the customer, or is held.
pub(super) async fn watch_payment(attempt: &Attempt<'_>, target: &Target) -> Verdict {
    let (status, age) = (attempt.payment.state.status(), attempt.operation.progress.age);
    let rest = match status {
        Status::RequiresAction => rest_while_waiting(age),
        Status::Authorized => rest_of_watch(age),
        _ => return Verdict::Over,
    };
    // whoever asked for something finds out what there is
    if attempt.payment.state.pending().is_some() {
        return later(rest);
    }
    let found = match attempt.settled(attempt.provider.retrieve(target).await) {
        Ok(found) => found,
        Err(open) => return unseen(open, rest),
    };
    let given_up = status == Status::RequiresAction && age >= attempt.app.settings.windows.action;
    let found = match found {
        // never to be confirmed after this, so that it cannot hold money when the payment is shown as canceled
        Found::RequiresAction(..) | Found::Unconfirmed(_) if given_up => {
            match attempt.settled(attempt.provider.cancel(target, None, &attempt.lease).await) {
                Ok(found) => found,
                Err(open) => return unseen(open, rest),
            }
        }
        other => other,
    };
    match (status, found) {
        (Status::RequiresAction, Found::Authorized(_)) => {
            Verdict::Payment(PaymentEnds::by(Change::Authorized))
        }
        (Status::RequiresAction, Found::Declined(_, failure) | Found::Rejected(failure)) => {
            Verdict::Payment(PaymentEnds { failure: Some(failure), ..PaymentEnds::by(Change::Failed) })
        }
        (_, Found::Captured(_, amount)) => Verdict::Payment(PaymentEnds::by(Change::Captured(amount))),
        (_, Found::Canceled(_)) => {
            Verdict::Payment(PaymentEnds { actor: Some(Actor::Worker), ..PaymentEnds::by(Change::Canceled) })
        }
        _ => later(rest),
    }
}

fn later(rest: Duration) -> Verdict {
    Verdict::Open(Open::new(Why::Later(rest)))
}

/// A look that saw nothing. Nobody waits for it, so a provider that is down is not asked any sooner.
fn unseen(open: Open, rest: Duration) -> Verdict {
    match open.why {
        Why::Again | Why::ServerErrors(_) => later(rest),
        _ => Verdict::Open(open),
    }
}

/// Looks at a refund that succeeded.
pub(super) async fn watch_refund(attempt: &Attempt<'_>, refund: &Refund, intent: &IntentId) -> Verdict {
    let Attempt { provider, operation, lease, .. } = attempt;
    let age = operation.progress.age;
    if refund.status != RefundStatus::Succeeded || age >= REFUND_WATCHED_FOR {
        return Verdict::Over;
    }
    let order = RefundOrder::of(operation, refund, intent.clone());
    match attempt.settled(provider.find_refund(&order, refund.object.as_ref(), lease).await) {
        Ok(failed @ Some(FoundRefund::Failed(..))) => {
            refunds::conclude(attempt, refund, Outcome::Settled(failed))
        }
        Ok(_) => later(rest_of_watch(age)),
        Err(open) => unseen(open, rest_of_watch(age)),
    }
}
