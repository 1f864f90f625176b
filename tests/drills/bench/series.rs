//! Several turns of the same, and what of them counts: the median.

use super::cpu::Cpu;
use super::load::Load;
use e2e::Figures;
use serde_json::{Value, json};

/// One turn of the service.
#[derive(Debug)]
pub struct Turn {
    /// What callers saw.
    pub load: Load,
    /// What it cost.
    pub cpu: Cpu,
}

/// Turns of the service and, if there is something to compare it to, of pgbench; each from the slowest to the fastest.
#[derive(Debug, Default)]
pub struct Series {
    turns: Vec<Turn>,
    baseline: Vec<f64>,
}

impl Series {
    /// Another turn of the service.
    pub fn add(&mut self, turn: Turn) {
        self.turns.push(turn);
        self.turns.sort_by(|one, other| one.load.rate().total_cmp(&other.load.rate()));
    }

    /// Another turn of pgbench, in times per second.
    pub fn add_baseline(&mut self, rate: f64) {
        self.baseline.push(rate);
        self.baseline.sort_by(f64::total_cmp);
    }

    fn median(&self) -> Option<&Turn> {
        self.turns.get(self.turns.len() / 2)
    }

    /// Requests per second in the median turn.
    pub fn rate(&self) -> f64 {
        self.median().map_or(0.0, |turn| turn.load.rate())
    }

    /// Times per second in pgbench's median turn, if it had one.
    pub fn baseline_rate(&self) -> Option<f64> {
        self.baseline.get(self.baseline.len() / 2).copied()
    }

    /// The service's median as a share of pgbench's.
    pub fn ratio(&self) -> Option<f64> {
        self.baseline_rate().map(|baseline| self.rate() / baseline)
    }

    /// Seconds of processor time that a request of the median turn cost.
    pub fn each(&self) -> Cpu {
        self.median().map_or(Cpu::default(), |turn| turn.cpu.per(turn.load.times.len()))
    }

    /// How often somebody was told to come back, in all turns.
    pub fn refused(&self) -> usize {
        self.turns.iter().map(|turn| turn.load.refused).sum()
    }

    /// How many processors were busy in the median turn.
    pub fn busy(&self) -> f64 {
        self.median().map_or(0.0, |turn| turn.cpu.sum() / turn.load.took.as_secs_f64())
    }

    /// The figures of callers.
    pub fn tell(&self, name: &str, figures: &mut Figures) {
        let Some(Turn { load, .. }) = self.median() else { return };
        figures.tell(&format!("{name}/s"), format_args!("{:.0} ({})", load.rate(), spread(&self.rates())));
        figures.tell(
            &format!("{name}, p50 and p99"),
            format_args!("{:.1?} {:.1?}", load.percentile(50), load.percentile(99)),
        );
        if let Some(baseline) = self.baseline_rate() {
            let spread = spread(&self.baseline);
            figures.tell(&format!("{name}, pgbench/s"), format_args!("{baseline:.0} ({spread})"));
        }
    }

    fn rates(&self) -> Vec<f64> {
        self.turns.iter().map(|turn| turn.load.rate()).collect()
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let each = self.each();
        let micros = |percent| self.median().map(|turn| turn.load.percentile(percent).as_micros());
        json!({
            "rates": self.rates(),
            "pgbench_rates": self.baseline,
            "ratio": self.ratio(),
            "p50_us": micros(50),
            "p99_us": micros(99),
            "cpu_us": {
                "service": each.service * 1e6,
                "postgres": each.postgres * 1e6,
                "simulator": each.simulator * 1e6,
                "load": each.load * 1e6,
            },
        })
    }
}

/// From the least to the most, of what is sorted.
fn spread(rates: &[f64]) -> String {
    match rates {
        [] => String::new(),
        [only] => format!("{only:.0}"),
        [least, .., most] => format!("{least:.0} to {most:.0}"),
    }
}
