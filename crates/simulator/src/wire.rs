//! How objects look on the wire (Stripe API: the PaymentIntent object, the Refund object, errors).
//!
//! Rendering is a pure function of a commit, so a replayed answer has the bytes of the first one.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    commit::Commit,
    objects::{ApiError, CaptureMethod, ErrorType, Intent, IntentStatus, Metadata, Refund, RefundStatus},
};

#[derive(Serialize)]
struct IntentView<'a> {
    id: &'a str,
    object: &'static str,
    amount: u64,
    amount_capturable: u64,
    amount_received: u64,
    canceled_at: Option<u64>,
    cancellation_reason: Option<&'a str>,
    capture_method: CaptureMethod,
    client_secret: String,
    confirmation_method: &'static str,
    created: u64,
    currency: &'a str,
    customer: Option<&'a str>,
    description: Option<&'a str>,
    last_payment_error: Option<PaymentErrorView<'a>>,
    latest_charge: Option<&'a str>,
    livemode: bool,
    metadata: &'a Metadata,
    next_action: Option<NextActionView<'a>>,
    payment_method: Option<&'a str>,
    payment_method_types: &'a [String],
    statement_descriptor: Option<&'a str>,
    statement_descriptor_suffix: Option<&'a str>,
    status: IntentStatus,
}

impl<'a> From<&'a Intent> for IntentView<'a> {
    fn from(intent: &'a Intent) -> Self {
        Self {
            id: &intent.id,
            object: "payment_intent",
            amount: intent.amount,
            amount_capturable: intent.amount_capturable,
            amount_received: intent.amount_received,
            canceled_at: intent.canceled_at,
            cancellation_reason: intent.cancellation_reason.as_deref(),
            capture_method: intent.capture_method,
            client_secret: format!("{}_secret_simulated", intent.id),
            confirmation_method: "automatic",
            created: intent.created,
            currency: &intent.currency,
            customer: None,
            description: intent.description.as_deref(),
            last_payment_error: payment_error(intent),
            latest_charge: intent.latest_charge.as_deref(),
            livemode: false,
            metadata: &intent.metadata,
            next_action: next_action(intent),
            payment_method: intent.payment_method.as_deref(),
            payment_method_types: &intent.payment_method_types,
            statement_descriptor: None,
            statement_descriptor_suffix: intent.statement_descriptor_suffix.as_deref(),
            status: intent.status,
        }
    }
}

#[derive(Serialize)]
struct PaymentErrorView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_code: Option<&'a str>,
    doc_url: String,
    message: &'a str,
    payment_method: Option<PaymentMethodView<'a>>,
    #[serde(rename = "type")]
    kind: ErrorType,
}

#[derive(Serialize)]
struct PaymentMethodView<'a> {
    id: &'a str,
    object: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
}

fn payment_error(intent: &Intent) -> Option<PaymentErrorView<'_>> {
    let decline = intent.last_payment_error.as_ref()?;
    let payment_method = intent.failed_payment_method.as_deref();
    Some(PaymentErrorView {
        charge: intent.latest_charge.as_deref(),
        code: &decline.code,
        decline_code: decline.decline_code.as_deref(),
        doc_url: doc_url(&decline.code),
        message: &decline.message,
        payment_method: payment_method.map(|id| PaymentMethodView {
            id,
            object: "payment_method",
            kind: "card",
        }),
        kind: if decline.decline_code.is_some() { ErrorType::Card } else { ErrorType::InvalidRequest },
    })
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum NextActionView<'a> {
    RedirectToUrl { redirect_to_url: RedirectView<'a> },
    UseStripeSdk { use_stripe_sdk: SdkView },
}

#[derive(Serialize)]
struct RedirectView<'a> {
    return_url: &'a str,
    url: String,
}

#[derive(Serialize)]
struct SdkView {
    #[serde(rename = "type")]
    kind: &'static str,
}

fn next_action(intent: &Intent) -> Option<NextActionView<'_>> {
    if intent.status != IntentStatus::RequiresAction {
        return None;
    }
    Some(match &intent.return_url {
        Some(return_url) => NextActionView::RedirectToUrl {
            redirect_to_url: RedirectView {
                return_url,
                // Nobody can follow this: the customer is played by the control surface.
                url: format!("https://provider-simulator.invalid/authenticate/{}", intent.id),
            },
        },
        None => NextActionView::UseStripeSdk { use_stripe_sdk: SdkView { kind: "three_d_secure_redirect" } },
    })
}

#[derive(Serialize)]
struct RefundView<'a> {
    id: &'a str,
    object: &'static str,
    amount: u64,
    charge: Option<&'a str>,
    created: u64,
    currency: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_reason: Option<&'a str>,
    metadata: &'a Metadata,
    payment_intent: &'a str,
    reason: Option<&'a str>,
    status: RefundStatus,
}

impl<'a> From<&'a Refund> for RefundView<'a> {
    fn from(refund: &'a Refund) -> Self {
        Self {
            id: &refund.id,
            object: "refund",
            amount: refund.amount,
            charge: refund.charge.as_deref(),
            created: refund.created,
            currency: &refund.currency,
            failure_reason: refund.failure_reason.as_deref(),
            metadata: &refund.metadata,
            payment_intent: &refund.payment_intent,
            reason: refund.reason.as_deref(),
            status: refund.status,
        }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorView<'a>,
}

#[derive(Serialize)]
struct ErrorView<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    charge: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decline_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    doc_url: Option<String>,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_intent: Option<IntentView<'a>>,
    #[serde(rename = "type")]
    kind: ErrorType,
}

#[derive(Serialize)]
struct ListView<'a, V> {
    object: &'static str,
    data: Vec<V>,
    has_more: bool,
    url: &'a str,
}

fn doc_url(code: &str) -> String {
    format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"))
}

/// The body of an error. A decline and a wrong state show the intent they are about.
pub(crate) fn error(error: &ApiError, intent: Option<&Intent>) -> Vec<u8> {
    let declined = intent.filter(|_| error.kind == ErrorType::Card);
    let decline = declined.and_then(|intent| intent.last_payment_error.as_ref());
    render(&ErrorBody {
        error: ErrorView {
            charge: declined.and_then(|intent| intent.latest_charge.as_deref()),
            code: error.code.as_deref(),
            decline_code: decline.and_then(|decline| decline.decline_code.as_deref()),
            doc_url: error.code.as_deref().map(doc_url),
            message: &error.message,
            param: error.param.as_deref(),
            payment_intent: intent.map(IntentView::from),
            kind: error.kind,
        },
    })
}

/// Status and body of an executed request.
pub(crate) fn answer(commit: &Commit) -> (u16, Vec<u8>) {
    match (&commit.error, &commit.refund, &commit.intent) {
        // What broke inside says nothing about the object.
        (Some(failure), ..) if failure.status >= 500 => (failure.status, error(failure, None)),
        (Some(refusal), _, intent) => (refusal.status, error(refusal, intent.as_deref())),
        (None, Some(found), _) => (200, refund(found)),
        (None, None, Some(found)) => (200, intent(found)),
        (None, None, None) => (500, error(&ApiError::internal(), None)),
    }
}

/// A PaymentIntent.
pub(crate) fn intent(intent: &Intent) -> Vec<u8> {
    render(&IntentView::from(intent))
}

/// A Refund.
pub(crate) fn refund(refund: &Refund) -> Vec<u8> {
    render(&RefundView::from(refund))
}

/// A page of PaymentIntents (Stripe API: pagination).
pub(crate) fn intents(data: &[Arc<Intent>], has_more: bool) -> Vec<u8> {
    let data = data.iter().map(|intent| IntentView::from(intent.as_ref())).collect();
    render(&ListView { object: "list", data, has_more, url: "/v1/payment_intents" })
}

/// A page of Refunds.
pub(crate) fn refunds(data: &[Arc<Refund>], has_more: bool) -> Vec<u8> {
    let data = data.iter().map(|refund| RefundView::from(refund.as_ref())).collect();
    render(&ListView { object: "list", data, has_more, url: "/v1/refunds" })
}

fn render(view: &impl Serialize) -> Vec<u8> {
    // Views hold strings, numbers and maps of strings: nothing that JSON cannot express.
    serde_json::to_vec(view).unwrap_or_default()
}
