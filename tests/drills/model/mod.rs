//! Checks the protocol itself, in every order in which its steps and its faults can come.
//!
//! Other drills run the service and make faults happen. Here the protocol is written down a second time, as a state
//! machine, and [stateright](https://docs.rs/stateright) visits every state that it can be in, breadth first and to
//! the end. Then the rules that keep money safe are taken away one at a time, and each time the checker has to find
//! how money is lost: the shortest way there is printed as a story. A rule that nothing breaks without would be of no
//! use, or the model would be wrong.
//!
//! # What is in it
//!
//! - Two keys that create a payment on one reference; captures and a cancel of one payment; a capture, a cancel and
//!   refunds of one payment, of which one fits; two refunds that both fit. Each is a [`Scope`].
//! - Three processes that serve requests and take operations; two of them die, whenever they like, and one is stopped,
//!   before it sends, while it waits or before it writes, and goes on whenever it likes.
//! - Requests that get lost, arrive late and arrive again; answers that get lost; a provider that refuses, that answers
//!   with a server error whether it did it or not, and that forgets ids.
//! - The steps of the service: `next_step`, `looks_first`, `is_absent`, the claims, `lease`, `pause`, `settle`. They
//!   are named as there, and a test compares the first three with the service's own.
//!
//! # What is assumed
//!
//! 1. A statement happens at once and entirely, or not at all. So does a read at the provider.
//! 2. A process that is not stopped takes its steps within its lease: one that is too slow for that is one that is
//!    stopped.
//! 3. An attempt ends within the lease that covered it. The clock by which a process judges that goes on while the
//!    process is stopped. What it sent before it was stopped is a late request, not a covered one.
//! 4. A charge that leaves within its window arrives before the provider may forget its id, or never. One search may
//!    come before that, two a lease apart may not.
//! 5. When the provider forgets an id, what carries the id has arrived, or never will; only an attempt that has not
//!    ended may still arrive. So the margin covers attempts, and nothing covers a copy of a request that arrives, of
//!    all moments, after that one. Without this the checker finds a cancel whose refusal nobody heard, that is sent
//!    again when its id is about to be forgotten, is refused again and settled so, and whose copy is executed when the
//!    id has just been forgotten.
//! 6. The provider remembers an id for a day from its first use, and decides anew about one that it does not know. It
//!    gives back no more than it took. Reads are current: what was done is found.
//! 7. Each operation has a clock of its own, which is more than can happen: whether another one is older never matters.
//!
//! # What is left out, and why nothing is lost
//!
//! - A process is exchangeable for any other, so they are sorted; keys are exchangeable until one is used.
//! - A read whose answer is lost is one that was not begun. A lease of somebody who died is over at once: until it is,
//!   nobody can do anything about the operation, and everything else can happen afterwards as well.
//! - An operation that is settled, at which nobody is, and of which nothing is on its way that could do anything, has
//!   no age and no memory any more.
//!
//! # What is left out, and is lost
//!
//! - One model of everything. The scopes are checked apart from each other: two captures, a cancel and two refunds in
//!   one model had taken 8 GiB when they were stopped, and were not through.
//! - Customers who confirm, what the provider still works on, contradictions, watches, the sweep, and the plain 5xx, of
//!   which three are taken for a stored one.
//! - A second pause, or a fourth process.
//!
//! The unit tests, which every change waits for, have two processes and one crash, fewer requests where a process is
//! stopped, and `--in-one-go`: what a process does between two waits happens at once, unless it is stopped. The drill
//! lets everything else happen in between; that takes about three times the states, and found nothing more.

mod process;
mod properties;
mod protocol;
mod provider;
mod recovery;
mod rules;
mod scopes;
mod state;
#[cfg(test)]
mod tests;
mod trace;

use anyhow::{Context, Result};
use clap::Args;
use e2e::Figures;
use protocol::{Protocol, Scope};
use rules::Rule;
use stateright::{Checker, Model};
use std::fs;
use std::time::Instant;

/// So much memory may be used, in MiB.
const MEMORY: u64 = 6 * 1024;

/// Visit every state of the protocol, then again without each of its rules.
#[derive(Debug, Clone, Copy, Args)]
#[command(after_help = "Example: drill model --workers 2 --crashes 1")]
pub struct Options {
    /// How many processes there are
    #[arg(long, default_value_t = 3)]
    workers: usize,
    /// How often one of them dies
    #[arg(long, default_value_t = 2)]
    crashes: u8,
    /// How often one of them is stopped
    #[arg(long, default_value_t = 1)]
    pauses: u8,
    /// Let nothing happen between two steps of a process that waits for nothing: faster, and fewer orders
    #[arg(long)]
    in_one_go: bool,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub fn run(options: Options) -> Result<()> {
    let Options { workers, crashes, pauses, in_one_go } = options;
    let scopes = scopes::ALL.map(|scope| Scope { workers, crashes, pauses, in_one_go, ..scope });
    let mut verdicts = Vec::new();
    for scope in scopes {
        let figures = visit(scope)?;
        println!("{}, {workers} processes, crashes: {crashes}, pauses: {pauses}:\n{figures}", scope.name);
        verdicts.push(figures.verdict());
    }
    for scope in scopes {
        for rule in scope.rules {
            let (figures, story) = take_away(scope, *rule)?;
            println!("{} without {}:\n{figures}", scope.name, rule.name());
            for (step, sentence) in story.iter().enumerate() {
                println!("    {:>2}. {sentence}", step + 1);
            }
            println!();
            verdicts.push(figures.verdict());
        }
    }
    verdicts.into_iter().collect()
}

/// Visits every state: nothing that must hold is broken, and every fault really happens.
fn visit(scope: Scope) -> Result<Figures> {
    let began = Instant::now();
    let model = Protocol { scope, without: None };
    let checker = model.checker().spawn_bfs().join();
    let discoveries = checker.discoveries();
    let mut figures = Figures::default();
    tell_size(&mut figures, &checker, began)?;
    for it in properties::ALWAYS {
        figures.holds(it.name, !discoveries.contains_key(it.name));
        for sentence in
            discoveries.get(it.name).into_iter().flat_map(|path| trace::tell(&model, path.clone()))
        {
            println!("    {sentence}");
        }
    }
    for it in scope.sometimes {
        figures.holds(&format!("happens: {}", it.name), discoveries.contains_key(it.name));
    }
    Ok(figures)
}

/// Takes a rule away, and looks for the shortest way to break what it protects. Gives the way, if there is one.
fn take_away(scope: Scope, rule: Rule) -> Result<(Figures, Vec<String>)> {
    let began = Instant::now();
    let model = Protocol { scope, without: Some(rule) };
    let checker = model.checker().spawn_bfs().join();
    let protects = rule.protects(&scope).name;
    let mut figures = Figures::default();
    let story = checker.discovery(protects).map(|path| trace::tell(&model, path));
    tell_size(&mut figures, &checker, began)?;
    figures.bound(protects, if story.is_some() { "broken" } else { "holds" }, "broken", story.is_some());
    Ok((figures, story.unwrap_or_default()))
}

fn tell_size(figures: &mut Figures, checker: &impl Checker<Protocol>, began: Instant) -> Result<()> {
    figures.tell("states", checker.state_count());
    figures.tell("of which different", checker.unique_state_count());
    figures.tell("depth", checker.max_depth());
    figures.tell("time", format_args!("{:.1?}", began.elapsed()));
    figures.at_most("peak memory of the process so far, MiB", peak_memory()?, MEMORY);
    Ok(())
}

/// The most memory that this process ever had, in MiB.
fn peak_memory() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib =
        peak.and_then(|peak| peak.trim().strip_suffix("kB")).context("no VmHWM in /proc/self/status")?;
    Ok(kib.trim().parse::<u64>()? / 1024)
}
