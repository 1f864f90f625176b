//! The `Prefer` header (RFC 7240): `respond-async` and `wait=N`. What cannot be read is ignored, as the RFC asks.

use axum::http::{HeaderMap, HeaderValue};
use std::time::Duration;

/// The longest a caller can wait, in seconds. More counts as this.
pub const MAX_WAIT: u64 = 30;

/// What the caller prefers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Prefer {
    respond_async: bool,
    wait: Option<u64>,
}

impl Prefer {
    /// Reads all `Prefer` lines; of a preference that is stated twice the first counts (RFC 7240, section 2).
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut prefer = Self::default();
        let lines = headers.get_all("prefer").iter().filter_map(|line| line.to_str().ok());
        for preference in lines.flat_map(|line| line.split(',')) {
            let mut parts = preference.split(';').next().unwrap_or_default().splitn(2, '=');
            let name = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
            let value = parts.next().map(|value| value.trim().trim_matches('"'));
            match (name.as_str(), value) {
                ("respond-async", None | Some("")) => prefer.respond_async = true,
                ("wait", Some(value)) if prefer.wait.is_none() => {
                    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                    // what has too many digits for a number is more than the most
                    prefer.wait = digits.then(|| value.parse().unwrap_or(MAX_WAIT).min(MAX_WAIT));
                }
                _ => {}
            }
        }
        prefer
    }

    /// How long to wait for the outcome, if the caller said so.
    #[must_use]
    pub fn wait(self) -> Option<Duration> {
        match (self.wait, self.respond_async) {
            (Some(seconds), _) => Some(Duration::from_secs(seconds)),
            (None, true) => Some(Duration::ZERO),
            (None, false) => None,
        }
    }

    /// The value of `Preference-Applied`, if there is something to name.
    #[must_use]
    pub fn applied(self) -> Option<HeaderValue> {
        let text = match (self.respond_async, self.wait) {
            (true, Some(seconds)) => format!("respond-async, wait={seconds}"),
            (true, None) => "respond-async".to_owned(),
            (false, Some(seconds)) => format!("wait={seconds}"),
            (false, None) => return None,
        };
        HeaderValue::try_from(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> Prefer {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("prefer", HeaderValue::try_from(*line).unwrap());
        }
        Prefer::of(&headers)
    }

    #[test]
    fn preferences_are_read_as_the_rfc_has_them() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(of(&[]).wait(), None);
        assert_eq!(of(&["respond-async"]).wait(), seconds(0));
        assert_eq!(of(&["wait=5"]).wait(), seconds(5));
        assert_eq!(of(&["Respond-Async, WAIT=\"5\"; x=1"]).wait(), seconds(5));
        assert_eq!(of(&["wait=0", "wait=9"]).wait(), seconds(0));
        assert_eq!(of(&["wait=31"]).wait(), seconds(30));
        assert_eq!(of(&["wait=99999999999999999999999"]).wait(), seconds(30));
        for nonsense in
            ["wait", "wait=", "wait=-1", "wait=1.5", "wait=x", "return=minimal", ",;=,", "respond-async=1"]
        {
            assert_eq!(of(&[nonsense]).wait(), None, "{nonsense}");
        }
    }

    #[test]
    fn what_was_applied_is_named() {
        assert_eq!(of(&["wait=31, respond-async"]).applied().unwrap(), "respond-async, wait=30");
        assert_eq!(of(&["handling=lenient"]).applied(), None);
    }
}
