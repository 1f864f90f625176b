//! The process: how it starts, ends and comes back.

use std::{io::Write as _, process::Stdio};

use reqwest::StatusCode;
use tokio::process::Command;

use crate::harness::Simulator;

const CARD: &str = "payment_method=pm_card_visa";

#[tokio::test]
async fn what_was_answered_survives_kill_9_and_a_torn_line() {
    let mut simulator = Simulator::start().await;
    let charge = simulator.charge("charge", CARD).await;
    let declined = simulator.charge("declined", "payment_method=pm_card_chargeDeclined").await;
    let form = format!("payment_intent={}&amount=5", charge.id());
    let refund = simulator.post("/v1/refunds", "refund", &form).await;
    let before = simulator.ledger().await;

    simulator.kill().await;
    let mut file = std::fs::File::options().append(true).open(simulator.ledger_path()).unwrap();
    file.write_all(b"{\"at\":1,\"effects\":[{\"kind\":\"autho").unwrap();
    simulator.restart().await;

    let after = simulator.ledger().await;
    for part in ["charges", "entries", "intents"] {
        assert_eq!(after[part], before[part]);
    }
    for (again, first) in [
        (simulator.charge("charge", CARD).await, charge),
        (simulator.charge("declined", "payment_method=pm_card_chargeDeclined").await, declined),
        (simulator.post("/v1/refunds", "refund", &form).await, refund),
    ] {
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    // The torn line is gone, so what is written now can be read again.
    simulator.charge("more", CARD).await;
    simulator.kill().await;
    simulator.restart().await;
    assert_eq!(simulator.ledger().await["charges"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn what_had_only_begun_dies_with_the_process() {
    let mut simulator = Simulator::start().await;
    simulator.inject("delay", Some(60_000)).await;
    let _waiting = simulator.raw_charge("key").await;
    simulator.ledger_when(|ledger| ledger["injected"]["delay"] == 1).await;
    simulator.kill().await;
    simulator.restart().await;
    let answer = simulator.charge("key", CARD).await;
    assert_eq!((answer.status, answer.header("idempotent-replayed")), (StatusCode::OK, None));
}

#[tokio::test]
async fn a_signal_ends_it_in_order() {
    for signal in ["TERM", "INT"] {
        let mut simulator = Simulator::start().await;
        // the shell's own: a bare machine has no program of that name
        let kill = format!("kill -{signal} {}", simulator.child.id().unwrap());
        assert!(Command::new("/bin/sh").args(["-c", &kill]).status().await.unwrap().success());
        assert_eq!(simulator.child.wait().await.unwrap().code(), Some(0), "{signal}");
    }
}

#[tokio::test]
async fn a_wrong_start_is_one_message_and_exit_2() {
    let simulator = Simulator::start().await;
    let taken = simulator.address.to_string();
    let ledger = simulator.ledger_path().display().to_string();
    let folder = tempfile::tempdir().unwrap();
    let free = folder.path().join("ledger").display().to_string();
    for (listen, ledger, complaint) in [
        (taken.as_str(), free.as_str(), "cannot listen on"),
        ("0.0.0.0:0", &free, "--allow-remote"),
        ("nonsense", &free, "HOST:PORT"),
        ("127.0.0.1:0", &ledger, "in use by another provider-simulator"),
        ("127.0.0.1:0", "/nowhere/ledger", "cannot open the ledger"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_provider-simulator"))
            .args(["--listen", listen, "--ledger", ledger])
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(complaint) && message.lines().count() == 1, "{message}");
        assert_eq!(output.stdout, b"");
    }
}
