//! The payment provider, spoken as Stripe's PaymentIntents protocol.
//!
//! `attempt` sends one request, `classify` is the table of what answers mean, `wire` has the shapes and checks that
//! what came back belongs to what was asked, and [`Client`] puts them together as the domain's port.

mod attempt;
mod classify;
mod wire;

use attempt::{Reply, Request, Transport};
use classify::Meaning;
use domain::operation::Lease;
use domain::provider::{
    Answer, Charge, Closed, Contradiction, Found, IntentId, NotExecuted, Outcome, Provider, Unknown,
};
use reqwest::Method;
use secrecy::SecretString;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use wire::{Confirm, ErrorObject, Intent, List, new_intent};

/// A client of the provider. It is shared by the whole process, and so are its connections.
pub struct Client {
    transport: Transport,
    timeout: Duration,
}

/// Stripe's largest page.
const PAGE: usize = 100;
const INTENTS: &str = "payment_intents";

impl Client {
    /// A client for the API at `base` (without `/v1`). `timeout` bounds one attempt, from connect to last byte.
    ///
    /// # Errors
    /// The TLS set-up of this machine cannot be used.
    pub fn new(base: &str, api_key: SecretString, timeout: Duration) -> Result<Self, reqwest::Error> {
        Ok(Self { transport: Transport::new(base, api_key, timeout)?, timeout })
    }

    fn may_send(&self, lease: &Lease) -> bool {
        lease.covers(Instant::now(), self.timeout)
    }

    async fn create<T>(
        &self,
        charge: &Charge,
        confirm: Confirm,
        lease: &Lease,
        settle: impl FnOnce(Reply<Intent>) -> Outcome<T>,
    ) -> Outcome<T> {
        let request = Request {
            method: Method::POST,
            path: INTENTS,
            query: Vec::new(),
            form: Some(new_intent(charge, confirm)),
            idempotency_key: Some(charge.operation_id.to_string()),
        };
        if !self.may_send(lease) {
            return Outcome::NotExecuted(NotExecuted::LeaseTooShort);
        }
        settle(self.transport.send(request).await)
    }

    async fn read(&self, charge: &Charge, intent: &IntentId) -> Outcome<Found> {
        let path = format!("{INTENTS}/{}", intent.as_str());
        let request = Request {
            method: Method::GET,
            path: &path,
            query: Vec::new(),
            form: None,
            idempotency_key: None,
        };
        match self.transport.send::<Intent>(request).await {
            Reply::Object(found) => found.into_found(charge),
            // what cannot be read is no proof of anything
            Reply::Refused(..) => Outcome::Unknown(Unknown::Unreadable),
            Reply::NotExecuted(why) => Outcome::NotExecuted(why),
            Reply::Unknown(why) => Outcome::Unknown(why),
        }
    }

    async fn search(&self, charge: &Charge, since: OffsetDateTime, lease: &Lease) -> Outcome<Option<Found>> {
        let mut unconfirmed = None;
        let mut after: Option<String> = None;
        loop {
            if !self.may_send(lease) {
                return Outcome::NotExecuted(NotExecuted::LeaseTooShort);
            }
            let mut query =
                vec![("created[gte]", since.unix_timestamp().to_string()), ("limit", PAGE.to_string())];
            if let Some(last) = after {
                query.push(("starting_after", last));
            }
            let request =
                Request { method: Method::GET, path: INTENTS, query, form: None, idempotency_key: None };
            let page = match self.transport.send::<List>(request).await {
                Reply::Object(page) => page,
                Reply::Refused(..) => return Outcome::Unknown(Unknown::Unreadable),
                Reply::NotExecuted(why) => return Outcome::NotExecuted(why),
                Reply::Unknown(why) => return Outcome::Unknown(why),
            };
            after = page.data.last().map(|intent| intent.id.clone());
            // newest first, also where the provider does not know the filter
            let passed = page.data.last().is_none_or(|intent| intent.created < since.unix_timestamp());
            for intent in page.data.into_iter().filter(|intent| intent.is_of(charge)) {
                match intent.into_found(charge) {
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

    async fn release(&self, charge: &Charge, intent: &IntentId, lease: &Lease) -> Outcome<Found> {
        let path = format!("{INTENTS}/{}/cancel", intent.as_str());
        // Without a key: canceling twice is the same as once, and a key would bring a stored 500 for ever.
        let request = Request {
            method: Method::POST,
            path: &path,
            query: Vec::new(),
            form: Some(Vec::new()),
            idempotency_key: None,
        };
        if !self.may_send(lease) {
            return Outcome::NotExecuted(NotExecuted::LeaseTooShort);
        }
        match self.transport.send::<Intent>(request).await {
            Reply::Object(canceled) => canceled.into_found(charge),
            Reply::Refused(Meaning::UnexpectedState, _) => self.read(charge, intent).await,
            Reply::Refused(..) => Outcome::Unknown(Unknown::Unreadable),
            Reply::NotExecuted(why) => Outcome::NotExecuted(why),
            Reply::Unknown(why) => Outcome::Unknown(why),
        }
    }
}

/// What the answer to a confirmed charge comes to.
fn charged(charge: &Charge, reply: Reply<Intent>) -> Outcome<Found> {
    match reply {
        Reply::Object(intent) => intent.into_found(charge),
        Reply::Refused(Meaning::Declined, error) => declined(charge, error),
        Reply::Refused(Meaning::Rejected, error) => Outcome::Settled(Found::Rejected(error.into_rejection())),
        Reply::Refused(Meaning::OtherParameters, _) => Outcome::Unknown(Unknown::OtherParameters),
        Reply::Refused(_, error) => match error.payment_intent {
            Some(intent) => intent.into_found(charge),
            None => Outcome::Unknown(Unknown::Unreadable),
        },
        Reply::NotExecuted(why) => Outcome::NotExecuted(why),
        Reply::Unknown(why) => Outcome::Unknown(why),
    }
}

fn declined(charge: &Charge, mut error: ErrorObject) -> Outcome<Found> {
    let intent = match error.payment_intent.take() {
        None => None,
        Some(intent) => match intent.into_found(charge) {
            Outcome::Settled(Found::Declined(id, _)) => id,
            Outcome::Settled(Found::Unconfirmed(id) | Found::Canceled(id)) => Some(id),
            // declined, and yet the intent holds money or waits for somebody
            Outcome::Settled(Found::Authorized(id) | Found::Captured(id) | Found::RequiresAction(id, _)) => {
                let contradiction = Contradiction { intent: Some(id), field: "status" };
                return Outcome::Unknown(Unknown::Contradicted(contradiction));
            }
            other => return other,
        },
    };
    Outcome::Settled(Found::Declined(intent, error.into_decline()))
}

/// What the answer to the same charge without a confirmation comes to.
fn closed(charge: &Charge, reply: Reply<Intent>) -> Outcome<Closed> {
    match reply {
        Reply::Object(intent) => match intent.into_found(charge) {
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

impl Provider for Client {
    fn charge<'a>(&'a self, charge: &'a Charge, lease: &'a Lease) -> Answer<'a, Found> {
        Box::pin(self.create(charge, Confirm::Yes, lease, |reply| charged(charge, reply)))
    }

    fn close<'a>(&'a self, charge: &'a Charge, lease: &'a Lease) -> Answer<'a, Closed> {
        Box::pin(self.create(charge, Confirm::No, lease, |reply| closed(charge, reply)))
    }

    fn retrieve<'a>(&'a self, charge: &'a Charge, intent: &'a IntentId) -> Answer<'a, Found> {
        Box::pin(self.read(charge, intent))
    }

    fn find<'a>(
        &'a self,
        charge: &'a Charge,
        since: OffsetDateTime,
        lease: &'a Lease,
    ) -> Answer<'a, Option<Found>> {
        Box::pin(self.search(charge, since, lease))
    }

    fn cancel<'a>(&'a self, charge: &'a Charge, intent: &'a IntentId, lease: &'a Lease) -> Answer<'a, Found> {
        Box::pin(self.release(charge, intent, lease))
    }

    fn check_credentials(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let query = vec![("limit", "1".to_owned())];
            let request =
                Request { method: Method::GET, path: INTENTS, query, form: None, idempotency_key: None };
            match self.transport.send::<List>(request).await {
                Reply::Object(_) => Outcome::Settled(()),
                Reply::Refused(..) => Outcome::Unknown(Unknown::Unreadable),
                Reply::NotExecuted(why) => Outcome::NotExecuted(why),
                Reply::Unknown(why) => Outcome::Unknown(why),
            }
        })
    }
}
