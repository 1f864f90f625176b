//! Every row of the table of idempotency keys.

use crate::support::{PAYMENTS, SOON, assert_problem, count, id, provider_was_asked, seconds};
use anyhow::Result;
use e2e::{Answer, Api, World, WorldOptions, eventually, payment};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// A create with a body as it is, not as a serialiser would write it.
async fn create_text(api: &Api, key: &str, body: &str) -> Result<Answer> {
    let request = api.request(Method::POST, PAYMENTS).header("Idempotency-Key", key);
    api.send(request.header("Content-Type", "application/json").body(body.to_owned())).await
}

#[track_caller]
fn assert_replay(again: &Answer, first: &Answer) {
    assert_eq!(again.status, first.status, "{}", again.json());
    assert_eq!(again.body, first.body, "byte for byte");
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(again.header("location"), first.header("location"));
    assert_eq!(again.header("content-type"), first.header("content-type"));
    assert_ne!(again.header("request-id"), first.header("request-id"), "a request of its own");
}

#[track_caller]
fn assert_accepted(answer: &Answer) {
    assert_eq!((answer.status, answer.json()["status"].as_str()), (202, Some("processing")));
    assert_eq!(answer.header("location"), format!("{PAYMENTS}/{}", id(answer)));
    assert!(answer.header("retry-after").parse::<u32>().is_ok(), "{:?}", answer.headers);
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[tokio::test]
async fn a_post_needs_one_key_that_is_one() -> Result<()> {
    let world = World::start().await?;
    let send = async |keys: &[&[u8]]| {
        let mut request = world.api.request(Method::POST, PAYMENTS).json(&payment("order-1"));
        for key in keys {
            request = request.header("Idempotency-Key", HeaderValue::from_bytes(key)?);
        }
        world.api.send(request).await
    };
    let missing = send(&[]).await?;
    assert_problem(&missing, 400, "idempotency_key_missing");
    assert_eq!(missing.errors().get("Idempotency-Key").map(String::as_str), Some("required"));
    let long = [b'k'; 256];
    let malformed: [&[u8]; 11] = [
        b"",
        b"a b",
        b"a\tb",
        &long,
        b"\"abc",
        b"\"",
        b"\"\"",
        b"\"a b\"",
        b"\"abc\";p=1",
        b"\"abc\"x",
        "clé".as_bytes(),
    ];
    for key in malformed {
        let answer = send(&[key]).await?;
        assert_eq!(answer.status, 400, "{}", String::from_utf8_lossy(key));
        assert_problem(&answer, 400, "idempotency_key_invalid");
    }
    assert_problem(&send(&[b"one", b"two"]).await?, 400, "idempotency_key_invalid");
    assert_problem(&send(&[b"same", b"same"]).await?, 400, "idempotency_key_invalid");
    assert_eq!(count(&world, "SELECT count(*) FROM payments").await?, 0);

    let longest = world.api.create(&"k".repeat(255), &payment("longest")).await?;
    assert_eq!(longest.status, 201, "{}", longest.json());
    let shortest = world.api.create("!", &payment("shortest")).await?;
    assert_eq!(shortest.status, 201, "{}", shortest.json());
    world.finish().await
}

#[tokio::test]
async fn a_settled_answer_is_given_again_however_the_payment_has_moved() -> Result<()> {
    let world = World::start().await?;
    let good = world.api.create("good", &payment("order-1")).await?;
    assert_eq!((good.status, good.header("idempotent-replayed")), (201, ""));
    let declined = with(payment("order-2"), "payment_method", json!("pm_card_visa_chargeDeclined"));
    let bad = world.api.create("bad", &declined).await?;
    assert_problem(&bad, 402, "payment_declined");
    assert_eq!(bad.header("idempotent-replayed"), "");

    assert_replay(&world.api.create("good", &payment("order-1")).await?, &good);
    assert_replay(&world.api.create("bad", &declined).await?, &bad);

    // a refund, say
    let refunds = format!("{}/refunds", good.header("location"));
    assert_eq!(world.api.post(&refunds, "refund", &json!({ "amount": 1 })).await?.status, 201);
    let now = world.api.get(good.header("location")).await?;
    assert_eq!(now.json()["amount_refunded"], 1);
    assert_replay(&world.api.create("good", &payment("order-1")).await?, &good);
    // and the reference of the one that failed goes to another payment
    assert_eq!(world.api.create("third", &payment("order-2")).await?.status, 201);
    assert_replay(&world.api.create("bad", &declined).await?, &bad);

    assert_eq!(world.simulator.calls("POST /v1/payment_intents").await?, 3, "nothing was executed again");
    world.finish().await
}

#[tokio::test]
async fn a_key_is_the_same_bare_and_quoted() -> Result<()> {
    let world = World::start().await?;
    for (at, (bare, quoted)) in
        [("abc", r#""abc""#), (r#"a"b"#, r#""a\"b""#), (r"a\b", r#""a\\b""#)].into_iter().enumerate()
    {
        let body = payment(&format!("order-{at}"));
        let first = world.api.create(bare, &body).await?;
        assert_eq!(first.status, 201, "{bare}: {}", first.json());
        assert_replay(&world.api.create(quoted, &body).await?, &first);
    }
    world.finish().await
}

#[tokio::test]
async fn a_request_is_the_same_however_it_is_written() -> Result<()> {
    let world = World::start().await?;
    let first = create_text(
        &world.api,
        "key",
        r#"{"amount":1999,"currency":"EUR","reference":"Zoë-1","payment_method":"pm_card_visa",
            "description":"two cafés","customer":{"name":"Zoë"},"metadata":{"a":"é","b":"2"}}"#,
    )
    .await?;
    assert_eq!(first.status, 201, "{}", first.json());
    for again in [
        // order
        r#"{"metadata":{"b":"2","a":"é"},"customer":{"name":"Zoë"},"description":"two cafés",
            "payment_method":"pm_card_visa","reference":"Zoë-1","currency":"EUR","amount":1999}"#,
        // white space
        "\n{ \"amount\" :\t1999,\r\n\"currency\":\"EUR\",\"reference\":\"Zoë-1\",\"payment_method\":\"pm_card_visa\",
            \"description\":\"two cafés\",\"customer\":{\"name\":\"Zoë\"},\"metadata\":{\"a\":\"é\",\"b\":\"2\"}}  ",
        // escapes, of names as well
        r#"{"\u0061mount":1999,"currency":"\u0045UR","reference":"Zo\u00eb-1","payment_method":"pm_card\u005fvisa",
            "description":"two caf\u00e9s","customer":{"name":"Zo\u00EB"},"metadata":{"\u0061":"\u00e9","b":"2"}}"#,
        // NFD
        "{\"amount\":1999,\"currency\":\"EUR\",\"reference\":\"Zoe\u{308}-1\",\"payment_method\":\"pm_card_visa\",
            \"description\":\"two cafe\u{301}s\",\"customer\":{\"name\":\"Zoe\u{308}\"},
            \"metadata\":{\"a\":\"e\u{301}\",\"b\":\"2\"}}",
        // what is absent, said aloud
        r#"{"amount":1999,"currency":"EUR","reference":"Zoë-1","payment_method":"pm_card_visa","capture":"automatic",
            "description":"two cafés","customer":{"name":"Zoë","email":null},"metadata":{"a":"é","b":"2"},
            "statement_descriptor":null,"return_url":null}"#,
    ] {
        assert_replay(&create_text(&world.api, "key", again).await?, &first);
    }
    world.finish().await
}

#[tokio::test]
async fn a_key_is_not_taken_for_another_request() -> Result<()> {
    let world = World::start().await?;
    let body = with(payment("order-1"), "metadata", json!({ "a": "1" }));
    let first = world.api.create("key", &body).await?;
    assert_eq!(first.status, 201);
    for (field, value) in [
        ("amount", json!(2000)),
        ("currency", json!("USD")),
        ("reference", json!("order-2")),
        ("payment_method", json!("pm_card_mastercard")),
        ("capture", json!("manual")),
        ("description", json!("tea")),
        ("customer", json!({ "name": "A" })),
        ("customer", json!({ "email": "a@example.org" })),
        ("statement_descriptor", json!("TEA")),
        ("return_url", json!("https://example.org/")),
        ("metadata", json!({ "a": "2" })),
        ("metadata", json!({ "b": "1" })),
        ("metadata", json!({})),
    ] {
        let answer = world.api.create("key", &with(body.clone(), field, value)).await?;
        assert_problem(&answer, 422, "idempotency_key_reused");
        assert_eq!(answer.header("idempotent-replayed"), "", "{field}");
    }
    assert_replay(&world.api.create("key", &body).await?, &first);
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

#[tokio::test]
async fn while_the_first_request_runs_others_with_its_key_are_told_so() -> Result<()> {
    let world = World::start().await?;
    world.simulator.create_fault("delay", Some(1), 4000).await?;
    let body = payment("order-1");
    let first = tokio::spawn({
        let (api, body) = (world.api.clone(), body.clone());
        async move { api.create("key", &body).await }
    });
    provider_was_asked(&world, 1).await?;

    let told = world.api.create("key", &body).await?;
    assert_problem(&told, 409, "request_in_progress");
    assert!(told.header("retry-after").parse::<u32>().is_ok());
    assert_eq!(told.header("idempotent-replayed"), "");
    let other = world.api.create("key", &payment("order-2")).await?;
    assert_problem(&other, 422, "idempotency_key_reused");

    // a wait bounds what the second waits, and the first is still served
    let asked = Instant::now();
    let told = world.api.create_preferring("key", &body, Some("wait=1")).await?;
    assert_problem(&told, 409, "request_in_progress");
    assert!(asked.elapsed() >= seconds(1), "{:?}", asked.elapsed());
    assert_eq!(told.header("preference-applied"), "wait=1");

    // one that is long enough gets what the first gets
    let waited = world.api.create_preferring("key", &body, Some("wait=20")).await?;
    let first = first.await??;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""));
    assert_replay(&waited, &first);
    assert_eq!(world.simulator.calls("POST /v1/payment_intents").await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_202_is_followed_by_the_settled_answer_ever_after() -> Result<()> {
    let world = WorldOptions::default()
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "1s")
        .set("PAYWRIGHT_LEASE", "7s")
        .start()
        .await?;
    world.simulator.create_fault("hang_before", None, 60_000).await?;
    let good = payment("good");
    let bad = with(payment("bad"), "payment_method", json!("pm_card_visa_chargeDeclined"));
    for (key, body) in [("good", &good), ("bad", &bad)] {
        let asked = Instant::now();
        let first = world.api.create_preferring(key, body, Some("respond-async")).await?;
        assert_accepted(&first);
        assert!(asked.elapsed() < seconds(1), "at once: {:?}", asked.elapsed());
        assert_eq!(first.header("preference-applied"), "respond-async");
        assert_eq!(first.header("idempotent-replayed"), "");

        let again = world.api.create(key, body).await?;
        assert_accepted(&again);
        assert_eq!(again.header("idempotent-replayed"), "true");
        assert_eq!(again.json(), world.api.get(first.header("location")).await?.json(), "as it is now");
    }
    let asked = Instant::now();
    let waited = world.api.create_preferring("good", &good, Some("wait=1")).await?;
    assert_accepted(&waited);
    assert_eq!(waited.header("preference-applied"), "wait=1");
    assert!(asked.elapsed() >= seconds(1), "{:?}", asked.elapsed());
    let reused = world.api.create("good", &bad).await?;
    assert_problem(&reused, 422, "idempotency_key_reused");

    world.simulator.heal().await?;
    // waiting for a 202 brings the end of it
    let settled = world.api.create_preferring("good", &good, Some("wait=20")).await?;
    assert_eq!((settled.status, settled.header("idempotent-replayed")), (201, "true"));
    assert_eq!(settled.json()["status"], "captured");
    world.at_rest(SOON).await?;
    let declined = world.api.create("bad", &bad).await?;
    assert_problem_of_another_request(&declined);
    for _ in 0..2 {
        assert_replay(&world.api.create("good", &good).await?, &settled);
        assert_replay(&world.api.create("bad", &bad).await?, &declined);
    }
    world.finish().await
}

/// A 402 whose trace is that of the request which asked for the payment.
#[track_caller]
fn assert_problem_of_another_request(answer: &Answer) {
    let body = answer.json();
    assert_eq!((answer.status, body["code"].as_str()), (402, Some("payment_declined")));
    assert_eq!(body["payment"]["status"], "failed");
    assert_eq!(answer.header("idempotent-replayed"), "true");
    assert_ne!(body["trace_id"], answer.header("request-id"));
}

#[tokio::test]
async fn the_caller_says_how_long_a_first_request_waits() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "1500ms").start().await?;
    world.simulator.create_fault("delay", None, 4000).await?;
    // preference, what is applied, waits at least and less than so many milliseconds
    let table = [
        (Some("wait=0"), "wait=0", 0, 1000),
        (Some("respond-async"), "respond-async", 0, 1000),
        (Some("wait=1"), "wait=1", 1000, 3500),
        (Some("respond-async, wait=1"), "respond-async, wait=1", 1000, 3500),
        (None, "", 1500, 3500),
        (Some("wait=soon"), "", 1500, 3500),
        (Some("wait=-1; respond-async=maybe, handling=lenient"), "", 1500, 3500),
    ];
    let mut asked = Vec::new();
    for (at, (prefer, applied, least, most)) in table.into_iter().enumerate() {
        let api = world.api.clone();
        asked.push(tokio::spawn(async move {
            let body = payment(&format!("order-{at}"));
            let began = Instant::now();
            let answer = api.create_preferring(&format!("key-{at}"), &body, prefer).await?;
            let took = began.elapsed();
            assert_accepted(&answer);
            assert_eq!(answer.header("preference-applied"), applied, "{prefer:?}");
            let (least, most) = (Duration::from_millis(least), Duration::from_millis(most));
            assert!((least..most).contains(&took), "{prefer:?}: {took:?}");
            anyhow::Ok(())
        }));
    }
    let long = world.api.create_preferring("long", &payment("long"), Some("wait=99")).await?;
    assert_eq!((long.status, long.header("preference-applied")), (201, "wait=30"));
    for asked in asked {
        asked.await??;
    }
    world.finish().await
}

#[tokio::test]
async fn a_living_payment_keeps_its_reference_and_a_failed_one_frees_it() -> Result<()> {
    let world = World::start().await?;
    // simultaneous ones: one gets it, and the others hear of it while it is still charged
    world.simulator.create_fault("delay", Some(1), 3000).await?;
    let racing = (0..8).map(|at| {
        let api = world.api.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            (api.create(&format!("key-{at}"), &payment("order-1")).await, began.elapsed())
        })
    });
    let mut won = Vec::new();
    let mut lost = Vec::new();
    for answer in racing.collect::<Vec<_>>() {
        let (answer, took) = answer.await?;
        let answer = answer?;
        if answer.status == 201 { won.push(answer) } else { lost.push((answer, took)) }
    }
    assert_eq!((won.len(), lost.len()), (1, 7));
    for (answer, took) in lost {
        assert_problem(&answer, 409, "reference_already_used");
        assert_eq!(answer.json()["payment_id"], id(&won[0]));
        assert_eq!(answer.header("location"), won[0].header("location"));
        assert!(took < seconds(3), "at once: {took:?}");
    }
    let later = world.api.create("later", &payment("order-1")).await?;
    assert_problem(&later, 409, "reference_already_used");

    let declined = with(payment("order-2"), "payment_method", json!("pm_card_visa_chargeDeclined"));
    assert_eq!(world.api.create("declined", &declined).await?.status, 402);
    let second = world.api.create("second", &payment("order-2")).await?;
    assert_eq!(second.status, 201, "{}", second.json());
    assert_problem(&world.api.create("third", &payment("order-2")).await?, 409, "reference_already_used");
    // the same in NFD
    assert_eq!(world.api.create("nfc", &payment("caf\u{e9}")).await?.status, 201);
    assert_problem(&world.api.create("nfd", &payment("cafe\u{301}")).await?, 409, "reference_already_used");
    world.finish().await
}

#[tokio::test]
async fn of_simultaneous_requests_with_one_key_one_is_carried_out() -> Result<()> {
    let world = WorldOptions::default().instances(2).start().await?;
    world.simulator.create_fault("delay", None, 300).await?;
    let mut racing = Vec::new();
    for at in 0..12 {
        let api = world.api_of(at % 2)?;
        racing.push(tokio::spawn(async move { api.create("key", &payment("order-1")).await }));
    }
    let mut fresh = 0;
    for answer in racing {
        let answer = answer.await??;
        match answer.status {
            201 if answer.header("idempotent-replayed").is_empty() => fresh += 1,
            201 => {}
            _ => assert_problem(&answer, 409, "request_in_progress"),
        }
    }
    assert_eq!(fresh, 1);
    assert_eq!(count(&world, "SELECT count(*) FROM operations").await?, 1);
    assert_eq!(world.simulator.calls("POST /v1/payment_intents").await?, 1);
    world.finish().await
}

#[tokio::test]
async fn a_refusal_does_not_use_the_key_up() -> Result<()> {
    let world = World::start().await?;
    let body = payment("order-1");
    assert_eq!(world.api.create("other", &payment("taken")).await?.status, 201);
    let post = || world.api.request(Method::POST, PAYMENTS).header("Idempotency-Key", "key");
    let json = || post().header("Content-Type", "application/json");

    let stranger = Api { key: "sk_nobody".to_owned(), ..world.api.clone() };
    assert_problem(&stranger.create("key", &body).await?, 401, "unauthorized");
    let answer = world.api.send(post().header("Content-Type", "text/plain").body(body.to_string())).await?;
    assert_problem(&answer, 415, "unsupported_media_type");
    let answer = world.api.send(json().body(vec![b' '; 64 * 1024 + 1])).await?;
    assert_problem(&answer, 413, "payload_too_large");
    assert_problem(&world.api.send(json().body("{")).await?, 400, "malformed_json");
    assert_problem(&world.api.send(json().body(vec![b'"', 0xff, b'"'])).await?, 400, "invalid_utf8");
    let invalid = with(body.clone(), "amount", json!(0));
    assert_problem(&world.api.create("key", &invalid).await?, 422, "validation_failed");
    let taken = world.api.create("key", &payment("taken")).await?;
    assert_problem(&taken, 409, "reference_already_used");

    let first = world.api.create("key", &body).await?;
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""));
    world.finish().await
}

#[tokio::test]
async fn another_merchant_has_keys_and_references_of_its_own() -> Result<()> {
    let world = World::start().await?;
    let other = world.new_merchant("Another").await?;
    let ours = world.api.create("key", &payment("order-1")).await?;
    let theirs = other.create("key", &payment("order-1")).await?;
    assert_eq!((ours.status, theirs.status), (201, 201), "{}", theirs.json());
    assert_eq!(theirs.header("idempotent-replayed"), "");
    assert_ne!(id(&ours), id(&theirs));
    assert_replay(&other.create("key", &payment("order-1")).await?, &theirs);
    assert_eq!(world.simulator.charges().await?, 2);
    world.finish().await
}

#[tokio::test]
async fn a_dead_process_counts_as_running_for_at_most_the_lease() -> Result<()> {
    const LEASE: Duration = Duration::from_millis(7500);
    let mut world = WorldOptions::default()
        .instances(2)
        .set("PAYWRIGHT_PROVIDER_TIMEOUT", "2s")
        .set("PAYWRIGHT_LEASE", "7500ms")
        .start()
        .await?;
    // no answer at all: no attempt of the first process ends before it is killed
    world.simulator.create_fault("hang_before", None, 60_000).await?;
    let body = payment("order-1");
    let first = tokio::spawn({
        let (api, body) = (world.api.clone(), body.clone());
        async move { api.create("key", &body).await }
    });
    provider_was_asked(&world, 1).await?;
    world.stack.service(0)?.kill().await?;
    let killed = Instant::now();
    assert!(first.await?.is_err(), "the caller gets no answer");
    world.simulator.heal().await?;

    let survivor = world.api_of(1)?;
    assert_problem(&survivor.create("key", &body).await?, 409, "request_in_progress");
    let mut in_progress_until = Instant::now();
    let mut settled = None;
    eventually(LEASE + SOON, "settled by the other process", async || {
        let asked = Instant::now();
        let answer = survivor.create("key", &body).await?;
        match answer.status {
            409 => in_progress_until = asked,
            201 => settled = Some(answer),
            _ => assert_accepted(&answer),
        }
        Ok(settled.is_some())
    })
    .await?;
    let counted = in_progress_until.duration_since(killed);
    assert!(counted <= LEASE, "{counted:?}");
    let settled = settled.expect("settled");
    assert_replay(&survivor.create("key", &body).await?, &settled);
    assert_eq!(world.simulator.charges().await?, 1);
    world.finish().await
}

/// What can be asked of a payment, each with a body, another body, and where its payment comes from.
struct Verb {
    name: &'static str,
    body: Value,
    other_body: Value,
    /// The endpoint of the provider.
    endpoint: &'static str,
    /// The status of a settled answer.
    settled: u16,
}

fn verbs() -> [Verb; 3] {
    [
        Verb {
            name: "capture",
            body: json!({ "amount": 5 }),
            other_body: json!({ "amount": 6 }),
            endpoint: "POST /v1/payment_intents/*/capture",
            settled: 200,
        },
        Verb {
            name: "cancel",
            body: json!({}),
            // a cancel has no fields: another payment is another request
            other_body: Value::Null,
            endpoint: "POST /v1/payment_intents/*/cancel",
            settled: 200,
        },
        Verb {
            name: "refunds",
            body: json!({ "amount": 5, "reason": "duplicate", "metadata": { "a": "é" } }),
            other_body: json!({ "amount": 5, "reason": "duplicate" }),
            endpoint: "POST /v1/refunds",
            settled: 201,
        },
    ]
}

impl Verb {
    /// The path of this verb for a new payment in the right state.
    async fn path(&self, api: &Api, reference: &str) -> Result<String> {
        let payment = match self.name {
            "refunds" => crate::support::captured(api, reference).await?,
            _ => crate::support::held(api, reference).await?,
        };
        Ok(format!("{payment}/{}", self.name))
    }
}

#[tokio::test]
async fn what_is_done_to_a_payment_needs_a_key_and_keeps_its_answer() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    for verb in verbs() {
        let path = verb.path(api, verb.name).await?;
        let other_path = verb.path(api, &format!("other-{}", verb.name)).await?;
        let key = format!("key-{}", verb.name);
        let bare = api.request(Method::POST, &path).json(&verb.body);
        assert_problem(&api.send(bare).await?, 400, "idempotency_key_missing");
        let malformed = api.money_post(&path, "a b").json(&verb.body);
        assert_problem(&api.send(malformed).await?, 400, "idempotency_key_invalid");
        let twice = api.money_post(&path, &key).header("Idempotency-Key", &key).json(&verb.body);
        assert_problem(&api.send(twice).await?, 400, "idempotency_key_invalid");

        let first = api.post(&path, &key, &verb.body).await?;
        assert_eq!(
            (first.status, first.header("idempotent-replayed")),
            (verb.settled, ""),
            "{}",
            first.json()
        );
        assert_replay(&api.post(&path, &key, &verb.body).await?, &first);
        assert_replay(&api.post(&path, &format!("\"{key}\""), &verb.body).await?, &first);
        // however the payment has moved since
        if verb.name != "cancel" {
            let payment = path.trim_end_matches(&format!("/{}", verb.name));
            let (refunds, moving) = (format!("{payment}/refunds"), format!("{key}-moved"));
            assert_eq!(api.post(&refunds, &moving, &json!({ "amount": 1 })).await?.status, 201);
            assert_replay(&api.post(&path, &key, &verb.body).await?, &first);
        }
        // another body, another payment, another verb
        if verb.other_body != Value::Null {
            assert_problem(&api.post(&path, &key, &verb.other_body).await?, 422, "idempotency_key_reused");
        }
        assert_problem(&api.post(&other_path, &key, &verb.body).await?, 422, "idempotency_key_reused");
        assert_problem(&api.create(&key, &payment("new")).await?, 422, "idempotency_key_reused");
        // also where there is no such payment, or the body says nothing good of it
        let nowhere = format!("{PAYMENTS}/nowhere/{}", verb.name);
        assert_problem(&api.post(&nowhere, &key, &verb.body).await?, 422, "idempotency_key_reused");
        assert_problem(&api.post(&nowhere, "free", &verb.body).await?, 404, "not_found");
    }
    let calls = world.simulator.ledger().await?["calls"].clone();
    assert_eq!(calls["POST /v1/payment_intents/{id}/capture"], 1);
    assert_eq!(calls["POST /v1/payment_intents/{id}/cancel"], 1);
    assert_eq!(calls["POST /v1/refunds"], 3);
    world.finish().await
}

#[tokio::test]
async fn a_repetition_while_a_payment_is_worked_on_waits_for_nothing_or_as_long_as_it_says() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_SYNC_WAIT", "6s").start().await?;
    let api = &world.api;
    for verb in verbs() {
        let path = verb.path(api, verb.name).await?;
        let key = format!("key-{}", verb.name);
        let before = calls(&world).await?;
        world.simulator.fault(verb.endpoint, "delay", Some(1), 3000).await?;
        let first = tokio::spawn({
            let (api, path, key, body) = (api.clone(), path.clone(), key.clone(), verb.body.clone());
            async move { api.post(&path, &key, &body).await }
        });
        eventually(SOON, "the provider was asked", async || Ok(calls(&world).await? > before)).await?;
        let running = api.post(&path, &key, &verb.body).await?;
        assert_problem(&running, 409, "request_in_progress");
        assert!(running.header("retry-after").parse::<u32>().is_ok());
        let patient = api.money_post(&path, &key).header("Prefer", "wait=20").json(&verb.body);
        let patient = api.send(patient).await?;
        assert_eq!(patient.header("preference-applied"), "wait=20");
        assert_replay(&patient, &first.await??);
        assert_eq!(patient.status, verb.settled, "{}", patient.json());
    }
    world.finish().await
}

async fn calls(world: &World) -> Result<u64> {
    let ledger = world.simulator.ledger().await?;
    let calls = ledger["calls"].as_object().into_iter().flatten();
    Ok(calls.filter(|(name, _)| name.starts_with("POST")).filter_map(|(_, count)| count.as_u64()).sum())
}

#[tokio::test]
async fn what_ended_in_202_shows_the_object_and_then_its_answer() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    for verb in verbs() {
        let path = verb.path(api, verb.name).await?;
        let key = format!("key-{}", verb.name);
        world.simulator.fault(verb.endpoint, "http_429", None, 0).await?;
        let begun = api.money_post(&path, &key).header("Prefer", "respond-async").json(&verb.body);
        let begun = api.send(begun).await?;
        assert_eq!((begun.status, begun.header("idempotent-replayed")), (202, ""), "{}", begun.json());
        assert!(begun.header("retry-after").parse::<u32>().is_ok());
        assert_eq!(api.get(begun.header("location")).await?.json(), begun.json());
        let again = api.post(&path, &key, &verb.body).await?;
        assert_eq!((again.status, again.header("idempotent-replayed")), (202, "true"));
        assert_eq!((again.json(), again.header("location")), (begun.json(), begun.header("location")));
        if verb.other_body != Value::Null {
            assert_problem(&api.post(&path, &key, &verb.other_body).await?, 422, "idempotency_key_reused");
        }
        world.simulator.heal().await?;
        let patient = api.money_post(&path, &key).header("Prefer", "wait=20").json(&verb.body);
        let settled = api.send(patient).await?;
        assert_eq!((settled.status, settled.header("idempotent-replayed")), (verb.settled, "true"));
        assert_replay(&api.post(&path, &key, &verb.body).await?, &settled);
    }
    world.finish().await
}
