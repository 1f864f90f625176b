//! How many calls may be made a second time: a share of those that are made for the first time, so that retries never
//! become the greater part of what a provider in trouble is asked.

use std::sync::atomic::{AtomicU32, Ordering};

/// What a first try pays in, in tokens.
const DEPOSIT: u32 = 1;
/// What a retry takes out: ten first tries allow one retry, so at most 10 % are extra.
const COST: u32 = 10;
/// The most that is kept, for ten retries: what was saved in good times is not spent all at once in bad ones. A process
/// begins with it, so that the first request of a quiet one may be retried.
const SAVINGS: u32 = 10 * COST;

/// A bucket of tokens that first tries fill and retries empty.
#[derive(Debug)]
pub struct RetryBudget(AtomicU32);

impl Default for RetryBudget {
    fn default() -> Self {
        Self(AtomicU32::new(SAVINGS))
    }
}

impl RetryBudget {
    /// A call is made for the first time.
    pub fn deposit(&self) {
        let add = |tokens: u32| Some(tokens.saturating_add(DEPOSIT).min(SAVINGS));
        // full, it stays as it is
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether a call may be made once more.
    #[must_use]
    pub fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| tokens.checked_sub(COST)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ten_first_tries_allow_one_retry() {
        let budget = RetryBudget::default();
        assert_eq!((0..100).filter(|_| budget.withdraw()).count(), 10, "what a process begins with");
        let retried = (0..1000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(retried.count(), 100);
    }

    proptest! {
        #[test]
        fn at_most_a_tenth_is_extra(is_first in prop::collection::vec(any::<bool>(), 0..2000)) {
            let budget = RetryBudget::default();
            let (mut first, mut extra) = (0, 0);
            for is_first in is_first {
                if is_first {
                    budget.deposit();
                    first += 1;
                } else if budget.withdraw() {
                    extra += 1;
                }
                prop_assert!(extra * COST <= first + SAVINGS);
            }
        }
    }
}
