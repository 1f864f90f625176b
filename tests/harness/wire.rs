//! A connection that is as cheap to use as can be, because whoever makes load shares the machine with what is measured:
//! plain HTTP/1.1, requests glued together from text, answers read no further than they have to be.

use anyhow::{Context, Result, anyhow};
use std::str;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// A kept connection to a service.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, as long as its connection is not used again.
#[derive(Debug, Clone, Copy)]
pub struct WireAnswer<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
    head: &'a str,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection was closed before the first byte of an answer.
    #[error("the connection is closed")]
    Closed,
    /// It broke later, or what came is no answer that this reads.
    #[error(transparent)]
    Broken(#[from] anyhow::Error),
}

impl Wire {
    /// A connection to a host and port.
    ///
    /// # Errors
    /// Nobody takes it.
    pub async fn to(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(2048) })
    }

    /// Whether the other side has closed it while it rested.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        // nobody asked for anything, so nothing is there to be read but the end
        !matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Errors
    /// None comes. The connection is of no use any more.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<WireAnswer<'_>, WireError> {
        if self.stream.write_all(request).await.is_err() {
            return Err(WireError::Closed);
        }
        self.buffer.clear();
        let (head, end) = loop {
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(1..) => {}
                Ok(0) | Err(_) if self.buffer.is_empty() => return Err(WireError::Closed),
                Ok(_) => return Err(anyhow!("the connection ended within an answer").into()),
                Err(error) => return Err(anyhow!(error).into()),
            }
            if let Some((head, end)) = extent(&self.buffer)?
                && self.buffer.len() >= end
            {
                break (head, end);
            }
        };
        let (text, status) = head_of(&self.buffer[..head])?;
        if self.buffer.len() > end {
            return Err(anyhow!("more than one answer: {text}").into());
        }
        Ok(WireAnswer { status, head: text, body: &self.buffer[head..end] })
    }
}

impl<'a> WireAnswer<'a> {
    /// A header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }

    /// Whether another request may be sent on the same connection.
    #[must_use]
    pub fn keeps_connection(&self) -> bool {
        self.header("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close"))
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (other, value) = line.split_once(':')?;
        other.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The length of the head, and that of head and body together, once the head is complete.
fn extent(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = str::from_utf8(&bytes[..head])?;
    let length: usize = header(text, "content-length").context("an answer without a length")?.parse()?;
    Ok(Some((head + 4, head + 4 + length)))
}

fn head_of(head: &[u8]) -> Result<(&str, u16)> {
    let text = str::from_utf8(head)?;
    let status = text.get(9..12).context("an answer without a status")?.parse()?;
    Ok((text, status))
}

/// What is the same in every request of one caller.
#[derive(Debug, Clone)]
pub struct WireHead(String);

impl WireHead {
    /// The head of requests to a host and port, with an API key.
    #[must_use]
    pub fn of(host: &str, api_key: &str) -> Self {
        Self(format!(" HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {api_key}\r\n"))
    }

    /// A request for the payment of [`payment`](crate::payment), whose reference is its key.
    #[must_use]
    pub fn pay(&self, key: Uuid) -> String {
        let body = format!(
            r#"{{"amount":1999,"currency":"EUR","reference":"{key}","payment_method":"pm_card_visa"}}"#
        );
        let (head, length) = (&self.0, body.len());
        format!(
            "POST /v1/payments{head}Idempotency-Key: {key}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
    }

    /// A request to read a path.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        format!("GET {path}{}\r\n", self.0)
    }
}
