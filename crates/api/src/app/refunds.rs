//! What a refund begins, and its steps at the provider.

use crate::answer;
use crate::app::once::Begun;
use crate::app::operations::{Attempt, Open, Verdict, Why};
use crate::app::payments::{Decided, change};
use crate::state::App;
use domain::id::{MerchantId, PaymentId};
use domain::operation::{looks_first, rest_while_waiting};
use domain::payment::Payment;
use domain::provider::{FoundRefund, IntentId, Outcome, RefundOrder};
use domain::refund::{NewRefund, Refund, RefundChange};
use persistence::StoreError;
use persistence::operations::Claim;

/// Reserves what is asked for, if that much is left.
pub(super) async fn refund(
    app: &App,
    merchant_id: MerchantId,
    id: Option<PaymentId>,
    new: &NewRefund,
    claim: &Claim<'_>,
) -> Result<Begun, StoreError> {
    let decide = |payment: &Payment| Ok(Decided::Refund(payment.request_refund(new.clone(), answer::now())?));
    change(app, merchant_id, id, claim, decide).await
}

/// Gives the money back, or finds that it was given.
pub(super) async fn take_step(attempt: &Attempt<'_>, refund: &Refund, intent: &IntentId) -> Verdict {
    let Attempt { app, provider, operation, lease, .. } = attempt;
    let order = RefundOrder::of(operation, refund, intent.clone());
    // what the provider works on is only read
    if refund.object.is_some() || looks_first(&operation.progress, &app.settings.windows) {
        match provider.find_refund(&order, refund.object.as_ref(), lease).await {
            Outcome::Settled(None) => {}
            other => return conclude(attempt, refund, other),
        }
    }
    conclude(attempt, refund, provider.refund(&order, lease).await.map(Some))
}

/// What the provider's word on a refund means for it.
pub(super) fn conclude(
    attempt: &Attempt<'_>,
    refund: &Refund,
    outcome: Outcome<Option<FoundRefund>>,
) -> Verdict {
    match attempt.settled(outcome) {
        Ok(Some(FoundRefund::Succeeded(id))) => {
            Verdict::Refund(Refund { object: Some(id), ..refund.clone() }, RefundChange::Succeeded)
        }
        Ok(Some(FoundRefund::Failed(id, failure))) => {
            let object = id.or(refund.object.clone());
            let refund = Refund { object, failure: Some(failure), ..refund.clone() };
            Verdict::Refund(refund, RefundChange::Failed)
        }
        Ok(Some(FoundRefund::Pending(id))) => {
            let why = Why::Later(rest_while_waiting(attempt.operation.progress.age));
            Verdict::Open(Open { refund: Some(id), ..Open::new(why) })
        }
        Ok(None) => Verdict::Open(Open::new(Why::Again)),
        Err(open) => Verdict::Open(open),
    }
}
