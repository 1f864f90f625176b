//! Shows that the process may die anywhere: before and after every statement and every call that changes state, in
//! everything that moves money, at the first try, at a retry and when somebody takes over.

use anyhow::Result;
use clap::Args;
use e2e::{Circumstance, Crash, Figures, Mortal, paused};
use std::collections::BTreeMap;
use std::time::Instant;

/// Where a process stands still (SIGSTOP) for longer than its lease, instead of dying.
const PAUSED_AT: [&str; 3] = ["before /v1/payment_intents", "before settle payment", "after settle payment"];

/// Let the process die at every point, and see that what it left is finished.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill crashes --only \"settle payment\"")]
pub struct Options {
    /// How many processes die side by side
    #[arg(long, default_value_t = 6)]
    at_once: usize,
    /// One point only
    #[arg(long)]
    only: Option<String>,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let began = Instant::now();
    let crashes: Vec<Crash> = Crash::all()
        .into_iter()
        .filter(|crash| options.only.as_deref().is_none_or(|only| only == crash.point))
        .collect();
    let shares = crashes.chunks(crashes.len().div_ceil(options.at_once).max(1));
    let lives = futures_util::future::join_all(shares.map(live)).await;
    let mut hits: BTreeMap<String, [usize; 3]> = BTreeMap::new();
    let mut figures = Figures::default();
    let (mut payments, mut attempts, mut violations) = (0, 0, Vec::new());
    for life in lives {
        let (died, missed, findings) = life?;
        for crash in died {
            let hit = hits.entry(format!("{} {}", crash.when, crash.point)).or_default();
            hit[match crash.circumstance {
                Circumstance::FirstTry => 0,
                Circumstance::Retry => 1,
                Circumstance::TakeOver => 2,
            }] += 1;
        }
        for (crash, why) in missed {
            figures.bound(&format!("{crash:?}"), why, "died there, and was finished", false);
        }
        violations.extend(findings.verdict().err().map(|error| format!("{error:#}")));
        payments += findings.payments;
        attempts += findings.attempts;
    }
    for (point, [first, again, other]) in &hits {
        let told = format!("first try {first}, retry {again}, take-over {other}");
        figures.bound(point, told, "at least 3", first + again + other >= 3);
    }
    figures.exactly("crashes", hits.values().flatten().sum::<usize>(), crashes.len());
    for point in
        PAUSED_AT.into_iter().filter(|point| options.only.as_deref().is_none_or(|only| point.contains(only)))
    {
        let findings = paused(point).await?;
        let is_right = findings.verdict().is_ok() && findings.payments == 1 && findings.charges == 1;
        figures.bound(&format!("paused past its lease {point}"), findings, "one effect, one event", is_right);
    }
    figures.tell("payments", payments);
    figures.tell("attempts of clients", attempts);
    figures.bound("violations", violations.join("; "), "none", violations.is_empty());
    figures.tell("took", format_args!("{:.0} s", began.elapsed().as_secs_f64()));
    println!("processes that died, by where and when:\n{figures}");
    figures.verdict()
}

type Died = (Vec<Crash>, Vec<(Crash, String)>, e2e::Findings);

/// One database and one provider, and a process that dies again and again.
async fn live(crashes: &[Crash]) -> Result<Died> {
    let mut mortal = Mortal::start().await?;
    let (mut died, mut missed) = (Vec::new(), Vec::new());
    for &crash in crashes {
        match mortal.die(crash).await {
            Ok(()) => died.push(crash),
            Err(error) => missed.push((crash, format!("{error:#}"))),
        }
    }
    Ok((died, missed, mortal.end().await?))
}
