//! Reading a body: I-JSON (RFC 7493) first, then one object at a time, collecting every field error on the way.

use crate::problem::{Code, FieldCode, FieldError, Place, Problem};
use domain::text::{MetadataKey, TextError};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// How deep arrays and objects may be nested.
pub const MAX_DEPTH: usize = 32;
/// From here on a double has no fraction to lose, so what looks like a fraction is an integer out of any range.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON value as it was sent. Unlike other trees it keeps what matters for strictness: whether a number was written as
/// an integer, and the order of members.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number without fraction or exponent. One that does not fit is the nearest that does, out of every field's range.
    Integer(i64),
    /// Any other number.
    Fraction,
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object, without duplicate members.
    Object(Vec<(String, Json)>),
}

/// Reads a body.
///
/// # Errors
/// `invalid_utf8`, and `malformed_json` for everything that is no I-JSON.
pub fn parse(body: &[u8]) -> Result<Json, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::new(
            Code::InvalidUtf8,
            format!("The body is not UTF-8 from byte {} on.", error.valid_up_to()),
        )
    })?;
    if text.starts_with('\u{feff}') {
        let detail = "The body is not I-JSON (RFC 7493): it begins with a byte order mark.";
        return Err(Problem::new(Code::MalformedJson, detail));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    // every string is decoded, so a lone surrogate is found in members that nobody reads as well
    let value = Depth(0).deserialize(&mut reader);
    value.and_then(|value| reader.end().map(|()| value)).map_err(|error| {
        // the parser's own words and ours name rules and positions; only typed reading would quote what was sent
        Problem::new(Code::MalformedJson, format!("The body is not I-JSON (RFC 7493): {error}."))
    })
}

#[derive(Clone, Copy)]
struct Depth(usize);

impl Depth {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        if self.0 < MAX_DEPTH {
            Ok(Self(self.0.saturating_add(1)))
        } else {
            Err(E::custom(format_args!("nested deeper than {MAX_DEPTH}")))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Depth {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(match value.abs() {
            EXACT.. if value.is_sign_negative() => Json::Integer(i64::MIN),
            EXACT.. => Json::Integer(i64::MAX),
            _ => Json::Fraction,
        })
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let deeper = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(deeper)? {
            values.push(value);
        }
        Ok(Json::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let deeper = self.deeper()?;
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom("duplicate member"));
            }
            members.push((name, map.next_value_seed(deeper)?));
        }
        Ok(Json::Object(members))
    }
}

/// The pointer (RFC 6901) of a member of the object at `at`.
#[must_use]
pub fn pointer(at: &str, name: &str) -> String {
    format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// An object's members, taken one by one. What is wrong is collected, and the rest is read on.
pub struct Fields<'e> {
    at: String,
    members: Vec<(String, Json)>,
    known: Vec<&'static str>,
    errors: &'e mut Vec<FieldError>,
}

impl<'e> Fields<'e> {
    /// The members of a body.
    pub fn of(body: Json, errors: &'e mut Vec<FieldError>) -> Self {
        let members = match body {
            Json::Object(members) => members,
            _ => {
                errors.push(error(
                    String::new(),
                    FieldCode::WrongType,
                    "the body must be an object".to_owned(),
                ));
                Vec::new()
            }
        };
        Self { at: String::new(), members, known: Vec::new(), errors }
    }

    /// Where a field is.
    fn pointer(&self, name: &str) -> String {
        pointer(&self.at, name)
    }

    /// A member that is there and not null.
    fn take(&mut self, name: &'static str) -> Option<Json> {
        self.known.push(name);
        let at = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.swap_remove(at).1).filter(|value| *value != Json::Null)
    }

    fn wrong_type(&mut self, name: &'static str, expected: &str) {
        let pointer = self.pointer(name);
        self.errors.push(error(pointer, FieldCode::WrongType, format!("must be {expected}")));
    }

    /// An integer, written as one.
    pub fn integer(&mut self, name: &'static str) -> Option<i64> {
        match self.take(name)? {
            Json::Integer(value) => Some(value),
            _ => {
                self.wrong_type(name, "a positive integer without fraction, exponent or quotes");
                None
            }
        }
    }

    /// A string.
    pub fn string(&mut self, name: &'static str) -> Option<String> {
        match self.take(name)? {
            Json::String(value) => Some(value),
            _ => {
                self.wrong_type(name, "a string");
                None
            }
        }
    }

    /// The members of an object; none if it is absent.
    pub fn object(&mut self, name: &'static str) -> Fields<'_> {
        let at = self.pointer(name);
        let members = match self.take(name) {
            Some(Json::Object(members)) => members,
            None => Vec::new(),
            Some(_) => {
                self.wrong_type(name, "an object");
                Vec::new()
            }
        };
        Fields { at, members, known: Vec::new(), errors: self.errors }
    }

    /// All members, whose names are the caller's. One that is null is as if it were absent.
    pub fn entries(mut self) -> (Vec<Entry>, &'e mut Vec<FieldError>) {
        let members = std::mem::take(&mut self.members).into_iter();
        let entries = members.filter(|(_, value)| *value != Json::Null).map(|(name, value)| {
            let text = match value {
                Json::String(text) => Some(text),
                _ => None,
            };
            match MetadataKey::parse(&name) {
                Ok(key) => Entry { pointer: self.pointer(&name), name: Ok(key), text },
                Err(error) => Entry { pointer: self.at.clone(), name: Err(error), text },
            }
        });
        (entries.collect(), self.errors)
    }

    /// Whatever was not taken is not known. Its name is told if it is one that metadata could have: no longer, and
    /// nothing that is invisible or secret. Otherwise the error is its parent's.
    pub fn finish(self) {
        for (name, _) in &self.members {
            let (pointer, detail) = match MetadataKey::parse(name) {
                Ok(_) => {
                    let detail = "is not a field of this request";
                    let meant = closest(name, &self.known);
                    let detail =
                        meant.map_or(detail.to_owned(), |meant| format!("{detail}; did you mean {meant}?"));
                    (self.pointer(name), detail)
                }
                Err(error) => (self.at.clone(), format!("has a field that no request has: its name {error}")),
            };
            self.errors.push(error(pointer, FieldCode::UnknownField, detail));
        }
    }
}

/// A member whose name the caller chose.
pub struct Entry {
    /// The member's own, or its parent's if the name is none.
    pub pointer: String,
    /// The name.
    pub name: Result<MetadataKey, TextError>,
    /// The value, if it is a string.
    pub text: Option<String>,
}

/// The name that was most likely meant, by letters and digits alone: `returnUrl` is `return_url`.
pub(super) fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let letters = |name: &str| {
        name.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect::<String>()
    };
    let name = letters(name);
    known
        .iter()
        .map(|known| (strsim::osa_distance(&name, &letters(known)), *known))
        // one slip in three letters is a slip, more is another word
        .filter(|(slips, known)| slips.saturating_mul(3) <= known.len())
        .min()
        .map(|(_, known)| known)
}

fn error(pointer: String, code: FieldCode, detail: String) -> FieldError {
    FieldError { place: Place::Pointer(pointer), code, detail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(body: &[u8]) -> String {
        let problem = parse(body).unwrap_err();
        let body: serde_json::Value = serde_json::from_slice(&problem.body("")).unwrap();
        body["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_no_i_json_is_refused() {
        for body in [
            "",
            "{",
            "{} x",
            "\u{feff}{}",
            "{'a':1}",
            "{\"a\":1,}",
            "{\"a\":1,\"a\":2}",
            "{\"x\":{\"a\":1,\"a\":1}}",
            "{\"x\":\"\\ud800\"}",
            "{\"x\":[\"\\udc00\"]}",
            "{\"\\ud800\":1}",
            "{\"x\":[{\"\\udfff\\ud800\":1}]}",
            "{\"x\":[{\"a\":1,\"\\u0061\":1}]}",
            "[NaN]",
            "[01]",
            "{\"a\":1e400}",
            "{\"a\":-1e400}",
            &format!("{{\"a\":{}}}", "9".repeat(60_000)),
        ] {
            assert_eq!(refused(body.as_bytes()), "malformed_json", "{body}");
        }
        assert_eq!(refused(b"{\"a\":\"\xff\"}"), "invalid_utf8");
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(32).as_bytes()).is_ok());
        assert_eq!(refused(nested(33).as_bytes()), "malformed_json");
    }

    #[test]
    fn numbers_are_told_apart() {
        for (text, value) in [
            ("10", Json::Integer(10)),
            ("-1", Json::Integer(-1)),
            ("10.0", Json::Fraction),
            ("1e3", Json::Fraction),
            ("-0", Json::Fraction),
            ("9223372036854775808", Json::Integer(i64::MAX)),
            ("123456789012345678901234567890", Json::Integer(i64::MAX)),
            ("-123456789012345678901234567890", Json::Integer(i64::MIN)),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), value, "{text}");
        }
    }

    #[test]
    fn every_error_is_collected_at_once() {
        let body =
            parse(br#"{"amount":"10","x/y":1,"customer":{"name":3,"extra":null},"note":null}"#).unwrap();
        let mut errors = Vec::new();
        let mut fields = Fields::of(body, &mut errors);
        assert_eq!(fields.integer("amount"), None);
        assert_eq!(fields.string("note"), None, "null is as good as absent");
        let mut customer = fields.object("customer");
        assert_eq!(customer.string("name"), None);
        customer.finish();
        fields.finish();
        let seen: Vec<_> = errors.iter().map(|e| (e.place.clone(), e.code.name())).collect();
        for expected in [
            ("/amount", "wrong_type"),
            ("/customer/name", "wrong_type"),
            ("/customer/extra", "unknown_field"),
            ("/x~1y", "unknown_field"),
        ] {
            assert!(
                seen.contains(&(Place::Pointer(expected.0.to_owned()), expected.1)),
                "{expected:?} in {seen:?}"
            );
        }
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_name_that_was_meant_is_offered() {
        let known = ["amount", "currency", "payment_method", "return_url", "customer"];
        for (name, meant) in [
            ("amuont", Some("amount")),
            ("Amount", Some("amount")),
            ("amounts", Some("amount")),
            ("paymentMethod", Some("payment_method")),
            ("return-url", Some("return_url")),
            ("costumer", Some("customer")),
            ("card", None),
            ("phone", None),
            ("", None),
        ] {
            assert_eq!(closest(name, &known), meant, "{name}");
        }
    }

    #[test]
    fn a_name_that_is_none_is_not_repeated() {
        let long = "x".repeat(60_000);
        for name in ["", "a\u{202e}b", "\0", "\n", " ", long.as_str()] {
            let body = serde_json::json!({ "customer": { name: 1 } }).to_string();
            let mut errors = Vec::new();
            let mut fields = Fields::of(parse(body.as_bytes()).unwrap(), &mut errors);
            fields.object("customer").finish();
            fields.finish();
            let [error] = errors.as_slice() else { panic!("{errors:?}") };
            assert_eq!(error.place, Place::Pointer("/customer".to_owned()), "{name:?}");
            assert_eq!(error.code, FieldCode::UnknownField);
            assert!(error.detail.len() < 200 && !error.detail.chars().any(char::is_control), "{error:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body: Vec<u8>) {
            let _ = parse(&body);
        }

        #[test]
        fn any_string_comes_through(text: String) {
            let body = serde_json::to_vec(&text).unwrap();
            prop_assert_eq!(parse(&body).unwrap(), Json::String(text));
        }
    }
}
