//! The database's own speed: pgbench with exactly the statements that a payment, a replay and a read cost the service.
//!
//! The texts come from `.sqlx`, the parameters from a payment that the service has just made; only what must be different
//! for every payment is counted up. Two things in the texts are changed: `$n` becomes a pgbench variable with the type that
//! the build found out, and the `!` that sqlx reads in column names goes, because `\gset` makes variables of them.

use super::load::Work;
use anyhow::{Context, Result, ensure};
use devstack::postgres::{self, Postgres, Wanted};
use e2e::Statement;
use sqlx::{PgPool, Row};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::process::Command;

/// pgbench and what it runs.
#[derive(Debug)]
pub struct Pgbench {
    program: PathBuf,
    directory: PathBuf,
    database_url: String,
    /// Variables that stay the same, name and value.
    variables: Vec<(String, String)>,
    runs: u64,
}

/// What the service's connections ask of the server (`SERVER_SETTINGS` in `crates/persistence/src/lib.rs`), so that pgbench's
/// statements are planned and bounded like the service's own.
const SERVER_SETTINGS: &str = "-c plan_cache_mode=force_custom_plan -c statement_timeout=2000 -c lock_timeout=1500 \
    -c idle_in_transaction_session_timeout=5000 -c client_connection_check_interval=1000";

/// What a script is called.
const fn script(work: Work) -> &'static str {
    match work {
        Work::Pay => "pay.pgbench",
        Work::Replay => "replay.pgbench",
        Work::Read => "read.pgbench",
    }
}

/// Where a parameter's value comes from.
enum Value {
    /// An expression of SQL, over pgbench's variables.
    Sql(&'static str),
    /// The same in every payment: taken from the sample, by this expression over its rows.
    Sample(&'static str),
}
use Value::{Sample, Sql};

/// An id that nobody else has, and that is higher than those before it, as the service's are.
const ID: Value = Sql("rpad(:n::text, 32, '0')");
/// A key or reference: as long as those of the service's load, and as scattered.
const SCATTERED: Value = Sql("rpad(:scattered::text, 36, '-')");

/// Where the claim has the caller's key and reference.
const KEY_OF_CLAIM: usize = 7;
const REFERENCE_OF_CLAIM: usize = 11;

/// The parameters of the claim, in their order.
const CLAIM: [Value; 27] = [
    Sample("o.merchant_id"),
    ID,
    ID,
    Sample("o.refund_id"),
    Sample("o.kind"),
    Sample("o.actor"),
    Sample("o.traceparent"),
    SCATTERED,
    Sample("o.fingerprint"),
    // the default of PAYWRIGHT_LEASE
    Sample("15"),
    Sample("true"),
    SCATTERED,
    Sample("'processing'"),
    Sample("p.amount"),
    Sample("p.currency"),
    Sample("p.capture"),
    Sample("p.payment_method"),
    Sample("p.description"),
    Sample("p.customer_name"),
    Sample("p.customer_email"),
    Sample("p.statement_descriptor"),
    Sample("p.return_url"),
    Sample("p.metadata"),
    Sample("p.created_at"),
    ID,
    Sample("first.type"),
    Sample("first.data"),
];

/// The parameters of the settlement, in their order.
const SETTLE: [Value; 23] = [
    Sample("o.merchant_id"),
    ID,
    Sql(":lease_until"),
    Sample("o.answer_status"),
    Sample("o.answer_location"),
    Sample("o.answer_body"),
    Sample("'processing'"),
    Sample("NULL"),
    Sample("p.status"),
    Sample("p.pending_operation"),
    Sample("p.pending_amount"),
    Sample("p.amount_captured"),
    Sample("false"),
    Sample("p.failure_code"),
    Sample("p.failure_message"),
    Sample("p.failure_decline_code"),
    Sample("p.redirect_url"),
    Sample("p.intent_id"),
    Sample("p.updated_at"),
    ID,
    Sample("last.type"),
    Sample("o.actor"),
    Sample("last.data"),
];

/// The newest payment that was captured, with its operation and its two events.
const SAMPLE: &str = "FROM (SELECT * FROM payments WHERE status = 'captured' ORDER BY payment_id DESC LIMIT 1) p
    JOIN operations o USING (merchant_id, payment_id)
    JOIN events first ON (first.merchant_id, first.payment_id, first.sequence) = (p.merchant_id, p.payment_id, 1)
    JOIN events last ON (last.merchant_id, last.payment_id, last.sequence) = (p.merchant_id, p.payment_id, 2)";

impl Pgbench {
    /// Writes the script into `directory`. The service must have settled a payment before.
    ///
    /// # Errors
    /// There is no pgbench beside the server, or the statements have other parameters than this knows.
    pub async fn prepare(directory: &Path, owner: &PgPool, database_url: &str) -> Result<Self> {
        let Postgres::Installed(installation) = postgres::find(&Wanted::default(), devstack::silent).await?
        else {
            anyhow::bail!("a server's URL has no programs");
        };
        let programs = installation.programs().context("an image's pgbench cannot be run from here")?;
        let program = programs.join("pgbench");
        ensure!(program.is_file(), "there is no {}", program.display());

        let claim = Statement::find(|text| text.contains("INSERT INTO payments"))?;
        let settle =
            Statement::find(|text| text.starts_with("WITH settled AS") && !text.contains("watched AS"))?;
        let find_key = Statement::find(|text| text.contains("\"being_served!\""))?;
        let find_payment = Statement::find(|text| {
            text.trim_end().ends_with("FROM payments WHERE merchant_id = $1 AND payment_id = $2")
        })?;
        let mut variables = Vec::new();
        let mut fill = async |statement, values, prefix| {
            substitute(statement, values, prefix, owner, &mut variables).await
        };
        let mut known = CLAIM;
        known[KEY_OF_CLAIM] = Sample("o.idempotency_key");
        known[REFERENCE_OF_CLAIM] = Sample("p.reference");
        let claim_new = fill(&claim, &CLAIM[..], "claim").await?;
        let settle = fill(&settle, &SETTLE, "settle").await?;
        let claim_known = fill(&claim, &known, "known").await?;
        let find_key =
            fill(&find_key, &[Sample("o.merchant_id"), Sample("o.idempotency_key")], "key").await?;
        let find_payment =
            fill(&find_payment, &[Sample("o.merchant_id"), Sample("o.payment_id")], "payment").await?;
        let count = "\\set counter :counter + 1\n\
                     \\set n :base + :counter * 1000 + :client_id\n\
                     \\set scattered random(1000000000000000000, 9000000000000000000)\n";
        for (work, text) in [
            (Work::Pay, format!("{count}{claim_new} \\gset\n{settle};\n")),
            (Work::Replay, format!("{count}{claim_known};\n{find_key};\n")),
            (Work::Read, format!("{find_payment};\n")),
        ] {
            std::fs::write(directory.join(script(work)), text)?;
        }
        let (directory, database_url) = (directory.to_owned(), database_url.to_owned());
        Ok(Self { program, directory, database_url, variables, runs: 0 })
    }

    /// How often a second the statements of the work are done on so many connections.
    ///
    /// # Errors
    /// pgbench fails, or one of its transactions does.
    pub async fn run(&mut self, work: Work, connections: usize, long: Duration) -> Result<f64> {
        self.runs += 1;
        // 19 digits, so that the ids of a later run are higher; no client makes 10^14 payments in one
        let base = 1_000_000_000_000_000_000 + self.runs * 100_000_000_000_000_000;
        let mut command = Command::new(&self.program);
        command.args(["--no-vacuum", "--protocol=prepared", "--jobs=1"]);
        command.arg(format!("--client={connections}")).arg(format!("--time={}", long.as_secs()));
        command.arg(format!("--file={}", self.directory.join(script(work)).display()));
        for (name, value) in &self.variables {
            command.arg(format!("--define={name}={value}"));
        }
        command.args(["--define=counter=0", &format!("--define=base={base}")]);
        // everybody on the machine may read arguments, and not the environment
        let mut database_url = reqwest::Url::parse(&self.database_url)?;
        command.env("PGPASSWORD", database_url.password().unwrap_or_default());
        command.env("PGOPTIONS", SERVER_SETTINGS);
        database_url.set_password(None).map_err(|()| anyhow::anyhow!("a database URL without a host"))?;
        let output = command.arg(database_url.as_str()).kill_on_drop(true).output().await?;
        let (told, complaint) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "pgbench fails: {complaint}");
        ensure!(told.contains("number of failed transactions: 0 "), "transactions failed: {told}{complaint}");
        let rate = told.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next());
        Ok(rate.context("pgbench told no tps")?.parse()?)
    }
}

/// The statement with pgbench's variables in place of its parameters; the values of the sample's are added to `variables`.
async fn substitute(
    statement: &Statement,
    values: &[Value],
    prefix: &str,
    owner: &PgPool,
    variables: &mut Vec<(String, String)>,
) -> Result<String> {
    let types = &statement.parameters;
    ensure!(types.len() == values.len(), "{prefix} has {} parameters, not {}", types.len(), values.len());
    let samples: Vec<&str> =
        values.iter().filter_map(|value| if let Sample(sql) = value { Some(*sql) } else { None }).collect();
    let columns: Vec<String> = samples.iter().map(|sql| format!("({sql})::text")).collect();
    let query = format!("SELECT {} {SAMPLE}", columns.join(", "));
    let sample = sqlx::query(sqlx::AssertSqlSafe(query))
        .fetch_optional(owner)
        .await?
        .context("the service has settled no payment yet")?;
    let mut sampled = 0..;
    let mut replacements = Vec::new();
    for (number, (value, kind)) in (1..).zip(values.iter().zip(types)) {
        let expression = match value {
            Sql(sql) => (*sql).to_owned(),
            Sample(_) => match sample.get::<Option<String>, _>(sampled.next().context("a column")?) {
                Some(value) => {
                    let name = format!("{prefix}{number}");
                    variables.push((name.clone(), value));
                    format!(":{name}")
                }
                // a variable cannot be NULL
                None => "NULL".to_owned(),
            },
        };
        replacements.push(format!("({expression})::{kind}"));
    }
    Ok(replace_parameters(&statement.text.replace("!\"", "\""), &replacements))
}

/// Puts the replacement of `$n` in its place.
fn replace_parameters(text: &str, replacements: &[String]) -> String {
    let mut parts = text.split('$');
    let mut replaced = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, rest) = part.split_at(digits);
        let replacement =
            number.parse::<usize>().ok().and_then(|number| replacements.get(number.checked_sub(1)?));
        // writing to a string cannot fail
        let _ = match replacement {
            Some(replacement) => write!(replaced, "{replacement}{rest}"),
            None => write!(replaced, "${part}"),
        };
    }
    replaced
}
