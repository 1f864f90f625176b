//! What every refusal promises.

use api::problem::{Code, FieldCode, MAX_ERRORS, Problem};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;
use serde_json::Value;

/// The longest answer: a name has at most 320 bytes, each of which can take six in JSON and more in a pointer.
const LARGEST: usize = MAX_ERRORS * 4096;

/// Holds a problem against its promises. Every error in it is at a `place`.
pub(crate) fn check(problem: &Problem, place: &str) -> TestCaseResult {
    let bytes = problem.body("4bf92f3577b34da6a3ce929d0e0e4736");
    prop_assert!(bytes.len() <= LARGEST, "{} bytes", bytes.len());
    let body: Value = serde_json::from_slice(&bytes).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let code = Code::parse(&text(&body["code"]));
    let expected = [Code::MalformedJson, Code::InvalidUtf8, Code::ValidationFailed];
    prop_assert!(code.is_some_and(|code| expected.contains(&code)), "{}", body);
    let detail = text(&body["detail"]);
    prop_assert!((10..300).contains(&detail.len()) && detail.is_ascii(), "{}", body);
    if code != Some(Code::ValidationFailed) {
        prop_assert!(body["errors"].is_null());
        return Ok(());
    }
    let errors = body["errors"].as_array().cloned().unwrap_or_default();
    prop_assert!((1..=MAX_ERRORS).contains(&errors.len()));
    for error in errors {
        prop_assert!(FieldCode::parse(&text(&error["code"])).is_some(), "{}", error);
        prop_assert_eq!(error.as_object().map(serde_json::Map::len), Some(3), "{}", error);
        let place = error[place].as_str();
        prop_assert!(place.is_some_and(|name| name.len() <= 1000 && !name.chars().any(char::is_control)));
        let detail = text(&error["detail"]);
        prop_assert!((5..400).contains(&detail.len()) && detail.is_ascii(), "{}", error);
    }
    Ok(())
}
