//! Who gets in: places for requests that do database work, and as many of them as the database carries without a queue.
//!
//! Nobody waits for a place. Who finds none hears so at once, and those who are in are as quick as ever; a queue would make
//! everybody slow, and its end would be served when nobody waits any more. `limit` says how many places there are.

mod limit;

use crate::problem::{Code, Problem};
use domain::id::MerchantId;
use domain::idempotency::IdempotencyKey;
use limit::{Limit, Turn};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, SemaphorePermit};

/// One place in so many is kept for what has priority.
const RESERVE: usize = 8;
/// How many bodies may be waited for at once: with 64 KiB each, 128 MiB.
const BODIES: usize = 2_048;
/// How many API keys are looked up at once that are not remembered.
const KEY_LOOKUPS: usize = 64;
/// How many callers may wait at once until another request, or the worker, has settled what they asked for: of one merchant,
/// and of all.
const WAITERS_OF_ONE: usize = 64;
const WAITERS: usize = 256;
/// How many keys are remembered as used at least, and for how long; at most twice as many, and twice as long.
const KEYS: usize = 50_000;
const KEYS_FOR: Duration = Duration::from_secs(600);

/// Whether a request may use the reserve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// It begins something new.
    Ordinary,
    /// It reads, asks what became of a request, or gives money back: what people need most when there is trouble.
    High,
}

/// Who gets in.
pub struct Admission {
    most: usize,
    places: Mutex<Places>,
    bodies: Semaphore,
    key_lookups: Semaphore,
    waiters: Mutex<HashMap<MerchantId, usize>>,
    keys: Mutex<Keys>,
    hasher: RandomState,
}

struct Places {
    limit: Limit,
    taken: usize,
    /// Of the reserve.
    reserved: usize,
}

impl Admission {
    /// At most so many places.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            places: Mutex::new(Places {
                limit: Limit::new(most.saturating_sub(most / RESERVE), Instant::now()),
                taken: 0,
                reserved: 0,
            }),
            bodies: Semaphore::new(BODIES),
            key_lookups: Semaphore::new(KEY_LOOKUPS),
            waiters: Mutex::default(),
            keys: Mutex::new(Keys { young: HashSet::new(), since: Instant::now(), old: HashSet::new() }),
            hasher: RandomState::new(),
        }
    }

    /// A place, if there is one.
    #[must_use]
    pub fn admit(self: &Arc<Self>, priority: Priority) -> Option<Place> {
        let now = Instant::now();
        let mut places = self.places();
        let is_full = places.taken >= places.limit.places(now);
        // counted apart: when places become fewer, more may be taken than there are, and the reserve is still one
        let is_reserved = is_full && priority == Priority::High && places.reserved < self.most / RESERVE;
        if is_full && !is_reserved {
            places.limit.refused();
            return None;
        }
        if is_reserved {
            places.reserved = places.reserved.saturating_add(1);
        } else {
            places.taken = places.taken.saturating_add(1);
            let taken = places.taken;
            places.limit.taken(taken);
        }
        drop(places);
        Some(Place { admission: Arc::clone(self), since: now, is_reserved })
    }

    /// How many requests do database work now, and how many may begin something new.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let mut places = self.places();
        (places.taken.saturating_add(places.reserved), places.limit.places(Instant::now()))
    }

    /// A place for a body that is not there yet.
    ///
    /// # Errors
    /// 503 `overloaded`.
    pub fn wait_for_body(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.bodies.try_acquire().map_err(|_| overloaded())
    }

    /// A place to look up an API key. It comes before all others: whoever has no valid key cannot take those.
    ///
    /// # Errors
    /// 503 `overloaded`.
    pub fn look_up_key(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.key_lookups.try_acquire().map_err(|_| overloaded())
    }

    /// A place to wait until somebody else has settled what a caller asked for; without one, it is told how it stands.
    #[must_use]
    pub fn wait_for_others(self: &Arc<Self>, merchant_id: MerchantId) -> Option<Waiter> {
        let mut waiters = self.waiters();
        if waiters.values().sum::<usize>() >= WAITERS {
            return None;
        }
        let of_one = waiters.entry(merchant_id).or_default();
        if *of_one >= WAITERS_OF_ONE {
            return None;
        }
        *of_one = of_one.saturating_add(1);
        Some(Waiter { admission: Arc::clone(self), merchant_id })
    }

    /// An operation was written for this key.
    pub fn used(&self, merchant_id: MerchantId, key: &IdempotencyKey) {
        self.keys().insert(self.digest(merchant_id, key), Instant::now());
    }

    /// Whether this process has seen the key used. Another may have: then nobody here knows.
    #[must_use]
    pub fn is_used(&self, merchant_id: MerchantId, key: &IdempotencyKey) -> bool {
        self.keys().has(self.digest(merchant_id, key))
    }

    fn digest(&self, merchant_id: MerchantId, key: &IdempotencyKey) -> u64 {
        self.hasher.hash_one((merchant_id.0, key.as_str()))
    }

    fn claimed(&self, took: Duration, now: Instant) -> Option<Turn> {
        let mut places = self.places();
        let taken = places.taken;
        places.limit.taken(taken);
        places.limit.took(took, now)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiters(&self) -> MutexGuard<'_, HashMap<MerchantId, usize>> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys that were used lately, in two generations: the older is forgotten as a whole. One insertion per payment has to cost
/// next to nothing, which keeping each one's age would not.
struct Keys {
    young: HashSet<u64>,
    /// When the first of the young came.
    since: Instant,
    old: HashSet<u64>,
}

impl Keys {
    fn insert(&mut self, key: u64, now: Instant) {
        if self.young.len() >= KEYS || now.saturating_duration_since(self.since) >= KEYS_FOR {
            self.old = std::mem::take(&mut self.young);
        }
        if self.young.is_empty() {
            self.since = now;
        }
        self.young.insert(key);
    }

    fn has(&self, key: u64) -> bool {
        self.young.contains(&key) || self.old.contains(&key)
    }
}

/// What whoever finds no place is told.
#[must_use]
pub fn overloaded() -> Problem {
    Problem::passing(Code::Overloaded, "Too much to do. Send the request again a little later.", 1)
}

/// A place among the requests that do database work, until it is dropped.
pub struct Place {
    admission: Arc<Admission>,
    since: Instant,
    is_reserved: bool,
}

impl Place {
    /// Ends with the claim of a payment, which is what the limit goes by: all of them do the same work, so they take the
    /// same time, unless they wait for each other.
    pub fn claimed(self) {
        let now = Instant::now();
        match self.admission.claimed(now.saturating_duration_since(self.since), now) {
            Some(Turn::Queue) => tracing::warn!("the database has a queue; fewer requests are let in"),
            Some(Turn::Gone) => tracing::info!("the database has no queue any more; all requests are let in"),
            None => {}
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.admission.places();
        let Places { taken, reserved, .. } = &mut *places;
        let count = if self.is_reserved { reserved } else { taken };
        *count = count.saturating_sub(1);
    }
}

/// A caller who waits for others, until it is dropped.
pub struct Waiter {
    admission: Arc<Admission>,
    merchant_id: MerchantId,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut waiters = self.admission.waiters();
        if let Some(of_one) = waiters.get_mut(&self.merchant_id) {
            *of_one = of_one.saturating_sub(1);
            if *of_one == 0 {
                waiters.remove(&self.merchant_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn what_has_priority_finds_a_place_when_others_do_not() {
        let admission = Arc::new(Admission::new(8));
        let mut ordinary: Vec<_> = std::iter::from_fn(|| admission.admit(Priority::Ordinary)).collect();
        assert_eq!(ordinary.len(), 7);
        let high = admission.admit(Priority::High);
        assert!(high.is_some() && admission.admit(Priority::High).is_none());
        drop(high);
        assert!(admission.admit(Priority::Ordinary).is_none(), "the reserve is for others");
        ordinary.pop();
        assert!(admission.admit(Priority::Ordinary).is_some());
        assert_eq!(admission.count(), (6, 7));
    }

    #[test]
    fn the_reserve_is_there_when_places_have_become_fewer() {
        let admission = Arc::new(Admission::new(256));
        let taken: Vec<_> = std::iter::from_fn(|| admission.admit(Priority::Ordinary)).collect();
        // a queue: claims are slow, window after window
        let mut now = Instant::now();
        for claim in 0..300 {
            now += Duration::from_millis(10);
            let took = if claim < 20 { Duration::from_millis(1) } else { Duration::from_secs(1) };
            admission.claimed(took, now);
        }
        assert!(admission.places().limit.places(now) < taken.len());
        let reserve: Vec<_> = std::iter::from_fn(|| admission.admit(Priority::High)).collect();
        assert_eq!(reserve.len(), 256 / RESERVE);
    }

    #[test]
    fn one_place_is_for_everybody() {
        let admission = Arc::new(Admission::new(1));
        let place = admission.admit(Priority::Ordinary).unwrap();
        assert!(admission.admit(Priority::High).is_none());
        place.claimed();
        assert!(admission.admit(Priority::High).is_some());
    }

    #[test]
    fn a_merchant_whose_callers_wait_leaves_room_for_others() {
        let admission = Arc::new(Admission::new(8));
        let [one, other] = [1, 2].map(|id| MerchantId(Uuid::from_u128(id)));
        let waiting: Vec<_> = std::iter::from_fn(|| admission.wait_for_others(one)).collect();
        assert_eq!(waiting.len(), WAITERS_OF_ONE);
        assert!(admission.wait_for_others(other).is_some());
        drop(waiting);
        assert!(admission.wait_for_others(one).is_some());
        assert!(admission.waiters().is_empty());
        let of_many = (0..).map(|id| admission.wait_for_others(MerchantId(Uuid::from_u128(id))));
        assert_eq!(of_many.map_while(|waiter| waiter).collect::<Vec<_>>().len(), WAITERS);
    }

    #[test]
    fn keys_are_forgotten_when_there_are_many_and_when_they_are_old() {
        let began = Instant::now();
        let mut keys = Keys { young: HashSet::new(), since: began, old: HashSet::new() };
        let most = u64::try_from(KEYS).unwrap();
        for key in 0..3 * most {
            keys.insert(key, began);
            assert!(keys.has(key) && keys.has(key.saturating_sub(most - 1)));
        }
        assert!(!keys.has(0) && keys.young.len() + keys.old.len() <= 2 * KEYS);

        keys.insert(0, began + KEYS_FOR);
        assert!(keys.has(0) && keys.has(3 * most - 1), "the last ones are the old now");
        keys.insert(1, began + 2 * KEYS_FOR);
        assert!(keys.has(0) && !keys.has(3 * most - 1));
    }

    #[test]
    fn a_key_is_the_merchants_own() {
        let admission = Admission::new(8);
        let [one, other] = [1, 2].map(|id| MerchantId(Uuid::from_u128(id)));
        let key = IdempotencyKey::parse(b"key").unwrap();
        admission.used(one, &key);
        assert!(admission.is_used(one, &IdempotencyKey::parse(b"\"key\"").unwrap()));
        assert!(!admission.is_used(other, &key));
    }
}
