//! The OpenAPI document, its UI and the pages about errors, as they are served; and whether the document's own examples
//! are true.

use crate::support::{PAYMENTS, assert_problem, id, text};
use anyhow::{Context, Result, ensure};
use e2e::{Answer, Api, World, payment};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;

fn snapshot() -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    Ok(std::fs::read_to_string(path)?)
}

/// As a browser asks: without a key.
async fn get(api: &Api, path: &str) -> Result<Answer> {
    api.send(api.http.get(format!("{}{path}", api.url))).await
}

#[track_caller]
fn assert_page(answer: &Answer, content_type: &str, path: &str) {
    assert_eq!(answer.status, 200, "{path}");
    assert!(
        answer.header("content-type").starts_with(content_type),
        "{path}: {}",
        answer.header("content-type")
    );
    let policy = answer.header("content-security-policy");
    for part in ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{path}: {policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{path}: {policy}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
    assert_eq!(answer.header("request-id").len(), 32, "{path}");
}

/// What a page loads or links to.
fn references(page: &str) -> Vec<String> {
    ["src=\"", "href=\""]
        .into_iter()
        .flat_map(|attribute| page.split(attribute).skip(1))
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}

#[tokio::test]
async fn the_document_is_served_as_it_is_kept() -> Result<()> {
    let world = World::start().await?;
    let answer = get(&world.api, "/openapi.json").await?;
    assert_page(&answer, "application/json", "/openapi.json");
    assert_eq!(String::from_utf8(answer.body)?, snapshot()?);
    let printed = crate::support::program(&["openapi"], []).await?.output().await?;
    assert!(printed.status.success(), "it needs no settings");
    assert_eq!(String::from_utf8(printed.stdout)?, snapshot()?);

    let ops = world.stack.ops_url(0)?.to_owned();
    for path in ["/openapi.json", "/docs", "/docs/errors"] {
        let answer = get(&world.api.at(&ops), path).await?;
        assert_eq!(answer.status, 404, "{path} is not for the operations listener");
    }
    world.stop().await
}

#[tokio::test]
async fn the_ui_needs_nobody_else() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let page = get(api, "/docs").await?;
    assert_page(&page, "text/html", "/docs");
    let loaded = references(&String::from_utf8(page.body)?);
    for part in ["swagger-ui-bundle.js", "swagger-ui.css"] {
        assert!(loaded.iter().any(|path| path.ends_with(part)), "{loaded:?}");
    }
    for path in loaded.iter().filter(|path| *path != "data:,") {
        assert!(path.starts_with('/') && !path.starts_with("//"), "{path} is another host's");
        assert_page(&get(api, path).await?, "", path);
    }
    let start = String::from_utf8(get(api, "/docs/ui.js").await?.body)?;
    assert!(start.contains("validatorUrl: null") && start.contains("\"/openapi.json\""), "{start}");
    let style = String::from_utf8(get(api, "/docs/swagger-ui.css").await?.body)?;
    assert!(!style.contains("url(http") && !style.contains("@import"), "a style sheet of another host's");

    for path in ["/openapi.json", "/docs", "/docs/ui.js", "/docs/errors", "/docs/errors/unauthorized"] {
        let head = api.send(api.http.head(format!("{}{path}", api.url))).await?;
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        let post = api.send(api.http.post(format!("{}{path}", api.url))).await?;
        assert_eq!((post.status, post.code().as_str()), (405, "method_not_allowed"), "{path}");
        assert_eq!(post.header("content-type"), "application/problem+json");
        assert!(post.header("allow").contains("GET"));
    }
    world.stop().await
}

#[tokio::test]
async fn every_code_has_a_page() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let document: Value = serde_json::from_str(&snapshot()?)?;
    let schemas = &document["components"]["schemas"];
    let index = get(api, "/docs/errors").await?;
    assert_page(&index, "text/html", "/docs/errors");
    let index = String::from_utf8(index.body)?;
    let codes = |schema: &str| schemas[schema]["properties"]["code"]["enum"].as_array().unwrap().clone();
    for code in codes("Problem") {
        let path = format!("/docs/errors/{}", text(&code));
        let page = get(api, &path).await?;
        assert_page(&page, "text/html", &path);
        assert!(!page.header("content-security-policy").contains("script"), "{path}");
        let page = String::from_utf8(page.body)?;
        assert!(page.contains(&text(&code)) && !page.contains("<script"), "{path}");
        assert!(index.contains(&format!("\"{path}\"")), "{path} is not in the index");
        for linked in references(&page) {
            assert_eq!(get(api, &linked).await?.status, 200, "{path}: {linked}");
        }
    }
    let validation = String::from_utf8(get(api, "/docs/errors/validation_failed").await?.body)?;
    for code in codes("FieldError") {
        assert!(validation.contains(&format!("/docs/errors/{}\"", text(&code))), "{code}");
        assert_eq!(get(api, &format!("/docs/errors/{}", text(&code))).await?.status, 200, "{code}");
    }
    // what a problem says leads to its page
    let refused = get(api, PAYMENTS).await?;
    assert_problem(&refused, 401, "unauthorized");
    assert_eq!(get(api, &text(&refused.json()["type"])).await?.status, 200);
    for path in ["/docs/errors/nothing", "/docs/errors/<script>", "/docs/nothing", "/docs/errors/a/b"] {
        let absent = get(api, path).await?;
        assert_eq!((absent.status, absent.code().as_str()), (404, "not_found"), "{path}");
    }
    world.stop().await
}

/// What stands between backquotes.
fn spans(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The codes of the table of answers in the guide for callers, each with its status.
fn codes_of_the_guide(guide: &str) -> BTreeSet<(String, String)> {
    let (_, table) = guide.split_once("\n## What to do on each answer\n").unwrap_or_default();
    let (table, _) = table.split_once("\n## ").unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.split('|').collect();
        let status = spans(cells[1]).pop_first().unwrap_or_default();
        spans(cells[2]).into_iter().map(move |code| (status.clone(), code))
    })
    .collect()
}

#[tokio::test]
async fn every_code_is_documented_and_none_more() -> Result<()> {
    let world = World::start().await?;
    let document: Value = serde_json::from_str(&snapshot()?)?;
    let schemas = &document["components"]["schemas"];
    let codes = |schema: &str| -> BTreeSet<String> {
        schemas[schema]["properties"]["code"]["enum"].as_array().into_iter().flatten().map(text).collect()
    };
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let guide = std::fs::read_to_string(guide)?;

    // each code of an answer: a schema of its own with its status, a row in the guide, a line in the index, a page
    let of_schemas: BTreeSet<(String, String)> = schemas
        .as_object()
        .context("no schemas")?
        .values()
        .filter_map(|schema| {
            Some((&schema["properties"]["status"]["const"], schema["properties"]["code"]["const"].as_str()?))
        })
        .map(|(status, code)| (status.to_string(), code.to_owned()))
        .collect();
    assert_eq!(of_schemas.iter().map(|(_, code)| code.clone()).collect::<BTreeSet<_>>(), codes("Problem"));
    assert_eq!(codes_of_the_guide(&guide), of_schemas);
    let index = String::from_utf8(get(&world.api, "/docs/errors").await?.body)?;
    let pages = |page: &str| -> BTreeSet<String> {
        let pages = references(page)
            .into_iter()
            .filter_map(|path| Some(path.strip_prefix("/docs/errors/")?.to_owned()));
        pages.collect()
    };
    assert_eq!(pages(&index), codes("Problem"));

    // each code of a field: in the sentence of the guide that lists them, on the page of their problem, a page
    let (_, list) = guide.split_once("and is one of").context("no list of the codes in errors")?;
    assert_eq!(spans(list.split_once('.').unwrap_or_default().0), codes("FieldError"));
    let validation = String::from_utf8(get(&world.api, "/docs/errors/validation_failed").await?.body)?;
    assert_eq!(pages(&validation), codes("FieldError"));

    for code in codes("Problem").union(&codes("FieldError")) {
        let page = String::from_utf8(get(&world.api, &format!("/docs/errors/{code}")).await?.body)?;
        for heading in ["What it means", "What to do now"] {
            let (_, after) = page
                .split_once(&format!("<h2>{heading}</h2>\n<p>"))
                .with_context(|| format!("{code}: {heading}"))?;
            let words = after.split_once("</p>").unwrap_or_default().0.split(' ').count();
            assert!(words >= 2, "{code}: {heading}");
        }
    }
    world.stop().await
}

/// Sends a body with a fresh key.
async fn send(api: &Api, path: &str, body: &Value) -> Result<Answer> {
    let key = uuid::Uuid::new_v4().to_string();
    api.send(api.request(Method::POST, path).header("Idempotency-Key", key).json(body)).await
}

#[tokio::test]
async fn the_examples_work() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let document: Value = serde_json::from_str(&snapshot()?)?;
    let mut sent = 0;
    for (path, item) in document["paths"].as_object().context("no paths")? {
        let operation = &item["post"];
        let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
        for (name, example) in examples.as_object().into_iter().flatten() {
            let what = format!("{path}, {name}");
            // a payment of its own that can be captured, canceled or refunded
            let mut made = payment(&format!("for {what}"));
            if !path.ends_with("/refunds") {
                made["capture"] = json!("manual");
            }
            let made = send(api, PAYMENTS, &made).await?;
            ensure!(made.status == 201, "{what}: {}", made.json());
            let answer = send(api, &path.replace("{id}", &id(&made)), &example["value"]).await?;
            let status = answer.status.to_string();
            assert!(!operation["responses"][&status].is_null(), "{what}: {status} is not in the document");
            let expected = if example["summary"].as_str().is_some_and(|text| text.contains("402")) {
                answer.status == 402
            } else {
                matches!(answer.status, 200 | 201)
            };
            assert!(expected, "{what}: {status} {}", answer.json());
            sent += 1;
        }
    }
    assert!(sent >= 9, "{sent} examples");
    world.finish().await
}
