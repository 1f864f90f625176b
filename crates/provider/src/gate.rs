//! Who may call the provider: the circuit breaker, and a bulkhead for each lane. What may not be called now is refused at
//! once and never queued: the worker has it instead.

use crate::breaker::{Breaker, Health, Permit, Traffic};
use domain::provider::NotExecuted;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{Semaphore, SemaphorePermit};

/// For whom a call is made. Each lane has places of its own, so neither can take what the other needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Somebody waits for the answer, and never for a probe.
    Callers,
    /// Nobody waits: the worker, and whoever compares.
    Background,
}

impl Lane {
    const fn name(self) -> &'static str {
        match self {
            Self::Callers => "callers",
            Self::Background => "background",
        }
    }

    const fn traffic(self) -> Traffic {
        match self {
            Self::Callers => Traffic::Ordinary,
            Self::Background => Traffic::Probing,
        }
    }
}

/// How many calls each lane may have under way at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// For callers.
    pub callers: usize,
    /// For the background.
    pub background: usize,
}

/// What every call passes.
pub(crate) struct Gate {
    breaker: Arc<Breaker>,
    callers: Semaphore,
    background: Semaphore,
    refused: Counter<u64>,
}

/// A call that may be made.
pub(crate) struct Admitted<'a> {
    permit: Permit<'a>,
    _place: SemaphorePermit<'a>,
}

impl Gate {
    pub(crate) fn new(breaker: Arc<Breaker>, places: Places) -> Self {
        let refused = opentelemetry::global::meter("provider")
            .u64_counter("payments.provider.refused")
            .with_unit("{call}")
            .with_description("Calls to the payment provider that were not made, by lane and reason.")
            .build();
        for lane in [Lane::Callers, Lane::Background] {
            for reason in ["breaker_open", "bulkhead_full"] {
                // a counter that is not there before its first call looks as if it had never grown
                refused.add(0, &labels(lane, reason));
            }
        }
        let places_of = |places: usize| Semaphore::new(places.min(Semaphore::MAX_PERMITS));
        Self {
            breaker,
            callers: places_of(places.callers),
            background: places_of(places.background),
            refused,
        }
    }

    pub(crate) fn admit(&self, lane: Lane, now: Instant) -> Result<Admitted<'_>, NotExecuted> {
        let places = match lane {
            Lane::Callers => &self.callers,
            Lane::Background => &self.background,
        };
        // first the place: a probe without one would be lost
        let Ok(place) = places.try_acquire() else {
            return Err(self.refuse(lane, NotExecuted::BulkheadFull, "bulkhead_full"));
        };
        match self.breaker.admit(lane.traffic(), now) {
            Some(permit) => Ok(Admitted { permit, _place: place }),
            None => Err(self.refuse(lane, NotExecuted::BreakerOpen, "breaker_open")),
        }
    }

    pub(crate) const fn breaker(&self) -> &Arc<Breaker> {
        &self.breaker
    }

    fn refuse(&self, lane: Lane, why: NotExecuted, reason: &'static str) -> NotExecuted {
        self.refused.add(1, &labels(lane, reason));
        why
    }
}

fn labels(lane: Lane, reason: &'static str) -> [KeyValue; 2] {
    [KeyValue::new("payments.provider.lane", lane.name()), KeyValue::new("payments.provider.refusal", reason)]
}

impl Admitted<'_> {
    pub(crate) fn end(self, health: Health, now: Instant) {
        self.permit.end(health, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breaker::Policy;

    #[test]
    fn a_lane_that_is_full_leaves_the_other_alone() {
        let gate = Gate::new(Arc::new(Breaker::new(Policy::default())), Places { callers: 2, background: 1 });
        let now = Instant::now();
        let refused = |lane| gate.admit(lane, now).err();
        let waiting = [gate.admit(Lane::Callers, now).unwrap(), gate.admit(Lane::Callers, now).unwrap()];
        assert_eq!(refused(Lane::Callers), Some(NotExecuted::BulkheadFull));
        let working = gate.admit(Lane::Background, now).unwrap();
        assert_eq!(refused(Lane::Background), Some(NotExecuted::BulkheadFull));
        waiting.into_iter().for_each(|call| call.end(Health::Answered, now));
        assert_eq!(refused(Lane::Callers), None, "a place is free when its call has ended");
        drop(working);
        assert_eq!(refused(Lane::Background), None);
    }
}
