//! The payment provider, spoken as Stripe's PaymentIntents protocol.
//!
//! `attempt` sends one request, `classify` is the table of what answers mean, `wire` has the shapes and checks that
//! what came back belongs to what was asked, `payments` and `refunds` put them together, `lists` reads what there is for
//! whoever compares, and [`Client`] is all of it as the domain's port. Every call passes `gate`: the circuit breaker of
//! `breaker`, and a bulkhead for each lane. `budget` bounds how many calls are made a second time.

mod attempt;
mod breaker;
mod budget;
mod classify;
mod gate;
mod lists;
mod payments;
mod refunds;
mod wire;

pub use breaker::{Breaker, Policy, State};
pub use budget::RetryBudget;
pub use gate::Places;

use attempt::{Endpoint, Reply, Request, Transport};
use domain::faults::{Bug, When, planted, point};
use domain::id::OperationId;
use domain::money::Amount;
use domain::operation::Lease;
use domain::provider::{
    Answer, Charge, Closed, Found, FoundRefund, IntentId, NotExecuted, Outcome, Page, Provider,
    RefundObjectId, RefundOrder, Target, Unknown,
};
use domain::reconcile::{ListedCharge, ListedRefund};
use gate::{Gate, Lane};
use reqwest::Method;
use secrecy::SecretString;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use wire::{Confirm, Form, Intent, List};

/// A client of the provider, for one lane. All lanes of a process share connections and circuit breaker.
pub struct Client {
    shared: Arc<Shared>,
    lane: Lane,
}

struct Shared {
    transport: Transport,
    gate: Gate,
    timeout: Duration,
}

/// Stripe's largest page.
const PAGE: usize = 100;

impl Client {
    /// A client for the API at `base` (without `/v1`), for work that nobody waits for. `timeout` bounds one attempt, from
    /// connect to last byte. While the provider is down, it is this client's calls that probe it.
    ///
    /// # Errors
    /// The TLS set-up of this machine cannot be used.
    pub fn new(
        base: &str,
        api_key: &SecretString,
        timeout: Duration,
        places: Places,
    ) -> Result<Self, reqwest::Error> {
        let transport = Transport::new(base, api_key, timeout)?;
        let gate = Gate::new(Arc::new(Breaker::new(Policy::default())), places);
        Ok(Self { shared: Arc::new(Shared { transport, gate, timeout }), lane: Lane::Background })
    }

    /// The same client for callers who wait: it never probes, and has places of its own.
    #[must_use]
    pub fn for_callers(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), lane: Lane::Callers }
    }

    /// The circuit breaker of all lanes.
    #[must_use]
    pub fn breaker(&self) -> Arc<Breaker> {
        Arc::clone(self.shared.gate.breaker())
    }

    fn may_send(&self, lease: &Lease) -> bool {
        lease.covers(Instant::now(), self.shared.timeout) || planted(Bug::LeaseIgnored)
    }

    /// One request, if the provider may be called at the moment.
    async fn call<T: DeserializeOwned>(&self, request: Request<'_>) -> Reply<T> {
        let admitted = match self.shared.gate.admit(self.lane, Instant::now()) {
            Ok(admitted) => admitted,
            Err(why) => return Reply::NotExecuted(why),
        };
        let reply = self.shared.transport.send(request).await;
        admitted.end(reply.health(), Instant::now());
        reply
    }

    /// One POST within the lease. Sent with the same operation again, it is the same request to the provider.
    async fn post<T: DeserializeOwned>(
        &self,
        endpoint: Endpoint<'_>,
        form: Form,
        operation: Option<OperationId>,
        lease: &Lease,
    ) -> Reply<T> {
        let idempotency_key = match operation {
            _ if planted(Bug::NoProviderKey) => None,
            Some(_) if planted(Bug::NewKeyOnRetry) => Some(OperationId::at(OffsetDateTime::now_utc())),
            known => known,
        };
        let idempotency_key = idempotency_key.map(|id| id.to_string());
        let request =
            Request { method: Method::POST, endpoint, query: Vec::new(), form: Some(form), idempotency_key };
        point(When::Before, endpoint.template());
        if !self.may_send(lease) {
            return Reply::NotExecuted(NotExecuted::LeaseTooShort);
        }
        let reply = self.call(request).await;
        point(When::After, endpoint.template());
        reply
    }

    /// One GET. It changes nothing, so it may end after the lease.
    async fn get<T: DeserializeOwned>(&self, endpoint: Endpoint<'_>, query: Form) -> Reply<T> {
        self.call(Request { method: Method::GET, endpoint, query, form: None, idempotency_key: None }).await
    }
}

/// What a read comes to: what cannot be read is no proof of anything.
fn read<T, U>(reply: Reply<T>, found: impl FnOnce(T) -> Outcome<U>) -> Outcome<U> {
    match reply {
        Reply::Object(object) => found(object),
        Reply::Refused(..) => Outcome::Unknown(Unknown::Unreadable),
        Reply::NotExecuted(why) => Outcome::NotExecuted(why),
        Reply::Unknown(why) => Outcome::Unknown(why),
    }
}

impl Provider for Client {
    fn charge<'a>(&'a self, charge: &'a Charge, lease: &'a Lease) -> Answer<'a, Found> {
        Box::pin(async { payments::charged(charge, self.create(charge, Confirm::Yes, lease).await) })
    }

    fn close<'a>(&'a self, charge: &'a Charge, lease: &'a Lease) -> Answer<'a, Closed> {
        Box::pin(async { payments::closed(charge, self.create(charge, Confirm::No, lease).await) })
    }

    fn find<'a>(&'a self, charge: &'a Charge, since: OffsetDateTime) -> Answer<'a, Option<Found>> {
        Box::pin(self.search(charge, since))
    }

    fn retrieve<'a>(&'a self, target: &'a Target) -> Answer<'a, Found> {
        Box::pin(self.read_intent(target))
    }

    fn capture<'a>(
        &'a self,
        target: &'a Target,
        amount: Amount,
        operation: OperationId,
        lease: &'a Lease,
    ) -> Answer<'a, Found> {
        Box::pin(self.capture_intent(target, amount, operation, lease))
    }

    fn cancel<'a>(
        &'a self,
        target: &'a Target,
        operation: Option<OperationId>,
        lease: &'a Lease,
    ) -> Answer<'a, Found> {
        Box::pin(self.cancel_intent(target, operation, lease))
    }

    fn refund<'a>(&'a self, order: &'a RefundOrder, lease: &'a Lease) -> Answer<'a, FoundRefund> {
        Box::pin(self.create_refund(order, lease))
    }

    fn find_refund<'a>(
        &'a self,
        order: &'a RefundOrder,
        object: Option<&'a RefundObjectId>,
        lease: &'a Lease,
    ) -> Answer<'a, Option<FoundRefund>> {
        Box::pin(self.search_refund(order, object, lease))
    }

    fn list_charges<'a>(
        &'a self,
        since: OffsetDateTime,
        after: Option<&'a str>,
    ) -> Answer<'a, Page<ListedCharge>> {
        Box::pin(self.page_of_charges(since, after))
    }

    fn list_refunds<'a>(
        &'a self,
        since: OffsetDateTime,
        after: Option<&'a str>,
    ) -> Answer<'a, Page<ListedRefund>> {
        Box::pin(self.page_of_refunds(since, after))
    }

    fn read_charge<'a>(&'a self, intent: &'a IntentId) -> Answer<'a, Option<ListedCharge>> {
        Box::pin(self.one_charge(intent))
    }

    fn read_refund<'a>(&'a self, object: &'a RefundObjectId) -> Answer<'a, Option<ListedRefund>> {
        Box::pin(self.one_refund(object))
    }

    fn check_credentials(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let reply = self.get::<List<Intent>>(payments::INTENTS, vec![("limit", "1".to_owned())]).await;
            read(reply, |_| Outcome::Settled(()))
        })
    }
}
