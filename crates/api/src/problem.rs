//! Problem details (RFC 9457): every answer that is no success, in one shape, from one list of codes.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use domain::card;
use domain::id::PaymentId;
use domain::payment::{Payment, PendingOperation};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

macro_rules! codes {
    ($(
        $(#[$doc:meta])*
        $code:ident = $status:literal $name:literal $title:literal means $meaning:literal advice $advice:literal;
    )*) => {
        /// Every code there is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Code { $($(#[$doc])* $code,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// The status it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                let status: u16 = match self { $(Self::$code => $status,)* };
                StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            }

            /// The name callers see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// A short text that is the same whenever the code is answered.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$code => $title,)* }
            }

            /// What it means, for whoever is told it.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }

            /// What to do now, for whoever is told it.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$code => $advice,)* }
            }

            /// Reads a name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.name() == name)
            }
        }
    };
}

codes! {
    /// The body is no I-JSON (RFC 7493), or the request is no HTTP.
    MalformedJson = 400 "malformed_json" "The body is not valid JSON"
        means "The body is not I-JSON (RFC 7493): its syntax is wrong, a member appears twice, an escape is \
            half a character, a number is larger than any double, something follows the value, or it is \
            nested too deeply. Without a body that was read: the request is not well-formed HTTP."
        advice "Mend the program that writes the body. Nothing was done and the key is unused, so the mended \
            request may have the same key.";
    /// The body is not UTF-8.
    InvalidUtf8 = 400 "invalid_utf8" "The body is not valid UTF-8"
        means "The body holds bytes that are not UTF-8."
        advice "Send the text as UTF-8. Nothing was done and the key is unused, so the mended request may \
            have the same key.";
    /// A POST without `Idempotency-Key`.
    IdempotencyKeyMissing = 400 "idempotency_key_missing" "The Idempotency-Key header is missing"
        means "Every POST needs an Idempotency-Key header. Without one a repeated request could move money \
            twice."
        advice "Make a key for each thing that is to happen once, a UUID for example, keep it with the order, \
            and send it with every attempt.";
    /// An `Idempotency-Key` that is none, or two of them.
    IdempotencyKeyInvalid = 400 "idempotency_key_invalid" "The Idempotency-Key header is invalid"
        means "The header is not 1 to 255 visible ASCII characters, bare or as one quoted string, or it was \
            sent twice."
        advice "Send one Idempotency-Key header with a key of that form. Nothing was done.";
    /// No valid API key. All causes look alike.
    Unauthorized = 401 "unauthorized" "A valid API key is required"
        means "There is no API key, or it is mistyped, unknown, expired or revoked. Which of these is never \
            told."
        advice "Send the key as Authorization: Bearer. If it was right before, it was revoked or has expired: \
            ask for a new one. Nothing was done; afterwards send the request with the same Idempotency- \
            Key.";
    /// The provider, or the card's bank, said no.
    PaymentDeclined = 402 "payment_declined" "The payment was declined"
        means "The provider or the card's bank refused. A declined create ends the payment as failed; a \
            declined capture leaves it authorized, a declined cancel leaves it as it was."
        advice "Read failure.code and failure.decline_code. The same Idempotency-Key gets this same answer \
            for good. To try again, with another card for example, send a new request with a new key; the \
            reference of a failed payment is free again.";
    /// The provider, or the card's bank, did not take the money back.
    RefundDeclined = 402 "refund_declined" "The refund was declined"
        means "The provider did not take the refund. It is failed, and its amount counts as refunded no \
            longer."
        advice "Read failure.code of the member refund. The same Idempotency-Key gets this same answer for \
            good. To try again, send a new request with a new key.";
    /// The key may only read.
    Forbidden = 403 "forbidden" "The API key may not do this"
        means "The API key has the scope read, and the request would change something."
        advice "Use a key with the scope write. Nothing was done; the Idempotency-Key may be kept.";
    /// No such path or object.
    NotFound = 404 "not_found" "There is nothing here"
        means "No such path or object. Another merchant's object, and an id in any other spelling than the \
            one given out, look the same."
        advice "Check the path and the id, and that the API key belongs to the merchant who made the object. \
            Repeating the request changes nothing.";
    /// The path has other methods.
    MethodNotAllowed = 405 "method_not_allowed" "The method is not allowed here"
        means "The path exists, but not with this method. The Allow header has the methods that it takes."
        advice "Use one of the methods in Allow.";
    /// The first request with the key still runs.
    RequestInProgress = 409 "request_in_progress" "A request with this key is in progress"
        means "The first request with this Idempotency-Key is still being carried out."
        advice "Wait as long as Retry-After says and send the same request with the same key. Never send it \
            with a new key: it might happen twice.";
    /// A living payment has the reference.
    ReferenceAlreadyUsed = 409 "reference_already_used" "The reference is in use"
        means "Another payment has this reference and is neither failed nor canceled. The member payment_id \
            and the Location header name it."
        advice "Read that payment: most likely the order is already being paid. If a second payment is really \
            meant, send it with another reference, a suffix for example. The key is unused.";
    /// The payment's state does not allow it, or somebody else was faster.
    PaymentStateConflict = 409 "payment_state_conflict" "The payment's state does not allow this"
        means "A capture needs an authorized payment, a cancel an authorized one or one that requires \
            action, a refund a captured one, and only one capture or cancel is open at a time. The \
            members say how the payment stands."
        advice "Read the payment, decide again, and send what is still wanted with a new key.";
    /// More than 64 KiB.
    PayloadTooLarge = 413 "payload_too_large" "The body is too large"
        means "The body has more than 64 KiB."
        advice "Send less: metadata is for short notes. Nothing was done.";
    /// Something else than JSON.
    UnsupportedMediaType = 415 "unsupported_media_type" "The media type is not supported"
        means "The body was not declared as application/json, or declared in another charset than UTF-8, or it \
            is compressed."
        advice "Send Content-Type: application/json, and no Content-Encoding. Nothing was done.";
    /// One or more fields are wrong.
    ValidationFailed = 422 "validation_failed" "The request is not valid"
        means "One or more fields, parameters or members are wrong. The member errors names each of them, \
            with a code of its own."
        advice "Mend everything in errors at once. Nothing was done and the key is unused, so the mended \
            request may have the same key.";
    /// The key was used for another request.
    IdempotencyKeyReused = 422 "idempotency_key_reused" "The key was used for another request"
        means "This Idempotency-Key was used for a request with another method, path or body."
        advice "If this is a new request, give it a new key. If it was meant as a repetition, send exactly \
            what was sent first.";
    /// More than was authorised.
    CaptureAmountTooLarge = 422 "capture_amount_too_large" "The capture is larger than the payment"
        means "More was to be captured than was authorized."
        advice "Read the payment and capture at most its amount. Nothing was done and the key is unused.";
    /// More than is left, open refunds counted as refunded.
    RefundAmountTooLarge = 422 "refund_amount_too_large" "The refund is larger than what is left"
        means "More was to be refunded than is left. Refunds without an outcome are counted as if they had succeeded."
        advice "Read the payment and refund at most amount_captured less amount_refunded. Nothing was done \
            and the key is unused.";
    /// The merchant's own limit.
    RateLimited = 429 "rate_limited" "Too many requests"
        means "The merchant sent more requests per second than its limit."
        advice "Wait as long as Retry-After says, then send the same request with the same key. Nothing was \
            done. The headers RateLimit and RateLimit-Policy show the limit.";
    /// More than 32 KiB or 100 lines of headers.
    HeadersTooLarge = 431 "headers_too_large" "The headers are too large"
        means "The request has more than 100 header lines or more than 32 KiB of headers."
        advice "Send fewer or smaller headers; cookies are the usual cause. Nothing was done.";
    /// A fault of this program.
    Internal = 500 "internal" "Something went wrong"
        means "A fault of the service. What became of the request is not known."
        advice "Send the same request with the same key: it is carried out at most once. If it stays, tell \
            the operators the trace_id.";
    /// Too much to do.
    Overloaded = 503 "overloaded" "The service is overloaded"
        means "The service has too much to do right now and refused the request before it began."
        advice "Wait as long as Retry-After says, then send the same request with the same key, and back off \
            further if it is refused again.";
    /// The database cannot be used right now.
    Unavailable = 503 "unavailable" "The service is unavailable"
        means "The service cannot use its database right now."
        advice "Wait as long as Retry-After says, then send the same request with the same key: it is carried \
            out at most once.";
    /// No answer in time.
    Timeout = 503 "timeout" "The request took too long"
        means "There was no answer in time. What became of the request is not known."
        advice "Send the same request with the same key: it is carried out at most once, and answered from \
            where it stands.";
    /// This process is about to stop.
    Draining = 503 "draining" "The service is stopping"
        means "This process is about to stop and takes nothing new."
        advice "Send the same request with the same key; another process answers it.";
    /// The provider does not take our credentials.
    ProviderMisconfigured = 503 "provider_misconfigured" "The payment provider is not configured correctly"
        means "The payment provider does not take the service's credentials, so no new payment is begun. The \
            operators are told."
        advice "Wait as long as Retry-After says, then send the same request with the same key. Nothing was \
            done.";
}

macro_rules! field_codes {
    ($(
        $(#[$doc:meta])*
        $code:ident = $name:literal means $meaning:literal advice $advice:literal;
    )*) => {
        /// A code of one thing that is wrong, in the `errors` of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FieldCode { $($(#[$doc])* $code,)* }

        impl FieldCode {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// The name callers see.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => $name,)* }
            }

            /// What it means, for whoever is told it.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$code => $meaning,)* }
            }

            /// What to do now, for whoever is told it.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$code => $advice,)* }
            }

            /// Reads a name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.name() == name)
            }
        }
    };
}

field_codes! {
    /// Not there.
    Required = "required"
        means "The field is missing, or null, and has no default."
        advice "Send it.";
    /// There is no such field.
    UnknownField = "unknown_field"
        means "There is no such field or parameter here."
        advice "Leave it out, and look for a misspelt name.";
    /// Another type or form than the field has.
    WrongType = "wrong_type"
        means "The value has another type or form than the field. Amounts are integers without quotes, \
            fraction or exponent."
        advice "Send the type that the field has.";
    /// A number beyond its bounds, or between its steps.
    OutOfRange = "out_of_range"
        means "The number is too small, too large, or not one of the steps that the currency has."
        advice "Send a number within the bounds that detail names.";
    /// More characters, bytes or entries than the field takes.
    TooLong = "too_long"
        means "The text or list is longer than the field takes. Characters are counted as people see them."
        advice "Shorten it to the bound that detail names.";
    /// Fewer characters than the field takes.
    TooShort = "too_short"
        means "The text is shorter than the field takes."
        advice "Send at least as much as detail says, or leave an optional field out.";
    /// A character that the field does not take.
    ForbiddenCharacter = "forbidden_character"
        means "The text has a character that is invisible, reorders its surroundings, or that the field does \
            not take."
        advice "Remove the character that detail names by its number and place.";
    /// Readable, but none of what the field takes.
    Unsupported = "unsupported"
        means "The value is readable, but none that the field takes: a currency, a choice, a cursor of another list."
        advice "Send one of the values that the field takes; detail says which.";
    /// A card number, or what looks like one.
    CardNumberRefused = "card_number_refused"
        means "What was sent holds a card number, or what looks like one. It is refused wherever it is, and was \
            neither stored nor logged."
        advice "Never send card numbers here. Let the provider's library turn them into a token in the \
            browser, and send that. A number that is no card's, and looks like one by chance, may be sent in \
            another form: with a letter after every twelve digits, for example.";
}

/// How many errors are told. An answer is never much larger than its request.
pub const MAX_ERRORS: usize = 100;

/// Where a field error is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A JSON pointer (RFC 6901) into the body.
    Pointer(String),
    /// A query parameter.
    Parameter(String),
    /// A header.
    Header(Cow<'static, str>),
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub place: Place,
    /// What kind of wrong.
    pub code: FieldCode,
    /// What to do about it. Never the value.
    pub detail: String,
}

impl FieldError {
    /// Names are the caller's own, and may hold anything.
    fn to_json(&self) -> Value {
        let (kind, name) = match &self.place {
            Place::Pointer(pointer) => ("pointer", card::mask(pointer)),
            Place::Parameter(name) => ("parameter", card::mask(name)),
            Place::Header(name) => ("header", card::mask(name)),
        };
        json!({ kind: name, "code": self.code.name(), "detail": card::mask(&self.detail) })
    }
}

/// The members of a problem (RFC 9457, section 3.1), and ours. Thousands of them are written per second when there is too much
/// to do.
#[derive(Serialize)]
struct Body<'a> {
    code: &'a str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Value>,
    status: u16,
    title: &'a str,
    trace_id: &'a str,
    #[serde(rename = "type")]
    kind: fmt::Arguments<'a>,
    #[serde(flatten)]
    members: &'a Map<String, Value>,
}

/// An answer that is no success.
#[derive(Debug, Clone)]
pub struct Problem {
    code: Code,
    detail: String,
    errors: Vec<FieldError>,
    members: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem that tells the caller what to do.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), errors: Vec::new(), members: Map::new(), headers: Vec::new() }
    }

    /// Every field that is wrong, in the order of the caller's names, up to [`MAX_ERRORS`].
    #[must_use]
    pub fn validation(mut errors: Vec<FieldError>) -> Self {
        errors.sort_by(|a, b| a.place.cmp(&b.place));
        let detail = match errors.len() {
            1 => "One field is not valid; see errors.".to_owned(),
            n @ ..=MAX_ERRORS => format!("{n} fields are not valid; see errors."),
            n => format!("{n} fields are not valid; errors has the first {MAX_ERRORS} of them."),
        };
        errors.truncate(MAX_ERRORS);
        Self { errors, ..Self::new(Code::ValidationFailed, detail) }
    }

    /// Invalid fields, and more of them. Of a place that was named already, what comes now is told.
    #[must_use]
    pub fn with_errors(self, more: Vec<FieldError>) -> Self {
        let places: HashSet<&Place> = more.iter().map(|error| &error.place).collect();
        let others = self.errors.into_iter().filter(|error| !places.contains(&error.place));
        let mut errors: Vec<_> = others.collect();
        errors.extend(more);
        Self::validation(errors)
    }

    /// Something that passes: worth trying again after so many seconds.
    #[must_use]
    pub fn passing(code: Code, detail: impl Into<String>, seconds: u32) -> Self {
        Self::new(code, detail).header(header::RETRY_AFTER, seconds.into())
    }

    /// The time of a request is over before it could be answered.
    #[must_use]
    pub fn too_late() -> Self {
        Self::passing(Code::Timeout, "No answer in time. Send the request again with the same key.", 1)
    }

    /// Nothing has the id, or another merchant's object has it.
    #[must_use]
    pub fn no_such(noun: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {noun}."))
    }

    /// A living payment has the reference.
    #[must_use]
    pub fn reference_used(id: PaymentId) -> Self {
        let detail =
            "Another payment has this reference. Read it, or send another reference for a new payment.";
        let location = HeaderValue::try_from(format!("/v1/payments/{id}"));
        let problem = Self::new(Code::ReferenceAlreadyUsed, detail).with("payment_id", id.to_string().into());
        match location {
            Ok(location) => problem.header(header::LOCATION, location),
            Err(_) => problem,
        }
    }

    /// The payment's state does not allow what was asked for.
    #[must_use]
    pub fn state_conflict(payment: &Payment) -> Self {
        let status = payment.state.status().name();
        let pending = payment.state.pending().map(PendingOperation::name);
        let detail = match pending {
            Some(pending) => {
                format!("The payment is {status}, and a {pending} is on its way. Read it before you decide.")
            }
            None => format!("The payment is {status}. Read it before you decide."),
        };
        Self::new(Code::PaymentStateConflict, detail)
            .with("payment_id", payment.id.to_string().into())
            .with("payment_status", status.into())
            .with("pending_operation", pending.into())
    }

    /// More than there is.
    #[must_use]
    pub fn too_large(code: Code, most: i64) -> Self {
        let detail = format!("At most {most} minor units can be asked for.");
        let error = FieldError {
            place: Place::Pointer("/amount".to_owned()),
            code: FieldCode::OutOfRange,
            detail: format!("must be at most {most}"),
        };
        Self { errors: vec![error], ..Self::new(code, detail) }
    }

    /// Something is wrong with a header.
    #[must_use]
    pub fn of_header(code: Code, name: &'static str, kind: FieldCode, detail: &str) -> Self {
        let error = FieldError { place: Place::Header(name.into()), code: kind, detail: detail.to_owned() };
        Self { errors: vec![error], ..Self::new(code, format!("The {name} header {detail}.")) }
    }

    /// Adds an extension member (RFC 9457, section 3.2).
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status it is answered with.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// The headers it brings along.
    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The body.
    #[must_use]
    pub fn body(&self, trace_id: &str) -> Vec<u8> {
        let body = Body {
            code: self.code.name(),
            detail: &card::mask(&self.detail),
            errors: self.errors.iter().map(FieldError::to_json).collect(),
            status: self.code.status().as_u16(),
            title: self.code.title(),
            trace_id,
            kind: format_args!("/docs/errors/{}", self.code.name()),
            members: &self.members,
        };
        // of texts and numbers: nothing in it cannot be written
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// A fault of this program: everything into the log, nothing to the caller.
    #[must_use]
    pub fn fault(error: &dyn std::error::Error) -> Self {
        tracing::error!(%error, "a fault of this program");
        Self::new(
            Code::Internal,
            "A fault of the service. Nothing is known about the outcome; ask again with the same key.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_told_apart() {
        for (at, code) in Code::ALL.iter().enumerate() {
            assert!(Code::ALL.iter().skip(at + 1).all(|other| other.name() != code.name()));
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_eq!(Code::parse(code.name()), Some(*code));
        }
    }

    #[test]
    fn errors_are_counted_and_no_more_than_a_hundred_are_told() {
        let errors = |count: usize| {
            let error = |at: usize| FieldError {
                place: Place::Pointer(format!("/{at:03}")),
                code: FieldCode::UnknownField,
                detail: "is not a field".to_owned(),
            };
            let problem = Problem::validation((0..count).rev().map(error).collect());
            serde_json::from_slice::<Value>(&problem.body("")).unwrap()
        };
        assert_eq!(errors(100)["detail"], "100 fields are not valid; see errors.");
        let many = errors(101);
        assert_eq!(many["errors"].as_array().unwrap().len(), 100);
        assert_eq!(many["errors"][99]["pointer"], "/099");
        assert_eq!(many["detail"], "101 fields are not valid; errors has the first 100 of them.");
    }

    #[test]
    fn a_problem_says_where_and_what() {
        let errors = vec![FieldError {
            place: Place::Pointer("/customer/name".to_owned()),
            code: FieldCode::TooLong,
            detail: "must have at most 200 characters; it has 201".to_owned(),
        }];
        let body: Value = serde_json::from_slice(&Problem::validation(errors).body("abc")).unwrap();
        assert_eq!(body["type"], "/docs/errors/validation_failed");
        assert_eq!(body["status"], 422);
        assert_eq!(body["trace_id"], "abc");
        assert_eq!(body["errors"][0]["pointer"], "/customer/name");
        assert_eq!(body["errors"][0]["code"], "too_long");
    }
}
