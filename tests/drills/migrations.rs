//! Shows that the schema can be rolled back: every migration goes up, down and up again over rows that were there before it.
//!
//! An empty database is taken up step by step, and whatever table a step brings is filled before the next: 100,000 payments,
//! with their operations, events, refunds and watches. After each way down, schema and rows must be what they were before the
//! way up; after the second way up, what they were after the first. The order of columns may differ: PostgreSQL gives a column
//! that comes back the last place.

use anyhow::{Context, Result, ensure};
use clap::Args;
use devstack::TestDatabase;
use e2e::{Figures, Profile, programs};
use sqlx::{AssertSqlSafe, PgPool};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;

/// What a back-fill writes is no change of rows: its way down leaves it, and the release before does not read it.
const FILLED_BY: [(usize, &str); 1] = [(15, "traceparent")];

/// Take the schema up, down and up again, step by step, over many rows.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill migrations --payments 10000")]
pub struct Options {
    /// How many payments there are
    #[arg(long, default_value_t = 100_000)]
    payments: u32,
}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(options: Options) -> Result<()> {
    let program = programs(Profile::Release)?.join("paywright");
    let database = TestDatabase::empty().await?;
    let schema = Schema {
        program,
        url: database.owner_url().to_owned(),
        pool: PgPool::connect(database.owner_url()).await?,
    };
    let steps = names()?;
    let (mut schemas_differ, mut rows_differ, mut slowest) = (0, 0, (Duration::ZERO, String::new()));
    for (version, name) in (1..).zip(&steps) {
        let filled = FILLED_BY.iter().find(|(by, _)| *by == version).map(|(_, column)| *column);
        let before = schema.look(filled).await?;
        let up = schema.migrate("up", name).await?;
        let after = schema.look(filled).await?;
        let down = schema.migrate("down", name).await?;
        let back = schema.look(filled).await?;
        schema.migrate("up", name).await?;
        let again = schema.look(filled).await?;
        for (was, is, way) in [(&before, &back, "down"), (&after, &again, "up again")] {
            schemas_differ += usize::from(is_another(name, way, &was.schema, &is.schema));
            rows_differ += usize::from(is_another(name, way, &was.rows, &is.rows));
        }
        println!("{name:<40} up {up:>8.1?} down {down:>8.1?}");
        slowest = slowest.max((up.max(down), name.clone()));
        schema.fill(version, options.payments).await?;
    }
    let mut figures = Figures::default();
    figures.exactly("migrations that went up, down and up", steps.len(), steps.len());
    let payments: i64 = sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(&schema.pool).await?;
    figures.exactly("payments", payments, i64::from(options.payments));
    figures.exactly("schemas that differ", schemas_differ, 0);
    figures.exactly("tables whose rows differ", rows_differ, 0);
    figures.tell("slowest", format_args!("{} in {:.1?}", slowest.1, slowest.0));
    println!("{figures}");
    schema.pool.close().await;
    database.close().await?;
    figures.verdict()
}

/// The migrations' names, in order.
fn names() -> Result<Vec<String>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".up.sql").map(str::to_owned));
    }
    Ok(names.into_iter().collect())
}

/// Tells what is different.
fn is_another(name: &str, way: &str, was: &BTreeMap<String, String>, is: &BTreeMap<String, String>) -> bool {
    let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let other: Vec<_> = keys.into_iter().filter(|key| was.get(*key) != is.get(*key)).collect();
    for key in &other {
        println!("{name} {way}: {key} was {:?} and is {:?}", was.get(*key), is.get(*key));
    }
    !other.is_empty()
}

/// What there is at one moment.
struct Look {
    schema: BTreeMap<String, String>,
    rows: BTreeMap<String, String>,
}

struct Schema {
    program: PathBuf,
    url: String,
    pool: PgPool,
}

impl Schema {
    /// Takes one step with the service's own program. Returns how long it took.
    async fn migrate(&self, direction: &str, name: &str) -> Result<Duration> {
        let began = Instant::now();
        let mut command = Command::new(&self.program);
        command.args(["migrate", direction, "--steps", "1"]).env("DATABASE_URL", &self.url);
        let output = command.output().await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name} {direction}: {complaint}");
        Ok(began.elapsed())
    }

    async fn look(&self, filled: Option<&str>) -> Result<Look> {
        // a constraint that was checked once stays checked
        let schema: Vec<(String, String)> = sqlx::query_as(
            "SELECT * FROM (
             SELECT 'column ' || c.relname || '.' || attname,
                    format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END
                        || COALESCE(' ' || pg_get_expr(adbin, adrelid), '')
             FROM pg_attribute JOIN pg_class AS c ON c.oid = attrelid LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
             WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
             UNION ALL
             SELECT 'constraint ' || conrelid::regclass || '.' || conname, replace(pg_get_constraintdef(oid), ' NOT VALID', '')
             FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
             UNION ALL
             SELECT 'index ' || indexrelid::regclass, pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' INVALID' END
             FROM pg_index JOIN pg_class AS c ON c.oid = indexrelid WHERE relnamespace = 'public'::regnamespace
             UNION ALL
             SELECT 'grant ' || table_name || COALESCE('.' || column_name, '') || ' ' || grantee || ' ' || privilege_type, ''
             FROM (SELECT table_name, NULL AS column_name, grantee, privilege_type FROM information_schema.table_privileges
                   WHERE table_schema = 'public'
                   UNION SELECT table_name, column_name, grantee, privilege_type FROM information_schema.column_privileges
                   WHERE table_schema = 'public' AND grantee <> current_user) AS granted
             ) AS looked (what, how)
             -- the migrator's own table stays; what the service may do with it does not
             WHERE what NOT LIKE '%_sqlx_migrations%' OR what LIKE '% payments_service %'",
        )
        .fetch_all(&self.pool)
        .await?;
        let tables: Vec<String> = sqlx::query_scalar(
            "SELECT relname::text FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> '_sqlx_migrations'",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut rows = BTreeMap::new();
        for table in tables {
            let digest = format!(
                "SELECT count(*) || ' rows, ' || COALESCE(sum(hashtextextended((to_jsonb(t) - $1)::text, 0)), 0) FROM {table} AS t"
            );
            let digest = sqlx::query_scalar(AssertSqlSafe(digest)).bind(filled.unwrap_or_default());
            rows.insert(table.clone(), digest.fetch_one(&self.pool).await.context(table)?);
        }
        Ok(Look { schema: schema.into_iter().collect(), rows })
    }

    /// Fills what the step brought.
    async fn fill(&self, version: usize, payments: u32) -> Result<()> {
        let Some(statement) = FILLED_AFTER.iter().find(|(after, _)| *after == version) else { return Ok(()) };
        let filled = sqlx::query(statement.1).bind(i64::from(payments)).execute(&self.pool).await?;
        println!("{:>40} {} rows", "filled with", filled.rows_affected());
        Ok(())
    }
}

/// Rows of a table, as soon as it is there. `$1` is the number of payments.
const FILLED_AFTER: [(usize, &str); 7] = [
    (2, "INSERT INTO merchants (merchant_id, name) SELECT md5('merchant' || n)::uuid, 'Merchant ' || n FROM generate_series(0, 49) AS n WHERE n < $1"),
    (
        3,
        "INSERT INTO payments
            (merchant_id, payment_id, reference, live_reference, status, amount, amount_captured, currency, capture,
             payment_method, description, metadata, intent_id, last_event, created_at, updated_at)
         SELECT md5('merchant' || n % 50)::uuid, md5('payment' || n)::uuid, 'order-' || n, 'order-' || n,
                CASE WHEN n % 10 = 0 THEN 'authorized' ELSE 'captured' END, 1000, CASE WHEN n % 10 = 0 THEN 0 ELSE 1000 END, 'EUR',
                CASE WHEN n % 10 = 0 THEN 'manual' ELSE 'automatic' END, 'pm_card_visa', 'Order ' || n, '{}', 'pi_' || n, 2,
                now(), now()
         FROM generate_series(1, $1) AS n",
    ),
    (
        4,
        "INSERT INTO operations
            (merchant_id, operation_id, payment_id, kind, actor, trace_id, idempotency_key, fingerprint, lease_until,
             settled_at, answer_status, answer_body)
         SELECT merchant_id, md5('charge' || payment_id)::uuid, payment_id, 'charge', 'worker', md5('trace' || payment_id)::uuid,
                reference, decode(repeat('01', 33), 'hex'), CASE WHEN open THEN now() ELSE 'infinity' END,
                CASE WHEN NOT open THEN now() END, CASE WHEN NOT open THEN 201 END, CASE WHEN NOT open THEN '{}'::bytea END
         FROM (SELECT *, right(reference, 2) = '42' AS open FROM payments LIMIT $1) AS payments",
    ),
    (
        5,
        "INSERT INTO events (merchant_id, payment_id, sequence, event_id, type, occurred_at, trace_id, actor, data)
         SELECT merchant_id, payment_id, sequence, md5(payment_id::text || sequence)::uuid,
                CASE sequence WHEN 1 THEN 'payment.created' ELSE 'payment.captured' END, now(),
                md5('trace' || payment_id)::uuid, 'worker', '{}'
         FROM (SELECT * FROM payments LIMIT $1) AS payments, generate_series(1, 2) AS sequence",
    ),
    (
        6,
        "INSERT INTO refunds (merchant_id, refund_id, payment_id, amount, metadata, status, created_at, updated_at)
         SELECT merchant_id, md5('refund' || payment_id)::uuid, payment_id, 100, '{}', 'succeeded', now(), now()
         FROM payments WHERE status = 'captured' LIMIT $1 / 10",
    ),
    (
        8,
        "INSERT INTO operations
            (merchant_id, operation_id, payment_id, refund_id, kind, actor, trace_id, idempotency_key, fingerprint, lease_until)
         SELECT merchant_id, md5(kind || refund_id)::uuid, payment_id, refund_id, kind, 'worker', md5('trace' || refund_id)::uuid,
                CASE kind WHEN 'refund' THEN refund_id::text END, CASE kind WHEN 'refund' THEN decode(repeat('02', 33), 'hex') END,
                now()
         FROM (SELECT * FROM refunds LIMIT $1) AS refunds, unnest(ARRAY['refund', 'watch_refund']) AS kind",
    ),
    (
        19,
        "INSERT INTO reconciliations (due_at, finished_at, differences)
         SELECT now(), now(), '{\"unknown_charge\": 1}' WHERE $1 > 0",
    ),
];
