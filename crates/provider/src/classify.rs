//! What an answer of the provider means: one table.

use crate::wire::ErrorObject;
use std::ops::RangeInclusive;

/// What an answer means for the request it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The object asked for.
    Object,
    /// The bank, or the provider, says no.
    Declined,
    /// The object is not in the state the request needs: what it is must be read.
    UnexpectedState,
    /// The key was used with other parameters.
    OtherParameters,
    /// The request itself is refused.
    Rejected,
    /// Our credentials are not taken.
    Misconfigured,
    /// Fewer requests, please. Nothing was executed.
    Throttled,
    /// Another request with the key is running, or something it depends on failed.
    Busy,
    /// A server error that will be answered again to the same key.
    StoredServerError,
    /// A server error.
    ServerError,
    /// Nothing this version knows.
    Unreadable,
}

enum When {
    Always,
    Type(&'static str),
    Code(&'static str),
    /// `Stripe-Should-Retry: false`
    Final,
}

struct Rule {
    status: RangeInclusive<u16>,
    when: When,
    meaning: Meaning,
}

const fn rule(status: RangeInclusive<u16>, when: When, meaning: Meaning) -> Rule {
    Rule { status, when, meaning }
}

/// The first rule that fits decides. Sources: Stripe, "Errors", "Advanced error handling", "Idempotent requests".
const TABLE: [Rule; 16] = [
    rule(200..=299, When::Always, Meaning::Object),
    rule(402..=402, When::Always, Meaning::Declined),
    rule(401..=401, When::Always, Meaning::Misconfigured),
    rule(403..=403, When::Always, Meaning::Misconfigured),
    rule(429..=429, When::Always, Meaning::Throttled),
    rule(409..=409, When::Always, Meaning::Busy),
    rule(424..=424, When::Always, Meaning::Busy),
    rule(400..=400, When::Type("idempotency_error"), Meaning::OtherParameters),
    rule(400..=400, When::Code("payment_intent_unexpected_state"), Meaning::UnexpectedState),
    rule(404..=404, When::Code("payment_intent_unexpected_state"), Meaning::UnexpectedState),
    rule(422..=422, When::Code("payment_intent_unexpected_state"), Meaning::UnexpectedState),
    rule(400..=400, When::Always, Meaning::Rejected),
    rule(404..=404, When::Always, Meaning::Rejected),
    rule(422..=422, When::Always, Meaning::Rejected),
    rule(500..=599, When::Final, Meaning::StoredServerError),
    rule(500..=599, When::Always, Meaning::ServerError),
];

/// What an answer means. `should_retry` is the provider's own word on it.
pub(crate) fn classify(status: u16, should_retry: Option<bool>, error: Option<&ErrorObject>) -> Meaning {
    let fits = |rule: &&Rule| {
        rule.status.contains(&status)
            && match rule.when {
                When::Always => true,
                When::Type(kind) => error.is_some_and(|e| e.kind.as_deref() == Some(kind)),
                When::Code(code) => error.is_some_and(|e| e.code.as_deref() == Some(code)),
                When::Final => should_retry == Some(false),
            }
    };
    TABLE.iter().find(fits).map_or(Meaning::Unreadable, |rule| rule.meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: &str, code: &str) -> ErrorObject {
        ErrorObject { kind: Some(kind.to_owned()), code: Some(code.to_owned()), ..ErrorObject::default() }
    }

    #[test]
    fn every_kind_of_answer_has_its_meaning() {
        let card = error("card_error", "card_declined");
        let other = error("invalid_request_error", "card_declined");
        let reused = error("idempotency_error", "");
        let state = error("invalid_request_error", "payment_intent_unexpected_state");
        let table: [(u16, Option<bool>, Option<&ErrorObject>, Meaning); 22] = [
            (200, None, None, Meaning::Object),
            (201, None, None, Meaning::Object),
            (402, None, Some(&card), Meaning::Declined),
            (402, None, Some(&other), Meaning::Declined),
            (400, None, Some(&other), Meaning::Rejected),
            (404, None, Some(&other), Meaning::Rejected),
            (422, None, None, Meaning::Rejected),
            (400, None, Some(&state), Meaning::UnexpectedState),
            (422, None, Some(&state), Meaning::UnexpectedState),
            (400, None, Some(&reused), Meaning::OtherParameters),
            (409, None, Some(&reused), Meaning::Busy),
            (424, None, None, Meaning::Busy),
            (500, None, None, Meaning::ServerError),
            (503, Some(true), None, Meaning::ServerError),
            (500, Some(false), None, Meaning::StoredServerError),
            (599, None, None, Meaning::ServerError),
            (429, None, Some(&other), Meaning::Throttled),
            (401, None, None, Meaning::Misconfigured),
            (403, None, None, Meaning::Misconfigured),
            (302, None, None, Meaning::Unreadable),
            (418, None, None, Meaning::Unreadable),
            (101, None, None, Meaning::Unreadable),
        ];
        for (status, should_retry, error, meaning) in table {
            assert_eq!(classify(status, should_retry, error), meaning, "{status} {should_retry:?} {error:?}");
        }
    }
}
