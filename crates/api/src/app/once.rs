//! A request that moves money, carried out once: the road from its key to its answer.

use crate::app::operations::{Carried, Carrier, carry_out};
use crate::app::{payments, refunds};
use crate::middleware::auth::Caller;
use crate::middleware::shed::Slot;
use crate::state::App;
use crate::telemetry;
use domain::event::Actor;
use domain::id::{MerchantId, OperationId, PaymentId};
use domain::idempotency::{Fingerprint, IdempotencyKey};
use domain::money::Amount;
use domain::operation::{Leased, Operation};
use domain::payment::{NewPayment, Payment, Refusal};
use domain::refund::{NewRefund, Refund};
use domain::trace::TraceContext;
use persistence::StoreError;
use persistence::idempotency::{KeyState, KnownKey, StoredAnswer};
use persistence::operations::Claim;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{Instrument, field};

/// A settled operation is looked for this often at first, and ever less often up to the second.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_millis(250);
/// How long saying that a caller got its 202 may take.
const ACKNOWLEDGE: Duration = Duration::from_millis(300);

/// A request that moves money.
pub struct MoneyRequest {
    /// Who asks.
    pub caller: Caller,
    /// Where the request stands in its trace.
    pub trace: TraceContext,
    /// The caller's key.
    pub key: IdempotencyKey,
    /// What the key is used for.
    pub fingerprint: Fingerprint,
    /// What is asked for.
    pub asked: Asked,
    /// How long the caller wants to wait for the outcome, if it said so.
    pub wait: Option<Duration>,
    /// When waiting ends in any case.
    pub latest: Instant,
    /// The request's place among those that do database work.
    pub slot: Slot,
}

/// What is asked for. A payment that the caller named by something that is no id is not there.
#[derive(Debug)]
pub enum Asked {
    /// A new payment.
    Create(Box<NewPayment>),
    /// To capture so much of a payment, or all of it.
    Capture(Option<PaymentId>, Option<Amount>),
    /// To cancel a payment.
    Cancel(Option<PaymentId>),
    /// To refund a payment.
    Refund(Option<PaymentId>, NewRefund),
}

impl Asked {
    /// What traces call it.
    const fn name(&self) -> &'static str {
        match self {
            Self::Create(_) => "create payment",
            Self::Capture(..) => "capture payment",
            Self::Cancel(_) => "cancel payment",
            Self::Refund(..) => "refund payment",
        }
    }
}

/// What the caller is told.
#[derive(Debug)]
pub enum Told {
    /// How the operation ended.
    Answered {
        /// The stored answer.
        answer: StoredAnswer,
        /// Whether the key was known.
        replayed: bool,
    },
    /// It has no outcome yet.
    Accepted {
        /// What it is about, as it stands.
        object: Object,
        /// Whether the key was known.
        replayed: bool,
    },
    /// The first request with the key is still being served.
    InProgress,
    /// The key was used for another request.
    KeyReused,
    /// Nothing was begun, and the key is free.
    Refused(Refused),
}

/// What a request is about.
#[derive(Debug)]
pub enum Object {
    /// A create, capture or cancel.
    Payment(Box<Payment>),
    /// A refund.
    Refund(Box<Refund>),
}

impl Object {
    fn of(leased: &Leased) -> Self {
        match &leased.refund {
            Some(refund) => Self::Refund(Box::new(refund.clone())),
            None => Self::Payment(Box::new(leased.payment.clone())),
        }
    }
}

/// Why nothing was begun.
#[derive(Debug)]
pub enum Refused {
    /// The merchant has no such payment.
    NoSuchPayment,
    /// A living payment has the reference.
    ReferenceUsed(PaymentId),
    /// The payment, as it stands, does not allow it.
    ByPayment(Box<Payment>, Refusal),
}

/// Why nobody can tell what became of a request.
#[derive(Debug, thiserror::Error)]
pub enum OnceError {
    /// The database. If its answer was lost, the operation may exist: the same key tells.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The provider does not take our credentials, so no new payment is begun.
    #[error("the provider does not take our credentials")]
    Misconfigured,
    /// Nobody waits any more, and nothing was begun.
    #[error("there was no time left to begin")]
    TooLate,
    /// The task ended without an answer: a fault of this program.
    #[error("the task that carries the request out ended without an answer")]
    Lost,
}

/// What became of the first statement of a request.
pub(super) enum Begun {
    /// Everything is written, and the operation is ours to carry out.
    Ours(Box<Leased>),
    /// The key is known. Nothing was written.
    KeyKnown(KnownKey),
    /// It cannot be begun. Nothing was written.
    Refused(Refused),
}

type Reply = oneshot::Sender<Result<Told, OnceError>>;

/// Carries a request out, or finds what became of it.
///
/// From claim to settlement everything runs in a task of its own, and this only waits for its word. A caller that hangs
/// up, or a deadline, ends the waiting and never the work.
///
/// # Errors
/// See [`OnceError`].
pub async fn once(app: &Arc<App>, mut request: MoneyRequest) -> Result<Told, OnceError> {
    let (reply, told) = oneshot::channel();
    // of its own, because it may go on after the request's has ended
    let span = tracing::info_span!(
        "once",
        trace_id = %request.trace.trace_id,
        otel.name = request.asked.name(),
        payments.operation.id = field::Empty,
        payments.payment.id = field::Empty,
    );
    // whoever settles the operation later goes on from here
    request.trace = telemetry::place_of(&span).unwrap_or(request.trace);
    let work = begin(Arc::clone(app), request, Instant::now(), reply);
    app.stop.tasks.spawn(Box::pin(work.instrument(span)));
    told.await.unwrap_or(Err(OnceError::Lost))
}

async fn begin(app: Arc<App>, request: MoneyRequest, arrived: Instant, reply: Reply) {
    let merchant_id = request.caller.merchant_id;
    let until = (arrived + request.wait.unwrap_or(app.settings.sync_wait)).min(request.latest);
    let claim = Claim {
        operation_id: OperationId::at(crate::answer::now()),
        key: &request.key,
        fingerprint: &request.fingerprint,
        actor: Actor::Key(request.caller.key_id),
        trace: request.trace,
        lease: app.settings.windows.lease,
        served: until > arrived,
        latest: request.latest.into_std(),
    };
    if Instant::now() >= request.latest {
        return drop(reply.send(Err(OnceError::TooLate)));
    }
    let is_create = matches!(request.asked, Asked::Create(_));
    let begun = match request.asked {
        Asked::Create(_) if app.credentials.are_refused() => {
            match app.store.find_idempotency_key(merchant_id, &request.key).await {
                Ok(Some(known)) => Ok(Begun::KeyKnown(known)),
                Ok(None) => return drop(reply.send(Err(OnceError::Misconfigured))),
                Err(error) => Err(error),
            }
        }
        Asked::Create(new) => payments::create(&app, merchant_id, *new, &claim).await,
        Asked::Capture(id, amount) => payments::capture(&app, merchant_id, id, amount, &claim).await,
        Asked::Cancel(id) => payments::cancel(&app, merchant_id, id, &claim).await,
        Asked::Refund(id, new) => refunds::refund(&app, merchant_id, id, &new, &claim).await,
    };
    match begun {
        Ok(Begun::Ours(leased)) => {
            app.admission.used(merchant_id, &request.key);
            if is_create {
                request.slot.claimed();
            } else {
                request.slot.release();
            }
            let Operation { id, payment_id, .. } = &leased.operation;
            let span = tracing::Span::current();
            span.record("payments.operation.id", field::display(id));
            span.record("payments.payment.id", field::display(payment_id));
            first(&Serving { app: &app, leased: &leased, key: &request.key }, until, reply).await;
        }
        Ok(Begun::KeyKnown(known)) => {
            app.admission.used(merchant_id, &request.key);
            // without a preference a repetition is answered at once
            let until = (arrived + request.wait.unwrap_or_default()).min(request.latest);
            let repeated = Repeated { app: &app, merchant_id, key: &request.key, slot: &request.slot };
            let told = repeated.answer(known, &request.fingerprint, until).await;
            drop(reply.send(told.map_err(OnceError::from)));
        }
        Ok(Begun::Refused(refused)) => drop(reply.send(Ok(Told::Refused(refused)))),
        Err(error) => drop(reply.send(Err(error.into()))),
    }
}

/// The first request with its key: carries the operation out, and answers at the latest when the caller has waited
/// long enough.
async fn first(serving: &Serving<'_>, until: Instant, reply: Reply) {
    let work = carry_out(serving.app, serving.leased, Carrier::Caller(until.into_std()));
    tokio::pin!(work);
    tokio::select! {
        carried = &mut work => {
            let told = match carried {
                Carried::Settled(answer) => Told::Answered { answer, replayed: false },
                Carried::Left => serving.wait_for_others(until).await,
                Carried::NotAsked => serving.accept().await,
            };
            drop(reply.send(Ok(told)));
        }
        () = serving.patience(until) => {
            drop(reply.send(Ok(serving.accept().await)));
            work.await;
        }
    }
}

/// What a first request needs to know while it is served.
struct Serving<'a> {
    app: &'a App,
    leased: &'a Leased,
    key: &'a IdempotencyKey,
}

impl Serving<'_> {
    /// Ends when the caller has waited long enough. Until then others are told that the caller is being served.
    async fn patience(&self, until: Instant) {
        let Operation { merchant_id, id, .. } = self.leased.operation;
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
    async fn wait_for_others(&self, until: Instant) -> Told {
        let merchant_id = self.leased.operation.merchant_id;
        let Some(_waiter) = self.app.admission.wait_for_others(merchant_id) else {
            return self.accept().await;
        };
        let settled = settled_by(self.app, merchant_id, self.key, until);
        tokio::select! {
            Ok(Some(answer)) = settled => Told::Answered { answer, replayed: false },
            () = self.patience(until) => self.accept().await,
        }
    }

    /// 202, unless the operation settled in the meantime.
    async fn accept(&self) -> Told {
        let Operation { merchant_id, id, .. } = self.leased.operation;
        let accepted = Told::Accepted { object: Object::of(self.leased), replayed: false };
        match tokio::time::timeout(ACKNOWLEDGE, self.app.store.acknowledge(merchant_id, id)).await {
            Ok(Ok(false)) => {
                let known = self.app.store.find_idempotency_key(merchant_id, self.key);
                match tokio::time::timeout(ACKNOWLEDGE, known).await {
                    Ok(Ok(Some(KnownKey { state: KeyState::Settled(answer), .. }))) => {
                        Told::Answered { answer, replayed: false }
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
struct Repeated<'a> {
    app: &'a App,
    merchant_id: MerchantId,
    key: &'a IdempotencyKey,
    slot: &'a Slot,
}

impl Repeated<'_> {
    async fn answer(
        &self,
        known: KnownKey,
        fingerprint: &Fingerprint,
        until: Instant,
    ) -> Result<Told, StoreError> {
        if !known.is_same_request(fingerprint) {
            return Ok(Told::KeyReused);
        }
        let replay = |answer| Told::Answered { answer, replayed: true };
        if let KeyState::Settled(answer) = known.state {
            return Ok(replay(answer));
        }
        let mut state = known.state.clone();
        let waiter =
            if until > Instant::now() { self.app.admission.wait_for_others(self.merchant_id) } else { None };
        if waiter.is_some() {
            self.slot.release();
            if let Some(answer) = settled_by(self.app, self.merchant_id, self.key, until).await? {
                return Ok(replay(answer));
            }
            state = self.state().await?.unwrap_or(state);
        }
        Ok(match state {
            KeyState::Settled(answer) => replay(answer),
            KeyState::BeingServed => Told::InProgress,
            KeyState::Open => {
                let object = self.object(&known).await?;
                // it may have settled between the two looks, and a 202 never shows how it ended
                match self.state().await? {
                    Some(KeyState::Settled(answer)) => replay(answer),
                    _ => Told::Accepted { object, replayed: true },
                }
            }
        })
    }

    async fn state(&self) -> Result<Option<KeyState>, StoreError> {
        let known = self.app.store.find_idempotency_key(self.merchant_id, self.key).await?;
        Ok(known.map(|known| known.state))
    }

    async fn object(&self, known: &KnownKey) -> Result<Object, StoreError> {
        let (store, merchant_id) = (&self.app.store, self.merchant_id);
        Ok(match known.refund_id {
            Some(id) => {
                let refund = store.find_refund(merchant_id, id).await?;
                Object::Refund(Box::new(refund.ok_or(StoreError::Unreadable("operations.refund_id"))?))
            }
            None => {
                let payment = store.find_payment(merchant_id, known.payment_id).await?;
                Object::Payment(Box::new(payment.ok_or(StoreError::Unreadable("operations.payment_id"))?))
            }
        })
    }
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
