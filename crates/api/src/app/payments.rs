//! What a create, a capture and a cancel begin.

use crate::answer;
use crate::app::once::{Begun, Refused};
use crate::state::App;
use domain::id::{MerchantId, PaymentId};
use domain::money::Amount;
use domain::operation::{Leased, OperationKind};
use domain::payment::{NewPayment, Payment, Refusal, Transition};
use persistence::StoreError;
use persistence::operations::Claim;
use persistence::payments::Claimed;

/// How often a decision is made anew because somebody else was faster.
pub(super) const TRIES: usize = 10;

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
    step(app, merchant_id, id, OperationKind::Capture, claim, |payment| payment.request_capture(amount)).await
}

/// Asks for a cancel.
pub(super) async fn cancel(
    app: &App,
    merchant_id: MerchantId,
    id: Option<PaymentId>,
    claim: &Claim<'_>,
) -> Result<Begun, StoreError> {
    step(app, merchant_id, id, OperationKind::Cancel, claim, Payment::request_cancel).await
}

/// Decides by the payment as it stands, and writes the step if it still stands so. If not, decides anew.
async fn step(
    app: &App,
    merchant_id: MerchantId,
    id: Option<PaymentId>,
    kind: OperationKind,
    claim: &Claim<'_>,
    decide: impl Fn(&Payment) -> Result<Transition, Refusal>,
) -> Result<Begun, StoreError> {
    for _ in 0..TRIES {
        let Some(payment) = find(app, merchant_id, id).await? else {
            return refuse(app, merchant_id, claim, Refused::NoSuchPayment).await;
        };
        let step = match decide(&payment) {
            Ok(step) => step,
            Err(refusal) => {
                let refused = match refusal {
                    Refusal::State => Refused::State(Box::new(payment)),
                    Refusal::TooLarge { most } => Refused::CaptureTooLarge { most },
                    Refusal::Amount(error) => Refused::Amount(error),
                };
                return refuse(app, merchant_id, claim, refused).await;
            }
        };
        let at = answer::now();
        match app.store.claim_step(&payment, &step, kind, claim, at).await {
            Ok(Some((operation, lease))) => {
                let payment = payment.after(&step, at);
                return Ok(Begun::Ours(Box::new(Leased { operation, lease, payment, refund: None })));
            }
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

pub(super) async fn find(
    app: &App,
    merchant_id: MerchantId,
    id: Option<PaymentId>,
) -> Result<Option<Payment>, StoreError> {
    match id {
        Some(id) => app.store.find_payment(merchant_id, id).await,
        None => Ok(None),
    }
}

/// A refusal, unless the key is known: a repetition is answered as it was, however the payment has moved since.
pub(super) async fn refuse(
    app: &App,
    merchant_id: MerchantId,
    claim: &Claim<'_>,
    refused: Refused,
) -> Result<Begun, StoreError> {
    let known = app.store.find_idempotency_key(merchant_id, claim.key).await?;
    Ok(known.map_or(Begun::Refused(refused), Begun::KeyKnown))
}
