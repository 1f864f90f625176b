//! The caller's idempotency key (IETF draft "The Idempotency-Key HTTP Header Field"), and the fingerprint that tells
//! the same request from another.

use crate::money::Amount;
use crate::payment::{CaptureMethod, Metadata, NewPayment};
use crate::refund::{NewRefund, RefundReason};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The longest key, in characters.
pub const MAX_KEY_LENGTH: usize = 255;

/// A caller's key: 1 to 255 visible ASCII characters. It belongs to the merchant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(String);

/// The header is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 1 to 255 visible ASCII characters, bare or as a whole quoted string (RFC 8941, section 3.3.3)"
)]
pub struct InvalidKey;

impl IdempotencyKey {
    /// Reads a header's value, bare or quoted; both forms are the same key.
    ///
    /// # Errors
    /// Too long, empty, not visible ASCII, or a quoted string that does not end where the value ends.
    pub fn parse(value: &[u8]) -> Result<Self, InvalidKey> {
        let text = std::str::from_utf8(value).map_err(|_| InvalidKey)?;
        let key = match text.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => text.to_owned(),
        };
        let visible = key.bytes().all(|b| b.is_ascii_graphic());
        if visible && (1..=MAX_KEY_LENGTH).contains(&key.len()) { Ok(Self(key)) } else { Err(InvalidKey) }
    }

    /// The key, without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// RFC 8941, section 4.2.5, after the opening quote.
fn unquote(quoted: &str) -> Result<String, InvalidKey> {
    let mut key = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    loop {
        match rest.next() {
            Some('"') if rest.as_str().is_empty() => return Ok(key),
            Some('\\') => match rest.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(InvalidKey),
            },
            Some('"') | None => return Err(InvalidKey),
            Some(other) => key.push(other),
        }
    }
}

/// A digest of everything that makes two requests the same: the method, the path and the typed body.
///
/// The first byte is the version of the canonical form, so that a stored fingerprint stays comparable when the form
/// changes. A field that is absent, or has its default, is not part of it: that is why a new optional field changes no
/// old fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 33]);

const VERSION: u8 = 1;

impl Fingerprint {
    /// Of `POST /v1/payments`.
    #[must_use]
    pub fn of_payment(request: &NewPayment) -> Self {
        let mut fields = Fields::new("POST", "/v1/payments");
        fields.put("amount", request.money.amount().get().to_string());
        fields.put("currency", request.money.currency().code());
        fields.put("reference", request.reference.as_str());
        fields.put("payment_method", request.payment_method.as_str());
        if request.capture != CaptureMethod::default() {
            fields.put("capture", request.capture.name());
        }
        fields.put_some("description", request.description.as_ref().map(super::text::Description::as_str));
        fields.put_some("customer.name", request.customer.name.as_ref().map(super::text::PersonName::as_str));
        fields.put_some("customer.email", request.customer.email.as_ref().map(super::text::Email::as_str));
        fields.put_some(
            "statement_descriptor",
            request.statement_descriptor.as_ref().map(super::text::StatementDescriptor::as_str),
        );
        fields.put_some("return_url", request.return_url.as_ref().map(super::text::ReturnUrl::as_str));
        fields.put_metadata(&request.metadata);
        fields.digest()
    }

    /// Of `POST /v1/payments/{id}/capture`. `path` as it was sent: it names the payment.
    #[must_use]
    pub fn of_capture(path: &str, amount: Option<Amount>) -> Self {
        let mut fields = Fields::new("POST", path);
        fields.put_amount(amount);
        fields.digest()
    }

    /// Of `POST /v1/payments/{id}/cancel`.
    #[must_use]
    pub fn of_cancel(path: &str) -> Self {
        Fields::new("POST", path).digest()
    }

    /// Of `POST /v1/payments/{id}/refunds`.
    #[must_use]
    pub fn of_refund(path: &str, request: &NewRefund) -> Self {
        let mut fields = Fields::new("POST", path);
        fields.put_amount(request.amount);
        fields.put_some("reason", request.reason.map(RefundReason::name));
        fields.put_metadata(&request.metadata);
        fields.digest()
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The canonical form: names in order, each name and value behind its length, so that no two different requests are
/// written alike.
struct Fields<'a>(BTreeMap<Cow<'a, str>, Cow<'a, str>>);

impl<'a> Fields<'a> {
    fn new(method: &'a str, path: &'a str) -> Self {
        let mut fields = Self(BTreeMap::new());
        fields.put(":method", method);
        fields.put(":path", path);
        fields
    }

    fn put(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Cow<'a, str>>) {
        self.0.insert(name.into(), value.into());
    }

    fn put_some(&mut self, name: &'a str, value: Option<&'a str>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn put_amount(&mut self, amount: Option<Amount>) {
        if let Some(amount) = amount {
            self.put("amount", amount.get().to_string());
        }
    }

    fn put_metadata(&mut self, metadata: &'a Metadata) {
        for (key, value) in metadata {
            self.put(format!("metadata.{}", key.as_str()), value.as_str());
        }
    }

    fn digest(&self) -> Fingerprint {
        let mut hash = Sha256::new();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            hash.update(text.len().to_string());
            hash.update(":");
            hash.update(text.as_bytes());
        }
        let mut bytes = [VERSION; 33];
        for (to, from) in bytes.iter_mut().skip(1).zip(hash.finalize()) {
            *to = from;
        }
        Fingerprint(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::{State, tests::payment};
    use crate::text::{Description, MetadataKey, MetadataValue};
    use proptest::prelude::*;

    fn key(value: &str) -> Result<String, InvalidKey> {
        IdempotencyKey::parse(value.as_bytes()).map(|key| key.0)
    }

    #[test]
    fn both_forms_are_the_same_key() {
        assert_eq!(key("8e03978e-40d5"), key("\"8e03978e-40d5\""));
        assert_eq!(key(r#""a\"b\\c""#), key(r#"a"b\c"#));
    }

    #[test]
    fn malformed_keys_are_refused() {
        let long = "k".repeat(256);
        for bad in [
            "",
            "\"\"",
            "a b",
            "\"a b\"",
            "\"open",
            "\"a\";p=1",
            "\"a\" ",
            "\"a\\x\"",
            "\"",
            "ключ",
            "a\u{7f}",
            &long,
        ] {
            assert_eq!(key(bad), Err(InvalidKey), "{bad}");
        }
        assert!(IdempotencyKey::parse(b"\xff").is_err());
        assert!(key(&"k".repeat(255)).is_ok());
    }

    fn request() -> NewPayment {
        payment(State::Processing, CaptureMethod::Automatic).request
    }

    #[test]
    fn the_form_of_version_1_does_not_change() {
        // stored fingerprints must stay comparable: if this fails, make a version 2 beside it
        let hex: String = Fingerprint::of_payment(&request()).0.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "012d56407561c7c061b9b29a719908136b9aa2d5fdeb5f9714334b03e0926ae302");
    }

    #[test]
    fn every_field_makes_a_difference() {
        let base = Fingerprint::of_payment(&request());
        let mut manual = request();
        manual.capture = CaptureMethod::Manual;
        let mut described = request();
        described.description = Some(Description::parse("tea").unwrap());
        let mut noted = request();
        noted.metadata.insert(MetadataKey::parse("a").unwrap(), MetadataValue::parse("b").unwrap());
        for other in [manual, described, noted] {
            assert_ne!(Fingerprint::of_payment(&other), base);
        }
    }

    #[test]
    fn what_is_done_to_a_payment_differs_by_payment_verb_and_fields() {
        let amount = |minor| Some(Amount::new(minor).unwrap());
        let refund = |amount, reason| NewRefund { amount, reason, metadata: Metadata::new() };
        let all = [
            Fingerprint::of_capture("/v1/payments/1/capture", None),
            Fingerprint::of_capture("/v1/payments/1/capture", amount(1)),
            Fingerprint::of_capture("/v1/payments/1/capture", amount(2)),
            Fingerprint::of_capture("/v1/payments/2/capture", None),
            Fingerprint::of_cancel("/v1/payments/1/cancel"),
            Fingerprint::of_refund("/v1/payments/1/refunds", &refund(None, None)),
            Fingerprint::of_refund("/v1/payments/1/refunds", &refund(amount(1), None)),
            Fingerprint::of_refund("/v1/payments/1/refunds", &refund(None, Some(RefundReason::Duplicate))),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all.iter().skip(at + 1).all(|other| other != one), "{at}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_answered(bytes: Vec<u8>) {
            if let Ok(key) = IdempotencyKey::parse(&bytes) {
                prop_assert!((1..=255).contains(&key.as_str().len()));
                let quoted = format!("\"{}\"", key.as_str().replace('\\', "\\\\").replace('"', "\\\""));
                prop_assert_eq!(IdempotencyKey::parse(quoted.as_bytes()), Ok(key));
            }
        }

        #[test]
        fn where_one_field_ends_and_the_next_begins_makes_a_difference(a in "[a-z]{1,4}", b in "[a-z]{1,4}", cut in 0..3usize) {
            let joined = format!("{a}{b}");
            let other = joined.split_at(cut.min(joined.len() - 1) + 1);
            prop_assume!(other.0 != a && !other.1.is_empty());
            let digest = |name: &str, value: &str| {
                let mut fields = Fields::new("POST", "/");
                fields.put(name, value);
                fields.digest()
            };
            prop_assert_ne!(digest(&a, &b), digest(other.0, other.1));
        }
    }
}
