//! Card numbers never enter. Whatever of a request might be kept, echoed or written into a log is searched for them, here or
//! on the way by a proxy: names and texts of the body, header lines, and the query string. Where one is found the request is
//! refused, together with whatever else is wrong with its fields; [`crate::problem`] masks what it echoes.
//!
//! Numbers of the body are not searched: no field takes one so large, and none is echoed. Neither are paths: a card number
//! is no id, which is 404, and what we log is the route.

use crate::http::json::{self, Json};
use crate::problem::{FieldCode, FieldError, Place, Problem};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use domain::card;
use percent_encoding::percent_decode_str;
use std::collections::HashSet;
use std::convert::Infallible;

/// Headers that are not searched. All but the first are written by tracing systems and proxies, to every request. Their
/// values are random and of fixed length, in decimal or hexadecimal digits, so some would be taken for card numbers.
const RANDOM: [&str; 9] = [
    // 401 tells what is wrong with it; it is compared with hashes, and neither kept nor logged
    "authorization",
    "traceparent",
    "tracestate",
    "b3",
    "uber-trace-id",
    "sentry-trace",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "cf-ray",
];
/// The same, by how they begin.
const RANDOM_PREFIXES: [&str; 2] = ["x-b3-", "x-datadog-"];

/// The places of a request in which there is a card number.
#[derive(Debug, Default)]
pub struct CardsFound(Vec<FieldError>);

impl CardsFound {
    /// Searches the query string and the headers.
    #[must_use]
    pub fn outside_of_body(parts: &Parts) -> Self {
        let mut found = Vec::new();
        search_query(parts.uri.query().unwrap_or_default(), &mut found);
        search_headers(&parts.headers, &mut found);
        Self(found)
    }

    /// Searches the body as well.
    #[must_use]
    pub fn and_in(mut self, body: &Json) -> Self {
        search(body, &String::new, &mut self.0);
        self
    }

    /// What was read, unless a card number was found.
    ///
    /// # Errors
    /// `validation_failed`, with the errors of the reading as well.
    pub fn or_refuse<T>(self, read: Result<T, Problem>) -> Result<T, Problem> {
        if self.0.is_empty() {
            return read;
        }
        Err(match read {
            Ok(_) => Problem::validation(unique(self.0)),
            Err(problem) => problem.with_errors(unique(self.0)),
        })
    }
}

impl<S: Sync> FromRequestParts<S> for CardsFound {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::outside_of_body(parts))
    }
}

/// A header may have many lines, and an object many names, but a place is refused once.
fn unique(mut errors: Vec<FieldError>) -> Vec<FieldError> {
    let mut seen = HashSet::new();
    errors.retain(|error| seen.insert(error.place.clone()));
    errors
}

fn refused(place: Place, what: &str) -> FieldError {
    let detail = format!("{what} holds what looks like a card number; nothing of it was kept");
    FieldError { place, code: FieldCode::CardNumberRefused, detail }
}

/// Whether a text holds a card number, as it stands or as a URL means it.
fn holds_card(text: &str) -> bool {
    card::find(text).is_some()
        || (text.contains('%') && card::find(&percent_decode_str(text).decode_utf8_lossy()).is_some())
}

fn search(value: &Json, at: &dyn Fn() -> String, found: &mut Vec<FieldError>) {
    match value {
        Json::String(text) if holds_card(text) => {
            found.push(refused(Place::Pointer(at()), "the text"));
        }
        Json::Object(members) => {
            for (name, value) in members {
                // a name cannot be told, so the object is
                if holds_card(name) {
                    found.push(refused(Place::Pointer(at()), "a name in it"));
                }
                search(value, &|| json::pointer(&at(), name), found);
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                search(item, &|| format!("{}/{index}", at()), found);
            }
        }
        _ => {}
    }
}

fn search_query(query: &str, found: &mut Vec<FieldError>) {
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode =
            |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let name = decode(name);
        if card::find(&name).is_some() || card::find(&decode(value)).is_some() {
            found.push(refused(Place::Parameter(name), "the parameter"));
        }
    }
}

fn search_headers(headers: &HeaderMap, found: &mut Vec<FieldError>) {
    for (name, value) in headers {
        let random = RANDOM.contains(&name.as_str())
            || RANDOM_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix));
        if random {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        if holds_card(name.as_str()) || holds_card(&value) {
            found.push(refused(Place::Header(as_usually_written(name).into()), "the header"));
        }
    }
}

/// `x-order-note` as `X-Order-Note`.
fn as_usually_written(name: &HeaderName) -> String {
    let mut starts = true;
    let letters = name.as_str().chars().map(|letter| {
        let written = if starts { letter.to_ascii_uppercase() } else { letter };
        starts = letter == '-';
        written
    });
    letters.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderValue, Request};
    use serde_json::{Value, json};

    const CARD: &str = "4111 1111 1111 1111";

    fn told(found: CardsFound) -> Vec<Value> {
        let Err(problem) = found.or_refuse(Ok(())) else { return Vec::new() };
        let body: Value = serde_json::from_slice(&problem.body("")).unwrap();
        assert!(!body.to_string().contains("1111"), "{body}");
        body["errors"].as_array().unwrap().clone()
    }

    fn places(errors: &[Value], kind: &str) -> Vec<String> {
        assert!(errors.iter().all(|error| error["code"] == "card_number_refused"), "{errors:?}");
        errors.iter().filter_map(|error| error[kind].as_str().map(str::to_owned)).collect()
    }

    fn outside(uri: &str, headers: &[(&str, &str)]) -> CardsFound {
        let mut request = Request::get(uri).body(()).unwrap();
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        CardsFound::outside_of_body(&request.into_parts().0)
    }

    #[test]
    fn every_name_and_text_of_a_body_is_searched() {
        let body = json!({
            "reference": CARD, "amount": 4_111_111_111_111_111_i64, "fine": "1234",
            "metadata": { CARD: "x", "note": CARD, "4242424242424242": 1 },
            "return_url": "https://example.org/?card=4111%201111%201111%201111",
            "a/b": { "deep": [[], ["x", { "~": CARD }]] },
        });
        let body = json::parse(body.to_string().as_bytes()).unwrap();
        let errors = told(outside("/", &[]).and_in(&body));
        let expected = ["/a~1b/deep/1/1/~0", "/metadata", "/metadata/note", "/reference", "/return_url"];
        assert_eq!(places(&errors, "pointer"), expected);
        let text = json::parse(format!("\"{CARD}\"").as_bytes()).unwrap();
        assert_eq!(places(&told(outside("/", &[]).and_in(&text)), "pointer"), [""]);
    }

    #[test]
    fn a_query_is_searched_as_it_is_meant() {
        for query in [
            "note=4111111111111111",
            "limit=1&note=4111+1111+1111+1111",
            "note=%34111%2D1111%E2%80%931111%201111",
            "note=%EF%BC%944111111111111111%FF&note=4111111111111111",
        ] {
            let query = query.replace("%944111", "%94111");
            assert_eq!(places(&told(outside(&format!("/?{query}"), &[])), "parameter"), ["note"], "{query}");
        }
        for query in ["4111111111111111", "x4111-1111-1111-1111=1"] {
            let name = places(&told(outside(&format!("/?{query}"), &[])), "parameter");
            assert!(name[0].ends_with("****"), "{name:?}");
        }
        assert!(told(outside("/?created_from=2026-11-24T12:34:56.123456Z&limit=100", &[])).is_empty());
    }

    #[test]
    fn headers_are_searched_but_for_random_ones() {
        let found = outside(
            "/",
            &[
                ("x-order-note", CARD),
                ("x-order-note", CARD),
                ("idempotency-key", "order-4111111111111111"),
                ("x-4111111111111111", "1"),
                ("referer", "https://example.org/?card=4111%201111-11111111"),
                ("cookie", "a=b; c=４１１１１１１１１１１１１１１１"),
                ("content-length", "100"),
                ("traceparent", "00-41111111111111111111111111111111-4111111111111111-01"),
                ("authorization", CARD),
                ("x-b3-spanid", "4111111111111111"),
            ],
        );
        let mut names = places(&told(found), "header");
        names.sort();
        assert_eq!(names, ["Cookie", "Idempotency-Key", "Referer", "X-****************", "X-Order-Note"]);
    }

    #[test]
    fn what_else_is_wrong_is_told_as_well_but_not_of_the_same_place() {
        let wrong = |place: &str, code| FieldError {
            place: Place::Pointer(place.to_owned()),
            code,
            detail: "is wrong".to_owned(),
        };
        let body = json::parse(format!(r#"{{"reference":"{CARD}"}}"#).as_bytes()).unwrap();
        let read = Err::<(), _>(Problem::validation(vec![
            wrong("/amount", FieldCode::Required),
            wrong("/reference", FieldCode::TooLong),
        ]));
        let problem = outside("/", &[]).and_in(&body).or_refuse(read).unwrap_err();
        let body: Value = serde_json::from_slice(&problem.body("")).unwrap();
        let errors: Vec<_> = body["errors"].as_array().unwrap().iter().map(|error| &error["code"]).collect();
        assert_eq!(errors, ["required", "card_number_refused"]);
        assert_eq!(body["detail"], "2 fields are not valid; see errors.");
    }
}
