//! What a create, a capture and a cancel begin.

use crate::answer;
use crate::app::once::{Begun, Refused};
use crate::state::App;
use domain::id::{MerchantId, PaymentId};
use domain::money::Amount;
use domain::operation::{Leased, OperationKind};
use domain::payment::{NewPayment, Payment, Refusal, Transition};
use domain::refund::Refund;
use persistence::StoreError;
use persistence::operations::Claim;
use persistence::payments::Claimed;

/// How often a decision is made anew because somebody else was faster.
const TRIES: usize = 10;

/// Writes the payment with its key and operation, in one statement.
pub(super) async fn create(
    app: &App,
    merchant_id: MerchantId,
    new: NewPayment,
    claim: &Claim<'_>,
) -> Result<Begun, StoreError> {
    let payment = Payment::new(merchant_id, new, answer::now());
    Ok(match app.store.claim_payment(&payment, claim).await? {
        Claimed::Ours(operation, lease) => {
            Begun::Ours(Box::new(Leased { operation, lease, payment, refund: None }))
        }
        Claimed::KeyKnown(known) => Begun::KeyKnown(known),
        Claimed::ReferenceUsed(id) => Begun::Refused(Refused::ReferenceUsed(id)),
    })
}

/// Asks for a capture.
pub(super) async fn capture(
    app: &App,
    merchant_id: MerchantId,
    id: Option<PaymentId>,
    amount: Option<Amount>,
    claim: &Claim<'_>,
) -> Result<Begun, StoreError> {
    let decide =
        |payment: &Payment| Ok(Decided::Step(OperationKind::Capture, payment.request_capture(amount)?));
    change(app, merchant_id, id, claim, decide).await
}

/// Asks for a cancel.
pub(super) async fn cancel(
    app: &App,
    merchant_id: MerchantId,
    id: Option<PaymentId>,
    claim: &Claim<'_>,
) -> Result<Begun, StoreError> {
    let decide = |payment: &Payment| Ok(Decided::Step(OperationKind::Cancel, payment.request_cancel()?));
    change(app, merchant_id, id, claim, decide).await
}

/// What a payment, as it stands, allows.
pub(super) enum Decided {
    /// A capture or cancel.
    Step(OperationKind, Transition),
    /// A refund.
    Refund(Refund),
}

/// Decides by the payment as it stands, and writes what was decided if it still stands so. If not, decides anew.
pub(super) async fn change(
    app: &App,
    merchant_id: MerchantId,
    id: Option<PaymentId>,
    claim: &Claim<'_>,
    decide: impl Fn(&Payment) -> Result<Decided, Refusal>,
) -> Result<Begun, StoreError> {
    for _ in 0..TRIES {
        let payment = match id {
            Some(id) => app.store.find_payment(merchant_id, id).await?,
            None => None,
        };
        let decided = match payment {
            None => Err(Refused::NoSuchPayment),
            Some(payment) => match decide(&payment) {
                Ok(decided) => Ok((payment, decided)),
                Err(refusal) => Err(Refused::ByPayment(Box::new(payment), refusal)),
            },
        };
        let (payment, decided) = match decided {
            Ok(decided) => decided,
            Err(refused) => {
                // a repetition is answered as it was, however the payment has moved since
                let known = app.store.find_idempotency_key(merchant_id, claim.key).await?;
                return Ok(known.map_or(Begun::Refused(refused), Begun::KeyKnown));
            }
        };
        match write(app, payment, decided, claim).await {
            Ok(Some(leased)) => return Ok(Begun::Ours(Box::new(leased))),
            Ok(None) => {
                if let Some(known) = app.store.find_idempotency_key(merchant_id, claim.key).await? {
                    return Ok(Begun::KeyKnown(known));
                }
            }
            Err(StoreError::StateMoved) => {}
            Err(other) => return Err(other),
        }
    }
    Err(StoreError::StateMoved)
}

/// `None`: the key is known.
async fn write(
    app: &App,
    payment: Payment,
    decided: Decided,
    claim: &Claim<'_>,
) -> Result<Option<Leased>, StoreError> {
    Ok(match decided {
        Decided::Step(kind, step) => {
            let at = answer::now();
            let claimed = app.store.claim_step(&payment, &step, kind, claim, at).await?;
            claimed.map(|(operation, lease)| Leased {
                operation,
                lease,
                payment: payment.after(&step, at),
                refund: None,
            })
        }
        Decided::Refund(refund) => {
            let claimed = app.store.claim_refund(&payment, &refund, claim).await?;
            claimed.map(|(operation, lease)| {
                let amount_refunded = payment.amount_refunded.saturating_add(refund.money.amount().get());
                let payment = Payment { amount_refunded, ..payment };
                Leased { operation, lease, payment, refund: Some(refund) }
            })
        }
    })
}
