//! The OpenAPI document: what the handlers say about themselves, and what all of them have in common.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON object's index adds what is missing; the document is made once, before anything is served"
)]

use crate::http::{prefer, samples, table};
use crate::problem::{Code, MAX_ERRORS};
use crate::schema;
use domain::idempotency::MAX_KEY_LENGTH;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const DESCRIPTION: &str = "\
Takes, captures, cancels and refunds card payments, each of them once.

**Idempotency.** Every POST needs an `Idempotency-Key`: a value of your own, a UUID for example, that stands for one thing \
that is to happen once. Keep it with the order and send it with every attempt. If an answer is lost, or is a 202, 409 \
`request_in_progress`, 429, 500 or 503, send the same request with the same key: it is carried out at most once, and once it has \
settled you get the stored answer, byte for byte, marked with `Idempotent-Replayed: true`. Another request with the same key is \
refused, and a new key means a new request. A request that was refused before it began does not use its key up.

**Errors** are problem details (RFC 9457); each `code` has a page at `/docs/errors/{code}` that says what to do now. Fields that \
are wrong are named all at once, in `errors`.

**Conventions.** JSON in UTF-8, times in RFC 3339 and UTC, ids are UUIDs in lower case, amounts count the currency's minor \
unit. No field of an object is left out: one without a value is null. Members may be added, so ignore what you do not know. \
Whatever answers GET answers HEAD; any other method gets 405, with `Allow`. `Request-Id` is the id under which operators find \
a request.";

/// The document, as it is served and kept in `docs/openapi.json`.
#[must_use]
pub fn text() -> String {
    format!("{:#}\n", document())
}

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut document = json!(table(|methods| methods).into_openapi());
    document["info"] = json!({
        "title": "Paywright",
        "version": env!("CARGO_PKG_VERSION"),
        "description": DESCRIPTION,
        "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
    });
    document["tags"] = json!([
        { "name": "Payments", "description": "Money taken from a customer." },
        { "name": "Refunds", "description": "Money given back." },
        { "name": "Events", "description": "The audit trail." },
        { "name": "Health", "description": "For load balancers and orchestrators." },
    ]);
    add_components(&mut document["components"]);
    let optional = bodies_without_required_fields(&document["components"]["schemas"]);
    for (path, item) in members(&mut document["paths"]) {
        for (method, operation) in members(item) {
            complete(operation, path, method == "post", &optional);
        }
    }
    let paths = document["paths"].to_string();
    if let Some(responses) = document["components"]["responses"].as_object_mut() {
        responses.retain(|name, _| paths.contains(&format!("\"#/components/responses/{name}\"")));
    }
    document
}

/// The schemas of bodies that may be left out, by reference.
fn bodies_without_required_fields(schemas: &Value) -> Vec<String> {
    let schemas = schemas.as_object().into_iter().flatten();
    let optional = schemas.filter(|(name, schema)| name.starts_with("New") && schema["required"].is_null());
    optional.map(|(name, _)| format!("#/components/schemas/{name}")).collect()
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

fn list(value: &mut Value) -> Option<&mut Vec<Value>> {
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut()
}

/// What all operations have in common.
fn complete(operation: &mut Value, path: &str, moves_money: bool, optional: &[String]) {
    let of_merchants = path.starts_with("/v1/");
    let problems = problems(operation, path, moves_money);
    if of_merchants {
        operation["security"] = json!([{ "apiKey": [] }]);
    }
    if moves_money {
        if let Some(parameters) = list(&mut operation["parameters"]) {
            parameters.extend(["IdempotencyKey", "Prefer"].map(|name| reference("parameters", name)));
        }
        let examples = samples::examples(operation["operationId"].as_str().unwrap_or_default());
        let body = &mut operation["requestBody"];
        let content = &mut body["content"]["application/json"];
        content["examples"] = examples;
        let is_optional =
            content["schema"]["$ref"].as_str().is_some_and(|name| optional.iter().any(|o| o == name));
        body["required"] = (!is_optional).into();
        if is_optional {
            body["description"] =
                "May be left out, together with its Content-Type; that is the same as `{}`.".into();
        }
    }
    for (status, response) in members(&mut operation["responses"]) {
        response["headers"] = Value::Object(headers(status, of_merchants, moves_money));
    }
    for (status, codes) in problems {
        let existing = &mut operation["responses"][status.as_str()];
        let [code] = codes.as_slice() else {
            *existing = problem(&codes, &headers(&status, of_merchants, moves_money));
            continue;
        };
        let content = problem(&[*code], &headers(&status, of_merchants, moves_money));
        if !existing.is_null() {
            existing["content"]["application/problem+json"] =
                content["content"]["application/problem+json"].clone();
        } else if of_merchants && status != "402" {
            *existing = reference("responses", &schema_name(*code));
        } else {
            *existing = content;
        }
    }
}

/// The codes that an operation can be answered with, by status.
fn problems(operation: &mut Value, path: &str, moves_money: bool) -> BTreeMap<String, Vec<Code>> {
    let mut codes = vec![Code::HeadersTooLarge, Code::Internal, Code::Timeout];
    if path.starts_with("/v1/") {
        codes.extend([
            Code::Unauthorized,
            Code::RateLimited,
            Code::Overloaded,
            Code::Unavailable,
            Code::Draining,
            // a card number is refused wherever it is
            Code::ValidationFailed,
        ]);
    }
    if path.contains("{id}") {
        codes.push(Code::NotFound);
    }
    if moves_money {
        codes.extend([
            Code::MalformedJson,
            Code::InvalidUtf8,
            Code::IdempotencyKeyMissing,
            Code::IdempotencyKeyInvalid,
            Code::Forbidden,
            Code::RequestInProgress,
            Code::PayloadTooLarge,
            Code::UnsupportedMediaType,
            Code::IdempotencyKeyReused,
        ]);
    }
    // what only this operation is answered with, its handler says
    let special = operation.as_object_mut().and_then(|operation| operation.remove("x-problems"));
    let special = special.as_ref().and_then(Value::as_array).into_iter().flatten();
    codes.extend(special.filter_map(|name| Code::parse(name.as_str()?)));
    let mut by_status: BTreeMap<String, Vec<Code>> = BTreeMap::new();
    for &code in Code::ALL.iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.status().as_str().to_owned()).or_default().push(code);
    }
    by_status
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

/// The schema of the problem with a code.
fn schema_name(code: Code) -> String {
    format!("{code:?}Problem")
}

fn problem(codes: &[Code], headers: &Map<String, Value>) -> Value {
    let schemas = codes.iter().map(|&code| reference("schemas", &schema_name(code)));
    let schema = match schemas.clone().next() {
        Some(schema) if codes.len() == 1 => schema,
        _ => json!({ "oneOf": schemas.collect::<Vec<_>>() }),
    };
    let examples: Map<String, Value> =
        codes.iter().map(|code| (code.name().to_owned(), reference("examples", code.name()))).collect();
    let names: Vec<String> = codes.iter().map(|code| format!("`{}`", code.name())).collect();
    json!({
        "description": format!("{}.", names.join(", ")),
        "headers": headers,
        "content": { "application/problem+json": { "schema": schema, "examples": examples } },
    })
}

/// The headers of a response. What is not always there is not `required`.
fn headers(status: &str, of_merchants: bool, moves_money: bool) -> Map<String, Value> {
    let mut headers = Map::new();
    let mut add = |name: &str, component: &str| {
        headers.insert(name.to_owned(), reference("headers", component));
    };
    add("Request-Id", "RequestId");
    if of_merchants {
        add("Cache-Control", "CacheControl");
    }
    match status {
        "401" => add("WWW-Authenticate", "WwwAuthenticate"),
        "403" | "431" => {}
        "429" => {
            add("RateLimit", "RateLimit");
            add("RateLimit-Policy", "RateLimitPolicy");
        }
        _ if of_merchants => {
            add("RateLimit", "RateLimitIfAny");
            add("RateLimit-Policy", "RateLimitPolicyIfAny");
        }
        _ => {}
    }
    match status {
        "202" | "429" => add("Retry-After", "RetryAfter"),
        "503" if of_merchants => add("Retry-After", "RetryAfter"),
        "409" | "503" => add("Retry-After", "RetryAfterIfAny"),
        _ => {}
    }
    if moves_money {
        match status {
            "201" | "202" => add("Location", "Location"),
            "409" => add("Location", "LocationIfAny"),
            _ => {}
        }
        if matches!(status, "200" | "201" | "202" | "402" | "409") {
            add("Idempotent-Replayed", "IdempotentReplayed");
            add("Preference-Applied", "PreferenceApplied");
        }
    }
    headers
}

fn add_components(components: &mut Value) {
    components["securitySchemes"] = json!({
        "apiKey": { "type": "http", "scheme": "bearer", "description": "An API key; GET and HEAD also with one of the scope read." },
    });
    components["parameters"] = json!({
        "IdempotencyKey": {
            "name": "Idempotency-Key", "in": "header", "required": true,
            "description": "Stands for one thing that is to happen once. Quotes around it make no difference.",
            "schema": { "type": "string", "pattern": key_pattern() },
            "example": "9f1a6a0e-2f0b-4d43-9f0e-6a8a4a3c7a11",
        },
        "Prefer": {
            "name": "Prefer", "in": "header", "required": false,
            "description": format!(
                "RFC 7240. `respond-async`: do not wait for the outcome, 202 will do. `wait=N`: wait up to N seconds, {} at \
                 most. With both, 202 comes after N seconds. Anything else in it is passed over.",
                prefer::MAX_WAIT
            ),
            "schema": { "type": "string" }, "example": "wait=5",
        },
    });
    components["headers"] = header_components();
    let schemas = &mut components["schemas"];
    for (name, schema) in members(schemas) {
        if name.starts_with("New") {
            // what callers send: every field is known, and an object that may be left out may be null
            schema["additionalProperties"] = false.into();
        } else if let Some(properties) = schema["properties"].as_object() {
            // what callers get: every field is always there
            schema["required"] = properties.keys().cloned().collect();
        }
    }
    for (name, sample) in [
        ("Payment", samples::payment(samples::PAYMENT)),
        ("Refund", samples::refund(samples::PAYMENT)),
        ("Event", samples::event(samples::PAYMENT)),
    ] {
        schemas[name]["example"] = sample;
    }
    schemas["Currency"] = json!(schema::currency_codes());
    schemas["FieldError"] = json!(field_error());
    schemas["Problem"] = problem_schema();
    for &code in Code::ALL {
        schemas[schema_name(code)] = code_schema(code);
    }
    components["examples"] = Code::ALL
        .iter()
        .map(|&code| {
            (code.name().to_owned(), json!({ "summary": code.title(), "value": samples::problem(code) }))
        })
        .collect::<Map<_, _>>()
        .into();
    components["responses"] = Code::ALL
        .iter()
        .map(|&code| (schema_name(code), problem(&[code], &headers(code.status().as_str(), true, false))))
        .collect::<Map<_, _>>()
        .into();
}

/// Bare, or quoted with escapes.
fn key_pattern() -> String {
    let rest = MAX_KEY_LENGTH.saturating_sub(1);
    format!(r#"^([!#-~][!-~]{{0,{rest}}}|"([!#-\[\]-~]|\\["\\]){{1,{MAX_KEY_LENGTH}}}")$"#)
}

fn header_components() -> Value {
    let header = |required: bool, description: &str, schema: Value| json!({ "description": description, "required": required, "schema": schema });
    let text = || json!({ "type": "string" });
    let seconds = || json!({ "type": "integer", "minimum": 1 });
    let path = || json!({ "type": "string", "format": "uri-reference" });
    let limit = "What is left of the merchant's limit, and the seconds until there is more.";
    let policy = "The merchant's limit.";
    let wait = "Seconds after which it is worth asking again.";
    let rate = || json!({ "type": "string", "example": "\"merchant\";r=999;t=1" });
    let quota = || json!({ "type": "string", "example": "\"merchant\";q=1000;w=1" });
    json!({
        "RequestId": header(true, "The trace id.", json!(schema::trace_id())),
        "CacheControl": header(true, "Nobody keeps a copy.", json!({ "type": "string", "enum": ["no-store"] })),
        "WwwAuthenticate": header(true, "How to authenticate.", json!({ "type": "string", "enum": ["Bearer"] })),
        "RateLimit": header(true, limit, rate()),
        "RateLimitPolicy": header(true, policy, quota()),
        "RateLimitIfAny": header(false, limit, rate()),
        "RateLimitPolicyIfAny": header(false, policy, quota()),
        "RetryAfter": header(true, wait, seconds()),
        "RetryAfterIfAny": header(false, wait, seconds()),
        "Location": header(true, "Where the object can be read.", path()),
        "LocationIfAny": header(false, "The payment that has the reference.", path()),
        "IdempotentReplayed": header(
            false, "The key was known, and nothing was executed.", json!({ "type": "string", "enum": ["true"] })
        ),
        "PreferenceApplied": header(false, "What was read of Prefer.", text()),
    })
}

fn field_error() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "One thing that is wrong.",
        "required": ["code", "detail"],
        "properties": {
            "pointer": text("A JSON pointer (RFC 6901) into the body."),
            "parameter": text("A query parameter."),
            "header": text("A header."),
            "code": schema::field_code(),
            "detail": text("What to do about it. Never the value."),
        },
        "oneOf": [{ "required": ["pointer"] }, { "required": ["parameter"] }, { "required": ["header"] }],
    })
}

fn problem_schema() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "An answer that is no success (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "trace_id"],
        "properties": {
            "type": { "type": "string", "format": "uri-reference", "description": "The page about the code." },
            "title": text("The same whenever the code is answered."),
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": text("For people."),
            "code": schema::code(),
            "trace_id": schema::trace_id(),
            "errors": {
                "type": "array", "items": reference("schemas", "FieldError"), "minItems": 1, "maxItems": MAX_ERRORS,
            },
        },
    })
}

/// A problem with this code, and the members that come with it.
fn code_schema(code: Code) -> Value {
    let mut properties = json!({
        "type": { "const": format!("/docs/errors/{}", code.name()) },
        "title": { "const": code.title() },
        "status": { "const": code.status().as_u16() },
        "code": { "const": code.name() },
    });
    let more = match code {
        Code::ValidationFailed
        | Code::CaptureAmountTooLarge
        | Code::RefundAmountTooLarge
        | Code::IdempotencyKeyMissing
        | Code::IdempotencyKeyInvalid => vec!["errors"],
        Code::PaymentDeclined => {
            properties["payment"] = reference("schemas", "Payment");
            properties["failure"] = reference("schemas", "Failure");
            vec!["payment", "failure"]
        }
        Code::RefundDeclined => {
            properties["refund"] = reference("schemas", "Refund");
            vec!["refund"]
        }
        Code::ReferenceAlreadyUsed => {
            properties["payment_id"] = json!({ "type": "string", "format": "uuid" });
            vec!["payment_id"]
        }
        Code::PaymentStateConflict => {
            properties["payment_id"] = json!({ "type": "string", "format": "uuid" });
            properties["payment_status"] = json!(schema::payment_status());
            properties["pending_operation"] = json!(schema::pending_operation());
            vec!["payment_id", "payment_status", "pending_operation"]
        }
        _ => Vec::new(),
    };
    json!({
        "description": code.meaning(),
        "allOf": [reference("schemas", "Problem")],
        "properties": properties,
        "required": more,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::list::{DEFAULT_LIMIT, MAX_LIMIT};
    use domain::event::EventType;
    use domain::money::MAX_AMOUNT;
    use domain::payment::{MAX_METADATA_ENTRIES, Status};
    use domain::refund::{RefundReason, RefundStatus};
    use std::path::Path;

    /// Every operation: its path, its method and what the document says of it.
    fn operations(document: &Value) -> Vec<(String, String, Value)> {
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                operations.push((path.clone(), method.clone(), operation.clone()));
            }
        }
        operations
    }

    /// What a reference points to.
    fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
        match value["$ref"].as_str() {
            Some(place) => document.pointer(place.trim_start_matches('#')).unwrap(),
            None => value,
        }
    }

    #[test]
    fn the_snapshot_is_the_document() {
        let snapshot = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let written = std::fs::read_to_string(snapshot).unwrap_or_default();
        assert!(
            written == text(),
            "docs/openapi.json is not what the code says; write it anew: make openapi"
        );
    }

    #[test]
    fn operations_are_named() {
        let ids: Vec<_> = operations(&document())
            .iter()
            .map(|(.., operation)| operation["operationId"].as_str().unwrap().to_owned())
            .collect();
        let expected = [
            "live",
            "ready",
            "list_payments",
            "create_payment",
            "get_payment",
            "cancel_payment",
            "capture_payment",
            "list_events",
            "list_refunds",
            "create_refund",
            "get_refund",
        ];
        assert_eq!(ids, expected);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(document: &Value, value: &Value) {
            if let Some(place) = value["$ref"].as_str() {
                assert!(document.pointer(place.trim_start_matches('#')).is_some(), "{place}");
            }
            let members = value.as_object().into_iter().flat_map(Map::values);
            members.chain(value.as_array().into_iter().flatten()).for_each(|inner| check(document, inner));
        }
        check(&document(), &document());
    }

    #[test]
    fn whatever_any_request_can_be_answered_is_with_every_operation() {
        let document = document();
        for (path, method, operation) in operations(&document) {
            let has = |status: &str| !operation["responses"][status].is_null();
            if path.starts_with("/v1/") {
                for status in ["401", "429", "500", "503"] {
                    assert!(has(status), "{method} {path}: {status}");
                }
                assert_eq!(operation["security"], json!([{ "apiKey": [] }]), "{method} {path}");
            }
            assert_eq!(has("404"), path.contains("{id}"), "{method} {path}");
            for (status, response) in operation["responses"].as_object().unwrap() {
                let response = resolve(&document, response);
                assert!(!response["headers"]["Request-Id"].is_null(), "{method} {path}: {status}");
                let no_store = !response["headers"]["Cache-Control"].is_null();
                assert_eq!(no_store, path.starts_with("/v1/"), "{method} {path}: {status}");
            }
            if method == "post" {
                let content = &operation["requestBody"]["content"]["application/json"];
                assert!(!content["examples"].as_object().unwrap().is_empty(), "{path}");
                assert_eq!(resolve(&document, &content["schema"])["additionalProperties"], false, "{path}");
                assert_eq!(operation["requestBody"]["required"], path == "/v1/payments", "{path}");
            }
            assert!(operation["x-problems"].is_null());
        }
    }

    #[test]
    fn special_codes_are_codes() {
        let mut bare = json!(table(|methods| methods).into_openapi());
        for (_, item) in members(&mut bare["paths"]) {
            for (_, operation) in members(item) {
                for name in operation["x-problems"].as_array().into_iter().flatten() {
                    assert!(Code::parse(name.as_str().unwrap()).is_some(), "{name}");
                }
            }
        }
    }

    #[test]
    fn bounds_and_choices_are_those_of_the_code() {
        let document = document();
        let schemas = &document["components"]["schemas"];
        let property = |schema: &str, name: &str| schemas[schema]["properties"][name].clone();
        for (schema, name, least) in [
            ("NewPayment", "amount", 1),
            ("NewCapture", "amount", 1),
            ("NewRefund", "amount", 1),
            ("Payment", "amount", 1),
            ("Payment", "amount_captured", 0),
            ("Payment", "amount_refunded", 0),
            ("Refund", "amount", 1),
        ] {
            let amount = property(schema, name);
            assert_eq!(
                (amount["minimum"].as_i64(), amount["maximum"].as_i64()),
                (Some(least), Some(MAX_AMOUNT))
            );
        }
        let names = |names: &[&str]| json!(names);
        assert_eq!(property("Payment", "status")["enum"], names(&Status::ALL.map(Status::name)));
        assert_eq!(property("Refund", "status")["enum"], names(&RefundStatus::ALL.map(RefundStatus::name)));
        assert_eq!(property("Event", "type")["enum"], names(&EventType::ALL.map(EventType::name)));
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(property("Problem", "code")["enum"], names(&codes));
        let reasons = property("NewRefund", "reason")["enum"].clone();
        assert!(RefundReason::ALL.iter().all(|r| reasons.as_array().unwrap().contains(&r.name().into())));
        assert_eq!(property("NewPayment", "metadata")["maxProperties"], MAX_METADATA_ENTRIES);
        let limit = &document["paths"]["/v1/payments"]["get"]["parameters"][0]["schema"];
        assert_eq!(
            (limit["maximum"].as_u64(), limit["default"].as_u64()),
            (Some(MAX_LIMIT.into()), Some(DEFAULT_LIMIT.into()))
        );
        let key =
            document["components"]["parameters"]["IdempotencyKey"]["schema"]["pattern"].as_str().unwrap();
        assert!(key.contains(&format!("{{1,{MAX_KEY_LENGTH}}}")));
    }

    #[test]
    fn samples_have_the_fields_that_callers_see() {
        let document = document();
        let schemas = &document["components"]["schemas"];
        let names = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let fields = |schema: &str| names(&schemas[schema]["properties"]);
        for name in ["Payment", "Refund", "Event"] {
            assert_eq!(names(&schemas[name]["example"]), fields(name));
        }
        assert_eq!(names(&samples::problem(Code::PaymentDeclined)["payment"]), fields("Payment"));
        assert_eq!(names(&samples::problem(Code::PaymentDeclined)["failure"]), fields("Failure"));
        assert_eq!(names(&samples::problem(Code::RefundDeclined)["refund"]), fields("Refund"));
        for &code in Code::ALL {
            let required = code_schema(code)["required"].clone();
            for member in required.as_array().unwrap() {
                assert!(samples::problem(code).get(member.as_str().unwrap()).is_some(), "{code:?}: {member}");
            }
        }
    }

    #[test]
    fn every_field_that_is_shown_is_always_there() {
        let document = document();
        for name in
            ["Payment", "Customer", "Failure", "NextAction", "Refund", "Event", "PaymentList", "Readiness"]
        {
            let schema = &document["components"]["schemas"][name];
            let fields = schema["properties"].as_object().unwrap().len();
            assert_eq!(schema["required"].as_array().unwrap().len(), fields, "{name}");
        }
        let required = json!(["amount", "currency", "reference", "payment_method"]);
        assert_eq!(document["components"]["schemas"]["NewPayment"]["required"], required);
    }
}
