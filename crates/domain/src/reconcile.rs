//! Comparing provider and database: what differs between a payment or refund here and what the provider lists.
//!
//! Nothing is decided here and nothing is changed by it: what differs is for a person, and what is open is the operations'
//! business. The values of both sides are as they were found, so they are plain numbers and texts: a row that somebody
//! edited, or an object of another program, need not be anything that this service would have written.

use crate::id::{MerchantId, PaymentId, RefundId};
use crate::payment::Status;
use crate::provider::{IntentId, RefundObjectId};
use crate::refund::RefundStatus;
use time::OffsetDateTime;

/// What can be different. The names are labels of a metric, so the set is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The provider holds or moved money for a payment that is not here.
    UnknownCharge,
    /// The payment stands on a charge that the provider does not know.
    MissingCharge,
    /// The provider holds or moved money for the payment beside its own charge.
    SecondCharge,
    /// The payment failed or was canceled, and the provider holds or moved its money.
    EndedWithMoney,
    /// The provider's object names another merchant, payment or refund.
    WrongOwner,
    /// The amounts differ.
    Amount,
    /// The currencies differ.
    Currency,
    /// Another amount was captured.
    Captured,
    /// The refunded amount is not the sum of the payment's refunds.
    Refunded,
    /// The payment stands otherwise.
    Status,
    /// The provider gave money back, and no refund here says so.
    UnknownRefund,
    /// The refund succeeded, and the provider does not know it.
    MissingRefund,
    /// The refund has another amount, currency, payment or end.
    Refund,
}

impl Difference {
    /// Every kind there is.
    pub const ALL: [Self; 13] = [
        Self::UnknownCharge,
        Self::MissingCharge,
        Self::SecondCharge,
        Self::EndedWithMoney,
        Self::WrongOwner,
        Self::Amount,
        Self::Currency,
        Self::Captured,
        Self::Refunded,
        Self::Status,
        Self::UnknownRefund,
        Self::MissingRefund,
        Self::Refund,
    ];

    /// The name that operators see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownCharge => "unknown_charge",
            Self::MissingCharge => "missing_charge",
            Self::SecondCharge => "second_charge",
            Self::EndedWithMoney => "ended_with_money",
            Self::WrongOwner => "wrong_owner",
            Self::Amount => "amount_differs",
            Self::Currency => "currency_differs",
            Self::Captured => "captured_differs",
            Self::Refunded => "refunded_differs",
            Self::Status => "status_differs",
            Self::UnknownRefund => "unknown_refund",
            Self::MissingRefund => "missing_refund",
            Self::Refund => "refund_differs",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|difference| difference.name() == name)
    }
}

/// Whom an object at the provider names in its metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The merchant.
    pub merchant_id: MerchantId,
    /// The payment.
    pub payment_id: PaymentId,
}

/// A charge as the provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCharge {
    /// Its id.
    pub intent: IntentId,
    /// Whom it names; `None`: it is of another program on the same account.
    pub owner: Option<Owner>,
    /// Minor units asked for.
    pub amount: i64,
    /// Upper case.
    pub currency: String,
    /// Where it stands.
    pub standing: Standing,
    /// When it was made, by the provider's clock.
    pub created_at: OffsetDateTime,
}

/// Where a charge stands at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// So much is held.
    Held(i64),
    /// So much moved.
    Moved(i64),
    /// The customer has to confirm.
    Waiting,
    /// Declined, or never confirmed: it holds nothing.
    Empty,
    /// Released, or never to be confirmed.
    Canceled,
    /// The provider works on it, or says something that this version does not know.
    Other,
}

impl ListedCharge {
    /// Whether money is held or moved.
    #[must_use]
    pub const fn has_money(&self) -> bool {
        matches!(self.standing, Standing::Held(_) | Standing::Moved(_))
    }
}

/// A payment as it stands here, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedPayment {
    /// Which.
    pub owner: Owner,
    /// Where it stands.
    pub status: Status,
    /// Minor units asked for.
    pub amount: i64,
    /// Upper case.
    pub currency: String,
    /// Minor units that moved.
    pub amount_captured: i64,
    /// Minor units given back, by the payment.
    pub amount_refunded: i64,
    /// Minor units given back, by its refunds.
    pub refunds: i64,
    /// The provider's id of it, once it is known.
    pub intent: Option<IntentId>,
    /// Whether something that was asked for has no outcome. What waits for a person is not open.
    pub open: bool,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

impl BookedPayment {
    /// Whether a charge is the one that the payment stands on.
    #[must_use]
    pub fn stands_on(&self, there: &ListedCharge) -> bool {
        self.intent.as_ref().is_none_or(|intent| *intent == there.intent)
    }

    /// Whether the provider must know a charge of it.
    #[must_use]
    pub const fn needs_charge(&self) -> bool {
        matches!(self.status, Status::RequiresAction | Status::Authorized | Status::Captured)
    }

    /// What differs between the payment and a charge.
    #[must_use]
    pub fn compare(&self, there: &ListedCharge) -> Vec<Difference> {
        if there.owner != Some(self.owner) {
            return vec![Difference::WrongOwner];
        }
        let ended = matches!(self.status, Status::Failed | Status::Canceled);
        if ended && there.has_money() {
            return vec![Difference::EndedWithMoney];
        }
        if !self.stands_on(there) {
            // a request that closed the key may have left an empty one beside the charge
            return if there.has_money() { vec![Difference::SecondCharge] } else { Vec::new() };
        }
        let (status, captured) = match (self.status, there.standing) {
            (Status::Captured, Standing::Moved(moved)) => (true, moved == self.amount_captured),
            // a hold of less would be captured for less
            (Status::Authorized, Standing::Held(held)) => (held == self.amount, true),
            (Status::RequiresAction, Standing::Waiting)
            | (Status::Canceled, Standing::Canceled)
            | (Status::Failed, Standing::Empty | Standing::Canceled) => (true, true),
            _ => (false, true),
        };
        differing([
            (Difference::Amount, self.amount == there.amount),
            (Difference::Currency, self.currency == there.currency),
            (Difference::Captured, captured),
            (Difference::Refunded, self.amount_refunded == self.refunds),
            (Difference::Status, status),
        ])
    }
}

/// A refund as the provider lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRefund {
    /// Its id.
    pub object: RefundObjectId,
    /// What it gives back.
    pub intent: Option<IntentId>,
    /// Whom it names; `None`: it was not asked for here.
    pub owner: Option<(Owner, RefundId)>,
    /// Minor units.
    pub amount: i64,
    /// Upper case.
    pub currency: String,
    /// Where it stands.
    pub standing: RefundStanding,
    /// When it was made, by the provider's clock.
    pub created_at: OffsetDateTime,
}

/// Where a refund stands at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundStanding {
    /// The money is on its way.
    Succeeded,
    /// No money went back, or it returned.
    Failed,
    /// The provider works on it, or says something that this version does not know.
    Other,
}

impl ListedRefund {
    /// Whether money is on its way back, or may still be.
    #[must_use]
    pub fn has_money(&self) -> bool {
        self.standing != RefundStanding::Failed
    }
}

/// A refund as it stands here, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookedRefund {
    /// Of which payment.
    pub owner: Owner,
    /// Which.
    pub refund_id: RefundId,
    /// Where it stands.
    pub status: RefundStatus,
    /// Minor units.
    pub amount: i64,
    /// The payment's, upper case.
    pub currency: String,
    /// The payment's charge.
    pub intent: Option<IntentId>,
    /// The provider's id of it, once it is known.
    pub object: Option<RefundObjectId>,
    /// Whether it has no outcome. What waits for a person is not open.
    pub open: bool,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

impl BookedRefund {
    /// Whether an object is the one that the refund stands on.
    #[must_use]
    pub fn stands_on(&self, there: &ListedRefund) -> bool {
        self.object.as_ref().is_none_or(|object| *object == there.object)
    }

    /// What differs between the refund and an object.
    #[must_use]
    pub fn compare(&self, there: &ListedRefund) -> Vec<Difference> {
        if there.owner != Some((self.owner, self.refund_id)) {
            return vec![Difference::WrongOwner];
        }
        if !self.stands_on(there) {
            return if there.has_money() { vec![Difference::UnknownRefund] } else { Vec::new() };
        }
        let ends = matches!(
            (self.status, there.standing),
            (RefundStatus::Succeeded, RefundStanding::Succeeded)
                | (RefundStatus::Failed, RefundStanding::Failed)
        );
        let same = ends
            && self.amount == there.amount
            && self.currency == there.currency
            && self.intent == there.intent;
        differing([(Difference::Refund, same)])
    }
}

/// The kinds whose check does not hold.
fn differing(checks: impl IntoIterator<Item = (Difference, bool)>) -> Vec<Difference> {
    checks.into_iter().filter(|(_, holds)| !holds).map(|(difference, _)| difference).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const AT: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    fn owner(n: u128) -> Owner {
        Owner { merchant_id: MerchantId(Uuid::from_u128(n)), payment_id: PaymentId(Uuid::from_u128(n + 1)) }
    }

    fn intent(id: &str) -> IntentId {
        IntentId::parse(id).unwrap()
    }

    fn object(id: &str) -> RefundObjectId {
        RefundObjectId::parse(id).unwrap()
    }

    /// What agrees with what: a status, how much of 1000 was captured, and where the charge stands.
    const AGREEING: [(Status, i64, Standing); 7] = [
        (Status::Captured, 1000, Standing::Moved(1000)),
        (Status::Captured, 400, Standing::Moved(400)),
        (Status::Authorized, 0, Standing::Held(1000)),
        (Status::RequiresAction, 0, Standing::Waiting),
        (Status::Canceled, 0, Standing::Canceled),
        (Status::Failed, 0, Standing::Empty),
        (Status::Failed, 0, Standing::Canceled),
    ];

    fn pair((status, amount_captured, standing): (Status, i64, Standing)) -> (BookedPayment, ListedCharge) {
        let here = BookedPayment {
            owner: owner(1),
            status,
            amount: 1000,
            currency: "EUR".to_owned(),
            amount_captured,
            amount_refunded: amount_captured / 2,
            refunds: amount_captured / 2,
            intent: Some(intent("pi_1")),
            open: false,
            updated_at: AT,
        };
        let there = ListedCharge {
            intent: intent("pi_1"),
            owner: Some(owner(1)),
            amount: 1000,
            currency: "EUR".to_owned(),
            standing,
            created_at: AT,
        };
        (here, there)
    }

    fn refunds(status: RefundStatus, standing: RefundStanding) -> (BookedRefund, ListedRefund) {
        let here = BookedRefund {
            owner: owner(1),
            refund_id: RefundId(Uuid::from_u128(3)),
            status,
            amount: 100,
            currency: "EUR".to_owned(),
            intent: Some(intent("pi_1")),
            object: Some(object("re_1")),
            open: false,
            updated_at: AT,
        };
        let there = ListedRefund {
            object: object("re_1"),
            intent: Some(intent("pi_1")),
            owner: Some((owner(1), here.refund_id)),
            amount: 100,
            currency: "EUR".to_owned(),
            standing,
            created_at: AT,
        };
        (here, there)
    }

    fn standings() -> impl Strategy<Value = Standing> {
        prop_oneof![
            Just(Standing::Held(1000)),
            (1..=1000_i64).prop_map(Standing::Moved),
            Just(Standing::Waiting),
            Just(Standing::Empty),
            Just(Standing::Canceled),
            Just(Standing::Other),
        ]
    }

    fn agreeing() -> impl Strategy<Value = (BookedPayment, ListedCharge)> {
        prop::sample::select(AGREEING.as_slice()).prop_map(pair)
    }

    proptest! {
        #[test]
        fn sides_that_agree_have_no_difference((here, there) in agreeing(), intent_known: bool) {
            let here = BookedPayment { intent: here.intent.filter(|_| intent_known), ..here };
            prop_assert_eq!(here.compare(&there), []);
        }

        #[test]
        fn what_is_changed_on_one_side_is_found_as_its_kind((here, there) in agreeing(), by in 1..500_i64) {
            let differs = |here: &BookedPayment, there: &ListedCharge| here.compare(there);
            let other = BookedPayment { amount: here.amount + by, ..here.clone() };
            prop_assert!(differs(&other, &there).contains(&Difference::Amount));
            let other = BookedPayment { currency: "USD".to_owned(), ..here.clone() };
            prop_assert_eq!(differs(&other, &there), [Difference::Currency]);
            let other = BookedPayment { amount_refunded: here.amount_refunded + by, ..here.clone() };
            prop_assert_eq!(differs(&other, &there), [Difference::Refunded]);
            for named in [None, Some(owner(7))] {
                let other = ListedCharge { owner: named, ..there.clone() };
                prop_assert_eq!(differs(&here, &other), [Difference::WrongOwner]);
            }
            if here.status == Status::Captured {
                let other = BookedPayment { amount_captured: here.amount_captured + by, ..here.clone() };
                prop_assert_eq!(differs(&other, &there), [Difference::Captured]);
            }
        }

        #[test]
        fn a_standing_agrees_with_the_statuses_of_the_table_and_no_other(
            (here, there) in agreeing(), standing in standings()
        ) {
            let there = ListedCharge { standing, ..there };
            let found = here.compare(&there);
            let fits = match standing {
                Standing::Moved(moved) => AGREEING.contains(&(here.status, here.amount_captured, Standing::Moved(moved))),
                other => AGREEING.iter().any(|(status, _, standing)| (*status, *standing) == (here.status, other)),
            };
            prop_assert_eq!(found.is_empty(), fits, "{:?}", found);
            let ended = matches!(here.status, Status::Failed | Status::Canceled);
            if ended && there.has_money() {
                prop_assert_eq!(found, [Difference::EndedWithMoney]);
            }
        }

        #[test]
        fn a_second_charge_is_one_only_with_money((here, there) in agreeing(), standing in standings()) {
            let there = ListedCharge { intent: intent("pi_2"), standing, ..there };
            let expected = match (here.status, there.has_money()) {
                (_, false) => vec![],
                (Status::Failed | Status::Canceled, true) => vec![Difference::EndedWithMoney],
                (_, true) => vec![Difference::SecondCharge],
            };
            prop_assert_eq!(here.compare(&there), expected);
        }
    }

    #[test]
    fn what_nobody_decided_yet_is_no_agreement() {
        for standing in [Standing::Held(1000), Standing::Empty, Standing::Other] {
            let (here, there) = pair((Status::Processing, 0, standing));
            assert_eq!(here.compare(&there), [Difference::Status], "{standing:?}");
        }
        let (here, there) = pair((Status::Authorized, 0, Standing::Held(999)));
        assert_eq!(here.compare(&there), [Difference::Status]);
    }

    #[test]
    fn refunds_are_compared_by_owner_amount_payment_and_end() {
        use RefundStanding::{Failed, Other, Succeeded};
        let (here, there) = refunds(RefundStatus::Succeeded, Succeeded);
        assert_eq!(here.compare(&there), []);
        let (failed, failed_there) = refunds(RefundStatus::Failed, Failed);
        assert_eq!(failed.compare(&failed_there), []);
        let differs = [
            ListedRefund { amount: 99, ..there.clone() },
            ListedRefund { currency: "USD".to_owned(), ..there.clone() },
            ListedRefund { intent: Some(intent("pi_2")), ..there.clone() },
            ListedRefund { standing: Failed, ..there.clone() },
            ListedRefund { standing: Other, ..there.clone() },
        ];
        for other in differs {
            assert_eq!(here.compare(&other), [Difference::Refund], "{other:?}");
        }
        assert_eq!(failed.compare(&there), [Difference::Refund]);
        let nobodys = ListedRefund { owner: None, ..there.clone() };
        assert_eq!(here.compare(&nobodys), [Difference::WrongOwner]);
        let second = ListedRefund { object: object("re_2"), ..there };
        assert_eq!(here.compare(&second), [Difference::UnknownRefund]);
        assert_eq!(here.compare(&ListedRefund { standing: Failed, ..second }), []);
    }

    #[test]
    fn names_are_read_back() {
        for difference in Difference::ALL {
            assert_eq!(Difference::parse(difference.name()), Some(difference));
        }
        assert_eq!(Difference::parse("weather"), None);
    }
}
