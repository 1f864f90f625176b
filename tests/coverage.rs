//! Every operation of the API's own document is tried without a key, with another merchant's object, again with the same
//! key, and with invalid input. An operation that is not in the table below fails the test: whoever adds one says here
//! what it needs.

use crate::support::{another_key, assert_problem, captured, held, text};
use anyhow::{Context, Result, ensure};
use e2e::{Answer, Api, World, payment};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// What an operation needs, so that it succeeds.
struct Case {
    operation: &'static str,
    /// The object that its path names.
    object: Object,
    /// The status of its success.
    status: u16,
    /// A body for a POST with a key.
    body: fn(&str) -> Value,
}

#[derive(Clone, Copy, PartialEq)]
enum Object {
    None,
    HeldPayment,
    CapturedPayment,
    Refund,
}

fn nothing(_: &str) -> Value {
    json!({})
}

fn new_payment(key: &str) -> Value {
    payment(&format!("created-with-{key}"))
}

fn five(_: &str) -> Value {
    json!({ "amount": 5 })
}

const CASES: [Case; 9] = [
    Case { operation: "list_payments", object: Object::None, status: 200, body: nothing },
    Case { operation: "create_payment", object: Object::None, status: 201, body: new_payment },
    Case { operation: "get_payment", object: Object::HeldPayment, status: 200, body: nothing },
    Case { operation: "capture_payment", object: Object::HeldPayment, status: 200, body: five },
    Case { operation: "cancel_payment", object: Object::HeldPayment, status: 200, body: nothing },
    Case { operation: "list_refunds", object: Object::CapturedPayment, status: 200, body: nothing },
    Case { operation: "create_refund", object: Object::CapturedPayment, status: 201, body: five },
    Case { operation: "list_events", object: Object::CapturedPayment, status: 200, body: nothing },
    Case { operation: "get_refund", object: Object::Refund, status: 200, body: nothing },
];

/// An operation of the document, with what is needed to try it.
struct Operation {
    case: &'static Case,
    method: Method,
    template: String,
    documented: BTreeSet<String>,
}

async fn operations(api: &Api) -> Result<Vec<Operation>> {
    let document = api.send(api.http.get(format!("{}/openapi.json", api.url))).await?.json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().context("paths")? {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            if !path.starts_with("/v1/") {
                continue;
            }
            let id = text(&operation["operationId"]);
            let case = CASES.iter().find(|case| case.operation == id);
            operations.push(Operation {
                case: case.with_context(|| format!("{id} has no case: say in the table what it needs"))?,
                method: method.to_uppercase().parse()?,
                template: path.clone(),
                documented: operation["responses"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(s, _)| s.clone())
                    .collect(),
            });
        }
    }
    let seen: BTreeSet<&str> = operations.iter().map(|operation| operation.case.operation).collect();
    let known: BTreeSet<&str> = CASES.iter().map(|case| case.operation).collect();
    ensure!(seen == known, "cases of operations that are not there: {:?}", known.difference(&seen));
    Ok(operations)
}

impl Operation {
    /// Its path for a new object of the merchant.
    async fn path(&self, api: &Api, reference: &str) -> Result<String> {
        let reference = format!("{}-{reference}", self.case.operation);
        let object = match self.case.object {
            Object::None => return Ok(self.template.clone()),
            Object::HeldPayment => held(api, &reference).await?,
            Object::CapturedPayment => captured(api, &reference).await?,
            Object::Refund => {
                let payment = captured(api, &reference).await?;
                let (refunds, key) = (format!("{payment}/refunds"), format!("{reference}-refund"));
                api.post(&refunds, &key, &json!({})).await?.header("location").to_owned()
            }
        };
        let id = object.rsplit('/').next().unwrap_or_default();
        Ok(self.template.replace("{id}", id))
    }

    fn writes(&self) -> bool {
        self.method == Method::POST
    }

    /// The request as it should be.
    fn request(&self, api: &Api, path: &str, key: &str) -> reqwest::RequestBuilder {
        let request = api.request(self.method.clone(), path);
        if self.writes() {
            request.header("Idempotency-Key", key).json(&(self.case.body)(key))
        } else {
            request
        }
    }

    async fn send(&self, api: &Api, request: reqwest::RequestBuilder) -> Result<Answer> {
        let answer = api.send(request).await?;
        ensure!(
            self.documented.contains(&answer.status.to_string()),
            "{} is answered with {}, which the document does not have: {}",
            self.case.operation,
            answer.status,
            answer.json()
        );
        Ok(answer)
    }

    async fn authentication(&self, api: &Api, reader: &Api) -> Result<()> {
        let path = self.path(api, "authentication").await?;
        let without = api.http.request(self.method.clone(), format!("{}{path}", api.url));
        let answer =
            self.send(api, without.header("Idempotency-Key", "k").json(&(self.case.body)("k"))).await?;
        assert_problem(&answer, 401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        let wrong = Api { key: format!("{}x", api.key), ..api.clone() };
        assert_problem(&self.send(&wrong, self.request(&wrong, &path, "k")).await?, 401, "unauthorized");
        let answer = self.send(reader, self.request(reader, &path, "k")).await?;
        match self.writes() {
            true => assert_problem(&answer, 403, "forbidden"),
            false => assert_eq!(answer.status, 200),
        }
        Ok(())
    }

    async fn tenants(&self, api: &Api, other: &Api) -> Result<()> {
        if self.case.object == Object::None {
            // nothing is named: what is another's must not show, and its keys are its own
            let ours = self.send(api, self.request(api, &self.template, "tenants")).await?;
            let theirs = self.send(other, self.request(other, &self.template, "tenants")).await?;
            assert_eq!((ours.status, theirs.status), (self.case.status, self.case.status));
            match self.writes() {
                true => assert_ne!(ours.json()["id"], theirs.json()["id"]),
                false => assert_ne!(ours.json()["data"], theirs.json()["data"]),
            }
            return Ok(());
        }
        let theirs = self.path(other, "tenants").await?;
        let before = other.send(self.get(other, &theirs)).await?;
        let absent = self.template.replace("{id}", &uuid::Uuid::now_v7().to_string());
        let foreign = self.send(api, self.request(api, &theirs, "foreign")).await?;
        assert_problem(&foreign, 404, "not_found");
        let absent = self.send(api, self.request(api, &absent, "absent")).await?;
        let apart_from_trace =
            |answer: &Answer| String::from_utf8_lossy(&answer.body).replace(answer.header("request-id"), "");
        assert_eq!(apart_from_trace(&foreign), apart_from_trace(&absent));
        let names = |answer: &Answer| answer.headers.keys().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(names(&foreign), names(&absent));
        assert_eq!(other.send(self.get(other, &theirs)).await?.body, before.body, "nothing happened to it");
        let nonsense = self.template.replace("{id}", "1");
        assert_problem(&self.send(api, self.request(api, &nonsense, "nonsense")).await?, 404, "not_found");
        Ok(())
    }

    /// Reads the payment or refund that a path is about.
    fn get(&self, api: &Api, path: &str) -> reqwest::RequestBuilder {
        let object: Vec<&str> = path.split('/').take(4).collect();
        api.request(Method::GET, &object.join("/"))
    }

    async fn idempotency(&self, api: &Api) -> Result<()> {
        let path = self.path(api, "idempotency").await?;
        let key = format!("{}-key", self.case.operation);
        if !self.writes() {
            let first = self.send(api, self.request(api, &path, "")).await?;
            assert_eq!(first.status, self.case.status, "{}", first.json());
            assert_eq!(
                self.send(api, self.request(api, &path, "")).await?.body,
                first.body,
                "reading changes nothing"
            );
            let head = api.send(api.request(Method::HEAD, &path)).await?;
            assert_eq!((head.status, head.body.len()), (first.status, 0));
            return Ok(());
        }
        let bare = api.request(Method::POST, &path).json(&(self.case.body)("k"));
        assert_problem(&self.send(api, bare).await?, 400, "idempotency_key_missing");
        let malformed = self.request(api, &path, "no key");
        assert_problem(&self.send(api, malformed).await?, 400, "idempotency_key_invalid");
        let first = self.send(api, self.request(api, &path, &key)).await?;
        assert_eq!(
            (first.status, first.header("idempotent-replayed")),
            (self.case.status, ""),
            "{}",
            first.json()
        );
        let again = self.send(api, self.request(api, &path, &key)).await?;
        assert_eq!((again.status, again.header("idempotent-replayed")), (first.status, "true"));
        assert_eq!((&again.body, again.header("location")), (&first.body, first.header("location")));
        assert_problem(&api.create(&key, &payment("another request")).await?, 422, "idempotency_key_reused");
        Ok(())
    }

    async fn invalid_input(&self, api: &Api) -> Result<()> {
        let path = self.path(api, "invalid").await?;
        if !self.writes() {
            // a list knows its parameters; an object has none, and what is sent with it means nothing
            let with_parameter = api.request(Method::GET, &format!("{path}?no_such=1"));
            let answer = self.send(api, with_parameter).await?;
            match self.case.operation.starts_with("list_") {
                true => {
                    assert_problem(&answer, 422, "validation_failed");
                    assert_eq!(answer.errors().get("no_such").map(String::as_str), Some("unknown_field"));
                }
                false => assert_eq!(answer.status, 200),
            }
            return Ok(());
        }
        let mut unknown = (self.case.body)("k");
        unknown["no_such"] = json!(1);
        let answer = self.send(api, api.money_post(&path, "k").json(&unknown)).await?;
        assert_problem(&answer, 422, "validation_failed");
        assert_eq!(answer.errors().get("/no_such").map(String::as_str), Some("unknown_field"));
        let typed =
            |body: &'static str, kind| api.money_post(&path, "k").header("Content-Type", kind).body(body);
        assert_problem(&self.send(api, typed("{", "application/json")).await?, 400, "malformed_json");
        assert_problem(&self.send(api, typed("[]", "application/json")).await?, 422, "validation_failed");
        assert_problem(&self.send(api, typed("a=1", "text/plain")).await?, 415, "unsupported_media_type");
        let large =
            api.money_post(&path, "k")
                .header("Content-Type", "application/json")
                .body(vec![b' '; 64 * 1024 + 1]);
        assert_problem(&self.send(api, large).await?, 413, "payload_too_large");
        Ok(())
    }
}

#[tokio::test]
async fn every_operation_is_tried_in_every_way() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let other = world.new_merchant("Another").await?;
    let (_, reader) = another_key(&world, &["--scope", "read"]).await?;
    // so that the two lists differ from the first look on
    captured(api, "first").await?;
    captured(&other, "first").await?;
    for operation in operations(api).await? {
        let name = operation.case.operation;
        operation.authentication(api, &reader).await.with_context(|| format!("authentication of {name}"))?;
        operation.tenants(api, &other).await.with_context(|| format!("another's object with {name}"))?;
        operation.idempotency(api).await.with_context(|| format!("idempotency of {name}"))?;
        operation.invalid_input(api).await.with_context(|| format!("invalid input of {name}"))?;
    }
    world.finish().await
}
