//! Starting, being ready, stopping; and walking through what is there.

use crate::support::{
    PAYMENTS, SOON, Wire, address, assert_problem, count, id, program, provider_was_asked, run, run_json,
    seconds, text,
};
use anyhow::{Context, Result};
use devstack::port::Port;
use e2e::{Answer, World, WorldOptions, eventually, payment};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// What `/livez` and `/readyz` say on both listeners: they say the same.
async fn health(world: &World, service: usize) -> Result<(u16, u16, Value)> {
    let mut seen = Vec::new();
    for url in [world.stack.api_url(service)?, world.stack.ops_url(service)?] {
        let ask = async |path| world.api.send(world.api.http.get(format!("{url}{path}"))).await;
        let (live, ready) = (ask("/livez").await?, ask("/readyz").await?);
        seen.push((live.status, ready.status, ready.json()));
    }
    assert_eq!(seen[0], seen[1]);
    Ok(seen.swap_remove(0))
}

async fn healthcheck(world: &World) -> Result<Option<i32>> {
    let listen = [("PAYWRIGHT_OPS_LISTEN", address(world.stack.ops_url(0)?))];
    Ok(run(world, &["healthcheck"], &listen).await?.status.code())
}

#[tokio::test]
async fn a_service_is_unready_while_its_schema_is_another() -> Result<()> {
    let mut world = World::start().await?;
    let ready = json!({
        "status": "ready", "checks": { "database": "ok", "migrations": "ok", "draining": "ok" },
    });
    assert_eq!(health(&world, 0).await?, (200, 200, ready.clone()));
    assert_eq!(healthcheck(&world).await?, Some(0));

    let owner = world.stack.owner_url().to_owned();
    let migrate = async |direction| -> Result<()> {
        let output =
            run(&world, &["migrate", direction], &[("PAYWRIGHT_MIGRATION_DATABASE_URL", &owner)]).await?;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    };
    migrate("down").await?;
    let (live, status, body) = health(&world, 0).await?;
    assert_eq!((live, status, &body["status"]), (200, 503, &json!("unready")));
    assert_eq!((&body["checks"]["database"], &body["checks"]["draining"]), (&json!("ok"), &json!("ok")));
    assert_ne!(body["checks"]["migrations"], "ok");
    assert_eq!(healthcheck(&world).await?, Some(1));
    migrate("up").await?;
    assert_eq!(health(&world, 0).await?, (200, 200, ready.clone()));
    assert_eq!(healthcheck(&world).await?, Some(0));
    assert_eq!(world.api.create("key", &payment("order-1")).await?.status, 201);

    world.stack.simulator()?.kill().await?;
    assert_eq!(health(&world, 0).await?, (200, 200, ready), "the provider alone changes nothing");
    world.stop().await
}

#[tokio::test]
async fn a_service_starts_without_its_database_and_is_ready_when_it_is_there() -> Result<()> {
    let world = World::start().await?;
    // where the database will be once somebody listens
    let door = Port::free()?;
    let (public, operations) = (Port::free()?, Port::free()?);
    let service = world.stack.service_env()?["DATABASE_URL"].clone();
    let authority = service.split('@').nth(1).and_then(|rest| rest.split('/').next()).context("a host")?;
    let local = |port: &Port| format!("127.0.0.1:{}", port.number());
    let mut settings = world.stack.service_env()?;
    settings.extend([
        ("DATABASE_URL".to_owned(), service.replace(authority, &local(&door))),
        ("PAYWRIGHT_LISTEN".to_owned(), local(&public)),
        ("PAYWRIGHT_OPS_LISTEN".to_owned(), local(&operations)),
    ]);
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut command = program(&["serve"], settings).await?;
    let mut process = command.stderr(std::process::Stdio::null()).spawn()?;

    let api = world.api.at(&format!("http://{}", local(&public)));
    let status = async |path: &str| api.get(path).await.map_or(0, |answer| answer.status);
    eventually(SOON, "it lives", async || Ok(status("/livez").await == 200)).await?;
    let unready = api.get("/readyz").await?;
    assert_eq!((unready.status, unready.json()["status"].as_str()), (503, Some("unready")));
    assert_ne!(unready.json()["checks"]["database"], "ok");
    let refused = api.create("key", &payment("order-1")).await?;
    assert_problem(&refused, 503, "unavailable");
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    assert!(process.try_wait()?.is_none(), "it waits");

    let listener = TcpListener::bind(local(&door)).await?;
    let database = authority.to_owned();
    let through = tokio::spawn(async move {
        while let Ok((mut inside, _)) = listener.accept().await {
            let database = database.clone();
            tokio::spawn(async move {
                let mut outside = TcpStream::connect(database).await?;
                copy_bidirectional(&mut inside, &mut outside).await
            });
        }
    });
    eventually(SOON, "it is ready", async || Ok(status("/readyz").await == 200)).await?;
    assert_eq!(api.create("key", &payment("order-1")).await?.status, 201);
    process.kill().await?;
    through.abort();
    world.finish().await
}

#[tokio::test]
async fn a_service_that_stops_answers_what_it_has_begun() -> Result<()> {
    const GRACE: Duration = Duration::from_secs(2);
    let mut world = WorldOptions::default()
        .set("PAYWRIGHT_SHUTDOWN_GRACE", "2s")
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "10s")
        .set("PAYWRIGHT_LEASE", "16s")
        .start()
        .await?;
    world.simulator.create_fault("delay", Some(1), 5000).await?;
    let mut wire = Wire::to(&world.api.url).await?;
    wire.send(crate::support::post(&world.api, "key", &payment("order-1").to_string()).as_bytes()).await?;
    provider_was_asked(&world, 1).await?;
    // connections that are open when the end begins
    let mut during = Vec::new();
    for _ in 0..2 {
        let mut open = Wire::to(&world.api.url).await?;
        open.send(read(&world).as_bytes()).await?;
        let answer = open.read().await?;
        assert_eq!((answer.status, answer.header("connection")), (200, ""));
        during.push(open);
    }
    world.stack.service(0)?.terminate()?;
    let terminated = Instant::now();

    // first it is unready, and serves
    eventually(GRACE, "unready", async || {
        let (live, ready, body) = health(&world, 0).await?;
        Ok(live == 200 && ready == 503 && body["checks"]["draining"] != "ok")
    })
    .await?;
    during[0].send(read(&world).as_bytes()).await?;
    let answer = during[0].read().await?;
    assert!(terminated.elapsed() < GRACE, "too slow to see the grace: {:?}", terminated.elapsed());
    assert_eq!((answer.status, answer.header("connection")), (200, "close"));
    assert!(during[0].is_at_its_end().await?);
    // then it refuses what is new, also on connections that were open
    let mut refused: Option<Answer> = None;
    eventually(SOON, "it refuses what is new", async || {
        refused = Some(world.api.get(PAYMENTS).await?);
        Ok(refused.as_ref().is_some_and(|answer| answer.status == 503))
    })
    .await?;
    let refused = refused.expect("an answer");
    assert_problem(&refused, 503, "draining");
    assert_eq!(refused.header("connection"), "close");
    assert!(refused.header("retry-after").parse::<u32>().is_ok());
    during[1].send(read(&world).as_bytes()).await?;
    let answer = during[1].read().await?;
    assert_eq!((answer.status, answer.header("connection")), (503, "close"));
    assert_eq!(answer.json()["code"], "draining");

    // and what was begun is answered
    let answer = wire.read().await?;
    assert_eq!((answer.status, answer.header("connection")), (201, "close"));
    assert_eq!(answer.json()["status"], "captured");
    assert_eq!(world.stack.service(0)?.wait(SOON).await?.code(), Some(0));
    world.finish().await
}

fn read(world: &World) -> String {
    let (host, key) = (address(&world.api.url), &world.api.key);
    format!("GET {PAYMENTS} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n")
}

#[tokio::test]
async fn what_a_stopping_service_cannot_finish_another_does_without_waiting_for_its_lease() -> Result<()> {
    const LEASE: u64 = 30;
    let mut world = WorldOptions::default()
        .instances(2)
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "20s")
        .set("PAYWRIGHT_LEASE", "30s")
        .set("PAYWRIGHT_SHUTDOWN_TIMEOUT", "3s")
        .start()
        .await?;
    world.simulator.create_fault("hang_before", Some(1), 60_000).await?;
    let waiting = tokio::spawn({
        let api = world.api.clone();
        async move { api.create("key", &payment("order-1")).await }
    });
    provider_was_asked(&world, 1).await?;
    let began = Instant::now();
    world.stack.service(0)?.terminate()?;
    assert_eq!(world.stack.service(0)?.wait(SOON).await?.code(), Some(0));
    let accepted = waiting.await??;
    assert_eq!((accepted.status, accepted.header("connection")), (202, "close"), "{}", accepted.json());

    let survivor = world.api_of(1)?;
    eventually(seconds(LEASE), "settled", async || {
        Ok(survivor.get(accepted.header("location")).await?.json()["status"] == "captured")
    })
    .await?;
    assert!(began.elapsed() < seconds(LEASE / 2), "{:?}", began.elapsed());
    assert_eq!(
        count(&world, "SELECT attempts::bigint FROM operations").await?,
        0,
        "handing back is no attempt"
    );
    world.finish().await
}

/// Settings with which a service would start, if it could bind and connect.
const SETTINGS: [(&str, &str); 5] = [
    ("DATABASE_URL", "postgres://someone:geheim@127.0.0.1:1/payments"),
    ("PAYWRIGHT_PROVIDER_URL", "http://127.0.0.1:1"),
    ("PAYWRIGHT_PROVIDER_API_KEY", "sk_test_geheim"),
    ("PAYWRIGHT_LISTEN", "127.0.0.1:0"),
    ("PAYWRIGHT_OPS_LISTEN", "127.0.0.1:0"),
];

#[tokio::test]
async fn a_wrong_setting_stops_the_start_with_one_line_that_names_it() -> Result<()> {
    // `None` takes the setting away
    let table: [(&str, Option<&str>); 29] = [
        ("DATABASE_URL", None),
        ("DATABASE_URL", Some("mysql://someone:geheim@127.0.0.1/payments")),
        ("DATABASE_URL", Some("geheim")),
        ("DATABASE_URL", Some("postgres://someone:geheim@db.example/payments?sslmode=require")),
        ("PAYWRIGHT_PROVIDER_URL", None),
        ("PAYWRIGHT_PROVIDER_URL", Some("http://api.stripe.com")),
        ("PAYWRIGHT_PROVIDER_URL", Some("https://api.stripe.com/v1")),
        ("PAYWRIGHT_PROVIDER_API_KEY", None),
        ("PAYWRIGHT_PROVIDER_API_KEY", Some("")),
        ("PAYWRIGHT_PROVIDER_API_KEY", Some("sk test geheim")),
        ("PAYWRIGHT_PROVIDER_TIMEOUT", Some("5")),
        ("PAYWRIGHT_PROVIDER_TIMEOUT", Some("0s")),
        ("PAYWRIGHT_LISTEN", Some("8080")),
        ("PAYWRIGHT_OPS_LISTEN", Some("localhost:http")),
        ("PAYWRIGHT_SYNC_WAIT", Some("-1s")),
        ("PAYWRIGHT_REQUEST_TIMEOUT", Some("10 s")),
        ("PAYWRIGHT_LEASE", Some("10s")),
        ("PAYWRIGHT_LEASE", Some("1d")),
        ("PAYWRIGHT_CHARGE_WINDOW", Some("23h1m")),
        ("PAYWRIGHT_CHARGE_WINDOW", Some("24h")),
        ("PAYWRIGHT_PROVIDER_KEY_RETENTION", Some("soon")),
        ("PAYWRIGHT_ACTION_WINDOW", Some("")),
        ("PAYWRIGHT_IDEMPOTENCY_TTL", Some("99999999999999999999h")),
        ("PAYWRIGHT_DATABASE_CONNECTIONS", Some("0")),
        ("PAYWRIGHT_MAX_IN_FLIGHT", Some("many")),
        ("PAYWRIGHT_MAX_CONNECTIONS", Some("0")),
        ("PAYWRIGHT_RATE_LIMIT", Some("-1")),
        ("PAYWRIGHT_SHUTDOWN_TIMEOUT", Some("1.5s")),
        ("PAYWRIGHT_LOG_FORMAT", Some("xml")),
    ];
    for (name, value) in table {
        let others = SETTINGS.into_iter().filter(|(other, _)| *other != name);
        let output =
            program(&["serve"], others.chain(value.map(|value| (name, value)))).await?.output().await?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{name}={value:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        assert!(stderr.contains(&format!("{name} ")), "{name}={value:?}: {stderr}");
        assert!(stderr.contains(&format!("{name}=")), "an example: {stderr}");
        assert!(!stderr.contains("geheim"), "a secret: {stderr}");
        assert_eq!(output.stdout, b"");
    }
    Ok(())
}

#[tokio::test]
async fn a_taken_port_stops_the_start_and_a_healthcheck_needs_somebody_there() -> Result<()> {
    for name in ["PAYWRIGHT_LISTEN", "PAYWRIGHT_OPS_LISTEN"] {
        let taken = TcpListener::bind("127.0.0.1:0").await?;
        let taken_address = taken.local_addr()?.to_string();
        let others = SETTINGS.into_iter().filter(|(other, _)| *other != name);
        let settings = others.chain([(name, taken_address.as_str())]);
        let output = program(&["serve"], settings).await?.output().await?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(name) && stderr.contains(&taken_address), "{stderr}");
    }
    let nobody = Port::free()?;
    let nobody = format!("127.0.0.1:{}", nobody.number());
    let output =
        program(&["healthcheck"], [("PAYWRIGHT_OPS_LISTEN", nobody.as_str())]).await?.output().await?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains(&nobody));
    Ok(())
}

#[tokio::test]
async fn a_secret_may_come_from_a_file() -> Result<()> {
    let world = World::start().await?;
    let secret = tempfile::NamedTempFile::new()?;
    std::fs::write(&secret, format!("{}\n", world.stack.service_env()?["DATABASE_URL"]))?;
    let path = secret.path().to_str().context("a path")?;
    let mut settings = world.stack.service_env()?;
    settings.remove("DATABASE_URL");
    settings.insert("DATABASE_URL_FILE".to_owned(), path.to_owned());
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let output = program(&["merchant", "create", "From a file", "--json"], settings).await?.output().await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.finish().await
}

#[tokio::test]
async fn a_merchant_and_its_keys_are_made_in_one_line_each() -> Result<()> {
    let world = World::start().await?;
    let output = run(&world, &["merchant", "create", "Tea Shop", "--json"], &[]).await?;
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let stdout = String::from_utf8(output.stdout)?;
    assert!(stdout.ends_with('\n') && stdout.lines().count() == 1, "{stdout:?}");
    let created: Value = serde_json::from_str(&stdout)?;
    let names: HashSet<&str> = created.as_object().context("an object")?.keys().map(String::as_str).collect();
    assert_eq!(names, HashSet::from(["merchant_id", "key_id", "api_key"]));
    let (merchant, key) = (text(&created["merchant_id"]), text(&created["api_key"]));
    let api = e2e::Api { key, ..world.api.clone() };
    assert_eq!(api.create("key", &payment("order-1")).await?.status, 201);

    let second = run_json(&world, &["key", "create", &merchant, "--scope", "read", "--json"]).await?;
    assert_eq!(second["merchant_id"], merchant.as_str());
    let reader = e2e::Api { key: text(&second["api_key"]), ..world.api.clone() };
    assert_eq!(reader.get(PAYMENTS).await?.json()["data"].as_array().map(Vec::len), Some(1));
    let keys = run_json(&world, &["key", "list", &merchant, "--json"]).await?;
    let listed: HashSet<String> =
        keys.as_array().into_iter().flatten().map(|key| text(&key["key_id"])).collect();
    assert_eq!(listed, HashSet::from([text(&created["key_id"]), text(&second["key_id"])]));
    let shown = keys.to_string();
    assert!(!shown.contains(&text(&created["api_key"])), "a key is shown once");

    let nobody =
        run(&world, &["key", "create", "0190a1b2-0000-7000-8000-000000000000", "--json"], &[]).await?;
    assert_eq!((nobody.status.code(), nobody.stdout.len()), (Some(1), 0));
    let nameless = run(&world, &["merchant", "create", "", "--json"], &[]).await?;
    assert_eq!((nameless.status.code(), nameless.stdout.len()), (Some(2), 0));
    world.finish().await
}

async fn list(world: &World, query: &[(&str, &str)]) -> Result<Answer> {
    world.api.send(world.api.request(Method::GET, PAYMENTS).query(query)).await
}

/// The ids of a page, in order.
fn ids(page: &Answer) -> Vec<String> {
    page.json()["data"].as_array().into_iter().flatten().map(|payment| text(&payment["id"])).collect()
}

#[tokio::test]
async fn a_walk_shows_every_payment_once_while_new_ones_come() -> Result<()> {
    let world = World::start().await?;
    assert_eq!(list(&world, &[]).await?.json(), json!({ "data": [], "next_cursor": null }));
    let mut before = Vec::new();
    for at in 0..11 {
        before.push(id(&world.api.create(&format!("key-{at}"), &payment(&format!("order-{at}"))).await?));
    }
    before.reverse();
    assert_eq!(ids(&list(&world, &[]).await?), before, "newest first");

    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    for page in 0.. {
        let mut query = vec![("limit", "3")];
        if let Some(cursor) = &cursor {
            query.push(("cursor", cursor));
        }
        let answer = list(&world, &query).await?;
        assert_eq!(answer.status, 200);
        assert!(ids(&answer).len() == 3 || answer.json()["next_cursor"].is_null());
        seen.extend(ids(&answer));
        // somebody creates one between any two pages
        let new = format!("new-{page}");
        assert_eq!(world.api.create(&new, &payment(&new)).await?.status, 201);
        cursor = answer.json()["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, before);
    // a page that is exactly full has no next
    let full = list(&world, &[("limit", "15")]).await?;
    assert_eq!((ids(&full).len(), &full.json()["next_cursor"]), (15, &Value::Null));
    world.finish().await
}

#[tokio::test]
async fn a_list_is_narrowed_by_its_filters() -> Result<()> {
    let world = World::start().await?;
    let create = async |reference: &str, changes: Value| -> Result<Value> {
        let mut body = payment(reference);
        body.as_object_mut().context("an object")?.extend(changes.as_object().context("an object")?.clone());
        let answer = world.api.create(reference, &body).await?.json();
        Ok(if answer["payment"].is_object() { answer["payment"].clone() } else { answer })
    };
    let captured = create("captured", json!({})).await?;
    let failed = create("failed", json!({ "payment_method": "pm_card_chargeDeclined" })).await?;
    let authorized = create("authorized", json!({ "capture": "manual" })).await?;
    let accepted = async |reference| {
        let mut body = payment(reference);
        body["payment_method"] = json!("pm_card_processing");
        world.api.create_preferring(reference, &body, Some("respond-async")).await
    };
    let processing = accepted("processing").await?.json();
    let all = [&processing, &authorized, &failed, &captured].map(|payment| text(&payment["id"]));
    let [open_id, authorized_id, failed_id, captured_id] = &all;
    let some = async |query: &[(&str, &str)]| -> Result<Vec<String>> {
        let answer = list(&world, query).await?;
        assert_eq!(answer.status, 200, "{query:?}: {}", answer.json());
        Ok(ids(&answer))
    };
    assert_eq!(some(&[]).await?, all);
    assert_eq!(some(&[("status", "captured")]).await?, [captured_id.as_str()]);
    let two = [("status", "failed"), ("status", "authorized")];
    assert_eq!(some(&two).await?, [authorized_id.as_str(), failed_id.as_str()]);
    assert_eq!(some(&[("status", "canceled")]).await?, [""; 0]);
    assert_eq!(some(&[("open", "true")]).await?, [open_id.as_str()]);
    assert_eq!(some(&[("open", "false")]).await?, all);
    assert_eq!(some(&[("open", "true"), ("status", "captured")]).await?, [""; 0]);
    assert_eq!(some(&[("reference", "failed")]).await?, [failed_id.as_str()]);
    assert_eq!(some(&[("reference", "nobody's")]).await?, [""; 0]);

    // from is inclusive, to is exclusive, to the microsecond
    let at = text(&authorized["created_at"]);
    assert_eq!(some(&[("created_from", &at)]).await?, all[..2]);
    assert_eq!(some(&[("created_to", &at)]).await?, all[2..]);
    let next = sqlx::query_scalar::<_, String>(
        "SELECT to_char(created_at AT TIME ZONE 'UTC' + interval '1 microsecond', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')
         FROM payments WHERE reference = 'authorized'",
    );
    let next = next.fetch_one(&world.pool).await?;
    assert_eq!(some(&[("created_from", &at), ("created_to", &next)]).await?, [authorized_id.as_str()]);
    assert_eq!(some(&[("created_from", &at), ("created_to", &at)]).await?, [""; 0]);
    assert_eq!(some(&[("created_from", "2999-01-01T00:00:00+01:00")]).await?, [""; 0]);
    provider_ends(&world, &text(&processing["id"])).await?;
    world.finish().await
}

/// So that nothing stays open.
async fn provider_ends(world: &World, payment: &str) -> Result<()> {
    let mut intents = Vec::new();
    eventually(SOON, "the provider has it", async || {
        intents = world.simulator.intents_of(payment).await?;
        Ok(!intents.is_empty())
    })
    .await?;
    world.simulator.complete(&intents[0].0, "succeed").await
}

#[tokio::test]
async fn a_list_refuses_parameters_it_does_not_know() -> Result<()> {
    let world = World::start().await?;
    for at in 0..2 {
        assert_eq!(world.api.create(&format!("key-{at}"), &payment(&format!("{at}"))).await?.status, 201);
    }
    let page = list(&world, &[("limit", "1")]).await?;
    let cursor = text(&page.json()["next_cursor"]);
    assert_eq!(list(&world, &[("limit", "2"), ("cursor", &cursor)]).await?.status, 200, "limit is no filter");
    let table: [(&[(&str, &str)], &str); 21] = [
        (&[("Limit", "1")], "Limit"),
        (&[("page", "2")], "page"),
        (&[("limit", "0")], "limit"),
        (&[("limit", "101")], "limit"),
        (&[("limit", "-1")], "limit"),
        (&[("limit", "")], "limit"),
        (&[("limit", "ten")], "limit"),
        (&[("limit", "1"), ("limit", "1")], "limit"),
        (&[("status", "paid")], "status"),
        (&[("status", "captured"), ("status", "")], "status"),
        (&[("open", "1")], "open"),
        (&[("open", "true"), ("open", "true")], "open"),
        (&[("reference", "a"), ("reference", "b")], "reference"),
        (&[("created_from", "yesterday")], "created_from"),
        (&[("created_from", "2026-01-01")], "created_from"),
        (&[("created_to", "2026-01-01T00:00:00")], "created_to"),
        (&[("created_to", "2026-02-30T00:00:00Z")], "created_to"),
        (&[("cursor", "")], "cursor"),
        (&[("cursor", "nonsense")], "cursor"),
        (&[("cursor", &cursor), ("cursor", &cursor)], "cursor"),
        // a cursor of other filters
        (&[("cursor", &cursor), ("status", "captured")], "cursor"),
    ];
    for (query, parameter) in table {
        let answer = list(&world, query).await?;
        assert_eq!(answer.status, 422, "{query:?}");
        assert_problem(&answer, 422, "validation_failed");
        let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
        assert!(errors.iter().all(|error| error["parameter"] == parameter), "{query:?}: {errors:?}");
        assert!(!errors.is_empty());
    }
    let many = list(&world, &[("limit", "x"), ("open", "x"), ("what", "x")]).await?;
    assert_eq!(many.errors().into_keys().collect::<Vec<_>>(), ["limit", "open", "what"], "all at once");
    world.finish().await
}
