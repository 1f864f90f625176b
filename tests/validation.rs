//! What a body may be, seen from outside.

use crate::support::{PAYMENTS, assert_problem, count};
use anyhow::Result;
use e2e::{Answer, Api, World, payment};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A create of bytes as they are, with a content type as it is. The key is the bytes' own, so that nothing is replayed.
async fn create(api: &Api, content_type: Option<&[u8]>, body: impl Into<Vec<u8>>) -> Result<Answer> {
    let key = uuid::Uuid::new_v4().to_string();
    let mut request = api.request(Method::POST, PAYMENTS).header("Idempotency-Key", key).body(body.into());
    if let Some(content_type) = content_type {
        request = request.header("Content-Type", content_type);
    }
    api.send(request).await
}

async fn create_json(api: &Api, body: impl Into<Vec<u8>>) -> Result<Answer> {
    create(api, Some(b"application/json"), body).await
}

/// The least that a payment needs, changed.
fn with(reference: &str, changes: &Value) -> Value {
    let mut body = payment(reference);
    if let (Some(body), Some(changes)) = (body.as_object_mut(), changes.as_object()) {
        body.extend(changes.clone());
    }
    body
}

fn errors<const N: usize>(expected: [(&str, &str); N]) -> BTreeMap<String, String> {
    expected.into_iter().map(|(place, code)| (place.to_owned(), code.to_owned())).collect()
}

async fn nothing_was_written(world: &World) -> Result<()> {
    assert_eq!(count(world, "SELECT count(*) FROM payments").await?, 0);
    assert_eq!(world.simulator.calls("POST /v1/payment_intents").await?, 0);
    Ok(())
}

#[tokio::test]
async fn what_is_no_i_json_is_malformed() -> Result<()> {
    let world = World::start().await?;
    let good = payment("order-1").to_string();
    let deep = |levels: usize| format!(r#"{{"x":{}{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1));
    for body in [
        String::new(),
        " ".to_owned(),
        "{".to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good}x"),
        format!("{good}{good}"),
        format!("\u{feff}{good}"),
        good.replace("1999", "01999"),
        good.replace("1999", "+1999"),
        good.replace("1999", "0x7cf"),
        good.replace("1999", "NaN"),
        good.replace("1999", "1999,"),
        good.replace('"', "'"),
        good.replace("1999", r#"1999,"amount":1999"#),
        good.replace("1999", r#"1999,"\u0061mount":1999"#),
        good.replace("1999", r#"1999,"metadata":{"a":"1","a":"1"}"#),
        good.replace("order-1", r"\ud800"),
        good.replace("order-1", r"\udc00\ud800"),
        good.replace("order-1", r"\x41"),
        good.replace("order-1", "a\u{1}b"),
        good.replace("1999", r#"1999,"x":[{"a":1,"\u0061":1}]"#),
        good.replace("1999", r#"1999,"\ud800":1"#),
        good.replace("1999", "1e400"),
        // the same in a field that nobody knows
        good.replace("1999", r#"1999,"x":["\ud800"]"#),
        format!("{good}// a comment"),
        deep(33),
    ] {
        let answer = create_json(&world.api, body.clone()).await?;
        assert_eq!(answer.status, 400, "{body}");
        assert_problem(&answer, 400, "malformed_json");
    }
    let answer = create_json(&world.api, deep(32)).await?;
    assert_problem(&answer, 422, "validation_failed");
    assert_eq!(answer.errors()["/x"], "unknown_field");
    nothing_was_written(&world).await?;
    world.finish().await
}

#[tokio::test]
async fn what_is_no_utf_8_is_told_apart() -> Result<()> {
    let world = World::start().await?;
    let bad: [&[u8]; 4] = [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf"];
    for bad in bad {
        let good = payment("MARK").to_string();
        let (before, after) = good.split_once("MARK").expect("a reference");
        let body = [before.as_bytes(), bad, after.as_bytes()].concat();
        let answer = create_json(&world.api, body).await?;
        assert_problem(&answer, 400, "invalid_utf8");
    }
    let answer = create_json(&world.api, b"\xff\xfe{\0}\0".to_vec()).await?;
    assert_problem(&answer, 400, "invalid_utf8");
    nothing_was_written(&world).await?;
    world.finish().await
}

#[tokio::test]
async fn everything_that_is_wrong_is_told_at_once() -> Result<()> {
    let world = World::start().await?;
    let answer = create_json(&world.api, "{}").await?;
    assert_problem(&answer, 422, "validation_failed");
    let required = [
        ("/amount", "required"),
        ("/currency", "required"),
        ("/payment_method", "required"),
        ("/reference", "required"),
    ];
    assert_eq!(answer.errors(), errors(required));
    let nulls = r#"{"amount":null,"currency":null,"reference":null,"payment_method":null}"#;
    assert_eq!(create_json(&world.api, nulls).await?.errors(), errors(required));

    let secret = "4242424242424242";
    let body = json!({
        "amount": 0, "currency": "eur", "reference": "", "payment_method": secret, "capture": "later",
        "description": "a\u{0}b", "customer": { "name": "x".repeat(201), "email": "nobody", "phone": "1" },
        "statement_descriptor": "4", "return_url": "/here",
        "metadata": { "a/b~c": 1, "ok": "x".repeat(501) }, "amuont": 1, "a/b": 2,
    });
    let answer = create_json(&world.api, body.to_string()).await?;
    assert_problem(&answer, 422, "validation_failed");
    let expected = errors([
        ("/a~1b", "unknown_field"),
        ("/amount", "out_of_range"),
        ("/amuont", "unknown_field"),
        ("/capture", "unsupported"),
        ("/currency", "unsupported"),
        ("/customer/email", "unsupported"),
        ("/customer/name", "too_long"),
        ("/customer/phone", "unknown_field"),
        ("/description", "forbidden_character"),
        ("/metadata/a~1b~0c", "wrong_type"),
        ("/metadata/ok", "too_long"),
        ("/payment_method", "card_number_refused"),
        ("/reference", "too_short"),
        ("/return_url", "unsupported"),
        ("/statement_descriptor", "too_short"),
    ]);
    assert_eq!(answer.errors(), expected);
    assert!(!String::from_utf8(answer.body)?.contains(secret), "no value is given back");
    nothing_was_written(&world).await?;
    world.finish().await
}

#[tokio::test]
async fn a_value_has_its_type_and_no_other() -> Result<()> {
    let world = World::start().await?;
    let least = payment("order-1").to_string();
    for amount in ["10.0", "1e3", "1.5", "\"10\"", "true", "[]", "{}", "-0.0", "1E2"] {
        let answer = create_json(&world.api, least.replace("1999", amount)).await?;
        assert_eq!(answer.errors(), errors([("/amount", "wrong_type")]), "{amount}");
        assert_problem(&answer, 422, "validation_failed");
    }
    for amount in ["-1", "0", "100000000", "9223372036854775808", "123456789012345678901234567890"] {
        let answer = create_json(&world.api, least.replace("1999", amount)).await?;
        assert_eq!(answer.errors(), errors([("/amount", "out_of_range")]), "{amount}");
    }
    for (field, pointer) in [
        ("currency", "/currency"),
        ("reference", "/reference"),
        ("payment_method", "/payment_method"),
        ("capture", "/capture"),
        ("description", "/description"),
        ("customer", "/customer"),
        ("statement_descriptor", "/statement_descriptor"),
        ("return_url", "/return_url"),
        ("metadata", "/metadata"),
    ] {
        for value in [json!(1), json!(true), json!([])] {
            let body = with("order-1", &json!({ field: value }));
            let answer = create_json(&world.api, body.to_string()).await?;
            assert_eq!(answer.errors(), errors([(pointer, "wrong_type")]), "{body}");
        }
    }
    for body in ["[]", "1", "null", "\"x\"", "true"] {
        let answer = create_json(&world.api, body).await?;
        assert_problem(&answer, 422, "validation_failed");
        assert_eq!(answer.errors().get("").map(String::as_str), Some("wrong_type"), "{body}");
    }
    nothing_was_written(&world).await?;
    world.finish().await
}

#[tokio::test]
async fn a_limit_is_reached_and_not_passed() -> Result<()> {
    let world = World::start().await?;
    let family = "\u{1f469}\u{200d}\u{1f467}"; // one grapheme of 11 bytes
    let entries = |count: usize| -> Value {
        (0..count).map(|at| (at.to_string(), json!("x"))).collect::<Map<_, _>>().into()
    };
    let url = |length: usize| format!("https://example.org/{}", "x".repeat(length - 20));
    let email = |length: usize| {
        let domain = ["a", "b", "c"].map(|label| label.repeat(60)).join(".");
        let local = "x".repeat(64);
        let rest = length - local.len() - domain.len() - 2;
        format!("{local}@{domain}.{}", "d".repeat(rest))
    };
    let good = [
        json!({ "amount": 1 }),
        json!({ "amount": 99_999_999 }),
        json!({ "reference": "é".repeat(100) }),
        json!({ "description": "x".repeat(500) }),
        json!({ "customer": { "name": "e\u{301}\u{302}".repeat(200) } }),
        json!({ "customer": { "email": email(250) } }),
        json!({ "statement_descriptor": "A1" }),
        json!({ "statement_descriptor": "A".repeat(18) }),
        json!({ "return_url": url(2048) }),
        json!({ "metadata": entries(50) }),
        json!({ "metadata": { "k".repeat(40): "v".repeat(500), "empty": "" } }),
    ];
    for (at, changes) in good.iter().enumerate() {
        let body = with(&format!("good-{at}"), changes);
        let answer = create_json(&world.api, body.to_string()).await?;
        assert_eq!(answer.status, 201, "{changes}: {}", answer.json());
    }
    let bad = [
        (json!({ "reference": "é".repeat(101) }), "/reference", "too_long"),
        // eight bytes each, and no more
        (json!({ "reference": family.repeat(73) }), "/reference", "too_long"),
        (json!({ "reference": "" }), "/reference", "too_short"),
        (json!({ "reference": "a\u{202e}b" }), "/reference", "forbidden_character"),
        (json!({ "reference": "a\nb" }), "/reference", "forbidden_character"),
        (json!({ "description": "x".repeat(501) }), "/description", "too_long"),
        (json!({ "description": "" }), "/description", "too_short"),
        (json!({ "customer": { "name": "x".repeat(201) } }), "/customer/name", "too_long"),
        (
            json!({ "customer": { "email": format!("{}@example.org", "é".repeat(122)) } }),
            "/customer/email",
            "too_long",
        ),
        (json!({ "statement_descriptor": "A" }), "/statement_descriptor", "too_short"),
        (json!({ "statement_descriptor": "A".repeat(19) }), "/statement_descriptor", "too_long"),
        (json!({ "statement_descriptor": "A*B" }), "/statement_descriptor", "forbidden_character"),
        (json!({ "statement_descriptor": "TÉA" }), "/statement_descriptor", "forbidden_character"),
        (json!({ "statement_descriptor": "42" }), "/statement_descriptor", "unsupported"),
        (json!({ "return_url": url(2049) }), "/return_url", "too_long"),
        (json!({ "return_url": "http://example.org/" }), "/return_url", "unsupported"),
        (json!({ "payment_method": "card_visa" }), "/payment_method", "unsupported"),
        (json!({ "payment_method": format!("pm_{}", "x".repeat(101)) }), "/payment_method", "too_long"),
        (json!({ "payment_method": "pm_a-b" }), "/payment_method", "forbidden_character"),
        (json!({ "payment_method": "pm_" }), "/payment_method", "too_short"),
        (json!({ "metadata": entries(51) }), "/metadata", "too_long"),
        (json!({ "metadata": { "k".repeat(41): "v" } }), "/metadata", "too_long"),
        (json!({ "metadata": { "": "v" } }), "/metadata", "too_short"),
        (json!({ "metadata": { "k": "v".repeat(501) } }), "/metadata/k", "too_long"),
    ];
    for (changes, pointer, code) in &bad {
        let answer = create_json(&world.api, with("bad", changes).to_string()).await?;
        assert_eq!(answer.errors(), errors([(pointer, code)]), "{pointer} {code}: {}", answer.json());
    }
    // 64 KiB are read, and judged
    let padded = |size: usize| {
        let body = payment("padded").to_string();
        format!("{body}{}", " ".repeat(size - body.len()))
    };
    assert_problem(&create_json(&world.api, padded(65_537)).await?, 413, "payload_too_large");
    assert_problem(&create_json(&world.api, padded(1_000_000)).await?, 413, "payload_too_large");
    assert_eq!(create_json(&world.api, padded(65_536)).await?.status, 201);
    world.finish().await
}

#[tokio::test]
async fn a_currency_is_one_that_the_provider_counts_as_iso_does() -> Result<()> {
    let world = World::start().await?;
    for code in
        ["ISK", "UGX", "MGA", "XXX", "XTS", "XAU", "DEM", "eur", "Eur", "EU", "EURO", "", "ZZZ", "ЕUR"]
    {
        let body = with("order-1", &json!({ "currency": code, "amount": 1000 }));
        let answer = create_json(&world.api, body.to_string()).await?;
        assert_problem(&answer, 422, "validation_failed");
        assert_eq!(answer.errors(), errors([("/currency", "unsupported")]), "{code}");
    }
    for code in ["BHD", "JOD", "KWD", "OMR", "TND"] {
        for amount in [1, 1999, 15] {
            let body = with("order-1", &json!({ "currency": code, "amount": amount }));
            let answer = create_json(&world.api, body.to_string()).await?;
            assert_eq!(answer.errors(), errors([("/amount", "out_of_range")]), "{code} {amount}");
        }
    }
    nothing_was_written(&world).await?;
    for (code, amount) in [("BHD", 10), ("KWD", 99_999_990), ("JPY", 1), ("USD", 1), ("CLP", 7)] {
        let body = with(code, &json!({ "currency": code, "amount": amount }));
        let answer = create_json(&world.api, body.to_string()).await?;
        assert_eq!(answer.status, 201, "{}", answer.json());
        assert_eq!((&answer.json()["amount"], &answer.json()["currency"]), (&json!(amount), &json!(code)));
    }
    world.finish().await
}

#[tokio::test]
async fn text_comes_back_in_nfc_and_every_field_is_there() -> Result<()> {
    let world = World::start().await?;
    let body = json!({
        "amount": 1999, "currency": "EUR", "reference": "Zoe\u{308}", "payment_method": "pm_card_visa",
        "capture": "manual", "description": "\u{1f468}\u{1f3fd}\u{200d}\u{1f373} cafe\u{301}",
        "customer": { "name": "बि\u{928}\u{93c}द", "email": "zoe\u{308}@example.org" },
        "statement_descriptor": "TEA & CO", "return_url": "https://example.org/?q=e\u{301}",
        "metadata": { "cafe\u{301}": "e\u{301}", "empty": "" },
    });
    let full = create_json(&world.api, body.to_string()).await?;
    assert_eq!(full.status, 201, "{}", full.json());
    let full_payment = full.json();
    for (pointer, expected) in [
        ("/status", "authorized"),
        ("/reference", "Zo\u{eb}"),
        ("/description", "\u{1f468}\u{1f3fd}\u{200d}\u{1f373} caf\u{e9}"),
        ("/customer/name", "बि\u{929}द"),
        ("/customer/email", "zo\u{eb}@example.org"),
        ("/statement_descriptor", "TEA & CO"),
        ("/return_url", "https://example.org/?q=\u{e9}"),
        ("/metadata/caf\u{e9}", "\u{e9}"),
        ("/metadata/empty", ""),
    ] {
        assert_eq!(full_payment.pointer(pointer), Some(&json!(expected)), "{pointer}");
    }
    assert_eq!(world.api.get(full.header("location")).await?.json(), full_payment);
    let found =
        world.api.send(world.api.request(Method::GET, PAYMENTS).query(&[("reference", "Zoe\u{308}")]));
    assert_eq!(found.await?.json()["data"], json!([full_payment]));

    let least = world.api.create("least", &payment("least")).await?.json();
    let names: Vec<&str> = least.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut fields = vec![
        "id",
        "reference",
        "status",
        "pending_operation",
        "amount",
        "amount_captured",
        "amount_refunded",
        "currency",
        "capture",
        "payment_method",
        "description",
        "customer",
        "statement_descriptor",
        "return_url",
        "metadata",
        "failure",
        "next_action",
        "created_at",
        "updated_at",
    ];
    fields.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, fields);
    assert_eq!(least["customer"], json!({ "name": null, "email": null }));
    for field in
        ["pending_operation", "description", "statement_descriptor", "return_url", "failure", "next_action"]
    {
        assert_eq!(least[field], Value::Null, "{field}");
    }
    assert_eq!((&least["metadata"], &least["capture"]), (&json!({}), &json!("automatic")));
    for field in ["created_at", "updated_at"] {
        let time = least[field].as_str().unwrap_or_default();
        assert!(time.len() == 27 && time.ends_with('Z') && time.as_bytes()[19] == b'.', "{time}");
    }
    let version = uuid::Uuid::parse_str(least["id"].as_str().unwrap_or_default())?.get_version_num();
    assert_eq!(version, 7);
    world.finish().await
}

#[tokio::test]
async fn a_body_is_json_in_utf_8() -> Result<()> {
    let world = World::start().await?;
    let good: [&[u8]; 5] = [
        b"application/json",
        b"application/json; charset=utf-8",
        b"Application/JSON;charset=\"UTF-8\"",
        b"application/json ; Charset=Utf-8",
        b"application/json; profile=x",
    ];
    for (at, content_type) in good.into_iter().enumerate() {
        let body = payment(&format!("order-{at}")).to_string();
        let answer = create(&world.api, Some(content_type), body).await?;
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(content_type));
    }
    let bad: [&[u8]; 8] = [
        b"application/json; charset=latin1",
        b"application/json; charset=utf-16",
        b"application/json; charset=",
        b"text/plain",
        b"text/json",
        b"application/x-www-form-urlencoded",
        b"application/problem+json",
        b"",
    ];
    for content_type in bad {
        let answer = create(&world.api, Some(content_type), payment("bad").to_string()).await?;
        assert_eq!(answer.status, 415, "{}", String::from_utf8_lossy(content_type));
        assert_problem(&answer, 415, "unsupported_media_type");
    }
    let answer = create(&world.api, None, payment("bad").to_string()).await?;
    assert_problem(&answer, 415, "unsupported_media_type");
    // what the caller would like to read is not asked
    let request = world.api.request(Method::GET, PAYMENTS).header("Accept", "text/html");
    assert_eq!(world.api.send(request).await?.header("content-type"), "application/json");
    world.finish().await
}

#[tokio::test]
async fn a_name_is_repeated_only_if_it_is_one_and_errors_are_bounded() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let details = |answer: &Answer| -> Vec<(String, String)> {
        let errors = answer.json()["errors"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        errors.iter().map(|error| (text(&error["pointer"]), text(&error["detail"]))).collect()
    };
    for (field, detail) in [
        ("amuont", "is not a field of this request; did you mean amount?"),
        ("returnUrl", "is not a field of this request; did you mean return_url?"),
        ("iban", "is not a field of this request"),
    ] {
        let answer = create_json(api, with("order-1", &json!({ field: 1 })).to_string()).await?;
        assert_eq!(details(&answer), [(format!("/{field}"), detail.to_owned())]);
    }
    let answer = create_json(api, with("o", &json!({ "customer": { "nmae": 1 } })).to_string()).await?;
    assert!(details(&answer)[0].1.ends_with("did you mean name?"), "{}", answer.json());

    // a name that no field could have stands in no answer
    let long = "x".repeat(60_000);
    for (name, code) in [
        (long.as_str(), "too_long"),
        ("pay\u{202e}ee", "forbidden_character"),
        ("a\nb", "forbidden_character"),
    ] {
        let answer = create_json(api, with("order-1", &json!({ name: 1 })).to_string()).await?;
        assert_eq!(answer.errors(), errors([("", "unknown_field")]));
        assert!(answer.body.len() < 600, "{} bytes", answer.body.len());
        let answer =
            create_json(api, with("order-1", &json!({ "metadata": { name: "x" } })).to_string()).await?;
        assert_eq!(answer.errors(), errors([("/metadata", code)]));
        assert!(answer.body.len() < 600, "{} bytes", answer.body.len());
    }
    let answer =
        create_json(api, with("o", &json!({ "metadata": { "pay\u{202e}ee": 1 } })).to_string()).await?;
    let expected = ["a key U+202E at index 3 is not allowed", "the value of that key must be a string"];
    for (expected, (pointer, detail)) in expected.iter().zip(details(&answer)) {
        assert!(pointer == "/metadata" && detail.starts_with(expected), "{}", answer.json());
    }
    let answer =
        create_json(api, with("o", &json!({ "metadata": { "é": "1", "e\u{301}": "2" } })).to_string())
            .await?;
    assert_eq!(details(&answer)[0].1, "its key is the same as another's once both are in NFC");

    let many: Map<String, Value> = (0..5000).map(|at| (format!("f{at}"), json!(1))).collect();
    let answer = create_json(api, with("order-1", &many.into()).to_string()).await?;
    assert_problem(&answer, 422, "validation_failed");
    assert_eq!(details(&answer).len(), 100);
    assert!(answer.body.len() < 16 * 1024, "{} bytes", answer.body.len());
    assert!(answer.json()["detail"].as_str().is_some_and(|text| text.starts_with("5000 fields")));

    // numbers: what no double holds is no I-JSON, any other is judged where it stands
    let least = payment("order-1").to_string();
    for (amount, status, place) in [
        ("1e400", 400, None),
        (&"9".repeat(60_000), 400, None),
        (&"9".repeat(300), 422, Some("out_of_range")),
        (&format!("-{}", "9".repeat(30)), 422, Some("out_of_range")),
        ("-0", 422, Some("wrong_type")),
        ("10.0", 422, Some("wrong_type")),
    ] {
        let answer = create_json(api, least.replace("1999", amount)).await?;
        assert_eq!(answer.status, status, "{amount:.20}");
        assert_eq!(answer.errors().get("/amount").map(String::as_str), place, "{amount:.20}");
        assert!(answer.body.len() < 600);
    }
    nothing_was_written(&world).await?;
    world.finish().await
}
