//! Faults: which requests go wrong, and how. The rules come from the control surface.

use std::{collections::BTreeMap, time::Duration};

use axum::http::Method;
use serde::{Deserialize, Serialize};

/// How a request goes wrong. `Before`: nothing is executed. `After`: it is, and only the answer is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// Takes longer; the answer is good.
    Delay,
    /// Refused with 429 and `Retry-After: 1`.
    #[serde(rename = "http_429")]
    Http429,
    /// 500, nothing executed.
    #[serde(rename = "http_500_before")]
    Http500Before,
    /// Executed, then 500 once: the same key gets the true answer.
    #[serde(rename = "http_500_after")]
    Http500After,
    /// Executed, then 500, and 500 again whenever the key comes back.
    #[serde(rename = "http_500_stored")]
    Http500Stored,
    /// TCP reset, nothing executed.
    ResetBefore,
    /// Executed, then a TCP reset.
    ResetAfter,
    /// No answer, nothing executed.
    HangBefore,
    /// Executed, then no answer.
    HangAfter,
    /// TCP reset at once; the request executes later all the same.
    Late,
    /// Executed; half of the answer's body, then the connection ends.
    HalfBody,
    /// Executed; 200 with bytes that are no JSON.
    Garbage,
    /// Executed; the answer's body comes a byte at a time.
    SlowBody,
}

impl FaultKind {
    /// Whether the caller does not get the answer in good order.
    pub(crate) const fn spoils_answer(self) -> bool {
        !matches!(self, Self::Delay)
    }
}

/// What a fault has to know once it was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: FaultKind,
    /// `delay_ms` of the rule.
    pub delay: Option<Duration>,
}

/// One rule, as the control surface takes and shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// `*`, or a method and a path whose segments may be `*`.
    #[serde(rename = "match")]
    pub pattern: Pattern,
    pub fault: FaultKind,
    /// 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// How often it is still used; `None` is without end.
    #[serde(default)]
    pub times: Option<u64>,
    /// Milliseconds; what they delay depends on the fault.
    #[serde(default)]
    pub delay_ms: Option<u64>,
}

fn always() -> f64 {
    1.0
}

/// Which requests a rule is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Pattern {
    /// `*`
    Everything,
    /// `POST /v1/payment_intents/*/capture`
    Endpoint {
        method: Method,
        /// Segments between slashes; `*` is any one segment.
        segments: Vec<String>,
    },
}

impl Pattern {
    fn matches(&self, method: &Method, path: &str) -> bool {
        match self {
            Self::Everything => true,
            Self::Endpoint { method: wanted, segments } => {
                let mut actual = path.split('/').skip(1);
                wanted == method
                    && segments
                        .iter()
                        .all(|wanted| actual.next().is_some_and(|found| wanted == "*" || wanted == found))
                    && actual.next().is_none()
            }
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "*" {
            return Ok(Self::Everything);
        }
        let refuse = |why: &str| {
            Err(format!(
                "match {text:?} {why}; write * or a method and a path, such as \"POST /v1/payment_intents/*/capture\""
            ))
        };
        let Some((method, path)) = text.split_once(' ') else { return refuse("has no method") };
        let method = match method {
            "GET" => Method::GET,
            "POST" => Method::POST,
            "DELETE" => Method::DELETE,
            _ => return refuse("has a method that is not GET, POST or DELETE"),
        };
        if !path.starts_with("/v1/") {
            return refuse("has a path outside /v1/, where no fault applies");
        }
        if path.contains(['{', '}', '?', ' ']) {
            return refuse("has a path that no request can have");
        }
        Ok(Self::Endpoint { method, segments: path.split('/').skip(1).map(str::to_owned).collect() })
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        match pattern {
            Pattern::Everything => "*".to_owned(),
            Pattern::Endpoint { method, segments } => format!("{method} /{}", segments.join("/")),
        }
    }
}

/// The rules in force, and what happened since the start: how often each endpoint was called, each fault injected.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    rules: Vec<Rule>,
    /// By `Endpoint::template`.
    pub calls: BTreeMap<&'static str, u64>,
    pub injected: BTreeMap<FaultKind, u64>,
}

impl Traffic {
    /// Reads a list of rules; the message says which rule is wrong and why.
    pub(crate) fn parse(json: &[u8]) -> Result<Vec<Rule>, String> {
        let rules: Vec<serde_json::Value> =
            serde_json::from_slice(json).map_err(|error| format!("the body is no JSON array: {error}"))?;
        let mut parsed = Vec::with_capacity(rules.len());
        for (index, rule) in rules.into_iter().enumerate() {
            let rule: Rule =
                serde_json::from_value(rule).map_err(|error| format!("rule {index}: {error}"))?;
            if !(0.0..=1.0).contains(&rule.probability) {
                return Err(format!("rule {index}: probability {} is not between 0 and 1", rule.probability));
            }
            parsed.push(rule);
        }
        Ok(parsed)
    }

    /// Replaces all rules. One that may never be used is dropped at once.
    pub(crate) fn replace(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
        self.rules.retain(|rule| rule.times != Some(0));
    }

    /// The rules that are left.
    pub(crate) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Counts a request.
    pub(crate) fn count(&mut self, endpoint: &'static str) {
        let calls = self.calls.entry(endpoint).or_default();
        *calls = calls.saturating_add(1);
    }

    /// Decides whether a request goes wrong: the first rule that matches and hits is used, and used up.
    pub(crate) fn draw(&mut self, method: &Method, path: &str) -> Option<Fault> {
        let place = self
            .rules
            .iter()
            .position(|rule| rule.pattern.matches(method, path) && rand::random_bool(rule.probability))?;
        let rule = self.rules.get_mut(place)?;
        let fault = Fault { kind: rule.fault, delay: rule.delay_ms.map(Duration::from_millis) };
        if let Some(times) = &mut rule.times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                self.rules.remove(place);
            }
        }
        let injected = self.injected.entry(fault.kind).or_default();
        *injected = injected.saturating_add(1);
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traffic(rules: &str) -> Traffic {
        let mut traffic = Traffic::default();
        traffic.replace(Traffic::parse(rules.as_bytes()).unwrap());
        traffic
    }

    #[test]
    fn a_star_stands_for_exactly_one_segment() {
        let mut traffic =
            traffic(r#"[{"match": "POST /v1/payment_intents/*/capture", "fault": "http_429"}]"#);
        let mut hit = |method: Method, path: &str| traffic.draw(&method, path).is_some();
        assert!(hit(Method::POST, "/v1/payment_intents/pi_1/capture"));
        assert!(!hit(Method::GET, "/v1/payment_intents/pi_1/capture"));
        assert!(!hit(Method::POST, "/v1/payment_intents/pi_1/cancel"));
        assert!(!hit(Method::POST, "/v1/payment_intents/capture"));
        assert!(!hit(Method::POST, "/v1/payment_intents/pi_1/capture/again"));
    }

    #[test]
    fn the_first_rule_that_hits_is_used_until_it_is_used_up() {
        let mut traffic = traffic(
            r#"[{"match": "*", "fault": "garbage", "probability": 0},
                {"match": "*", "fault": "reset_after", "times": 2},
                {"match": "*", "fault": "late", "delay_ms": 5}]"#,
        );
        let mut draw = || traffic.draw(&Method::POST, "/v1/refunds").unwrap();
        assert_eq!(draw().kind, FaultKind::ResetAfter);
        assert_eq!(draw().kind, FaultKind::ResetAfter);
        assert_eq!(draw(), Fault { kind: FaultKind::Late, delay: Some(Duration::from_millis(5)) });
        assert_eq!(traffic.rules().len(), 2);
        assert_eq!(traffic.injected, BTreeMap::from([(FaultKind::ResetAfter, 2), (FaultKind::Late, 1)]));
    }

    #[test]
    fn rules_read_back_as_they_were_written() {
        let json = r#"[{"match":"GET /v1/refunds/*","fault":"http_500_stored","probability":0.5,"times":null,"delay_ms":7}]"#;
        assert_eq!(serde_json::to_string(traffic(json).rules()).unwrap(), json);
    }

    #[test]
    fn a_bad_rule_is_named() {
        for (rules, complaint) in [
            ("{}", "no JSON array"),
            (r#"[{"match": "*", "fault": "meteor"}]"#, "rule 0: unknown variant `meteor`"),
            (
                r#"[{"match": "*", "fault": "late"}, {"match": "*", "fault": "late", "probability": 2}]"#,
                "rule 1",
            ),
            (r#"[{"match": "/v1/refunds", "fault": "late"}]"#, "has no method"),
            (r#"[{"match": "POST /_sim/faults", "fault": "late"}]"#, "outside /v1/"),
            (r#"[{"match": "POST /v1/payment_intents/{id}", "fault": "late"}]"#, "no request can have"),
            (r#"[{"match": "*", "fault": "late", "tmies": 1}]"#, "unknown field `tmies`"),
        ] {
            let error = Traffic::parse(rules.as_bytes()).unwrap_err();
            assert!(error.contains(complaint), "{rules}: {error}");
        }
    }
}
