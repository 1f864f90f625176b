//! Comparing provider and database over a range of time. It only looks: nothing is posted to the provider, nothing is
//! settled, and what is open stays the operations' business.
//!
//! Both sides are walked from now back in time, a page at a time. What the provider lists is looked up here by whom it
//! names; behind that, the payments of the same time are walked, and those whose charge was not listed are asked for one by
//! one. So the clocks of the two need not agree, and only ids are kept: those of what was compared and is still to be walked.

use crate::app::operations::full_jitter;
use domain::id::{MerchantId, lowest_at};
use domain::operation::Windows;
use domain::payment::Status;
use domain::provider::{Answer, IntentId, NotExecuted, Outcome, Page, Provider, RefundObjectId, Unknown};
use domain::reconcile::{BookedPayment, BookedRefund, Difference, ListedCharge, ListedRefund};
use domain::refund::RefundStatus;
use persistence::reconcile::Slice;
use persistence::{Store, StoreError};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use time::OffsetDateTime;
use uuid::Uuid;

/// How many ids of each kind of difference are kept for whoever has to look.
const FIRST: usize = 5;
/// How often a page is asked for.
const TRIES: u32 = 5;
/// So many pages of the provider, then the payments of the same time.
const PAGES: usize = 10;
/// How many payments are read at once.
const AT_ONCE: i64 = 500;
/// So much later than the provider's clock the clocks here may be, without asking for charges one by one.
const SKEW: time::Duration = time::Duration::seconds(60);
/// Ids that are remembered, at most. What is forgotten is asked for once more.
const REMEMBERED: usize = 100_000;

/// What is compared.
pub struct Sources<'a> {
    /// The database.
    pub store: &'a Store,
    /// The provider.
    pub provider: &'a dyn Provider,
    /// How long something may be on its way.
    pub windows: &'a Windows,
}

impl Sources<'_> {
    fn youth(&self) -> Youth {
        let on_its_way = self.windows.lease.saturating_add(self.windows.attempt);
        let changed = OffsetDateTime::now_utc() - on_its_way;
        Youth { changed, waiting: changed - self.windows.action }
    }
}

/// What is too young to be compared.
#[derive(Clone, Copy)]
struct Youth {
    /// What changed after this: one side may have been read before it, the other behind it.
    changed: OffsetDateTime,
    /// What waits for the customer since after this: who looks now and then what the customer did has not looked yet.
    waiting: OffsetDateTime,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Charges that were compared with their payments.
    pub charges: u64,
    /// Refunds that were compared.
    pub refunds: u64,
    /// What is open, or too young to be compared.
    pub in_flight: u64,
    /// What the provider has of other programs.
    pub foreign: u64,
    /// What differs.
    pub differences: BTreeMap<Difference, Found>,
}

/// The differences of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// How many.
    pub count: i64,
    /// The first of them, by their ids.
    pub first: Vec<String>,
}

impl Report {
    /// How many of each kind there are.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Difference, i64> {
        self.differences.iter().map(|(kind, found)| (*kind, found.count)).collect()
    }

    fn differ(&mut self, kind: Difference, what: String) {
        let found = self.differences.entry(kind).or_default();
        found.count = found.count.saturating_add(1);
        if found.first.len() < FIRST {
            found.first.push(what);
        }
    }
}

/// Why a comparison did not see everything. What it saw until then is no result.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// The provider.
    #[error("the payment provider {0}")]
    Provider(&'static str),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Compares what was created `since`.
///
/// # Errors
/// One of the two sides could not be read to its end.
pub async fn run(sources: &Sources<'_>, since: OffsetDateTime) -> Result<Report, Unfinished> {
    let mut report = Report::default();
    // no provider lists what is older
    let since = since.max(OffsetDateTime::UNIX_EPOCH);
    walk::<Charges>(sources, since, &mut report).await?;
    walk::<Refunds>(sources, since, &mut report).await?;
    Ok(report)
}

/// Something that both sides have.
trait Subject {
    type Here: Send + Sync;
    type There: Send + Sync;
    /// The provider's id of it.
    type Object: Send + Sync;
    /// There and not here.
    const UNKNOWN: Difference;
    /// Here and not there.
    const MISSING: Difference;

    fn list<'a>(
        provider: &'a dyn Provider,
        since: OffsetDateTime,
        after: Option<&'a str>,
    ) -> Answer<'a, Page<Self::There>>;

    fn read<'a>(provider: &'a dyn Provider, object: &'a Self::Object) -> Answer<'a, Option<Self::There>>;

    /// What is here of what objects name.
    fn look_up(
        store: &Store,
        named: &[Self::There],
    ) -> impl Future<Output = Result<Vec<Self::Here>, StoreError>> + Send;

    fn slice(
        store: &Store,
        slice: &Slice,
    ) -> impl Future<Output = Result<Vec<Self::Here>, StoreError>> + Send;

    /// What an object with money is that is not here under the name it bears.
    fn stray(
        sources: &Sources<'_>,
        there: &Self::There,
    ) -> impl Future<Output = Result<Stray<Self::Here>, Unfinished>> + Send;

    fn key(here: &Self::Here) -> (MerchantId, Uuid);
    /// Whether it is neither open nor too young.
    fn is_settled(here: &Self::Here, youth: Youth) -> bool;
    /// Whether the provider must know it.
    fn is_needed(here: &Self::Here) -> bool;
    /// What it stands on, if that is known.
    fn object(here: &Self::Here) -> Option<&Self::Object>;
    fn named(there: &Self::There) -> Option<(MerchantId, Uuid)>;
    fn created_at(there: &Self::There) -> OffsetDateTime;
    fn has_money(there: &Self::There) -> bool;
    fn stands_on(here: &Self::Here, there: &Self::There) -> bool;
    fn compare(here: &Self::Here, there: &Self::There) -> Vec<Difference>;
    fn compared(report: &mut Report) -> &mut u64;
    /// Ids, and nothing else.
    fn show(here: Option<&Self::Here>, there: Option<&Self::There>) -> String;
}

/// An object that is not here under the name it bears.
enum Stray<H> {
    /// It is of another program.
    Foreign,
    /// It is of this one, and not here.
    Unknown,
    /// It is here under another name.
    Of(H),
}

async fn walk<S: Subject>(
    sources: &Sources<'_>,
    since: OffsetDateTime,
    report: &mut Report,
) -> Result<(), Unfinished> {
    let mut walk =
        Walk::<S> { sources, report, compared: BTreeSet::new(), _subject: std::marker::PhantomData };
    let mut to = OffsetDateTime::now_utc();
    let mut after: Option<String> = None;
    for page in 1_usize.. {
        let youth = sources.youth();
        let listed = insist(|| S::list(sources.provider, since, after.as_deref())).await?;
        let oldest = listed.items.last().map(S::created_at);
        walk.compare_page(listed.items, youth).await?;
        after = listed.next;
        let from = match (&after, oldest) {
            (Some(_), Some(oldest)) if page % PAGES == 0 => oldest.saturating_add(SKEW).max(since),
            (Some(_), _) => continue,
            (None, _) => since,
        };
        if from < to {
            walk.compare_slice(from, to).await?;
            to = from;
        }
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

struct Walk<'a, S: Subject> {
    sources: &'a Sources<'a>,
    report: &'a mut Report,
    /// What was compared with what it stands on, and is still to be walked here.
    compared: BTreeSet<Uuid>,
    _subject: std::marker::PhantomData<fn() -> S>,
}

impl<S: Subject> Walk<'_, S> {
    /// From there to here.
    async fn compare_page(&mut self, page: Vec<S::There>, youth: Youth) -> Result<(), Unfinished> {
        let here = S::look_up(self.sources.store, &page).await?;
        let here: HashMap<_, _> = here.into_iter().map(|here| (S::key(&here), here)).collect();
        for there in &page {
            let named = S::named(there);
            if let Some(here) = named.as_ref().and_then(|key| here.get(key)) {
                self.judge(here, there, youth);
                continue;
            }
            if !S::has_money(there) {
                self.report.foreign += u64::from(named.is_none());
                continue;
            }
            match S::stray(self.sources, there).await? {
                Stray::Foreign => self.report.foreign += 1,
                Stray::Of(here) => self.judge(&here, there, youth),
                Stray::Unknown if S::created_at(there) >= youth.changed => self.report.in_flight += 1,
                Stray::Unknown => self.report.differ(S::UNKNOWN, S::show(None, Some(there))),
            }
        }
        Ok(())
    }

    /// From here to there, for what was not listed.
    async fn compare_slice(&mut self, from: OffsetDateTime, to: OffsetDateTime) -> Result<(), Unfinished> {
        let mut after = None;
        loop {
            let youth = self.sources.youth();
            let slice = Slice { from, to, after, limit: AT_ONCE };
            let rows = S::slice(self.sources.store, &slice).await?;
            let Some(last) = rows.last().map(S::key) else { break };
            for here in &rows {
                if !self.compared.contains(&S::key(here).1) {
                    self.ask(here, youth).await?;
                }
            }
            after = Some(last);
        }
        // what is younger has been walked
        drop(self.compared.split_off(&lowest_at(from)));
        Ok(())
    }

    async fn ask(&mut self, here: &S::Here, youth: Youth) -> Result<(), Unfinished> {
        if !S::is_settled(here, youth) {
            self.report.in_flight += 1;
            return Ok(());
        }
        if !S::is_needed(here) {
            return Ok(());
        }
        let there = match S::object(here) {
            Some(object) => insist(|| S::read(self.sources.provider, object)).await?,
            None => None,
        };
        let Some(there) = there else {
            self.report.differ(S::MISSING, S::show(Some(here), None));
            return Ok(());
        };
        // it may have changed while the provider was asked
        let now = S::look_up(self.sources.store, std::slice::from_ref(&there)).await?;
        let now = now.into_iter().find(|now| S::key(now) == S::key(here));
        self.judge(now.as_ref().unwrap_or(here), &there, youth);
        Ok(())
    }

    fn judge(&mut self, here: &S::Here, there: &S::There, youth: Youth) {
        if S::stands_on(here, there) && self.compared.len() < REMEMBERED {
            self.compared.insert(S::key(here).1);
        }
        if !S::is_settled(here, youth) {
            self.report.in_flight += 1;
            return;
        }
        *S::compared(self.report) += 1;
        for kind in S::compare(here, there) {
            self.report.differ(kind, S::show(Some(here), Some(there)));
        }
    }
}

/// Asks a few times. What is asked for changes nothing, so any answer but a good one may be asked for again.
async fn insist<'a, T>(ask: impl Fn() -> Answer<'a, T>) -> Result<T, Unfinished> {
    let mut tried = 1;
    loop {
        let why = match ask().await {
            Outcome::Settled(answer) => return Ok(answer),
            Outcome::NotExecuted(NotExecuted::Misconfigured) => {
                return Err(Unfinished::Provider("does not take our credentials"));
            }
            Outcome::NotExecuted(NotExecuted::Throttled(_)) => "wants fewer requests",
            Outcome::NotExecuted(_) => "cannot be reached",
            Outcome::Unknown(Unknown::NoAnswer) => "does not answer",
            Outcome::Unknown(Unknown::Unreadable) => "answers what cannot be read",
            Outcome::Unknown(_) => "answers with an error",
        };
        if tried == TRIES {
            return Err(Unfinished::Provider(why));
        }
        tokio::time::sleep(full_jitter(tried)).await;
        tried = tried.saturating_add(1);
    }
}

/// Payments, and the charges that they stand on.
struct Charges;

impl Subject for Charges {
    type Here = BookedPayment;
    type There = ListedCharge;
    type Object = IntentId;
    const UNKNOWN: Difference = Difference::UnknownCharge;
    const MISSING: Difference = Difference::MissingCharge;

    fn list<'a>(
        provider: &'a dyn Provider,
        since: OffsetDateTime,
        after: Option<&'a str>,
    ) -> Answer<'a, Page<ListedCharge>> {
        provider.list_charges(since, after)
    }

    fn read<'a>(provider: &'a dyn Provider, intent: &'a IntentId) -> Answer<'a, Option<ListedCharge>> {
        provider.read_charge(intent)
    }

    async fn look_up(store: &Store, named: &[ListedCharge]) -> Result<Vec<BookedPayment>, StoreError> {
        // two charges may name one payment
        let owners: BTreeMap<_, _> = named.iter().filter_map(|c| Some((Self::named(c)?, c.owner?))).collect();
        store.booked_payments(&owners.into_values().collect::<Vec<_>>()).await
    }

    async fn slice(store: &Store, slice: &Slice) -> Result<Vec<BookedPayment>, StoreError> {
        store.list_booked_payments(slice).await
    }

    async fn stray(sources: &Sources<'_>, there: &ListedCharge) -> Result<Stray<BookedPayment>, Unfinished> {
        let Some(owner) = there.owner else { return Ok(Stray::Foreign) };
        let here = sources.store.booked_payment_of_anybody(owner.payment_id).await?;
        Ok(here.map_or(Stray::Unknown, Stray::Of))
    }

    fn key(here: &BookedPayment) -> (MerchantId, Uuid) {
        (here.owner.merchant_id, here.owner.payment_id.0)
    }

    fn is_settled(here: &BookedPayment, youth: Youth) -> bool {
        let waits = here.status == Status::RequiresAction;
        !here.open && here.updated_at < if waits { youth.waiting } else { youth.changed }
    }

    fn is_needed(here: &BookedPayment) -> bool {
        here.needs_charge()
    }

    fn object(here: &BookedPayment) -> Option<&IntentId> {
        here.intent.as_ref()
    }

    fn named(there: &ListedCharge) -> Option<(MerchantId, Uuid)> {
        there.owner.map(|owner| (owner.merchant_id, owner.payment_id.0))
    }

    fn created_at(there: &ListedCharge) -> OffsetDateTime {
        there.created_at
    }

    fn has_money(there: &ListedCharge) -> bool {
        there.has_money()
    }

    fn stands_on(here: &BookedPayment, there: &ListedCharge) -> bool {
        here.stands_on(there)
    }

    fn compare(here: &BookedPayment, there: &ListedCharge) -> Vec<Difference> {
        here.compare(there)
    }

    fn compared(report: &mut Report) -> &mut u64 {
        &mut report.charges
    }

    fn show(here: Option<&BookedPayment>, there: Option<&ListedCharge>) -> String {
        let payment_id = here.map(|here| here.owner).or(there.and_then(|there| there.owner));
        let intent = there.map(|there| &there.intent).or(here.and_then(|here| here.intent.as_ref()));
        shown("payment", payment_id.map(|owner| owner.payment_id.0), intent.map(IntentId::as_str))
    }
}

/// Refunds, here and there.
struct Refunds;

impl Subject for Refunds {
    type Here = BookedRefund;
    type There = ListedRefund;
    type Object = RefundObjectId;
    const UNKNOWN: Difference = Difference::UnknownRefund;
    const MISSING: Difference = Difference::MissingRefund;

    fn list<'a>(
        provider: &'a dyn Provider,
        since: OffsetDateTime,
        after: Option<&'a str>,
    ) -> Answer<'a, Page<ListedRefund>> {
        provider.list_refunds(since, after)
    }

    fn read<'a>(provider: &'a dyn Provider, object: &'a RefundObjectId) -> Answer<'a, Option<ListedRefund>> {
        provider.read_refund(object)
    }

    async fn look_up(store: &Store, named: &[ListedRefund]) -> Result<Vec<BookedRefund>, StoreError> {
        let named: BTreeSet<_> = named
            .iter()
            .filter_map(|refund| refund.owner)
            .map(|(owner, id)| (owner.merchant_id, id))
            .collect();
        store.booked_refunds(&named.into_iter().collect::<Vec<_>>()).await
    }

    async fn slice(store: &Store, slice: &Slice) -> Result<Vec<BookedRefund>, StoreError> {
        store.list_booked_refunds(slice).await
    }

    async fn stray(sources: &Sources<'_>, there: &ListedRefund) -> Result<Stray<BookedRefund>, Unfinished> {
        if there.owner.is_some() {
            return Ok(Stray::Unknown);
        }
        // somebody may have given back what was taken here, by hand at the provider
        let Some(intent) = &there.intent else { return Ok(Stray::Foreign) };
        let charge = insist(|| sources.provider.read_charge(intent)).await?;
        let Some(owner) = charge.and_then(|charge| charge.owner) else { return Ok(Stray::Foreign) };
        let payments = sources.store.booked_payments(&[owner]).await?;
        let is_ours = payments.iter().any(|payment| payment.intent.as_ref() == Some(intent));
        Ok(if is_ours { Stray::Unknown } else { Stray::Foreign })
    }

    fn key(here: &BookedRefund) -> (MerchantId, Uuid) {
        (here.owner.merchant_id, here.refund_id.0)
    }

    fn is_settled(here: &BookedRefund, youth: Youth) -> bool {
        !here.open && here.updated_at < youth.changed
    }

    fn is_needed(here: &BookedRefund) -> bool {
        here.status == RefundStatus::Succeeded
    }

    fn object(here: &BookedRefund) -> Option<&RefundObjectId> {
        here.object.as_ref()
    }

    fn named(there: &ListedRefund) -> Option<(MerchantId, Uuid)> {
        there.owner.map(|(owner, refund_id)| (owner.merchant_id, refund_id.0))
    }

    fn created_at(there: &ListedRefund) -> OffsetDateTime {
        there.created_at
    }

    fn has_money(there: &ListedRefund) -> bool {
        there.has_money()
    }

    fn stands_on(here: &BookedRefund, there: &ListedRefund) -> bool {
        here.stands_on(there)
    }

    fn compare(here: &BookedRefund, there: &ListedRefund) -> Vec<Difference> {
        here.compare(there)
    }

    fn compared(report: &mut Report) -> &mut u64 {
        &mut report.refunds
    }

    fn show(here: Option<&BookedRefund>, there: Option<&ListedRefund>) -> String {
        let refund_id = here.map(|here| here.refund_id);
        let refund_id = refund_id.or(there.and_then(|there| Some(there.owner?.1)));
        let object = there.map(|there| &there.object).or(here.and_then(|here| here.object.as_ref()));
        let mut text = shown("refund", refund_id.map(|id| id.0), object.map(RefundObjectId::as_str));
        if let Some(intent) = there.and_then(|there| there.intent.as_ref()) {
            text.push_str(" of ");
            text.push_str(intent.as_str());
        }
        text
    }
}

fn shown(what: &str, id: Option<Uuid>, object: Option<&str>) -> String {
    let id = id.map(|id| format!("{what} {id}"));
    id.into_iter().chain(object.map(str::to_owned)).collect::<Vec<_>>().join(" ")
}
