//! Where something stands in a distributed trace (W3C Trace Context, version 00).

use crate::id::TraceId;
use std::num::NonZeroU64;

/// The trace, the span that comes before, and whether anybody records it.
///
/// Its text is the header `traceparent`: `00-<trace id>-<span id>-<flags>`, in lower-case hexadecimal. It is kept with every
/// operation, so that whoever settles it later continues the trace of whoever asked.
///
/// ```
/// use domain::trace::TraceContext;
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let context = TraceContext::parse(text).unwrap();
/// assert!(context.sampled);
/// assert_eq!(context.to_string(), text);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace. It ties an answer, its log lines and its events together.
    pub trace_id: TraceId,
    /// The span within it.
    pub span_id: NonZeroU64,
    /// Whether the trace is recorded. Who comes later decides the same, so that a trace is whole or absent.
    pub sampled: bool,
}

impl TraceContext {
    /// A trace that nobody records, of which nothing is known but its id.
    #[must_use]
    pub fn random() -> Self {
        let trace_id = TraceId::random();
        // a UUID has bits that are set in both of its halves
        let (_, half) = trace_id.as_uuid().as_u64_pair();
        Self { trace_id, span_id: NonZeroU64::new(half).unwrap_or(NonZeroU64::MIN), sampled: false }
    }

    /// Reads a `traceparent`: version 00, and what later versions must look like to older readers (section 3.2).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version = hex::<2>(parts.next()?).filter(|version| *version != 0xff)?;
        let trace_id = TraceId::parse(parts.next()?)?;
        let span_id = NonZeroU64::new(hex::<16>(parts.next()?)?)?;
        let flags = hex::<2>(parts.next()?)?;
        let complete = version != 0 || parts.next().is_none();
        complete.then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn hex<const DIGITS: usize>(text: &str) -> Option<u64> {
    let lower_hex = text.len() == DIGITS && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    lower_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for sampled in [true, false] {
            let context = TraceContext { sampled, ..TraceContext::random() };
            assert_eq!(TraceContext::parse(&context.to_string()), Some(context));
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        let later = TraceContext::parse(&format!("01-{id}-00f067aa0ba902b7-03-more")).unwrap();
        assert_eq!((later.trace_id.to_string().as_str(), later.sampled), (id, true));
    }

    #[test]
    fn anything_else_is_none() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        for bad in [
            "",
            id,
            &format!("00-{id}-00f067aa0ba902b7"),
            &format!("ff-{id}-00f067aa0ba902b7-01"),
            &format!("0-{id}-00f067aa0ba902b7-01"),
            &format!("00-{id}-0000000000000000-01"),
            &format!("00-{id}-00F067AA0BA902B7-01"),
            &format!("00-{id}-00f067aa0ba902b7-1"),
            &format!("00-{id}-00f067aa0ba902b7-01-x"),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
