//! The parameters of a list, and its cursor.

use crate::http::error::{FieldError, Place, Problem};
use domain::id::PaymentId;
use domain::payment::Status;
use domain::text::Reference;
use percent_encoding::percent_decode_str;
use persistence::payments::Filter;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

/// How many objects a page has, unless the caller says so.
const DEFAULT_LIMIT: u8 = 20;
/// The most a page has.
const MAX_LIMIT: u8 = 100;

/// A list that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// What it is narrowed to.
    pub filter: Filter,
    /// Where the page before ended.
    pub cursor: Option<PaymentId>,
    /// How many.
    pub limit: u8,
}

/// Reads a query string.
///
/// # Errors
/// Every unknown, repeated or unreadable parameter, at once.
pub fn read(query: &str) -> Result<Query, Problem> {
    let mut errors = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    let mut filter =
        Filter { statuses: Vec::new(), open: false, reference: None, created_from: None, created_to: None };
    let (mut cursor_text, mut limit) = (None, DEFAULT_LIMIT);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name), decode(value)) else {
            errors.push(error("query", "unsupported", "is not UTF-8"));
            continue;
        };
        if name != "status" && seen.contains(&name) {
            errors.push(error(&name, "unsupported", "must not be repeated"));
            continue;
        }
        let read = match name.as_str() {
            "limit" => match value.parse::<u64>() {
                Ok(number) => match u8::try_from(number).ok().filter(|n| (1..=MAX_LIMIT).contains(n)) {
                    Some(number) => {
                        limit = number;
                        Ok(())
                    }
                    None => Err(("out_of_range", "must be from 1 to 100")),
                },
                Err(_) => Err(("wrong_type", "must be a number from 1 to 100")),
            },
            "cursor" => {
                cursor_text = Some(value);
                Ok(())
            }
            "status" => Status::parse(&value)
                .map(|status| filter.statuses.push(status))
                .ok_or(("unsupported", "must be a status of a payment")),
            "open" => match value.as_str() {
                "true" => {
                    filter.open = true;
                    Ok(())
                }
                "false" => Ok(()),
                _ => Err(("wrong_type", "must be true or false")),
            },
            "reference" => Reference::parse(&value)
                .map(|reference| filter.reference = Some(reference))
                .map_err(|_| ("unsupported", "must be what a reference can be")),
            "created_from" => time_of(&value).map(|at| filter.created_from = Some(at)),
            "created_to" => time_of(&value).map(|at| filter.created_to = Some(at)),
            _ => Err(("unknown_field", "is not a parameter of this list")),
        };
        if let Err((code, detail)) = read {
            errors.push(error(&name, code, detail));
        }
        seen.push(name);
    }
    if filter.statuses.is_empty() {
        filter.statuses = Status::ALL.to_vec();
    }
    filter.statuses.sort_by_key(|status| status.name());
    filter.statuses.dedup();
    // the filters are complete only now
    let cursor = cursor_text.and_then(|text| {
        let read = read_cursor(&text, &filter);
        if read.is_none() {
            errors.push(error("cursor", "unsupported", "is none that was given out for these filters"));
        }
        read
    });
    if errors.is_empty() { Ok(Query { filter, cursor, limit }) } else { Err(Problem::validation(errors)) }
}

fn error(name: &str, code: &'static str, detail: &str) -> FieldError {
    FieldError { place: Place::Parameter(name.to_owned()), code, detail: detail.to_owned() }
}

fn decode(text: &str) -> Option<String> {
    let spaces = text.replace('+', " ");
    percent_decode_str(&spaces).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

fn time_of(text: &str) -> Result<OffsetDateTime, (&'static str, &'static str)> {
    // a plus that was not escaped arrives as a blank, and a time has none
    let text = text.replace(' ', "+");
    OffsetDateTime::parse(&text, &Rfc3339)
        .ok()
        .filter(|at| (1..=9998).contains(&at.to_offset(time::UtcOffset::UTC).year()))
        .ok_or(("wrong_type", "must be a time of RFC 3339, such as 2026-01-31T12:00:00Z"))
}

/// Where a page ended: the last id, and a digest of the filters that it belongs to.
#[must_use]
pub fn cursor(last: PaymentId, filter: &Filter) -> String {
    format!("{}{}", last.0.simple(), filters_digest(filter))
}

fn read_cursor(text: &str, filter: &Filter) -> Option<PaymentId> {
    let (id, digest) = text.split_at_checked(32)?;
    let id = Uuid::try_parse(id).ok()?;
    (digest == filters_digest(filter)).then_some(PaymentId(id))
}

fn filters_digest(filter: &Filter) -> String {
    let mut hash = Sha256::new();
    for status in &filter.statuses {
        hash.update(status.name());
        hash.update([0]);
    }
    hash.update([u8::from(filter.open)]);
    for time in [filter.created_from, filter.created_to] {
        hash.update(time.map_or(i128::MIN, OffsetDateTime::unix_timestamp_nanos).to_be_bytes());
    }
    hash.update(filter.reference.as_ref().map_or("", |reference| reference.as_str()));
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(query: &str) -> Vec<(String, String)> {
        let problem = read(query).unwrap_err();
        let body: serde_json::Value = serde_json::from_slice(&problem.body("")).unwrap();
        let errors = body["errors"].as_array().unwrap().iter();
        errors
            .map(|e| (e["parameter"].as_str().unwrap().to_owned(), e["code"].as_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn parameters_are_read() {
        let query = read("").unwrap();
        assert_eq!((query.limit, query.cursor, query.filter.statuses.len()), (20, None, 6));
        let query = read("limit=5&status=failed&status=captured&open=true&reference=a%20b+c&created_from=2026-01-31T12:00:00%2B01:00").unwrap();
        assert_eq!(query.limit, 5);
        assert_eq!(query.filter.statuses, [Status::Captured, Status::Failed]);
        assert!(query.filter.open);
        assert_eq!(query.filter.reference.unwrap().as_str(), "a b c");
        assert!(query.filter.created_from.is_some());
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (query, name, code) in [
            ("limit=0", "limit", "out_of_range"),
            ("limit=101", "limit", "out_of_range"),
            ("limit=x", "limit", "wrong_type"),
            ("limit=1&limit=2", "limit", "unsupported"),
            ("page=2", "page", "unknown_field"),
            ("status=paid", "status", "unsupported"),
            ("open=1", "open", "wrong_type"),
            ("reference=", "reference", "unsupported"),
            ("created_to=yesterday", "created_to", "wrong_type"),
            ("cursor=x", "cursor", "unsupported"),
            ("cursor=", "cursor", "unsupported"),
            ("reference=%ff", "query", "unsupported"),
        ] {
            assert_eq!(refused(query), [(name.to_owned(), code.to_owned())], "{query}");
        }
        assert_eq!(refused("a=1&limit=0").len(), 2, "all at once");
    }

    #[test]
    fn a_cursor_belongs_to_its_filters() {
        let id = PaymentId(Uuid::now_v7());
        let failed = read("status=failed").unwrap().filter;
        let text = cursor(id, &failed);
        assert_eq!(read(&format!("status=failed&limit=1&cursor={text}")).unwrap().cursor, Some(id));
        assert_eq!(refused(&format!("cursor={text}")), [("cursor".to_owned(), "unsupported".to_owned())]);
    }

    proptest! {
        #[test]
        fn any_query_is_answered(query: String) {
            let _ = read(&query);
        }
    }
}
