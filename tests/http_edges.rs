//! The edges of HTTP, over sockets that a test writes to by hand: what is no HTTP, what is ambiguous, what is too large, and
//! what paths, methods, targets and keys can look like. Every refusal is a problem with all that belongs to one.

use crate::support::{PAYMENTS, SOON, Wire, WireAnswer, address, assert_problem, count, post, seconds};
use anyhow::{Context, Result, ensure};
use e2e::{Api, World, payment};
use reqwest::Method;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[track_caller]
fn assert_wire_problem(answer: &WireAnswer, status: u16, code: &str, what: &str) {
    let body = answer.json();
    assert_eq!((answer.status, body["code"].as_str()), (status, Some(code)), "{what}: {body}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{what}");
    assert_eq!(body["type"], format!("/docs/errors/{code}"), "{what}");
    assert_eq!(body["status"], status, "{what}");
    assert_eq!(body["trace_id"], answer.header("request-id"), "{what}");
    assert_eq!(answer.header("request-id").len(), 32, "{what}");
    for member in ["title", "detail"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {body}");
    }
}

/// The one answer to what is written to a connection of its own.
async fn answer_to(api: &Api, bytes: &[u8]) -> Result<WireAnswer> {
    let mut wire = Wire::to(&api.url).await?;
    wire.send(bytes).await?;
    tokio::time::timeout(SOON, wire.read()).await?
}

/// The same, of a connection that ends with it.
async fn last_answer_to(api: &Api, bytes: &[u8]) -> Result<WireAnswer> {
    let mut wire = Wire::to(&api.url).await?;
    wire.send(bytes).await?;
    let answer = tokio::time::timeout(SOON, wire.read()).await??;
    ensure!(wire.is_at_its_end().await?, "the connection is open, or more was answered");
    Ok(answer)
}

/// A GET with these lines behind its first two.
fn get(api: &Api, target: &str, lines: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n{lines}\r\n",
        address(&api.url),
        api.key
    )
}

fn shown(bytes: &[u8]) -> String {
    bytes.iter().take(80).flat_map(|byte| byte.escape_ascii()).map(char::from).collect()
}

#[tokio::test]
async fn what_is_no_http_gets_a_400_in_words() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let body = payment("order-1").to_string();
    let post_with = |lines: &str| {
        post(api, "key", &body).replace(&format!("Content-Length: {}\r\n", body.len()), lines).into_bytes()
    };
    let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", body.len());
    let both_turned = format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", body.len());
    let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let smuggled = |lines: &str| {
        let head = String::from_utf8(post_with(lines)).unwrap_or_default();
        let (head, _) = head.split_once("\r\n\r\n").unwrap_or_default();
        format!("{head}\r\n\r\n{chunked}{}", get(api, PAYMENTS, "")).into_bytes()
    };
    let no_host = format!("GET {PAYMENTS} HTTP/1.1\r\nAuthorization: Bearer {}\r\n\r\n", api.key);
    let old =
        String::from_utf8(post_with("Transfer-Encoding: chunked\r\n"))?.replacen("HTTP/1.1", "HTTP/1.0", 1);
    // a TLS client that has the wrong port
    let client_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n";
    let cases: Vec<Vec<u8>> = vec![
        b"nonsense\r\n\r\n".to_vec(),
        b"\0\0\0\0\r\n\r\n".to_vec(),
        client_hello.to_vec(),
        b"GET /v1/payments\r\n".to_vec(),
        b"GET /v1/payments HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /v1/pay ments HTTP/1.1\r\n\r\n".to_vec(),
        b"GET /v1/p\xc3\xa4yments\x01 HTTP/1.1\r\n\r\n".to_vec(),
        b"G@T /v1/payments HTTP/1.1\r\n\r\n".to_vec(),
        b"{\"amount\": 1}\r\n\r\n".to_vec(),
        get(api, PAYMENTS, "a line without a colon\r\n").into_bytes(),
        get(api, PAYMENTS, "name : blank before the colon\r\n").into_bytes(),
        get(api, PAYMENTS, "na\tme: x\r\n").into_bytes(),
        get(api, PAYMENTS, "x: a\0b\r\n").into_bytes(),
        get(api, PAYMENTS, "Idempotency-Key: folded\r\n over two lines\r\n").into_bytes(),
        no_host.into_bytes(),
        get(api, PAYMENTS, "Host: another.example\r\n").into_bytes(),
        post_with("Content-Length: -1\r\n"),
        post_with("Content-Length: +5\r\n"),
        post_with("Content-Length: 5x\r\n"),
        post_with("Content-Length: 5, 6\r\n"),
        post_with("Content-Length: 99999999999999999999999\r\n"),
        post_with(&format!("Content-Length: {}\r\nContent-Length: 1\r\n", body.len())),
        post_with("Transfer-Encoding: gzip\r\n"),
        post_with("Transfer-Encoding: chunked, gzip\r\n"),
        post_with("Transfer-Encoding: xchunked\r\n"),
        old.into_bytes(),
        smuggled(&both),
        smuggled(&both_turned),
        smuggled(&both.to_ascii_uppercase()),
    ];
    for bytes in cases {
        let answer = last_answer_to(api, &bytes).await.with_context(|| shown(&bytes))?;
        assert_wire_problem(&answer, 400, "malformed_json", &shown(&bytes));
    }
    // what was whole before is answered first
    let pipelined = [get(api, PAYMENTS, "").as_bytes(), b"nonsense\r\n\r\n"].concat();
    let mut wire = Wire::to(&api.url).await?;
    wire.send(&pipelined).await?;
    assert_eq!(wire.read().await?.status, 200);
    assert_wire_problem(&wire.read().await?, 400, "malformed_json", "pipelined");
    assert!(wire.is_at_its_end().await?);

    assert_eq!(count(&world, "SELECT count(*) FROM payments").await?, 0);
    assert_eq!(world.api.get("/readyz").await?.status, 200);
    world.finish().await
}

#[tokio::test]
async fn what_is_too_large_gets_a_431_in_words() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let lines = |count: usize| (0..count).map(|at| format!("x-{at}: y\r\n")).collect::<String>();
    let value = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
    let long = |bytes: usize| get(api, &format!("{PAYMENTS}?reference={}", "x".repeat(bytes)), "");
    assert_eq!(answer_to(api, get(api, PAYMENTS, &lines(98)).as_bytes()).await?.status, 200, "100 lines");
    assert_eq!(answer_to(api, get(api, PAYMENTS, &value(31 * 1024)).as_bytes()).await?.status, 200);
    for (what, request) in [
        ("101 lines", get(api, PAYMENTS, &lines(99))),
        ("600 lines", get(api, PAYMENTS, &lines(600))),
        ("5,000 lines", get(api, PAYMENTS, &lines(5000))),
        ("33 KiB", get(api, PAYMENTS, &value(33 * 1024))),
        ("200 KiB", get(api, PAYMENTS, &value(200 * 1024))),
        ("900 KiB", get(api, PAYMENTS, &value(900 * 1024))),
        ("a target of 33 KiB", long(33 * 1024)),
        ("a target of 70 KiB", long(70 * 1024)),
        ("a target of 300 KiB", long(300 * 1024)),
        ("a method of 200 KiB", "X".repeat(200 * 1024) + " / HTTP/1.1\r\n\r\n"),
    ] {
        let answer = answer_to(api, request.as_bytes()).await.context(what)?;
        assert_wire_problem(&answer, 431, "headers_too_large", what);
    }
    // a query of 8 KiB is read, and judged
    let answer = answer_to(api, long(8 * 1024).as_bytes()).await?;
    assert_wire_problem(&answer, 422, "validation_failed", "8 KiB");
    assert_eq!(answer.json()["errors"][0]["parameter"], "reference");
    world.finish().await
}

#[tokio::test]
async fn a_path_is_what_it_is_and_a_method_too() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let id = api.create("key", &payment("order-1")).await?.header("location").to_owned();
    for path in [
        "/v1/payments/".to_owned(),
        "//v1/payments".to_owned(),
        "/v1//payments".to_owned(),
        "/v1/payments/../payments".to_owned(),
        "/v1/./payments".to_owned(),
        "/v1/payments;a=1".to_owned(),
        "/V1/payments".to_owned(),
        "/%761/payments".to_owned(),
        "/v1%2fpayments".to_owned(),
        "/v1/payments/%00".to_owned(),
        "/v1/payments/%ff".to_owned(),
        "/v1/payments/%zz".to_owned(),
        "/v1/payments/%".to_owned(),
        "/v1/payments/%2e%2e".to_owned(),
        "/v1/payments/%F0%9F%98%80".to_owned(),
        format!("{id}/"),
        format!("{id}%20"),
        format!("{id}%00"),
        format!("{id}+"),
        format!("{id}%2fevents"),
        format!("{id}/../{id}"),
        format!("{PAYMENTS}/{}", "x".repeat(8 * 1024)),
        "/v1/refunds/%ff".to_owned(),
        "/docs/errors/%ff".to_owned(),
        "/docs/errors/%00".to_owned(),
        "*".to_owned(),
        "another.example:443".to_owned(),
    ] {
        let answer = answer_to(api, get(api, &path, "").as_bytes()).await.with_context(|| path.clone())?;
        assert_wire_problem(&answer, 404, "not_found", &path);
    }
    // a fragment is not for servers, and an absolute target names the same
    let absolute = format!("http://{}{id}", address(&api.url));
    for target in [absolute.as_str(), "http://another.example/readyz", "/readyz?%ff=%zz"] {
        assert_eq!(answer_to(api, get(api, target, "").as_bytes()).await?.status, 200, "{target}");
    }

    for (query, parameter) in [
        ("reference=%ff", "reference"),
        ("reference=%zz", "reference"),
        ("reference=%00", "reference"),
        ("reference=a%0d%0ab", "reference"),
        ("cursor=%", "cursor"),
        ("limit=%31%30%31", "limit"),
        ("limit=1;cursor=2", "limit"),
        ("%6cimit=0", "limit"),
        ("%ff=1", "query"),
        ("%e2%80%ae=1", "query"),
        ("limti=1", "limti"),
    ] {
        let target = format!("{PAYMENTS}?{query}");
        let answer = answer_to(api, get(api, &target, "").as_bytes()).await?;
        assert_wire_problem(&answer, 422, "validation_failed", query);
        assert_eq!(answer.json()["errors"][0]["parameter"], parameter, "{query}");
    }

    for method in ["get", "Get", "TRACE", "OPTIONS", "PUT", "PATCH", "DELETE", "QUERY", "PROPFIND", "X"] {
        let request = get(api, PAYMENTS, "").replacen("GET", method, 1);
        let answer = answer_to(api, request.as_bytes()).await.context(method)?;
        assert_wire_problem(&answer, 405, "method_not_allowed", method);
        let allowed: Vec<&str> = answer.header("allow").split(',').map(str::trim).collect();
        assert!(["GET", "HEAD", "POST"].iter().all(|one| allowed.contains(one)), "{method}: {allowed:?}");
    }
    let everywhere = format!("OPTIONS * HTTP/1.1\r\nHost: {}\r\n\r\n", address(&api.url));
    assert_wire_problem(&answer_to(api, everywhere.as_bytes()).await?, 404, "not_found", "OPTIONS *");
    let connect = "CONNECT another.example:443 HTTP/1.1\r\nHost: another.example\r\n\r\n";
    assert_wire_problem(&answer_to(api, connect.as_bytes()).await?, 404, "not_found", "CONNECT");
    world.finish().await
}

#[tokio::test]
async fn a_key_is_bare_or_quoted_and_nothing_else() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let send = async |lines: &[u8], reference: &str| {
        let request = post(api, "KEY", &payment(reference).to_string());
        let (before, after) = request.split_once("Idempotency-Key: KEY\r\n").context("no key")?;
        answer_to(api, &[before.as_bytes(), lines, after.as_bytes()].concat()).await
    };
    let long = |length: usize| "k".repeat(length);
    let refused: [(&str, Vec<u8>); 18] = [
        ("empty", b"Idempotency-Key:\r\n".to_vec()),
        ("blank", b"Idempotency-Key:   \r\n".to_vec()),
        ("an empty string", b"Idempotency-Key: \"\"\r\n".to_vec()),
        ("a blank inside", b"Idempotency-Key: a b\r\n".to_vec()),
        ("a tab inside", b"Idempotency-Key: a\tb\r\n".to_vec()),
        ("a blank in quotes", b"Idempotency-Key: \"a b\"\r\n".to_vec()),
        ("only a quote", b"Idempotency-Key: \"\r\n".to_vec()),
        ("an open string", b"Idempotency-Key: \"open\r\n".to_vec()),
        ("more behind a string", b"Idempotency-Key: \"a\"b\r\n".to_vec()),
        ("a parameter", b"Idempotency-Key: \"a\";p=1\r\n".to_vec()),
        ("a list", b"Idempotency-Key: \"a\", \"b\"\r\n".to_vec()),
        ("an escape that is none", b"Idempotency-Key: \"a\\x\"\r\n".to_vec()),
        ("an escaped end", b"Idempotency-Key: \"a\\\"\r\n".to_vec()),
        ("Latin-1", b"Idempotency-Key: caf\xe9\r\n".to_vec()),
        ("UTF-8", "Idempotency-Key: café\r\n".as_bytes().to_vec()),
        ("256 characters", format!("Idempotency-Key: {}\r\n", long(256)).into_bytes()),
        ("256 in quotes", format!("Idempotency-Key: \"{}\"\r\n", long(256)).into_bytes()),
        ("two lines", b"Idempotency-Key: a\r\nidempotency-key: a\r\n".to_vec()),
    ];
    for (what, lines) in refused {
        let answer = send(&lines, "refused").await.context(what)?;
        assert_wire_problem(&answer, 400, "idempotency_key_invalid", what);
        assert_eq!(answer.json()["errors"][0]["header"], "Idempotency-Key", "{what}");
    }
    assert_wire_problem(&send(b"", "refused").await?, 400, "idempotency_key_missing", "none");
    assert_eq!(count(&world, "SELECT count(*) FROM payments").await?, 0);

    // the second form of each is the same key
    for (at, (one, other)) in [
        ("8e03978e-40d5".to_owned(), "\"8e03978e-40d5\"".to_owned()),
        (r#"a"b\c"#.to_owned(), r#""a\"b\\c""#.to_owned()),
        (long(255), format!("\"{}\"", long(255))),
        ("a;p=1,b".to_owned(), "  \"a;p=1,b\"  ".to_owned()),
        ("k".to_owned(), "\tk ".to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let line = |key: &str| format!("Idempotency-Key: {key}\r\n").into_bytes();
        let reference = format!("order-{at}");
        let first = send(&line(&one), &reference).await?;
        assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""), "{one}: {}", first.json());
        let second = send(&line(&other), &reference).await?;
        assert_eq!((second.status, second.header("idempotent-replayed")), (201, "true"), "{other}");
        assert_eq!(first.body, second.body);
    }
    world.finish().await
}

#[tokio::test]
async fn a_body_comes_in_any_way_that_http_has_and_in_no_other() -> Result<()> {
    let world = World::start().await?;
    let api = &world.api;
    let with = |key: &str, reference: &str, lines: &str| {
        let body = payment(reference).to_string();
        let request = post(api, key, &body);
        let (head, _) = request.split_once("\r\n\r\n").unwrap_or_default();
        let head = head.replace(&format!("\r\nContent-Length: {}", body.len()), "");
        (format!("{head}\r\n{lines}\r\n"), body)
    };

    // in chunks, with an extension and a trailer
    let (head, body) = with("chunked", "chunked", "Transfer-Encoding: chunked\r\n");
    let (one, other) = body.split_at(10);
    let chunked = format!("{head}A;x=y\r\n{one}\r\n{:x}\r\n{other}\r\n0\r\nTrailer: x\r\n\r\n", other.len());
    assert_eq!(answer_to(api, chunked.as_bytes()).await?.status, 201);
    for bad in ["xyz\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "2\r\n{}{}\r\n0\r\n\r\n"] {
        let (head, _) = with("bad-chunk", "bad-chunk", "Transfer-Encoding: chunked\r\n");
        let answer = answer_to(api, format!("{head}{bad}").as_bytes()).await.context(bad)?;
        assert_wire_problem(&answer, 400, "malformed_json", bad);
    }
    let (head, _) = with("large", "large", "Transfer-Encoding: chunked\r\n");
    let large = format!("{head}11000\r\n{}\r\n0\r\n\r\n", "x".repeat(0x11000));
    assert_wire_problem(&answer_to(api, large.as_bytes()).await?, 413, "payload_too_large", "in chunks");

    // cut off: nobody is left to be answered, and nothing happens
    let (head, body) =
        with("cut", "cut", &format!("Content-Length: {}\r\n", payment("cut").to_string().len()));
    let mut wire = Wire::to(&api.url).await?;
    wire.send(format!("{head}{}", &body[..10]).as_bytes()).await?;
    drop(wire);

    // only who is let in is asked for the body
    let length =
        format!("Content-Length: {}\r\nExpect: 100-continue\r\n", payment("expect").to_string().len());
    let (head, body) = with("expect", "expect", &length);
    let mut wire = Wire::to(&api.url).await?;
    wire.send(head.as_bytes()).await?;
    assert_eq!(wire.read().await?.status, 100);
    wire.send(body.as_bytes()).await?;
    assert_eq!(wire.read().await?.status, 201);
    let stranger = head.replace(&api.key, "sk_nobody");
    assert_wire_problem(&answer_to(api, stranger.as_bytes()).await?, 401, "unauthorized", "Expect");

    // an older client
    let (head, body) =
        with("old", "old", &format!("Content-Length: {}\r\n", payment("old").to_string().len()));
    let old = format!("{head}{body}").replacen("HTTP/1.1", "HTTP/1.0", 1);
    let old = old.replace(&format!("Host: {}\r\n", address(&api.url)), "");
    assert_eq!(last_answer_to(api, old.as_bytes()).await?.status, 201);

    // packed
    for coding in ["gzip", "br", "deflate", "identity, gzip", "nonsense", ""] {
        let request = api.request(Method::POST, PAYMENTS).header("Idempotency-Key", "packed");
        let request = request.header("Content-Encoding", coding).json(&payment("packed"));
        assert_problem(&api.send(request).await?, 415, "unsupported_media_type");
    }
    let request = api.request(Method::POST, PAYMENTS).header("Idempotency-Key", "plain");
    let request = request.header("Content-Encoding", "Identity").json(&payment("plain"));
    assert_eq!(api.send(request).await?.status, 201);
    assert_eq!(count(&world, "SELECT count(*) FROM payments").await?, 4);
    world.finish().await
}

/// A frame of HTTP/2 (RFC 9113, section 4.1): type, flags, stream, payload.
type Frame = (u8, u8, u32, Vec<u8>);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// The end of the headers, and of the stream.
const WHOLE: u8 = 0x4 | 0x1;

/// A connection of HTTP/2, frame by frame, for what no client would send.
struct Http2(TcpStream);

impl Http2 {
    async fn to(api: &Api) -> Result<Self> {
        let mut stream = TcpStream::connect(address(&api.url)).await?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        let mut http2 = Self(stream);
        http2.send(SETTINGS, 0, 0, &[]).await?;
        Ok(http2)
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<()> {
        let length = u32::try_from(payload.len())?.to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        Ok(self.0.write_all(&frame).await?)
    }

    /// Sends a request without a body: its fields are literals without a table (RFC 7541, section 6.2.2).
    async fn request(&mut self, stream: u32, fields: &[(&str, &str)]) -> Result<()> {
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for text in [name, value] {
                ensure!(text.len() < 127, "longer than one byte can say");
                block.push(u8::try_from(text.len())?);
                block.extend(text.as_bytes());
            }
        }
        self.send(HEADERS, WHOLE, stream, &block).await
    }

    async fn read(&mut self) -> Result<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c]))?];
        self.0.read_exact(&mut payload).await?;
        Ok((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// How a stream is answered: the first frame that is no mere setting, of it or of the whole connection.
    async fn answer(&mut self, stream: u32) -> Result<Frame> {
        loop {
            let frame = tokio::time::timeout(SOON, self.read()).await??;
            if (frame.0 <= RST_STREAM && frame.2 == stream) || frame.0 == GOAWAY {
                return Ok(frame);
            }
        }
    }
}

#[tokio::test]
async fn http_2_has_the_same_edges() -> Result<()> {
    let world = World::start().await?;
    let http =
        reqwest::Client::builder().tls_certs_only([]).http2_prior_knowledge().timeout(seconds(20)).build()?;
    let api = Api { http, ..world.api.clone() };
    let created = api.create("key", &payment("order-1")).await?;
    assert_eq!(created.status, 201, "{}", created.json());
    let version = api.request(Method::GET, PAYMENTS).send().await?.version();
    assert_eq!(version, reqwest::Version::HTTP_2);
    assert_eq!(api.create("key", &payment("order-1")).await?.body, created.body);
    assert_problem(&api.get("/v1/nowhere").await?, 404, "not_found");
    assert_problem(&api.get(&format!("{PAYMENTS}/%ff")).await?, 404, "not_found");
    assert_problem(&api.send(api.request(Method::TRACE, PAYMENTS)).await?, 405, "method_not_allowed");
    assert_problem(&api.get(&format!("{PAYMENTS}?reference=%ff")).await?, 422, "validation_failed");
    let large = api.money_post(PAYMENTS, "large").header("Content-Type", "application/json");
    assert_problem(&api.send(large.body("x".repeat(70_000))).await?, 413, "payload_too_large");

    let with = |lines: usize, bytes: usize| {
        (0..lines).fold(api.request(Method::GET, PAYMENTS), |request, at| {
            request.header(format!("x-{at}"), "y".repeat(bytes))
        })
    };
    assert_eq!(api.send(with(97, 1)).await?.status, 200);
    assert_eq!(api.send(with(1, 31 * 1024)).await?.status, 200, "31 KiB");
    for (lines, bytes) in [(101, 1), (600, 1), (1, 33 * 1024), (40, 1024), (1, 100 * 1024)] {
        assert_problem(&api.send(with(lines, bytes)).await?, 431, "headers_too_large");
    }
    let long = format!("{PAYMENTS}?reference={}", "x".repeat(33 * 1024));
    assert_problem(&api.get(&long).await?, 431, "headers_too_large");

    // what no client sends ends its stream, and no other
    let bearer = format!("Bearer {}", api.key);
    let good = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", PAYMENTS),
        ("authorization", bearer.as_str()),
    ];
    let without = |name: &str| good.iter().filter(|field| field.0 != name).copied().collect::<Vec<_>>();
    let and = |field: (&'static str, &'static str)| good.iter().copied().chain([field]).collect::<Vec<_>>();
    let mut http2 = Http2::to(&api).await?;
    let mut stream = 1;
    for fields in [
        without(":method"),
        without(":path"),
        without(":scheme"),
        and((":path", PAYMENTS)),
        and((":status", "200")),
        and((":unknown", "x")),
        and(("connection", "close")),
        and(("transfer-encoding", "chunked")),
        and(("Upper-Case", "x")),
        [without(":path"), vec![(":path", "")]].concat(),
        [without(":path"), vec![(":path", "no-slash")]].concat(),
    ] {
        http2.request(stream, &fields).await?;
        let (kind, _, _, payload) = http2.answer(stream).await.with_context(|| format!("{fields:?}"))?;
        // it is reset, or answered with a 400, whose name has a place in the static table: 0x8c
        let refused =
            kind == RST_STREAM || kind == GOAWAY || (kind == HEADERS && payload.first() == Some(&0x8c));
        assert!(refused, "{fields:?}: {kind} {}", shown(&payload));
        if kind == GOAWAY {
            http2 = Http2::to(&api).await?;
            stream = 1;
        } else {
            stream += 2;
        }
        http2.request(stream, &good).await?;
        let (kind, _, _, payload) = http2.answer(stream).await?;
        assert_eq!((kind, payload.first()), (HEADERS, Some(&0x88)), "a 200 after {fields:?}");
        let (kind, _, _, body) = http2.answer(stream).await?;
        assert_eq!(kind, DATA);
        assert!(serde_json::from_slice::<Value>(&body).is_ok());
        stream += 2;
    }
    assert_eq!(world.api.get("/readyz").await?.status, 200);
    world.finish().await
}
