//! The first witness: what the provider's append-only ledger says about money.

use serde::Deserialize;
use serde_json::Value;

/// The provider's ledger, as it shows it.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Ledger {
    /// Every intent that holds or moved money.
    pub charges: Vec<Charge>,
    /// Every effect, in the order in which they happened.
    pub entries: Vec<Entry>,
}

/// An intent that holds or moved money.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Charge {
    /// The provider's id.
    pub payment_intent: String,
    /// The payment that its metadata names.
    pub payment_id: Option<String>,
    /// What it was made for, in minor units.
    pub amount: i64,
    /// What was captured of it.
    pub amount_captured: i64,
    /// What was refunded of that.
    pub amount_refunded: i64,
    /// In lower case, as the provider writes it.
    pub currency: String,
    /// The provider's status.
    pub status: String,
    /// The keys that were used for it.
    pub idempotency_keys: Vec<String>,
    /// What was refunded, and what became of it.
    pub refunds: Vec<Refunded>,
}

impl Charge {
    /// Whether money is held or was taken.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.status != "canceled"
    }
}

/// A refund of a charge.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Refunded {
    /// The refund that its metadata names.
    pub refund_id: Option<String>,
    /// In minor units.
    pub amount: i64,
    /// The provider's status.
    pub status: String,
}

/// One effect.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Entry {
    /// `authorize`, `capture`, `cancel` or `refund`.
    pub kind: String,
    /// The provider's id.
    pub payment_intent: String,
    /// The payment that the intent's metadata names.
    pub payment_id: Option<String>,
    /// The refund that the metadata names.
    pub refund_id: Option<String>,
    /// In minor units.
    pub amount: i64,
}

impl Ledger {
    /// Reads what the simulator shows.
    ///
    /// # Errors
    /// It shows something else.
    pub fn read(shown: &Value) -> serde_json::Result<Self> {
        Self::deserialize(shown)
    }
}
