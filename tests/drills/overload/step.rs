//! What came of one load, and of the same in several rounds.

use crate::bench::cpu::Cpu;
use e2e::{Asked, percentile};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The same load, once.
#[derive(Debug, Clone, Default)]
pub struct Turn {
    /// Requests per second.
    pub offered: f64,
    /// Payments taken or accepted per second: 201 or 202.
    pub goodput: f64,
    /// Of them, 202.
    pub accepted: f64,
    /// Requests per second that were told to come back: 503.
    pub refused: f64,
    /// Requests with any other answer, or none.
    pub other: usize,
    /// Refusals without a `Retry-After`.
    pub without_retry_after: usize,
    /// In milliseconds, from when it was due, of payments taken or accepted.
    pub p50: f64,
    /// The same.
    pub p99: f64,
    /// The same, of refusals.
    pub refused_p99: f64,
    /// How late the load itself was, in milliseconds.
    pub late_p99: f64,
    /// Processor time per second.
    pub cpu: Cpu,
}

impl Turn {
    /// What happened between two moments.
    pub fn of(asked: &[Asked], from: Instant, to: Instant, cpu: Cpu) -> Self {
        let seconds = (to - from).as_secs_f64();
        let due: Vec<_> = asked.iter().filter(|one| (from..to).contains(&one.due)).collect();
        // what is answered later than the load lasts is no work done under load
        let answered = |is: fn(&Asked) -> bool| {
            count(asked.iter().filter(|one| is(one) && (from..to).contains(&(one.due + one.took))).count())
                / seconds
        };
        let slowest = |is: fn(&Asked) -> bool, percent| {
            ms(percent, due.iter().filter(|one| is(one)).map(|one| one.took))
        };
        Self {
            offered: count(due.len()) / seconds,
            goodput: answered(is_admitted),
            accepted: answered(|one| one.status == 202),
            refused: answered(is_refused),
            other: due.iter().filter(|one| !is_admitted(one) && !is_refused(one)).count(),
            without_retry_after: due.iter().filter(|one| is_refused(one) && !one.says_when).count(),
            p50: slowest(is_admitted, 50),
            p99: slowest(is_admitted, 99),
            refused_p99: slowest(is_refused, 99),
            late_p99: ms(99, due.iter().map(|one| one.late)),
            cpu: cpu.over(seconds),
        }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        json!({
            "offered": self.offered, "goodput": self.goodput, "accepted": self.accepted, "refused": self.refused,
            "other": self.other, "without_retry_after": self.without_retry_after,
            "p50_ms": self.p50, "p99_ms": self.p99, "refused_p99_ms": self.refused_p99, "late_p99_ms": self.late_p99,
            "cores": {
                "service": self.cpu.service, "postgres": self.cpu.postgres, "simulator": self.cpu.simulator,
                "load": self.cpu.load,
            },
        })
    }
}

/// Whether a payment was taken or accepted.
pub fn is_admitted(one: &Asked) -> bool {
    matches!(one.status, 201 | 202)
}

/// Whether it was told to come back.
pub fn is_refused(one: &Asked) -> bool {
    one.status == 503
}

/// So many percent of these times, in milliseconds.
pub fn ms(percent: usize, times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    percentile(&times, percent).as_secs_f64() * 1000.0
}

fn count(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A step of the curve: so many times the capacity, in each round once.
#[derive(Debug)]
pub struct Step {
    /// How many times the capacity is offered.
    pub times: f64,
    /// What came of it.
    pub turns: Vec<Turn>,
}

impl Step {
    /// The median of a figure.
    pub fn median(&self, figure: impl Fn(&Turn) -> f64) -> f64 {
        let mut figures: Vec<_> = self.turns.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(0.0)
    }

    /// The sum of a count.
    pub fn sum(&self, figure: impl Fn(&Turn) -> usize) -> usize {
        self.turns.iter().map(figure).sum()
    }
}
