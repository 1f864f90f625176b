//! Services that are killed under load while the provider loses answers. `make proof` runs the same for longer.

use crate::support::{SOON, assert_problem, captured, held};
use anyhow::{Context, Result};
use e2e::{Crash, Planted, Profile, SPARED, Storm, WorldOptions, eventually};
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[tokio::test]
async fn what_the_killed_left_is_finished_by_the_living() -> Result<()> {
    let storm = Storm {
        services_killed: 5,
        postgres_killed: 0,
        provider_killed: 1,
        rate: 15.0,
        open: 5,
        services: 2,
        ..Storm::default()
    };
    let mut world = storm.world(Profile::Debug).start().await?;
    storm.blow(&mut world).await?.figures().verdict()?;
    world.finish().await
}

/// A service is killed after the provider executed and before it could answer; another finishes what it had begun.
async fn is_finished_by_another(verb: &str, endpoint: &str, counted: &str, status: u16) -> Result<()> {
    let mut world = WorldOptions::default()
        .instances(2)
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "2s")
        .set("PAYWRIGHT_LEASE", "7500ms")
        .start()
        .await?;
    let payment = match verb {
        "refunds" => captured(&world.api, "order-1").await?,
        _ => held(&world.api, "order-1").await?,
    };
    let path = format!("{payment}/{verb}");
    world.simulator.fault(endpoint, "hang_after", Some(1), 60_000).await?;
    let first = tokio::spawn({
        let (api, path) = (world.api.clone(), path.clone());
        async move { api.post(&path, "key", &json!({})).await }
    });
    eventually(SOON, "the provider was asked", async || Ok(world.simulator.calls(counted).await? > 0))
        .await?;
    world.stack.service(0)?.kill().await?;
    assert!(first.await?.is_err(), "the caller gets no answer");
    let survivor = world.api_of(1)?;
    assert_problem(&survivor.post(&path, "key", &json!({})).await?, 409, "request_in_progress");
    let mut answer = None;
    eventually(SOON, "it has ended", async || {
        let asked = survivor.post(&path, "key", &json!({})).await?;
        Ok(answer.insert(asked).status == status)
    })
    .await?;
    let first_answer = answer.map(|answer| answer.body);
    assert_eq!(Some(survivor.post(&path, "key", &json!({})).await?.body), first_answer);
    // one effect and a whole trail, by the audit
    world.finish().await
}

#[tokio::test]
async fn a_capture_of_the_killed_is_finished_by_another() -> Result<()> {
    let counted = "POST /v1/payment_intents/{id}/capture";
    is_finished_by_another("capture", "POST /v1/payment_intents/*/capture", counted, 200).await
}

#[tokio::test]
async fn a_cancel_of_the_killed_is_finished_by_another() -> Result<()> {
    let counted = "POST /v1/payment_intents/{id}/cancel";
    is_finished_by_another("cancel", "POST /v1/payment_intents/*/cancel", counted, 200).await
}

#[tokio::test]
async fn a_refund_of_the_killed_is_finished_by_another() -> Result<()> {
    is_finished_by_another("refunds", "POST /v1/refunds", "POST /v1/refunds", 201).await
}

/// The sources of a package.
fn sources(package: &str) -> Result<Vec<(PathBuf, String)>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(package).join("src");
    let files = std::fs::read_dir(&directory)?.map(|entry| Ok(entry?.path()));
    let files = files.filter(|path: &Result<PathBuf>| path.as_ref().is_ok_and(|path| path.is_file()));
    files.map(|path| path.and_then(|path| Ok((path.clone(), std::fs::read_to_string(&path)?)))).collect()
}

/// The names of statements, of which the points before and after them are made.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.split(".traced(\"").skip(1).filter_map(|rest| rest.split('"').next())
}

#[test]
fn every_statement_and_call_that_changes_something_is_a_point_to_die_at() -> Result<()> {
    /// What only reads.
    const READ: [&str; 4] = ["find ", "list ", "read ", "count "];
    /// Statements without a point: what is due is read, what is swept is forgotten, and the rest is done by hand.
    const WITHOUT: [&str; 8] = [
        "due_operations",
        "backlog",
        "sweep_operations",
        "last_reconciliation",
        "merchants.rs",
        "migrate.rs",
        "planted.rs",
        "lib.rs",
    ];
    let mut changes = BTreeSet::new();
    for (path, text) in sources("persistence")? {
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        changes.extend(
            statements(&text)
                .filter(|name| READ.iter().all(|verb| !name.starts_with(verb)))
                .map(str::to_owned),
        );
        if WITHOUT.contains(&name) {
            continue;
        }
        // each method, by its name
        for method in text.split("async fn ").skip(1) {
            let method_name = method.split(['(', '<']).next().unwrap_or_default();
            let sent = method.matches("pool)").count();
            let traced = statements(method).count();
            assert!(
                sent == traced || WITHOUT.contains(&method_name),
                "{name}: {method_name} has a statement without a point"
            );
        }
    }
    // every POST to the provider has a path of its own, which is its point
    let provider = sources("provider")?;
    let paths = provider.iter().flat_map(|(_, text)| text.split("\"/v1/").skip(1));
    let died_at: Vec<&str> = Crash::all().iter().map(|crash| crash.point).collect();
    let posts = paths.filter_map(|rest| rest.split('"').next()).map(|path| format!("/v1/{path}"));
    let read_only = ["/v1/payment_intents/{id}", "/v1/refunds/{id}"];
    for path in posts.filter(|path| !read_only.contains(&path.as_str())) {
        assert!(
            died_at.contains(&path.as_str()),
            "nobody dies at {path}: add it to tests/harness/crashes.rs"
        );
    }
    let died: BTreeSet<String> = Crash::all().into_iter().map(|crash| crash.point.to_owned()).collect();
    let spared: BTreeSet<String> = SPARED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let missing: Vec<_> = changes.difference(&died).filter(|name| !spared.contains(*name)).collect();
    assert!(missing.is_empty(), "nobody dies at {missing:?}: add them to tests/harness/crashes.rs");
    let gone: Vec<_> = spared.difference(&changes).collect();
    assert!(gone.is_empty(), "{gone:?} are no more");
    Ok(())
}

#[test]
fn every_bug_of_the_catalogue_is_planted() -> Result<()> {
    let catalogue = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/domain/src/faults.rs"),
    )?;
    let names = catalogue.split("pub const fn name").nth(1).and_then(|rest| rest.split("\n    }\n").next());
    let names = names.context("the names")?.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
    for name in names {
        assert!(Planted::ALL.iter().any(|bug| bug.name == name), "{name} is not planted by any run");
    }
    Ok(())
}
