//! The same mishaps, done to two services, and what they cost their customers.
//!
//! Each customer pays an amount that nobody else pays, so the provider's ledger says by itself whose card was charged, and
//! how often. What the customers were told is what their clients remember.

use crate::{Answer, Api, ItWorks, Simulator, World, eventually, payment};
use anyhow::{Context, Result, bail, ensure};
use rand::Rng;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use uuid::Uuid;

/// What the provider takes for a charge when customers click twice: longer than both requests are on their way.
const LATENCY: Duration = Duration::from_millis(1500);
/// How many customers click at the same moment: what works has a connection for each of their requests, and not one more.
const TOGETHER: usize = 10;
/// How long a provider may take until it has charged everybody.
const CHARGED_BOUND: Duration = Duration::from_secs(30);
/// How long a customer insists: through several leases.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two requests of a customer, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 100..400;
/// The amount of the first customer.
const FIRST_AMOUNT: u64 = 1_000;

/// What happens to the customers of a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mishap {
    /// The same request twice, at the same moment.
    DoubleClick,
    /// The provider charges and resets the connection.
    AnswerLost,
    /// The provider charges and answers 500.
    ServerError,
    /// The customer's connection breaks after the charge.
    HangUp,
    /// The service is killed after the charge.
    Crash,
}

const MISHAPS: [Mishap; 5] =
    [Mishap::DoubleClick, Mishap::AnswerLost, Mishap::ServerError, Mishap::HangUp, Mishap::Crash];

impl Mishap {
    fn name(self) -> &'static str {
        match self {
            Self::DoubleClick => "the same click twice, at once",
            Self::AnswerLost => "charged, then the answer is lost",
            Self::ServerError => "charged, then the answer is a 500",
            Self::HangUp => "charged, then the customer hangs up",
            Self::Crash => "charged, then the service is killed",
        }
    }

    /// What the provider does until all customers of the scenario are charged. None of it lets a service know that they
    /// are: whatever happens next happens between charge and commit.
    fn fault(self) -> Option<&'static str> {
        match self {
            Self::DoubleClick => None,
            Self::AnswerLost => Some("reset_after"),
            Self::ServerError => Some("http_500_after"),
            Self::HangUp | Self::Crash => Some("hang_after"),
        }
    }
}

/// A service and its provider, as far as a mishap touches them.
trait Service {
    fn api(&self) -> &Api;
    fn simulator(&self) -> &Simulator;
    async fn kill(&mut self) -> Result<()>;
    async fn restart(&mut self) -> Result<()>;
}

impl Service for ItWorks {
    fn api(&self) -> &Api {
        &self.api
    }

    fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    async fn kill(&mut self) -> Result<()> {
        ItWorks::kill(self).await
    }

    async fn restart(&mut self) -> Result<()> {
        ItWorks::restart(self).await
    }
}

impl Service for World {
    fn api(&self) -> &Api {
        &self.api
    }

    fn simulator(&self) -> &Simulator {
        &self.simulator
    }

    async fn kill(&mut self) -> Result<()> {
        self.stack.service(0)?.kill().await?;
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.stack.restart_service(0).await
    }
}

/// A customer with one payment to make, and every answer.
#[derive(Debug, Clone)]
struct Customer {
    key: String,
    amount: u64,
    body: Value,
    answers: Vec<Answer>,
}

impl Customer {
    fn paying(amount: u64) -> Self {
        let mut body = payment(&format!("order-{}", Uuid::new_v4()));
        body["amount"] = json!(amount);
        Self { key: Uuid::new_v4().to_string(), amount, body, answers: Vec::new() }
    }

    /// Sends the request once.
    async fn ask(&mut self, api: &Api) {
        self.answers.extend(api.create(&self.key, &self.body).await);
    }

    /// Repeats it with the same key, as a good client does, until there is nothing more to learn.
    async fn insist(&mut self, api: &Api) {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let before = self.answers.len();
            self.ask(api).await;
            if self.answers[before..].iter().any(|answer| !Api::is_worth_repeating(answer)) {
                return;
            }
            let pause = rand::rng().random_range(PAUSE_MS);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// The answers that are final.
    fn settled(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| matches!(answer.status, 201 | 402))
    }
}

/// What became of the customers of one scenario at one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Outcome {
    /// The ledger has more than one charge.
    charged_twice: usize,
    /// The ledger has a charge, and an answer said that there is none.
    told_it_failed: usize,
    /// The ledger has one charge, nobody said otherwise, and in the end the customer had a 201.
    as_it_should_be: usize,
}

impl Outcome {
    fn count(&mut self, customer: &Customer, charges: usize) {
        let is_told_it_failed = charges > 0 && customer.answers.iter().any(says_it_failed);
        let has_payment = customer.settled().last().is_some_and(|answer| answer.status == 201);
        self.charged_twice += usize::from(charges > 1);
        self.told_it_failed += usize::from(is_told_it_failed);
        self.as_it_should_be += usize::from(charges == 1 && has_payment && !is_told_it_failed);
    }

    fn add(&mut self, other: Self) {
        self.charged_twice += other.charged_twice;
        self.told_it_failed += other.told_it_failed;
        self.as_it_should_be += other.as_it_should_be;
    }
}

/// What mishaps cost the customers of two services. Printed, it is a table.
#[derive(Debug, Default)]
pub struct DoubleCharges(Vec<Scenario>);

#[derive(Debug)]
struct Scenario {
    name: &'static str,
    customers: usize,
    there: Outcome,
    here: Outcome,
}

impl Scenario {
    /// The one shows what may happen, and at the other none of it does.
    fn shows_the_difference(&self) -> bool {
        let flawless = Outcome { as_it_should_be: self.customers, ..Outcome::default() };
        self.there.charged_twice > 0 && self.here == flawless
    }
}

impl DoubleCharges {
    /// Whether every scenario shows the difference.
    ///
    /// # Errors
    /// One does not; all of them are named.
    pub fn verdict(&self) -> Result<()> {
        let others = self.0.iter().filter(|scenario| !scenario.shows_the_difference());
        let others: Vec<&str> = others.map(|scenario| scenario.name).collect();
        if others.is_empty() { Ok(()) } else { bail!("not as it should be: {}", others.join("; ")) }
    }

    /// All customers of all scenarios.
    fn sum(&self) -> Scenario {
        let mut sum =
            Scenario { name: "all", customers: 0, there: Outcome::default(), here: Outcome::default() };
        for scenario in &self.0 {
            sum.customers += scenario.customers;
            sum.there.add(scenario.there);
            sum.here.add(scenario.here);
        }
        sum
    }
}

impl Display for DoubleCharges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<35}  {:>9}  {:>15}  {:>15}  {:>15}",
            "", "", "charged twice", "told it failed", "all was well"
        )?;
        let sides = format!("{:>8} {:>6}", "there", "here");
        writeln!(f, "  {:<35}  {:>9}  {sides}  {sides}  {sides}", "what happens", "customers")?;
        for scenario in self.0.iter().chain([&self.sum()]) {
            let Scenario { name, customers, there, here } = scenario;
            write!(f, "  {name:<35}  {customers:>9}")?;
            for (there, here) in [
                (there.charged_twice, here.charged_twice),
                (there.told_it_failed, here.told_it_failed),
                (there.as_it_should_be, here.as_it_should_be),
            ] {
                write!(f, "  {there:>8} {here:>6}")?;
            }
            writeln!(f, "  {}", if scenario.shows_the_difference() { "ok" } else { "MISSED" })?;
        }
        Ok(())
    }
}

/// Does the same to the service that most tutorials end with and to a world's own. Each scenario has so many customers, at
/// each of the two.
///
/// # Errors
/// A scenario cannot be played. What the customers suffered is in the report.
pub async fn double_charges(there: &mut ItWorks, here: &mut World, count: usize) -> Result<DoubleCharges> {
    let mut report = DoubleCharges::default();
    let mut amounts = FIRST_AMOUNT..;
    for mishap in MISHAPS {
        let customers: Vec<Customer> = amounts.by_ref().take(count).map(Customer::paying).collect();
        // each has a provider of its own, so neither waits for the other
        let (there, here) =
            tokio::try_join!(play(mishap, there, customers.clone()), play(mishap, here, customers))
                .with_context(|| mishap.name())?;
        report.0.push(Scenario { name: mishap.name(), customers: count, there, here });
    }
    Ok(report)
}

/// Lets it happen to all customers of a scenario, who then insist on an answer, and asks the ledger.
async fn play(mishap: Mishap, service: &mut impl Service, customers: Vec<Customer>) -> Result<Outcome> {
    let amounts: Vec<u64> = customers.iter().map(|customer| customer.amount).collect();
    let customers = match mishap.fault() {
        None => click_twice(service, customers).await?,
        Some(fault) => pay_once_and_again(mishap, fault, service, customers).await?,
    };
    let charges = charges(service.simulator(), &amounts).await?;
    let mut outcome = Outcome::default();
    for customer in &customers {
        outcome.count(customer, charges.get(&customer.amount).copied().unwrap_or(0));
    }
    Ok(outcome)
}

/// Every customer sends the same request twice, both at the moment when all others do, and the provider takes its time:
/// the second is there long before the first has an outcome.
async fn click_twice(service: &impl Service, customers: Vec<Customer>) -> Result<Vec<Customer>> {
    service.simulator().settings(&json!({ "latency_ms": LATENCY.as_millis() })).await?;
    let mut clicked = Vec::new();
    for together in customers.chunks(TOGETHER) {
        clicked.extend(click_at_once(service, together).await);
    }
    service.simulator().settings(&json!({ "latency_ms": 0 })).await?;
    Ok(clicked)
}

async fn click_at_once(service: &impl Service, customers: &[Customer]) -> Vec<Customer> {
    let start = Arc::new(Barrier::new(customers.len() * 2));
    let mut clicking = JoinSet::new();
    for customer in customers {
        let click = |mut client: Customer| {
            let (start, api) = (Arc::clone(&start), service.api().clone());
            async move {
                start.wait().await;
                client.insist(&api).await;
                client
            }
        };
        let (first, second) = (click(customer.clone()), click(customer.clone()));
        clicking.spawn(async move {
            let (mut first, second) = tokio::join!(first, second);
            first.answers.extend(second.answers);
            first
        });
    }
    clicking.join_all().await
}

/// Every customer sends a request. When all are charged, and no service knows it, it happens; then the provider is well
/// again, and the customers repeat what they have no answer to.
async fn pay_once_and_again(
    mishap: Mishap,
    fault: &str,
    service: &mut impl Service,
    customers: Vec<Customer>,
) -> Result<Vec<Customer>> {
    let amounts: Vec<u64> = customers.iter().map(|customer| customer.amount).collect();
    service.simulator().create_fault(fault, None, 60_000).await?;
    let mut asking = JoinSet::new();
    for mut customer in customers.clone() {
        let api = service.api().clone();
        asking.spawn(async move {
            customer.ask(&api).await;
            customer
        });
    }
    eventually(CHARGED_BOUND, "every customer is charged", async || {
        Ok(charges(service.simulator(), &amounts).await?.len() == amounts.len())
    })
    .await?;
    let asked = match mishap {
        Mishap::HangUp => {
            asking.shutdown().await;
            service.simulator().heal().await?;
            // who hung up knows the key, and nothing else
            customers
        }
        Mishap::Crash => {
            service.kill().await?;
            let asked = asking.join_all().await;
            ensure!(asked.iter().all(|customer| customer.answers.is_empty()), "it was killed too late");
            service.simulator().heal().await?;
            service.restart().await?;
            asked
        }
        Mishap::DoubleClick | Mishap::AnswerLost | Mishap::ServerError => {
            service.simulator().heal().await?;
            asking.join_all().await
        }
    };
    let mut insisting = JoinSet::new();
    for mut customer in asked {
        let api = service.api().clone();
        insisting.spawn(async move {
            if customer.settled().next().is_none() {
                customer.insist(&api).await;
            }
            customer
        });
    }
    Ok(insisting.join_all().await)
}

/// How often each of these amounts was charged.
async fn charges(simulator: &Simulator, amounts: &[u64]) -> Result<HashMap<u64, usize>> {
    let mut counted = HashMap::new();
    for charge in simulator.ledger().await?["charges"].as_array().into_iter().flatten() {
        let amount = charge["amount_captured"].as_u64().unwrap_or(0);
        if amounts.contains(&amount) {
            *counted.entry(amount).or_default() += 1;
        }
    }
    Ok(counted)
}

/// Neither the payment nor a word that it is on its way.
fn says_it_failed(answer: &Answer) -> bool {
    !matches!(answer.status, 201 | 202) && answer.code() != "request_in_progress"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &'static str, there: usize, here: usize) -> Scenario {
        let outcome =
            |charged_twice| Outcome { charged_twice, told_it_failed: 0, as_it_should_be: 20 - charged_twice };
        Scenario { name, customers: 20, there: outcome(there), here: outcome(here) }
    }

    #[test]
    fn both_sides_have_to_show_it() {
        let mut report = DoubleCharges(vec![scenario("a click", 20, 0), scenario("a crash", 1, 0)]);
        report.verdict().unwrap();
        report.0.push(scenario("nothing", 0, 0));
        report.0.push(scenario("a flaw", 20, 1));
        let complaint = report.verdict().unwrap_err().to_string();
        assert_eq!(complaint, "not as it should be: nothing; a flaw");
    }

    #[test]
    fn whoever_was_not_charged_is_missed() {
        let mut uncharged = scenario("lost", 20, 0);
        uncharged.here.as_it_should_be = 19;
        assert!(DoubleCharges(vec![uncharged]).verdict().is_err());
    }

    #[test]
    fn the_table_ends_in_a_sum() {
        let report = DoubleCharges(vec![scenario("a click", 20, 0), scenario("a crash", 19, 0)]);
        let table = report.to_string();
        let cells: Vec<&str> = table.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(cells, ["all", "40", "39", "0", "0", "0", "1", "40", "ok"]);
    }
}
