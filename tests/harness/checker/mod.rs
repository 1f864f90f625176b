//! Decides whether money moved at most once, by three witnesses that know nothing of each other: the provider's
//! [`Ledger`], the [`Database`] after everything came to rest, and the clients' [`History`] of every attempt.
//!
//! It only reads. Each [`Rule`] is counted, and each count must be 0. What one witness cannot see another does: the
//! database may be consistent in itself and have charged twice, and both may agree on what no client was told.

mod database;
mod history;
mod ledger;
#[cfg(test)]
mod tests;

pub use database::Database;
pub use history::{Attempt, History};
pub use ledger::Ledger;

use database::{EventRow, OperationRow, PaymentRow, RefundRow};
use ledger::{Charge, Refunded};

use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What must hold after any crash, race or loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// The ledger holds at most one charge for a payment, and for a key.
    OneCharge,
    /// It holds at most one effect for an authorisation, for a capture or cancel, and for a refund.
    OneEffect,
    /// A reference belongs to at most one payment that is alive.
    OneLivingPayment,
    /// What is captured or authorized here, or was shown so to anybody, is exactly one row and one charge of the same
    /// amount and currency.
    SuccessIsCharged,
    /// What was ever shown as failed or canceled holds no money, then or later.
    FailureHoldsNothing,
    /// Every charge and refund of the provider belongs to a payment or refund that is settled here.
    NoUnknownCharge,
    /// Every operation has an end.
    NothingOpen,
    /// One key has one request, one object and one settled answer, byte for byte, which is the stored one.
    OneAnswer,
    /// Refunds never exceed captures, at no moment in the ledger's history, and sums are the sums of their parts.
    RefundsWithinCaptures,
    /// The audit trail has no gap, no illegal step, and ends where the payment stands.
    WholeTrail,
    /// No record of one merchant carries another's id, and no merchant is shown another's object.
    NoStranger,
    /// Nobody is answered with a fault of the service.
    NoFault,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::OneCharge,
        Self::OneEffect,
        Self::OneLivingPayment,
        Self::SuccessIsCharged,
        Self::FailureHoldsNothing,
        Self::NoUnknownCharge,
        Self::NothingOpen,
        Self::OneAnswer,
        Self::RefundsWithinCaptures,
        Self::WholeTrail,
        Self::NoStranger,
        Self::NoFault,
    ];

    /// What breaking it is called.
    #[must_use]
    pub const fn violation(self) -> &'static str {
        match self {
            Self::OneCharge => "charged more than once",
            Self::OneEffect => "effects repeated at the provider",
            Self::OneLivingPayment => "references with two living payments",
            Self::SuccessIsCharged => "successes without their charge",
            Self::FailureHoldsNothing => "failures that hold money",
            Self::NoUnknownCharge => "charges or refunds without a settled row",
            Self::NothingOpen => "operations still open",
            Self::OneAnswer => "keys with different answers",
            Self::RefundsWithinCaptures => "refunds above captures, or wrong sums",
            Self::WholeTrail => "broken audit trails",
            Self::NoStranger => "records of another merchant",
            Self::NoFault => "faults of the service in an answer",
        }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Payments in the database.
    pub payments: usize,
    /// Charges in the ledger.
    pub charges: usize,
    /// Attempts that the clients remember.
    pub attempts: usize,
    broken: BTreeMap<Rule, Vec<String>>,
}

impl Findings {
    /// How often a rule was broken.
    #[must_use]
    pub fn count(&self, rule: Rule) -> usize {
        self.broken.get(&rule).map_or(0, Vec::len)
    }

    /// The rules that were broken.
    pub fn broken(&self) -> impl Iterator<Item = Rule> {
        self.broken.keys().copied()
    }

    /// Whether every count is 0.
    ///
    /// # Errors
    /// One is not.
    pub fn verdict(&self) -> Result<()> {
        ensure!(self.broken.is_empty(), "the witnesses do not agree: {self}");
        Ok(())
    }

    fn found(&mut self, rule: Rule, what: impl fmt::Display) {
        self.broken.entry(rule).or_default().push(what.to_string());
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { payments, charges, attempts, .. } = self;
        write!(f, "{payments} payments, {charges} charges, {attempts} attempts")?;
        for (rule, places) in &self.broken {
            write!(
                f,
                "; {} {}: {}",
                places.len(),
                rule.violation(),
                places[..places.len().min(3)].join(", ")
            )?;
        }
        Ok(())
    }
}

/// Compares what the witnesses say.
#[must_use]
pub fn check(ledger: &Ledger, database: &Database, attempts: &[Attempt]) -> Findings {
    let mut checker = Checker {
        ledger,
        database,
        attempts,
        payments: database.payments.iter().map(|row| (row.id.as_str(), row)).collect(),
        refunds: database.refunds.iter().map(|row| (row.id.as_str(), row)).collect(),
        refunds_of: HashMap::new(),
        charges: HashMap::new(),
        refunds_there: HashMap::new(),
        findings: Findings {
            payments: database.payments.len(),
            charges: ledger.charges.len(),
            attempts: attempts.len(),
            ..Findings::default()
        },
    };
    for refund in &database.refunds {
        checker.refunds_of.entry(&refund.payment_id).or_default().push(refund);
    }
    for charge in &ledger.charges {
        if let Some(id) = &charge.payment_id {
            checker.charges.entry(id).or_default().push(charge);
        }
        let named = charge.refunds.iter().filter_map(|refund| Some((refund.refund_id.as_deref()?, refund)));
        checker.refunds_there.extend(named);
    }
    checker.the_ledger_in_itself();
    checker.the_database_in_itself();
    checker.ledger_and_database();
    checker.trails();
    checker.what_clients_were_told();
    checker.findings
}

struct Checker<'a> {
    ledger: &'a Ledger,
    database: &'a Database,
    attempts: &'a [Attempt],
    payments: HashMap<&'a str, &'a PaymentRow>,
    refunds: HashMap<&'a str, &'a RefundRow>,
    refunds_of: HashMap<&'a str, Vec<&'a RefundRow>>,
    /// By the payment that their metadata names.
    charges: HashMap<&'a str, Vec<&'a Charge>>,
    /// By the refund that their metadata names.
    refunds_there: HashMap<&'a str, &'a Refunded>,
    findings: Findings,
}

impl<'a> Checker<'a> {
    fn charges_of(&self, payment: &str) -> &[&'a Charge] {
        self.charges.get(payment).map_or(&[], Vec::as_slice)
    }

    fn the_ledger_in_itself(&mut self) {
        let findings = &mut self.findings;
        for (payment, charges) in &self.charges {
            if charges.len() > 1 {
                findings.found(Rule::OneCharge, payment);
            }
        }
        let mut keys = HashMap::new();
        for charge in &self.ledger.charges {
            for key in &charge.idempotency_keys {
                let intent = &charge.payment_intent;
                if keys.insert(key, intent).is_some_and(|other| other != intent) {
                    findings.found(Rule::OneCharge, format_args!("key {key}"));
                }
            }
        }
        let mut effects: HashMap<(&str, &str), usize> = HashMap::new();
        let (mut captured, mut refunded): (HashMap<&str, i64>, HashMap<&str, i64>) = Default::default();
        for entry in &self.ledger.entries {
            let intent = entry.payment_intent.as_str();
            let payment = entry.payment_id.as_deref().unwrap_or(intent);
            match entry.kind.as_str() {
                "refund" => {
                    let refund = entry.refund_id.as_deref().unwrap_or(intent);
                    *effects.entry(("refund", refund)).or_default() += 1;
                    let sum = refunded.entry(intent).or_default();
                    // what the bank gave back may be given again
                    let is_undone = self.refunds_there.get(refund);
                    let is_undone = is_undone.is_some_and(|there| there.status != "succeeded");
                    *sum += if is_undone { 0 } else { entry.amount };
                    if *sum > captured.get(intent).copied().unwrap_or(0) {
                        findings.found(Rule::RefundsWithinCaptures, format_args!("{intent} in the ledger"));
                    }
                }
                "authorize" => *effects.entry(("authorize", payment)).or_default() += 1,
                // what was canceled to close a key never held anything
                "cancel" if entry.amount == 0 => {}
                // a capture and a cancel exclude each other
                kind => {
                    *effects.entry(("end", payment)).or_default() += 1;
                    if kind == "capture" {
                        *captured.entry(intent).or_default() += entry.amount;
                    }
                }
            }
        }
        for ((kind, subject), count) in effects {
            if count > 1 {
                findings.found(Rule::OneEffect, format_args!("{count} x {kind} of {subject}"));
            }
        }
    }

    fn the_database_in_itself(&mut self) {
        let findings = &mut self.findings;
        let mut living = HashSet::new();
        for payment in &self.database.payments {
            let is_alive = !matches!(payment.status.as_str(), "failed" | "canceled");
            if is_alive && !living.insert((&payment.merchant_id, &payment.reference)) {
                findings.found(Rule::OneLivingPayment, &payment.reference);
            }
        }
        let mut keys = HashSet::new();
        for operation in &self.database.operations {
            if operation.answer.is_none() {
                let OperationRow { kind, payment_id, progress, .. } = operation;
                findings.found(Rule::NothingOpen, format_args!("{kind} of {payment_id} ({progress})"));
            }
            if !keys.insert((&operation.merchant_id, &operation.key)) {
                findings.found(Rule::OneAnswer, format_args!("two operations for {}", operation.key));
            }
            let owner = self.payments.get(operation.payment_id.as_str()).map(|row| &row.merchant_id);
            if owner != Some(&operation.merchant_id) {
                findings.found(Rule::NoStranger, format_args!("operation of {}", operation.payment_id));
            }
        }
        let mut sums: HashMap<&str, i64> = HashMap::new();
        for refund in &self.database.refunds {
            if refund.status != "failed" {
                *sums.entry(&refund.payment_id).or_default() += refund.amount;
            }
            let owner = self.payments.get(refund.payment_id.as_str()).map(|row| &row.merchant_id);
            if owner != Some(&refund.merchant_id) {
                findings.found(Rule::NoStranger, format_args!("refund {}", refund.id));
            }
        }
        for payment in &self.database.payments {
            let sum = sums.get(payment.id.as_str()).copied().unwrap_or(0);
            let is_ordered = payment.refunded <= payment.captured && payment.captured <= payment.amount;
            if sum != payment.refunded || !is_ordered {
                findings.found(Rule::RefundsWithinCaptures, &payment.id);
            }
        }
    }

    fn ledger_and_database(&mut self) {
        for charge in &self.ledger.charges {
            let payment = charge.payment_id.as_deref().and_then(|id| self.payments.get(id));
            // a payment that is still open is counted as such
            if payment.is_none() {
                self.findings.found(Rule::NoUnknownCharge, &charge.payment_intent);
            }
        }
        let database = self.database;
        let is_refunding: HashSet<&str> = {
            let open = database.refunds.iter().filter(|refund| refund.status == "processing");
            open.map(|refund| refund.payment_id.as_str()).collect()
        };
        for payment in &database.payments {
            let charges = self.charges_of(&payment.id);
            let holds = charges.iter().any(|charge| charge.holds());
            match payment.status.as_str() {
                "captured" | "authorized" => {
                    let is_same = charges.first().is_some_and(|charge| {
                        charge.holds()
                            && charge.amount == payment.amount
                            && charge.amount_captured == payment.captured
                            && charge.currency.to_uppercase() == payment.currency
                    });
                    let refunded: i64 = charges.iter().map(|charge| charge.amount_refunded).sum();
                    let is_refunding = is_refunding.contains(payment.id.as_str());
                    if !is_same {
                        self.findings.found(Rule::SuccessIsCharged, &payment.id);
                    }
                    if refunded != payment.refunded && !is_refunding {
                        let what = format_args!("{} differs at the provider", payment.id);
                        self.findings.found(Rule::RefundsWithinCaptures, what);
                    }
                }
                "failed" | "canceled" if holds => {
                    self.findings.found(Rule::FailureHoldsNothing, &payment.id);
                }
                _ => {}
            }
        }
        for refund in self.ledger.charges.iter().flat_map(|charge| &charge.refunds) {
            let id = refund.refund_id.as_deref().unwrap_or("of nobody");
            if !self.refunds.contains_key(id) {
                self.findings.found(Rule::NoUnknownCharge, format_args!("refund {id}"));
            }
        }
        for refund in &database.refunds {
            let there = self.refunds_there.get(refund.id.as_str());
            let rule = match refund.status.as_str() {
                "succeeded" => {
                    let is_same = there.is_some_and(|t| t.status == "succeeded" && t.amount == refund.amount);
                    (!is_same).then_some(Rule::SuccessIsCharged)
                }
                "failed" => {
                    let is_undone = there.is_none_or(|t| matches!(t.status.as_str(), "failed" | "canceled"));
                    (!is_undone).then_some(Rule::FailureHoldsNothing)
                }
                // open, and counted as such
                _ => None,
            };
            if let Some(rule) = rule {
                self.findings.found(rule, format_args!("refund {}", refund.id));
            }
        }
    }

    fn trails(&mut self) {
        let mut trails: HashMap<(&str, &str), Vec<&EventRow>> = HashMap::new();
        for event in &self.database.events {
            trails.entry((&event.merchant_id, &event.payment_id)).or_default().push(event);
        }
        for payment in &self.database.payments {
            let events = trails.remove(&(payment.merchant_id.as_str(), payment.id.as_str()));
            let events = events.unwrap_or_default();
            let refunds = self.refunds_of.get(payment.id.as_str()).map_or(&[][..], Vec::as_slice);
            if let Err(why) = follow(&events, payment, refunds) {
                self.findings.found(Rule::WholeTrail, format_args!("{}: {why}", payment.id));
            }
        }
        for (_, payment) in trails.keys() {
            self.findings.found(Rule::NoStranger, format_args!("events of {payment}"));
        }
    }

    fn what_clients_were_told(&mut self) {
        let mut stored = HashMap::new();
        for operation in &self.database.operations {
            stored.insert((operation.key.as_str(), operation.payment_id.as_str()), operation);
        }
        let mut parts: HashMap<&str, Vec<&Value>> = HashMap::new();
        let mut owners: HashMap<&str, &str> = HashMap::new();
        let mut keys: HashMap<(&str, &str), KeyMemory<'_>> = HashMap::new();
        for attempt in self.attempts {
            let Some((status, body)) = &attempt.answer else { continue };
            if let Some(payment) = attempt.captures().filter(|_| matches!(status, 200 | 202)) {
                parts.entry(payment).or_default().push(&attempt.body["amount"]);
            }
            if *status == 500 {
                self.findings.found(Rule::NoFault, format_args!("key {}", attempt.key));
            }
            let Some(shown) = attempt.shown() else { continue };
            self.the_object_of(attempt, &shown);
            let payment = shown["payment_id"].as_str().or(shown["id"].as_str()).unwrap_or_default();
            if let Some(row) = self.payments.get(payment) {
                let owner = owners.entry(&attempt.api_key).or_insert(&row.merchant_id);
                if **owner != *row.merchant_id {
                    self.findings.found(Rule::NoStranger, format_args!("{payment} shown to {owner}"));
                }
            }
            let memory = keys.entry((&attempt.api_key, &attempt.key)).or_default();
            let object = shown["id"].as_str().unwrap_or_default().to_owned();
            let request = (attempt.path.as_str(), MONEY.map(|field| &attempt.body[field]));
            let is_same = memory.object.get_or_insert_with(|| object.clone()) == &object
                && *memory.request.get_or_insert(request) == request;
            let mut agrees = is_same;
            if attempt.is_settled() {
                let answer = (*status, body.as_slice(), attempt.location.as_str());
                agrees &= *memory.answer.get_or_insert(answer) == answer;
                let kept = stored.get(&(attempt.key.as_str(), payment)).and_then(|row| row.answer.as_ref());
                // a key that was swept is not kept any more
                agrees &= kept.is_none_or(|(code, bytes)| code == status && bytes == body);
            }
            if !agrees && !std::mem::replace(&mut memory.is_counted, true) {
                self.findings.found(Rule::OneAnswer, format_args!("key {}", attempt.key));
            }
        }
        for (payment, parts) in parts {
            let Some(row) = self.payments.get(payment).filter(|row| row.captured > 0) else { continue };
            // without an amount everything is asked for
            let is_asked =
                |part: &&Value| **part == row.captured || part.is_null() && row.captured == row.amount;
            if !parts.iter().any(is_asked) {
                let what = format_args!("{payment} captured for what nobody asked");
                self.findings.found(Rule::SuccessIsCharged, what);
            }
        }
    }

    /// What one answer showed, against what is there now.
    fn the_object_of(&mut self, attempt: &Attempt, shown: &Value) {
        let id = shown["id"].as_str().unwrap_or_default();
        let status = shown["status"].as_str().unwrap_or_default();
        if shown["payment_id"].is_string() {
            let there = self.refunds_there.get(id);
            let is_paid = there.is_some_and(|there| there.amount == shown["amount"]);
            let holds = there.is_some_and(|there| there.status == "succeeded");
            match status {
                "succeeded" if !is_paid || !self.refunds.contains_key(id) => {
                    self.findings.found(Rule::SuccessIsCharged, format_args!("refund {id}, as shown"));
                }
                "failed" if holds => {
                    self.findings.found(Rule::FailureHoldsNothing, format_args!("refund {id}, as shown"));
                }
                _ => {}
            }
            return;
        }
        let charges = self.charges_of(id);
        match status {
            "captured" | "authorized" => {
                let is_charged = matches!(charges, [charge] if charge.amount == shown["amount"]
                    && shown["currency"] == charge.currency.to_uppercase().as_str());
                let is_asked = !attempt.path.ends_with("/payments")
                    || shown["amount"] == attempt.body["amount"]
                        && shown["currency"] == attempt.body["currency"];
                let is_here = self.payments.get(id).is_some_and(|row| row.amount == shown["amount"]);
                if !(is_charged && is_asked && is_here) {
                    self.findings.found(Rule::SuccessIsCharged, format_args!("{id}, as shown"));
                }
            }
            "failed" | "canceled" if charges.iter().any(|charge| charge.holds()) => {
                self.findings.found(Rule::FailureHoldsNothing, format_args!("{id}, as shown"));
            }
            _ => {}
        }
    }
}

/// What a request is, as far as money is concerned. That white space, order or a default make no other request is not for
/// this checker to say.
const MONEY: [&str; 4] = ["amount", "currency", "reference", "payment_method"];

/// What the clients know of a key.
#[derive(Default)]
struct KeyMemory<'a> {
    request: Option<(&'a str, [&'a Value; MONEY.len()])>,
    object: Option<String>,
    answer: Option<(u16, &'a [u8], &'a str)>,
    is_counted: bool,
}

/// Follows a payment's audit trail from its first event to where it stands. The rules are those of the published
/// statuses, written down a second time: the service's own table would excuse its own mistakes.
fn follow(events: &[&EventRow], payment: &PaymentRow, refunds: &[&RefundRow]) -> Result<(), String> {
    let mut status = "";
    let mut pending = "";
    let mut ends: HashMap<&str, &str> = HashMap::new();
    for (event, wanted) in events.iter().zip(1..) {
        if event.sequence != wanted {
            return Err(format!("event {wanted} is missing"));
        }
        if !event.in_order {
            return Err(format!("event {wanted} is older than the one before it"));
        }
        let refund = event.refund_id.as_deref().unwrap_or_default();
        (status, pending) = match (status, pending, event.kind.as_str()) {
            ("", "", "payment.created") => ("processing", ""),
            ("processing", "", "payment.requires_action") => ("requires_action", ""),
            ("processing" | "requires_action", _, "payment.failed") => ("failed", ""),
            ("processing" | "requires_action", _, "payment.authorized") => ("authorized", ""),
            ("processing" | "requires_action" | "authorized", _, "payment.captured") => ("captured", ""),
            ("authorized" | "requires_action", _, "payment.canceled") => ("canceled", ""),
            ("authorized", "", "payment.capture_requested") => (status, "capture"),
            ("authorized", "capture", "payment.capture_failed") => (status, ""),
            ("authorized" | "requires_action", "", "payment.cancel_requested") => (status, "cancel"),
            ("authorized" | "requires_action", "cancel", "payment.cancel_failed") => (status, ""),
            (before, open, "payment.contradicted") if !before.is_empty() => (before, open),
            ("captured", "", kind @ ("refund.created" | "refund.succeeded" | "refund.failed")) => {
                let before = ends.insert(refund, kind);
                let is_legal = matches!(
                    (before, kind),
                    (None, "refund.created")
                        | (Some("refund.created"), "refund.succeeded" | "refund.failed")
                        | (Some("refund.succeeded"), "refund.failed")
                );
                if !is_legal {
                    return Err(format!("{kind} after {}", before.unwrap_or("nothing")));
                }
                (status, pending)
            }
            (before, _, kind) => return Err(format!("{kind} while {before}")),
        };
    }
    if status != payment.status {
        return Err(format!("ends in {status}, and the payment is {}", payment.status));
    }
    if i32::try_from(events.len()) != Ok(payment.last_event) {
        return Err(format!("{} events, and the payment counts {}", events.len(), payment.last_event));
    }
    for RefundRow { id, status, .. } in refunds {
        let wanted = match status.as_str() {
            "succeeded" => "refund.succeeded",
            "failed" => "refund.failed",
            _ => "refund.created",
        };
        if ends.remove(id.as_str()) != Some(wanted) {
            return Err(format!("refund {id} is {status} without {wanted}"));
        }
    }
    if ends.is_empty() { Ok(()) } else { Err("a refund that is not there".to_owned()) }
}
