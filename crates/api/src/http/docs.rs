//! Pages for people: the OpenAPI document, its UI, and what each code means. They load nothing from anywhere else.

use crate::http::{openapi, samples};
use crate::problem::{Code, FieldCode, Problem};
use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

/// What the UI may load and do. Its arrows are images in its style sheet.
const UI_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// What the other pages may load: a style sheet.
const PAGE_POLICY: &str =
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const UI: &str = include_str!("docs/ui.html");
const UI_START: &str = include_str!("docs/ui.js");
const PAGES_STYLE: &str = include_str!("docs/pages.css");

/// The routes. They are public: what they say is said in the source as well.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let document = Bytes::from(openapi::text());
    Router::new()
        .route("/openapi.json", get(async move || answer("application/json", PAGE_POLICY, document)))
        .route("/docs", get(async || answer(HTML, UI_POLICY, UI)))
        .route("/docs/", get(async || answer(HTML, UI_POLICY, UI)))
        .route("/docs/ui.js", get(async || answer(SCRIPT, UI_POLICY, UI_START)))
        .route("/docs/swagger-ui.css", get(async || vendored(CSS, "swagger-ui.css")))
        .route("/docs/swagger-ui-bundle.js", get(async || vendored(SCRIPT, "swagger-ui-bundle.js")))
        .route("/docs/pages.css", get(async || answer(CSS, PAGE_POLICY, PAGES_STYLE)))
        .route("/docs/errors", get(async || answer(HTML, PAGE_POLICY, index())))
        .route("/docs/errors/{code}", get(page))
}

fn answer(content_type: &'static str, policy: &'static str, body: impl IntoResponse) -> Response {
    const REFERRER_POLICY: HeaderName = HeaderName::from_static("referrer-policy");
    let mut response = body.into_response();
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A file of Swagger UI, which is part of the program.
fn vendored(content_type: &'static str, name: &str) -> Result<Response, Problem> {
    let files = Arc::new(utoipa_swagger_ui::Config::default());
    let file = utoipa_swagger_ui::serve(name, files).ok().flatten();
    let file = file.ok_or_else(|| Problem::new(Code::NotFound, "The UI is not part of this program."))?;
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    let mut response = answer(content_type, UI_POLICY, bytes);
    // large, and the same until the next release
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    Ok(response)
}

async fn page(path: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    // what is not UTF-8 is no code either
    let name = path.map(|Path(name)| name).unwrap_or_default();
    let text = match (Code::parse(&name), FieldCode::parse(&name)) {
        (Some(code), _) => code_page(code),
        (None, Some(code)) => field_code_page(code),
        (None, None) => return Err(Problem::new(Code::NotFound, "There is no such code.")),
    };
    Ok(answer(HTML, PAGE_POLICY, text))
}

/// Text in HTML, also inside of quotes.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn html(title: &str, content: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<link rel=\"stylesheet\" href=\"/docs/pages.css\">\n</head>\n<body>\n\
         <nav><a href=\"/docs\">API</a> <a href=\"/docs/errors\">Errors</a></nav>\n{content}</body>\n</html>\n",
        escape(title)
    )
}

fn index() -> String {
    let mut rows = String::new();
    for code in Code::ALL {
        let (name, title) = (code.name(), escape(code.title()));
        let status = code.status().as_u16();
        let _ = writeln!(
            rows,
            "<tr><td>{status}</td><td><a href=\"/docs/errors/{name}\"><code>{name}</code></a></td><td>{title}</td></tr>"
        );
    }
    let content = format!(
        "<h1>Errors</h1>\n<p>Every answer that is no success has a <code>code</code>.</p>\n\
         <table>\n<tr><th>Status</th><th>Code</th><th>Title</th></tr>\n{rows}</table>\n"
    );
    html("Errors", &content)
}

fn code_page(code: Code) -> String {
    let sample = escape(&format!("{:#}", samples::problem(code)));
    let mut content = format!(
        "<h1>{}</h1>\n<p class=\"code\"><code>{}</code>, status {}</p>\n<h2>What it means</h2>\n<p>{}</p>\n\
         <h2>What to do now</h2>\n<p>{}</p>\n",
        escape(code.title()),
        code.name(),
        escape(&code.status().to_string()),
        escape(code.meaning()),
        escape(code.advice()),
    );
    if code == Code::ValidationFailed {
        content.push_str("<h2>The codes in errors</h2>\n<dl>\n");
        for field in FieldCode::ALL {
            let _ = writeln!(
                content,
                "<dt id=\"{0}\"><a href=\"/docs/errors/{0}\"><code>{0}</code></a></dt><dd>{1} {2}</dd>",
                field.name(),
                escape(field.meaning()),
                escape(field.advice()),
            );
        }
        content.push_str("</dl>\n");
    }
    let _ = write!(content, "<h2>What it looks like</h2>\n<pre>{sample}</pre>\n");
    html(code.title(), &content)
}

fn field_code_page(code: FieldCode) -> String {
    let content = format!(
        "<h1><code>{}</code></h1>\n<p class=\"code\">in the <code>errors</code> of \
         <a href=\"/docs/errors/validation_failed\"><code>validation_failed</code></a></p>\n\
         <h2>What it means</h2>\n<p>{}</p>\n<h2>What to do now</h2>\n<p>{}</p>\n",
        code.name(),
        escape(code.meaning()),
        escape(code.advice()),
    );
    html(code.name(), &content)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn text_of(name: &str) -> Option<String> {
        let response = page(Ok(Path(name.to_owned()))).await.ok()?;
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_code_has_a_page_and_every_page_a_code() {
        for code in Code::ALL {
            let text = text_of(code.name()).await.unwrap();
            for part in [code.title(), code.meaning(), code.advice(), code.name()] {
                assert!(text.contains(&escape(part)), "{code:?}: {part}");
            }
            assert!(index().contains(&format!("/docs/errors/{}\"", code.name())));
        }
        for code in FieldCode::ALL {
            assert!(text_of(code.name()).await.is_some());
            assert!(code_page(Code::ValidationFailed).contains(&format!("<dt id=\"{}\">", code.name())));
            assert!(Code::parse(code.name()).is_none(), "{code:?}: two pages would have one address");
        }
        for name in ["", "nothing", "Unauthorized", "../unauthorized"] {
            assert_eq!(text_of(name).await, None, "{name}");
        }
        let linked = index().matches("<a href=\"/docs/errors/").count();
        assert_eq!(linked, Code::ALL.len(), "every page that is linked has a code");
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escape("<b a=\"1\" c='2'>&"), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
        assert!(html("<x>", "").contains("<title>&lt;x&gt;</title>"));
    }

    #[test]
    fn the_ui_is_part_of_the_program() {
        for name in ["swagger-ui.css", "swagger-ui-bundle.js"] {
            assert!(vendored(CSS, name).is_ok(), "{name}");
        }
    }

    #[test]
    fn numbers_in_the_texts_are_those_of_the_code() {
        use crate::http::extract::MAX_BODY;
        use crate::middleware::limits::{MAX_HEADER_BYTES, MAX_HEADER_LINES};
        assert!(Code::PayloadTooLarge.meaning().contains(&format!("{} KiB", MAX_BODY / 1024)));
        assert!(Code::HeadersTooLarge.meaning().contains(&format!("{} KiB", MAX_HEADER_BYTES / 1024)));
        assert!(Code::HeadersTooLarge.meaning().contains(&format!("{MAX_HEADER_LINES} header lines")));
    }
}
