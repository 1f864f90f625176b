//! `/v1/payments`: headers, bodies and parameters become what the use cases take, and back.

use crate::answer::{PaymentBody, payment_location};
use crate::app::payments::{self, Create, CreateError, Created};
use crate::http::error::{Code, FieldError, Place, Problem};
use crate::http::extract::MoneyPost;
use crate::http::json::{Fields, Json};
use crate::http::list::{self, Query};
use crate::middleware::auth::Caller;
use crate::middleware::limits::Latest;
use crate::middleware::shed::Slot;
use crate::middleware::trace::RequestTrace;
use crate::state::App;
use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::id::PaymentId;
use domain::money::{Amount, AmountError, Currency, MAX_AMOUNT, Money};
use domain::payment::{CaptureMethod, Customer, MAX_METADATA_ENTRIES, Metadata, NewPayment, Payment};
use domain::text::{
    Description, Email, MetadataKey, MetadataValue, PaymentMethod, PersonName, Reference, ReturnUrl,
    StatementDescriptor, TextError,
};
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;
use validator::{Validate, ValidationError, ValidationErrors, ValidationErrorsKind};

/// How soon an open operation is worth asking about again, in seconds.
const ASK_AGAIN: u32 = 1;

/// `POST /v1/payments`
///
/// # Errors
/// See the table of problems.
pub async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Extension(RequestTrace(trace_id)): Extension<RequestTrace>,
    Extension(slot): Extension<Slot>,
    Extension(Latest(latest)): Extension<Latest>,
    post: MoneyPost,
) -> Result<Response, Problem> {
    let request = read_new_payment(post.body)?;
    let create = Create { caller, trace_id, key: post.key, request, wait: post.prefer.wait(), latest, slot };
    let mut response = match payments::create(&app, create).await {
        Ok(created) => told(created)?,
        Err(CreateError::Store(error)) => return Err(error.into()),
        Err(CreateError::Misconfigured) => {
            let detail =
                "The payment provider does not take the service's credentials. Its operators are told.";
            return Err(Problem::passing(Code::ProviderMisconfigured, detail, 10));
        }
        Err(lost @ CreateError::Lost) => return Err(Problem::fault(&lost)),
    };
    if let Some(applied) = post.prefer.applied() {
        response.headers_mut().insert("preference-applied", applied);
    }
    Ok(response)
}

fn told(created: Created) -> Result<Response, Problem> {
    Ok(match created {
        Created::Answered { answer, replayed } => {
            let status = StatusCode::from_u16(answer.status).map_err(|error| Problem::fault(&error))?;
            let problem = status.is_client_error();
            let content_type = if problem { "application/problem+json" } else { "application/json" };
            let mut response = (status, [(header::CONTENT_TYPE, content_type)], answer.body).into_response();
            if let Some(location) = answer.location {
                set(&mut response, header::LOCATION, &location);
            }
            mark_replayed(&mut response, replayed);
            response
        }
        Created::Accepted { payment, replayed } => {
            let mut response = object(StatusCode::ACCEPTED, &payment)?;
            set(&mut response, header::LOCATION, &payment_location(&payment));
            response.headers_mut().insert(header::RETRY_AFTER, ASK_AGAIN.into());
            mark_replayed(&mut response, replayed);
            response
        }
        Created::InProgress => {
            let detail =
                "The first request with this key is still being served. Send it again a little later.";
            Problem::passing(Code::RequestInProgress, detail, ASK_AGAIN).into_response()
        }
        Created::KeyReused => {
            let detail = "This key was used for another request. Use a new key for a new request.";
            Problem::new(Code::IdempotencyKeyReused, detail).into_response()
        }
        Created::ReferenceUsed(id) => Problem::reference_used(id).into_response(),
    })
}

fn mark_replayed(response: &mut Response, replayed: bool) {
    if replayed {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
}

fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

fn object(status: StatusCode, payment: &Payment) -> Result<Response, Problem> {
    let body = serde_json::to_vec(&PaymentBody::from(payment)).map_err(|error| Problem::fault(&error))?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response())
}

/// `GET /v1/payments/{id}`
///
/// # Errors
/// 404 also for another merchant's payment, and for an id that is no UUID.
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let absent = || Problem::new(Code::NotFound, "There is no such payment.");
    let Path(id) = id.map_err(|_| absent())?;
    // other spellings of a UUID are not what was given out
    let id = Uuid::try_parse(&id).ok().filter(|uuid| uuid.to_string() == id).ok_or_else(absent)?;
    let payment = app.store.find_payment(caller.merchant_id, PaymentId(id)).await?.ok_or_else(absent)?;
    object(StatusCode::OK, &payment)
}

/// `GET /v1/payments`
///
/// # Errors
/// 422 for an unknown, repeated or unreadable parameter.
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Query { filter, cursor, limit } = list::read(query.as_deref().unwrap_or_default())?;
    // one more than asked for tells whether there is a next page
    let mut page = app.store.list_payments(caller.merchant_id, &filter, cursor, i64::from(limit) + 1).await?;
    let more = page.len() > usize::from(limit);
    page.truncate(usize::from(limit));
    let next = page.last().filter(|_| more).map(|last| list::cursor(last.id, &filter));
    let data = page.iter().map(PaymentBody::from).collect();
    Ok(axum::Json(ListBody { data, next_cursor: next }).into_response())
}

/// A page.
#[derive(Debug, Serialize)]
struct ListBody<'a> {
    data: Vec<PaymentBody<'a>>,
    next_cursor: Option<String>,
}

/// The body of a create, field by field. What has a value of the right type is here, and `validator` judges it.
#[derive(Debug, Validate)]
struct CreateBody {
    #[validate(required, range(min = 1, max = MAX_AMOUNT, code = "out_of_range", message = "must be from 1 to 99999999 minor units"))]
    amount: Option<i64>,
    #[validate(required, custom(function = "check_currency"))]
    currency: Option<String>,
    #[validate(required, custom(function = "check_reference"))]
    reference: Option<String>,
    #[validate(required, custom(function = "check_payment_method"))]
    payment_method: Option<String>,
    #[validate(custom(function = "check_capture"))]
    capture: Option<String>,
    #[validate(custom(function = "check_description"))]
    description: Option<String>,
    #[validate(nested)]
    customer: CustomerFields,
    #[validate(custom(function = "check_statement_descriptor"))]
    statement_descriptor: Option<String>,
    #[validate(custom(function = "check_return_url"))]
    return_url: Option<String>,
}

#[derive(Debug, Validate)]
struct CustomerFields {
    #[validate(custom(function = "check_name"))]
    name: Option<String>,
    #[validate(custom(function = "check_email"))]
    email: Option<String>,
}

macro_rules! checks {
    ($($check:ident: $parse:path;)*) => {
        $(fn $check(text: &str) -> Result<(), ValidationError> {
            $parse(text).map(drop).map_err(|error| refused(text_code(&error), &error))
        })*
    };
}

checks! {
    check_reference: Reference::parse;
    check_payment_method: PaymentMethod::parse;
    check_description: Description::parse;
    check_statement_descriptor: StatementDescriptor::parse;
    check_return_url: ReturnUrl::parse;
    check_name: PersonName::parse;
    check_email: Email::parse;
}

fn check_currency(code: &str) -> Result<(), ValidationError> {
    Currency::parse(code).map(drop).map_err(|error| refused("unsupported", &error))
}

fn check_capture(name: &str) -> Result<(), ValidationError> {
    match CaptureMethod::parse(name) {
        Some(_) => Ok(()),
        None => Err(ValidationError::new("unsupported").with_message("must be automatic or manual".into())),
    }
}

fn refused(code: &'static str, error: &dyn std::fmt::Display) -> ValidationError {
    ValidationError::new(code).with_message(error.to_string().into())
}

const fn text_code(error: &TextError) -> &'static str {
    match error {
        TextError::TooShort { .. } => "too_short",
        TextError::TooLong { .. } => "too_long",
        TextError::Forbidden { .. } => "forbidden_character",
        TextError::Unsupported(_) => "unsupported",
    }
}

/// Reads a body and judges every field before it answers.
fn read_new_payment(body: Json) -> Result<NewPayment, Problem> {
    let mut errors = Vec::new();
    let mut fields = Fields::of(body, &mut errors);
    let body = CreateBody {
        amount: fields.integer("amount"),
        currency: fields.string("currency"),
        reference: fields.string("reference"),
        payment_method: fields.string("payment_method"),
        capture: fields.string("capture"),
        description: fields.string("description"),
        customer: {
            let mut customer = fields.object("customer");
            let read = CustomerFields { name: customer.string("name"), email: customer.string("email") };
            customer.finish();
            read
        },
        statement_descriptor: fields.string("statement_descriptor"),
        return_url: fields.string("return_url"),
    };
    let metadata = read_metadata(fields.object("metadata"));
    fields.finish();
    if let Err(refused) = body.validate() {
        collect(&refused, "", &mut errors);
    }
    let request = metadata.and_then(|metadata| body.into_request(metadata, &mut errors));
    match request {
        Some(request) if errors.is_empty() => Ok(request),
        _ => Err(Problem::validation(errors)),
    }
}

fn read_metadata(fields: Fields<'_>) -> Option<Metadata> {
    let (entries, errors) = fields.strings();
    let before = errors.len();
    if entries.len() > MAX_METADATA_ENTRIES {
        errors.push(FieldError {
            place: Place::Pointer("/metadata".to_owned()),
            code: "too_long",
            detail: format!("must have at most {MAX_METADATA_ENTRIES} entries; it has {}", entries.len()),
        });
        return None;
    }
    let mut metadata = Metadata::new();
    for (pointer, key, value) in entries {
        match (MetadataKey::parse(&key), MetadataValue::parse(&value)) {
            (Ok(key), Ok(value)) => {
                if metadata.insert(key, value).is_some() {
                    errors.push(FieldError {
                        place: Place::Pointer(pointer),
                        code: "unsupported",
                        detail: "its key is the same as another's once both are in NFC".to_owned(),
                    });
                }
            }
            (Err(error), _) => errors.push(FieldError {
                place: Place::Pointer("/metadata".to_owned()),
                code: text_code(&error),
                detail: format!("a key {error}"),
            }),
            (_, Err(error)) => errors.push(FieldError {
                place: Place::Pointer(pointer),
                code: text_code(&error),
                detail: error.to_string(),
            }),
        }
    }
    (errors.len() == before).then_some(metadata)
}

/// `validator`'s tree of errors as a list. Only codes and messages are taken: its parameters hold what was sent.
fn collect(refused: &ValidationErrors, at: &str, errors: &mut Vec<FieldError>) {
    for (field, kind) in refused.errors() {
        let pointer = format!("{at}/{field}");
        match kind {
            ValidationErrorsKind::Struct(inner) => collect(inner, &pointer, errors),
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    collect(inner, &format!("{pointer}/{index}"), errors);
                }
            }
            ValidationErrorsKind::Field(list) => {
                // a field of the wrong type is not missing as well
                let place = Place::Pointer(pointer);
                if errors.iter().any(|error| error.place == place) {
                    continue;
                }
                errors.extend(list.iter().map(|error| {
                    let (code, detail) = match error.code.as_ref() {
                        "out_of_range" => ("out_of_range", None),
                        "too_short" => ("too_short", None),
                        "too_long" => ("too_long", None),
                        "forbidden_character" => ("forbidden_character", None),
                        "required" => ("required", Some("must be there")),
                        _ => ("unsupported", None),
                    };
                    let detail = detail.map_or_else(|| error.message.clone().unwrap_or_default(), Into::into);
                    FieldError { place: place.clone(), code, detail: detail.into_owned() }
                }));
            }
        }
    }
}

impl CreateBody {
    /// What survives: values that cannot be wrong. `None` where `validator` has said why, or nearly: amounts and
    /// currencies are judged together here.
    fn into_request(self, metadata: Metadata, errors: &mut Vec<FieldError>) -> Option<NewPayment> {
        fn some<T, E>(text: Option<String>, parse: fn(&str) -> Result<T, E>) -> Option<Option<T>> {
            text.map(|text| parse(&text).ok()).map_or(Some(None), |parsed| parsed.map(Some))
        }
        let amount = Amount::new(self.amount?).ok()?;
        let currency = Currency::parse(&self.currency?).ok()?;
        let money = match Money::new(amount, currency) {
            Ok(money) => money,
            Err(error @ (AmountError::NotAMultipleOfTen | AmountError::OutOfRange)) => {
                errors.push(FieldError {
                    place: Place::Pointer("/amount".to_owned()),
                    code: "out_of_range",
                    detail: error.to_string(),
                });
                return None;
            }
        };
        Some(NewPayment {
            money,
            reference: Reference::parse(&self.reference?).ok()?,
            payment_method: PaymentMethod::parse(&self.payment_method?).ok()?,
            capture: self
                .capture
                .map_or(Some(CaptureMethod::default()), |name| CaptureMethod::parse(&name))?,
            description: some(self.description, Description::parse)?,
            customer: Customer {
                name: some(self.customer.name, PersonName::parse)?,
                email: some(self.customer.email, Email::parse)?,
            },
            statement_descriptor: some(self.statement_descriptor, StatementDescriptor::parse)?,
            return_url: some(self.return_url, ReturnUrl::parse)?,
            metadata,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::json::parse;
    use domain::idempotency::Fingerprint;

    fn read(body: &str) -> Result<NewPayment, Vec<(String, String)>> {
        read_new_payment(parse(body.as_bytes()).unwrap()).map_err(|problem| {
            let body: serde_json::Value = serde_json::from_slice(&problem.body("")).unwrap();
            let errors = body["errors"].as_array().unwrap().iter();
            errors
                .map(|e| (e["pointer"].as_str().unwrap().to_owned(), e["code"].as_str().unwrap().to_owned()))
                .collect()
        })
    }

    const LEAST: &str =
        r#""amount":1000,"currency":"EUR","reference":"order-1","payment_method":"pm_card_visa""#;

    fn errors_of(fields: &str) -> Vec<(String, String)> {
        read(&format!("{{{LEAST},{fields}}}")).unwrap_err()
    }

    #[test]
    fn the_least_that_is_needed() {
        assert!(read(&format!("{{{LEAST}}}")).is_ok());
        let missing = read("{}").unwrap_err();
        let expected = ["/amount", "/currency", "/payment_method", "/reference"];
        assert_eq!(missing, expected.map(|pointer| (pointer.to_owned(), "required".to_owned())));
        assert_eq!(read("[]").unwrap_err()[0], (String::new(), "wrong_type".to_owned()));
    }

    #[test]
    fn every_field_is_judged_at_once() {
        let errors = read(
            r#"{"amount":0,"currency":"eur","reference":"","payment_method":"4242","capture":"later",
                "description":"a\u0000b","customer":{"name":"","email":"x","phone":"1"},"statement_descriptor":"42",
                "return_url":"/x","metadata":{"a":1,"":"x"},"extra":1}"#,
        )
        .unwrap_err();
        let expected = [
            ("/amount", "out_of_range"),
            ("/capture", "unsupported"),
            ("/currency", "unsupported"),
            ("/customer/email", "unsupported"),
            ("/customer/name", "too_short"),
            ("/customer/phone", "unknown_field"),
            ("/description", "forbidden_character"),
            ("/extra", "unknown_field"),
            ("/metadata", "too_short"),
            ("/metadata/a", "wrong_type"),
            ("/payment_method", "unsupported"),
            ("/reference", "too_short"),
            ("/return_url", "unsupported"),
            ("/statement_descriptor", "unsupported"),
        ];
        assert_eq!(errors, expected.map(|(pointer, code)| (pointer.to_owned(), code.to_owned())));
    }

    #[test]
    fn an_amount_is_an_integer_and_nothing_else() {
        for (amount, code) in [
            ("10.0", "wrong_type"),
            ("1e3", "wrong_type"),
            ("\"10\"", "wrong_type"),
            ("true", "wrong_type"),
            ("-1", "out_of_range"),
            ("100000000", "out_of_range"),
            ("99999999999999999999999", "out_of_range"),
            ("null", "required"),
        ] {
            let body =
                format!(r#"{{"amount":{amount},"currency":"EUR","reference":"r","payment_method":"pm_a"}}"#);
            assert_eq!(read(&body).unwrap_err(), [("/amount".to_owned(), code.to_owned())], "{amount}");
        }
        let dinar = r#"{"amount":1001,"currency":"KWD","reference":"r","payment_method":"pm_a"}"#;
        assert_eq!(read(dinar).unwrap_err(), [("/amount".to_owned(), "out_of_range".to_owned())]);
    }

    #[test]
    fn metadata_is_bounded() {
        let entries = |n: usize| (0..n).map(|i| format!("\"k{i}\":\"v\"")).collect::<Vec<_>>().join(",");
        assert!(read(&format!("{{{LEAST},\"metadata\":{{{}}}}}", entries(50))).is_ok());
        assert_eq!(
            errors_of(&format!("\"metadata\":{{{}}}", entries(51))),
            [("/metadata".to_owned(), "too_long".to_owned())]
        );
        assert_eq!(errors_of("\"metadata\":{\"é\":\"1\",\"e\u{301}\":\"2\"}").len(), 1, "one key in NFC");
    }

    #[test]
    fn what_makes_no_difference_makes_none() {
        let fingerprint = |body: &str| Fingerprint::of_payment(&read(body).unwrap());
        let plain = fingerprint(&format!("{{{LEAST}}}"));
        for same in [
            r#"{"payment_method":"pm_card_visa", "reference":"order-1",
                "currency":"EUR","amount":1000}"#
                .to_owned(),
            format!(
                r#"{{{LEAST},"capture":"automatic","description":null,"customer":{{}},"metadata":{{}}}}"#
            ),
            format!(r#"{{{LEAST},"customer":{{"name":null}},"metadata":null}}"#),
            LEAST.replace("order-1", "\\u006frder-1").replacen("\"amount", "{\"amount", 1) + "}",
        ] {
            assert_eq!(fingerprint(&same), plain, "{same}");
        }
        let composed = fingerprint(&format!(r#"{{{LEAST},"description":"caf\u00e9"}}"#));
        let decomposed = fingerprint(&format!(r#"{{{LEAST},"description":"cafe\u0301"}}"#));
        assert_eq!(composed, decomposed);
        assert_ne!(composed, plain);
    }
}
