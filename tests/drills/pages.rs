//! Shows that a list costs the same however far one has walked: page 2,000 is as fast as page 1.
//!
//! 100,000 payments are written by SQL. A client walks all of them over the API, page by page, and must see each exactly
//! once, newest first. Then the first and the last page are asked for in turns, and their medians compared. At last
//! PostgreSQL explains the very statement of the service: an index scan, no sort, no offset, planned for these parameters
//! or for any.

use anyhow::{Context, Result, ensure};
use clap::Args;
use e2e::{Api, Figures, Profile, Statement, World, WorldOptions};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Payments on a page.
const LIMIT: usize = 50;
/// How much slower the last page may be.
const RATIO: f64 = 1.2;

/// Write many payments, walk to the last page, compare it with the first.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill pages --payments 10000")]
pub struct Options {
    /// How many payments there are
    #[arg(long, default_value_t = 100_000)]
    payments: usize,
    /// How often each page is asked for
    #[arg(long, default_value_t = 200)]
    requests: usize,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let world = WorldOptions::default().profile(Profile::Release).start().await?;
    fill(&world, options.payments).await?;
    let mut figures = Figures::default();
    figures.tell("payments", options.payments);
    let (pages, last_page, before_last) = walk(&world.api, &options, &mut figures).await?;
    compare(&world.api, &last_page, pages, options.requests, &mut figures).await?;
    explain(&world, &before_last, &mut figures).await?;
    println!("pages of {LIMIT}:\n{figures}");
    world.stop().await?;
    figures.verdict()
}

/// Payments a second apart, oldest first, in every status that needs no open operation.
async fn fill(world: &World, payments: usize) -> Result<()> {
    sqlx::query(
        "INSERT INTO payments
            (merchant_id, payment_id, reference, live_reference, status, amount, amount_captured, currency, capture,
             payment_method, description, customer_email, metadata, failure_code, failure_message, redirect_url,
             return_url, intent_id, last_event, created_at, updated_at)
         SELECT $1::uuid,
                -- a UUIDv7: milliseconds, version, twelve bits, variant, the rest
                (lpad(to_hex(ms), 12, '0') || '7' || lpad(to_hex(n % 4096), 3, '0')
                    || '8' || substr(md5(n::text), 1, 15))::uuid,
                'order-' || n, CASE WHEN status IN ('failed', 'canceled') THEN NULL ELSE 'order-' || n END, status,
                amount, CASE WHEN status = 'captured' THEN amount ELSE 0 END, 'EUR',
                CASE WHEN status IN ('authorized', 'canceled') THEN 'manual' ELSE 'automatic' END, 'pm_card_visa',
                'Order number ' || n, 'customer' || n || '@example.com', '{\"channel\": \"web\"}',
                CASE WHEN status = 'failed' THEN 'card_declined' END,
                CASE WHEN status = 'failed' THEN 'The card was declined.' END,
                CASE WHEN status = 'requires_action' THEN 'https://provider.example/' || n END,
                CASE WHEN status = 'requires_action' THEN 'https://shop.example/' || n END,
                'pi_' || n, 2, to_timestamp(ms / 1000.0), to_timestamp(ms / 1000.0)
         FROM (
             SELECT n, 100 + n % 9900 AS amount,
                    (EXTRACT(EPOCH FROM date_trunc('second', now())) - $2 + n)::bigint * 1000 AS ms,
                    (ARRAY['captured', 'captured', 'captured', 'captured', 'captured', 'captured', 'authorized',
                           'failed', 'canceled', 'requires_action'])[1 + n % 10] AS status
             FROM generate_series(1, $2::bigint) AS n
         ) AS numbered",
    )
    .bind(merchant_id(world)?)
    .bind(i64::try_from(payments)?)
    .execute(&world.pool)
    .await?;
    sqlx::query("ANALYZE payments").execute(&world.pool).await?;
    Ok(())
}

fn merchant_id(world: &World) -> Result<String> {
    Ok(world.stack.merchant()?.merchant_id.clone())
}

/// Walks to the end. Gives the number of pages, the path of the last one and the id that it begins after.
async fn walk(api: &Api, options: &Options, figures: &mut Figures) -> Result<(usize, String, String)> {
    let first = format!("/v1/payments?limit={LIMIT}");
    let (mut path, mut pages, mut last_id) = (first.clone(), 0, String::new());
    let mut seen = BTreeSet::new();
    let mut in_order = true;
    loop {
        let answer = api.get(&path).await?;
        ensure!(answer.status == 200, "{path} is answered with {}", answer.status);
        pages += 1;
        let page = answer.json();
        let ids = page["data"].as_array().context("a page without data")?.iter();
        let ids: Vec<&str> = ids.filter_map(|payment| payment["id"].as_str()).collect();
        in_order &= ids.windows(2).all(|two| two[0] > two[1]);
        in_order &= last_id.is_empty() || ids.first().is_some_and(|id| *id < last_id.as_str());
        seen.extend(ids.iter().map(|id| (*id).to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        last_id = (*ids.last().context("an empty page that is not the last")?).to_owned();
        path = format!("{first}&cursor={cursor}");
    }
    figures.exactly("seen on a walk, each once", seen.len(), options.payments);
    figures.exactly("pages", pages, options.payments.div_ceil(LIMIT));
    figures.holds("newest first", in_order);
    Ok((pages, path, last_id))
}

/// Asks for both pages in turns, so that whatever else the machine does falls on both.
async fn compare(
    api: &Api,
    last_page: &str,
    pages: usize,
    requests: usize,
    figures: &mut Figures,
) -> Result<()> {
    let first_page = format!("/v1/payments?limit={LIMIT}");
    let (mut first, mut last) = (Vec::with_capacity(requests), Vec::with_capacity(requests));
    for _ in 0..requests {
        first.push(timed(api, &first_page).await?);
        last.push(timed(api, last_page).await?);
    }
    let (first, last) = (median(first)?, median(last)?);
    figures.tell("median of page 1", format_args!("{first:.2?}"));
    figures.tell(&format!("median of page {pages}"), format_args!("{last:.2?}"));
    let ratio = last.as_secs_f64() / first.as_secs_f64();
    figures.bound("ratio", format_args!("{ratio:.2}"), format_args!("at most {RATIO}"), ratio <= RATIO);
    Ok(())
}

async fn timed(api: &Api, path: &str) -> Result<Duration> {
    let began = Instant::now();
    let answer = api.get(path).await?;
    ensure!(answer.status == 200, "{path} is answered with {}", answer.status);
    Ok(began.elapsed())
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    times.get(times.len() / 2).copied().context("no requests")
}

/// Explains the service's own statement, for the parameters of the last page and for any parameters: a prepared
/// statement gets the latter kind of plan after a while.
async fn explain(world: &World, before: &str, figures: &mut Figures) -> Result<()> {
    let page = Statement::find(|text| {
        text.contains("FROM payments")
            && text.contains("ORDER BY payment_id DESC LIMIT")
            && !text.contains("reference = $")
            && !text.contains("FROM operations")
    })?;
    ensure!(page.parameters.len() == 7, "the statement has other parameters than this drill knows");
    let mut connection = world.pool.acquire().await?;
    let prepare = format!("PREPARE page ({}) AS {}", page.parameters.join(", "), page.text);
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut *connection).await?;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        sqlx::raw_sql(AssertSqlSafe(format!("SET plan_cache_mode = {mode}")))
            .execute(&mut *connection)
            .await?;
        let explain = format!(
            "EXPLAIN (FORMAT JSON) EXECUTE page ('{}', '{before}', '00000000-0000-0000-0000-000000000000',
                 '1970-01-01', '9999-12-31', '{{authorized,canceled,captured,failed,processing,requires_action}}', {})",
            merchant_id(world)?,
            LIMIT + 1,
        );
        let plan: Value = sqlx::query_scalar(AssertSqlSafe(explain)).fetch_one(&mut *connection).await?;
        let nodes = nodes(&plan[0]["Plan"]);
        let is_good =
            nodes.iter().all(|node| ["Limit", "Index Scan", "Index Only Scan"].contains(&node.as_str()))
                && nodes.iter().any(|node| node.starts_with("Index"));
        figures.bound(&format!("plan, {mode}"), nodes.join(" > "), "an index scan and no sort", is_good);
    }
    figures.holds("statement without OFFSET", !page.text.to_uppercase().contains("OFFSET"));
    Ok(())
}

/// The kinds of all nodes of a plan, from the top.
fn nodes(plan: &Value) -> Vec<String> {
    let mut found = vec![plan["Node Type"].as_str().unwrap_or("?").to_owned()];
    for below in plan["Plans"].as_array().into_iter().flatten() {
        found.extend(nodes(below));
    }
    found
}
