//! A provider that is down: nobody waits for it, it is left alone, and what was accepted is carried out when it is back. The
//! drill `outage` does the same for ten minutes, with nothing else on the machine.

use crate::metrics::value;
use crate::support::{SOON, once, program, provider_was_asked, seconds};
use anyhow::Result;
use devstack::Fault;
use e2e::{Api, Outage, World, WorldOptions, eventually, payment};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;
use uuid::Uuid;

fn options() -> WorldOptions {
    WorldOptions::default().provider_proxy()
}

#[tokio::test]
async fn callers_go_on_while_the_provider_is_down() -> Result<()> {
    let world = options().start().await?;
    let outage = Outage {
        fault: Fault::Refuse,
        noticed_after: Duration::ZERO,
        lasting: seconds(12),
        before: seconds(6),
        creates: 20.0,
        reads: 50.0,
        alone: false,
    };
    let figures = outage.happen(&world).await?;
    println!("{figures}");
    figures.verdict()?;
    world.finish().await
}

/// Asks for payments until the breaker is open.
async fn opened(world: &World, api: &Api, ops: &str) -> Result<()> {
    world.stack.provider_proxy()?.set(Fault::Refuse).await?;
    eventually(SOON, "the breaker is open", async || {
        let key = Uuid::new_v4().to_string();
        api.create_preferring(&key, &payment(&key), Some("respond-async")).await?;
        Ok(breaker(&scrape(world, ops).await?, "closed") == Some(0.0))
    })
    .await
}

/// The text of `/metrics` of the operations listener at a URL.
async fn scrape(world: &World, ops: &str) -> Result<String> {
    let answer = world.api.send(world.api.http.get(format!("{ops}/metrics"))).await?;
    Ok(String::from_utf8(answer.body)?)
}

fn breaker(text: &str, state: &str) -> Option<f64> {
    value(text, "payments_provider_breaker", &[("payments_provider_breaker_state", state)])
}

#[tokio::test]
async fn what_the_breaker_does_is_told() -> Result<()> {
    let world = options().start().await?;
    let text = scrape(&world, world.stack.ops_url(0)?).await?;
    assert_eq!(breaker(&text, "closed"), Some(1.0), "{text}");
    assert_eq!((breaker(&text, "open"), breaker(&text, "half_open")), (Some(0.0), Some(0.0)));
    opened(&world, &world.api, world.stack.ops_url(0)?).await?;
    assert_eq!(world.api.create("refused", &payment("refused")).await?.status, 202);
    let text = scrape(&world, world.stack.ops_url(0)?).await?;
    let refused = |lane| {
        let labels = [("payments_provider_lane", lane), ("payments_provider_refusal", "breaker_open")];
        value(&text, "payments_provider_refused_total", &labels)
    };
    assert!(refused("callers") >= Some(1.0), "{text}");
    assert_eq!(world.api.get("/readyz").await?.status, 200, "the service itself is well");

    world.stack.provider_proxy()?.set(Fault::Pass).await?;
    world.at_rest(SOON).await?;
    let text = scrape(&world, world.stack.ops_url(0)?).await?;
    assert_eq!(breaker(&text, "closed"), Some(1.0));
    let log = world.log(0)?;
    for line in ["the provider is down", "the provider is there again"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
    world.finish().await
}

/// What nobody could send was no attempt: nothing of it has to wait for a pause that grew meanwhile.
#[tokio::test]
async fn what_is_not_sent_is_no_attempt() -> Result<()> {
    let world = options().start().await?;
    opened(&world, &world.api, world.stack.ops_url(0)?).await?;
    for at in 0..5 {
        let key = format!("key-{at}");
        assert_eq!(world.api.create(&key, &payment(&key)).await?.status, 202);
    }
    world.stack.provider_proxy()?.set(Fault::Pass).await?;
    world.at_rest(SOON).await?;
    let untried = "SELECT count(*) FROM operations WHERE idempotency_key LIKE 'key-%' AND attempts = 0";
    let untried: i64 = sqlx::query_scalar(untried).fetch_one(&world.pool).await?;
    // the oldest is the probe, again and again, and none of these is
    assert!(untried >= 4, "{untried} of 5");
    world.finish().await
}

#[tokio::test]
async fn who_finds_no_place_is_answered_at_once_and_the_worker_goes_on() -> Result<()> {
    const PLACES: usize = 4;
    let world = options().set("PAYWRIGHT_MAX_IN_FLIGHT", &PLACES.to_string()).start().await?;
    world.simulator.create_fault("delay", Some(PLACES.try_into()?), 3000).await?;
    let waiting = (0..PLACES).map(|at| {
        let (api, key) = (world.api.clone(), format!("waiting-{at}"));
        tokio::spawn(async move { api.create(&key, &payment(&key)).await })
    });
    let waiting: Vec<_> = waiting.collect();
    provider_was_asked(&world, PLACES.try_into()?).await?;
    let answer = world.api.create("one-more", &payment("one-more")).await?;
    assert_eq!(answer.status, 202, "{}", answer.json());
    assert!(waiting.iter().all(|one| !one.is_finished()), "it did not wait for a place");
    // the worker has places of its own
    once(&world.api, answer.header("location"), |payment| payment["status"] == "captured").await?;
    for one in waiting {
        assert_eq!(one.await??.status, 201);
    }
    let text = scrape(&world, world.stack.ops_url(0)?).await?;
    let full = [("payments_provider_lane", "callers"), ("payments_provider_refusal", "bulkhead_full")];
    assert_eq!(value(&text, "payments_provider_refused_total", &full), Some(1.0));
    world.finish().await
}

#[tokio::test]
async fn a_process_without_a_worker_finds_the_provider_back() -> Result<()> {
    let world = options().start().await?;
    let [listen, ops] = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?]
        .map(|socket| socket.local_addr().map(|address| address.to_string()));
    let (listen, ops) = (listen?, ops?);
    let settings = world.stack.service_env()?;
    let settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let settings = settings.chain([("PAYWRIGHT_LISTEN", &*listen), ("PAYWRIGHT_OPS_LISTEN", &*ops)]);
    let mut command = program(&["serve", "--no-worker"], settings).await?;
    let _idle = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let (api, ops) = (world.api.at(&format!("http://{listen}")), format!("http://{ops}"));
    eventually(SOON, "it answers", async || Ok(api.get("/livez").await.is_ok())).await?;

    opened(&world, &api, &ops).await?;
    world.stack.provider_proxy()?.set(Fault::Pass).await?;
    eventually(SOON, "the breaker is closed", async || {
        Ok(breaker(&scrape(&world, &ops).await?, "closed") == Some(1.0))
    })
    .await?;
    assert_eq!(api.create("key", &payment("order-1")).await?.status, 201);
    world.finish().await
}
