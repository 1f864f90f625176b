//! The same names, given to two services, and what became of them.
//!
//! Each name is paid with by somebody who pays an amount that nobody else pays, so the provider's ledger says by itself who
//! was charged. What a name should have become is what it is in NFC, or a refusal in words.

use crate::corpora::{Corpora, nfc};
use crate::{Api, ItWorks, Simulator, World, payment};
use anyhow::{Result, bail};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::fmt::{self, Display};
use uuid::Uuid;

/// So many pay at once.
const AT_ONCE: usize = 16;
/// The amount of the first.
const FIRST_AMOUNT: u64 = 1_000;
/// A name that is long enough for what stands behind it to lie across the place where it is cut: 19 bytes.
const NAME: &str = "Maria Anna Mozart, ";

/// What was sent, and what came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Outcome {
    sent: usize,
    /// The connection ended, and there was no answer.
    dropped: usize,
    /// A 500.
    failed: usize,
    /// The provider has a charge, and the customer no payment.
    charged_for_nothing: usize,
    /// Taken, and read back as something else.
    changed: usize,
    /// Taken, and holding what nobody sees, or what turns round what stands beside it.
    deceptive: usize,
    /// Refused in words.
    refused: usize,
    /// Taken, and read back as it should be.
    well: usize,
}

type Count = fn(&Outcome) -> usize;

impl Outcome {
    /// What is told of it, in order.
    const LINES: [(&'static str, Count); 8] = [
        ("names sent", |outcome| outcome.sent),
        ("connection dropped, no answer", |outcome| outcome.dropped),
        ("answered 500", |outcome| outcome.failed),
        ("charged, and no payment", |outcome| outcome.charged_for_nothing),
        ("given back as another name", |outcome| outcome.changed),
        ("taken, invisible or reversing", |outcome| outcome.deceptive),
        ("refused in words", |outcome| outcome.refused),
        ("taken and given back", |outcome| outcome.well),
    ];

    /// How often something is wrong.
    fn faults(&self) -> usize {
        self.dropped + self.failed + self.charged_for_nothing + self.changed + self.deceptive
    }
}

/// Names of one kind at both services.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    /// Whether each of them is a good name.
    is_welcome: bool,
    there: Outcome,
    here: Outcome,
}

impl Kind {
    /// The one shows what may happen, and at the other none of it does.
    fn shows_the_difference(&self) -> bool {
        let Outcome { sent, refused, well, .. } = self.here;
        let is_flawless = self.here.faults() == 0 && sent == refused + well;
        self.there.faults() > 0 && is_flawless && (refused == 0 || !self.is_welcome)
    }
}

/// What became of names at two services. Printed, it is a table.
#[derive(Debug, Default)]
pub struct MangledNames(Vec<Kind>);

impl MangledNames {
    /// Whether every kind of names shows the difference.
    ///
    /// # Errors
    /// One does not; all of them are named.
    pub fn verdict(&self) -> Result<()> {
        let others: Vec<&str> =
            self.0.iter().filter(|kind| !kind.shows_the_difference()).map(|kind| kind.name).collect();
        if others.is_empty() { Ok(()) } else { bail!("not as it should be: {}", others.join("; ")) }
    }
}

impl Display for MangledNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {:<29}", "")?;
        for kind in &self.0 {
            write!(f, "  {:>19}", kind.name)?;
        }
        write!(f, "\n  {:<29}", "what became of them")?;
        for _ in &self.0 {
            write!(f, "  {:>10} {:>8}", "there", "here")?;
        }
        writeln!(f)?;
        for (line, count) in Outcome::LINES {
            write!(f, "  {line:<29}")?;
            for kind in &self.0 {
                write!(f, "  {:>10} {:>8}", count(&kind.there), count(&kind.here))?;
            }
            writeln!(f)?;
        }
        write!(f, "  {:<29}", "")?;
        for kind in &self.0 {
            write!(f, "  {:>19}", if kind.shows_the_difference() { "ok" } else { "MISSED" })?;
        }
        writeln!(f)
    }
}

/// A service and its provider, and how it is told a customer's name.
#[derive(Clone, Copy)]
struct Service<'s> {
    api: &'s Api,
    simulator: &'s Simulator,
    body: fn(&str) -> Value,
    read: fn(&Value) -> &Value,
}

/// Gives the naughty strings and every emoji of so many, alone and behind a name, to the service that most tutorials end
/// with and to a world's own.
///
/// # Errors
/// It cannot be done. What became of the names is in the report.
pub async fn mangled_names(there: &ItWorks, here: &World, every: usize) -> Result<MangledNames> {
    let there = Service {
        api: &there.api,
        simulator: &there.simulator,
        body: |name| json!({ "customer_name": name }),
        read: |payment| &payment["customer_name"],
    };
    let here = Service {
        api: &here.api,
        simulator: &here.simulator,
        body: |name| json!({ "customer": { "name": name } }),
        read: |payment| &payment["customer"]["name"],
    };
    let corpora = Corpora::of_crates();
    let emoji: Vec<String> = corpora.emoji.texts.into_iter().step_by(every.max(1)).collect();
    let behind = emoji.iter().map(|emoji| format!("{NAME}{emoji}")).collect();
    let kinds = [
        ("naughty strings", false, corpora.naughty.texts),
        ("emoji", true, emoji),
        ("a name and an emoji", true, behind),
    ];
    let mut report = MangledNames::default();
    let mut amounts = FIRST_AMOUNT..;
    for (name, is_welcome, texts) in kinds {
        let paying: Vec<(u64, String)> = amounts.by_ref().zip(texts).collect();
        let (there, here) = tokio::try_join!(pay(there, &paying), pay(here, &paying))?;
        report.0.push(Kind { name, is_welcome, there, here });
    }
    Ok(report)
}

/// Everybody pays once.
async fn pay(service: Service<'_>, paying: &[(u64, String)]) -> Result<Outcome> {
    let paid = stream::iter(paying).map(|(amount, name)| pay_once(service, *amount, name));
    let paid: Vec<(u64, Outcome)> = paid.buffer_unordered(AT_ONCE).collect().await;
    let charged = charged(service.simulator).await?;
    let mut sum = Outcome::default();
    for (amount, outcome) in paid {
        let has_payment = outcome.changed + outcome.deceptive + outcome.well > 0;
        sum.sent += 1;
        sum.dropped += outcome.dropped;
        sum.failed += outcome.failed;
        sum.changed += outcome.changed;
        sum.deceptive += outcome.deceptive;
        sum.refused += outcome.refused;
        sum.well += outcome.well;
        sum.charged_for_nothing += usize::from(charged.contains(&amount) && !has_payment);
    }
    Ok(sum)
}

async fn pay_once(service: Service<'_>, amount: u64, name: &str) -> (u64, Outcome) {
    let mut body = payment(&format!("order-{}", Uuid::new_v4()));
    body["amount"] = json!(amount);
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), (service.body)(name)) {
        body.extend(more);
    }
    let mut outcome = Outcome::default();
    let answer = service.api.create(&Uuid::new_v4().to_string(), &body).await;
    let verdict = match answer {
        Err(_) => &mut outcome.dropped,
        Ok(answer) if answer.status >= 500 => &mut outcome.failed,
        Ok(answer) if answer.status >= 400 => &mut outcome.refused,
        Ok(answer) => match service.api.get(answer.header("location")).await {
            Err(_) => &mut outcome.dropped,
            Ok(read) => {
                let read = read.json();
                let kept = (service.read)(&read).as_str().unwrap_or_default();
                // either spelling will do here
                match kept {
                    _ if is_deceptive(kept) => &mut outcome.deceptive,
                    kept if kept == name || kept == nfc(name) => &mut outcome.well,
                    _ => &mut outcome.changed,
                }
            }
        },
    };
    *verdict = 1;
    (amount, outcome)
}

/// The amounts that were charged.
async fn charged(simulator: &Simulator) -> Result<HashSet<u64>> {
    let ledger = simulator.ledger().await?;
    let charges = ledger["charges"].as_array().into_iter().flatten();
    Ok(charges.filter_map(|charge| charge["amount"].as_u64()).collect())
}

/// Whether a name has something that nobody sees, or that turns round what stands beside it: controls, bidirectional
/// formatting, blanks without width, fillers, tags outside of a flag. It is a list of its own, shorter than the service's
/// rule.
fn is_deceptive(name: &str) -> bool {
    let is_flag = name.contains('\u{1F3F4}');
    name.chars().any(|character| match character {
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' => {
            true
        }
        '\u{200B}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' => true,
        '\u{E0000}'..='\u{E007F}' => !is_flag,
        other => other.is_control(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &'static str, is_welcome: bool, there: Outcome, here: Outcome) -> Kind {
        Kind { name, is_welcome, there, here }
    }

    #[test]
    fn both_sides_have_to_show_it() {
        let well = Outcome { sent: 10, well: 10, ..Outcome::default() };
        let refused = Outcome { sent: 10, well: 9, refused: 1, ..Outcome::default() };
        let dropped = Outcome { sent: 10, well: 9, dropped: 1, ..Outcome::default() };
        let lost = Outcome { sent: 10, well: 9, ..Outcome::default() };
        let mut report =
            MangledNames(vec![kind("strings", false, dropped, refused), kind("emoji", true, dropped, well)]);
        report.verdict().unwrap();
        for (name, there, here) in [
            ("nothing", well, well),
            ("a flaw", dropped, dropped),
            ("refused", dropped, refused),
            ("lost", dropped, lost),
        ] {
            report.0.push(kind(name, true, there, here));
        }
        let complaint = report.verdict().unwrap_err().to_string();
        assert_eq!(complaint, "not as it should be: nothing; a flaw; refused; lost");
        let table = report.to_string();
        let cells: Vec<&str> = table.lines().nth(3).unwrap().split_whitespace().collect();
        assert_eq!(cells[..9], ["connection", "dropped,", "no", "answer", "1", "0", "1", "0", "0"]);
    }

    #[test]
    fn what_nobody_sees_is_found() {
        for name in ["a\u{202E}b", "\u{200B}", "a\0", "a\u{E0061}", "a\nb"] {
            assert!(is_deceptive(name), "{name:?}");
        }
        for name in
            ["O’Brien", "👨‍👩‍👧‍👦", "🏴\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}", "علی‌رضا", "❤️"]
        {
            assert!(!is_deceptive(name), "{name}");
        }
    }
}
