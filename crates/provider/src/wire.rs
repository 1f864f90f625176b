//! Stripe's shapes: what is sent, what comes back, and whether it belongs to what was asked.

use domain::payment::CaptureMethod;
use domain::provider::{Charge, Contradiction, Failure, Found, IntentId, Outcome, Unknown};
use domain::text::{ReturnUrl, StatementDescriptor};
use serde::Deserialize;
use std::collections::HashMap;

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

/// A PaymentIntent, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Intent {
    pub(crate) id: String,
    pub(crate) object: String,
    pub(crate) status: String,
    pub(crate) amount: i64,
    #[serde(default)]
    pub(crate) amount_capturable: i64,
    #[serde(default)]
    pub(crate) amount_received: i64,
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

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct List {
    pub(crate) data: Vec<Intent>,
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

    pub(crate) fn into_rejection(self) -> Failure {
        let message = self.message.unwrap_or_else(|| "The payment provider refused the request.".to_owned());
        Failure::provider_rejected(message)
    }
}

impl Intent {
    /// Whether its metadata names the operation.
    pub(crate) fn is_of(&self, charge: &Charge) -> bool {
        self.metadata.get("operation_id") == Some(&charge.operation_id.to_string())
    }

    /// What it means for the charge, if it is the charge's at all.
    pub(crate) fn into_found(self, charge: &Charge) -> Outcome<Found> {
        let Some(id) = IntentId::parse(&self.id) else { return Outcome::Unknown(Unknown::Unreadable) };
        if let Some(field) = self.contradiction(charge) {
            return Outcome::Unknown(Unknown::Contradicted(Contradiction { intent: Some(id), field }));
        }
        Outcome::Settled(match self.status.as_str() {
            "succeeded" => Found::Captured(id),
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

    /// The first thing that shows that the intent is not the charge's.
    fn contradiction(&self, charge: &Charge) -> Option<&'static str> {
        let amount = charge.money.amount().get();
        let names = |key: &str, id: String| self.metadata.get(key) == Some(&id);
        let method = match self.capture_method.as_deref() {
            Some("manual") => Some(CaptureMethod::Manual),
            Some("automatic" | "automatic_async") => Some(CaptureMethod::Automatic),
            _ => None,
        };
        let checks = [
            ("object", self.object == "payment_intent"),
            ("merchant_id", names("merchant_id", charge.merchant_id.to_string())),
            ("payment_id", names("payment_id", charge.payment_id.to_string())),
            ("operation_id", names("operation_id", charge.operation_id.to_string())),
            ("currency", self.currency.eq_ignore_ascii_case(charge.money.currency().code())),
            ("amount", self.amount == amount),
            ("amount_received", self.status != "succeeded" || self.amount_received == amount),
            ("amount_capturable", self.status != "requires_capture" || self.amount_capturable == amount),
            ("capture_method", method == Some(charge.capture)),
        ];
        checks.into_iter().find(|(_, holds)| !holds).map(|(field, _)| field)
    }
}
