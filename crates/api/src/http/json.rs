//! Reading a body: I-JSON (RFC 7493) first, then one object at a time, collecting every field error on the way.

use crate::problem::{Code, FieldError, Place, Problem};
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
    /// A number without fraction or exponent that fits.
    Integer(i64),
    /// An integer that does not fit.
    Huge,
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
    let mut reader = serde_json::Deserializer::from_str(text);
    // every string is decoded, so a lone surrogate is found in members that nobody reads as well
    let value = Depth(0).deserialize(&mut reader);
    value.and_then(|value| reader.end().map(|()| value)).map_err(|error| {
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
        Ok(i64::try_from(value).map_or(Json::Huge, Json::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(if value.abs() >= EXACT { Json::Huge } else { Json::Fraction })
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
    errors: &'e mut Vec<FieldError>,
}

impl<'e> Fields<'e> {
    /// The members of a body.
    pub fn of(body: Json, errors: &'e mut Vec<FieldError>) -> Self {
        let members = match body {
            Json::Object(members) => members,
            _ => {
                errors.push(error(String::new(), "wrong_type", "the body must be an object".to_owned()));
                Vec::new()
            }
        };
        Self { at: String::new(), members, errors }
    }

    fn pointer(&self, name: &str) -> String {
        pointer(&self.at, name)
    }

    /// A member that is there and not null.
    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.members.iter().position(|(member, _)| member == name)?;
        Some(self.members.swap_remove(at).1).filter(|value| *value != Json::Null)
    }

    fn wrong_type(&mut self, name: &str, expected: &str) {
        let pointer = self.pointer(name);
        self.errors.push(error(pointer, "wrong_type", format!("must be {expected}")));
    }

    /// An integer, written as one.
    pub fn integer(&mut self, name: &str) -> Option<i64> {
        match self.take(name)? {
            Json::Integer(value) => Some(value),
            Json::Huge => {
                let pointer = self.pointer(name);
                self.errors.push(error(pointer, "out_of_range", "is too large".to_owned()));
                None
            }
            _ => {
                self.wrong_type(name, "an integer without fraction, exponent or quotes");
                None
            }
        }
    }

    /// A string.
    pub fn string(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Json::String(value) => Some(value),
            _ => {
                self.wrong_type(name, "a string");
                None
            }
        }
    }

    /// The members of an object; none if it is absent.
    pub fn object(&mut self, name: &str) -> Fields<'_> {
        let at = self.pointer(name);
        let members = match self.take(name) {
            Some(Json::Object(members)) => members,
            None => Vec::new(),
            Some(_) => {
                self.wrong_type(name, "an object");
                Vec::new()
            }
        };
        Fields { at, members, errors: self.errors }
    }

    /// All members, as strings, each with its pointer. A member that is null is as if it were absent.
    pub fn strings(mut self) -> (Vec<(String, String, String)>, &'e mut Vec<FieldError>) {
        let mut entries = Vec::new();
        for (name, value) in std::mem::take(&mut self.members) {
            match value {
                Json::String(value) => entries.push((self.pointer(&name), name, value)),
                Json::Null => {}
                _ => self.wrong_type(&name, "a string"),
            }
        }
        (entries, self.errors)
    }

    /// Whatever was not taken is not known.
    pub fn finish(self) {
        for (name, _) in &self.members {
            let detail = "is not a field of this request".to_owned();
            self.errors.push(error(self.pointer(name), "unknown_field", detail));
        }
    }
}

fn error(pointer: String, code: &'static str, detail: String) -> FieldError {
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
            "[NaN]",
            "[01]",
            "{\"a\":1e400}",
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
            ("9223372036854775808", Json::Huge),
            ("123456789012345678901234567890", Json::Huge),
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
        let seen: Vec<_> = errors.iter().map(|e| (e.place.clone(), e.code)).collect();
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
