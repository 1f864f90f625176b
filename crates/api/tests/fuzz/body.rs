//! Bodies: right ones in every spelling, and such as are a few bytes away from right.

use crate::{fuzz, hard, refusal};
use api::http::bodies::{read_cancel, read_capture, read_new_payment, read_refund};
use api::http::json::{Json, parse};
use api::problem::Problem;
use domain::idempotency::Fingerprint;
use domain::money::Amount;
use domain::payment::{Metadata, NewPayment};
use domain::refund::{NewRefund, RefundReason};
use domain::text::{Description, Email, PersonName, ReturnUrl, StatementDescriptor};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseResult;
use serde_json::{Map, Value, json};
use std::cell::Cell;

/// A value that no answer may hold.
const SECRET: &str = "hunter2-and-a-half";

const FIELDS: [&str; 15] = [
    "amount",
    "currency",
    "reference",
    "payment_method",
    "capture",
    "description",
    "customer",
    "name",
    "email",
    "statement_descriptor",
    "return_url",
    "metadata",
    "reason",
    "amuont",
    "x/y~z",
];

/// Bytes that change what comes before and after them.
const TOKENS: [&str; 40] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    " ",
    "\r\n",
    "null",
    "true",
    "-",
    "-0",
    "0",
    "1",
    "1.0",
    "1e3",
    "1e400",
    "-1e-400",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551616",
    "0x1",
    "01",
    "+1",
    "NaN",
    "\\ud800",
    "\\udc00\\ud800",
    "\\ud83d\\ude00",
    "\\u0000",
    "\\u00",
    "\\x41",
    "\u{feff}",
    "\u{0}",
    "\u{1}",
    "//",
    "\"a\":1,\"a\":1",
    "{\"a\":{}}",
    "\"amount\":1,",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        2 => hard::text().prop_map(Value::from),
        2 => Just(json!(SECRET)),
        1 => select(&["EUR", "JPY", "KWD", "ISK", "eur", "manual", "automatic", "duplicate", "pm_card_visa"][..]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => select(&[1_i64, 10, 1999, 99_999_999, 100_000_000, 0, -1][..]).prop_map(Value::from),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((name(), inner), 0..8).prop_map(|members| Value::from(Map::from_iter(members))),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => select(&FIELDS[..]).prop_map(str::to_owned), 1 => hard::text()]
}

/// The members of a body that is nearly right, some of them replaced by anything.
fn object() -> impl Strategy<Value = Value> {
    let right = json!({
        "amount": 1999, "currency": "EUR", "reference": "order-1", "payment_method": "pm_card_visa", "capture": "manual",
        "description": "caf\u{e9}", "customer": { "name": "Zo\u{eb}", "email": "zoe@example.org" },
        "statement_descriptor": "TEA & CO", "return_url": "https://shop.example/", "metadata": { "a": "b" },
    });
    (vec(any::<bool>(), 10), vec((name(), value()), 0..5)).prop_map(move |(keep, changes)| {
        let mut body = right.clone();
        let members = body.as_object_mut().unwrap();
        let mut keep = keep.into_iter().enumerate();
        // what is needed mostly stays
        members.retain(|name, _| {
            let (_, keep) = keep.next().unwrap_or((0, true));
            keep || ["amount", "currency", "reference", "payment_method"].contains(&name.as_str())
        });
        members.extend(changes);
        body
    })
}

/// The same value in another spelling: escapes, blanks, the order of members.
fn spelt(value: &Value, escapes: &[bool], turned: bool, out: &mut String, at: &mut usize) {
    let mut blank = |out: &mut String| {
        *at += 1;
        if escapes[*at % escapes.len()] {
            out.push_str(" \r\n\t");
        }
    };
    match value {
        Value::Object(members) => {
            out.push('{');
            let mut members: Vec<_> = members.iter().collect();
            if turned {
                members.reverse();
            }
            for (index, (name, inner)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                *at += 1;
                spelt(&Value::from(name.as_str()), escapes, turned, out, at);
                out.push(':');
                spelt(inner, escapes, turned, out, at);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, inner) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                spelt(inner, escapes, turned, out, at);
            }
            out.push(']');
        }
        Value::String(text) => {
            blank(out);
            out.push('"');
            for character in text.chars() {
                *at += 1;
                if escapes[*at % escapes.len()] || character < ' ' || "\"\\".contains(character) {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                } else {
                    out.push(character);
                }
            }
            out.push('"');
        }
        other => {
            blank(out);
            out.push_str(&other.to_string());
        }
    }
}

/// A body in bytes, and the same in another spelling.
#[derive(Debug, Clone)]
struct Spellings {
    plain: Vec<u8>,
    other: Vec<u8>,
}

fn spellings() -> impl Strategy<Value = Spellings> {
    (object(), vec(any::<bool>(), 1..40), any::<bool>()).prop_map(|(value, escapes, turned)| {
        let mut other = String::new();
        spelt(&value, &escapes, turned, &mut other, &mut 0);
        Spellings { plain: value.to_string().into_bytes(), other: other.into_bytes() }
    })
}

/// Changes bytes where it hurts.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        5 => select(&TOKENS[..]).prop_map(|token| token.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4),
        1 => (1..70_usize, any::<bool>()).prop_map(|(depth, objects)| if objects { "{\"a\":".repeat(depth) } else { "[".repeat(depth) }.into_bytes()),
        1 => (1..5000_usize).prop_map(|digits| "9".repeat(digits).into_bytes()),
    ];
    let change = (any::<prop::sample::Index>(), 0..6_usize, token);
    (spellings(), any::<bool>(), vec(change, 0..6)).prop_map(|(spellings, other, changes)| {
        let mut bytes = if other { spellings.other } else { spellings.plain };
        for (place, removed, token) in changes {
            let begin = place.index(bytes.len() + 1);
            let end = (begin + removed).min(bytes.len());
            bytes.splice(begin..end, token);
        }
        bytes
    })
}

/// Whether a member has the secret for a name: names are told, if they could be one of metadata.
fn is_told(body: &Json) -> bool {
    let Json::Object(members) = body else { return false };
    members.iter().any(|(name, inner)| name.contains(SECRET) || is_told(inner))
}

fn check_refusal(problem: &Problem, may_tell: bool) -> TestCaseResult {
    refusal::check(problem, "pointer")?;
    let text = String::from_utf8(problem.body("")).unwrap();
    prop_assert!(may_tell || !text.contains(SECRET), "{}", text);
    Ok(())
}

fn tree(value: &Value) -> Json {
    parse(value.to_string().as_bytes()).unwrap()
}

fn metadata(metadata: &Metadata) -> Value {
    metadata
        .iter()
        .map(|(key, value)| (key.as_str().to_owned(), value.as_str().into()))
        .collect::<Map<_, _>>()
        .into()
}

/// What was understood, as somebody would send it.
fn payment(request: &NewPayment) -> Value {
    json!({
        "amount": request.money.amount().get(), "currency": request.money.currency().code(),
        "reference": request.reference.as_str(), "payment_method": request.payment_method.as_str(),
        "capture": request.capture.name(), "description": request.description.as_ref().map(Description::as_str),
        "customer": {
            "name": request.customer.name.as_ref().map(PersonName::as_str),
            "email": request.customer.email.as_ref().map(Email::as_str),
        },
        "statement_descriptor": request.statement_descriptor.as_ref().map(StatementDescriptor::as_str),
        "return_url": request.return_url.as_ref().map(ReturnUrl::as_str), "metadata": metadata(&request.metadata),
    })
}

fn refund(request: &NewRefund) -> Value {
    json!({
        "amount": request.amount.map(Amount::get), "reason": request.reason.map(RefundReason::name),
        "metadata": metadata(&request.metadata),
    })
}

/// Every reader of a body, held against its promises.
fn check(bytes: &[u8]) -> TestCaseResult {
    let body = match parse(bytes) {
        Ok(body) => body,
        // nothing was understood, so nothing is told
        Err(problem) => return check_refusal(&problem, false),
    };
    let told = is_told(&body);
    match read_new_payment(body.clone()) {
        Ok(request) => {
            let again = read_new_payment(tree(&payment(&request)));
            let again = again.map(|request| Fingerprint::of_payment(&request)).ok();
            prop_assert_eq!(again, Some(Fingerprint::of_payment(&request)));
        }
        Err(problem) => check_refusal(&problem, told)?,
    }
    match read_refund(body.clone()) {
        Ok(request) => {
            let again = read_refund(tree(&refund(&request))).ok();
            prop_assert_eq!(again, Some(request));
        }
        Err(problem) => check_refusal(&problem, told)?,
    }
    match read_capture(body.clone()) {
        Ok(amount) => {
            let again = read_capture(tree(&json!({ "amount": amount.map(Amount::get) }))).ok();
            prop_assert_eq!(again, Some(amount));
        }
        Err(problem) => check_refusal(&problem, told)?,
    }
    if let Err(problem) = read_cancel(body) {
        check_refusal(&problem, told)?;
    }
    Ok(())
}

#[test]
fn json_body() {
    let bodies = prop_oneof![
        4 => mutated(),
        1 => vec(any::<u8>(), 0..200),
        1 => vec(select(&TOKENS[..]), 0..30).prop_map(|tokens| tokens.concat().into_bytes()),
    ];
    fuzz("JSON body", &bodies, |bytes| check(&bytes));
}

#[test]
fn spelling() {
    let accepted = Cell::new(0_u64);
    fuzz("spelling of a body", &spellings(), |Spellings { plain, other }| {
        check(&plain)?;
        let (plain, other) = (parse(&plain).unwrap(), parse(&other).unwrap());
        let fingerprint = |body| read_new_payment(body).map(|request| Fingerprint::of_payment(&request));
        match (fingerprint(plain), fingerprint(other)) {
            (Ok(one), Ok(other)) => {
                accepted.set(accepted.get() + 1);
                prop_assert_eq!(one, other);
            }
            (Err(one), Err(other)) => prop_assert_eq!(one.status(), other.status()),
            (one, other) => prop_assert!(false, "{one:?} {other:?}"),
        }
        Ok(())
    });
    assert!(accepted.get() > 0, "nothing was accepted: what is compared here are refusals");
}
