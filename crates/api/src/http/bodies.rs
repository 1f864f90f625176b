//! Bodies: JSON becomes what the use cases take, and every field that is wrong is told at once.

use crate::http::json::{Entry, Fields, Json};
use crate::problem::{FieldCode, FieldError, Place, Problem};
use crate::schema;
use domain::money::{Amount, AmountError, Currency, MAX_AMOUNT, Money};
use domain::payment::{CaptureMethod, Customer, MAX_METADATA_ENTRIES, Metadata, NewPayment};
use domain::refund::{NewRefund, RefundReason};
use domain::text::{
    Description, Email, MetadataValue, PaymentMethod, PersonName, Reference, ReturnUrl, StatementDescriptor,
    TextError,
};
use utoipa::ToSchema;
use validator::{Validate, ValidationError, ValidationErrors, ValidationErrorsKind};

/// The body of a create, field by field. What has a value of the right type is here, and `validator` judges it.
#[derive(Debug, Validate, ToSchema)]
#[schema(as = NewPayment, description = "What a payment is to be.")]
pub struct CreateBody {
    #[validate(required, range(min = 1, max = MAX_AMOUNT, code = "out_of_range", message = "must be from 1 to 99999999 minor units"))]
    #[schema(schema_with = schema::new_amount, required)]
    amount: Option<i64>,
    #[validate(required, custom(function = "check_currency"))]
    #[schema(schema_with = schema::currency, required)]
    currency: Option<String>,
    #[validate(required, custom(function = "check_reference"))]
    #[schema(schema_with = schema::reference, required)]
    reference: Option<String>,
    #[validate(required, custom(function = "check_payment_method"))]
    #[schema(schema_with = schema::payment_method, required)]
    payment_method: Option<String>,
    #[validate(custom(function = "check_capture"))]
    #[schema(schema_with = schema::new_capture)]
    capture: Option<String>,
    #[validate(custom(function = "check_description"))]
    #[schema(schema_with = schema::description)]
    description: Option<String>,
    #[validate(nested)]
    #[schema(nullable, required = false)]
    customer: CustomerFields,
    #[validate(custom(function = "check_statement_descriptor"))]
    #[schema(schema_with = schema::statement_descriptor)]
    statement_descriptor: Option<String>,
    #[validate(custom(function = "check_return_url"))]
    #[schema(schema_with = schema::return_url)]
    return_url: Option<String>,
    /// `None` if it was refused.
    #[schema(schema_with = schema::new_metadata)]
    metadata: Option<Metadata>,
}

/// Whom the merchant sells to.
#[derive(Debug, Validate, ToSchema)]
#[schema(as = NewCustomer, description = "Whom the merchant sells to. The provider never gets it.")]
struct CustomerFields {
    #[validate(custom(function = "check_name"))]
    #[schema(schema_with = schema::name)]
    name: Option<String>,
    #[validate(custom(function = "check_email"))]
    #[schema(schema_with = schema::email)]
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
    Currency::parse(code).map(drop).map_err(|error| refused(FieldCode::Unsupported, &error))
}

fn check_capture(name: &str) -> Result<(), ValidationError> {
    match CaptureMethod::parse(name) {
        Some(_) => Ok(()),
        None => Err(ValidationError::new(FieldCode::Unsupported.name())
            .with_message("must be automatic or manual".into())),
    }
}

fn check_reason(name: &str) -> Result<(), ValidationError> {
    match RefundReason::parse(name) {
        Some(_) => Ok(()),
        None => Err(ValidationError::new(FieldCode::Unsupported.name())
            .with_message("must be duplicate, fraudulent or requested_by_customer".into())),
    }
}

fn refused(code: FieldCode, error: &dyn std::fmt::Display) -> ValidationError {
    ValidationError::new(code.name()).with_message(error.to_string().into())
}

pub(super) const fn text_code(error: &TextError) -> FieldCode {
    match error {
        TextError::TooShort { .. } => FieldCode::TooShort,
        TextError::TooLong { .. } => FieldCode::TooLong,
        TextError::Forbidden { .. } => FieldCode::ForbiddenCharacter,
        TextError::Unsupported(_) => FieldCode::Unsupported,
    }
}

/// Reads a create, and judges every field before it answers.
///
/// # Errors
/// `validation_failed` with everything that is wrong.
pub fn read_new_payment(body: Json) -> Result<NewPayment, Problem> {
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
        metadata: read_metadata(fields.object("metadata")),
    };
    fields.finish();
    if let Err(refused) = body.validate() {
        collect(&refused, "", &mut errors)?;
    }
    match body.into_request(&mut errors) {
        Some(request) if errors.is_empty() => Ok(request),
        _ => Err(Problem::validation(errors)),
    }
}

/// The body of a capture.
#[derive(Debug, Validate, ToSchema)]
#[schema(as = NewCapture, description = "How much of the payment is to be captured.")]
pub struct CaptureBody {
    #[validate(range(min = 1, max = MAX_AMOUNT, code = "out_of_range", message = "must be from 1 to 99999999 minor units"))]
    #[schema(schema_with = schema::part)]
    amount: Option<i64>,
}

/// The body of a cancel, which has no fields.
#[derive(Debug, ToSchema)]
#[schema(as = NewCancel, description = "Nothing: a cancel has no fields.")]
pub struct CancelBody {}

/// The body of a refund.
#[derive(Debug, Validate, ToSchema)]
#[schema(as = NewRefund, description = "How much of the payment is to be given back, and why.")]
pub struct RefundBody {
    #[validate(range(min = 1, max = MAX_AMOUNT, code = "out_of_range", message = "must be from 1 to 99999999 minor units"))]
    #[schema(schema_with = schema::part)]
    amount: Option<i64>,
    #[validate(custom(function = "check_reason"))]
    #[schema(schema_with = schema::reason)]
    reason: Option<String>,
    #[schema(schema_with = schema::new_metadata)]
    metadata: Option<Metadata>,
}

/// Reads a capture.
///
/// # Errors
/// `validation_failed` with everything that is wrong.
pub fn read_capture(body: Json) -> Result<Option<Amount>, Problem> {
    let mut errors = Vec::new();
    let mut fields = Fields::of(body, &mut errors);
    let body = CaptureBody { amount: fields.integer("amount") };
    fields.finish();
    judge(&body, &mut errors)?;
    Ok(body.amount.and_then(|minor| Amount::new(minor).ok()))
}

/// Reads a cancel, which has no fields.
///
/// # Errors
/// `validation_failed` with everything that is wrong.
pub fn read_cancel(body: Json) -> Result<(), Problem> {
    let mut errors = Vec::new();
    Fields::of(body, &mut errors).finish();
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
}

/// Reads a refund.
///
/// # Errors
/// `validation_failed` with everything that is wrong.
pub fn read_refund(body: Json) -> Result<NewRefund, Problem> {
    let mut errors = Vec::new();
    let mut fields = Fields::of(body, &mut errors);
    let body = RefundBody {
        amount: fields.integer("amount"),
        reason: fields.string("reason"),
        metadata: read_metadata(fields.object("metadata")),
    };
    fields.finish();
    judge(&body, &mut errors)?;
    Ok(NewRefund {
        amount: body.amount.and_then(|minor| Amount::new(minor).ok()),
        reason: body.reason.as_deref().and_then(RefundReason::parse),
        metadata: body.metadata.unwrap_or_default(),
    })
}

/// Refuses what `validator` or the reading found wrong.
fn judge(body: &impl Validate, errors: &mut Vec<FieldError>) -> Result<(), Problem> {
    if let Err(refused) = body.validate() {
        collect(&refused, "", errors)?;
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation(std::mem::take(errors))) }
}

fn read_metadata(fields: Fields<'_>) -> Option<Metadata> {
    let (entries, errors) = fields.entries();
    let before = errors.len();
    if entries.len() > MAX_METADATA_ENTRIES {
        let detail = format!("must have at most {MAX_METADATA_ENTRIES} entries; it has {}", entries.len());
        errors.push(error_at("/metadata", FieldCode::TooLong, detail));
        return None;
    }
    let mut metadata = Metadata::new();
    for Entry { pointer, name, text } in entries {
        let value = match text.as_deref().map(MetadataValue::parse) {
            Some(Ok(value)) => Ok(value),
            Some(Err(error)) => Err((text_code(&error), error.to_string())),
            None => Err((FieldCode::WrongType, "must be a string".to_owned())),
        };
        match (name, value) {
            (Ok(key), Ok(value)) => {
                if metadata.insert(key, value).is_some() {
                    let detail = "its key is the same as another's once both are in NFC".to_owned();
                    errors.push(error_at(&pointer, FieldCode::Unsupported, detail));
                }
            }
            (Ok(_), Err((code, detail))) => errors.push(error_at(&pointer, code, detail)),
            // the pointer is the parent's here
            (Err(error), value) => {
                errors.push(error_at(&pointer, text_code(&error), format!("a key {error}")));
                if let Err((code, detail)) = value {
                    errors.push(error_at(&pointer, code, format!("the value of that key {detail}")));
                }
            }
        }
    }
    (errors.len() == before).then_some(metadata)
}

fn error_at(pointer: &str, code: FieldCode, detail: String) -> FieldError {
    FieldError { place: Place::Pointer(pointer.to_owned()), code, detail }
}

/// `validator`'s tree of errors as a list. Only codes and messages are taken: its parameters hold what was sent.
///
/// # Errors
/// 500 for a rule whose code is none of ours: a fault of this program, and not to be told as something else.
fn collect(refused: &ValidationErrors, at: &str, errors: &mut Vec<FieldError>) -> Result<(), Problem> {
    for (field, kind) in refused.errors() {
        let pointer = format!("{at}/{field}");
        match kind {
            ValidationErrorsKind::Struct(inner) => collect(inner, &pointer, errors)?,
            ValidationErrorsKind::List(items) => {
                for (index, inner) in items {
                    collect(inner, &format!("{pointer}/{index}"), errors)?;
                }
            }
            ValidationErrorsKind::Field(list) => {
                // a field of the wrong type is not missing as well
                let place = Place::Pointer(pointer);
                if errors.iter().any(|error| error.place == place) {
                    continue;
                }
                for error in list {
                    let code = FieldCode::parse(&error.code)
                        .ok_or_else(|| Problem::fault(&UnknownCode(error.code.clone().into_owned())))?;
                    let detail = match (code, &error.message) {
                        (FieldCode::Required, _) => "must be there".to_owned(),
                        (_, Some(message)) => message.clone().into_owned(),
                        (_, None) => code.meaning().to_owned(),
                    };
                    errors.push(FieldError { place: place.clone(), code, detail });
                }
            }
        }
    }
    Ok(())
}

/// A rule of `validator` that was written without one of our codes.
#[derive(Debug, thiserror::Error)]
#[error("a field was refused with the code {0}, which no caller knows")]
struct UnknownCode(String);

impl CreateBody {
    /// What survives: values that cannot be wrong. `None` where `validator` has said why, or nearly: amounts and
    /// currencies are judged together here.
    fn into_request(self, errors: &mut Vec<FieldError>) -> Option<NewPayment> {
        fn some<T, E>(text: Option<String>, parse: fn(&str) -> Result<T, E>) -> Option<Option<T>> {
            text.map(|text| parse(&text).ok()).map_or(Some(None), |parsed| parsed.map(Some))
        }
        let amount = Amount::new(self.amount?).ok()?;
        let currency = Currency::parse(&self.currency?).ok()?;
        let money = match Money::new(amount, currency) {
            Ok(money) => money,
            Err(error @ (AmountError::NotAMultipleOfTen | AmountError::OutOfRange)) => {
                errors.push(error_at("/amount", FieldCode::OutOfRange, error.to_string()));
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
            metadata: self.metadata?,
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

    fn errors(problem: &Problem) -> Vec<(String, String)> {
        let body: serde_json::Value = serde_json::from_slice(&problem.body("")).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        body["errors"].as_array().unwrap().iter().map(|e| (text(&e["pointer"]), text(&e["code"]))).collect()
    }

    fn tree(body: &str) -> Json {
        parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn a_capture_has_an_amount_or_nothing() {
        assert_eq!(read_capture(tree("{}")).unwrap(), None);
        assert_eq!(read_capture(tree(r#"{"amount":null}"#)).unwrap(), None);
        assert_eq!(read_capture(tree(r#"{"amount":5}"#)).unwrap(), Some(Amount::new(5).unwrap()));
        for (body, pointer, code) in [
            (r#"{"amount":0}"#, "/amount", "out_of_range"),
            (r#"{"amount":"5"}"#, "/amount", "wrong_type"),
            (r#"{"reason":"x"}"#, "/reason", "unknown_field"),
            ("[]", "", "wrong_type"),
        ] {
            let refused = read_capture(tree(body)).unwrap_err();
            assert_eq!(errors(&refused), [(pointer.to_owned(), code.to_owned())], "{body}");
        }
    }

    #[test]
    fn a_rule_without_a_code_of_ours_is_a_fault_and_no_other_refusal() {
        #[derive(Validate)]
        struct Body {
            #[validate(length(max = 1))]
            text: String,
        }
        let refused = judge(&Body { text: "long".to_owned() }, &mut Vec::new()).unwrap_err();
        assert_eq!(refused.status(), 500);
    }

    #[test]
    fn a_cancel_has_no_fields() {
        assert!(read_cancel(tree("{}")).is_ok());
        let refused = read_cancel(tree(r#"{"amount":1}"#)).unwrap_err();
        assert_eq!(errors(&refused), [("/amount".to_owned(), "unknown_field".to_owned())]);
    }

    #[test]
    fn a_refund_is_judged_field_by_field() {
        let refund = read_refund(tree(r#"{"amount":5,"reason":"duplicate","metadata":{"a":"b"}}"#)).unwrap();
        assert_eq!(refund.amount, Some(Amount::new(5).unwrap()));
        assert_eq!((refund.reason, refund.metadata.len()), (Some(RefundReason::Duplicate), 1));
        assert_eq!(read_refund(tree("{}")).unwrap(), NewRefund::default());
        let refused =
            read_refund(tree(r#"{"amount":-1,"reason":"regret","metadata":{"a":1},"x":0}"#)).unwrap_err();
        let expected = [
            ("/amount", "out_of_range"),
            ("/metadata/a", "wrong_type"),
            ("/reason", "unsupported"),
            ("/x", "unknown_field"),
        ];
        assert_eq!(errors(&refused), expected.map(|(at, code)| (at.to_owned(), code.to_owned())));
    }
}
