//! Schemas of single values, for the OpenAPI document. Bounds and choices are those of the code that judges them.

use crate::problem::{Code, FieldCode};
use domain::event::EventType;
use domain::money::{Currency, MAX_AMOUNT};
use domain::payment::{CaptureMethod, MAX_METADATA_ENTRIES, Status};
use domain::refund::{RefundReason, RefundStatus};
use domain::text::{
    Description, Email, Length, MetadataKey, MetadataValue, PaymentMethod, PersonName, Reference, ReturnUrl,
    StatementDescriptor,
};
use serde_json::Value;
use utoipa::openapi::schema::{AdditionalProperties, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType};
use utoipa::openapi::{Object, Ref, Type};

/// No control characters, and something to see. What else text must not hold cannot be said in a pattern.
pub const VISIBLE: &str =
    r"^[^\u0000-\u001F\u007F-\u009F]*[^\s\u0000-\u001F\u007F-\u009F][^\u0000-\u001F\u007F-\u009F]*$";
const NO_CONTROLS: &str = r"^[^\u0000-\u001F\u007F-\u009F]*$";
/// What the service writes: UTC, six digits of fraction.
const TIME: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z$";

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// Any text, or null.
pub fn string_or_null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(or_null(Type::String))
}

fn integer() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::Integer)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
}

fn format(name: &str) -> Option<SchemaFormat> {
    Some(SchemaFormat::Custom(name.to_owned()))
}

fn or_null(of: Type) -> SchemaType {
    SchemaType::Array(vec![of, Type::Null])
}

fn choice(names: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    string().enum_values(Some(names.into_iter().map(Value::from).collect::<Vec<_>>()))
}

fn choice_or_null(names: impl IntoIterator<Item = &'static str>) -> ObjectBuilder {
    let names = names.into_iter().map(Value::from).chain([Value::Null]);
    string_or_null().enum_values(Some(names.collect::<Vec<_>>()))
}

/// The document counts code points. A text whose characters have several may be shorter there than it says here.
fn text(length: Length) -> ObjectBuilder {
    string().min_length(Some(length.min)).max_length(Some(length.max)).pattern(Some(VISIBLE))
}

fn as_people_see_them(length: Length) -> String {
    format!("{} to {} characters as people see them", length.min, length.max)
}

/// `status` of a payment.
pub fn payment_status() -> Object {
    choice(Status::ALL.map(Status::name)).build()
}

/// `status` of a refund.
pub fn refund_status() -> Object {
    choice(RefundStatus::ALL.map(RefundStatus::name)).build()
}

/// `pending_operation`.
pub fn pending_operation() -> Object {
    choice_or_null(["capture", "cancel"])
        .description(Some("What was asked for and has no outcome yet. Until then status keeps its value."))
        .build()
}

/// `amount` of what exists.
pub fn amount() -> Object {
    integer()
        .minimum(Some(1))
        .maximum(Some(MAX_AMOUNT))
        .description(Some("In the currency's minor unit: 1999 is 19.99 EUR, and 1999 JPY."))
        .build()
}

/// `amount` of a new payment.
pub fn new_amount() -> Object {
    let text = "In the currency's minor unit: 1999 is 19.99 EUR, and 1999 JPY. Written without quotes, fraction or \
                exponent. A multiple of 10 in currencies with three decimals, KWD for example.";
    ObjectBuilder::from(amount()).description(Some(text)).build()
}

/// `amount` of a capture or refund.
pub fn part() -> Object {
    ObjectBuilder::from(amount())
        .schema_type(or_null(Type::Integer))
        .description(Some("In the currency's minor unit. Without it, or null: everything that is left."))
        .build()
}

/// `amount_captured` and `amount_refunded`.
pub fn moved() -> Object {
    integer().minimum(Some(0)).maximum(Some(MAX_AMOUNT)).build()
}

/// Every currency that a payment can be made in.
pub fn currencies() -> Vec<String> {
    let letters = || 'A'..='Z';
    let pairs = letters().flat_map(|a| letters().map(move |b| (a, b)));
    pairs
        .flat_map(|(a, b)| letters().map(move |c| [a, b, c].iter().collect::<String>()))
        .filter(|code| Currency::parse(code).is_ok())
        .collect()
}

/// `currency`: the choices stand in the document once.
pub fn currency() -> Ref {
    Ref::from_schema_name("Currency")
}

/// What [`currency`] refers to.
pub fn currency_codes() -> Object {
    string()
        .description(Some("ISO 4217, upper case."))
        .enum_values(Some(currencies().into_iter().map(Value::from).collect::<Vec<_>>()))
        .build()
}

/// `capture` of what exists.
pub fn capture() -> Object {
    choice([CaptureMethod::Automatic, CaptureMethod::Manual].map(CaptureMethod::name)).build()
}

/// `capture` of a new payment.
pub fn new_capture() -> Object {
    choice_or_null([CaptureMethod::Automatic, CaptureMethod::Manual].map(CaptureMethod::name))
        .default(Some(CaptureMethod::default().name().into()))
        .description(Some("manual: the money is held until it is captured, wholly or in part, or canceled."))
        .build()
}

/// `reason` of a refund.
pub fn reason() -> Object {
    choice_or_null(RefundReason::ALL.map(RefundReason::name)).build()
}

/// `reference` of a new payment.
pub fn reference() -> Object {
    let length = as_people_see_them(Reference::LENGTH);
    text(Reference::LENGTH)
        .description(Some(format!(
            "The merchant's order number, {length}. No other payment can have it until this one has failed or is \
             canceled."
        )))
        .build()
}

/// `payment_method` of a new payment.
pub fn payment_method() -> Object {
    let Length { min, max, .. } = PaymentMethod::LENGTH;
    string()
        .pattern(Some(format!("^pm_[A-Za-z0-9_]{{{},{}}}$", min - "pm_".len(), max - "pm_".len())))
        .description(Some("The provider's token of a card. Never a card number."))
        .build()
}

/// `description` of a new payment.
pub fn description() -> Object {
    let length = as_people_see_them(Description::LENGTH);
    text(Description::LENGTH)
        .schema_type(or_null(Type::String))
        .description(Some(format!("What the payment is for, {length}.")))
        .build()
}

/// `customer.name` of a new payment.
pub fn name() -> Object {
    let length = as_people_see_them(PersonName::LENGTH);
    text(PersonName::LENGTH)
        .schema_type(or_null(Type::String))
        .description(Some(format!(
            "As its bearer writes it, {length}. A word is written in one script, and imitates no brand of cards or \
             payments in the letters of another."
        )))
        .build()
}

/// `customer.email` of a new payment.
pub fn email() -> Object {
    string_or_null()
        .format(format("email"))
        .max_length(Some(Email::LENGTH.max))
        .description(Some(format!(
            "At most {} bytes; international addresses are welcome.",
            Email::LENGTH.max
        )))
        .build()
}

/// `statement_descriptor` of a new payment.
pub fn statement_descriptor() -> Object {
    string_or_null()
        .min_length(Some(StatementDescriptor::LENGTH.min))
        .max_length(Some(StatementDescriptor::LENGTH.max))
        .pattern(Some(r#"^[ !#-&(-)+-;=?-\[\]-~]*[A-Za-z][ !#-&(-)+-;=?-\[\]-~]*$"#))
        .description(Some(
            "What the card's statement shows: ASCII with at least one letter, none of < > \\ ' \" *.",
        ))
        .build()
}

/// `return_url` of a new payment.
pub fn return_url() -> Object {
    string_or_null()
        .format(format("uri"))
        .max_length(Some(ReturnUrl::LENGTH.max))
        .description(Some(
            "Where the customer comes back to from the bank's page: an absolute https URL, or http to the loopback \
             host. A payment that needs the customer's action fails without it.",
        ))
        .build()
}

/// `metadata` of a new payment or refund.
pub fn new_metadata() -> Object {
    let value = ObjectBuilder::new()
        .schema_type(or_null(Type::String))
        .max_length(Some(MetadataValue::LENGTH.max))
        .pattern(Some(NO_CONTROLS))
        .description(Some(format!(
            "{}; null is as if it were absent.",
            as_people_see_them(MetadataValue::LENGTH)
        )))
        .build();
    ObjectBuilder::new()
        .schema_type(or_null(Type::Object))
        .property_names(Some(text(MetadataKey::LENGTH).build()))
        .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
        .max_properties(Some(MAX_METADATA_ENTRIES))
        .description(Some("The merchant's notes. They never leave the service."))
        .build()
}

/// `metadata` of what exists.
pub fn metadata() -> Object {
    ObjectBuilder::new()
        .additional_properties(Some(AdditionalProperties::RefOr(string().build().into())))
        .max_properties(Some(MAX_METADATA_ENTRIES))
        .description(Some("The merchant's notes."))
        .build()
}

/// `type` of a next action.
pub fn redirect() -> Object {
    choice(["redirect"]).build()
}

/// `type` of an event.
pub fn event_type() -> Object {
    choice(EventType::ALL.map(EventType::name)).build()
}

/// `sequence` of an event.
pub fn sequence() -> Object {
    integer()
        .minimum(Some(1))
        .description(Some("Counts from 1 for each payment; no number is missing."))
        .build()
}

/// `trace_id`.
pub fn trace_id() -> Object {
    string().pattern(Some("^[0-9a-f]{32}$")).description(Some("The Request-Id of the request.")).build()
}

/// `actor` of an event.
pub fn actor() -> Object {
    string().description(Some("The id of the API key that asked, or worker, or reconcile.")).build()
}

/// `data` of an event.
pub fn data() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("What belongs to this type of event; members may be added."))
        .build()
}

/// A time.
pub fn time() -> Object {
    string().format(format("date-time")).pattern(Some(TIME)).build()
}

/// A time that callers send.
pub fn any_time() -> Object {
    string().format(format("date-time")).description(Some("RFC 3339, with any offset.")).build()
}

/// `code` of a problem.
pub fn code() -> Object {
    choice(Code::ALL.iter().map(|code| code.name())).build()
}

/// `code` of a field error.
pub fn field_code() -> Object {
    choice(FieldCode::ALL.iter().map(|code| code.name())).build()
}

/// `status` of the readiness.
pub fn readiness() -> Object {
    choice(["ready", "unready"]).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pattern_of_a_token_is_that_of_the_code() {
        assert_eq!(payment_method().pattern.unwrap(), "^pm_[A-Za-z0-9_]{1,100}$");
        for (letters, taken) in [(0, false), (1, true), (100, true), (101, false)] {
            assert_eq!(PaymentMethod::parse(&format!("pm_{}", "a".repeat(letters))).is_ok(), taken);
        }
    }

    #[test]
    fn there_are_currencies_to_choose_from() {
        let currencies = currencies();
        assert!(currencies.len() > 100);
        for code in ["EUR", "JPY", "KWD", "USD"] {
            assert!(currencies.iter().any(|currency| currency == code));
        }
        for code in ["ISK", "UGX", "MGA", "XAU"] {
            assert!(!currencies.iter().any(|currency| currency == code));
        }
    }
}
