//! A payment, its states, and the one table of legal transitions.

use crate::event::EventType;
use crate::id::{MerchantId, PaymentId, RefundId};
use crate::money::{Amount, AmountError, Money};
use crate::provider::{Failure, IntentId};
use crate::refund::{NewRefund, Refund, RefundStatus};
use crate::text::{
    Description, Email, MetadataKey, MetadataValue, PaymentMethod, PersonName, Reference, ReturnUrl,
    StatementDescriptor,
};
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// How many entries a merchant's metadata may have.
pub const MAX_METADATA_ENTRIES: usize = 50;

/// The merchant's own notes on a payment. They are stored and given back, and never travel to the provider.
pub type Metadata = BTreeMap<MetadataKey, MetadataValue>;

/// When the money moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaptureMethod {
    /// At once.
    #[default]
    Automatic,
    /// When the merchant captures; until then it is only held.
    Manual,
}

impl CaptureMethod {
    /// The name callers and the provider use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Manual => "manual",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Automatic, Self::Manual].into_iter().find(|method| method.name() == name)
    }
}

/// Whom the merchant sells to. Personal data: it stays here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Customer {
    /// The name, as its bearer writes it.
    pub name: Option<PersonName>,
    /// Where to reach them.
    pub email: Option<Email>,
}

/// What a merchant asks for when it creates a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayment {
    /// What to charge.
    pub money: Money,
    /// The merchant's order number: at most one living payment has it.
    pub reference: Reference,
    /// The provider's token of the card.
    pub payment_method: PaymentMethod,
    /// When the money moves.
    pub capture: CaptureMethod,
    /// What it is for.
    pub description: Option<Description>,
    /// Who pays.
    pub customer: Customer,
    /// What the customer reads on the card's statement, behind the merchant's name.
    pub statement_descriptor: Option<StatementDescriptor>,
    /// Where the bank sends the customer back to. Without it a payment that needs the customer fails.
    pub return_url: Option<ReturnUrl>,
    /// The merchant's notes.
    pub metadata: Metadata,
}

/// A payment as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// Its id.
    pub id: PaymentId,
    /// Whose it is.
    pub merchant_id: MerchantId,
    /// What was asked for.
    pub request: NewPayment,
    /// Where it stands.
    pub state: State,
    /// Minor units given back, refunds without an outcome included.
    pub amount_refunded: i64,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Where the customer has to go, while the payment waits for that.
    pub redirect_url: Option<String>,
    /// The provider's id of it, from its first answer on.
    pub intent: Option<IntentId>,
    /// When it was created, to the microsecond. Its id holds the same instant.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// What callers see of [`State`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The first charge has no outcome yet.
    Processing,
    /// The customer has to confirm.
    RequiresAction,
    /// The money is held.
    Authorized,
    /// The money moved. A refunded payment stays so.
    Captured,
    /// The hold was released.
    Canceled,
    /// No money was held or moved.
    Failed,
}

impl Status {
    /// Every status there is.
    pub const ALL: [Self; 6] = [
        Self::Processing,
        Self::RequiresAction,
        Self::Authorized,
        Self::Captured,
        Self::Canceled,
        Self::Failed,
    ];

    /// The name callers see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Processing => "processing",
            Self::RequiresAction => "requires_action",
            Self::Authorized => "authorized",
            Self::Captured => "captured",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }

    /// Whether the merchant may use the payment's reference again.
    #[must_use]
    pub const fn releases_reference(self) -> bool {
        matches!(self, Self::Canceled | Self::Failed)
    }
}

/// Work on a payment that was asked for and has no outcome yet. There is at most one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingOperation {
    /// A capture of so much.
    Capture(Amount),
    /// A cancel.
    Cancel,
}

impl PendingOperation {
    /// The name callers see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Capture(_) => "capture",
            Self::Cancel => "cancel",
        }
    }
}

/// Where a payment stands. Combinations that make no sense cannot be written: only a held payment has a pending
/// capture, and only a captured one has a captured amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The first charge has no outcome yet.
    Processing,
    /// Waits for the customer; perhaps a cancel is on its way.
    RequiresAction {
        /// Whether a cancel was asked for.
        canceling: bool,
    },
    /// The money is held; perhaps a capture or cancel is on its way.
    Authorized {
        /// What was asked for.
        pending: Option<PendingOperation>,
    },
    /// So much of it moved.
    Captured {
        /// Minor units, at most the payment's amount.
        amount: Amount,
    },
    /// Released.
    Canceled,
    /// Ended without money.
    Failed,
}

impl State {
    /// What callers see of it.
    #[must_use]
    pub const fn status(self) -> Status {
        match self {
            Self::Processing => Status::Processing,
            Self::RequiresAction { .. } => Status::RequiresAction,
            Self::Authorized { .. } => Status::Authorized,
            Self::Captured { .. } => Status::Captured,
            Self::Canceled => Status::Canceled,
            Self::Failed => Status::Failed,
        }
    }

    /// The capture or cancel that has no outcome yet.
    #[must_use]
    pub const fn pending(self) -> Option<PendingOperation> {
        match self {
            Self::Authorized { pending } => pending,
            Self::RequiresAction { canceling: true } => Some(PendingOperation::Cancel),
            _ => None,
        }
    }

    /// Minor units that moved.
    #[must_use]
    pub const fn amount_captured(self) -> i64 {
        match self {
            Self::Captured { amount } => amount.get(),
            _ => 0,
        }
    }
}

/// Something that happens to a payment: what a merchant asks for, or what the provider answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The provider holds the money.
    Authorized,
    /// The provider moved so much.
    Captured(Amount),
    /// The provider wants the customer to confirm.
    RequiresAction,
    /// The provider declined or rejected, or surely never heard of the charge.
    Failed,
    /// The provider released the money.
    Canceled,
    /// A merchant asked to capture so much.
    CaptureRequested(Amount),
    /// The provider declined the capture; the money is still held.
    CaptureFailed,
    /// A merchant, or the end of the action window, asked to cancel.
    CancelRequested,
    /// The provider refused to cancel; nothing changed there.
    CancelFailed,
}

/// The payment's state does not allow the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{change:?} is not possible while the payment is {from:?}")]
pub struct IllegalTransition {
    /// Where the payment stands.
    pub from: State,
    /// What was to happen.
    pub change: Change,
}

/// Why a merchant's request cannot be granted as the payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The payment's state does not allow it.
    State,
    /// More than was authorised.
    CaptureTooLarge {
        /// Minor units that could be captured.
        most: i64,
    },
    /// More than is left.
    RefundTooLarge {
        /// Minor units that could be refunded.
        most: i64,
    },
    /// Not an amount of the payment's currency.
    Amount(AmountError),
}

/// A legal step from one state to the next. Only [`Payment::transition`] makes one, and the store writes nothing else:
/// whatever is in the database went through the table there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    from: State,
    to: State,
    event: EventType,
}

impl Transition {
    /// The state the payment must still be in.
    #[must_use]
    pub const fn from(&self) -> State {
        self.from
    }

    /// The state it will be in.
    #[must_use]
    pub const fn to(&self) -> State {
        self.to
    }

    /// The event it leaves in the audit trail.
    #[must_use]
    pub const fn event(&self) -> EventType {
        self.event
    }
}

impl Payment {
    /// A payment at its beginning: accepted, and not charged yet.
    #[must_use]
    pub fn new(merchant_id: MerchantId, request: NewPayment, at: OffsetDateTime) -> Self {
        Self {
            id: PaymentId::at(at),
            merchant_id,
            request,
            state: State::Processing,
            amount_refunded: 0,
            failure: None,
            redirect_url: None,
            intent: None,
            created_at: at,
            updated_at: at,
        }
    }

    /// Minor units that a refund may still ask for.
    #[must_use]
    pub const fn refundable(&self) -> i64 {
        self.state.amount_captured().saturating_sub(self.amount_refunded)
    }

    /// Asks to capture so much, or all of it. What is not captured is released.
    ///
    /// # Errors
    /// The payment is not held, or something is asked for already; more than was authorised.
    pub fn request_capture(&self, amount: Option<Amount>) -> Result<Transition, Refusal> {
        let all = self.request.money.amount();
        let asked = amount.unwrap_or(all);
        // the state is judged before the amount
        self.transition(Change::CaptureRequested(all)).map_err(|_| Refusal::State)?;
        if asked > all {
            return Err(Refusal::CaptureTooLarge { most: all.get() });
        }
        Money::new(asked, self.request.money.currency()).map_err(Refusal::Amount)?;
        self.transition(Change::CaptureRequested(asked)).map_err(|_| Refusal::State)
    }

    /// Asks to release what is held, or to wait for the customer no longer.
    ///
    /// # Errors
    /// There is nothing to cancel, or something is asked for already.
    pub fn request_cancel(&self) -> Result<Transition, Refusal> {
        self.transition(Change::CancelRequested).map_err(|_| Refusal::State)
    }

    /// Asks to give so much back, or all that is left.
    ///
    /// # Errors
    /// No money moved; more than is left, open refunds counted as refunded.
    pub fn request_refund(&self, new: NewRefund, at: OffsetDateTime) -> Result<Refund, Refusal> {
        let State::Captured { .. } = self.state else { return Err(Refusal::State) };
        let most = self.refundable();
        let asked = new.amount.or_else(|| Amount::new(most).ok()).ok_or(Refusal::RefundTooLarge { most })?;
        if asked.get() > most {
            return Err(Refusal::RefundTooLarge { most });
        }
        Ok(Refund {
            id: RefundId::at(at),
            merchant_id: self.merchant_id,
            payment_id: self.id,
            money: Money::new(asked, self.request.money.currency()).map_err(Refusal::Amount)?,
            reason: new.reason,
            metadata: new.metadata,
            status: RefundStatus::Processing,
            failure: None,
            object: None,
            created_at: at,
            updated_at: at,
        })
    }

    /// The table of legal transitions.
    ///
    /// # Errors
    /// Every pair of state and change that has no row.
    pub fn transition(&self, change: Change) -> Result<Transition, IllegalTransition> {
        use CaptureMethod::{Automatic, Manual};
        use PendingOperation::{Cancel, Capture};
        use State::{Authorized, Canceled, Captured, Failed, Processing, RequiresAction};

        let from = self.state;
        let all = self.request.money.amount();
        let (to, event) = match (from, change, self.request.capture) {
            // the first charge, and what the customer's confirmation leads to
            (Processing | RequiresAction { .. }, Change::Authorized, Manual) => {
                (Authorized { pending: None }, EventType::Authorized)
            }
            (Processing | RequiresAction { .. }, Change::Captured(amount), Automatic) if amount == all => {
                (Captured { amount }, EventType::Captured)
            }
            (Processing, Change::RequiresAction, _) => {
                (RequiresAction { canceling: false }, EventType::RequiresAction)
            }
            (Processing | RequiresAction { .. }, Change::Failed, _) => (Failed, EventType::Failed),

            // capture
            (Authorized { pending: None }, Change::CaptureRequested(amount), _) if amount <= all => {
                (Authorized { pending: Some(Capture(amount)) }, EventType::CaptureRequested)
            }
            (Authorized { pending: Some(Capture(_)) }, Change::CaptureFailed, _) => {
                (Authorized { pending: None }, EventType::CaptureFailed)
            }
            // also while a cancel is pending: the provider decides that race
            (Authorized { .. }, Change::Captured(amount), _) if amount <= all => {
                (Captured { amount }, EventType::Captured)
            }

            // cancel
            (Authorized { pending: None }, Change::CancelRequested, _) => {
                (Authorized { pending: Some(Cancel) }, EventType::CancelRequested)
            }
            (RequiresAction { canceling: false }, Change::CancelRequested, _) => {
                (RequiresAction { canceling: true }, EventType::CancelRequested)
            }
            (Authorized { pending: Some(Cancel) }, Change::CancelFailed, _) => {
                (Authorized { pending: None }, EventType::CancelFailed)
            }
            (RequiresAction { canceling: true }, Change::CancelFailed, _) => {
                (RequiresAction { canceling: false }, EventType::CancelFailed)
            }
            // also unasked: an authorisation expires at the provider
            (Authorized { .. } | RequiresAction { .. }, Change::Canceled, _) => {
                (Canceled, EventType::Canceled)
            }

            _ => return Err(IllegalTransition { from, change }),
        };
        Ok(Transition { from, to, event })
    }

    /// The payment after a step that was made from it.
    #[must_use]
    pub fn after(mut self, step: &Transition, at: OffsetDateTime) -> Self {
        self.state = step.to;
        // clocks differ between machines; an object never seems to change before it last did
        self.updated_at = self.updated_at.max(at);
        self
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::money::Currency;
    use proptest::prelude::*;

    pub(crate) fn payment(state: State, capture: CaptureMethod) -> Payment {
        let at = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let request = NewPayment {
            money: Money::new(Amount::new(1000).unwrap(), Currency::parse("EUR").unwrap()).unwrap(),
            reference: Reference::parse("order-1").unwrap(),
            payment_method: PaymentMethod::parse("pm_card_visa").unwrap(),
            capture,
            description: None,
            customer: Customer::default(),
            statement_descriptor: None,
            return_url: None,
            metadata: Metadata::new(),
        };
        Payment { state, ..Payment::new(MerchantId::at(at), request, at) }
    }

    fn amounts() -> impl Strategy<Value = Amount> {
        prop_oneof![Just(1), Just(999), Just(1000), Just(1001)].prop_map(|n| Amount::new(n).unwrap())
    }

    fn changes() -> impl Strategy<Value = Change> {
        prop_oneof![
            Just(Change::Authorized),
            amounts().prop_map(Change::Captured),
            Just(Change::RequiresAction),
            Just(Change::Failed),
            Just(Change::Canceled),
            amounts().prop_map(Change::CaptureRequested),
            Just(Change::CaptureFailed),
            Just(Change::CancelRequested),
            Just(Change::CancelFailed),
        ]
    }

    fn run(capture: CaptureMethod, changes: &[Change]) -> Vec<Payment> {
        let mut history = vec![payment(State::Processing, capture)];
        for change in changes {
            let now = history.last().unwrap().clone();
            if let Ok(step) = now.transition(*change) {
                let at = now.updated_at;
                history.push(now.after(&step, at));
            }
        }
        history
    }

    proptest! {
        #[test]
        fn what_has_ended_stays_ended(capture in prop_oneof![Just(CaptureMethod::Automatic), Just(CaptureMethod::Manual)],
                                      changes in prop::collection::vec(changes(), 0..12)) {
            let history = run(capture, &changes);
            for pair in history.windows(2) {
                let before = pair[0].state.status();
                prop_assert!(!matches!(before, Status::Captured | Status::Canceled | Status::Failed), "left {before:?}");
            }
        }

        #[test]
        fn never_more_is_captured_than_was_asked_for(changes in prop::collection::vec(changes(), 0..12)) {
            for capture in [CaptureMethod::Automatic, CaptureMethod::Manual] {
                for step in run(capture, &changes) {
                    prop_assert!(step.state.amount_captured() <= step.request.money.amount().get());
                }
            }
        }

        #[test]
        fn money_that_was_held_never_becomes_failed(changes in prop::collection::vec(changes(), 0..12)) {
            let history = run(CaptureMethod::Manual, &changes);
            let held = history.iter().position(|p| p.state.status() == Status::Authorized);
            let failed = history.iter().position(|p| p.state.status() == Status::Failed);
            prop_assert!(held.is_none() || failed.is_none());
        }

        #[test]
        fn a_second_capture_or_cancel_waits_for_the_first(changes in prop::collection::vec(changes(), 0..12)) {
            for step in run(CaptureMethod::Manual, &changes) {
                if step.state.pending().is_some() {
                    prop_assert!(step.transition(Change::CaptureRequested(Amount::new(1).unwrap())).is_err());
                    prop_assert!(step.transition(Change::CancelRequested).is_err());
                }
            }
        }
    }

    #[test]
    fn an_automatic_payment_is_never_only_held() {
        assert!(payment(State::Processing, CaptureMethod::Automatic).transition(Change::Authorized).is_err());
    }

    #[test]
    fn a_manual_payment_is_not_captured_unasked() {
        let all = Change::Captured(Amount::new(1000).unwrap());
        assert!(payment(State::Processing, CaptureMethod::Manual).transition(all).is_err());
    }

    #[test]
    fn the_provider_decides_a_race_of_capture_against_cancel() {
        let canceling = State::Authorized { pending: Some(PendingOperation::Cancel) };
        let step = payment(canceling, CaptureMethod::Manual)
            .transition(Change::Captured(Amount::new(1000).unwrap()))
            .unwrap();
        assert_eq!(step.to().status(), Status::Captured);
    }

    fn amount(minor: i64) -> Option<Amount> {
        Some(Amount::new(minor).unwrap())
    }

    #[test]
    fn a_capture_takes_all_unless_it_says_less() {
        let held = payment(State::Authorized { pending: None }, CaptureMethod::Manual);
        let pending = |asked| held.request_capture(asked).map(|step| step.to().pending());
        assert_eq!(pending(None), Ok(amount(1000).map(PendingOperation::Capture)));
        assert_eq!(pending(amount(1)), Ok(amount(1).map(PendingOperation::Capture)));
        assert_eq!(pending(amount(1001)), Err(Refusal::CaptureTooLarge { most: 1000 }));
    }

    #[test]
    fn the_state_is_judged_before_the_amount() {
        let pending = State::Authorized { pending: Some(PendingOperation::Cancel) };
        for state in [State::Processing, State::Canceled, State::Failed, pending] {
            let payment = payment(state, CaptureMethod::Manual);
            assert_eq!(payment.request_capture(amount(1001)), Err(Refusal::State), "{state:?}");
            let too_much = NewRefund { amount: amount(1001), ..NewRefund::default() };
            assert_eq!(
                payment.request_refund(too_much, payment.created_at),
                Err(Refusal::State),
                "{state:?}"
            );
        }
    }

    #[test]
    fn a_refund_takes_what_is_left_unless_it_says_less() {
        let captured = payment(State::Captured { amount: Amount::new(600).unwrap() }, CaptureMethod::Manual);
        let refunded = |amount_refunded, asked| {
            let payment = Payment { amount_refunded, ..captured.clone() };
            let new = NewRefund { amount: asked, ..NewRefund::default() };
            payment.request_refund(new, payment.created_at).map(|refund| refund.money.amount().get())
        };
        assert_eq!(refunded(0, None), Ok(600));
        assert_eq!(refunded(200, None), Ok(400));
        assert_eq!(refunded(200, amount(400)), Ok(400));
        assert_eq!(refunded(200, amount(401)), Err(Refusal::RefundTooLarge { most: 400 }));
        assert_eq!(refunded(600, None), Err(Refusal::RefundTooLarge { most: 0 }));
    }

    #[test]
    fn parts_of_three_decimal_currencies_are_multiples_of_ten() {
        let mut held = payment(State::Authorized { pending: None }, CaptureMethod::Manual);
        held.request.money = Money::new(Amount::new(1000).unwrap(), Currency::parse("KWD").unwrap()).unwrap();
        let refused = Refusal::Amount(AmountError::NotAMultipleOfTen);
        assert_eq!(held.request_capture(amount(15)), Err(refused));
        held.state = State::Captured { amount: Amount::new(1000).unwrap() };
        let new = NewRefund { amount: amount(15), ..NewRefund::default() };
        assert_eq!(held.request_refund(new, held.created_at), Err(refused));
    }

    #[test]
    fn names_are_read_back() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.name()), Some(status));
        }
        assert_eq!(CaptureMethod::parse("manual"), Some(CaptureMethod::Manual));
        assert_eq!(CaptureMethod::parse("later"), None);
    }
}
