//! Refunds: giving back, and finding what became of it.

use crate::attempt::{Endpoint, Reply};
use crate::classify::Meaning;
use crate::wire::{List, Refund, new_refund};
use crate::{Client, PAGE, read};
use domain::operation::Lease;
use domain::provider::{FoundRefund, NotExecuted, Outcome, RefundObjectId, RefundOrder, Unknown};

pub(crate) const REFUNDS: Endpoint<'_> = Endpoint::all("/v1/refunds");
pub(crate) const REFUND: &str = "/v1/refunds/{id}";

impl Client {
    pub(crate) async fn create_refund(&self, order: &RefundOrder, lease: &Lease) -> Outcome<FoundRefund> {
        match self.post::<Refund>(REFUNDS, new_refund(order), Some(order.operation_id), lease).await {
            Reply::Object(refund) => refund.into_found(order, None),
            Reply::Refused(Meaning::Declined, error) => {
                Outcome::Settled(FoundRefund::Failed(None, error.into_decline()))
            }
            // also of an unexpected state: it is the answer to this key, so nothing was and nothing will be executed
            Reply::Refused(Meaning::Rejected | Meaning::UnexpectedState, error) => {
                Outcome::Settled(FoundRefund::Failed(None, error.into_rejection()))
            }
            // the key brings the same ever after: what there is must be read
            Reply::Refused(..) => Outcome::Unknown(Unknown::StoredServerError),
            Reply::NotExecuted(why) => Outcome::NotExecuted(why),
            Reply::Unknown(why) => Outcome::Unknown(why),
        }
    }

    pub(crate) async fn search_refund(
        &self,
        order: &RefundOrder,
        object: Option<&RefundObjectId>,
        lease: &Lease,
    ) -> Outcome<Option<FoundRefund>> {
        if let Some(object) = object {
            let reply = self.get::<Refund>(Endpoint::one(REFUND, object.as_str()), Vec::new()).await;
            return read(reply, |refund| refund.into_found(order, Some(object)).map(Some));
        }
        let mut after: Option<String> = None;
        loop {
            if !self.may_send(lease) {
                return Outcome::NotExecuted(NotExecuted::LeaseTooShort);
            }
            let mut query =
                vec![("payment_intent", order.intent.as_str().to_owned()), ("limit", PAGE.to_string())];
            if let Some(last) = after {
                query.push(("starting_after", last));
            }
            let page = match read(self.get::<List<Refund>>(REFUNDS, query).await, Outcome::Settled) {
                Outcome::Settled(page) => page,
                Outcome::NotExecuted(why) => return Outcome::NotExecuted(why),
                Outcome::Unknown(why) => return Outcome::Unknown(why),
            };
            after = page.data.last().map(|refund| refund.id.clone());
            let theirs = page.data.into_iter().find(|refund| refund.is_of(order));
            if let Some(refund) = theirs {
                return refund.into_found(order, None).map(Some);
            }
            if after.is_none() || !page.has_more {
                return Outcome::Settled(None);
            }
        }
    }
}
