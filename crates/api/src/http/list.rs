//! The parameters of lists, and their cursors.

use crate::http::bodies::text_code;
use crate::http::json::closest;
use crate::problem::{FieldCode, FieldError, Place, Problem};
use crate::schema;
use domain::id::PaymentId;
use domain::payment::Status;
use domain::text::{MetadataKey, Reference};
use percent_encoding::percent_decode_str;
use persistence::payments::Filter;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::HashSet;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema};
use utoipa::openapi::{Ref, RefOr, Required, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

/// How many objects a page has, unless the caller says so.
pub const DEFAULT_LIMIT: u8 = 20;
/// The most a page has.
pub const MAX_LIMIT: u8 = 100;

/// A page, as callers see it.
#[derive(Debug, Serialize)]
pub struct ListBody<T> {
    data: Vec<T>,
    next_cursor: Option<String>,
}

impl<T> ListBody<T> {
    /// A page and the cursor of the next.
    pub fn new(data: impl Iterator<Item = T>, next_cursor: Option<String>) -> Self {
        Self { data: data.collect(), next_cursor }
    }
}

impl<T: ToSchema> PartialSchema for ListBody<T> {
    fn schema() -> RefOr<Schema> {
        let cursor = "The cursor of the next page, or null if this is the last.";
        let next = schema::string_or_null().description(Some(cursor));
        ObjectBuilder::new()
            .property("data", ArrayBuilder::new().items(Ref::from_schema_name(T::name())))
            .property("next_cursor", next)
            .into()
    }
}

impl<T: ToSchema> ToSchema for ListBody<T> {
    fn name() -> Cow<'static, str> {
        format!("{}List", T::name()).into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(schemas);
    }
}

/// A page of a list: how much of it, and what its cursors belong to.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    limit: u8,
    /// A digest of the list and its filters.
    scope: String,
}

impl Page {
    /// How many rows to read: one more than asked for tells whether there is a next page.
    #[must_use]
    pub fn to_read(&self) -> i64 {
        i64::from(self.limit).saturating_add(1)
    }

    /// Cuts what was read down to the page, and makes the cursor of the next one from where its last object stands.
    pub fn next<T>(&self, rows: &mut Vec<T>, place: impl Fn(&T) -> u128) -> Option<String> {
        let more = rows.len() > usize::from(self.limit);
        rows.truncate(usize::from(self.limit));
        let last = rows.last().filter(|_| more)?;
        Some(format!("{:032x}{}", place(last), self.scope))
    }

    /// Where the page before ended, if the cursor is one of this list and its filters.
    fn place(&self, cursor: &str) -> Option<u128> {
        let (place, scope) = cursor.split_at_checked(32)?;
        let lower_hex = place.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (lower_hex && scope == self.scope).then(|| u128::from_str_radix(place, 16).ok()).flatten()
    }
}

fn digest(scope: &[u8]) -> String {
    Sha256::digest(scope).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Why a parameter is refused: a code, and what to do.
type Refused = (FieldCode, Cow<'static, str>);

const fn refused(code: FieldCode, detail: &'static str) -> Refused {
    (code, Cow::Borrowed(detail))
}

/// The parameters of a list, read one by one.
#[derive(Default)]
struct Parameters {
    errors: Vec<FieldError>,
    cursor: Option<String>,
    limit: Option<u8>,
}

impl Parameters {
    /// Reads a query string. `limit` and `cursor` are of every list; `take` is given those in `others`.
    fn read(
        query: &str,
        others: &[&'static str],
        may_repeat: &[&str],
        mut take: impl FnMut(&str, &str) -> Result<(), Refused>,
    ) -> Self {
        let mut read = Self::default();
        let mut seen = HashSet::new();
        let known = [&["limit", "cursor"], others].concat();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = decode(name).filter(|name| MetadataKey::parse(name).is_ok()) else {
                let detail = "has a parameter whose name is none; is it percent-encoded UTF-8?";
                read.errors.push(error("query", refused(FieldCode::UnknownField, detail)));
                continue;
            };
            let taken = if !known.contains(&name.as_str()) {
                let detail = "is not a parameter of this list";
                let meant = closest(&name, &known);
                let detail =
                    meant.map_or(detail.into(), |meant| format!("{detail}; did you mean {meant}?").into());
                Err((FieldCode::UnknownField, detail))
            } else if !seen.insert(name.clone()) && !may_repeat.contains(&name.as_str()) {
                Err(refused(FieldCode::Unsupported, "must not be repeated"))
            } else {
                match (name.as_str(), decode(value)) {
                    (_, None) => Err(refused(FieldCode::Unsupported, "must be percent-encoded UTF-8")),
                    ("limit", Some(value)) => limit(&value).map(|limit| read.limit = Some(limit)),
                    ("cursor", Some(value)) => {
                        read.cursor = Some(value);
                        Ok(())
                    }
                    (other, Some(value)) => take(other, &value),
                }
            };
            if let Err(refused) = taken {
                read.errors.push(error(&name, refused));
            }
        }
        read
    }

    /// The page that was asked for, once it is known what its cursors belong to.
    fn page(mut self, scope: &[u8]) -> Result<(Option<u128>, Page), Problem> {
        let page = Page { limit: self.limit.unwrap_or(DEFAULT_LIMIT), scope: digest(scope) };
        let place = self.cursor.as_deref().map(|cursor| page.place(cursor));
        if place == Some(None) {
            let detail = "is none that was given out for these filters";
            self.errors.push(error("cursor", refused(FieldCode::Unsupported, detail)));
        }
        if self.errors.is_empty() {
            Ok((place.flatten(), page))
        } else {
            Err(Problem::validation(self.errors))
        }
    }
}

fn limit(value: &str) -> Result<u8, Refused> {
    let number: u64 =
        value.parse().map_err(|_| refused(FieldCode::WrongType, "must be a number from 1 to 100"))?;
    u8::try_from(number)
        .ok()
        .filter(|n| (1..=MAX_LIMIT).contains(n))
        .ok_or(refused(FieldCode::OutOfRange, "must be from 1 to 100"))
}

fn parameter(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

/// The parameters of every list, for the document.
impl IntoParams for Page {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(MAX_LIMIT))
            .default(Some(DEFAULT_LIMIT.into()));
        let cursor = ObjectBuilder::new().schema_type(Type::String);
        vec![
            parameter("limit", "How many objects a page has at most.", limit),
            parameter("cursor", "next_cursor of the page before, with the same filters.", cursor),
        ]
    }
}

/// Reads the query string of a list without filters: where the page before ended, and the page.
///
/// # Errors
/// Every unknown, repeated or unreadable parameter, at once.
pub fn read_page(query: &str, list: &str) -> Result<(Option<u128>, Page), Problem> {
    Parameters::read(query, &[], &[], |_, _| Ok(())).page(list.as_bytes())
}

/// A list of payments that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Query {
    /// What it is narrowed to.
    pub filter: Filter,
    /// Where the page before ended.
    pub cursor: Option<PaymentId>,
    /// How much of it.
    pub page: Page,
}

/// The parameters of the list of payments, for the document.
impl IntoParams for Query {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let status = ArrayBuilder::new().items(schema::payment_status()).min_items(Some(1));
        let open = ObjectBuilder::new().schema_type(Type::Boolean);
        let mut parameters = Page::into_params(place);
        parameters.extend([
            parameter("status", "Payments in this status. It may be repeated.", status),
            parameter(
                "open",
                "true: what is on its way, the payment itself, a capture, cancel or refund.",
                open,
            ),
            parameter("reference", "Payments with this reference.", schema::reference()),
            parameter("created_from", "Payments created then or later.", schema::any_time()),
            parameter("created_to", "Payments created before.", schema::any_time()),
        ]);
        parameters
    }
}

/// Reads the query string of the list of payments.
///
/// # Errors
/// Every unknown, repeated or unreadable parameter, at once.
pub fn read_payments_query(query: &str) -> Result<Query, Problem> {
    let mut filter =
        Filter { statuses: Vec::new(), open: false, reference: None, created_from: None, created_to: None };
    let others = ["status", "open", "reference", "created_from", "created_to"];
    let parameters = Parameters::read(query, &others, &["status"], |name, value| match name {
        "status" => Status::parse(value)
            .map(|status| filter.statuses.push(status))
            .ok_or(refused(FieldCode::Unsupported, "must be a status of a payment")),
        "open" => match value {
            "true" => {
                filter.open = true;
                Ok(())
            }
            "false" => Ok(()),
            _ => Err(refused(FieldCode::WrongType, "must be true or false")),
        },
        "reference" => Reference::parse(value)
            .map(|reference| filter.reference = Some(reference))
            .map_err(|error| (text_code(&error), error.to_string().into())),
        "created_from" => time_of(value).map(|at| filter.created_from = Some(at)),
        "created_to" => time_of(value).map(|at| filter.created_to = Some(at)),
        _ => Ok(()),
    });
    if filter.statuses.is_empty() {
        filter.statuses = Status::ALL.to_vec();
    }
    filter.statuses.sort_by_key(|status| status.name());
    filter.statuses.dedup();
    // the filters are complete only now
    let (place, page) = parameters.page(&scope(&filter))?;
    Ok(Query { filter, cursor: place.map(|at| PaymentId(Uuid::from_u128(at))), page })
}

fn error(name: &str, (code, detail): Refused) -> FieldError {
    FieldError { place: Place::Parameter(name.to_owned()), code, detail: detail.into_owned() }
}

/// A name or value of a query (WHATWG URL, section 5.1), but for a percent sign that encodes nothing: what was meant by
/// that, nobody knows.
fn decode(text: &str) -> Option<String> {
    let encodes = |after: &str| {
        let mut digits = after.bytes().take(2);
        digits.len() == 2 && digits.all(|digit| digit.is_ascii_hexdigit())
    };
    if !text.split('%').skip(1).all(encodes) {
        return None;
    }
    let spaces = text.replace('+', " ");
    percent_decode_str(&spaces).decode_utf8().ok().map(Cow::into_owned)
}

fn time_of(text: &str) -> Result<OffsetDateTime, Refused> {
    // a plus that was not escaped arrives as a blank, and a time has none
    let text = text.replace(' ', "+");
    OffsetDateTime::parse(&text, &Rfc3339)
        .ok()
        .filter(|at| (1..=9998).contains(&at.to_offset(time::UtcOffset::UTC).year()))
        .ok_or(refused(FieldCode::WrongType, "must be a time of RFC 3339, such as 2026-01-31T12:00:00Z"))
}

/// What tells one choice of filters from another.
fn scope(filter: &Filter) -> Vec<u8> {
    let mut scope = b"payments".to_vec();
    for status in &filter.statuses {
        scope.extend(status.name().as_bytes());
        scope.push(0);
    }
    scope.push(u8::from(filter.open));
    for time in [filter.created_from, filter.created_to] {
        scope.extend(time.map_or(i128::MIN, OffsetDateTime::unix_timestamp_nanos).to_be_bytes());
    }
    scope.extend(filter.reference.as_ref().map_or("", |reference| reference.as_str()).as_bytes());
    scope
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::MAX_ERRORS;
    use proptest::prelude::*;

    fn refused(query: &str) -> Vec<(String, String)> {
        let problem = read_payments_query(query).unwrap_err();
        let body: serde_json::Value = serde_json::from_slice(&problem.body("")).unwrap();
        let errors = body["errors"].as_array().unwrap().iter();
        errors
            .map(|e| (e["parameter"].as_str().unwrap().to_owned(), e["code"].as_str().unwrap().to_owned()))
            .collect()
    }

    #[test]
    fn parameters_are_read() {
        let query = read_payments_query("").unwrap();
        assert_eq!((query.page.limit, query.cursor, query.filter.statuses.len()), (20, None, 6));
        let query = read_payments_query("limit=5&status=failed&status=captured&open=true&reference=a%20b+c&created_from=2026-01-31T12:00:00%2B01:00").unwrap();
        assert_eq!(query.page.limit, 5);
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
            ("reference=", "reference", "too_short"),
            ("reference=%00", "reference", "forbidden_character"),
            ("reference=a%E2%80%AEb", "reference", "forbidden_character"),
            ("created_to=yesterday", "created_to", "wrong_type"),
            ("cursor=x", "cursor", "unsupported"),
            ("cursor=", "cursor", "unsupported"),
            ("reference=%ff", "reference", "unsupported"),
            ("reference=%zz", "reference", "unsupported"),
            ("reference=100%", "reference", "unsupported"),
            ("reference=%e", "reference", "unsupported"),
            ("%ff=1", "query", "unknown_field"),
            ("a%0ab=1", "query", "unknown_field"),
            ("=1", "query", "unknown_field"),
            ("limit%3d5", "limit=5", "unknown_field"),
        ] {
            assert_eq!(refused(query), [(name.to_owned(), code.to_owned())], "{query}");
        }
        assert_eq!(refused("a=1&limit=0").len(), 2, "all at once");
        let (long, many) = ("x".repeat(30_000), "&a=".repeat(10_000));
        assert_eq!(refused(&long), [("query".to_owned(), "unknown_field".to_owned())]);
        assert_eq!(refused(&many).len(), MAX_ERRORS);
        let problem = read_payments_query("crated_from=x").unwrap_err().body("");
        assert!(String::from_utf8(problem).unwrap().contains("did you mean created_from?"));
    }

    #[test]
    fn a_cursor_belongs_to_its_filters() {
        let id = Uuid::now_v7();
        let failed = read_payments_query("status=failed&limit=1").unwrap().page;
        let mut rows = vec![id.as_u128(), 0];
        let text = failed.next(&mut rows, |row| *row).unwrap();
        assert_eq!(rows.len(), 1, "the one more that was read is cut off");
        let next = read_payments_query(&format!("status=failed&limit=2&cursor={text}")).unwrap();
        assert_eq!(next.cursor, Some(PaymentId(id)));
        assert_eq!(refused(&format!("cursor={text}")), [("cursor".to_owned(), "unsupported".to_owned())]);
        assert!(read_page(&format!("cursor={text}"), "refunds 1").is_err());
    }

    #[test]
    fn the_last_page_has_no_next() {
        let (_, page) = read_page("limit=2", "events 1").unwrap();
        assert_eq!(page.next(&mut vec![1_u128, 2], |row| *row), None);
        assert_eq!(page.next(&mut Vec::new(), |row| *row), None);
        let cursor = page.next(&mut vec![1, 2, 3], |row| *row).unwrap();
        assert_eq!(read_page(&format!("cursor={cursor}"), "events 1").unwrap().0, Some(2));
        assert!(read_page(&format!("cursor={cursor}"), "events 2").is_err(), "of another payment");
        assert!(read_page("open=true", "events 1").is_err());
    }

    proptest! {
        #[test]
        fn any_query_is_answered(query: String) {
            let _ = read_payments_query(&query);
            let _ = read_page(&query, "refunds 1");
        }
    }
}
