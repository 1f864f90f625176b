//! Schemathesis: thousands of requests made from the document, right and wrong ones, and every answer is held against it.

use crate::support::{PAYMENTS, id, python_with, say};
use anyhow::{Context, Result, ensure};
use e2e::{World, payment};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Fewer would prove little.
const LEAST: u64 = 5_000;
/// Of each operation, in the phase that makes them at random.
const EXAMPLES: &str = "520";
/// It takes a fraction of this.
const PATIENCE: Duration = Duration::from_secs(600);
/// Payments of each kind that are made for the run.
const PREPARED: usize = 20;

/// All that there are. `use_after_free` and `ensure_resource_availability` find little to do: nothing is deleted here.
const CHECKS: [&str; 14] = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
    "object_level_authorization",
];

/// Payments for the run to capture, cancel and refund.
async fn prepare(world: &World, capture: &str) -> Result<String> {
    let mut ids = Vec::new();
    for at in 0..PREPARED {
        let key = format!("{capture}-{at}");
        let mut body = payment(&key);
        body["capture"] = json!(capture);
        let answer = world.api.create(&key, &body).await?;
        ensure!(answer.status == 201, "{PAYMENTS}: {}", answer.json());
        ids.push(id(&answer));
    }
    Ok(ids.join(" "))
}

#[tokio::test]
async fn thousands_of_requests_are_answered_as_the_document_says() -> Result<()> {
    let Some(python) = python_with("schemathesis")? else { return Ok(()) };
    let world = World::start().await?;
    let directory = tempfile::tempdir()?;
    let report = directory.path().join("report.json");
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command
        .arg("--config-file")
        .arg(files.join("schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", world.api.url)])
        .args(["--checks", &CHECKS.join(",")])
        // the same requests every time
        .args(["--seed", "20260131", "--generation-deterministic"])
        .args(["--workers", "1", "--max-examples", EXAMPLES, "--no-shrink", "--continue-on-failure"])
        .args(["--no-color", "--report", "json", "--report-json-path"])
        .arg(&report)
        .env("API_KEY", &world.api.key)
        .env("SCHEMATHESIS_HOOKS", "hooks")
        .env("PYTHONPATH", &files)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("AUTHORIZED_PAYMENTS", prepare(&world, "manual").await?)
        .env("CAPTURED_PAYMENTS", prepare(&world, "automatic").await?)
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("it takes too long")??;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));

    let report: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    let cases = report["test_cases"]["generated"].as_u64().context("no number of cases")?;
    say(&format!("schemathesis: {cases} cases; checks: {}", CHECKS.join(", ")));
    ensure!(cases >= LEAST, "only {cases} cases\n{text}");
    ensure!(report["complete"] == true && report["test_cases"]["unique_failures"] == 0, "{text}");
    for phase in ["examples", "coverage", "fuzzing", "stateful"] {
        ensure!(report["phases"][phase]["status"] == "success", "{phase}\n{text}");
    }
    ensure!(report["operations"]["total"] == report["operations"]["tested"], "{text}");
    // a document whose right requests are all refused would pass every other check
    let accepted = |phases: &Value| -> u64 {
        let phases = phases.as_object().into_iter().flatten();
        phases.filter_map(|(_, counts)| counts["accepted"].as_u64()).sum()
    };
    for (operation, phases) in report["valid_rates"].as_object().context("no rates")? {
        ensure!(accepted(phases) > 0, "{operation}: nothing was accepted\n{text}");
    }
    world.finish().await
}
