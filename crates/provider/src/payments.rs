//! Payment intents: charging, closing, finding, reading, capturing, canceling.

use crate::attempt::{Endpoint, Reply};
use crate::classify::Meaning;
use crate::wire::{Confirm, ErrorObject, Expected, Intent, List, new_intent};
use crate::{Client, PAGE, read};
use domain::faults::{Bug, planted};
use domain::id::OperationId;
use domain::money::Amount;
use domain::operation::Lease;
use domain::provider::{Charge, Closed, Contradiction, Found, Outcome, Target, Unknown};
use time::OffsetDateTime;

pub(crate) const INTENTS: Endpoint<'_> = Endpoint::all("/v1/payment_intents");
pub(crate) const INTENT: &str = "/v1/payment_intents/{id}";
const CAPTURE: &str = "/v1/payment_intents/{id}/capture";
const CANCEL: &str = "/v1/payment_intents/{id}/cancel";

impl Client {
    pub(crate) async fn create(&self, charge: &Charge, confirm: Confirm, lease: &Lease) -> Reply<Intent> {
        self.post(INTENTS, new_intent(charge, confirm), Some(charge.operation_id), lease).await
    }

    pub(crate) async fn read_intent(&self, target: &Target) -> Outcome<Found> {
        let endpoint = Endpoint::one(INTENT, target.intent.as_str());
        read(self.get::<Intent>(endpoint, Vec::new()).await, |found| found.into_found(&Expected::of(target)))
    }

    pub(crate) async fn search(&self, charge: &Charge, since: OffsetDateTime) -> Outcome<Option<Found>> {
        let mut unconfirmed = None;
        let mut after: Option<String> = None;
        loop {
            let mut query =
                vec![("created[gte]", since.unix_timestamp().to_string()), ("limit", PAGE.to_string())];
            if let Some(last) = after {
                query.push(("starting_after", last));
            }
            let page = match read(self.get::<List<Intent>>(INTENTS, query).await, Outcome::Settled) {
                Outcome::Settled(page) => page,
                Outcome::NotExecuted(why) => return Outcome::NotExecuted(why),
                Outcome::Unknown(why) => return Outcome::Unknown(why),
            };
            after = page.data.last().map(|intent| intent.id.clone());
            // newest first, also where the provider does not know the filter
            let passed = page.data.last().is_none_or(|intent| intent.created < since.unix_timestamp());
            for intent in page.data.into_iter().filter(|intent| intent.is_of(charge)) {
                match intent.into_found(&Expected::of_charge(charge)) {
                    // a request that closed the key may have left one beside the charge
                    Outcome::Settled(found @ (Found::Unconfirmed(_) | Found::Canceled(_))) => {
                        unconfirmed = Some(found);
                    }
                    other => return other.map(Some),
                }
            }
            if passed || !page.has_more {
                return Outcome::Settled(unconfirmed);
            }
        }
    }

    pub(crate) async fn capture_intent(
        &self,
        target: &Target,
        amount: Amount,
        operation: OperationId,
        lease: &Lease,
    ) -> Outcome<Found> {
        let endpoint = Endpoint::one(CAPTURE, target.intent.as_str());
        // No metadata: it would replace that of the charge.
        let taken = if planted(Bug::WrongAmountOnCapture) { target.money.amount() } else { amount };
        let form = vec![("amount_to_capture", taken.get().to_string())];
        let reply = self.post::<Intent>(endpoint, form, Some(operation), lease).await;
        self.changed(target, reply, &Expected::of(target).capturing(amount)).await
    }

    pub(crate) async fn cancel_intent(
        &self,
        target: &Target,
        operation: Option<OperationId>,
        lease: &Lease,
    ) -> Outcome<Found> {
        let endpoint = Endpoint::one(CANCEL, target.intent.as_str());
        let reply = self.post::<Intent>(endpoint, Vec::new(), operation, lease).await;
        self.changed(target, reply, &Expected::of(target)).await
    }

    /// What the answer to a capture or cancel comes to.
    async fn changed(
        &self,
        target: &Target,
        reply: Reply<Intent>,
        expected: &Expected<'_>,
    ) -> Outcome<Found> {
        match reply {
            Reply::Object(intent) => intent.into_found(expected),
            Reply::Refused(Meaning::Declined, error) => {
                Outcome::Settled(Found::Declined(None, error.into_decline()))
            }
            Reply::Refused(Meaning::Rejected, error) => {
                Outcome::Settled(Found::Rejected(error.into_rejection()))
            }
            Reply::Refused(Meaning::UnexpectedState, _) => self.read_intent(target).await,
            // the key brings the same ever after: what there is must be read
            Reply::Refused(..) => Outcome::Unknown(Unknown::StoredServerError),
            Reply::NotExecuted(why) => Outcome::NotExecuted(why),
            Reply::Unknown(why) => Outcome::Unknown(why),
        }
    }
}

/// What the answer to a confirmed charge comes to.
pub(crate) fn charged(charge: &Charge, reply: Reply<Intent>) -> Outcome<Found> {
    match reply {
        Reply::Object(intent) => intent.into_found(&Expected::of_charge(charge)),
        Reply::Refused(Meaning::Declined, error) => declined(charge, error),
        Reply::Refused(Meaning::Rejected, error) => Outcome::Settled(Found::Rejected(error.into_rejection())),
        Reply::Refused(Meaning::OtherParameters, _) => Outcome::Unknown(Unknown::OtherParameters),
        Reply::Refused(_, error) => match error.payment_intent {
            Some(intent) => intent.into_found(&Expected::of_charge(charge)),
            None => Outcome::Unknown(Unknown::Unreadable),
        },
        Reply::NotExecuted(why) => Outcome::NotExecuted(why),
        Reply::Unknown(why) => Outcome::Unknown(why),
    }
}

fn declined(charge: &Charge, mut error: ErrorObject) -> Outcome<Found> {
    let intent = match error.payment_intent.take() {
        None => None,
        Some(intent) => match intent.into_found(&Expected::of_charge(charge)) {
            Outcome::Settled(Found::Declined(id, _)) => id,
            Outcome::Settled(Found::Unconfirmed(id) | Found::Canceled(id)) => Some(id),
            // declined, and yet the intent holds money or waits for somebody
            Outcome::Settled(
                Found::Authorized(id) | Found::Captured(id, _) | Found::RequiresAction(id, _),
            ) => {
                let contradiction = Contradiction { object: id.as_str().to_owned(), field: "status" };
                return Outcome::Unknown(Unknown::Contradicted(contradiction));
            }
            other => return other,
        },
    };
    Outcome::Settled(Found::Declined(intent, error.into_decline()))
}

/// What the answer to the same charge without a confirmation comes to.
pub(crate) fn closed(charge: &Charge, reply: Reply<Intent>) -> Outcome<Closed> {
    match reply {
        Reply::Object(intent) => match intent.into_found(&Expected::of_charge(charge)) {
            Outcome::Settled(Found::Unconfirmed(id) | Found::Canceled(id)) => {
                Outcome::Settled(Closed::Ours(id))
            }
            // a provider that ignores parameters gave us the charge itself
            other => other.map(|_| Closed::AlreadyExecuted),
        },
        Reply::Refused(Meaning::OtherParameters, _) => Outcome::Settled(Closed::AlreadyExecuted),
        Reply::Refused(Meaning::Rejected, _) => Outcome::Settled(Closed::Refused),
        Reply::Refused(..) => Outcome::Unknown(Unknown::Unreadable),
        Reply::NotExecuted(why) => Outcome::NotExecuted(why),
        Reply::Unknown(why) => Outcome::Unknown(why),
    }
}
