//! What the simulated provider remembers: payment intents, refunds and the errors it answered.
//!
//! These are the simulator's own records, written to its ledger. What a client sees of them is in `wire`.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

/// Text attached by the caller (Stripe API: metadata). Ordered, so that an object renders the same every time.
pub(crate) type Metadata = BTreeMap<String, String>;

/// When the money moves (Stripe API: `capture_method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CaptureMethod {
    /// Captured as soon as it is authorised.
    Automatic,
    /// As `Automatic`; Stripe may capture a moment later, the simulator never does.
    AutomaticAsync,
    /// Held until `/capture`.
    Manual,
}

/// The life of a PaymentIntent (Stripe API: PaymentIntents, status).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IntentStatus {
    /// Nothing to charge yet, or the last attempt was declined.
    RequiresPaymentMethod,
    /// Created without `confirm`.
    RequiresConfirmation,
    /// The customer has to authenticate.
    RequiresAction,
    /// The card network has not answered yet.
    Processing,
    /// Authorised; the money is held.
    RequiresCapture,
    /// Captured.
    Succeeded,
    /// Will never move money (again).
    Canceled,
}

impl IntentStatus {
    /// The name on the wire.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::Processing => "processing",
            Self::RequiresCapture => "requires_capture",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }
}

/// Why a card was refused (Stripe documentation: error codes, decline codes).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Decline {
    /// Such as `card_declined` or `expired_card`.
    pub code: Cow<'static, str>,
    /// The issuer's reason, such as `insufficient_funds`; an authentication that failed has none.
    pub decline_code: Option<Cow<'static, str>>,
    /// For people.
    pub message: Cow<'static, str>,
}

/// A PaymentIntent with the charge it holds. Amounts are in the currency's minor unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub id: String,
    pub amount: u64,
    /// Held and not yet captured.
    pub amount_capturable: u64,
    pub amount_received: u64,
    /// Pending refunds included, failed ones not.
    pub amount_refunded: u64,
    /// Lower case.
    pub currency: String,
    pub capture_method: CaptureMethod,
    pub status: IntentStatus,
    pub payment_method: Option<String>,
    pub payment_method_types: Vec<String>,
    pub description: Option<String>,
    pub statement_descriptor_suffix: Option<String>,
    pub return_url: Option<String>,
    pub metadata: Metadata,
    /// Seconds since 1970. Never smaller than that of an intent made before.
    pub created: u64,
    /// Seconds since 1970.
    pub canceled_at: Option<u64>,
    pub cancellation_reason: Option<String>,
    /// The last attempt to charge, successful or not.
    pub latest_charge: Option<String>,
    /// Why the last attempt failed; gone after the next success.
    pub last_payment_error: Option<Decline>,
    /// The payment method of the attempt that failed: it is taken off the intent, as Stripe does.
    pub failed_payment_method: Option<String>,
    /// Whether money was ever held: what makes an intent a charge in the ledger.
    pub authorized: bool,
    /// Every idempotency key whose execution changed this intent or refunded it, oldest first.
    pub idempotency_keys: Vec<String>,
}

/// The life of a refund (Stripe API: Refunds, status).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStatus {
    Pending,
    Succeeded,
    Failed,
    Canceled,
}

/// Money on its way back. The amount is in the currency's minor unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub id: String,
    pub payment_intent: String,
    pub charge: Option<String>,
    pub amount: u64,
    pub currency: String,
    pub reason: Option<String>,
    pub metadata: Metadata,
    pub status: RefundStatus,
    /// Why it failed or was canceled.
    pub failure_reason: Option<String>,
    /// Seconds since 1970.
    pub created: u64,
}

/// The family of an error (Stripe API: errors, type).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ErrorType {
    /// The provider's own fault.
    #[serde(rename = "api_error")]
    Api,
    /// The card was refused.
    #[serde(rename = "card_error")]
    Card,
    /// An idempotency key used for something else, or still in use.
    #[serde(rename = "idempotency_error")]
    Idempotency,
    /// The caller's fault; Stripe files authentication and rate limits here as well.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
}

/// An answer other than 2xx (Stripe API: errors).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub status: u16,
    #[serde(rename = "type")]
    pub kind: ErrorType,
    pub code: Option<Cow<'static, str>>,
    pub message: Cow<'static, str>,
    pub param: Option<String>,
}

impl ApiError {
    /// An error without a code: the caller adds what it knows.
    fn new(status: u16, kind: ErrorType, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind, code: None, message: message.into(), param: None }
    }

    /// 400 about the request as a whole.
    pub(crate) fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, ErrorType::InvalidRequest, message)
    }

    /// 400 about one parameter, with its code (Stripe documentation: error codes).
    pub(crate) fn parameter(code: &'static str, param: &str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Some(code.into()), param: Some(param.to_owned()), ..Self::bad_request(message) }
    }

    /// 400: the object exists and its state forbids this.
    pub(crate) fn unexpected_state(message: impl Into<Cow<'static, str>>) -> Self {
        Self { code: Some("payment_intent_unexpected_state".into()), ..Self::bad_request(message) }
    }

    /// 404: no object of this kind has this id.
    pub(crate) fn no_such(kind: &str, param: &str, id: &str) -> Self {
        let message = format!("No such {kind}: '{id}'");
        Self { status: 404, ..Self::parameter("resource_missing", param, message) }
    }

    /// 401: no key, or not an accepted one.
    pub(crate) fn unauthorized(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(401, ErrorType::InvalidRequest, message)
    }

    /// 403: a restricted key without the permission.
    pub(crate) fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(403, ErrorType::InvalidRequest, message)
    }

    /// 404: the URL itself is unknown.
    pub(crate) fn unknown_url(method: &str, path: &str) -> Self {
        let message = format!(
            "Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at \
             https://support.stripe.com/."
        );
        Self::new(404, ErrorType::InvalidRequest, message)
    }

    /// 402: the card was refused. Charge and decline code are those of the intent.
    pub(crate) fn declined(decline: &Decline) -> Self {
        Self { code: Some(decline.code.clone()), ..Self::new(402, ErrorType::Card, decline.message.clone()) }
    }

    /// 400: the idempotency key belongs to another request.
    pub(crate) fn idempotency(message: String) -> Self {
        Self::new(400, ErrorType::Idempotency, message)
    }

    /// 409: the first request with this key is still being executed.
    pub(crate) fn key_in_use(key: &str) -> Self {
        let message = format!(
            "There is currently another in-progress request using this Idempotent Key (that probably means you \
             submitted twice, and the other request is still going through): {key}. Please try again later."
        );
        Self {
            code: Some("idempotency_key_in_use".into()),
            ..Self::new(409, ErrorType::Idempotency, message)
        }
    }

    /// 429: too many requests at once.
    pub(crate) fn rate_limited() -> Self {
        let message = "Too many requests hit the API too quickly. We recommend an exponential backoff of your requests.";
        Self { code: Some("rate_limit".into()), ..Self::new(429, ErrorType::InvalidRequest, message) }
    }

    /// 500: something broke at the provider.
    pub(crate) fn internal() -> Self {
        Self::new(500, ErrorType::Api, "An unknown error occurred. (provider-simulator: an injected fault)")
    }
}
