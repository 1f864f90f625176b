//! One more try within the same request, with the same key, for whoever still waits: most of what goes wrong is over by
//! then. What the second try may cost is bounded by the caller's patience, by the lease, and by a budget of the process.

use crate::app::operations::{Attempt, full_jitter};
use domain::provider::{NotExecuted, Unknown};
use std::time::{Duration, Instant};

/// A step that may well bring an outcome if it is taken once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Again {
    /// What went wrong, of the outcomes that calls are counted by.
    pub(super) reason: &'static str,
    /// The provider wants to be left alone so long.
    pub(super) not_before: Duration,
}

impl Again {
    /// After what surely did not happen. `None`: it will not be better in a moment, or there is somebody else to try.
    pub(super) const fn after_not_executed(why: NotExecuted) -> Option<Self> {
        match why {
            NotExecuted::Unreachable => Some(Self { reason: "unreachable", not_before: Duration::ZERO }),
            NotExecuted::Throttled(not_before) => Some(Self { reason: "throttled", not_before }),
            NotExecuted::Misconfigured
            | NotExecuted::LeaseTooShort
            | NotExecuted::BreakerOpen
            | NotExecuted::BulkheadFull => None,
        }
    }

    /// After what nobody can tell yet. `None`: the same key brings the same again, or the provider is at work.
    pub(super) const fn after_unknown(why: &Unknown) -> Option<Self> {
        let (reason, not_before) = match why {
            Unknown::NoAnswer => ("no_answer", Duration::ZERO),
            Unknown::ServerError(not_before) => ("server_error", *not_before),
            Unknown::Busy => ("busy", Duration::ZERO),
            Unknown::Unreadable => ("unreadable", Duration::ZERO),
            Unknown::StoredServerError
            | Unknown::StillProcessing(_)
            | Unknown::OtherParameters
            | Unknown::Contradicted(_) => return None,
        };
        Some(Self { reason, not_before })
    }

    /// The rest before the second try, if there is to be one for a caller who waits `until` then.
    pub(super) fn rest(self, attempt: &Attempt<'_>, until: Instant) -> Option<Duration> {
        let rest = self.not_before.saturating_add(full_jitter(0));
        let begins = Instant::now().checked_add(rest)?;
        let in_time = begins < until && attempt.lease.covers(begins, attempt.app.settings.windows.attempt);
        (in_time && attempt.app.retry_budget.withdraw()).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_be_over_in_a_moment_is_tried_again() {
        let reason = |why| Again::after_not_executed(why).map(|again| again.reason);
        assert_eq!(reason(NotExecuted::Unreachable), Some("unreachable"));
        assert_eq!(reason(NotExecuted::Throttled(Duration::ZERO)), Some("throttled"));
        for why in [
            NotExecuted::Misconfigured,
            NotExecuted::LeaseTooShort,
            NotExecuted::BreakerOpen,
            NotExecuted::BulkheadFull,
        ] {
            assert_eq!(reason(why), None, "{why:?}");
        }
        let after = Again::after_unknown(&Unknown::ServerError(Duration::from_secs(3)));
        assert_eq!(after, Some(Again { reason: "server_error", not_before: Duration::from_secs(3) }));
        assert!(Again::after_unknown(&Unknown::NoAnswer).is_some());
        assert!(Again::after_unknown(&Unknown::StoredServerError).is_none());
        assert!(Again::after_unknown(&Unknown::OtherParameters).is_none());
    }
}
