//! Other people's implementations of the protocol, on both sides: localstripe as the provider, and Stripe's own client
//! library against the simulator. Both are Python, and optional.

use crate::support::{assert_problem, captured, held, once, python_with, text};
use anyhow::{Result, ensure};
use devstack::port::Port;
use e2e::{World, WorldOptions, eventually, payment};
use serde_json::json;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(60);

fn script(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop").join(name)
}

#[tokio::test]
async fn another_implementation_of_the_provider_is_understood() -> Result<()> {
    let Some(python) = python_with("localstripe")? else { return Ok(()) };
    let port = Port::free()?;
    let url = format!("http://127.0.0.1:{}", port.number());
    let mut provider = Command::new(python)
        .arg(script("other_provider.py"))
        .arg(port.number().to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let http = reqwest::Client::builder().tls_certs_only([]).build()?;
    let intents = format!("{url}/v1/payment_intents");
    eventually(PATIENCE, "localstripe answers", async || {
        let asked = http.get(&intents).bearer_auth("sk_test_devstack").send().await;
        Ok(asked.is_ok_and(|answer| answer.status().is_success()))
    })
    .await?;

    let world = WorldOptions::default().provider(&url).start().await?;
    let api = &world.api;
    let paid = captured(api, "paid").await?;
    let whole = held(api, "whole").await?;
    let answer = api.post(&format!("{whole}/capture"), "whole-capture", &json!({})).await?;
    assert_eq!((answer.status, &answer.json()["amount_captured"]), (200, &json!(1999)), "{}", answer.json());
    let part = held(api, "part").await?;
    let answer = api.post(&format!("{part}/capture"), "part-capture", &json!({ "amount": 1500 })).await?;
    assert_eq!((answer.status, &answer.json()["amount_captured"]), (200, &json!(1500)), "{}", answer.json());
    let released = held(api, "released").await?;
    let answer = api.post(&format!("{released}/cancel"), "cancel", &json!({})).await?;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("canceled")), "{}", answer.json());

    let refunds = format!("{paid}/refunds");
    let answer = api.post(&refunds, "refund-1", &json!({ "amount": 500 })).await?;
    assert_eq!((answer.status, &answer.json()["status"]), (201, &json!("succeeded")), "{}", answer.json());
    let answer = api.post(&refunds, "refund-2", &json!({ "metadata": { "note": "the rest" } })).await?;
    assert_eq!((answer.status, &answer.json()["amount"]), (201, &json!(1499)), "{}", answer.json());
    once(api, &paid, |payment| payment["amount_refunded"] == 1999).await?;
    // it does not know reasons, and says so: nothing is refunded then
    let other = captured(api, "other").await?;
    let refused =
        api.post(&format!("{other}/refunds"), "refund-3", &json!({ "reason": "duplicate" })).await?;
    assert_problem(&refused, 402, "refund_declined");
    assert_eq!(refused.json()["refund"]["failure"]["code"], "provider_rejected");

    let mut declined = payment("declined");
    declined["payment_method"] = json!("pm_card_chargeCustomerFail");
    let answer = api.create("declined", &declined).await?;
    assert_problem(&answer, 402, "payment_declined");
    let failure = answer.json()["payment"]["failure"].clone();
    assert_eq!(text(&failure["code"]), "card_declined", "a 402 whose type is not card_error: {failure}");
    provider.kill().await?;
    world.stop().await
}

#[tokio::test]
async fn stripes_own_client_understands_the_simulator() -> Result<()> {
    let Some(python) = python_with("stripe")? else { return Ok(()) };
    let world = World::start().await?;
    let mut checks = Command::new(python);
    checks.arg(script("stripe_sdk.py")).args([world.stack.simulator_url(), "sk_test_interop"]);
    let output = checks.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    ensure!(told.contains("10 of 10 checks passed"), "{told}");
    world.stop().await
}
