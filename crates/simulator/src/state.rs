//! Everything the provider knows, in memory. It is the sum of the ledger's commits: the same `apply` runs for a commit
//! that was just made and for one that is read back at start.

use std::{collections::HashMap, sync::Arc};

use crate::{
    command::{Created, Page},
    commit::{Commit, KeyUse},
    objects::{ApiError, Intent, Refund},
};

/// Intents, refunds, history and idempotency keys.
#[derive(Debug, Default)]
pub(crate) struct State {
    intents: Shelf<Intent>,
    refunds: Shelf<Refund>,
    /// Places in `refunds`, oldest first, by intent.
    refunds_of: HashMap<String, Vec<usize>>,
    /// Oldest first.
    commits: Vec<Arc<Commit>>,
    keys: HashMap<String, KeyState>,
}

/// What became of the first request with an idempotency key.
#[derive(Debug)]
enum KeyState {
    /// It executes. Ends with `State::apply`.
    Running,
    /// It was executed; this is its answer.
    Executed(Arc<Commit>),
}

/// What a request with an idempotency key finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nobody used the key, or so long ago that it is forgotten.
    New,
    /// The same request was executed: this is its answer.
    Executed(Arc<Commit>),
    /// The key cannot be used for this request, or not now.
    Refused(ApiError),
}

/// A page of a list, newest first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Listing<T> {
    pub data: Vec<Arc<T>>,
    pub has_more: bool,
}

/// Everything the control surface reports, taken at one instant.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Oldest first.
    pub intents: Vec<Arc<Intent>>,
    /// Oldest first.
    pub refunds: Vec<Arc<Refund>>,
    /// Oldest first.
    pub commits: Vec<Arc<Commit>>,
}

impl State {
    /// Takes a commit over: the only way anything changes.
    pub(crate) fn apply(&mut self, commit: Arc<Commit>) {
        if let Some(intent) = &commit.intent {
            self.intents.put(&intent.id, intent);
        }
        if let Some(refund) = &commit.refund
            && let Some(place) = self.refunds.put(&refund.id, refund)
        {
            self.refunds_of.entry(refund.payment_intent.clone()).or_default().push(place);
        }
        if let Some(used) = &commit.key {
            self.keys.insert(used.key.clone(), KeyState::Executed(Arc::clone(&commit)));
        }
        self.commits.push(commit);
    }

    /// Looks a key up for a request (Stripe API: idempotent requests).
    pub(crate) fn look_up(&self, request: &KeyUse, now: u64, retention_micros: u64) -> Known {
        let first = match self.keys.get(&request.key) {
            None => return Known::New,
            // Before the parameters are compared: whether the first request will have executed is not known yet, and
            // "other parameters" would claim that it has.
            Some(KeyState::Running) => return Known::Refused(ApiError::key_in_use(&request.key)),
            Some(KeyState::Executed(first)) => first,
        };
        let Some(used) = &first.key else { return Known::New };
        if now.saturating_sub(first.at) >= retention_micros {
            return Known::New;
        }
        let key = &request.key;
        if used.path != request.path {
            return Known::Refused(ApiError::idempotency(format!(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for ('{}' \
                 vs '{}'). Try using a key other than '{key}' if you meant to execute a different request.",
                request.path, used.path
            )));
        }
        if used.fingerprint != request.fingerprint {
            return Known::Refused(ApiError::idempotency(format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 Try using a key other than '{key}' if you meant to execute a different request."
            )));
        }
        Known::Executed(Arc::clone(first))
    }

    /// Marks a key as being executed. The execution's commit ends it.
    pub(crate) fn claim(&mut self, key: &str) {
        self.keys.insert(key.to_owned(), KeyState::Running);
    }

    /// One intent, or Stripe's 404.
    pub(crate) fn intent(&self, id: &str, param: &str) -> Result<&Arc<Intent>, ApiError> {
        self.intents.get(id).ok_or_else(|| ApiError::no_such("payment_intent", param, id))
    }

    /// One refund, or Stripe's 404.
    pub(crate) fn refund(&self, id: &str) -> Result<&Arc<Refund>, ApiError> {
        self.refunds.get(id).ok_or_else(|| ApiError::no_such("refund", "id", id))
    }

    /// Seconds since 1970 for a new object: a clock that is set back must not disturb the order of lists.
    pub(crate) fn creation_time(&self, now: u64) -> u64 {
        let newest = self.intents.all.last().map_or(0, |intent| intent.created);
        (now / 1_000_000).max(newest)
    }

    /// Intents of a window of time.
    pub(crate) fn list_intents(&self, created: Created, page: &Page) -> Result<Listing<Intent>, ApiError> {
        let all = &self.intents.all;
        let from = all.partition_point(|intent| intent.created < created.from);
        let mut to = all.partition_point(|intent| intent.created <= created.to);
        if let Some(id) = &page.starting_after {
            let Some(&place) = self.intents.places.get(id) else {
                return Err(bad_cursor("payment_intent", id));
            };
            to = to.min(place);
        }
        Ok(newest_first(all.get(from..to).unwrap_or_default().iter(), page.limit))
    }

    /// Refunds, of one intent or of all.
    pub(crate) fn list_refunds(
        &self,
        payment_intent: Option<&str>,
        page: &Page,
    ) -> Result<Listing<Refund>, ApiError> {
        let end = match &page.starting_after {
            None => usize::MAX,
            Some(id) => *self.refunds.places.get(id).ok_or_else(|| bad_cursor("refund", id))?,
        };
        let Some(id) = payment_intent else {
            let before = end.min(self.refunds.all.len());
            return Ok(newest_first(self.refunds.all.get(..before).unwrap_or_default().iter(), page.limit));
        };
        self.intent(id, "payment_intent").map_err(|error| ApiError { status: 400, ..error })?;
        let places = self.refunds_of.get(id).map(Vec::as_slice).unwrap_or_default();
        let before = places.partition_point(|place| *place < end);
        let places = places.get(..before).unwrap_or_default();
        Ok(newest_first(places.iter().filter_map(|place| self.refunds.all.get(*place)), page.limit))
    }

    /// Everything, at this instant.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            intents: self.intents.all.clone(),
            refunds: self.refunds.all.clone(),
            commits: self.commits.clone(),
        }
    }
}

fn newest_first<'a, T: 'a>(
    oldest_first: impl DoubleEndedIterator<Item = &'a Arc<T>>,
    limit: usize,
) -> Listing<T> {
    let mut rest = oldest_first.rev();
    let data = rest.by_ref().take(limit).cloned().collect();
    Listing { data, has_more: rest.next().is_some() }
}

fn bad_cursor(kind: &str, id: &str) -> ApiError {
    ApiError { status: 400, ..ApiError::no_such(kind, "starting_after", id) }
}

/// Objects in the order of their creation, which is what lists need, found by id.
#[derive(Debug)]
struct Shelf<T> {
    all: Vec<Arc<T>>,
    places: HashMap<String, usize>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { all: Vec::new(), places: HashMap::new() }
    }
}

impl<T> Shelf<T> {
    fn get(&self, id: &str) -> Option<&Arc<T>> {
        self.all.get(*self.places.get(id)?)
    }

    /// Adds an object or replaces its older version; returns its place if it is new.
    fn put(&mut self, id: &str, object: &Arc<T>) -> Option<usize> {
        if let Some(old) = self.places.get(id).and_then(|place| self.all.get_mut(*place)) {
            *old = Arc::clone(object);
            return None;
        }
        let place = self.all.len();
        self.all.push(Arc::clone(object));
        self.places.insert(id.to_owned(), place);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::{Action, Command, Endpoint},
        execute,
        form::Params,
    };

    const SECOND: u64 = 1_000_000;
    const DAY: u64 = 86_400 * SECOND;

    fn create(amount: u32) -> Params {
        Params::parse(
            format!("amount={amount}&currency=eur&payment_method=pm_card_visa&confirm=true").as_bytes(),
        )
    }

    fn command(params: Params) -> Command {
        match Action::parse(Endpoint::CreateIntent, params) {
            Ok(Action::Write(command)) => command,
            other => panic!("no command: {other:?}"),
        }
    }

    fn key(path: &str, params: &Params) -> KeyUse {
        KeyUse::new("key".to_owned(), path, params)
    }

    /// A state in which the key `key` was used at second 1 to charge 10.
    fn charged() -> (State, Arc<Commit>) {
        let mut state = State::default();
        let mut commit = execute::execute(&state, command(create(10)), Some("key"), SECOND);
        commit.key = Some(key("/v1/payment_intents", &create(10)));
        let commit = Arc::new(commit);
        state.apply(Arc::clone(&commit));
        (state, commit)
    }

    fn refusal(known: Known) -> (u16, String) {
        match known {
            Known::Refused(error) => (error.status, error.message.into_owned()),
            other => panic!("not refused: {other:?}"),
        }
    }

    #[test]
    fn the_same_request_finds_its_answer() {
        let (state, commit) = charged();
        let again = key("/v1/payment_intents", &create(10));
        assert_eq!(state.look_up(&again, 2 * SECOND, DAY), Known::Executed(commit));
    }

    #[test]
    fn other_parameters_or_another_endpoint_are_refused() {
        let (state, _) = charged();
        let (status, message) = refusal(state.look_up(&key("/v1/payment_intents", &create(11)), SECOND, DAY));
        assert_eq!((status, message.contains("same parameters")), (400, true));
        let (status, message) = refusal(state.look_up(&key("/v1/refunds", &create(10)), SECOND, DAY));
        assert_eq!((status, message.contains("same endpoint")), (400, true));
    }

    #[test]
    fn a_running_request_is_in_use_for_every_other() {
        let mut state = State::default();
        state.claim("key");
        for path in ["/v1/payment_intents", "/v1/refunds"] {
            assert_eq!(refusal(state.look_up(&key(path, &create(10)), SECOND, DAY)).0, 409);
        }
    }

    #[test]
    fn a_key_is_forgotten_after_its_time() {
        let (state, _) = charged();
        let other = key("/v1/payment_intents", &create(11));
        assert_eq!(refusal(state.look_up(&other, DAY, DAY)).0, 400);
        assert_eq!(state.look_up(&other, DAY + SECOND, DAY), Known::New);
    }

    #[test]
    fn a_walk_shows_every_intent_once_newest_first() {
        let mut state = State::default();
        for second in 1..=7 {
            let commit = execute::execute(&state, command(create(10)), None, second * SECOND);
            state.apply(Arc::new(commit));
        }
        let window = Created { from: 2, to: 6 };
        let mut page = Page { limit: 2, starting_after: None };
        let mut seen = Vec::new();
        loop {
            let listing = state.list_intents(window, &page).unwrap();
            seen.extend(listing.data.iter().map(|intent| intent.created));
            page.starting_after = listing.data.last().map(|intent| intent.id.clone());
            if !listing.has_more {
                break;
            }
        }
        assert_eq!(seen, [6, 5, 4, 3, 2]);
        page.starting_after = Some("pi_unknown".to_owned());
        assert_eq!(state.list_intents(window, &page).unwrap_err().status, 400);
    }

    #[test]
    fn a_clock_that_goes_back_keeps_the_order() {
        let mut state = State::default();
        for second in [5, 3] {
            let commit = execute::execute(&state, command(create(10)), None, second * SECOND);
            state.apply(Arc::new(commit));
        }
        let all = state.snapshot().intents;
        assert_eq!(all.iter().map(|intent| intent.created).collect::<Vec<_>>(), [5, 5]);
    }
}
