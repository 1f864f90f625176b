//! What every answer must be, whatever was asked.

use crate::{Answer, Figures, RawClient, RawRequest};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::{self, Display};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a client comes back that was told to, and after how long.
const TRIES: usize = 30;
const PAUSE: Duration = Duration::from_secs(1);
/// A refused text that is shorter may stand in any sentence.
const TELLING: usize = 8;

/// What an answer, or the service, can be blamed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    NoAnswer,
    ServerError,
    NoProblem,
    UnknownCode,
    Unnamed,
    GivenBack,
    NotTaken,
    Changed,
    EmojiRefused,
    InvalidTaken,
    ValidRefused,
    Log,
    Leak,
}

const FAULTS: [(Fault, &str); 13] = [
    (Fault::NoAnswer, "connections dropped without an answer"),
    (Fault::ServerError, "answers of 500 and above, and 503 that stayed"),
    (Fault::NoProblem, "refusals that are no problem details"),
    (Fault::UnknownCode, "codes without a page"),
    (Fault::Unnamed, "wrong fields and parameters that errors does not name"),
    (Fault::GivenBack, "refused texts in the words of a refusal"),
    (Fault::NotTaken, "texts nothing was said against, refused all the same"),
    (Fault::Changed, "accepted texts not read back as their NFC"),
    (Fault::EmojiRefused, "emoji refused in a text"),
    (Fault::InvalidTaken, "invalid JSON not refused with 400"),
    (Fault::ValidRefused, "valid JSON called malformed"),
    (Fault::Log, "log lines broken, forged, missing or too many"),
    (Fault::Leak, "log lines with anything of a text in them"),
];

/// What became of the texts of one kind in one position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Row {
    taken: usize,
    refused: usize,
}

#[derive(Debug, Default)]
struct Seen {
    requests: usize,
    not_http: usize,
    read_back: usize,
    statuses: BTreeMap<u16, usize>,
    codes: BTreeSet<String>,
    request_ids: HashSet<String>,
    faults: BTreeMap<Fault, Vec<String>>,
    positions: Vec<&'static str>,
    rows: BTreeMap<(&'static str, &'static str), Row>,
}

/// Judges every answer, and remembers what came of it.
#[derive(Default)]
pub(super) struct Watch(Mutex<Seen>);

impl Watch {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn blame(&self, fault: Fault, what: impl Display) {
        self.seen().faults.entry(fault).or_default().push(what.to_string());
    }

    /// Sends a request in a text's name and judges the answer. `None`: there was none.
    pub(super) async fn ask(&self, client: &RawClient, request: &RawRequest, text: &str) -> Option<Answer> {
        let mut tries = 1..=TRIES;
        let answer = loop {
            let sent = client.send(request).await;
            self.seen().requests += 1;
            match sent {
                // on a machine that has too much to do: the same request again
                Ok(answer) if is_passing(&answer) && tries.next().is_some() => {
                    self.hear(&answer);
                    tokio::time::sleep(PAUSE).await;
                }
                Ok(answer) => break answer,
                Err(error) => {
                    self.blame(Fault::NoAnswer, format_args!("{text:?}: {error:#}"));
                    return None;
                }
            }
        };
        self.hear(&answer);
        if answer.status >= 500 {
            self.blame(Fault::ServerError, told(&answer, text));
        }
        // bytes that are no HTTP need not come as far as somebody who could explain
        if is_below_http(&answer) {
            self.seen().not_http += 1;
        }
        if answer.status >= 300 && !(is_below_http(&answer) && answer.body.is_empty()) {
            self.judge_problem(&answer, text);
        }
        Some(answer)
    }

    fn hear(&self, answer: &Answer) {
        let mut seen = self.seen();
        *seen.statuses.entry(answer.status).or_default() += 1;
        let id = answer.header("request-id");
        if !id.is_empty() && !is_below_http(answer) {
            seen.request_ids.insert(id.to_owned());
        }
    }

    fn judge_problem(&self, answer: &Answer, text: &str) {
        let body = answer.json();
        let has_words = |member: &str| body[member].as_str().is_some_and(|words| !words.is_empty());
        let is_problem = answer.header("content-type") == "application/problem+json"
            && body["status"] == answer.status
            && ["type", "title", "detail", "code"].into_iter().all(has_words)
            && body["trace_id"] == answer.header("request-id");
        if !is_problem {
            self.blame(Fault::NoProblem, told(answer, text));
        }
        let errors = body["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |member: &'static str| errors.iter().filter_map(move |error| error[member].as_str());
        let mut details = of("detail").chain(body["detail"].as_str());
        if text.chars().count() >= TELLING && details.any(|detail| detail.contains(text)) {
            self.blame(Fault::GivenBack, told(answer, text));
        }
        let mut seen = self.seen();
        for code in of("code").chain(body["code"].as_str()) {
            if !seen.codes.contains(code) {
                seen.codes.insert(code.to_owned());
            }
        }
    }

    pub(super) fn count(&self, position: &'static str, kind: &'static str, is_taken: bool) {
        let mut seen = self.seen();
        if !seen.positions.contains(&position) {
            seen.positions.push(position);
        }
        let row = seen.rows.entry((position, kind)).or_default();
        row.taken += usize::from(is_taken);
        row.refused += usize::from(!is_taken);
    }

    /// Compares what was read with what it should be.
    pub(super) fn compare(&self, position: &str, sent: &str, expected: &str, read: &Value) {
        self.seen().read_back += 1;
        if read.as_str() != Some(expected) {
            self.blame(Fault::Changed, format_args!("{position}: {sent:?} is {read}"));
        }
    }

    /// Every code that was answered has a page.
    pub(super) async fn look_codes_up(&self, client: &RawClient) {
        let codes = self.seen().codes.clone();
        for code in codes {
            let page = RawRequest::new("GET", format!("/docs/errors/{code}"));
            let page = self.ask(client, &page, &code).await;
            if page.is_none_or(|page| page.status != 200) {
                self.blame(Fault::UnknownCode, code);
            }
        }
    }

    /// Every answer has its line in the log, every line is one object, and nothing of a text is in any.
    pub(super) fn read_log(&self, log: &str, figures: &mut Figures) {
        let mut told = HashSet::new();
        for line in log.split_terminator('\n') {
            match serde_json::from_str::<Value>(line) {
                Ok(Value::Object(entry))
                    if ["timestamp", "level", "target"].iter().all(|name| entry.contains_key(*name)) =>
                {
                    let is_answer = entry.get("message").is_some_and(|message| message == "request answered");
                    let id = entry.get("span").and_then(|span| span["trace_id"].as_str());
                    if let Some(id) = id.filter(|_| is_answer)
                        && !told.insert(id.to_owned())
                    {
                        self.blame(Fault::Log, format_args!("told twice: {line}"));
                    }
                }
                _ => self.blame(Fault::Log, line),
            }
            // sqlx cuts slow statements with an ellipsis of its own
            let is_plain = line.chars().all(|character| matches!(character, ' '..='~' | '…'));
            if !is_plain || line.contains("forged") {
                self.blame(Fault::Leak, line);
            }
        }
        let ids = self.seen().request_ids.clone();
        for id in ids.difference(&told) {
            self.blame(Fault::Log, format_args!("nothing is told of {id}"));
        }
        figures.tell("log lines", log.lines().count());
    }

    /// The counts, each fault with its bound.
    pub(super) fn figures(&self, figures: &mut Figures) {
        let seen = self.seen();
        figures.tell("requests", seen.requests);
        for (status, count) in &seen.statuses {
            figures.tell(&format!("  answered {status}"), count);
        }
        figures.tell("  of them no HTTP", seen.not_http);
        figures.tell("different codes", seen.codes.len());
        figures.tell("accepted texts read back", seen.read_back);
        for (fault, name) in FAULTS {
            let faults = seen.faults.get(&fault).map(Vec::as_slice).unwrap_or_default();
            figures.exactly(name, faults.len(), 0);
        }
    }

    /// The first few of each fault.
    pub(super) fn examples(&self) -> Vec<String> {
        let seen = self.seen();
        let names = FAULTS.iter().filter_map(|(fault, name)| Some((name, seen.faults.get(fault)?)));
        let examples = names.flat_map(|(name, faults)| {
            faults
                .iter()
                .take(3)
                .map(move |what| format!("{name}: {}", what.chars().take(600).collect::<String>()))
        });
        examples.collect()
    }

    /// What became of all texts, position by position.
    pub(super) fn table(&self, kinds: &[&'static str]) -> Positions {
        let seen = self.seen();
        let rows = seen.positions.iter().map(|position| {
            let of = |kind: &&'static str| seen.rows.get(&(*position, *kind)).copied().unwrap_or_default();
            (*position, kinds.iter().map(of).collect())
        });
        Positions { kinds: kinds.to_vec(), rows: rows.collect() }
    }
}

/// Whether an answer says to come back, and not what the request is worth.
fn is_passing(answer: &Answer) -> bool {
    answer.status == 503 || (answer.status == 409 && answer.code() == "request_in_progress")
}

/// Whether an answer is one to what is no HTTP. It is given before there is a request that could be told of in the log.
fn is_below_http(answer: &Answer) -> bool {
    answer.status == 400 && answer.header("connection") == "close"
}

/// A text and what was answered.
fn told(answer: &Answer, text: &str) -> String {
    format!("{text:?}: {} {}", answer.status, String::from_utf8_lossy(&answer.body))
}

/// What became of the texts of each kind in each position. Printed, it is a table.
#[derive(Debug)]
pub struct Positions {
    kinds: Vec<&'static str>,
    rows: Vec<(&'static str, Vec<Row>)>,
}

impl Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        write!(f, "  {:width$}", "")?;
        for kind in &self.kinds {
            write!(f, "  {kind:>15}")?;
        }
        writeln!(f)?;
        write!(f, "  {:width$}", "position")?;
        for _ in &self.kinds {
            write!(f, "  {:>7} {:>7}", "taken", "refused")?;
        }
        writeln!(f)?;
        for (name, counts) in &self.rows {
            write!(f, "  {name:width$}")?;
            for Row { taken, refused } in counts {
                write!(f, "  {taken:>7} {refused:>7}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
