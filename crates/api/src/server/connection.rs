//! Below hyper: what its parser of HTTP/1 answers by itself gets words, a head that tells the length of its body in two ways
//! is noticed, of which hyper shows only one, and what is read and written is seen by [`Progress`].

use super::timeouts::Progress;
use crate::http::error::CONTENT_TYPE;
use crate::problem::{Code, Problem};
use domain::trace::TraceContext;
use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// So much of what a refused caller still sends is taken, and for so long: an answer that a reset overtakes is not read.
const MAX_REST: usize = 1024 * 1024;
const REST_TIME: Duration = Duration::from_secs(2);

/// Whether a connection has brought a head with both `Transfer-Encoding` and `Content-Length`. Whoever reads the other of
/// the two sees another request behind this one (RFC 9112, section 11.2).
#[derive(Debug, Clone, Default)]
pub(super) struct TwoLengths(Arc<AtomicBool>);

impl TwoLengths {
    /// It has.
    pub(super) fn seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection as hyper sees it.
pub(super) struct Connection<S> {
    stream: S,
    heads: Heads,
    two_lengths: TwoLengths,
    farewell: Option<Farewell>,
    progress: Arc<Progress>,
    is_stalled: bool,
}

/// The answer in words, and what comes after it.
struct Farewell {
    answer: Vec<u8>,
    written: usize,
    taken: usize,
    end: Pin<Box<Sleep>>,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, progress: Arc<Progress>) -> Self {
        let (heads, two_lengths) = (Heads::default(), TwoLengths::default());
        Self { stream, heads, two_lengths, farewell: None, progress, is_stalled: false }
    }

    pub(super) fn two_lengths(&self) -> TwoLengths {
        self.two_lengths.clone()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Answers before anything was asked, and ends.
    pub(super) async fn refuse(mut self, code: Code) -> io::Result<()> {
        poll_fn(|cx| self.poll_farewell(cx, code)).await
    }

    /// Notices whether what there is to send is taken.
    fn seen<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_pending() || self.is_stalled {
            self.is_stalled = written.is_pending();
            self.progress.written(written.is_ready(), Instant::now());
        }
        written
    }

    fn poll_write_in_words(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match own_answer(bytes) {
            Some((0, code)) => {
                ready!(self.poll_farewell(cx, code))?;
                Poll::Ready(Ok(bytes.len()))
            }
            // what is before it first
            Some((begin, _)) => {
                Pin::new(&mut self.stream).poll_write(cx, bytes.get(..begin).unwrap_or_default())
            }
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    /// Says it in words, and takes what the caller still sends.
    fn poll_farewell(&mut self, cx: &mut Context<'_>, code: Code) -> Poll<io::Result<()>> {
        let Self { stream, farewell, .. } = self;
        let farewell = farewell.get_or_insert_with(|| Farewell::of(code));
        let mut stream = Pin::new(stream);
        while let Some(rest) = farewell.answer.get(farewell.written..).filter(|rest| !rest.is_empty()) {
            match ready!(stream.as_mut().poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => farewell.written = farewell.written.saturating_add(written),
            }
        }
        ready!(stream.as_mut().poll_shutdown(cx))?;
        while farewell.taken < MAX_REST && farewell.end.as_mut().poll(cx).is_pending() {
            let mut rest = [0; 4096];
            let mut rest = ReadBuf::new(&mut rest);
            ready!(stream.as_mut().poll_read(cx, &mut rest))?;
            match rest.filled().len() {
                0 => break,
                more => farewell.taken = farewell.taken.saturating_add(more),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Farewell {
    fn of(code: Code) -> Self {
        Self {
            answer: last_answer(code),
            written: 0,
            taken: 0,
            end: Box::pin(tokio::time::sleep_until(Instant::now() + REST_TIME)),
        }
    }
}

/// An answer behind which the connection ends.
fn last_answer(code: Code) -> Vec<u8> {
    let problem = match code {
        Code::HeadersTooLarge => Problem::new(code, "The line of the request or its headers are too large."),
        Code::Overloaded => {
            Problem::passing(code, "Too many connections are open. Connect again a little later.", 1)
        }
        _ => Problem::new(code, "This is not a request of HTTP/1.1 (RFC 9112)."),
    };
    let trace_id = TraceContext::random().trace_id.to_string();
    let body = problem.body(&trace_id);
    let head = format!(
        "HTTP/1.1 {}\r\ncontent-type: {CONTENT_TYPE}\r\ncontent-length: {}\r\nrequest-id: {trace_id}\r\n\
         cache-control: no-store\r\nconnection: close\r\n",
        code.status(),
        body.len()
    );
    let mut answer = head.into_bytes();
    for (name, value) in problem.headers() {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(b"\r\n");
    answer.extend(body);
    answer
}

/// Answers before anything was asked, as far as that goes without waiting.
pub(super) fn say_and_close(stream: TcpStream, code: Code) {
    // tokio's own does not know yet that a new one can be written to
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(&last_answer(code));
    }
}

/// An answer of hyper's own at the end of what it writes: where it begins, and the code that it stands for. It has a status
/// and nothing to say, and the connection ends with it.
fn own_answer(bytes: &[u8]) -> Option<(usize, Code)> {
    // from the end: the last line of any other answer that could be one of hyper's tells it apart
    let mut rest = bytes.strip_suffix(b"\r\n\r\n")?;
    let mut is_empty = false;
    loop {
        let begin = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end.saturating_add(1));
        match rest.get(begin..)? {
            b"content-length: 0" => is_empty = true,
            b"connection: close" => {}
            line if line.starts_with(b"date: ") => {}
            line => {
                let begin = line.windows(7).rposition(|window| window == b"HTTP/1.")?.saturating_add(begin);
                let code = match bytes.get(begin..)?.split(|byte| *byte == b' ').nth(1)? {
                    b"400" => Code::MalformedJson,
                    b"414" | b"431" => Code::HeadersTooLarge,
                    _ => return None,
                };
                return is_empty.then_some((begin, code));
            }
        }
        rest = rest.get(..begin)?.strip_suffix(b"\r\n")?;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = self.poll_write_in_words(cx, bytes);
        self.seen(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.iter().any(|slice| own_answer(slice).is_some()) {
            let first = slices.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.seen(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.farewell {
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.farewell {
            Some(_) => Poll::Ready(Ok(())),
            None => Pin::new(&mut self.stream).poll_shutdown(cx),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().get(before..).unwrap_or_default();
        if !read.is_empty() {
            self.progress.read(Instant::now());
        }
        if self.heads.tell_two_lengths(read) {
            self.two_lengths.0.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

/// Lines of what was sent, heads and bodies alike: a body in JSON has no line that begins with a header's name, unless its
/// chunks are cut to look so, and then its connection is ended early.
#[derive(Default)]
struct Heads {
    /// How the present line begins.
    line: Vec<u8>,
    transfer_encoding: bool,
    content_length: bool,
}

impl Heads {
    const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";
    const CONTENT_LENGTH: &[u8] = b"content-length:";

    /// Whether a head that both of them are in goes on or ends in these bytes.
    fn tell_two_lengths(&mut self, bytes: &[u8]) -> bool {
        let mut both = false;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let is_whole = part.ends_with(b"\n");
            // one that came in one piece is looked at where it is
            let line = if self.line.is_empty() && is_whole {
                part
            } else {
                let room = Self::TRANSFER_ENCODING.len().saturating_sub(self.line.len());
                self.line.extend(part.iter().take(room));
                &self.line
            };
            if !is_whole {
                break;
            }
            let begins =
                |name: &[u8]| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
            if matches!(line, b"\n" | b"\r\n") {
                (self.transfer_encoding, self.content_length) = (false, false);
            } else if begins(Self::TRANSFER_ENCODING) {
                self.transfer_encoding = true;
            } else if begins(Self::CONTENT_LENGTH) {
                self.content_length = true;
            }
            both |= self.transfer_encoding && self.content_length;
            self.line.clear();
        }
        both
    }
}

#[cfg(test)]
mod tests {
    use super::super::timeouts::Timeouts;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const OWN: &str = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Sat, 31 Jan 2026 12:00:00 GMT\r\n\r\n";

    #[test]
    fn only_answers_without_words_are_taken_for_hypers_own() {
        assert_eq!(own_answer(OWN.as_bytes()), Some((0, Code::HeadersTooLarge)));
        assert_eq!(own_answer(format!("{{}}{OWN}").as_bytes()), Some((2, Code::HeadersTooLarge)));
        let bad = OWN.replace("431 Request Header Fields Too Large", "400 Bad Request");
        assert_eq!(own_answer(bad.as_bytes()), Some((0, Code::MalformedJson)));
        let old = OWN.replace("HTTP/1.1 431 Request Header Fields Too Large", "HTTP/1.0 414 URI Too Long");
        assert_eq!(own_answer(old.as_bytes()), Some((0, Code::HeadersTooLarge)));
        for other in [
            "",
            "\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            // our answers to HEAD
            &OWN.replace("date:", "request-id: 1\r\ndate:"),
            &OWN.replace("content-length: 0", "content-length: 300"),
            &OWN.replace("431", "200"),
            &format!("{OWN}{{}}"),
        ] {
            assert_eq!(own_answer(other.as_bytes()), None, "{other}");
        }
    }

    #[tokio::test]
    async fn what_was_written_before_goes_first_and_then_words() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let progress = Arc::new(Progress::new(Timeouts::DEFAULT));
        let mut connection = Connection::new(ours, progress);
        let writing = tokio::spawn(async move {
            connection
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}{OWN}").as_bytes())
                .await
        });
        // it still sends while it is answered
        theirs.write_all(&[b'x'; 900]).await.unwrap();
        let mut read = String::new();
        theirs.read_to_string(&mut read).await.unwrap();
        drop(theirs);
        writing.await.unwrap().unwrap();
        let (first, second) = read.split_once("{}").unwrap();
        assert!(
            first.starts_with("HTTP/1.1 200") && second.starts_with("HTTP/1.1 431 Request Header"),
            "{read}"
        );
        assert!(second.contains("\r\nrequest-id: ") && second.ends_with('}'), "{read}");
        assert_eq!(read.matches("HTTP/1.1").count(), 2, "{read}");
    }

    #[test]
    fn two_lengths_are_seen_in_one_head_however_it_is_cut() {
        let both =
            "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-encoding: chunked\r\nX: y\r\nContent-length:2\r\n\r\n{}";
        for cut in 0..both.len() {
            let (one, other) = both.as_bytes().split_at(cut);
            let mut heads = Heads::default();
            assert!(heads.tell_two_lengths(one) | heads.tell_two_lengths(other), "{cut}");
        }
        for one in [
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "POST / HTTP/1.1\nTransfer-Encoding: chunked\n\nPOST / HTTP/1.1\nContent-Length: 2\n\n{}",
            "POST / HTTP/1.1\r\nContent-Length: 2\r\nX-Transfer-Encoding: chunked\r\n\r\n{}",
            "POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n{\"description\": \"transfer-encoding: \",\r\n \"a\": 1}",
        ] {
            assert!(!Heads::default().tell_two_lengths(one.as_bytes()), "{one}");
        }
    }
}
