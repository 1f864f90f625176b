//! Carries commands out: from the state and a command to the commit that says what happened.
//!
//! Nothing here changes the state or does I/O. A command that the state forbids is an execution too: its error is the
//! answer, stored for the idempotency key like any other (Stripe API: idempotent requests).

use std::sync::Arc;

use uuid::Uuid;

use crate::{
    command::{Command, CreateIntent, MISSING_PAYMENT_METHOD},
    commit::{Commit, Effect, EffectKind},
    objects::{ApiError, CaptureMethod, Decline, Intent, IntentStatus, Metadata, Refund, RefundStatus},
    state::State,
    tokens::{self, Behaviour, RefundBehaviour},
};

/// How the control surface ends what waits for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Succeed,
    Fail,
    /// For refunds only.
    Cancel,
}

/// What an execution changed: the parts of a commit that do not depend on the request around it.
#[derive(Debug, Default)]
struct Change {
    effects: Vec<Effect>,
    intent: Option<Arc<Intent>>,
    refund: Option<Arc<Refund>>,
    error: Option<ApiError>,
}

impl Change {
    fn refused(error: ApiError) -> Self {
        Self { error: Some(error), ..Self::default() }
    }

    /// The state forbids it: the error shows the intent as it is.
    fn wrong_state(intent: &Arc<Intent>, message: String) -> Self {
        Self {
            intent: Some(Arc::clone(intent)),
            error: Some(ApiError::unexpected_state(message)),
            ..Self::default()
        }
    }

    fn into_commit(self, now: u64, operation_id: Option<String>) -> Commit {
        let Self { effects, intent, refund, error } = self;
        Commit { at: now, effects, intent, refund, error, operation_id, key: None, answered: true }
    }
}

/// Carries a command out. `key` is the request's idempotency key, `now` in microseconds since 1970.
pub(crate) fn execute(state: &State, command: Command, key: Option<&str>, now: u64) -> Commit {
    let operation_id = match &command {
        Command::Create(new) => new.metadata.get("operation_id").cloned(),
        Command::Capture { metadata, .. } | Command::Refund { metadata, .. } => {
            metadata.get("operation_id").cloned()
        }
        Command::Confirm { .. } | Command::Cancel { .. } => None,
    };
    let change = match command {
        Command::Create(new) => create(state, *new, key, now),
        Command::Confirm { id, payment_method, return_url } => {
            with_intent(state, &id, |intent| confirm(intent, payment_method, return_url, key))
        }
        Command::Capture { id, amount, metadata } => {
            with_intent(state, &id, |intent| capture(intent, amount, metadata, key))
        }
        Command::Cancel { id, reason } => with_intent(state, &id, |intent| cancel(intent, reason, key, now)),
        Command::Refund { payment_intent, amount, reason, metadata } => {
            match state.intent(&payment_intent, "payment_intent") {
                Ok(intent) => refund(intent, amount, reason, metadata, key, now),
                Err(error) => Change::refused(ApiError { status: 400, ..error }),
            }
        }
    };
    change.into_commit(now, operation_id)
}

/// The second half of a refund that is answered as succeeded and then fails, as `pm_card_refundFail` does.
pub(crate) fn aftermath(state: &State, commit: &Commit) -> Option<Commit> {
    let refund = commit.refund.as_ref()?;
    let token = commit.intent.as_ref()?.payment_method.as_deref()?;
    let fails = tokens::behaviour(token) == Some(Behaviour::Succeeds(RefundBehaviour::FailsLater));
    if fails && refund.status == RefundStatus::Succeeded {
        return complete_refund(state, &refund.id, Outcome::Fail, commit.at).ok();
    }
    None
}

/// Plays the customer, or the card network: ends `requires_action` and `processing`.
pub(crate) fn complete_intent(
    state: &State,
    id: &str,
    outcome: Outcome,
    now: u64,
) -> Result<Commit, ApiError> {
    let found = state.intent(id, "id")?;
    let waits = matches!(found.status, IntentStatus::RequiresAction | IntentStatus::Processing);
    if !waits || outcome == Outcome::Cancel {
        let message = format!("A payment intent that is {} cannot be completed so.", found.status.as_str());
        return Err(ApiError::unexpected_state(message));
    }
    let mut intent = Intent::clone(found);
    let mut effects = Vec::new();
    let token = intent.payment_method.clone().unwrap_or_default();
    match (outcome, tokens::decline_after_action(&token)) {
        (Outcome::Succeed, None) => authorize(&mut intent, &mut effects),
        (Outcome::Succeed, Some(decline)) => decline_intent(&mut intent, decline),
        _ if intent.status == IntentStatus::Processing => {
            decline_intent(&mut intent, tokens::generic_decline());
        }
        _ => decline_intent(&mut intent, tokens::authentication_failed()),
    }
    let operation_id = intent.metadata.get("operation_id").cloned();
    let change = Change { effects, intent: Some(Arc::new(intent)), ..Change::default() };
    Ok(change.into_commit(now, operation_id))
}

/// Plays the bank: ends a refund, or takes back one that had succeeded.
pub(crate) fn complete_refund(
    state: &State,
    id: &str,
    outcome: Outcome,
    now: u64,
) -> Result<Commit, ApiError> {
    let found = state.refund(id)?;
    let (status, failure_reason) = match (found.status, outcome) {
        (RefundStatus::Pending, Outcome::Succeed) => (RefundStatus::Succeeded, None),
        (RefundStatus::Pending | RefundStatus::Succeeded, Outcome::Fail) => {
            (RefundStatus::Failed, Some("expired_or_canceled_card".to_owned()))
        }
        (RefundStatus::Pending | RefundStatus::Succeeded, Outcome::Cancel) => {
            (RefundStatus::Canceled, Some("merchant_request".to_owned()))
        }
        (status, _) => {
            let message = format!("A refund that is {status:?} cannot be completed so.").to_lowercase();
            return Err(ApiError::bad_request(message));
        }
    };
    let mut intent = Intent::clone(state.intent(&found.payment_intent, "payment_intent")?);
    if failure_reason.is_some() {
        intent.amount_refunded = intent.amount_refunded.saturating_sub(found.amount);
    }
    let refund = Refund { status, failure_reason, ..Refund::clone(found) };
    let change =
        Change { intent: Some(Arc::new(intent)), refund: Some(Arc::new(refund)), ..Change::default() };
    Ok(change.into_commit(now, None))
}

fn with_intent(state: &State, id: &str, execute: impl FnOnce(&Arc<Intent>) -> Change) -> Change {
    match state.intent(id, "intent") {
        Ok(intent) => execute(intent),
        Err(error) => Change::refused(error),
    }
}

fn create(state: &State, new: CreateIntent, key: Option<&str>, now: u64) -> Change {
    let mut intent = Intent {
        id: new_id("pi"),
        amount: new.amount,
        amount_capturable: 0,
        amount_received: 0,
        amount_refunded: 0,
        currency: new.currency,
        capture_method: new.capture_method,
        status: if new.payment_method.is_some() {
            IntentStatus::RequiresConfirmation
        } else {
            IntentStatus::RequiresPaymentMethod
        },
        payment_method: new.payment_method,
        payment_method_types: new.payment_method_types,
        description: new.description,
        statement_descriptor_suffix: new.statement_descriptor_suffix,
        return_url: new.return_url,
        metadata: new.metadata,
        created: state.creation_time(now),
        canceled_at: None,
        cancellation_reason: None,
        latest_charge: None,
        last_payment_error: None,
        failed_payment_method: None,
        authorized: false,
        idempotency_keys: Vec::new(),
    };
    touch(&mut intent, key);
    let mut change = Change::default();
    if new.confirm {
        change.error = attempt(&mut intent, &mut change.effects);
    }
    change.intent = Some(Arc::new(intent));
    change
}

fn confirm(
    found: &Arc<Intent>,
    payment_method: Option<String>,
    return_url: Option<String>,
    key: Option<&str>,
) -> Change {
    match found.status {
        IntentStatus::RequiresPaymentMethod
        | IntentStatus::RequiresConfirmation
        | IntentStatus::RequiresAction => {}
        IntentStatus::Succeeded | IntentStatus::RequiresCapture => {
            let message = "You cannot confirm this PaymentIntent because it has already succeeded after being \
                           previously confirmed.";
            return Change::wrong_state(found, message.to_owned());
        }
        status => {
            let message = format!(
                "You cannot confirm this PaymentIntent because it has a status of {}. Only a PaymentIntent with one \
                 of the following statuses may be confirmed: requires_payment_method, requires_confirmation, \
                 requires_action.",
                status.as_str()
            );
            return Change::wrong_state(found, message);
        }
    }
    let mut intent = Intent::clone(found);
    touch(&mut intent, key);
    intent.payment_method = payment_method.or(intent.payment_method);
    intent.return_url = return_url.or(intent.return_url);
    if intent.payment_method.is_none() {
        return Change::wrong_state(found, MISSING_PAYMENT_METHOD.to_owned());
    }
    let mut change = Change::default();
    change.error = attempt(&mut intent, &mut change.effects);
    change.intent = Some(Arc::new(intent));
    change
}

fn capture(found: &Arc<Intent>, amount: Option<u64>, metadata: Metadata, key: Option<&str>) -> Change {
    if found.status == IntentStatus::Succeeded {
        let message = "This PaymentIntent could not be captured because it has already been captured.";
        return Change::wrong_state(found, message.to_owned());
    }
    if found.status != IntentStatus::RequiresCapture {
        let message = format!(
            "This PaymentIntent could not be captured because it has a status of {}. Only a PaymentIntent with one of \
             the following statuses may be captured: requires_capture.",
            found.status.as_str()
        );
        return Change::wrong_state(found, message);
    }
    let amount = amount.unwrap_or(found.amount_capturable);
    if amount > found.amount_capturable {
        let message = format!(
            "The provided `amount_to_capture` ({amount}) is greater than the amount you can capture for this \
             PaymentIntent ({}).",
            found.amount_capturable
        );
        return Change::refused(ApiError::parameter("amount_too_large", "amount_to_capture", message));
    }
    let mut intent = Intent::clone(found);
    touch(&mut intent, key);
    intent.metadata.extend(metadata);
    intent.amount_capturable = 0;
    intent.amount_received = amount;
    intent.status = IntentStatus::Succeeded;
    Change {
        effects: vec![Effect { kind: EffectKind::Capture, amount }],
        intent: Some(Arc::new(intent)),
        ..Change::default()
    }
}

fn cancel(found: &Arc<Intent>, reason: Option<String>, key: Option<&str>, now: u64) -> Change {
    // Stripe cancels `processing` only "in rare cases"; a card that is being charged is not one of them.
    if matches!(found.status, IntentStatus::Succeeded | IntentStatus::Canceled | IntentStatus::Processing) {
        let message = format!(
            "You cannot cancel this PaymentIntent because it has a status of {}. Only a PaymentIntent with one of the \
             following statuses may be canceled: requires_payment_method, requires_capture, requires_confirmation, \
             requires_action.",
            found.status.as_str()
        );
        return Change::wrong_state(found, message);
    }
    let mut intent = Intent::clone(found);
    touch(&mut intent, key);
    let released = std::mem::take(&mut intent.amount_capturable);
    intent.status = IntentStatus::Canceled;
    intent.canceled_at = Some(now / 1_000_000);
    intent.cancellation_reason = reason;
    Change {
        effects: vec![Effect { kind: EffectKind::Cancel, amount: released }],
        intent: Some(Arc::new(intent)),
        ..Change::default()
    }
}

fn refund(
    found: &Arc<Intent>,
    amount: Option<u64>,
    reason: Option<String>,
    metadata: Metadata,
    key: Option<&str>,
    now: u64,
) -> Change {
    if found.status != IntentStatus::Succeeded {
        let message =
            format!("This PaymentIntent ({}) does not have a successful charge to refund.", found.id);
        return Change::wrong_state(found, message);
    }
    let left = found.amount_received.saturating_sub(found.amount_refunded);
    let charge = found.latest_charge.clone();
    if left == 0 {
        let message = format!("Charge {} has already been refunded.", charge.as_deref().unwrap_or_default());
        return Change::refused(ApiError {
            code: Some("charge_already_refunded".into()),
            ..ApiError::bad_request(message)
        });
    }
    let amount = amount.unwrap_or(left);
    if amount > left {
        let message =
            format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
        return Change::refused(ApiError::parameter("amount_too_large", "amount", message));
    }
    let token = found.payment_method.as_deref().and_then(tokens::behaviour);
    let status = match token {
        Some(Behaviour::Succeeds(RefundBehaviour::Pending)) => RefundStatus::Pending,
        _ => RefundStatus::Succeeded,
    };
    let mut intent = Intent::clone(found);
    touch(&mut intent, key);
    intent.amount_refunded = intent.amount_refunded.saturating_add(amount);
    let refund = Refund {
        id: new_id("re"),
        payment_intent: intent.id.clone(),
        charge,
        amount,
        currency: intent.currency.clone(),
        reason,
        metadata,
        status,
        failure_reason: None,
        created: now / 1_000_000,
    };
    Change {
        effects: vec![Effect { kind: EffectKind::Refund, amount }],
        intent: Some(Arc::new(intent)),
        refund: Some(Arc::new(refund)),
        ..Change::default()
    }
}

/// Charges the intent's payment method. The error is the answer of an attempt that was declined.
fn attempt(intent: &mut Intent, effects: &mut Vec<Effect>) -> Option<ApiError> {
    match intent.payment_method.as_deref().and_then(tokens::behaviour)? {
        Behaviour::Succeeds(_) => authorize(intent, effects),
        Behaviour::NeedsAction => intent.status = IntentStatus::RequiresAction,
        Behaviour::Processing => intent.status = IntentStatus::Processing,
        Behaviour::Declined(decline) => {
            let error = ApiError::declined(&decline);
            decline_intent(intent, decline);
            return Some(error);
        }
    }
    None
}

fn authorize(intent: &mut Intent, effects: &mut Vec<Effect>) {
    let amount = intent.amount;
    intent.authorized = true;
    intent.latest_charge = Some(new_id("ch"));
    intent.last_payment_error = None;
    intent.failed_payment_method = None;
    effects.push(Effect { kind: EffectKind::Authorize, amount });
    if intent.capture_method == CaptureMethod::Manual {
        intent.amount_capturable = amount;
        intent.status = IntentStatus::RequiresCapture;
    } else {
        intent.amount_received = amount;
        intent.status = IntentStatus::Succeeded;
        effects.push(Effect { kind: EffectKind::Capture, amount });
    }
}

fn decline_intent(intent: &mut Intent, decline: Decline) {
    // A customer who fails to authenticate never gets as far as a charge.
    intent.latest_charge = decline.decline_code.is_some().then(|| new_id("ch"));
    intent.last_payment_error = Some(decline);
    intent.failed_payment_method = intent.payment_method.take();
    intent.status = IntentStatus::RequiresPaymentMethod;
}

fn touch(intent: &mut Intent, key: Option<&str>) {
    intent.idempotency_keys.extend(key.map(ToOwned::to_owned));
}

fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}
