//! JSONTestSuite: what is no JSON is refused with 400 wherever it stands, and what is some is read.

use super::sender::Sender;
use super::texts::JsonFile;
use super::watch::Fault;
use crate::{Answer, Figures, RawRequest};
use uuid::Uuid;

/// The largest body, in bytes. What is larger is refused unread, so that it is cut.
const LARGEST: usize = 64 * 1024;

/// Valid JSON that is no I-JSON (RFC 7493), and why.
const NO_I_JSON: [(&str, &str); 2] = [
    ("y_object_duplicated_key.json", "a member twice (RFC 7493, section 2.3)"),
    ("y_object_duplicated_key_and_value.json", "a member twice (RFC 7493, section 2.3)"),
];

/// Where a file stands: what is before it, and what is behind it.
struct Place {
    name: &'static str,
    path: &'static str,
    before: &'static str,
    after: &'static str,
}

/// Those with a payment name one that does not exist, which is only told of a body that can be read.
const PLACES: [Place; 6] = [
    Place { name: "create", path: "/v1/payments", before: "", after: "" },
    Place { name: "create, a field", path: "/v1/payments", before: r#"{"description":"#, after: "}" },
    Place { name: "create, metadata", path: "/v1/payments", before: r#"{"metadata":{"key":"#, after: "}}" },
    Place { name: "create, an unknown field", path: "/v1/payments", before: r#"{"nobody":"#, after: "}" },
    Place {
        name: "capture",
        path: "/v1/payments/018f0000-0000-7000-8000-000000000000/capture",
        before: "",
        after: "",
    },
    Place {
        name: "refund",
        path: "/v1/payments/018f0000-0000-7000-8000-000000000000/refunds",
        before: "",
        after: "",
    },
];

#[derive(Debug, Default)]
struct Counts {
    refused: usize,
    of: usize,
}

impl Counts {
    fn add(&mut self, is_refused: bool) {
        self.of += 1;
        self.refused += usize::from(is_refused);
    }
}

async fn send(sender: &Sender<'_>, place: &Place, file: &JsonFile, bytes: &[u8]) -> Option<Answer> {
    let body = [place.before.as_bytes(), bytes, place.after.as_bytes()].concat();
    let key = Uuid::new_v4().to_string();
    let request = RawRequest::new("POST", place.path).header("Idempotency-Key", key).json(body);
    sender.ask(&request, &file.name).await
}

/// All files in all places.
pub(super) async fn files(sender: &Sender<'_>, files: &[JsonFile], figures: &mut Figures) {
    for place in PLACES {
        let (mut invalid, mut valid, mut other, mut whole) =
            (Counts::default(), Counts::default(), Counts::default(), Counts::default());
        for file in files {
            let room = LARGEST - place.before.len() - place.after.len();
            if file.bytes.len() > room {
                let answer = send(sender, &place, file, &file.bytes).await;
                whole.add(answer.is_some_and(|answer| answer.status == 413));
            }
            let bytes = &file.bytes[..file.bytes.len().min(room)];
            let Some(answer) = send(sender, &place, file, bytes).await else { continue };
            let is_malformed =
                answer.status == 400 && ["malformed_json", "invalid_utf8"].contains(&answer.code().as_str());
            let blame =
                |fault| sender.blame(fault, format_args!("{} {}: {}", place.name, file.name, answer.json()));
            // no body at all is as good as {} where nothing is required
            let counts_as_empty = file.bytes.is_empty() && place.path != "/v1/payments";
            match file.name.get(..2) {
                Some("n_") if !counts_as_empty => {
                    invalid.add(is_malformed);
                    if !is_malformed {
                        blame(Fault::InvalidTaken);
                    }
                }
                Some("y_") => {
                    let is_no_i_json = NO_I_JSON.iter().any(|(name, _)| *name == file.name);
                    valid.add(is_malformed);
                    if is_malformed != is_no_i_json {
                        blame(Fault::ValidRefused);
                    }
                }
                _ => other.add(is_malformed),
            }
        }
        figures.exactly(&format!("n_ in {}, 400", place.name), invalid.refused, invalid.of);
        if whole.of > 0 {
            figures.exactly(
                &format!("  too large as they are in {}, 413", place.name),
                whole.refused,
                whole.of,
            );
        }
        figures.exactly(&format!("y_ in {}, 400: not I-JSON", place.name), valid.refused, NO_I_JSON.len());
        let read = other.of - other.refused;
        figures
            .tell(&format!("i_ in {}", place.name), format_args!("{read} read, {} refused", other.refused));
    }
    for (name, why) in NO_I_JSON {
        figures.tell(name, why);
    }
}
