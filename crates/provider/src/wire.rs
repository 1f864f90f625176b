//! Stripe's shapes: what is sent, what comes back, and whether it belongs to what was asked.

use domain::id::{MerchantId, OperationId, PaymentId, RefundId};
use domain::money::{Amount, Money};
use domain::payment::CaptureMethod;
use domain::provider::{
    Charge, Contradiction, Failure, Found, FoundRefund, IntentId, Outcome, RefundObjectId, RefundOrder,
    Target, Unknown,
};
use domain::reconcile::{ListedCharge, ListedRefund, Owner, RefundStanding, Standing};
use domain::refund::RefundReason;
use domain::text::{ReturnUrl, StatementDescriptor};
use serde::Deserialize;
use std::collections::HashMap;
use time::OffsetDateTime;
use uuid::Uuid;

/// A form's fields. What is absent is left out: other implementations of the protocol refuse what they do not know.
pub(crate) type Form = Vec<(&'static str, String)>;

/// Whether a new intent is to be charged at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirm {
    Yes,
    /// For closing a key: the same charge, which never happens.
    No,
}

pub(crate) fn new_intent(charge: &Charge, confirm: Confirm) -> Form {
    let mut form = vec![
        ("amount", charge.money.amount().get().to_string()),
        ("currency", charge.money.currency().code().to_ascii_lowercase()),
        ("payment_method", charge.payment_method.as_str().to_owned()),
        ("payment_method_types[]", "card".to_owned()),
        ("capture_method", charge.capture.name().to_owned()),
        ("metadata[payment_id]", charge.payment_id.to_string()),
        ("metadata[operation_id]", charge.operation_id.to_string()),
        ("metadata[merchant_id]", charge.merchant_id.to_string()),
    ];
    if let Some(suffix) = charge.statement_descriptor.as_ref().map(StatementDescriptor::as_str) {
        form.push(("statement_descriptor_suffix", suffix.to_owned()));
    }
    if confirm == Confirm::Yes {
        form.push(("confirm", "true".to_owned()));
        // Stripe takes a return_url only together with a confirmation
        if let Some(url) = charge.return_url.as_ref().map(ReturnUrl::as_str) {
            form.push(("return_url", url.to_owned()));
        }
    }
    form
}

pub(crate) fn new_refund(order: &RefundOrder) -> Form {
    let mut form = vec![
        ("payment_intent", order.intent.as_str().to_owned()),
        ("amount", order.money.amount().get().to_string()),
        ("metadata[refund_id]", order.refund_id.to_string()),
        ("metadata[payment_id]", order.payment_id.to_string()),
        ("metadata[operation_id]", order.operation_id.to_string()),
        ("metadata[merchant_id]", order.merchant_id.to_string()),
    ];
    if let Some(reason) = order.reason.map(RefundReason::name) {
        form.push(("reason", reason.to_owned()));
    }
    form
}

/// A PaymentIntent, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) object: String,
    pub(crate) status: String,
    pub(crate) amount: i64,
    /// Other implementations of the protocol leave both sums out.
    #[serde(default)]
    pub(crate) amount_capturable: Option<i64>,
    #[serde(default)]
    pub(crate) amount_received: Option<i64>,
    pub(crate) currency: String,
    #[serde(default)]
    pub(crate) capture_method: Option<String>,
    #[serde(default)]
    pub(crate) metadata: HashMap<String, String>,
    #[serde(default)]
    pub(crate) next_action: Option<NextAction>,
    #[serde(default)]
    pub(crate) last_payment_error: Option<ErrorObject>,
    #[serde(default)]
    pub(crate) created: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct NextAction {
    #[serde(default)]
    pub(crate) redirect_to_url: Option<RedirectToUrl>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RedirectToUrl {
    #[serde(default)]
    pub(crate) url: Option<String>,
}

/// A Refund, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: String,
    pub(crate) object: String,
    pub(crate) status: String,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    #[serde(default)]
    pub(crate) payment_intent: Option<String>,
    #[serde(default)]
    pub(crate) metadata: HashMap<String, String>,
    #[serde(default)]
    pub(crate) failure_reason: Option<String>,
    #[serde(default)]
    pub(crate) created: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct List<T> {
    pub(crate) data: Vec<T>,
    #[serde(default)]
    pub(crate) has_more: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ErrorEnvelope {
    pub(crate) error: ErrorObject,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct ErrorObject {
    #[serde(default, rename = "type")]
    pub(crate) kind: Option<String>,
    #[serde(default)]
    pub(crate) code: Option<String>,
    #[serde(default)]
    pub(crate) decline_code: Option<String>,
    #[serde(default)]
    pub(crate) message: Option<String>,
    #[serde(default)]
    pub(crate) payment_intent: Option<Box<Intent>>,
}

impl ErrorObject {
    pub(crate) fn into_decline(self) -> Failure {
        Failure {
            code: self.code.unwrap_or_else(|| "card_declined".to_owned()),
            message: self.message.unwrap_or_else(|| "The card was declined.".to_owned()),
            decline_code: self.decline_code,
        }
    }

    /// Stripe's code of a 404 that is about an object.
    pub(crate) fn is_of_a_missing_object(&self) -> bool {
        self.code.as_deref() == Some("resource_missing")
    }

    pub(crate) fn into_rejection(self) -> Failure {
        let message = self.message.unwrap_or_else(|| "The payment provider refused the request.".to_owned());
        Failure::provider_rejected(message)
    }
}

/// What an intent must agree with.
pub(crate) struct Expected<'a> {
    merchant_id: MerchantId,
    payment_id: PaymentId,
    /// The operation that created it, where that is known.
    operation_id: Option<OperationId>,
    /// Its id, where that is known.
    intent: Option<&'a IntentId>,
    money: &'a Money,
    capture: CaptureMethod,
    /// What was just asked to be captured.
    captured: Option<Amount>,
}

impl<'a> Expected<'a> {
    pub(crate) fn of_charge(charge: &'a Charge) -> Self {
        Self {
            merchant_id: charge.merchant_id,
            payment_id: charge.payment_id,
            operation_id: Some(charge.operation_id),
            intent: None,
            money: &charge.money,
            capture: charge.capture,
            captured: None,
        }
    }

    pub(crate) fn of(target: &'a Target) -> Self {
        Self {
            merchant_id: target.merchant_id,
            payment_id: target.payment_id,
            operation_id: None,
            intent: Some(&target.intent),
            money: &target.money,
            capture: target.capture,
            captured: None,
        }
    }

    /// So much was just asked to be captured.
    pub(crate) fn capturing(self, amount: Amount) -> Self {
        Self { captured: Some(amount), ..self }
    }

    /// The sum that an intent without one is taken to have moved.
    fn all(&self) -> Amount {
        self.captured.unwrap_or(self.money.amount())
    }

    /// Whether an intent may have moved so much: all of it, unless it is captured by hand.
    fn allows(&self, moved: Amount) -> bool {
        match (self.captured, self.capture) {
            (Some(asked), _) => moved == asked,
            (None, CaptureMethod::Automatic) => moved == self.money.amount(),
            (None, CaptureMethod::Manual) => moved <= self.money.amount(),
        }
    }
}

/// The first check that does not hold.
fn first_wrong(checks: impl IntoIterator<Item = (&'static str, bool)>) -> Option<&'static str> {
    checks.into_iter().find(|(_, holds)| !holds).map(|(field, _)| field)
}

fn contradicted<T>(object: &str, field: &'static str) -> Outcome<T> {
    Outcome::Unknown(Unknown::Contradicted(Contradiction { object: object.to_owned(), field }))
}

impl Intent {
    /// Whether its metadata names the operation.
    pub(crate) fn is_of(&self, charge: &Charge) -> bool {
        self.metadata.get("operation_id") == Some(&charge.operation_id.to_string())
    }

    /// What it means for the payment, if it is the payment's at all.
    pub(crate) fn into_found(self, expected: &Expected<'_>) -> Outcome<Found> {
        let Some(id) = IntentId::parse(&self.id) else { return Outcome::Unknown(Unknown::Unreadable) };
        if let Some(field) = self.contradiction(expected) {
            return contradicted(&self.id, field);
        }
        Outcome::Settled(match self.status.as_str() {
            "succeeded" => match self.moved(expected) {
                Some(amount) => Found::Captured(id, amount),
                None => return contradicted(&self.id, "amount_received"),
            },
            "requires_capture" => Found::Authorized(id),
            "requires_action" => {
                let url = self.next_action.and_then(|a| a.redirect_to_url).and_then(|r| r.url);
                Found::RequiresAction(id, url)
            }
            "requires_confirmation" => Found::Unconfirmed(id),
            // a declined charge goes back to here, with the reason
            "requires_payment_method" => match self.last_payment_error {
                Some(error) => Found::Declined(Some(id), error.into_decline()),
                None => Found::Unconfirmed(id),
            },
            "canceled" => Found::Canceled(id),
            "processing" => return Outcome::Unknown(Unknown::StillProcessing(id)),
            _ => return Outcome::Unknown(Unknown::Unreadable),
        })
    }

    /// What moved, unless it cannot be.
    fn moved(&self, expected: &Expected<'_>) -> Option<Amount> {
        let moved = match self.amount_received {
            Some(minor) => Amount::new(minor).ok()?,
            None => expected.all(),
        };
        expected.allows(moved).then_some(moved)
    }

    /// The first thing that shows that the intent is not the payment's.
    fn contradiction(&self, expected: &Expected<'_>) -> Option<&'static str> {
        let amount = expected.money.amount().get();
        let names = |key: &str, id: String| self.metadata.get(key) == Some(&id);
        let method = match self.capture_method.as_deref() {
            Some("manual") => Some(CaptureMethod::Manual),
            Some("automatic" | "automatic_async") => Some(CaptureMethod::Automatic),
            _ => None,
        };
        let held = self.amount_capturable.is_none_or(|held| held == amount);
        first_wrong([
            ("object", self.object == "payment_intent"),
            ("id", expected.intent.is_none_or(|intent| self.id == intent.as_str())),
            ("merchant_id", names("merchant_id", expected.merchant_id.to_string())),
            ("payment_id", names("payment_id", expected.payment_id.to_string())),
            ("operation_id", expected.operation_id.is_none_or(|id| names("operation_id", id.to_string()))),
            ("currency", self.currency.eq_ignore_ascii_case(expected.money.currency().code())),
            ("amount", self.amount == amount),
            ("amount_capturable", self.status != "requires_capture" || held),
            ("capture_method", method == Some(expected.capture)),
        ])
    }
}

/// An id of ours in an object's metadata.
fn named(metadata: &HashMap<String, String>, key: &str) -> Option<Uuid> {
    metadata.get(key).and_then(|id| Uuid::try_parse(id).ok())
}

/// Whom an object names, if it is of this program at all.
fn owner(metadata: &HashMap<String, String>) -> Option<Owner> {
    Some(Owner {
        merchant_id: MerchantId(named(metadata, "merchant_id")?),
        payment_id: PaymentId(named(metadata, "payment_id")?),
    })
}

impl Intent {
    /// What it is, whomever it names. `None`: it has no id or time that could be.
    pub(crate) fn into_listed_charge(self) -> Option<ListedCharge> {
        Some(ListedCharge {
            intent: IntentId::parse(&self.id)?,
            owner: owner(&self.metadata),
            amount: self.amount,
            currency: self.currency.to_ascii_uppercase(),
            standing: match self.status.as_str() {
                "requires_capture" => Standing::Held(self.amount_capturable.unwrap_or(self.amount)),
                "succeeded" => Standing::Moved(self.amount_received.unwrap_or(self.amount)),
                "requires_action" => Standing::Waiting,
                "requires_confirmation" | "requires_payment_method" => Standing::Empty,
                "canceled" => Standing::Canceled,
                _ => Standing::Other,
            },
            created_at: OffsetDateTime::from_unix_timestamp(self.created).ok()?,
        })
    }
}

impl Refund {
    /// As [`Intent::into_listed_charge`].
    pub(crate) fn into_listed_refund(self) -> Option<ListedRefund> {
        let refund_id = named(&self.metadata, "refund_id").map(RefundId);
        Some(ListedRefund {
            object: RefundObjectId::parse(&self.id)?,
            intent: self.payment_intent.as_deref().and_then(IntentId::parse),
            owner: owner(&self.metadata).zip(refund_id),
            amount: self.amount,
            currency: self.currency.to_ascii_uppercase(),
            standing: match self.status.as_str() {
                "succeeded" => RefundStanding::Succeeded,
                "failed" | "canceled" => RefundStanding::Failed,
                _ => RefundStanding::Other,
            },
            created_at: OffsetDateTime::from_unix_timestamp(self.created).ok()?,
        })
    }

    /// Whether its metadata names the refund.
    pub(crate) fn is_of(&self, order: &RefundOrder) -> bool {
        self.metadata.get("refund_id") == Some(&order.refund_id.to_string())
    }

    /// What became of it, if it is the refund at all: `known` is its id, once that is.
    pub(crate) fn into_found(
        self,
        order: &RefundOrder,
        known: Option<&RefundObjectId>,
    ) -> Outcome<FoundRefund> {
        let Some(id) = RefundObjectId::parse(&self.id) else { return Outcome::Unknown(Unknown::Unreadable) };
        let names = |key: &str, id: String| self.metadata.get(key) == Some(&id);
        let wrong = first_wrong([
            ("object", self.object == "refund"),
            ("id", known.is_none_or(|known| self.id == known.as_str())),
            ("merchant_id", names("merchant_id", order.merchant_id.to_string())),
            ("payment_id", names("payment_id", order.payment_id.to_string())),
            ("refund_id", self.is_of(order)),
            ("payment_intent", self.payment_intent.as_deref() == Some(order.intent.as_str())),
            ("currency", self.currency.eq_ignore_ascii_case(order.money.currency().code())),
            ("amount", self.amount == order.money.amount().get()),
        ]);
        if let Some(field) = wrong {
            return contradicted(&self.id, field);
        }
        Outcome::Settled(match self.status.as_str() {
            "succeeded" => FoundRefund::Succeeded(id),
            "pending" | "requires_action" => FoundRefund::Pending(id),
            "failed" => FoundRefund::Failed(Some(id), Failure::refund_failed(self.failure_reason)),
            "canceled" => FoundRefund::Failed(Some(id), Failure::refund_canceled()),
            _ => return Outcome::Unknown(Unknown::Unreadable),
        })
    }
}
