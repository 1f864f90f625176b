//! Creating a payment, once; reading payments.

use crate::answer;
use crate::app::charge::carry_out;
use crate::middleware::auth::Caller;
use crate::middleware::shed::Slot;
use crate::state::App;
use domain::event::Actor;
use domain::id::{MerchantId, OperationId, PaymentId, TraceId};
use domain::idempotency::{Fingerprint, IdempotencyKey};
use domain::operation::{Lease, Operation};
use domain::payment::{NewPayment, Payment};
use persistence::StoreError;
use persistence::idempotency::{KeyState, KnownKey, StoredAnswer};
use persistence::payments::{Claim, Claimed};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument;

/// A settled operation is looked for this often at first, and ever less often up to the second.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_millis(250);
/// How long saying that a caller got its 202 may take.
const ACKNOWLEDGE: Duration = Duration::from_millis(300);

/// A request to create a payment.
pub struct Create {
    /// Who asks.
    pub caller: Caller,
    /// The trace of the request.
    pub trace_id: TraceId,
    /// The caller's key.
    pub key: IdempotencyKey,
    /// What is asked for.
    pub request: NewPayment,
    /// How long the caller wants to wait for the outcome, if it said so.
    pub wait: Option<Duration>,
    /// When waiting ends in any case.
    pub latest: Instant,
    /// The request's place among those that do database work.
    pub slot: Slot,
}

/// What the caller is told.
#[derive(Debug)]
pub enum Created {
    /// How the operation ended.
    Answered {
        /// The stored answer.
        answer: StoredAnswer,
        /// Whether the key was known.
        replayed: bool,
    },
    /// It has no outcome yet.
    Accepted {
        /// The payment as it stands.
        payment: Box<Payment>,
        /// Whether the key was known.
        replayed: bool,
    },
    /// The first request with the key is still being served.
    InProgress,
    /// The key was used for another request.
    KeyReused,
    /// A living payment has the reference.
    ReferenceUsed(PaymentId),
}

/// Why nothing was created.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The database. If its answer was lost, the payment may exist: the same key tells.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The provider does not take our credentials, so nothing new is begun.
    #[error("the provider does not take our credentials")]
    Misconfigured,
    /// The task ended without an answer: a fault of this program.
    #[error("the task that creates the payment ended without an answer")]
    Lost,
}

type Reply = oneshot::Sender<Result<Created, CreateError>>;

/// Creates a payment, or finds what became of it.
///
/// From claim to settlement everything runs in a task of its own, and this only waits for its word. A caller that hangs
/// up, or a deadline, ends the waiting and never the work.
///
/// # Errors
/// See [`CreateError`].
pub async fn create(app: &Arc<App>, create: Create) -> Result<Created, CreateError> {
    let (reply, answer) = oneshot::channel();
    let work = claim(Arc::clone(app), create, Instant::now(), reply);
    app.stop.tasks.spawn(work.instrument(tracing::Span::current()));
    answer.await.unwrap_or(Err(CreateError::Lost))
}

async fn claim(app: Arc<App>, create: Create, arrived: Instant, reply: Reply) {
    let merchant_id = create.caller.merchant_id;
    let until = (arrived + create.wait.unwrap_or(app.settings.sync_wait)).min(create.latest);
    let now = answer::now();
    let payment = Payment::new(merchant_id, create.request, now);
    let fingerprint = Fingerprint::of_payment(&payment.request);
    let claim = Claim {
        payment: &payment,
        operation_id: OperationId::at(now),
        key: &create.key,
        fingerprint: &fingerprint,
        actor: Actor::Key(create.caller.key_id),
        trace_id: create.trace_id,
        lease: app.settings.windows.lease,
        served: until > arrived,
    };
    let claimed = if app.credentials.are_refused() {
        match app.store.find_idempotency_key(merchant_id, &create.key).await {
            Ok(Some(known)) => Ok(Claimed::KeyKnown(known)),
            Ok(None) => return drop(reply.send(Err(CreateError::Misconfigured))),
            Err(error) => Err(error),
        }
    } else {
        app.store.claim_payment(&claim).await
    };
    match claimed {
        Ok(Claimed::Ours(operation, lease)) => {
            create.slot.release();
            let serving = Serving { app: &app, operation: &operation, key: &create.key, payment: &payment };
            first(&serving, &lease, until, reply).await;
        }
        Ok(Claimed::KeyKnown(known)) => {
            // without a preference a repetition is answered at once
            let until = (arrived + create.wait.unwrap_or_default()).min(create.latest);
            let answer =
                again(&app, merchant_id, &create.key, known, &fingerprint, until, &create.slot).await;
            drop(reply.send(answer.map_err(CreateError::from)));
        }
        Ok(Claimed::ReferenceUsed(id)) => drop(reply.send(Ok(Created::ReferenceUsed(id)))),
        Err(error) => drop(reply.send(Err(error.into()))),
    }
}

/// What a first request needs to know while it is served.
struct Serving<'a> {
    app: &'a App,
    operation: &'a Operation,
    key: &'a IdempotencyKey,
    payment: &'a Payment,
}

/// The first request with its key: carries the operation out, and answers at the latest when the caller has waited
/// long enough.
async fn first(serving: &Serving<'_>, lease: &Lease, until: Instant, reply: Reply) {
    let work = carry_out(serving.app, serving.operation, lease, serving.payment.clone());
    tokio::pin!(work);
    tokio::select! {
        answer = &mut work => {
            let created = match answer {
                Some(answer) => Created::Answered { answer, replayed: false },
                None => serving.wait_for_others(until).await,
            };
            drop(reply.send(Ok(created)));
        }
        () = serving.patience(until) => {
            drop(reply.send(Ok(serving.accept().await)));
            work.await;
        }
    }
}

impl Serving<'_> {
    /// Ends when the caller has waited long enough. Until then others are told that the caller is being served.
    async fn patience(&self, until: Instant) {
        let Operation { merchant_id, id, .. } = *self.operation;
        let lease = self.app.settings.windows.lease;
        let keep_serving = async {
            loop {
                tokio::time::sleep(lease / 2).await;
                // if that fails, others get a 202 instead of a 409
                let _ = self.app.store.keep_serving(merchant_id, id, lease).await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = self.app.stop.giving_up() => {}
            () = keep_serving => {}
        }
    }

    /// Our attempt brought no outcome, and the operation is anybody's: waits for whoever settles it.
    async fn wait_for_others(&self, until: Instant) -> Created {
        let settled = settled_by(self.app, self.operation.merchant_id, self.key, until);
        tokio::select! {
            Ok(Some(answer)) = settled => Created::Answered { answer, replayed: false },
            () = self.patience(until) => self.accept().await,
        }
    }

    /// 202, unless the operation settled in the meantime.
    async fn accept(&self) -> Created {
        let accepted = Created::Accepted { payment: Box::new(self.payment.clone()), replayed: false };
        let acknowledged = self.app.store.acknowledge(self.operation.merchant_id, self.operation.id);
        match tokio::time::timeout(ACKNOWLEDGE, acknowledged).await {
            Ok(Ok(false)) => {
                let known = self.app.store.find_idempotency_key(self.operation.merchant_id, self.key);
                match tokio::time::timeout(ACKNOWLEDGE, known).await {
                    Ok(Ok(Some(KnownKey { state: KeyState::Settled(answer), .. }))) => {
                        Created::Answered { answer, replayed: false }
                    }
                    _ => accepted,
                }
            }
            // also when it could not be written: what was claimed is never answered with an error
            _ => accepted,
        }
    }
}

/// A request whose key is known.
async fn again(
    app: &App,
    merchant_id: MerchantId,
    key: &IdempotencyKey,
    known: KnownKey,
    fingerprint: &Fingerprint,
    until: Instant,
    slot: &Slot,
) -> Result<Created, StoreError> {
    if !known.is_same_request(fingerprint) {
        return Ok(Created::KeyReused);
    }
    let replay = |answer| Created::Answered { answer, replayed: true };
    if let KeyState::Settled(answer) = known.state {
        return Ok(replay(answer));
    }
    let mut state = known.state;
    if until > Instant::now() {
        slot.release();
        if let Some(answer) = settled_by(app, merchant_id, key, until).await? {
            return Ok(replay(answer));
        }
        state = app.store.find_idempotency_key(merchant_id, key).await?.map_or(state, |known| known.state);
    }
    Ok(match state {
        KeyState::Settled(answer) => replay(answer),
        KeyState::BeingServed => Created::InProgress,
        KeyState::Open => {
            let payment = app.store.find_payment(merchant_id, known.payment_id).await?;
            let payment = payment.ok_or(StoreError::Unreadable("operations.payment_id"))?;
            // it may have settled between the two looks, and a 202 never shows how it ended
            match app.store.find_idempotency_key(merchant_id, key).await?.map(|known| known.state) {
                Some(KeyState::Settled(answer)) => replay(answer),
                _ => Created::Accepted { payment: Box::new(payment), replayed: true },
            }
        }
    })
}

/// Looks until the operation of the key is settled, or the time is up. No connection is held between two looks.
async fn settled_by(
    app: &App,
    merchant_id: MerchantId,
    key: &IdempotencyKey,
    until: Instant,
) -> Result<Option<StoredAnswer>, StoreError> {
    let mut pause = FIRST_LOOK;
    loop {
        let known = app.store.find_idempotency_key(merchant_id, key).await?;
        if let Some(KnownKey { state: KeyState::Settled(answer), .. }) = known {
            return Ok(Some(answer));
        }
        let now = Instant::now();
        if now >= until {
            return Ok(None);
        }
        tokio::time::sleep(pause.min(until - now)).await;
        pause = pause.saturating_mul(2).min(LAST_LOOK);
    }
}
