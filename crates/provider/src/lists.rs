//! Lists as they are, page by page, for comparing: what is of whom is decided by whoever compares.

use crate::attempt::{Endpoint, Reply};
use crate::classify::Meaning;
use crate::payments::{INTENT, INTENTS};
use crate::refunds::{REFUND, REFUNDS};
use crate::wire::{Intent, List, Refund};
use crate::{Client, PAGE, read};
use domain::provider::{IntentId, Outcome, Page, RefundObjectId, Unknown};
use domain::reconcile::{ListedCharge, ListedRefund};
use serde::de::DeserializeOwned;
use time::OffsetDateTime;

/// An object of the provider that has an id and a time, and what it is when it is listed.
trait Listed: DeserializeOwned {
    type As;

    fn id(&self) -> &str;
    /// Seconds since 1970.
    fn created(&self) -> i64;
    /// `None`: nothing that this version can read.
    fn into_listed(self) -> Option<Self::As>;
}

impl Listed for Intent {
    type As = ListedCharge;

    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }

    fn into_listed(self) -> Option<ListedCharge> {
        self.into_listed_charge()
    }
}

impl Listed for Refund {
    type As = ListedRefund;

    fn id(&self) -> &str {
        &self.id
    }

    fn created(&self) -> i64 {
        self.created
    }

    fn into_listed(self) -> Option<ListedRefund> {
        self.into_listed_refund()
    }
}

impl Client {
    pub(crate) async fn page_of_charges(
        &self,
        since: OffsetDateTime,
        after: Option<&str>,
    ) -> Outcome<Page<ListedCharge>> {
        let filter = vec![("created[gte]", since.unix_timestamp().to_string())];
        self.page::<Intent>(INTENTS, filter, since, after).await
    }

    pub(crate) async fn page_of_refunds(
        &self,
        since: OffsetDateTime,
        after: Option<&str>,
    ) -> Outcome<Page<ListedRefund>> {
        // other implementations refuse a filter by time here: the order of the list ends the walk
        self.page::<Refund>(REFUNDS, Vec::new(), since, after).await
    }

    async fn page<T: Listed>(
        &self,
        endpoint: Endpoint<'_>,
        mut query: Vec<(&'static str, String)>,
        since: OffsetDateTime,
        after: Option<&str>,
    ) -> Outcome<Page<T::As>> {
        query.push(("limit", PAGE.to_string()));
        if let Some(last) = after {
            query.push(("starting_after", last.to_owned()));
        }
        read(self.get::<List<T>>(endpoint, query).await, |page| {
            let since = since.unix_timestamp();
            // newest first, also where the provider does not know the filter
            let last = page.data.last().filter(|last| page.has_more && last.created() >= since);
            let next = last.map(|last| last.id().to_owned());
            let items = page.data.into_iter().filter(|object| object.created() >= since);
            match items.map(T::into_listed).collect() {
                Some(items) => Outcome::Settled(Page { items, next }),
                None => Outcome::Unknown(Unknown::Unreadable),
            }
        })
    }

    pub(crate) async fn one_charge(&self, intent: &IntentId) -> Outcome<Option<ListedCharge>> {
        self.one::<Intent>(Endpoint::one(INTENT, intent.as_str())).await
    }

    pub(crate) async fn one_refund(&self, object: &RefundObjectId) -> Outcome<Option<ListedRefund>> {
        self.one::<Refund>(Endpoint::one(REFUND, object.as_str())).await
    }

    async fn one<T: Listed>(&self, endpoint: Endpoint<'_>) -> Outcome<Option<T::As>> {
        let reply = self.get::<T>(endpoint, Vec::new()).await;
        match reply {
            // the provider's own word on the object; a 404 of the path alone may come from anything on the way
            Reply::Refused(Meaning::Rejected, error) if error.is_of_a_missing_object() => {
                Outcome::Settled(None)
            }
            other => read(other, |object| match object.into_listed() {
                Some(object) => Outcome::Settled(Some(object)),
                None => Outcome::Unknown(Unknown::Unreadable),
            }),
        }
    }
}
