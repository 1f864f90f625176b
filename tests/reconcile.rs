//! Comparing provider and database: the command, and the worker's own turn.

use crate::metrics::{scrape_of, value};
use crate::support::{
    PAYMENTS, SOON, captured, held, id, manual, once, run, scripted_provider, seconds, text,
};
use anyhow::{Context, Result, ensure};
use e2e::{World, WorldOptions, eventually, payment};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

const LIST: &str = "GET /v1/payment_intents";

/// What a run told and how it ended.
struct Told {
    exit: Option<i32>,
    text: String,
    complaint: String,
}

impl Told {
    fn read(output: Output) -> Result<Self> {
        Ok(Self {
            exit: output.status.code(),
            text: String::from_utf8(output.stdout)?,
            complaint: String::from_utf8(output.stderr)?,
        })
    }

    /// How many of each kind are in the table.
    fn kinds(&self) -> BTreeMap<&str, u64> {
        let table = self.text.split("\n\n").nth(1).unwrap_or_default().lines().skip(1);
        table
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.next()?.parse().ok()?))
            })
            .collect()
    }

    /// A number in front of the table.
    fn number(&self, name: &str) -> Option<u64> {
        let rest = self.text.split(&format!("{name} ")).nth(1)?;
        rest.split([',', '\n']).next()?.parse().ok()
    }

    #[track_caller]
    fn assert_agrees(&self, charges: u64, refunds: u64, in_flight: u64, foreign: u64) {
        assert_eq!(self.exit, Some(0), "{}{}", self.text, self.complaint);
        assert!(self.text.ends_with("no differences\n"), "{}", self.text);
        let numbers = ["charges", "refunds", "in flight", "of other programs"].map(|name| self.number(name));
        let expected = [charges, refunds, in_flight, foreign].map(Some);
        assert_eq!(numbers, expected, "{}", self.text);
    }
}

/// Runs the command. What is in flight is so for as short as it can be.
async fn reconcile(world: &World, arguments: &[&str]) -> Result<Told> {
    let short = [("PAYWRIGHT_PROVIDER_TIMEOUT", "1s"), ("PAYWRIGHT_LEASE", "6001ms")];
    Told::read(run(world, &[&["reconcile"], arguments].concat(), &short).await?)
}

/// Makes everything here old enough to be compared.
async fn age(world: &World) -> Result<()> {
    for table in ["payments", "refunds"] {
        execute(world, &format!("UPDATE {table} SET updated_at = updated_at - interval '1 hour'")).await?;
    }
    Ok(())
}

/// As the database's owner, who may do what the service never would.
async fn execute(world: &World, statement: &str) -> Result<u64> {
    let done = sqlx::query(sqlx::AssertSqlSafe(statement.to_owned())).execute(&world.pool).await?;
    Ok(done.rows_affected())
}

fn id_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

async fn intent_of(world: &World, path: &str) -> Result<String> {
    Ok(world.simulator.intents_of(id_of(path)).await?.pop().context("an intent")?.0)
}

/// Charges at the provider, without the service. Returns the intent.
async fn charge_directly(world: &World, metadata: &str) -> Result<String> {
    let form = format!("amount=500&currency=eur&payment_method=pm_card_visa&confirm=true{metadata}");
    ask_directly(world, "/v1/payment_intents", &form).await
}

async fn ask_directly(world: &World, path: &str, form: &str) -> Result<String> {
    let answer = world.simulator.post(path, form).send().await?;
    ensure!(answer.status().is_success(), "{path}: {}", answer.text().await?);
    Ok(text(&answer.json::<Value>().await?["id"]))
}

fn metadata(merchant: &str, payment: &str) -> String {
    format!("&metadata[merchant_id]={merchant}&metadata[payment_id]={payment}")
}

/// How often the provider was asked to do something.
async fn posts(world: &World) -> Result<u64> {
    let calls = world.simulator.ledger().await?["calls"].as_object().cloned().unwrap_or_default();
    let posts = calls.iter().filter(|(endpoint, _)| endpoint.starts_with("POST "));
    Ok(posts.filter_map(|(_, count)| count.as_u64()).sum())
}

#[tokio::test]
async fn where_both_agree_there_is_nothing_to_tell() -> Result<()> {
    let world = World::start().await?;
    reconcile(&world, &[]).await?.assert_agrees(0, 0, 0, 0);
    let api = &world.api;
    let path = captured(api, "captured").await?;
    let part = held(api, "part").await?;
    let canceled = held(api, "canceled").await?;
    held(api, "held").await?;
    assert_eq!(api.post(&format!("{part}/capture"), "c", &json!({ "amount": 700 })).await?.status, 200);
    assert_eq!(api.post(&format!("{canceled}/cancel"), "x", &json!({})).await?.status, 200);
    let mut declined = payment("declined");
    declined["payment_method"] = json!("pm_card_chargeDeclined");
    assert_eq!(api.create("declined", &declined).await?.status, 402);
    assert_eq!(api.post(&format!("{path}/refunds"), "r", &json!({ "amount": 500 })).await?.status, 201);
    let others = charge_directly(&world, "&metadata[order]=17").await?;
    ask_directly(&world, "/v1/refunds", &format!("payment_intent={others}")).await?;

    let done = posts(&world).await?;
    // what has just happened may be seen on one side and not on the other
    let long = [("PAYWRIGHT_LEASE", "30m")];
    Told::read(run(&world, &["reconcile"], &long).await?)?.assert_agrees(0, 0, 6, 2);
    age(&world).await?;
    reconcile(&world, &[]).await?.assert_agrees(5, 1, 0, 2);
    assert_eq!(posts(&world).await?, done, "it only looks");
    // not audited: the audit knows of no other programs
    world.stop().await
}

#[tokio::test]
async fn whatever_differs_is_found_as_its_kind() -> Result<()> {
    let mut world = World::start().await?;
    let api = world.api.clone();
    let merchant = world.stack.merchant()?.merchant_id.clone();
    let mut paths = BTreeMap::new();
    for name in
        ["amount", "currency", "captured", "refunded", "missing", "twice", "by_hand", "refund", "lost"]
    {
        paths.insert(name, captured(&api, name).await?);
    }
    for name in ["status", "ended"] {
        paths.insert(name, held(&api, name).await?);
    }
    for name in ["refund", "lost"] {
        let refunds = format!("{}/refunds", paths[name]);
        assert_eq!(api.post(&refunds, &format!("{name}-r"), &json!({ "amount": 500 })).await?.status, 201);
    }
    // nobody is there to find by itself what is planted now
    world.stack.service(0)?.stop(seconds(10)).await?;
    let edit = async |name: &str, change: &str| -> Result<()> {
        let statement = format!("UPDATE payments SET {change} WHERE payment_id = '{}'", id_of(&paths[name]));
        ensure!(execute(&world, &statement).await? == 1, "{statement}");
        Ok(())
    };
    edit("amount", "amount = amount + 1").await?;
    edit("currency", "currency = 'USD'").await?;
    edit("captured", "amount_captured = amount_captured - 1").await?;
    edit("refunded", "amount_refunded = 1").await?;
    edit("missing", "intent_id = 'pi_nowhere'").await?;
    edit("ended", "status = 'canceled', live_reference = NULL").await?;
    edit("refund", "amount_refunded = amount_refunded - 1").await?;
    let refund = async |name: &str, change: &str| {
        let of = id_of(&paths[name]);
        execute(&world, &format!("UPDATE refunds SET {change} WHERE payment_id = '{of}'")).await
    };
    assert_eq!(refund("refund", "amount = amount - 1").await?, 1);
    assert_eq!(refund("lost", "provider_refund_id = 're_nowhere'").await?, 1);
    let status = intent_of(&world, &paths["status"]).await?;
    ask_directly(&world, &format!("/v1/payment_intents/{status}/cancel"), "").await?;
    let by_hand = intent_of(&world, &paths["by_hand"]).await?;
    ask_directly(&world, "/v1/refunds", &format!("payment_intent={by_hand}&amount=300")).await?;
    const NOBODY: &str = "0190a1b2-0000-7000-8000-000000000000";
    let unknown = charge_directly(&world, &metadata(&merchant, NOBODY)).await?;
    charge_directly(&world, &metadata(&merchant, id_of(&paths["twice"]))).await?;
    charge_directly(&world, &metadata(NOBODY, id_of(&paths["twice"]))).await?;
    age(&world).await?;

    let done = posts(&world).await?;
    let expected = BTreeMap::from([
        ("unknown_charge", 1),
        ("missing_charge", 1),
        // the payment whose intent was changed has its charge beside what it says it stands on
        ("second_charge", 2),
        ("ended_with_money", 1),
        ("wrong_owner", 1),
        ("amount_differs", 1),
        ("currency_differs", 1),
        ("captured_differs", 1),
        ("refunded_differs", 1),
        ("status_differs", 1),
        // likewise
        ("unknown_refund", 2),
        ("missing_refund", 1),
        ("refund_differs", 1),
    ]);
    // a charge of nobody counts once it is too old to be on its way
    let mut told = reconcile(&world, &[]).await?;
    eventually(seconds(30), "nothing is in flight", async || {
        told = reconcile(&world, &[]).await?;
        Ok(told.number("in flight") == Some(0))
    })
    .await?;
    println!("{}", told.text);
    assert_eq!((told.exit, told.kinds()), (Some(1), expected), "{}{}", told.text, told.complaint);
    for named in
        [unknown.as_str(), NOBODY, &status, &by_hand, id_of(&paths["amount"]), "pi_nowhere", "re_nowhere"]
    {
        assert!(told.text.contains(named), "{named} in {}", told.text);
    }
    assert_eq!(posts(&world).await?, done, "it only looks");
    world.stop().await
}

#[tokio::test]
async fn more_than_a_page_is_compared() -> Result<()> {
    let world = World::start().await?;
    for n in 0..105 {
        captured(&world.api, &format!("order-{n}")).await?;
    }
    age(&world).await?;
    let before = world.simulator.calls(LIST).await?;
    reconcile(&world, &[]).await?.assert_agrees(105, 0, 0, 0);
    assert_eq!(world.simulator.calls(LIST).await? - before, 2);
    assert_eq!(world.simulator.calls("GET /v1/payment_intents/{id}").await?, 0, "all were listed");
    world.finish().await
}

/// A day of payments, one a minute, most of which were charged at once: the walks of both sides go on in step.
#[tokio::test]
async fn a_day_is_walked_in_step_and_what_was_not_listed_is_asked_for() -> Result<()> {
    const MINUTES: usize = 1_400;
    const NOT_LISTED: usize = 500;
    const NOWHERE: usize = 1_234;
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
    let created = move |n: usize| now - 60 * i64::try_from(n).unwrap_or(0) - 120;
    let payment_id = move |n: usize| {
        let milliseconds = format!("{:012x}", created(n) * 1_000);
        format!("{}-{}-7000-8000-{n:012x}", &milliseconds[..8], &milliseconds[8..])
    };
    // listed as the provider made them; every tenth was late
    let mut listed: Vec<(i64, usize)> =
        (0..MINUTES).map(|n| (created(n) + if n % 10 == 9 { 1_200 } else { 1 }, n)).collect();
    listed.sort_by(|a, b| b.cmp(a));
    let merchant = Arc::new(OnceLock::<String>::new());
    let named = Arc::clone(&merchant);
    let one_by_one = Arc::new(AtomicUsize::new(0));
    let asked = Arc::clone(&one_by_one);
    let respond = move |request: &str, _: &_| {
        let intent = |(at, n): (i64, usize)| {
            json!({
                "id": format!("pi_{n}"), "object": "payment_intent", "status": "succeeded", "amount": 1000,
                "amount_received": 1000, "currency": "eur", "capture_method": "automatic", "created": at,
                "metadata": { "merchant_id": named.get(), "payment_id": payment_id(n), "operation_id": "x" },
            })
        };
        if let Some(rest) = request.strip_prefix("GET /v1/payment_intents/pi_") {
            asked.fetch_add(1, Ordering::SeqCst);
            let found = rest.parse::<usize>().ok().filter(|n| *n != NOWHERE);
            let found = found.and_then(|n| listed.iter().find(|(_, other)| *other == n));
            return match found {
                Some(found) => (200, intent(*found)),
                None => {
                    (404, json!({ "error": { "type": "invalid_request_error", "code": "resource_missing" } }))
                }
            };
        }
        if request.starts_with("GET /v1/refunds") {
            return (200, json!({ "object": "list", "data": [], "has_more": false }));
        }
        let after = request.split("starting_after=pi_").nth(1).and_then(|n| n.parse::<usize>().ok());
        let begins =
            after.and_then(|n| listed.iter().position(|(_, other)| *other == n)).map_or(0, |at| at + 1);
        let rest: Vec<_> =
            listed[begins..].iter().copied().filter(|(_, n)| ![NOT_LISTED, NOWHERE].contains(n)).collect();
        let page: Vec<Value> = rest.iter().copied().take(100).map(intent).collect();
        (200, json!({ "object": "list", "data": page, "has_more": rest.len() > 100 }))
    };
    let (url, answering) = scripted_provider(respond).await?;
    let world = WorldOptions::default().provider(&url).start().await?;
    let of =
        merchant.get_or_init(|| world.stack.merchant().map(|m| m.merchant_id.clone()).unwrap_or_default());
    let rows: Vec<String> = (0..MINUTES)
        .map(|n| {
            format!(
                "('{of}', '{}', 'o{n}', 'o{n}', 'captured', 1000, 1000, 'EUR', 'automatic', 'pm_card_visa', '{{}}', 'pi_{n}', 2,
                  to_timestamp({at}), to_timestamp({at}))",
                payment_id(n),
                at = created(n)
            )
        })
        .collect();
    let insert = format!(
        "INSERT INTO payments (merchant_id, payment_id, reference, live_reference, status, amount, amount_captured,
             currency, capture, payment_method, metadata, intent_id, last_event, created_at, updated_at)
         VALUES {}",
        rows.join(", ")
    );
    assert_eq!(execute(&world, &insert).await?, u64::try_from(MINUTES)?);

    let told = reconcile(&world, &[]).await?;
    assert_eq!(told.exit, Some(1), "{}{}", told.text, told.complaint);
    assert_eq!(told.kinds(), BTreeMap::from([("missing_charge", 1)]), "{}", told.text);
    assert!(told.text.contains(&payment_id(NOWHERE)), "{}", told.text);
    assert_eq!(told.number("charges"), Some(u64::try_from(MINUTES)? - 1), "{}", told.text);
    // an hour of it
    assert_eq!(one_by_one.load(Ordering::SeqCst), 2, "no other charge is asked for by itself");
    let hour_ago =
        "SELECT to_char(now() AT TIME ZONE 'UTC' - interval '1 hour', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let since: String = sqlx::query_scalar(hour_ago).fetch_one(&world.pool).await?;
    let told = reconcile(&world, &["--since", &since]).await?;
    assert_eq!(told.exit, Some(0), "{}{}", told.text, told.complaint);
    let charges = told.number("charges").unwrap_or(0);
    assert!((55..70).contains(&charges), "{}", told.text);
    answering.abort();
    world.stop().await
}

#[tokio::test]
async fn what_cannot_be_compared_is_no_difference_and_no_agreement() -> Result<()> {
    let mut world = World::start().await?;
    captured(&world.api, "order-1").await?;
    age(&world).await?;
    let future = reconcile(&world, &["--since", "9000-01-01T00:00:00Z"]).await?;
    assert_eq!(future.exit, Some(2), "{}", future.complaint);
    assert!(future.complaint.contains("--since"), "{}", future.complaint);
    let closed = devstack::port::Port::free()?;
    let away = format!("postgres://u:p@127.0.0.1:{}/d", closed.number());
    let told = Told::read(run(&world, &["reconcile"], &[("DATABASE_URL", &away)]).await?)?;
    assert_eq!((told.exit, told.text.as_str()), (Some(2), ""));
    assert!(told.complaint.contains("the database is unavailable"), "{}", told.complaint);

    // what passes is waited for
    world.simulator.fault(LIST, "http_500_before", Some(2), 0).await?;
    reconcile(&world, &[]).await?.assert_agrees(1, 0, 0, 0);
    world.simulator.settings(&json!({ "accept_key": "sk_test_another" })).await?;
    let told = reconcile(&world, &[]).await?;
    assert_eq!((told.exit, told.text.as_str()), (Some(2), ""));
    assert!(told.complaint.contains("does not take our credentials"), "{}", told.complaint);
    world.stack.simulator()?.kill().await?;
    let told = reconcile(&world, &[]).await?;
    assert_eq!((told.exit, told.text.as_str()), (Some(2), ""));
    assert_eq!(told.complaint, "paywright: not compared: the payment provider cannot be reached\n");
    world.stop().await
}

/// Makes the worker's own comparison due.
pub(crate) async fn make_due(world: &World) -> Result<()> {
    let statement = "INSERT INTO reconciliations (due_at) VALUES (now())
                     ON CONFLICT ON CONSTRAINT reconciliations_pkey DO UPDATE SET due_at = now()";
    execute(world, statement).await.map(drop)
}

/// How many comparisons of both services came to this.
async fn runs(world: &World, result: &str) -> Result<f64> {
    let mut all = 0.0;
    for service in 0..2 {
        let text = scrape_of(world, service).await?;
        let labels = [("payments_reconciliation_result", result)];
        all += value(&text, "payments_reconciliation_runs_total", &labels).unwrap_or(0.0);
    }
    Ok(all)
}

/// Waits until both services tell so many differences of a kind, whichever of them compared.
async fn both_tell(world: &World, kind: &str, count: f64) -> Result<()> {
    eventually(seconds(30), kind, async || {
        let mut all = Vec::new();
        for service in 0..2 {
            let text = scrape_of(world, service).await?;
            let labels = [("payments_difference_kind", kind)];
            all.push(value(&text, "payments_reconciliation_differences", &labels));
        }
        Ok(all == [Some(count), Some(count)])
    })
    .await
}

#[tokio::test]
async fn the_worker_compares_by_itself_and_raises_what_differs() -> Result<()> {
    let mut world = WorldOptions::default().instances(2).start().await?;
    captured(&world.api, "order-1").await?;
    let path = captured(&world.api, "order-2").await?;
    age(&world).await?;
    let first = scrape_of(&world, 0).await?;
    assert!(!first.contains("payments_reconciliation_differences"), "nothing was compared yet");
    let change = format!("UPDATE payments SET amount_captured = 1 WHERE payment_id = '{}'", id_of(&path));
    execute(&world, &change).await?;
    make_due(&world).await?;
    both_tell(&world, "captured_differs", 1.0).await?;
    both_tell(&world, "unknown_charge", 0.0).await?;
    assert_eq!(runs(&world, "differs").await?, 1.0, "one process of the two");
    let ages = async || -> Result<Option<f64>> {
        Ok(value(&scrape_of(&world, 0).await?, "payments_reconciliation_last_age_seconds", &[]))
    };
    assert!(ages().await?.is_some_and(|age| age < 60.0));
    let log = format!("{}{}", world.log(0)?, world.log(1)?);
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let raised: Vec<_> = lines.iter().filter(|line| line["difference"] == "captured_differs").collect();
    assert_eq!(raised.len(), 1, "{log}");
    assert_eq!((&raised[0]["level"], &raised[0]["count"]), (&json!("ERROR"), &json!(1)));
    assert!(text(&raised[0]["first"]).contains(id_of(&path)), "{:?}", raised[0]);

    let change = change.replace("amount_captured = 1", "amount_captured = amount");
    execute(&world, &change).await?;
    make_due(&world).await?;
    both_tell(&world, "captured_differs", 0.0).await?;
    assert_eq!(runs(&world, "agreed").await?, 1.0);

    // a provider that is away is no difference: what was found before stays, and gets old
    world.stack.simulator()?.kill().await?;
    make_due(&world).await?;
    eventually(SOON, "it was tried", async || Ok(runs(&world, "unfinished").await? == 1.0)).await?;
    both_tell(&world, "captured_differs", 0.0).await?;
    let again = "SELECT count(*) FROM reconciliations WHERE due_at < now() + interval '6 minutes'";
    assert_eq!(crate::support::count(&world, again).await?, 1, "soon again");
    world.stop().await
}

#[tokio::test]
async fn what_waits_for_the_customer_is_in_flight_as_long_as_it_may_wait() -> Result<()> {
    let world = World::start().await?;
    let mut body = payment("order-1");
    body["payment_method"] = json!("pm_card_authenticationRequired");
    body["return_url"] = json!("https://shop.example/back");
    assert_eq!(world.api.create("order-1", &body).await?.json()["status"], "requires_action");
    reconcile(&world, &[]).await?.assert_agrees(0, 0, 1, 0);
    age(&world).await?;
    let window = [("PAYWRIGHT_ACTION_WINDOW", "30m")];
    Told::read(run(&world, &["reconcile"], &window).await?)?.assert_agrees(1, 0, 0, 0);
    world.finish().await
}

#[tokio::test]
async fn what_is_open_is_in_flight_and_what_waits_for_a_person_is_not() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "0ms").start().await?;
    world.simulator.create_fault("hang_after", None, 60_000).await?;
    let accepted = world.api.create("open", &manual("open")).await?;
    assert_eq!(accepted.status, 202);
    eventually(SOON, "charged", async || Ok(world.simulator.charges().await? == 1)).await?;
    age(&world).await?;
    reconcile(&world, &[]).await?.assert_agrees(0, 0, 1, 0);
    execute(&world, "UPDATE operations SET contradicted_at = now()").await?;
    let told = reconcile(&world, &[]).await?;
    assert_eq!(
        (told.exit, told.kinds()),
        (Some(1), BTreeMap::from([("status_differs", 1)])),
        "{}",
        told.text
    );
    world.simulator.heal().await?;
    let path = format!("{PAYMENTS}/{}", id(&accepted));
    once(&world.api, &path, |payment| payment["status"] == "authorized").await?;
    world.finish().await
}
