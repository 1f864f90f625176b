//! Two services under the same pressure: a provider that goes dark, or the customers of a launch day. What callers notice is
//! put side by side, as a table and as a chart.

use crate::chart::{Chart, Scale};
use crate::load::{Asked, Load, by_chance, evenly, percentile};
use crate::{Api, Crowd, ItWorks, Simulator, World, payment};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

/// An answer that nobody has to wait for.
const QUICK: Duration = Duration::from_secs(1);
/// What the contract of a payment allows: a request is answered in this time, whatever fails.
const DEADLINE: Duration = Duration::from_millis(10_500);

/// What the provider takes when it is well.
const LATENCY: Duration = Duration::from_millis(20);
/// As many customers may look at a page at once: fewer than this process and a service may have files open.
const CONNECTIONS: usize = 18_000;
/// What it had begun to ignore it ignores for longer than anybody waits.
const LASTS_MS: u64 = 600_000;

/// What happens.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// The provider takes connections and says nothing.
    DarkProvider,
    /// So many more customers come per second, more than a machine can serve.
    LaunchDay(f64),
}

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Pressure {
    /// What happens.
    pub trouble: Trouble,
    /// How long it lasts; half of it is measured before, and as much after.
    pub lasting: Duration,
    /// New payments per second, all the time.
    pub creates: f64,
    /// Reads per second.
    pub reads: f64,
    /// How long a customer looks at a page that does not come.
    pub patience: Duration,
}

/// What became of the requests of one service.
#[derive(Debug)]
struct Side {
    creates: Vec<Asked>,
    reads: Vec<Asked>,
    began: Instant,
    from: Instant,
    to: Instant,
}

/// What callers of two services noticed. Printed, it is a table.
#[derive(Debug)]
pub struct PressureReport {
    pressure: Pressure,
    there: Side,
    here: Side,
}

/// Puts the same pressure on the service that most tutorials end with, and then on a world's own.
///
/// # Errors
/// They cannot be driven. What callers noticed is in the report.
pub async fn pressure(pressure: Pressure, there: &ItWorks, here: &World) -> Result<PressureReport> {
    // one after the other: they share the machine
    let there = pressure.put_on(&there.api, &there.simulator).await.context("there")?;
    let here = pressure.put_on(&here.api, &here.simulator).await.context("here")?;
    Ok(PressureReport { pressure, there, here })
}

impl Pressure {
    async fn put_on(self, api: &Api, simulator: &Simulator) -> Result<Side> {
        simulator.settings(&json!({ "latency_ms": LATENCY.as_millis() })).await?;
        let first = api.create("first", &payment("first")).await?;
        ensure!(first.status == 201, "it does not work at all: {}", first.json());
        let path = first.header("location").to_owned();
        let customers = Crowd::of(api, self.patience, CONNECTIONS)?;
        let pay = |arrivals: Box<dyn Iterator<Item = Duration> + Send>| {
            let customers = customers.clone();
            Load::of(arrivals, move || {
                let customers = customers.clone();
                async move { customers.pay().await }
            })
        };
        let readers = customers.clone();
        let reads = Load::of(evenly(self.reads), move || {
            let (readers, path) = (readers.clone(), path.clone());
            async move { readers.read(&path).await }
        });
        let few = pay(Box::new(evenly(self.creates)));

        let began = Instant::now();
        tokio::time::sleep(self.lasting / 2).await;
        let from = Instant::now();
        let crowd = match self.trouble {
            Trouble::DarkProvider => {
                simulator.fault("*", "hang_before", None, LASTS_MS).await?;
                None
            }
            Trouble::LaunchDay(rate) => Some(pay(Box::new(by_chance(self.lasting, move |_| rate)))),
        };
        tokio::time::sleep(self.lasting).await;
        simulator.heal().await?;
        let to = Instant::now();
        // nobody new, but what was asked for may still be under way
        tokio::time::sleep(self.lasting / 2).await;
        let (few, reads) = tokio::try_join!(few.stop(), reads.stop())?;
        let crowd = match crowd {
            Some(crowd) => crowd.end().await?,
            None => Vec::new(),
        };
        customers.remember();
        Ok(Side { creates: [few, crowd].concat(), reads, began, from, to })
    }
}

impl Asked {
    fn is_good(&self) -> bool {
        matches!(self.status, 200..=202)
    }

    fn is_told_at_once(&self) -> bool {
        self.status == 503 && self.says_when && self.took <= QUICK
    }

    /// Served, or told at once to come back and when.
    fn is_clear(&self) -> bool {
        self.is_good() && self.took <= DEADLINE || self.is_told_at_once()
    }
}

fn share(asked: &[&Asked], is: impl Fn(&Asked) -> bool) -> f64 {
    let count = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    count(asked.iter().filter(|one| is(one)).count()) / count(asked.len().max(1))
}

fn slowest(asked: &[&Asked], percent: usize) -> Duration {
    let mut times: Vec<_> = asked.iter().map(|one| one.took).collect();
    times.sort_unstable();
    percentile(&times, percent)
}

impl Side {
    fn meanwhile<'a>(&self, asked: &'a [Asked]) -> Vec<&'a Asked> {
        asked.iter().filter(|one| (self.from..self.to).contains(&one.due)).collect()
    }

    /// From the end of the trouble to the first request that is served quickly, as all are that come after it. `None`: that
    /// was not seen.
    fn recovered(&self, asked: &[Asked]) -> Option<Duration> {
        let mut after: Vec<_> = asked.iter().filter(|one| one.due >= self.to).collect();
        after.sort_by_key(|one| one.due);
        let bad = after.iter().rposition(|one| !one.is_good() || one.took > QUICK);
        let first = after.get(bad.map_or(0, |place| place + 1))?;
        Some(first.due + first.took - self.to)
    }

    /// The p99 of each second, in milliseconds.
    fn line(&self, asked: &[Asked]) -> Vec<(f64, f64)> {
        let last = asked.iter().map(|one| one.due).max().unwrap_or(self.began);
        let seconds = u32::try_from((last - self.began).as_secs()).unwrap_or(0);
        (0..seconds)
            .map(|second| {
                let from = self.began + Duration::from_secs(second.into());
                let within =
                    asked.iter().filter(|one| (from..from + QUICK).contains(&one.due)).collect::<Vec<_>>();
                (f64::from(second), slowest(&within, 99).as_secs_f64() * 1000.0)
            })
            .filter(|(_, y)| *y > 0.0)
            .collect()
    }
}

impl PressureReport {
    /// The same as lines over time.
    #[must_use]
    pub fn chart(&self) -> String {
        let Side { began, from, to, .. } = self.here;
        let (title, span, asked): (_, _, fn(&Side) -> &[Asked]) = match self.pressure.trouble {
            Trouble::DarkProvider => {
                ("How long a read takes while the provider is dark", "the provider is dark", |side| {
                    &side.reads
                })
            }
            Trouble::LaunchDay(_) => {
                ("How long a payment takes on launch day", "the crowd", |side| &side.creates)
            }
        };
        let chart = Chart {
            title,
            x: "seconds",
            y: "p99 of a second, ms",
            scale: Scale::Logarithmic,
            span: Some(((from - began).as_secs_f64(), (to - began).as_secs_f64(), span)),
            lines: [("what most tutorials end with", &self.there), ("this service", &self.here)]
                .map(|(name, side)| (name, side.line(asked(side))))
                .into(),
        };
        chart.to_svg()
    }

    /// Whether this service does as it should, and the other one does not.
    ///
    /// # Errors
    /// What is missed.
    pub fn verdict(&self) -> Result<()> {
        let clear = |side: &Side| {
            let creates = share(&side.meanwhile(&side.creates), Asked::is_clear);
            let reads = side.meanwhile(&side.reads);
            creates.min(share(&reads, |one| one.is_good() && one.took <= QUICK))
        };
        let (there, here) = (clear(&self.there), clear(&self.here));
        ensure!(here >= 0.999, "only {:.2} % of requests here had a clear answer", here * 100.0);
        let recovered = self.here.recovered(&self.here.creates);
        ensure!(
            recovered.is_some_and(|time| time <= Duration::from_secs(5)),
            "payments here are themselves again after {recovered:?}"
        );
        if there >= 0.9 {
            bail!("it shows nothing: {:.2} % of requests there had a clear answer", there * 100.0);
        }
        Ok(())
    }
}

impl Display for PressureReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1} %", share * 100.0);
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let again = |time: Option<Duration>| time.map_or("not seen".to_owned(), seconds);
        let mut row = |name: &str, figure: &dyn Fn(&Side) -> String| {
            writeln!(f, "  {name:<52}  {:>10}  {:>10}", figure(&self.there), figure(&self.here))
        };
        let good = |asked: &[&Asked]| percent(share(asked, |one| one.is_good() && one.took <= QUICK));
        row("", &|side| if std::ptr::eq(side, &self.there) { "there" } else { "here" }.to_owned())?;
        row("payments asked for meanwhile", &|side| side.meanwhile(&side.creates).len().to_string())?;
        row("served, or accepted, within 1 s", &|side| good(&side.meanwhile(&side.creates)))?;
        row("told within 1 s to come back", &|side| {
            percent(share(&side.meanwhile(&side.creates), Asked::is_told_at_once))
        })?;
        row("told of an error, or nothing at all", &|side| {
            percent(share(&side.meanwhile(&side.creates), |one| !one.is_good() && one.status != 503))
        })?;
        row("p50 of a payment", &|side| seconds(slowest(&side.meanwhile(&side.creates), 50)))?;
        row("p99 of a payment", &|side| seconds(slowest(&side.meanwhile(&side.creates), 99)))?;
        row("reads served within 1 s", &|side| good(&side.meanwhile(&side.reads)))?;
        row("p99 of a read", &|side| seconds(slowest(&side.meanwhile(&side.reads), 99)))?;
        row("until payments are as before, from its end", &|side| again(side.recovered(&side.creates)))?;
        row("until reads are as before, from its end", &|side| again(side.recovered(&side.reads)))
    }
}
