//! Properties of everything that reads what callers send, held against input made to break them.
//!
//! `FUZZ_SECONDS` says for how long each target is tried, from a seed of chance; without it a few hundred cases are, always
//! the same. A failure prints the seed that begins with it: `FUZZ_SEED=n cargo test --package api --test fuzz`. What was
//! found belongs into a test of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is a test's verdict"
)]

mod body;
mod hard;
mod refusal;

use api::http::list::{read_page, read_payments_query};
use domain::card;
use domain::idempotency::{IdempotencyKey, MAX_KEY_LENGTH};
use domain::text::{
    Description, Email, MetadataKey, MetadataValue, PaymentMethod, PersonName, Reference, ReturnUrl,
    StatementDescriptor, TextError,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseResult, TestRunner};
use std::io::Write;
use std::time::{Duration, Instant};

/// Between two looks at the clock, and behind one seed.
const CASES: u32 = 256;

/// Holds a property against what a strategy makes, for as long as was asked for.
fn fuzz<S: Strategy>(target: &str, strategy: &S, property: impl Fn(S::Value) -> TestCaseResult) {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let time = number("FUZZ_SECONDS").map(Duration::from_secs);
    let first = number("FUZZ_SEED").unwrap_or_else(|| if time.is_some() { rand::random() } else { 0 });
    let began = Instant::now();
    let mut seed = first;
    let mut cases = 0_u64;
    loop {
        let config = Config {
            cases: CASES,
            rng_seed: RngSeed::Fixed(seed),
            // the seed is what is kept
            failure_persistence: None,
            max_shrink_time: 20_000,
            ..Config::default()
        };
        if let Err(error) = TestRunner::new(config).run(strategy, &property) {
            panic!("{target}: FUZZ_SEED={seed}\n{error}");
        }
        seed = seed.wrapping_add(1);
        cases += u64::from(CASES);
        if time.is_none_or(|time| began.elapsed() >= time) {
            break;
        }
    }
    // what a macro prints, the harness swallows
    let _ = writeln!(
        std::io::stderr(),
        "fuzz {target}: {cases} cases in {:.0} s from FUZZ_SEED={first}, 0 failures",
        began.elapsed().as_secs_f64()
    );
}

/// What every text type promises, whatever it is given.
fn check_text<T>(
    text: &str,
    parse: fn(&str) -> Result<T, TextError>,
    as_str: fn(&T) -> &str,
    most: usize,
) -> TestCaseResult
where
    T: std::fmt::Debug + PartialEq,
{
    match parse(text) {
        Ok(accepted) => {
            let kept = as_str(&accepted);
            prop_assert!(kept.len() <= most, "{} bytes", kept.len());
            prop_assert!(!kept.chars().any(char::is_control));
            let again = parse(kept);
            prop_assert_eq!(again.as_ref(), Ok(&accepted), "what was accepted is accepted as it is kept");
            // what is debugged ends in a log
            let shown = format!("{accepted:?}");
            prop_assert!(kept.len() < 20 || !shown.contains(kept));
        }
        Err(error) => {
            let told = error.to_string();
            prop_assert!((10..300).contains(&told.len()), "{told}");
            prop_assert!(told.is_ascii(), "only numbers of what was sent: {told}");
        }
    }
    Ok(())
}

#[test]
fn text() {
    fuzz("text", &hard::text(), |text| {
        check_text(&text, Reference::parse, Reference::as_str, 800)?;
        check_text(&text, Description::parse, Description::as_str, 4000)?;
        check_text(&text, PersonName::parse, PersonName::as_str, 1600)?;
        check_text(&text, MetadataKey::parse, MetadataKey::as_str, 320)?;
        check_text(&text, MetadataValue::parse, MetadataValue::as_str, 4000)?;
        check_text(&text, Email::parse, Email::as_str, 254)?;
        check_text(&text, ReturnUrl::parse, ReturnUrl::as_str, 2048)?;
        check_text(&text, StatementDescriptor::parse, StatementDescriptor::as_str, 18)?;
        check_text(&text, PaymentMethod::parse, PaymentMethod::as_str, 103)
    });
}

#[test]
fn card_detector() {
    fuzz("card detector", &hard::text(), |text| {
        prop_assert_eq!(card::find(&card::mask(&text)), None, "what is masked is found");
        prop_assert_eq!(card::find(&text).is_none(), card::mask(&text) == text);
        let with_card = format!("{text} 4111 1111 1111 1111");
        prop_assert!(text.ends_with(|c: char| c.is_numeric()) || card::find(&with_card).is_some());
        Ok(())
    });
}

#[test]
fn idempotency_key() {
    fuzz("idempotency key", &hard::key(), |bytes| {
        let parsed = IdempotencyKey::parse(&bytes);
        let visible = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_graphic);
        let is_bare_key = visible(&bytes) && (1..=MAX_KEY_LENGTH).contains(&bytes.len());
        if bytes.first() != Some(&b'"') {
            prop_assert_eq!(parsed.is_ok(), is_bare_key);
        }
        match parsed {
            Ok(key) => {
                prop_assert!((1..=MAX_KEY_LENGTH).contains(&key.as_str().len()));
                prop_assert!(visible(key.as_str().as_bytes()));
                let quoted = key.as_str().replace('\\', "\\\\").replace('"', "\\\"");
                let again = IdempotencyKey::parse(format!("\"{quoted}\"").as_bytes());
                prop_assert_eq!(again, Ok(key), "both forms are the same key");
            }
            Err(error) => prop_assert!(error.to_string().is_ascii()),
        }
        Ok(())
    });
}

#[test]
fn query() {
    fuzz("query", &hard::query(), |query| {
        if let Err(problem) = read_payments_query(&query) {
            refusal::check(&problem, "parameter")?;
        }
        if let Err(problem) = read_page(&query, "refunds 1") {
            refusal::check(&problem, "parameter")?;
        }
        Ok(())
    });
}
