//! A circuit breaker: while the provider is down nobody waits for it, and only probes ask whether it is there again.
//!
//! [`Policy`] says when it opens and how often it probes; [`Breaker`] does it. Time is passed in, by the monotonic clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// When a breaker opens, and how often it probes while it is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// It opens after so many failures without an answer between them, however long that takes: by traffic that is slow
    /// and by traffic that is fast it opens after the same number of callers.
    pub failures: u32,
    /// So long after it opened the first probe is admitted. From there on the pause between two probes doubles ...
    pub first_pause: Duration,
    /// ... to this. So long after its return the provider is asked again at the latest.
    pub longest_pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            failures: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_millis(1500),
        }
    }
}

/// What a breaker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// Probes are under way, and nothing else passes.
    HalfOpen,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Who asks to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Passes while the breaker is closed.
    Ordinary,
    /// May be a probe as well.
    Probing,
}

/// What a call said about the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is there, whatever it answered.
    Answered,
    /// It is not, or not itself.
    Failed,
}

/// A circuit breaker, shared by all calls of a process.
#[derive(Debug)]
pub struct Breaker {
    policy: Policy,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// How often it has opened and closed: a call that began before that says nothing about now.
    turns: u64,
}

#[derive(Debug)]
enum Phase {
    Closed {
        /// Without an answer between them.
        failures: u32,
    },
    Open {
        next_probe: Instant,
        /// From the next probe to the one after it.
        pause: Duration,
        /// Probes under way. A probe that gets no answer does not keep the next one waiting.
        probes: u32,
    },
}

impl Phase {
    const fn state(&self) -> State {
        match self {
            Self::Closed { .. } => State::Closed,
            Self::Open { probes: 0, .. } => State::Open,
            Self::Open { .. } => State::HalfOpen,
        }
    }
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, inner: Mutex::new(Inner { phase: Phase::Closed { failures: 0 }, turns: 0 }) }
    }

    /// What it does.
    #[must_use]
    pub fn state(&self) -> State {
        self.lock().phase.state()
    }

    /// Whether it is open, and the next probe would be admitted.
    #[must_use]
    pub fn wants_probe(&self, now: Instant) -> bool {
        matches!(self.lock().phase, Phase::Open { next_probe, .. } if next_probe <= now)
    }

    /// Lets a call pass. `None`: it must not be made.
    pub(crate) fn admit(&self, traffic: Traffic, now: Instant) -> Option<Permit<'_>> {
        let mut inner = self.lock();
        let before = inner.phase.state();
        let is_probe = match &mut inner.phase {
            Phase::Closed { .. } => false,
            Phase::Open { next_probe, pause, probes }
                if traffic == Traffic::Probing && *next_probe <= now =>
            {
                *next_probe = later(now, *pause);
                *pause = pause.saturating_mul(2).min(self.policy.longest_pause);
                *probes = probes.saturating_add(1);
                true
            }
            Phase::Open { .. } => return None,
        };
        tell(before, inner.phase.state());
        Some(Permit { breaker: self, turn: inner.turns, is_probe, is_open: true })
    }

    fn end(&self, turn: u64, is_probe: bool, health: Option<Health>, now: Instant) {
        let mut inner = self.lock();
        if inner.turns != turn {
            return;
        }
        let before = inner.phase.state();
        match (&mut inner.phase, health) {
            (Phase::Closed { failures }, Some(Health::Answered)) => *failures = 0,
            (Phase::Closed { failures }, Some(Health::Failed)) => {
                *failures = failures.saturating_add(1);
                if *failures >= self.policy.failures {
                    let Policy { first_pause, .. } = self.policy;
                    inner.phase = Phase::Open {
                        next_probe: later(now, first_pause),
                        pause: first_pause.saturating_mul(2).min(self.policy.longest_pause),
                        probes: 0,
                    };
                    inner.turns = inner.turns.wrapping_add(1);
                }
            }
            (Phase::Open { .. }, Some(Health::Answered)) if is_probe => {
                inner.phase = Phase::Closed { failures: 0 };
                inner.turns = inner.turns.wrapping_add(1);
            }
            (Phase::Open { probes, .. }, _) if is_probe => *probes = probes.saturating_sub(1),
            (Phase::Closed { .. } | Phase::Open { .. }, _) => {}
        }
        tell(before, inner.phase.state());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn later(now: Instant, pause: Duration) -> Instant {
    now.checked_add(pause).unwrap_or(now)
}

/// One line for each change.
fn tell(before: State, after: State) {
    match (before, after) {
        (State::Closed, State::Open) => {
            tracing::warn!(
                "the provider is down: it is only probed until it answers, and callers do not wait for it"
            );
        }
        (State::Open, State::HalfOpen) => tracing::info!("the provider is probed"),
        (State::HalfOpen, State::Open) => tracing::info!("the provider is still down"),
        (_, State::Closed) if before != State::Closed => tracing::info!("the provider is there again"),
        _ => {}
    }
}

/// The leave to make one call. Dropped without a word, the call says nothing about the provider.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    breaker: &'a Breaker,
    turn: u64,
    is_probe: bool,
    is_open: bool,
}

impl Permit<'_> {
    /// What the call said about the provider.
    pub(crate) fn end(mut self, health: Health, now: Instant) {
        self.is_open = false;
        self.breaker.end(self.turn, self.is_probe, Some(health), now);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.breaker.end(self.turn, self.is_probe, None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    const POLICY: Policy =
        Policy { failures: 3, first_pause: Duration::from_secs(1), longest_pause: Duration::from_secs(4) };

    /// A breaker, and a clock that stands still until it is told to go.
    struct Bench {
        breaker: Breaker,
        clock: Cell<Instant>,
    }

    impl Bench {
        fn new() -> Self {
            Self { breaker: Breaker::new(POLICY), clock: Cell::new(Instant::now()) }
        }

        fn opened() -> Self {
            let bench = Self::new();
            (0..POLICY.failures).for_each(|_| bench.call(Health::Failed));
            assert_eq!(bench.breaker.state(), State::Open);
            bench
        }

        fn now(&self) -> Instant {
            self.clock.get()
        }

        fn admit(&self, traffic: Traffic) -> Option<Permit<'_>> {
            self.breaker.admit(traffic, self.now())
        }

        #[track_caller]
        fn call(&self, health: Health) {
            self.admit(Traffic::Probing).unwrap().end(health, self.now());
        }

        fn pass(&self, seconds: u64) {
            self.clock.set(self.now() + Duration::from_secs(seconds));
        }
    }

    #[test]
    fn it_opens_after_so_many_failures_in_a_row() {
        let bench = Bench::new();
        for _ in 0..10 {
            bench.call(Health::Failed);
            bench.call(Health::Failed);
            bench.call(Health::Answered);
        }
        assert_eq!(bench.breaker.state(), State::Closed);
        (0..3).for_each(|_| bench.call(Health::Failed));
        assert_eq!(bench.breaker.state(), State::Open);
        assert!(bench.admit(Traffic::Ordinary).is_none() && bench.admit(Traffic::Probing).is_none());
    }

    #[test]
    fn half_open_it_admits_its_probe_and_nobody_else() {
        let bench = Bench::opened();
        assert!(!bench.breaker.wants_probe(bench.now()));
        bench.pass(1);
        assert!(bench.breaker.wants_probe(bench.now()));
        assert!(bench.admit(Traffic::Ordinary).is_none(), "a caller never probes");
        let probe = bench.admit(Traffic::Probing).unwrap();
        assert_eq!(bench.breaker.state(), State::HalfOpen);
        assert!(!bench.breaker.wants_probe(bench.now()));
        assert!(bench.admit(Traffic::Ordinary).is_none() && bench.admit(Traffic::Probing).is_none());
        probe.end(Health::Answered, bench.now());
        assert_eq!(bench.breaker.state(), State::Closed);
        assert!(bench.admit(Traffic::Ordinary).is_some());
    }

    #[test]
    fn probes_come_more_slowly_up_to_a_bound() {
        let bench = Bench::opened();
        for pause in [1, 2, 4, 4, 4] {
            bench.pass(pause - 1);
            assert!(bench.admit(Traffic::Probing).is_none());
            bench.pass(1);
            bench.call(Health::Failed);
            assert_eq!(bench.breaker.state(), State::Open);
        }
        bench.pass(4);
        bench.call(Health::Answered);
        (0..3).for_each(|_| bench.call(Health::Failed));
        bench.pass(1);
        assert!(bench.breaker.wants_probe(bench.now()), "the next outage begins with the first pause");
    }

    #[test]
    fn a_probe_that_hangs_does_not_keep_the_next_one_waiting() {
        let bench = Bench::opened();
        bench.pass(1);
        let hangs = bench.admit(Traffic::Probing).unwrap();
        bench.pass(2);
        bench.admit(Traffic::Probing).unwrap().end(Health::Answered, bench.now());
        assert_eq!(bench.breaker.state(), State::Closed);
        hangs.end(Health::Failed, bench.now());
        assert_eq!(bench.breaker.state(), State::Closed);
    }

    #[test]
    fn what_began_before_it_opened_or_closed_says_nothing_about_now() {
        let bench = Bench::new();
        let slow: Vec<_> =
            (0..8).filter_map(|_| bench.breaker.admit(Traffic::Ordinary, bench.now())).collect();
        let mut slow = slow.into_iter();
        slow.by_ref().take(3).for_each(|call| call.end(Health::Failed, bench.now()));
        assert_eq!(bench.breaker.state(), State::Open);
        slow.next().unwrap().end(Health::Answered, bench.now());
        assert_eq!(bench.breaker.state(), State::Open, "only a probe closes it");
        bench.pass(1);
        bench.breaker.admit(Traffic::Probing, bench.now()).unwrap().end(Health::Answered, bench.now());
        slow.for_each(|call| call.end(Health::Failed, bench.now()));
        assert_eq!(bench.breaker.state(), State::Closed);
    }

    #[test]
    fn a_call_that_is_given_up_says_nothing() {
        let bench = Bench::new();
        (0..10).for_each(|_| drop(bench.admit(Traffic::Ordinary)));
        assert_eq!(bench.breaker.state(), State::Closed);
        let bench = Bench::opened();
        bench.pass(1);
        drop(bench.admit(Traffic::Probing));
        assert_eq!(bench.breaker.state(), State::Open);
        bench.pass(2);
        assert!(bench.breaker.wants_probe(bench.now()));
    }

    #[derive(Debug, Clone, Copy)]
    enum Act {
        Begin(Traffic),
        End(usize, Health),
        GiveUp(usize),
        Pass(u64),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let traffic = prop_oneof![Just(Traffic::Ordinary), Just(Traffic::Probing)];
        let health = prop_oneof![1 => Just(Health::Answered), 3 => Just(Health::Failed)];
        let act = prop_oneof![
            4 => traffic.prop_map(Act::Begin),
            4 => (0..8_usize, health).prop_map(|(which, health)| Act::End(which, health)),
            1 => (0..8_usize).prop_map(Act::GiveUp),
            1 => (0..2_000_u64).prop_map(Act::Pass),
        ];
        prop::collection::vec(act, 0..300)
    }

    proptest! {
        /// Whatever happens in whichever order: while it is not closed only probes pass, never two within the first
        /// pause, and it can always be closed by one that is answered.
        #[test]
        fn only_probes_pass_while_it_is_open(acts in acts()) {
            let (breaker, mut now) = (Breaker::new(POLICY), Instant::now());
            let (mut calls, mut last_probe) = (Vec::new(), None);
            for act in acts {
                match act {
                    Act::Begin(traffic) => {
                        let is_closed = breaker.state() == State::Closed;
                        let permit = breaker.admit(traffic, now);
                        prop_assert!(permit.is_none() || is_closed || traffic == Traffic::Probing);
                        prop_assert!(permit.is_some() || !is_closed);
                        if permit.is_some() && !is_closed {
                            let since = last_probe.replace(now).map(|last: Instant| now - last);
                            prop_assert!(since.is_none_or(|since| since >= POLICY.first_pause));
                        }
                        calls.extend(permit);
                    }
                    Act::End(which, health) if which < calls.len() => calls.swap_remove(which).end(health, now),
                    Act::GiveUp(which) if which < calls.len() => drop(calls.swap_remove(which)),
                    Act::End(..) | Act::GiveUp(_) => {}
                    Act::Pass(ms) => now += Duration::from_millis(ms),
                }
            }
            now += POLICY.longest_pause;
            breaker.admit(Traffic::Probing, now).unwrap().end(Health::Answered, now);
            prop_assert_eq!(breaker.state(), State::Closed);
        }
    }
}
