//! What is wrong with a request is told in one order and in one shape.

use crate::admission::{insist, no_writes};
use crate::support::{PAYMENTS, SOON, Wire, another_key, assert_problem, count, id, run, seconds, text};
use anyhow::Result;
use e2e::{Answer, Api, World, WorldOptions, eventually, payment};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

/// A problem without what differs between two requests.
fn apart_from_its_trace(answer: &Answer) -> Value {
    let mut body = answer.json();
    body["trace_id"] = Value::Null;
    body
}

/// Everything that can be wrong with a create; one after the other is put right.
#[derive(Clone)]
struct Create<'a> {
    method: Method,
    path: &'a str,
    api_key: Option<&'a str>,
    content_type: &'a str,
    keys: &'a [&'a str],
    body: Vec<u8>,
}

impl Create<'_> {
    async fn send(&self, api: &Api) -> Result<Answer> {
        let mut request = api.http.request(self.method.clone(), format!("{}{}", api.url, self.path));
        request = request.header("Content-Type", self.content_type).body(self.body.clone());
        if let Some(key) = self.api_key {
            request = request.bearer_auth(key);
        }
        for key in self.keys {
            request = request.header("Idempotency-Key", *key);
        }
        api.send(request).await
    }
}

fn all_wrong<'a>() -> Create<'a> {
    Create {
        method: Method::DELETE,
        path: "/v1/nowhere",
        api_key: None,
        content_type: "text/plain",
        keys: &[],
        body: vec![b'{'; 64 * 1024 + 1],
    }
}

#[tokio::test]
async fn the_first_check_that_fails_answers() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let (_, reader) = another_key(&world, &["--scope", "read"]).await?;
    assert_eq!(api.create("known", &payment("taken")).await?.status, 201);

    let mut create = all_wrong();
    assert_problem(&create.send(api).await?, 404, "not_found");
    create.path = PAYMENTS;
    let answer = create.send(api).await?;
    assert_problem(&answer, 405, "method_not_allowed");
    let allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
    for method in ["GET", "HEAD", "POST"] {
        assert!(allowed.contains(&method), "{allowed:?}");
    }
    create.method = Method::POST;
    let answer = create.send(api).await?;
    assert_problem(&answer, 401, "unauthorized");
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    create.api_key = Some(&reader.key);
    assert_problem(&create.send(api).await?, 403, "forbidden");
    create.api_key = Some(&api.key);
    assert_problem(&create.send(api).await?, 415, "unsupported_media_type");
    create.content_type = "application/json";
    assert_problem(&create.send(api).await?, 413, "payload_too_large");
    create.body = b"{\xff".to_vec();
    assert_problem(&create.send(api).await?, 400, "idempotency_key_missing");
    create.keys = &["known", "known"];
    assert_problem(&create.send(api).await?, 400, "idempotency_key_invalid");
    create.keys = &["known"];
    assert_problem(&create.send(api).await?, 400, "invalid_utf8");
    create.body = b"{".to_vec();
    assert_problem(&create.send(api).await?, 400, "malformed_json");
    create.body = br#"{"amount":0}"#.to_vec();
    assert_problem(&create.send(api).await?, 422, "validation_failed");
    let mut body = payment("taken");
    body["amount"] = json!(1);
    create.body = body.to_string().into_bytes();
    assert_problem(&create.send(api).await?, 422, "idempotency_key_reused");
    create.keys = &["new"];
    assert_problem(&create.send(api).await?, 409, "reference_already_used");
    create.body = payment("free").to_string().into_bytes();
    assert_eq!(create.send(api).await?.status, 201);
    world.finish().await
}

#[tokio::test]
async fn a_full_service_says_so_before_it_reads_on_and_before_it_counts() -> Result<()> {
    let world = WorldOptions::default()
        .set("PAYWRIGHT_MAX_IN_FLIGHT", "1")
        .set("PAYWRIGHT_RATE_LIMIT", "1000000")
        .start()
        .await?;
    let api = &world.api;
    // a request that takes the only place, and comes to its end when we want
    let lock = no_writes(&world).await?;
    let slow = insist(api, "slow");
    let list = async || api.get(PAYMENTS).await;
    let mut refused = None;
    eventually(SOON, "the place is taken", async || {
        let answer = list().await?;
        let is_refused = answer.status == 503;
        refused = is_refused.then_some(answer);
        Ok(is_refused)
    })
    .await?;
    let answer = refused.expect("refused");
    assert_problem(&answer, 503, "overloaded");
    assert!(answer.header("retry-after").parse::<u32>().is_ok());
    assert_eq!(answer.header("ratelimit"), "", "what was not let in is not counted");
    let mut create = all_wrong();
    assert_problem(&create.send(api).await?, 404, "not_found");
    create.path = PAYMENTS;
    assert_problem(&create.send(api).await?, 405, "method_not_allowed");
    create.method = Method::POST;
    assert_problem(&create.send(api).await?, 401, "unauthorized");
    create.api_key = Some(&api.key);
    eventually(
        SOON,
        "refused before it is read",
        async || Ok(create.send(api).await?.code() == "overloaded"),
    )
    .await?;
    for path in ["/livez", "/readyz"] {
        assert_eq!(api.get(path).await?.status, 200, "{path} does no work for merchants");
    }

    lock.rollback().await?;
    assert_eq!(slow.await??.status, 201);
    eventually(SOON, "the place is free", async || Ok(list().await?.status == 200)).await?;
    world.finish().await
}

#[tokio::test]
async fn a_payment_that_waits_for_the_provider_takes_no_place() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_MAX_IN_FLIGHT", "1").start().await?;
    world.simulator.create_fault("delay", Some(1), 2000).await?;
    let waiting = tokio::spawn({
        let api = world.api.clone();
        async move { api.create("key", &payment("order-1")).await }
    });
    crate::support::provider_was_asked(&world, 1).await?;
    assert_eq!(world.api.get(PAYMENTS).await?.status, 200);
    assert!(!waiting.is_finished(), "the payment still waits");
    assert_eq!(waiting.await??.status, 201);
    world.finish().await
}

#[tokio::test]
async fn a_merchant_has_its_own_limit() -> Result<()> {
    let world = WorldOptions::default().set("PAYWRIGHT_RATE_LIMIT", "1").start().await?;
    let api = &world.api;
    let other = world.new_merchant("Another").await?;
    let burst = async |create: &Create<'_>| -> Result<Option<Answer>> {
        for _ in 0..20 {
            let answer = create.send(api).await?;
            if answer.status == 429 {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    };
    let mut create = all_wrong();
    create.path = PAYMENTS;
    create.method = Method::POST;
    assert!(burst(&create).await?.is_none(), "who is unknown has no limit to reach");
    create.api_key = Some(&api.key);
    let limited = burst(&create).await?.expect("of so many in so little time one is too many");
    assert_problem(&limited, 429, "rate_limited");
    let retry_after: u64 = limited.header("retry-after").parse()?;
    assert!((1..=2).contains(&retry_after), "{retry_after}");
    assert_eq!(limited.header("ratelimit-policy"), r#""merchant";q=1;w=1"#);
    assert!(
        limited.header("ratelimit").starts_with(r#""merchant";r=0;t="#),
        "{}",
        limited.header("ratelimit")
    );

    assert_eq!(other.get(PAYMENTS).await?.status, 200, "the limit is another's");
    assert_eq!(api.get("/readyz").await?.status, 200);
    // a refusal for the rate uses no key up, and passes
    let mut created = None;
    eventually(SOON, "the limit passes", async || {
        let answer = api.create("key", &payment("order-1")).await?;
        let passed = answer.status != 429;
        created = passed.then_some(answer);
        Ok(passed)
    })
    .await?;
    let created = created.expect("created");
    assert_eq!((created.status, created.header("idempotent-replayed")), (201, ""));
    assert_eq!(created.header("ratelimit-policy"), r#""merchant";q=1;w=1"#);
    assert!(created.header("ratelimit").starts_with(r#""merchant";r="#));
    world.finish().await
}

#[tokio::test]
async fn all_causes_of_a_401_look_alike() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let (_, expired) = another_key(&world, &["--expires", "2020-01-01T00:00:00Z"]).await?;
    let other = world.new_merchant("Another").await?;
    // another merchant's secret behind our id, with a checksum that fits neither
    let mixed = format!("{}{}", &api.key[..api.key.len() / 2], &other.key[other.key.len() / 2..]);
    let last = if api.key.ends_with('0') { "1" } else { "0" };
    let mistyped = format!("{}{last}", &api.key[..api.key.len() - 1]);
    let bearer = |key: &str| format!("Bearer {key}");
    let cases: [Vec<String>; 11] = [
        vec![],
        vec![String::new()],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![bearer("sk_nobody")],
        vec![bearer(&mixed)],
        vec![bearer(&mistyped)],
        vec![bearer(&expired.key)],
        vec![api.key.clone()],
        vec![format!("Basic {}", api.key)],
        vec![bearer(&api.key), bearer(&api.key)],
    ];
    let mut first = None;
    for lines in cases {
        let mut request = api.http.get(format!("{}{PAYMENTS}", api.url));
        for line in &lines {
            request = request.header("Authorization", line);
        }
        let answer = api.send(request).await?;
        assert_eq!(answer.status, 401, "{} lines, {:.12}", lines.len(), lines.concat());
        assert_problem(&answer, 401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let body = apart_from_its_trace(&answer);
        assert_eq!(*first.get_or_insert_with(|| body.clone()), body);
    }
    let scheme = api.http.get(format!("{}{PAYMENTS}", api.url));
    let scheme = scheme.header("Authorization", format!("bEARER {}", api.key));
    assert_eq!(api.send(scheme).await?.status, 200, "the scheme has no case");
    world.finish().await
}

#[tokio::test]
async fn a_revoked_or_expired_key_is_dead_within_five_seconds() -> Result<()> {
    let world = World::start().await?;
    let merchant = world.stack.merchant()?.merchant_id.clone();
    let (revoked_id, revoked) = another_key(&world, &[]).await?;
    let (expired_id, expired) = another_key(&world, &["--expires", "2999-01-01T00:00:00Z"]).await?;
    for key in [&revoked, &expired] {
        assert_eq!(key.get(PAYMENTS).await?.status, 200);
    }
    let output = run(&world, &["key", "revoke", &merchant, &revoked_id], &[]).await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    sqlx::query("UPDATE api_keys SET expires_at = now() WHERE key_id = $1::uuid")
        .bind(&expired_id)
        .execute(&world.pool)
        .await?;
    eventually(seconds(5), "both keys are dead", async || {
        let answers = [revoked.get(PAYMENTS).await?, expired.get(PAYMENTS).await?];
        Ok(answers.iter().all(|answer| answer.status == 401))
    })
    .await?;
    assert_eq!(world.api.get(PAYMENTS).await?.status, 200, "another key of the same merchant lives");
    let again = run(&world, &["key", "revoke", &merchant, &revoked_id], &[]).await?;
    assert_eq!(again.status.code(), Some(1));
    world.finish().await
}

#[tokio::test]
async fn a_read_key_reads_and_does_nothing_else() -> Result<()> {
    let world = World::start().await?;
    let (_, reader) = another_key(&world, &["--scope", "read"]).await?;
    let created = world.api.create("key", &payment("order-1")).await?;
    let path = created.header("location");
    assert_eq!(reader.get(path).await?.json(), created.json());
    assert_eq!(reader.send(reader.request(Method::HEAD, path)).await?.status, 200);
    assert_eq!(reader.get(PAYMENTS).await?.json()["data"][0], created.json());
    assert_problem(&reader.create("key", &payment("order-1")).await?, 403, "forbidden");
    assert_problem(&reader.create("new", &payment("order-2")).await?, 403, "forbidden");
    assert_eq!(count(&world, "SELECT count(*) FROM operations").await?, 1);
    world.finish().await
}

#[tokio::test]
async fn what_is_not_there_and_what_is_anothers_look_alike() -> Result<()> {
    let world = World::start().await?;
    let other = world.new_merchant("Another").await?;
    let theirs = id(&other.create("key", &payment("order-1")).await?);
    let ours = id(&world.api.create("key", &payment("order-1")).await?);
    let mut first = None;
    for id in [
        "0190a1b2-0000-7000-8000-000000000000",
        &theirs,
        "order-1",
        "%ff",
        &ours.to_uppercase(),
        &ours.replace('-', ""),
        &format!("{{{ours}}}"),
    ] {
        let answer = world.api.get(&format!("{PAYMENTS}/{id}")).await?;
        assert_eq!(answer.status, 404, "{id}");
        assert_problem(&answer, 404, "not_found");
        let body = apart_from_its_trace(&answer);
        assert_eq!(*first.get_or_insert_with(|| body.clone()), body, "{id}");
    }
    assert_eq!(world.api.get(&format!("{PAYMENTS}/{ours}")).await?.status, 200);
    world.finish().await
}

#[tokio::test]
async fn a_trace_goes_from_the_caller_to_the_answer_and_the_audit_trail() -> Result<()> {
    let world = World::start().await?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = world.api.request(Method::POST, PAYMENTS).header("Idempotency-Key", "key");
    let request = request.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-01"));
    let created = world.api.send(request.json(&payment("order-1"))).await?;
    assert_eq!((created.status, created.header("request-id")), (201, trace));
    let events: Vec<String> = sqlx::query_scalar("SELECT replace(trace_id::text, '-', '') FROM events")
        .fetch_all(&world.pool)
        .await?;
    assert_eq!(events, [trace, trace]);
    let refused = world.api.request(Method::GET, "/v1/nowhere");
    let refused = refused.header("traceparent", format!("00-{trace}-00f067aa0ba902b7-00"));
    let refused = world.api.send(refused).await?;
    assert_problem(&refused, 404, "not_found");
    assert_eq!(refused.json()["trace_id"], trace);

    // what cannot be read begins a trace of its own, and so does its absence
    let mut seen = vec![trace.to_owned()];
    for parent in [None, Some("nonsense"), Some("00-0-0-0")] {
        let mut request = world.api.request(Method::GET, PAYMENTS);
        if let Some(parent) = parent {
            request = request.header("traceparent", parent);
        }
        let id = world.api.send(request).await?.header("request-id").to_owned();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        assert!(!seen.contains(&id));
        seen.push(id);
    }
    for path in ["/livez", "/readyz", "/nowhere"] {
        assert_eq!(world.api.get(path).await?.header("request-id").len(), 32, "{path}");
    }
    world.finish().await
}

#[tokio::test]
async fn head_answers_as_get_does_without_a_body() -> Result<()> {
    let world = World::start().await?;
    let created = world.api.create("key", &payment("order-1")).await?;
    let nowhere = format!("{PAYMENTS}/nothing");
    for path in [PAYMENTS, created.header("location"), "/livez", "/readyz", &nowhere] {
        let get = world.api.get(path).await?;
        let head = world.api.send(world.api.request(Method::HEAD, path)).await?;
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        if head.status == 200 {
            assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        }
    }
    world.finish().await
}

#[tokio::test]
async fn headers_that_are_too_many_or_too_large_are_refused_in_words() -> Result<()> {
    let world = World::start().await?;
    let with = |lines: usize, value: &str| {
        // the client adds lines of its own: host, accept, authorization
        (0..lines).fold(world.api.request(Method::GET, PAYMENTS), |request, at| {
            request.header(format!("x-{at}"), HeaderValue::from_str(value).expect("a header's value"))
        })
    };
    assert_eq!(world.api.send(with(97, "x")).await?.status, 200, "100 lines");
    assert_problem(&world.api.send(with(101, "x")).await?, 431, "headers_too_large");
    assert_eq!(world.api.send(with(1, &"x".repeat(31 * 1024))).await?.status, 200);
    assert_problem(&world.api.send(with(1, &"x".repeat(33 * 1024))).await?, 431, "headers_too_large");
    assert_problem(&world.api.send(with(40, &"x".repeat(1024))).await?, 431, "headers_too_large");
    world.finish().await
}

#[tokio::test]
async fn bytes_that_are_not_http_get_a_400() -> Result<()> {
    let world = World::start().await?;
    for bytes in
        ["nonsense\r\n\r\n", "GET /v1/payments HTTP/9.9\r\n\r\n", "GET /v1/pay ments HTTP/1.1\r\n\r\n"]
    {
        let mut wire = Wire::to(&world.api.url).await?;
        wire.send(bytes.as_bytes()).await?;
        assert_eq!(wire.read().await?.status, 400, "{bytes:?}");
        assert!(wire.is_at_its_end().await?);
    }
    assert_eq!(text(&world.api.get("/readyz").await?.json()["status"]), "ready");
    world.finish().await
}
