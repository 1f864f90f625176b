//! The port to the payment provider.
//!
//! Whatever a provider answers is one of three [`Outcome`]s, and what may be done next follows from that alone:
//! *settled* ends the operation; *not executed* and *unknown* are tried again with the same key. Nothing but the
//! provider's own answer ever turns unknown into failed.

use crate::id::{MerchantId, OperationId, PaymentId, RefundId};
use crate::money::{Amount, Money};
use crate::operation::{Lease, Operation};
use crate::payment::{CaptureMethod, Payment};
use crate::reconcile::{ListedCharge, ListedRefund};
use crate::refund::{Refund, RefundReason};
use crate::text::{PaymentMethod, ReturnUrl, StatementDescriptor};
use std::pin::Pin;
use std::time::Duration;
use time::OffsetDateTime;

/// A payment provider. Every call makes at most one attempt per request it sends, and holds nothing while it waits.
pub trait Provider: Send + Sync {
    /// Asks for the money. Repeating it with the same operation never charges twice while the provider remembers the
    /// key. Nothing is sent that the lease does not cover.
    fn charge<'a>(&'a self, charge: &'a Charge, lease: &'a Lease) -> Answer<'a, Found>;

    /// Takes the charge's key for a request that charges nothing, so that the charge can never execute.
    fn close<'a>(&'a self, charge: &'a Charge, lease: &'a Lease) -> Answer<'a, Closed>;

    /// Searches a charge by its metadata among the provider's intents created `since`. `None`: there is none, which
    /// proves nothing while a request may still be on its way. It only reads, page by page, and may take longer than any
    /// lease.
    fn find<'a>(&'a self, charge: &'a Charge, since: OffsetDateTime) -> Answer<'a, Option<Found>>;

    /// Reads what an intent is.
    fn retrieve<'a>(&'a self, target: &'a Target) -> Answer<'a, Found>;

    /// Moves so much of what is held, and releases the rest. An intent that can no longer be captured answers with what
    /// it is.
    fn capture<'a>(
        &'a self,
        target: &'a Target,
        amount: Amount,
        operation: OperationId,
        lease: &'a Lease,
    ) -> Answer<'a, Found>;

    /// Releases what is held, or makes sure that the intent never will hold anything. An intent that can no longer be
    /// canceled answers with what it is. Without an operation it has no key: canceling twice is the same as once.
    fn cancel<'a>(
        &'a self,
        target: &'a Target,
        operation: Option<OperationId>,
        lease: &'a Lease,
    ) -> Answer<'a, Found>;

    /// Gives money back. Repeating it with the same operation never gives it back twice while the provider remembers
    /// the key.
    fn refund<'a>(&'a self, order: &'a RefundOrder, lease: &'a Lease) -> Answer<'a, FoundRefund>;

    /// Reads what became of a refund: by its id if that is known, or else among the refunds of the intent. `None`: there
    /// is none, which proves nothing while a request may still be on its way.
    fn find_refund<'a>(
        &'a self,
        order: &'a RefundOrder,
        object: Option<&'a RefundObjectId>,
        lease: &'a Lease,
    ) -> Answer<'a, Option<FoundRefund>>;

    /// A page of the charges that were made `since`, newest first, of whichever program; `after` is the page before's
    /// [`Page::next`].
    fn list_charges<'a>(
        &'a self,
        since: OffsetDateTime,
        after: Option<&'a str>,
    ) -> Answer<'a, Page<ListedCharge>>;

    /// A page of the refunds that were made `since`, as [`Provider::list_charges`].
    fn list_refunds<'a>(
        &'a self,
        since: OffsetDateTime,
        after: Option<&'a str>,
    ) -> Answer<'a, Page<ListedRefund>>;

    /// Reads one charge as it would be listed, whomever it names. `None`: the provider says that there is none.
    fn read_charge<'a>(&'a self, intent: &'a IntentId) -> Answer<'a, Option<ListedCharge>>;

    /// Reads one refund, as [`Provider::read_charge`].
    fn read_refund<'a>(&'a self, object: &'a RefundObjectId) -> Answer<'a, Option<ListedRefund>>;

    /// Asks for nothing in particular: does the provider take our credentials?
    fn check_credentials(&self) -> Answer<'_, ()>;
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What it holds, newest first.
    pub items: Vec<T>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<String>,
}

/// What a call to the provider comes to.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Outcome<T>> + Send + 'a>>;

/// The three kinds of outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The provider's own, final answer.
    Settled(T),
    /// Surely nothing happened there.
    NotExecuted(NotExecuted),
    /// Something may have happened.
    Unknown(Unknown),
}

impl<T> Outcome<T> {
    /// Converts what was settled.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Settled(value) => Outcome::Settled(f(value)),
            Self::NotExecuted(why) => Outcome::NotExecuted(why),
            Self::Unknown(why) => Outcome::Unknown(why),
        }
    }
}

/// Why surely nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotExecuted {
    /// The request never left: no connection.
    Unreachable,
    /// 429: the provider wants fewer requests, and none for the same before so long.
    Throttled(Duration),
    /// 401 or 403: the provider does not take our credentials.
    Misconfigured,
    /// The lease is too short for another attempt, so none was made.
    LeaseTooShort,
    /// The provider is known to be down, and this was no probe.
    BreakerOpen,
    /// As many calls are under way as there may be.
    BulkheadFull,
}

/// Why nobody can tell yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Sent, and no usable answer came back.
    NoAnswer,
    /// A 5xx. Repeating the key may still bring the real answer, after so long.
    ServerError(Duration),
    /// A 5xx that the provider stored for the key: repeating brings the same again, so the outcome is looked up.
    StoredServerError,
    /// 409 or 424: another request with the key is running, or something it needs failed.
    Busy,
    /// The provider works on it and will know later.
    StillProcessing(IntentId),
    /// The key was used for another request: somebody closed the operation.
    OtherParameters,
    /// The answer cannot belong to this charge: object, merchant, amount or currency differ. Never settled; a person
    /// has to look.
    Contradicted(Contradiction),
    /// An answer that this version does not understand.
    Unreadable,
}

/// What did not match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// The provider's id of the object that was answered.
    pub object: String,
    /// The first thing that differed.
    pub field: &'static str,
}

macro_rules! object_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name(String);

        impl $name {
            /// The provider's ids are opaque; only what could not be put into a path is refused.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let usable =
                    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                usable.then(|| Self(text.to_owned()))
            }

            /// The id.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

object_id!(
    /// The provider's id of a payment (Stripe: PaymentIntent, `pi_...`).
    IntentId
);
object_id!(
    /// The provider's id of a refund (Stripe: Refund, `re_...`).
    RefundObjectId
);

/// What a payment's intent is, at the provider, for the amount and currency asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The money is held.
    Authorized(IntentId),
    /// So much of the money moved; the rest is released.
    Captured(IntentId, Amount),
    /// The customer has to confirm; where, if the provider says so.
    RequiresAction(IntentId, Option<String>),
    /// The card's bank, or the provider, said no.
    Declined(Option<IntentId>, Failure),
    /// The request itself was refused.
    Rejected(Failure),
    /// Never confirmed: it charges nothing.
    Unconfirmed(IntentId),
    /// Released, or never to be confirmed.
    Canceled(IntentId),
}

/// What became of a refund at the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundRefund {
    /// The money is on its way.
    Succeeded(RefundObjectId),
    /// The provider works on it, or waits for somebody. It will know later.
    Pending(RefundObjectId),
    /// It will not happen, or was taken back.
    Failed(Option<RefundObjectId>, Failure),
}

/// How closing a key went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The key is ours now: the charge can never execute. The unconfirmed intent is to be canceled.
    Ours(IntentId),
    /// The charge had been executed and can never execute again: it can be found.
    AlreadyExecuted,
    /// The provider refuses such a request, so it refuses the charge as well: it will not be found.
    Refused,
}

/// Why a payment failed, in words for the merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The provider's error code, or one of ours: see the constructors.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// The bank's reason, where it gave one.
    pub decline_code: Option<String>,
}

impl Failure {
    fn ours(code: &str, message: &str) -> Self {
        Self { code: code.to_owned(), message: message.to_owned(), decline_code: None }
    }

    /// The charge window passed without the provider charging, and it never will.
    #[must_use]
    pub fn provider_unavailable() -> Self {
        Self::ours(
            "provider_unavailable",
            "The payment provider could not be reached in time. Nothing was charged.",
        )
    }

    /// The provider wants the customer, and the merchant gave no `return_url`.
    #[must_use]
    pub fn authentication_required() -> Self {
        Self::ours(
            "authentication_required",
            "The card's bank asks the customer to confirm. Send the payment again with a return_url.",
        )
    }

    /// The provider refused a capture or cancel for the payment's state, and then had it in a state that allows it.
    #[must_use]
    pub fn refused_for_now() -> Self {
        Self::ours(
            "provider_rejected",
            "The payment provider did not take the request at that moment. Nothing changed; ask again with a new key.",
        )
    }

    /// The bank could not place the money, for a reason that the provider names.
    #[must_use]
    pub fn refund_failed(reason: Option<String>) -> Self {
        Self {
            code: reason.unwrap_or_else(|| "refund_failed".to_owned()),
            ..Self::ours(
                "",
                "The customer's bank could not take the money back. It is with the merchant again.",
            )
        }
    }

    /// Somebody canceled the refund at the provider.
    #[must_use]
    pub fn refund_canceled() -> Self {
        Self::ours("refund_canceled", "The refund was canceled at the payment provider. No money went back.")
    }

    /// The provider refused the request.
    #[must_use]
    pub fn provider_rejected(message: String) -> Self {
        Self { message, ..Self::ours("provider_rejected", "") }
    }
}

/// A payment's intent at the provider, and what it must agree with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The intent.
    pub intent: IntentId,
    /// Whose it must be.
    pub merchant_id: MerchantId,
    /// What it must be for.
    pub payment_id: PaymentId,
    /// How much of what it must be about.
    pub money: Money,
    /// When its money moves.
    pub capture: CaptureMethod,
}

impl Target {
    /// A payment's intent.
    #[must_use]
    pub fn of(payment: &Payment, intent: IntentId) -> Self {
        Self {
            intent,
            merchant_id: payment.merchant_id,
            payment_id: payment.id,
            money: payment.request.money,
            capture: payment.request.capture,
        }
    }
}

/// A refund as the provider gets to know it. The merchant's metadata is not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundOrder {
    /// The provider's idempotency key, and metadata.
    pub operation_id: OperationId,
    /// Metadata.
    pub refund_id: RefundId,
    /// Metadata.
    pub payment_id: PaymentId,
    /// Metadata.
    pub merchant_id: MerchantId,
    /// What is given back.
    pub intent: IntentId,
    /// How much of what.
    pub money: Money,
    /// Why.
    pub reason: Option<RefundReason>,
}

impl RefundOrder {
    /// What the provider gets to know of a refund.
    #[must_use]
    pub fn of(operation: &Operation, refund: &Refund, intent: IntentId) -> Self {
        Self {
            operation_id: operation.id,
            refund_id: refund.id,
            payment_id: refund.payment_id,
            merchant_id: refund.merchant_id,
            intent,
            money: refund.money,
            reason: refund.reason,
        }
    }
}

/// A charge as the provider gets to know it. The merchant's description, customer and metadata are not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The provider's idempotency key, and metadata.
    pub operation_id: OperationId,
    /// Metadata.
    pub payment_id: PaymentId,
    /// Metadata.
    pub merchant_id: MerchantId,
    /// How much of what.
    pub money: Money,
    /// When the money moves.
    pub capture: CaptureMethod,
    /// The provider's token of the card.
    pub payment_method: PaymentMethod,
    /// Sent as the suffix behind the merchant's own descriptor.
    pub statement_descriptor: Option<StatementDescriptor>,
    /// Where the bank sends the customer back to.
    pub return_url: Option<ReturnUrl>,
}

impl Charge {
    /// What the provider gets to know of a payment.
    #[must_use]
    pub fn of(operation: &Operation, payment: &Payment) -> Self {
        let request = &payment.request;
        Self {
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
}
