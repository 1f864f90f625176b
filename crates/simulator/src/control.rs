//! The control surface, outside Stripe's paths: what happened to money, which faults to inject, how to turn time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{Method, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

use crate::{
    commit::EffectKind,
    execute::Outcome,
    faults::{FaultKind, Traffic},
    objects::{ApiError, Intent, IntentStatus, Refund, RefundStatus},
    simulator::{Failed, SettingsPatch, Simulator},
    state::Snapshot,
    wire,
};

/// All routes below `/_sim`.
pub(crate) fn router() -> Router<Arc<Simulator>> {
    Router::new()
        .route("/ledger", get(ledger))
        .route("/faults", get(show_faults).put(replace_faults).delete(clear_faults))
        .route("/settings", get(show_settings).put(change_settings))
        .route("/payment_intents/{id}/complete", post(complete_intent))
        .route("/refunds/{id}/complete", post(complete_refund))
        .fallback(nothing_here)
}

type Sim = State<Arc<Simulator>>;

async fn nothing_here(method: Method, uri: Uri) -> Response {
    refusal(ApiError::unknown_url(method.as_str(), uri.path()).into())
}

async fn ledger(State(simulator): Sim) -> Response {
    let snapshot = match simulator.snapshot().await {
        Ok(snapshot) => snapshot,
        Err(failed) => return refusal(failed),
    };
    let (calls, injected) = {
        let traffic = simulator.traffic();
        (traffic.calls.clone(), traffic.injected.clone())
    };
    json(StatusCode::OK, &LedgerView::new(&snapshot, calls, injected))
}

async fn show_faults(State(simulator): Sim) -> Response {
    json(StatusCode::OK, simulator.traffic().rules())
}

async fn replace_faults(State(simulator): Sim, body: Bytes) -> Response {
    match Traffic::parse(&body) {
        Ok(rules) => {
            let mut traffic = simulator.traffic();
            traffic.replace(rules);
            json(StatusCode::OK, traffic.rules())
        }
        Err(message) => refusal(ApiError::bad_request(message).into()),
    }
}

async fn clear_faults(State(simulator): Sim) -> StatusCode {
    simulator.traffic().replace(Vec::new());
    StatusCode::NO_CONTENT
}

async fn show_settings(State(simulator): Sim) -> Response {
    json(StatusCode::OK, &simulator.settings())
}

async fn change_settings(State(simulator): Sim, body: Bytes) -> Response {
    match serde_json::from_slice::<SettingsPatch>(&body) {
        Ok(patch) => json(StatusCode::OK, &simulator.change_settings(patch)),
        Err(error) => refusal(ApiError::bad_request(error.to_string()).into()),
    }
}

/// `{"outcome": "succeed" | "fail"}`; refunds know `cancel` as well.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Completion {
    outcome: Outcome,
}

async fn complete_intent(State(simulator): Sim, Path(id): Path<String>, body: Bytes) -> Response {
    let outcome = match serde_json::from_slice::<Completion>(&body) {
        Ok(Completion { outcome }) => outcome,
        Err(error) => return refusal(ApiError::bad_request(error.to_string()).into()),
    };
    match simulator.complete_intent(&id, outcome).await {
        Ok(commit) => raw(StatusCode::OK, wire::answer(&commit).1),
        Err(failed) => refusal(failed),
    }
}

async fn complete_refund(State(simulator): Sim, Path(id): Path<String>, body: Bytes) -> Response {
    let outcome = match serde_json::from_slice::<Completion>(&body) {
        Ok(Completion { outcome }) => outcome,
        Err(error) => return refusal(ApiError::bad_request(error.to_string()).into()),
    };
    match simulator.complete_refund(&id, outcome).await {
        Ok(commit) => raw(StatusCode::OK, wire::answer(&commit).1),
        Err(failed) => refusal(failed),
    }
}

/// The whole ledger, for checkers.
#[derive(Serialize)]
struct LedgerView<'a> {
    charges: Vec<ChargeView<'a>>,
    entries: Vec<EntryView<'a>>,
    intents: Vec<IntentView<'a>>,
    calls: BTreeMap<&'static str, u64>,
    injected: BTreeMap<FaultKind, u64>,
}

/// An intent that holds or moved money.
#[derive(Serialize)]
struct ChargeView<'a> {
    payment_intent: &'a str,
    payment_id: Option<&'a str>,
    amount: u64,
    amount_captured: u64,
    amount_refunded: u64,
    currency: &'a str,
    status: IntentStatus,
    idempotency_keys: &'a [String],
    refunds: Vec<RefundView<'a>>,
    created: u64,
}

#[derive(Serialize)]
struct RefundView<'a> {
    id: &'a str,
    refund_id: Option<&'a str>,
    amount: u64,
    status: RefundStatus,
}

/// One movement of money.
#[derive(Serialize)]
struct EntryView<'a> {
    /// From 1, in the order of execution.
    seq: usize,
    /// RFC 3339, UTC.
    at: String,
    kind: EffectKind,
    payment_intent: Option<&'a str>,
    payment_id: Option<&'a str>,
    operation_id: Option<&'a str>,
    refund_id: Option<&'a str>,
    merchant_id: Option<&'a str>,
    amount: u64,
    idempotency_key: Option<&'a str>,
    answered: bool,
}

#[derive(Serialize)]
struct IntentView<'a> {
    payment_intent: &'a str,
    payment_id: Option<&'a str>,
    status: IntentStatus,
    created: u64,
}

impl<'a> LedgerView<'a> {
    fn new(
        snapshot: &'a Snapshot,
        calls: BTreeMap<&'static str, u64>,
        injected: BTreeMap<FaultKind, u64>,
    ) -> Self {
        let mut refunds: HashMap<&str, Vec<RefundView<'a>>> = HashMap::new();
        for refund in &snapshot.refunds {
            refunds.entry(&refund.payment_intent).or_default().push(RefundView {
                id: &refund.id,
                refund_id: refund.metadata.get("refund_id").map(String::as_str),
                amount: refund.amount,
                status: refund.status,
            });
        }
        let charges = snapshot.intents.iter().filter(|intent| intent.authorized).map(|intent| ChargeView {
            payment_intent: &intent.id,
            payment_id: payment_id(intent),
            amount: intent.amount,
            amount_captured: intent.amount_received,
            amount_refunded: intent.amount_refunded,
            currency: &intent.currency,
            status: intent.status,
            idempotency_keys: &intent.idempotency_keys,
            refunds: refunds.remove(intent.id.as_str()).unwrap_or_default(),
            created: intent.created,
        });
        let intents = snapshot.intents.iter().map(|intent| IntentView {
            payment_intent: &intent.id,
            payment_id: payment_id(intent),
            status: intent.status,
            created: intent.created,
        });
        Self {
            charges: charges.collect(),
            entries: entries(snapshot),
            intents: intents.collect(),
            calls,
            injected,
        }
    }
}

fn entries(snapshot: &Snapshot) -> Vec<EntryView<'_>> {
    let effects =
        snapshot.commits.iter().flat_map(|commit| commit.effects.iter().map(move |it| (commit, it)));
    effects
        .zip(1..)
        .map(|((commit, effect), seq)| {
            let refund: Option<&Refund> = commit.refund.as_deref();
            let intent: Option<&Intent> = commit.intent.as_deref();
            let metadata = |name: &str| {
                let of_refund = refund.and_then(|refund| refund.metadata.get(name));
                of_refund.or_else(|| intent.and_then(|intent| intent.metadata.get(name))).map(String::as_str)
            };
            EntryView {
                seq,
                at: rfc3339(commit.at),
                kind: effect.kind,
                payment_intent: intent.map(|intent| intent.id.as_str()),
                payment_id: metadata("payment_id"),
                operation_id: commit.operation_id.as_deref(),
                refund_id: metadata("refund_id"),
                merchant_id: metadata("merchant_id"),
                amount: effect.amount,
                idempotency_key: commit.key.as_ref().map(|used| used.key.as_str()),
                answered: commit.answered,
            }
        })
        .collect()
}

fn payment_id(intent: &Intent) -> Option<&str> {
    intent.metadata.get("payment_id").map(String::as_str)
}

const RFC3339_MICROS: &[FormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

fn rfc3339(micros: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros).saturating_mul(1_000))
        .ok()
        .and_then(|at| at.format(RFC3339_MICROS).ok())
        .unwrap_or_default()
}

fn json(status: StatusCode, value: &(impl Serialize + ?Sized)) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => raw(status, body),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn raw(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn refusal(failed: Failed) -> Response {
    let error = match failed {
        Failed::Refused(error) => *error,
        Failed::Broken => ApiError::internal(),
    };
    let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    raw(status, wire::error(&error, None))
}
