//! A text in every field of every body.
//!
//! It is sent in all fields at once, and the answer says which of them refuse it. Then it is sent again where nothing was
//! said against it: there it must be taken, and read back in its published form.

use super::sender::Sender;
use super::texts::nfc;
use super::watch::Fault;
use crate::{Answer, RawRequest, payment};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The key under which a text stands in metadata.
const KEY: &str = "a value";
/// A field that nobody knows.
const UNKNOWN: &str = "nobody knows";
/// The most entries of metadata.
const ENTRIES: usize = 50;

/// Pointer, position, and whether what people write belongs there.
type Field = (&'static str, &'static str, bool);

const CREATE: [Field; 11] = [
    ("/amount", "create /amount", false),
    ("/currency", "create /currency", false),
    ("/reference", "create /reference", true),
    ("/payment_method", "create /payment_method", false),
    ("/capture", "create /capture", false),
    ("/description", "create /description", true),
    ("/customer/name", "create /customer/name", true),
    ("/customer/email", "create /customer/email", false),
    ("/statement_descriptor", "create /statement_descriptor", false),
    ("/return_url", "create /return_url", false),
    ("/metadata/a value", "create /metadata, value", true),
];
const CREATE_KEY: Field = ("/metadata", "create /metadata, key", true);
const REFUND: [Field; 3] = [
    ("/amount", "refund /amount", false),
    ("/reason", "refund /reason", false),
    ("/metadata/a value", "refund /metadata, value", true),
];
const REFUND_KEY: Field = ("/metadata", "refund /metadata, key", true);
const CAPTURE: [Field; 1] = [("/amount", "capture /amount", false)];

/// A POST that moves money.
pub(super) fn post(path: &str, body: &Value) -> RawRequest {
    RawRequest::new("POST", path).header("Idempotency-Key", Uuid::new_v4().to_string()).json(body.to_string())
}

/// A name as a JSON pointer has it (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A field that is unknown, and one whose name is the text.
fn and_unknown(mut body: Value, text: &str) -> Value {
    if let Some(body) = body.as_object_mut() {
        body.insert(UNKNOWN.to_owned(), json!(text));
        body.entry(text).or_insert_with(|| json!(text));
    }
    body
}

fn metadata(text: &str) -> Value {
    let mut metadata = Map::from_iter([(KEY.to_owned(), json!(text))]);
    metadata.entry(text).or_insert_with(|| json!("a key"));
    metadata.into()
}

/// Whether an unknown field or parameter is told of. A name that should not be repeated is not, because it is no name or
/// might be a card number; then it is told of at `parent`, or masked.
pub(super) fn names_unknown(errors: &BTreeMap<String, String>, name: &str, parent: &str) -> bool {
    errors.contains_key(name)
        || errors.get(parent).is_some_and(|code| code == "unknown_field")
        || errors.values().any(|code| code == "card_number_refused")
}

/// Sends a body in which the text is everywhere. Gives the fields that nothing was said against.
async fn everywhere(
    sender: &Sender<'_>,
    path: &str,
    body: Value,
    text: &str,
    fields: &[Field],
    key: Option<Field>,
    unknown: [&'static str; 2],
) -> Option<Vec<&'static str>> {
    let answer = sender.ask(&post(path, &and_unknown(body, text)), text).await?;
    let errors = answer.errors();
    let refuses = |pointer: &str| errors.contains_key(pointer);
    let mut open = Vec::new();
    let verdicts = fields.iter().map(|field| (*field, refuses(field.0)));
    // at the key itself, masked or not, or at the object
    let refuses_key = || errors.keys().any(|at| at.starts_with("/metadata") && at != "/metadata/a value");
    let of_key = key.map(|field| (field, refuses_key()));
    for ((pointer, position, is_text), is_refused) in verdicts.chain(of_key) {
        sender.count(position, !is_refused);
        if !is_refused {
            open.push(pointer);
        }
        if is_refused && is_text && sender.is_welcome {
            sender.blame(Fault::EmojiRefused, format_args!("{position}: {text:?}: {}", answer.json()));
        }
    }
    for (position, name) in unknown.into_iter().zip([UNKNOWN, text]) {
        let is_named = names_unknown(&errors, &format!("/{}", escaped(name)), "");
        sender.count(position, false);
        if answer.status != 422 || !is_named {
            sender.blame(Fault::Unnamed, format_args!("{position}: {text:?}: {}", answer.json()));
        }
    }
    Some(open)
}

/// Sends what must be taken, and gives what can be read afterwards.
async fn taken(sender: &Sender<'_>, path: &str, body: &Value, text: &str) -> Option<Value> {
    let created = sender.ask(&post(path, body), text).await?;
    if !matches!(created.status, 201 | 202) {
        sender.blame(Fault::NotTaken, format_args!("{body}: {}", created.json()));
        return None;
    }
    let location = created.header("location").to_owned();
    let read = sender.ask(&RawRequest::new("GET", location), text).await?;
    Some(read.json())
}

/// Through a create, and a look at the list for its reference.
pub(super) async fn create(sender: &Sender<'_>, text: &str) -> Option<Value> {
    let mut all = json!({
        "amount": text, "currency": text, "reference": text, "payment_method": text, "capture": text,
        "description": text, "customer": { "name": text, "email": text }, "statement_descriptor": text,
        "return_url": text, "metadata": metadata(text),
    });
    if let Some(customer) = all["customer"].as_object_mut() {
        customer.entry(text).or_insert_with(|| json!(text));
    }
    let unknown = ["create, unknown field", "create, unknown field's name"];
    let open = everywhere(sender, "/v1/payments", all, text, &CREATE, Some(CREATE_KEY), unknown).await?;

    let mut body = payment(&format!("order-{}", Uuid::new_v4()));
    for pointer in &open {
        match *pointer {
            "/customer/name" => body["customer"]["name"] = json!(text),
            "/customer/email" => body["customer"]["email"] = json!(text),
            "/metadata/a value" => body["metadata"][KEY] = json!(text),
            "/metadata" => body["metadata"][text] = json!(text_or(text, &open)),
            field => body[&field[1..]] = json!(text),
        }
    }
    let read = taken(sender, "/v1/payments", &body, text).await?;
    let published = nfc(text);
    for pointer in &open {
        match *pointer {
            "/metadata" => sender.compare(
                "/metadata, key",
                text,
                text_or(&published, &open),
                &read["metadata"][&published],
            ),
            field => sender.compare(field, text, &published, read.pointer(field).unwrap_or(&Value::Null)),
        }
    }
    if open.contains(&"/reference") {
        let found = sender.ask(&sender.list_by_reference(text), text).await?.json();
        let ids: Vec<&Value> =
            found["data"].as_array().into_iter().flatten().map(|payment| &payment["id"]).collect();
        if ids != [&read["id"]] {
            sender.blame(Fault::Changed, format_args!("not found by its reference: {text:?}: {found}"));
        }
    }
    Some(read)
}

/// What stands under a key: the text itself, if that may be.
fn text_or<'t>(text: &'t str, open: &[&str]) -> &'t str {
    if open.contains(&"/metadata/a value") { text } else { "a key" }
}

/// Through a refund of a payment; `is_carried_out`: also one that is taken.
pub(super) async fn refund(
    sender: &Sender<'_>,
    payment: &str,
    text: &str,
    is_carried_out: bool,
) -> Option<()> {
    let path = format!("/v1/payments/{payment}/refunds");
    let all = json!({ "amount": text, "reason": text, "metadata": metadata(text) });
    let unknown = ["refund, unknown field", "refund, unknown field's name"];
    let open = everywhere(sender, &path, all, text, &REFUND, Some(REFUND_KEY), unknown).await?;
    if is_carried_out {
        let mut body = json!({ "amount": 1, "metadata": {} });
        if open.contains(&"/metadata/a value") {
            body["metadata"][KEY] = json!(text);
        }
        if open.contains(&"/metadata") {
            body["metadata"][text] = json!(text_or(text, &open));
        }
        let read = taken(sender, &path, &body, text).await?;
        for (key, value) in body["metadata"].as_object().into_iter().flatten() {
            let expected = nfc(value.as_str().unwrap_or_default());
            sender.compare("refund /metadata", text, &expected, &read["metadata"][nfc(key)]);
        }
    }
    Some(())
}

/// Texts as keys and values of one object's metadata, as many at once as there may be.
pub(super) async fn in_metadata(
    sender: &Sender<'_>,
    path: &str,
    body: &Value,
    texts: &[String],
) -> Option<()> {
    for texts in texts.chunks(ENTRIES) {
        let mut body = body.clone();
        body["metadata"] = texts.iter().map(|text| (text.clone(), json!(text))).collect::<Map<_, _>>().into();
        if let Some(reference) = body.get_mut("reference") {
            *reference = json!(format!("order-{}", Uuid::new_v4()));
        }
        let read = taken(sender, path, &body, &texts[0]).await?;
        for text in texts {
            let published = nfc(text);
            sender.compare("metadata", text, &published, &read["metadata"][&published]);
        }
    }
    Some(())
}

/// Through the capture and the cancel of a payment, neither of which ever happens.
pub(super) async fn capture_and_cancel(sender: &Sender<'_>, payment: &str, text: &str) -> Option<()> {
    let path = |verb| format!("/v1/payments/{payment}/{verb}");
    let unknown = ["capture, unknown field", "capture, unknown field's name"];
    let amount = json!({ "amount": text });
    everywhere(sender, &path("capture"), amount, text, &CAPTURE, None, unknown).await?;
    let unknown = ["cancel, unknown field", "cancel, unknown field's name"];
    everywhere(sender, &path("cancel"), json!({}), text, &[], None, unknown).await?;
    Some(())
}

/// Whether an answer says that its request moved money, or would have.
pub(super) fn is_success(answer: &Answer) -> bool {
    answer.status < 300
}
