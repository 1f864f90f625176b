//! Requests byte by byte, also such as no client library sends, over connections that are kept as long as they may be.

use crate::{Answer, Api};
use anyhow::{Context, Result, bail, ensure};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// An answer that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(40);

/// A request of HTTP/1.1, in bytes.
#[derive(Debug, Clone)]
pub struct RawRequest {
    method: &'static str,
    target: Vec<u8>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Option<Vec<u8>>,
}

impl RawRequest {
    /// A request for a path and query.
    pub fn new(method: &'static str, target: impl Into<Vec<u8>>) -> Self {
        Self { method, target: target.into(), headers: Vec::new(), body: None }
    }

    /// With a header, in the place of one of the same name.
    #[must_use]
    pub fn header(mut self, name: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        let name = name.into();
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
        self.headers.push((name, value.into()));
        self
    }

    /// With a body of JSON, whether it is any or not.
    #[must_use]
    pub fn json(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        match self.has("content-type") {
            true => self,
            false => self.header("Content-Type", "application/json"),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Whether a piece of it ends a line. What comes behind is then another request, and nobody waits for its answer.
    fn breaks_out(&self) -> bool {
        let pieces = self.headers.iter().flat_map(|(name, value)| [name, value]).chain([&self.target]);
        pieces.flatten().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) || self.has("content-length")
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = [self.method.as_bytes(), b" ", &self.target, b" HTTP/1.1\r\n"].concat();
        for (name, value) in &self.headers {
            bytes.extend([name, b": ".as_slice(), value, b"\r\n"].concat());
        }
        if let Some(body) = &self.body
            && !self.has("content-length")
        {
            bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(self.body.iter().flatten());
        bytes
    }
}

/// A service, as somebody sees it who writes requests by hand.
#[derive(Debug)]
pub struct RawClient {
    address: String,
    key: String,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
}

impl RawClient {
    /// With a merchant's key.
    ///
    /// # Errors
    /// Its URL is none.
    pub fn of(api: &Api) -> Result<Self> {
        let address = api.url.strip_prefix("http://").context("a plain URL")?.to_owned();
        Ok(Self { address, key: api.key.clone(), idle: Mutex::default() })
    }

    /// Sends a request with the merchant's key, and reads the answer.
    ///
    /// # Errors
    /// There is none, or it is no HTTP.
    pub async fn send(&self, request: &RawRequest) -> Result<Answer> {
        let mut request = request.clone();
        if !request.has("authorization") {
            request = request.header("Authorization", format!("Bearer {}", self.key));
        }
        if !request.has("host") {
            request = request.header("Host", self.address.as_str());
        }
        tokio::time::timeout(PATIENCE, self.exchange(&request)).await.context("no answer in time")?
    }

    async fn exchange(&self, request: &RawRequest) -> Result<Answer> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match kept.filter(|_| !request.breaks_out()) {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(&self.address).await?),
        };
        connection.get_ref().set_nodelay(true)?;
        // who has heard enough closes: what counts is whether there is an answer
        let sent = connection.get_mut().write_all(&request.bytes()).await;
        let answer = match read_answer(&mut connection).await {
            Ok(answer) => answer,
            Err(error) => bail!("{error:#}, after {sent:?}"),
        };
        let ends = answer.header("connection").eq_ignore_ascii_case("close");
        if !ends && !request.breaks_out() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        Ok(answer)
    }
}

async fn read_answer(connection: &mut BufReader<TcpStream>) -> Result<Answer> {
    loop {
        let answer = read_one(connection).await?;
        // 100 (Continue) is no answer yet
        if answer.status >= 200 {
            return Ok(answer);
        }
    }
}

async fn read_one(connection: &mut BufReader<TcpStream>) -> Result<Answer> {
    let mut status = None;
    let mut headers = HeaderMap::new();
    loop {
        let mut line = Vec::new();
        connection.read_until(b'\n', &mut line).await?;
        let line = line.strip_suffix(b"\r\n").context("the connection ended before an answer")?;
        let text = str::from_utf8(line).context("an answer's header is no text")?;
        match (status, text.split_once(": ")) {
            (None, _) => {
                let number = text.strip_prefix("HTTP/1.1 ").or(text.strip_prefix("HTTP/1.0 "));
                status = Some(number.and_then(|rest| rest.get(..3)).context("no status")?.parse::<u16>()?);
            }
            (Some(_), Some((name, value))) => {
                headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
            }
            (Some(_), None) => {
                ensure!(text.is_empty(), "a line that is no header: {text}");
                break;
            }
        }
    }
    let status = status.context("no status")?;
    let mut answer = Answer { status, headers, body: Vec::new() };
    ensure!(answer.header("transfer-encoding").is_empty(), "the answer is in chunks");
    let length = answer.header("content-length");
    answer.body = vec![0; if length.is_empty() { 0 } else { length.parse()? }];
    connection.read_exact(&mut answer.body).await?;
    Ok(answer)
}
