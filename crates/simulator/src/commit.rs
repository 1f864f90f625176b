//! One executed request: what it changed and what it answered.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    form::Params,
    objects::{ApiError, Intent, Refund},
};

/// One line of the ledger. Effects and answer share it, so a crash keeps both or neither: a request that moved money
/// and forgot its idempotency key would move it again when it is repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    /// Microseconds since 1970.
    pub at: u64,
    /// What happened to money, in order.
    pub effects: Vec<Effect>,
    /// The intent as it is from now on.
    pub intent: Option<Arc<Intent>>,
    /// The refund as it is from now on.
    pub refund: Option<Arc<Refund>>,
    /// Set if the answer is an error; otherwise the answer is the refund, or else the intent.
    pub error: Option<ApiError>,
    /// `metadata[operation_id]` of the request itself; the object's may be an older one.
    pub operation_id: Option<String>,
    /// The request's idempotency key. `None` without one, and for what the control surface did.
    pub key: Option<KeyUse>,
    /// Whether the caller could get the answer: false when a fault lost it or the caller had left.
    pub answered: bool,
}

/// One movement of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Effect {
    pub kind: EffectKind,
    /// In the minor unit.
    pub amount: u64,
}

/// What a movement is called in the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EffectKind {
    /// Money is held.
    Authorize,
    /// Held money moves; what is left of the hold is released.
    Capture,
    /// The intent is over; the amount is what was held until then, often nothing.
    Cancel,
    /// Captured money goes back.
    Refund,
}

/// Which request an idempotency key belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyUse {
    pub key: String,
    /// A key is good for one endpoint.
    pub path: String,
    /// Stands for the parameters, whatever their order.
    pub fingerprint: String,
}

impl KeyUse {
    /// The identity of a request.
    pub(crate) fn new(key: String, path: &str, params: &Params) -> Self {
        let mut hash = Sha256::new();
        for (name, value) in params.pairs() {
            // Lengths keep `a=b&c=d` and `a=b%26c%3Dd` apart.
            hash.update(name.len().to_be_bytes());
            hash.update(name);
            hash.update(value.len().to_be_bytes());
            hash.update(value);
        }
        let mut fingerprint = String::with_capacity(32);
        for byte in hash.finalize().iter().take(16) {
            // Writing to a string cannot fail.
            let _ = write!(fingerprint, "{byte:02x}");
        }
        Self { key, path: path.to_owned(), fingerprint }
    }
}

/// Microseconds since 1970.
pub(crate) fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
