//! Problem details (RFC 9457): every answer that is no success, in one shape, from one list of codes.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use domain::id::PaymentId;
use domain::payment::{Payment, PendingOperation};
use serde_json::{Map, Value, json};

macro_rules! codes {
    ($($(#[$doc:meta])* $code:ident = $status:literal $name:literal $title:literal;)*) => {
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
        }
    };
}

codes! {
    /// The body is no I-JSON (RFC 7493), or the request is no HTTP.
    MalformedJson = 400 "malformed_json" "The body is not valid JSON";
    /// The body is not UTF-8.
    InvalidUtf8 = 400 "invalid_utf8" "The body is not valid UTF-8";
    /// A POST without `Idempotency-Key`.
    IdempotencyKeyMissing = 400 "idempotency_key_missing" "The Idempotency-Key header is missing";
    /// An `Idempotency-Key` that is none, or two of them.
    IdempotencyKeyInvalid = 400 "idempotency_key_invalid" "The Idempotency-Key header is invalid";
    /// No valid API key. All causes look alike.
    Unauthorized = 401 "unauthorized" "A valid API key is required";
    /// The provider, or the card's bank, said no.
    PaymentDeclined = 402 "payment_declined" "The payment was declined";
    /// The provider, or the card's bank, did not take the money back.
    RefundDeclined = 402 "refund_declined" "The refund was declined";
    /// The key may only read.
    Forbidden = 403 "forbidden" "The API key may not do this";
    /// No such path or object.
    NotFound = 404 "not_found" "There is nothing here";
    /// The path has other methods.
    MethodNotAllowed = 405 "method_not_allowed" "The method is not allowed here";
    /// The first request with the key still runs.
    RequestInProgress = 409 "request_in_progress" "A request with this key is in progress";
    /// A living payment has the reference.
    ReferenceAlreadyUsed = 409 "reference_already_used" "The reference is in use";
    /// The payment's state does not allow it, or somebody else was faster.
    PaymentStateConflict = 409 "payment_state_conflict" "The payment's state does not allow this";
    /// More than 64 KiB.
    PayloadTooLarge = 413 "payload_too_large" "The body is too large";
    /// Something else than JSON.
    UnsupportedMediaType = 415 "unsupported_media_type" "The media type is not supported";
    /// One or more fields are wrong.
    ValidationFailed = 422 "validation_failed" "The request is not valid";
    /// The key was used for another request.
    IdempotencyKeyReused = 422 "idempotency_key_reused" "The key was used for another request";
    /// More than was authorised.
    CaptureAmountTooLarge = 422 "capture_amount_too_large" "The capture is larger than the payment";
    /// More than is left, open refunds counted as refunded.
    RefundAmountTooLarge = 422 "refund_amount_too_large" "The refund is larger than what is left";
    /// The merchant's own limit.
    RateLimited = 429 "rate_limited" "Too many requests";
    /// More than 32 KiB or 100 lines of headers.
    HeadersTooLarge = 431 "headers_too_large" "The headers are too large";
    /// A fault of this program.
    Internal = 500 "internal" "Something went wrong";
    /// Too much to do.
    Overloaded = 503 "overloaded" "The service is overloaded";
    /// The database cannot be used right now.
    Unavailable = 503 "unavailable" "The service is unavailable";
    /// No answer in time.
    Timeout = 503 "timeout" "The request took too long";
    /// This process is about to stop.
    Draining = 503 "draining" "The service is stopping";
    /// The provider does not take our credentials.
    ProviderMisconfigured = 503 "provider_misconfigured" "The payment provider is not configured correctly";
}

/// Where a field error is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A JSON pointer (RFC 6901) into the body.
    Pointer(String),
    /// A query parameter.
    Parameter(String),
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub place: Place,
    /// What kind of wrong.
    pub code: &'static str,
    /// What to do about it. Never the value.
    pub detail: String,
}

impl FieldError {
    fn to_json(&self) -> Value {
        match &self.place {
            Place::Pointer(pointer) => {
                json!({ "pointer": pointer, "code": self.code, "detail": self.detail })
            }
            Place::Parameter(name) => json!({ "parameter": name, "code": self.code, "detail": self.detail }),
        }
    }
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

    /// Every field that is wrong, in the order of the caller's names.
    #[must_use]
    pub fn validation(mut errors: Vec<FieldError>) -> Self {
        errors.sort_by(|a, b| format!("{:?}", a.place).cmp(&format!("{:?}", b.place)));
        let detail = match errors.len() {
            1 => "One field is not valid; see errors.".to_owned(),
            n => format!("{n} fields are not valid; see errors."),
        };
        Self { errors, ..Self::new(Code::ValidationFailed, detail) }
    }

    /// Something that passes: worth trying again after so many seconds.
    #[must_use]
    pub fn passing(code: Code, detail: impl Into<String>, seconds: u32) -> Self {
        Self::new(code, detail).header(header::RETRY_AFTER, seconds.into())
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
            code: "out_of_range",
            detail: format!("must be at most {most}"),
        };
        Self { errors: vec![error], ..Self::new(code, detail) }
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
        let mut body = json!({
            "type": format!("/docs/errors/{}", self.code.name()),
            "title": self.code.title(),
            "status": self.code.status().as_u16(),
            "detail": self.detail,
            "code": self.code.name(),
            "trace_id": trace_id,
        });
        if let Some(object) = body.as_object_mut() {
            if !self.errors.is_empty() {
                object.insert("errors".to_owned(), self.errors.iter().map(FieldError::to_json).collect());
            }
            object.extend(self.members.clone());
        }
        body.to_string().into_bytes()
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
        }
    }

    #[test]
    fn a_problem_says_where_and_what() {
        let errors = vec![FieldError {
            place: Place::Pointer("/customer/name".to_owned()),
            code: "too_long",
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
