//! How many places there are: additive increase, multiplicative decrease, by the time that a claim takes.
//!
//! A database that has more to do than it can is not slower for some, but for all. So it is the quickest tenth of the claims
//! that tells: a burst has quick ones, whatever its last ones take, and a standing queue has none (the thought behind CoDel,
//! RFC 8289, section 4.2). What is quick is learnt, because a database on the other side of a network is never as quick as
//! one on the same machine.

use std::time::{Duration, Instant};

/// The policy.
#[derive(Debug, Clone, Copy)]
struct Policy {
    /// The least number of places.
    least: usize,
    /// Claims are looked at in windows of at least so long ...
    window: Duration,
    /// ... and so many claims.
    claims: usize,
    /// A claim is slow that takes so many times what it takes when nothing waits, ...
    slower: u32,
    /// ... and never one that takes less than this.
    quick: Duration,
    /// It is a queue if all claims were slow in so many windows, one after the other.
    patience: u32,
    /// With a queue, so much is left of the places. A fraction, as numerator and denominator.
    decrease: (usize, usize),
    /// With fewer claims than that in so long, there is nothing to limit.
    quiet: Duration,
    /// How far the learnt time moves towards a longer one in each window, one part in so many, if hardly anything is under
    /// way that could make it longer.
    learning: u32,
}

const POLICY: Policy = Policy {
    least: 4,
    window: Duration::from_millis(100),
    claims: 10,
    slower: 4,
    quick: Duration::from_millis(12),
    patience: 4,
    decrease: (4, 5),
    quiet: Duration::from_secs(1),
    learning: 16,
};

/// A turn worth telling somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is a queue: there are fewer places than there could be.
    Queue,
    /// All places are there again.
    Gone,
}

/// How many places there are.
pub(super) struct Limit {
    most: usize,
    now: usize,
    /// What a claim takes when nothing waits, as far as is known.
    floor: Option<Duration>,
    slow_windows: u32,
    window: Window,
}

struct Window {
    since: Instant,
    took: Vec<Duration>,
    /// The most places that were taken at once.
    taken: usize,
    /// Somebody found no place.
    refused: bool,
}

impl Window {
    const fn at(since: Instant) -> Self {
        Self { since, took: Vec::new(), taken: 0, refused: false }
    }
}

impl Limit {
    /// All places are there until there is a queue.
    pub(super) fn new(most: usize, now: Instant) -> Self {
        Self { most, now: most, floor: None, slow_windows: 0, window: Window::at(now) }
    }

    /// How many there are now.
    pub(super) fn places(&mut self, now: Instant) -> usize {
        let is_quiet = now.saturating_duration_since(self.window.since) >= POLICY.quiet;
        if is_quiet && self.window.took.len() < POLICY.claims {
            (self.now, self.slow_windows, self.window) = (self.most, 0, Window::at(now));
        }
        self.now
    }

    /// So many places are taken now.
    pub(super) fn taken(&mut self, taken: usize) {
        // nobody else was there, so there is no queue, however slow the last of a burst were
        if taken <= 1 {
            self.slow_windows = 0;
        }
        self.window.taken = self.window.taken.max(taken);
    }

    /// Somebody found no place.
    pub(super) const fn refused(&mut self) {
        self.window.refused = true;
    }

    /// A claim took so long.
    pub(super) fn took(&mut self, took: Duration, now: Instant) -> Option<Turn> {
        self.window.took.push(took);
        let is_over = now.saturating_duration_since(self.window.since) >= POLICY.window;
        if !is_over || self.window.took.len() < POLICY.claims {
            return None;
        }
        let window = std::mem::replace(&mut self.window, Window::at(now));
        let before = self.now;
        self.look_at(window);
        match (before == self.most, self.now == self.most) {
            (true, false) => Some(Turn::Queue),
            (false, true) => Some(Turn::Gone),
            _ => None,
        }
    }

    fn look_at(&mut self, mut window: Window) {
        let tenth = window.took.len() / 10;
        let (_, quick, _) = window.took.select_nth_unstable(tenth);
        let quick = *quick;
        let mut floor = self.floor.map_or(quick, |floor| floor.min(quick));
        if window.taken <= POLICY.least {
            floor = floor.saturating_add(quick.saturating_sub(floor) / POLICY.learning);
        }
        self.floor = Some(floor);
        let is_slow = quick > floor.saturating_mul(POLICY.slower).max(POLICY.quick);
        self.slow_windows = if is_slow { self.slow_windows.saturating_add(1) } else { 0 };
        if self.slow_windows >= POLICY.patience {
            let (numerator, denominator) = POLICY.decrease;
            let less = self.now.saturating_mul(numerator).checked_div(denominator).unwrap_or(self.now);
            self.now = less.max(POLICY.least).min(self.most);
        } else if !is_slow {
            // what nobody asks for can be given back quickly
            let more = if window.refused { 1 } else { (self.now / 2).max(1) };
            self.now = self.now.saturating_add(more).min(self.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A database that does one thing at a time, each for so long: what is under way at once shares it.
    struct Database {
        each: Duration,
        now: Instant,
    }

    impl Database {
        /// For so long as many ask for places as there are, or fewer. Says how many claims were under way at once, each time
        /// that the limit was asked.
        fn busy(&mut self, limit: &mut Limit, asking: usize, long: Duration) -> Vec<usize> {
            let end = self.now + long;
            let mut places = Vec::new();
            while self.now < end {
                let taken = asking.min(limit.places(self.now));
                limit.taken(taken);
                if taken < asking {
                    limit.refused();
                }
                let took = self.each * u32::try_from(taken).unwrap();
                self.now += self.each;
                limit.took(took, self.now);
                places.push(taken);
            }
            places
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn at_rest(each: Duration) -> (Limit, Database) {
        let now = Instant::now();
        let (mut limit, mut database) = (Limit::new(256, now), Database { each, now });
        database.busy(&mut limit, 1, SECOND);
        (limit, database)
    }

    #[test]
    fn a_standing_queue_is_refused_and_the_database_stays_busy() {
        let (mut limit, mut database) = at_rest(Duration::from_millis(1));
        assert_eq!(limit.now, 256);
        database.busy(&mut limit, 1_000, 3 * SECOND);
        let places = database.busy(&mut limit, 1_000, 10 * SECOND);
        let (least, most) = (places.iter().min(), places.iter().max());
        assert!(least >= Some(&6) && most <= Some(&16), "{least:?} to {most:?}");
        // and when the crowd has gone, everything is as before
        database.busy(&mut limit, 1, 2 * SECOND);
        assert_eq!(limit.now, 256);
    }

    #[test]
    fn a_burst_is_none() {
        let (mut limit, mut database) = at_rest(Duration::from_millis(1));
        for _ in 0..20 {
            // all of them come at once, and the last has waited for all others
            (1..=200).for_each(|taken| limit.taken(taken));
            for place in 1..=200 {
                database.now += database.each;
                limit.took(database.each * place, database.now);
            }
        }
        assert_eq!(limit.now, 256);
    }

    #[test]
    fn a_database_that_is_slow_by_itself_is_learnt() {
        let (mut limit, mut database) = at_rest(Duration::from_millis(1));
        // it is far away now: each claim takes 200 ms, and any number of them at once
        let far = Duration::from_millis(200);
        let mut far_away = |limit: &mut Limit, long: Duration| {
            let end = database.now + long;
            while database.now < end {
                let taken = limit.places(database.now).min(60);
                limit.taken(taken);
                limit.refused();
                database.now += far;
                for _ in 0..taken {
                    limit.took(far, database.now);
                }
            }
        };
        far_away(&mut limit, 10 * SECOND);
        assert!(limit.now < 60, "{}", limit.now);
        far_away(&mut limit, 120 * SECOND);
        assert!(limit.now >= 60, "{}", limit.now);
    }

    #[test]
    fn there_is_always_a_place() {
        for most in [1, 2, 4, 8] {
            let now = Instant::now();
            let (mut limit, mut database) = (Limit::new(most, now), Database { each: SECOND / 10, now });
            limit.floor = Some(Duration::ZERO);
            database.busy(&mut limit, 100, 100 * SECOND);
            assert!(limit.now >= 1 && limit.now <= most, "{} of {most}", limit.now);
        }
    }
}
