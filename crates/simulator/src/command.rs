//! What a request asks for: its endpoint, and its parameters as a typed command.
//!
//! Everything that can be refused without looking at an object is refused here, before an execution begins: such
//! refusals do not use an idempotency key up (Stripe API: idempotent requests).

use axum::http::Method;

use crate::{
    form::Params,
    objects::{ApiError, CaptureMethod, Metadata},
    tokens,
};

/// Stripe's message for a confirmation without anything to charge.
pub(crate) const MISSING_PAYMENT_METHOD: &str = "You cannot confirm this PaymentIntent because it's missing a payment \
     method. You can either update the PaymentIntent with a payment method and then confirm it again, or confirm it \
     again directly with a payment method or ConfirmationToken.";

/// One of Stripe's endpoints, with the id from its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    CreateIntent,
    ListIntents,
    RetrieveIntent(String),
    ConfirmIntent(String),
    CaptureIntent(String),
    CancelIntent(String),
    CreateRefund,
    ListRefunds,
    RetrieveRefund(String),
}

impl Endpoint {
    /// The table of routes. `None` is a URL Stripe does not have either.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix("/v1/")?.split('/').collect();
        let endpoint = match (method.as_str(), segments.as_slice()) {
            ("POST", ["payment_intents"]) => Self::CreateIntent,
            ("GET", ["payment_intents"]) => Self::ListIntents,
            ("GET", ["payment_intents", id]) => Self::RetrieveIntent((*id).to_owned()),
            ("POST", ["payment_intents", id, "confirm"]) => Self::ConfirmIntent((*id).to_owned()),
            ("POST", ["payment_intents", id, "capture"]) => Self::CaptureIntent((*id).to_owned()),
            ("POST", ["payment_intents", id, "cancel"]) => Self::CancelIntent((*id).to_owned()),
            ("POST", ["refunds"]) => Self::CreateRefund,
            ("GET", ["refunds"]) => Self::ListRefunds,
            ("GET", ["refunds", id]) => Self::RetrieveRefund((*id).to_owned()),
            _ => return None,
        };
        Some(endpoint)
    }

    /// The name under which calls are counted.
    pub(crate) const fn template(&self) -> &'static str {
        match self {
            Self::CreateIntent => "POST /v1/payment_intents",
            Self::ListIntents => "GET /v1/payment_intents",
            Self::RetrieveIntent(_) => "GET /v1/payment_intents/{id}",
            Self::ConfirmIntent(_) => "POST /v1/payment_intents/{id}/confirm",
            Self::CaptureIntent(_) => "POST /v1/payment_intents/{id}/capture",
            Self::CancelIntent(_) => "POST /v1/payment_intents/{id}/cancel",
            Self::CreateRefund => "POST /v1/refunds",
            Self::ListRefunds => "GET /v1/refunds",
            Self::RetrieveRefund(_) => "GET /v1/refunds/{id}",
        }
    }
}

/// A read that passed validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Query {
    ListIntents(Created, Page),
    RetrieveIntent(String),
    ListRefunds { payment_intent: Option<String>, page: Page },
    RetrieveRefund(String),
}

/// A window of creation times, in seconds since 1970, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Created {
    pub from: u64,
    pub to: u64,
}

/// Which part of a list (Stripe API: pagination).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// 1 to 100.
    pub limit: usize,
    /// The last object of the page before.
    pub starting_after: Option<String>,
}

/// A write that passed validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Create(Box<CreateIntent>),
    Confirm { id: String, payment_method: Option<String>, return_url: Option<String> },
    Capture { id: String, amount: Option<u64>, metadata: Metadata },
    Cancel { id: String, reason: Option<String> },
    Refund { payment_intent: String, amount: Option<u64>, reason: Option<String>, metadata: Metadata },
}

/// The parameters of a new intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CreateIntent {
    pub amount: u64,
    pub currency: String,
    pub payment_method: Option<String>,
    pub payment_method_types: Vec<String>,
    pub capture_method: CaptureMethod,
    pub confirm: bool,
    pub description: Option<String>,
    pub statement_descriptor_suffix: Option<String>,
    pub return_url: Option<String>,
    pub metadata: Metadata,
}

/// A request that passed validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Read(Query),
    Write(Command),
}

impl Action {
    /// Reads the parameters of an endpoint; every one of them must be known to it.
    pub(crate) fn parse(endpoint: Endpoint, mut params: Params) -> Result<Self, ApiError> {
        let action = match endpoint {
            Endpoint::CreateIntent => Self::Write(create_intent(&mut params)?),
            Endpoint::ListIntents => {
                Self::Read(Query::ListIntents(created(&mut params)?, page(&mut params)?))
            }
            Endpoint::RetrieveIntent(id) => {
                // A browser's way to read an intent: the key already proves more than the secret would.
                params.text("client_secret");
                Self::Read(Query::RetrieveIntent(id))
            }
            Endpoint::ConfirmIntent(id) => Self::Write(Command::Confirm {
                id,
                payment_method: payment_method(&mut params)?,
                return_url: params.text("return_url"),
            }),
            Endpoint::CaptureIntent(id) => Self::Write(Command::Capture {
                id,
                amount: params.amount("amount_to_capture")?,
                metadata: params.metadata("metadata")?,
            }),
            Endpoint::CancelIntent(id) => {
                let reasons = ["duplicate", "fraudulent", "requested_by_customer", "abandoned"];
                Self::Write(Command::Cancel {
                    id,
                    reason: reason(&mut params, "cancellation_reason", &reasons)?,
                })
            }
            Endpoint::CreateRefund => {
                let reasons = ["duplicate", "fraudulent", "requested_by_customer"];
                Self::Write(Command::Refund {
                    payment_intent: params.required("payment_intent")?,
                    amount: params.amount("amount")?,
                    reason: reason(&mut params, "reason", &reasons)?,
                    metadata: params.metadata("metadata")?,
                })
            }
            Endpoint::ListRefunds => Self::Read(Query::ListRefunds {
                payment_intent: params.text("payment_intent"),
                page: page(&mut params)?,
            }),
            Endpoint::RetrieveRefund(id) => Self::Read(Query::RetrieveRefund(id)),
        };
        params.finish()?;
        Ok(action)
    }
}

fn create_intent(params: &mut Params) -> Result<Command, ApiError> {
    let amount = params.required_amount("amount")?;
    let currency = params.required("currency")?;
    if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_lowercase()) {
        let message = format!("Invalid currency: {currency}. Use a three-letter ISO code in lowercase.");
        return Err(ApiError::parameter("parameter_invalid_string", "currency", message));
    }
    let payment_method = payment_method(params)?;
    let confirm = params.boolean("confirm")?.unwrap_or(false);
    if confirm && payment_method.is_none() {
        return Err(ApiError::unexpected_state(MISSING_PAYMENT_METHOD));
    }
    let return_url = params.text("return_url");
    if return_url.is_some() && !confirm {
        let message = "The parameter `return_url` cannot be passed when creating a PaymentIntent unless `confirm` is \
                       set to true.";
        return Err(ApiError { param: Some("return_url".to_owned()), ..ApiError::bad_request(message) });
    }
    let mut payment_method_types = params.list("payment_method_types");
    if payment_method_types.iter().any(|kind| kind != "card") {
        let message = "provider-simulator knows no other payment method type than card.";
        return Err(ApiError::parameter("parameter_invalid", "payment_method_types", message));
    }
    if payment_method_types.is_empty() {
        payment_method_types.push("card".to_owned());
    }
    let capture_method = params
        .choice("capture_method", "automatic, automatic_async, manual", |value| match value {
            "automatic" => Some(CaptureMethod::Automatic),
            "automatic_async" => Some(CaptureMethod::AutomaticAsync),
            "manual" => Some(CaptureMethod::Manual),
            _ => None,
        })?
        .unwrap_or(CaptureMethod::AutomaticAsync);
    Ok(Command::Create(Box::new(CreateIntent {
        amount,
        currency,
        payment_method,
        payment_method_types,
        capture_method,
        confirm,
        description: params.text("description"),
        statement_descriptor_suffix: params.text("statement_descriptor_suffix"),
        return_url,
        metadata: params.metadata("metadata")?,
    })))
}

fn payment_method(params: &mut Params) -> Result<Option<String>, ApiError> {
    let Some(token) = params.text("payment_method") else { return Ok(None) };
    match tokens::behaviour(&token) {
        Some(_) => Ok(Some(token)),
        None => Err(ApiError { status: 400, ..ApiError::no_such("PaymentMethod", "payment_method", &token) }),
    }
}

fn reason(params: &mut Params, name: &str, reasons: &[&str]) -> Result<Option<String>, ApiError> {
    params.choice(name, &reasons.join(", "), |value| reasons.contains(&value).then(|| value.to_owned()))
}

fn page(params: &mut Params) -> Result<Page, ApiError> {
    let limit = match params.integer("limit", 1)?.map_or(Ok(10), usize::try_from) {
        Ok(limit) if limit <= 100 => limit,
        _ => {
            let message = "This value must be less than or equal to 100.";
            return Err(ApiError::parameter("parameter_invalid_integer", "limit", message));
        }
    };
    Ok(Page { limit, starting_after: params.text("starting_after") })
}

fn created(params: &mut Params) -> Result<Created, ApiError> {
    let from = params.integer("created[gte]", 0)?.unwrap_or(0);
    let after = params.integer("created[gt]", 0)?.map_or(0, |second| second.saturating_add(1));
    let to = params.integer("created[lte]", 0)?.unwrap_or(u64::MAX);
    let before = params.integer("created[lt]", 1)?.map_or(u64::MAX, |second| second.saturating_sub(1));
    Ok(Created { from: from.max(after), to: to.min(before) })
}
