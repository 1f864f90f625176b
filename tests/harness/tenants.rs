//! Many merchants at once over a few connections, some of them with ids that are not theirs: nobody sees or moves what is
//! another's, and an id of another's is answered like one that nobody has.

use crate::{Answer, Api, Figures, World, payment};
use anyhow::{Context, Result, ensure};
use rand::Rng;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use uuid::Uuid;

/// The share of requests that are about another merchant's id.
const FOREIGN: f64 = 0.1;
/// How many requests are under way at a time.
const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(60);

/// A merchant and the paths of its objects so far.
struct Tenant {
    api: Api,
    paths: Mutex<Vec<String>>,
}

impl Tenant {
    fn own(&self) -> Option<String> {
        let paths = self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        (!paths.is_empty()).then(|| paths[rand::rng().random_range(0..paths.len())].clone())
    }

    fn remember(&self, path: &str) {
        if !path.is_empty() {
            self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(path.to_owned());
        }
    }
}

/// What the callers saw.
#[derive(Debug, Default)]
struct Seen {
    requests: usize,
    foreign: usize,
    foreign_answered: usize,
    told_apart: usize,
    unexpected: usize,
    first_unexpected: Option<String>,
}

/// Lets `merchants` merchants make `requests` requests in no order.
///
/// # Errors
/// A connection breaks, or a witness does not answer. What went wrong is in the figures.
pub async fn tenants(world: &World, merchants: usize, requests: usize) -> Result<Figures> {
    ensure!(merchants > 1, "others are needed");
    let mut tenants = Vec::new();
    for number in 0..merchants {
        let api = world.new_merchant(&format!("Merchant {number}")).await?;
        let tenant = Tenant { api, paths: Mutex::default() };
        // everybody has something that is another's to everybody else
        tenant.remember(create(&tenant.api).await?.header("location"));
        tenants.push(tenant);
    }
    let tenants = Arc::new(tenants);
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut tasks: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..requests {
        if tasks.len() >= AT_ONCE {
            tasks.join_next().await.context("a request")???;
        }
        let (tenants, seen) = (Arc::clone(&tenants), Arc::clone(&seen));
        tasks.spawn(async move { ask(&tenants, &seen).await });
    }
    while let Some(asked) = tasks.join_next().await {
        asked??;
    }
    world.at_rest(PATIENCE).await?;
    let foreign_rows = foreign_rows(world).await?;
    let mut foreign_shown = 0;
    for (own, tenant) in tenants.iter().enumerate() {
        foreign_shown += listed_that_are_not_theirs(&tenants, own, tenant).await?;
    }
    let seen = std::mem::take(&mut *seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner));

    let mut figures = Figures::default();
    figures.tell("merchants", merchants);
    figures.exactly("requests", seen.requests, requests);
    figures.at_least("of them for another merchant's id", seen.foreign, requests / 20);
    figures.exactly("foreign ids answered otherwise than 404", seen.foreign_answered, 0);
    figures.exactly("foreign and absent ids told apart", seen.told_apart, 0);
    figures.exactly("foreign objects shown", foreign_shown, 0);
    figures.exactly("rows of one merchant about another's", foreign_rows, 0);
    figures.exactly("other answers", seen.unexpected, 0);
    if let Some(first) = &seen.first_unexpected {
        figures.tell("the first of them", first);
    }
    figures.findings(&world.check().await?);
    Ok(figures)
}

async fn create(api: &Api) -> Result<Answer> {
    let mut body = payment(&Uuid::new_v4().to_string());
    if rand::rng().random_bool(0.5) {
        body["capture"] = json!("manual");
    }
    let key = Uuid::new_v4().to_string();
    let mut answer = api.create(&key, &body).await?;
    while is_shed(&answer) {
        answer = api.create(&key, &body).await?;
    }
    ensure!(answer.status < 300, "{}", answer.json());
    Ok(answer)
}

/// One request of somebody.
async fn ask(tenants: &[Tenant], seen: &Mutex<Seen>) -> Result<()> {
    let chosen = rand::rng().random_range(0..tenants.len());
    let tenant = &tenants[chosen];
    let foreign = rand::rng().random_bool(FOREIGN);
    let about = if foreign {
        (chosen + 1 + rand::rng().random_range(0..tenants.len() - 1)) % tenants.len()
    } else {
        chosen
    };
    let Some(path) = tenants[about].own() else { return Ok(()) };
    let verb = rand::rng().random_range(0..8);
    let (answer, absent) = if foreign {
        let absent = replace_id(&path);
        (request(&tenant.api, &path, verb).await?, Some(request(&tenant.api, &absent, verb).await?))
    } else if verb == 7 {
        (create(&tenant.api).await?, None)
    } else {
        (request(&tenant.api, &path, verb).await?, None)
    };
    let mut seen = seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    seen.requests += 1;
    match absent {
        Some(absent) => {
            seen.foreign += 1;
            seen.foreign_answered += usize::from(answer.status != 404);
            seen.told_apart += usize::from(without_trace(&answer) != without_trace(&absent));
        }
        None => {
            tenant.remember(answer.header("location"));
            let known = matches!(answer.status, 200..=202)
                || matches!(answer.code().as_str(), "payment_state_conflict" | "refund_amount_too_large");
            if !known {
                seen.unexpected += 1;
                let first = format!("{} {}", answer.status, answer.json());
                seen.first_unexpected.get_or_insert(first);
            }
        }
    }
    Ok(())
}

/// What can be asked about an object; refunds are only read.
async fn request(api: &Api, path: &str, verb: u32) -> Result<Answer> {
    let key = Uuid::new_v4().to_string();
    let mut answer = request_once(api, path, verb, &key).await?;
    while is_shed(&answer) {
        answer = request_once(api, path, verb, &key).await?;
    }
    Ok(answer)
}

/// There was no room for it; load is not what is looked at here.
fn is_shed(answer: &Answer) -> bool {
    answer.status == 503 && answer.code() == "overloaded"
}

async fn request_once(api: &Api, path: &str, verb: u32, key: &str) -> Result<Answer> {
    if path.starts_with("/v1/refunds/") {
        return api.get(path).await;
    }
    match verb {
        0 => api.post(&format!("{path}/capture"), key, &json!({})).await,
        1 => api.post(&format!("{path}/cancel"), key, &json!({})).await,
        2 | 3 => api.post(&format!("{path}/refunds"), key, &json!({ "amount": 1 })).await,
        4 => api.get(&format!("{path}/refunds")).await,
        5 => api.get(&format!("{path}/events")).await,
        _ => api.get(path).await,
    }
}

/// The same path for an id that nobody has.
fn replace_id(path: &str) -> String {
    let base = path.rsplit_once('/').map_or(path, |(base, _)| base);
    format!("{base}/{}", Uuid::now_v7())
}

/// An answer apart from its trace id: status, headers that are not of the moment, and body.
fn without_trace(answer: &Answer) -> (u16, Vec<String>, String) {
    let trace = answer.header("request-id").to_owned();
    let mut names: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
    names.sort();
    (answer.status, names, String::from_utf8_lossy(&answer.body).replace(&trace, ""))
}

/// How many objects a merchant's whole list shows that another merchant was given.
async fn listed_that_are_not_theirs(tenants: &[Tenant], own: usize, tenant: &Tenant) -> Result<usize> {
    let others: HashSet<String> = tenants
        .iter()
        .enumerate()
        .filter(|(at, _)| *at != own)
        .flat_map(|(_, other)| other.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone())
        .collect();
    let mut shown = 0;
    let mut next = "/v1/payments?limit=100".to_owned();
    loop {
        let page = tenant.api.send(tenant.api.request(Method::GET, &next)).await?.json();
        for payment in page["data"].as_array().into_iter().flatten() {
            let path = format!("/v1/payments/{}", payment["id"].as_str().unwrap_or_default());
            shown += usize::from(others.contains(&path));
        }
        match page["next_cursor"].as_str() {
            Some(cursor) => next = format!("/v1/payments?limit=100&cursor={cursor}"),
            None => return Ok(shown),
        }
    }
}

/// Rows whose payment is another merchant's, and charges that name another merchant than their payment's.
async fn foreign_rows(world: &World) -> Result<usize> {
    let mut foreign = 0;
    for table in ["operations", "events", "refunds"] {
        let statement = format!(
            "SELECT count(*) FROM {table} t JOIN payments p USING (payment_id) WHERE t.merchant_id <> p.merchant_id"
        );
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&world.pool).await?;
        foreign += usize::try_from(count)?;
    }
    let rows: Vec<(String, String)> =
        sqlx::query_as("SELECT payment_id::text, merchant_id::text FROM payments")
            .fetch_all(&world.pool)
            .await?;
    let owners: HashMap<String, String> = rows.into_iter().collect();
    let ledger = world.simulator.ledger().await?;
    for entry in ledger["entries"].as_array().into_iter().flatten() {
        let owner = entry["payment_id"].as_str().and_then(|id| owners.get(id));
        let named = &entry["merchant_id"];
        foreign += usize::from(*named != Value::Null && owner.map(String::as_str) != named.as_str());
    }
    Ok(foreign)
}
