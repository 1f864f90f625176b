//! Every CHECK of the schema has a twin here: rows at its border, and what the domain says of them. The CHECK itself is
//! evaluated, as the migrated database holds it, so a row needs only the columns that it names.

use super::*;
use domain::event::EventType;
use domain::operation::OperationKind;
use domain::payment::PendingOperation;
use domain::refund::{RefundReason, RefundStatus};
use domain::text::MerchantName;
use sqlx::AssertSqlSafe;
use std::collections::{BTreeMap, BTreeSet};

struct Twin {
    /// What the CHECK names.
    columns: &'static str,
    /// Values of these, as SQL, and whether they are to be taken.
    rows: Vec<(String, bool)>,
    /// If it is a choice: all that there is to choose.
    choices: Option<BTreeSet<String>>,
}

fn rows(columns: &'static str, rows: impl IntoIterator<Item = (String, bool)>) -> Twin {
    Twin { columns, rows: rows.into_iter().collect(), choices: None }
}

fn choice(column: &'static str, names: impl IntoIterator<Item = &'static str>) -> Twin {
    let names: BTreeSet<String> = names.into_iter().map(str::to_owned).collect();
    let taken = names.iter().map(|name| (text(name), true));
    let refused = ["", "other", "Captured"].map(|name| (text(name), false));
    Twin { columns: column, rows: taken.chain(refused).collect(), choices: Some(names) }
}

fn text(text: &str) -> String {
    format!("'{}'::text", text.replace('\'', "''"))
}

fn some_text(value: Option<&str>) -> String {
    value.map_or("NULL::text".to_owned(), text)
}

fn bytes(length: usize) -> String {
    format!(r"'\x{}'::bytea", "00".repeat(length))
}

/// NULL, or something.
fn present(is: bool, type_name: &str, something: &str) -> String {
    format!("{}::{type_name}", if is { something } else { "NULL" })
}

const BOTH: [bool; 2] = [false, true];

/// All that a payment of 1000 can be.
fn states() -> Vec<State> {
    let amount = |minor| Amount::new(minor).unwrap();
    let authorized = [
        None,
        Some(PendingOperation::Capture(amount(1))),
        Some(PendingOperation::Capture(amount(1000))),
        Some(PendingOperation::Cancel),
    ];
    let mut states = vec![State::Processing, State::Canceled, State::Failed];
    states.extend(BOTH.map(|canceling| State::RequiresAction { canceling }));
    states.extend(authorized.map(|pending| State::Authorized { pending }));
    states.extend([1, 1000].map(|minor| State::Captured { amount: amount(minor) }));
    states
}

fn amounts() -> Vec<(String, bool)> {
    use domain::money::MAX_AMOUNT;
    [i64::MIN, -1, 0, 1, MAX_AMOUNT, MAX_AMOUNT + 1, i64::MAX]
        .map(|minor| (format!("({minor})::bigint"), Amount::new(minor).is_ok()))
        .to_vec()
}

fn currencies() -> Vec<String> {
    let letters = || 'A'..='Z';
    let codes = letters().flat_map(|a| letters().flat_map(move |b| letters().map(move |c| [a, b, c])));
    codes.map(String::from_iter).filter(|code| Currency::parse(code).is_ok()).collect()
}

fn failed(names: impl IntoIterator<Item = (&'static str, bool)>) -> Twin {
    let mut all = Vec::new();
    for (status, failed) in names {
        for (code, message) in [(false, false), (false, true), (true, false), (true, true)] {
            let row = [
                text(status),
                present(code, "text", "'card_declined'"),
                present(message, "text", "'The card was declined.'"),
            ];
            all.push((row.join(", "), failed == (code && message)));
        }
    }
    rows("status, failure_code, failure_message", all)
}

fn merchants() -> [(&'static str, Twin); 3] {
    let name = |length: usize| text(&"a".repeat(length));
    let most = MerchantName::LENGTH.max_bytes;
    let hash = [0; 32];
    let key = NewKey {
        merchant_id: merchant(),
        key_id: KeyId(Uuid::nil()),
        secret_hash: &hash,
        scope: Scope::Read,
        expires_at: None,
    };
    let size = key.secret_hash.len();
    [
        (
            "merchants_name_length",
            rows(
                "name",
                [(0, false), (MerchantName::LENGTH.min, true), (most, true), (most + 1, false)]
                    .map(|(n, taken)| (name(n), taken)),
            ),
        ),
        (
            "api_keys_secret_hash_length",
            rows("secret_hash", [size - 1, size, size + 1].map(|n| (bytes(n), n == size))),
        ),
        ("api_keys_scope_known", choice("scope", [Scope::Read, Scope::Write].map(Scope::name))),
    ]
}

fn payments() -> Vec<(&'static str, Twin)> {
    let statuses = Status::ALL;
    let steps = currencies().into_iter().flat_map(|code| {
        let currency = Currency::parse(&code).unwrap();
        [1, 10, 15, 99_999_990, 99_999_999].map(|minor| {
            let taken = Money::new(Amount::new(minor).unwrap(), currency).is_ok();
            (format!("{minor}::bigint, {}", text(&code)), taken)
        })
    });
    let sums = (-1..4).flat_map(|refunded| {
        (-1..4).flat_map(move |captured| {
            (1..4).map(move |amount| {
                let ordered = 0 <= refunded && refunded <= captured && captured <= amount;
                (format!("{refunded}::bigint, {captured}::bigint, {amount}::bigint"), ordered)
            })
        })
    });
    let codes = currencies().into_iter().map(|code| (text(&code), true));
    let no_codes =
        ["", "EU", "EURO", "eur", "EuR", "EU1", "ÉUR", "EUR\n", " EUR"].map(|code| (text(code), false));
    let captured = statuses.into_iter().flat_map(|status| {
        let moved = states().into_iter().filter(move |state| state.status() == status);
        let moves = moved.map(State::amount_captured).any(|amount| amount > 0);
        [0, 1, 1000].map(|minor| (format!("{}, {minor}::bigint", text(status.name())), moves == (minor > 0)))
    });
    let pending = statuses.into_iter().flat_map(|status| {
        [None, Some("capture"), Some("cancel"), Some("refund")].map(|name| {
            let known = states()
                .into_iter()
                .any(|state| state.status() == status && state.pending().map(PendingOperation::name) == name);
            // a state without anything pending is there for every status
            (format!("{}, {}", some_text(name), text(status.name())), known || name.is_none())
        })
    });
    let pending_amounts = [None, Some("capture"), Some("cancel")].into_iter().flat_map(|name| {
        [None, Some(0), Some(1), Some(1000), Some(1001)].map(|minor: Option<i64>| {
            let taken = match (name, minor) {
                (Some("capture"), Some(minor)) => (1..=1000).contains(&minor),
                (Some("capture"), None) => false,
                (_, minor) => minor.is_none(),
            };
            let minor = minor.map_or("NULL".to_owned(), |minor| minor.to_string());
            (format!("{}, {minor}::bigint, 1000::bigint", some_text(name)), taken)
        })
    });
    let references = statuses.into_iter().flat_map(|status| {
        // whoever is dead lets its reference go
        let alive = !matches!(status, Status::Canceled | Status::Failed);
        [(None, !alive), (Some("order-1"), alive), (Some("order-2"), false)].map(|(live, taken)| {
            (format!("{}, {}, {}", text(status.name()), some_text(live), text("order-1")), taken)
        })
    });
    let redirects = statuses.into_iter().flat_map(|status| {
        BOTH.map(|redirect| {
            let url = present(redirect, "text", "'https://bank.example/'");
            (format!("{url}, {}", text(status.name())), !redirect || status == Status::RequiresAction)
        })
    });
    vec![
        ("payments_amount_range", rows("amount", amounts())),
        ("payments_amount_steps", rows("amount, currency", steps)),
        ("payments_amounts_ordered", rows("amount_refunded, amount_captured, amount", sums)),
        ("payments_currency_form", rows("currency", codes.chain(no_codes))),
        (
            "payments_capture_known",
            choice("capture", [CaptureMethod::Automatic, CaptureMethod::Manual].map(CaptureMethod::name)),
        ),
        ("payments_status_known", choice("status", statuses.map(Status::name))),
        ("payments_captured_when_captured", rows("status, amount_captured", captured)),
        ("payments_pending_known", rows("pending_operation, status", pending)),
        ("payments_pending_amount", rows("pending_operation, pending_amount, amount", pending_amounts)),
        ("payments_live_reference_while_alive", rows("status, live_reference, reference", references)),
        ("payments_failure_when_failed", failed(statuses.map(|s| (s.name(), s == Status::Failed)))),
        ("payments_redirect_when_required", rows("redirect_url, status", redirects)),
        (
            "payments_last_event_counts",
            rows("last_event", [(0, false), (1, true)].map(|(n, taken)| (n.to_string(), taken))),
        ),
    ]
}

fn operations() -> Vec<(&'static str, Twin)> {
    let key = |key: &str| (text(key), IdempotencyKey::parse(key.as_bytes()).is_ok());
    let long = [1, 255, 256].map(|length| key(&"k".repeat(length)));
    // inside, because a quote at the beginning is no part of the key; PostgreSQL takes no NUL anywhere
    let each = ('\u{1}'..='\u{FF}').map(|character| key(&format!("k{character}k")));
    let refunds = OperationKind::NAMES.into_iter().flat_map(|name| {
        BOTH.map(|refund| {
            let id = refund.then(|| domain::id::RefundId(Uuid::nil()));
            let row = format!("{}, {}", present(refund, "uuid", "gen_random_uuid()"), text(name));
            (row, OperationKind::parse(name, id).is_some())
        })
    });
    let asked = OperationKind::NAMES.into_iter().flat_map(|name| {
        // nobody asks for a watch
        let watch = name.starts_with("watch_");
        BOTH.map(|key| (format!("{}, {}", present(key, "text", "'k'"), text(name)), key != watch))
    });
    let fingerprints = BOTH.into_iter().flat_map(|key| {
        BOTH.map(|print| {
            let columns = [present(key, "text", "'k'"), present(print, "bytea", "'x'")];
            (columns.join(", "), key == print)
        })
    });
    let size = Fingerprint::of_cancel("/").as_bytes().len();
    let answers = BOTH.into_iter().flat_map(|key| {
        [0, 1, 2, 3, 4, 5, 6, 7].map(|bits: u8| {
            let [settled, status, body] = [1, 2, 4].map(|bit| bits & bit != 0);
            let columns = [
                present(key, "text", "'k'"),
                present(settled, "timestamptz", "now()"),
                present(status, "smallint", "201"),
                present(body, "bytea", "'{}'"),
            ];
            (columns.join(", "), !key || (settled == status && settled == body))
        })
    });
    let leases = BOTH.into_iter().flat_map(|settled| {
        [("now()", false), ("'infinity'", true)].map(|(until, nobodys)| {
            let columns = [present(settled, "timestamptz", "now()"), format!("{until}::timestamptz")];
            (columns.join(", "), settled == nobodys)
        })
    });
    // 202 is no end, and what is refused before anything is written uses no key up
    let finals = [200, 201, 202, 400, 402, 404, 409, 422, 500, 503]
        .map(|status| (format!("{status}::smallint"), matches!(status, 200 | 201 | 402 | 409)));
    let context = TraceContext::random().to_string();
    let forms = [
        context.clone(),
        String::new(),
        context[1..].to_owned(),
        format!("{context}-"),
        context.to_uppercase(),
        context.replace('-', "_"),
    ];
    let forms = forms.map(|form| (text(&form), TraceContext::parse(&form).is_some()));
    vec![
        ("operations_kind_known", choice("kind", OperationKind::NAMES)),
        (
            "operations_key_form",
            rows("idempotency_key", long.into_iter().chain(each).chain([key(""), key("é"), key("a\nb")])),
        ),
        ("operations_fingerprint_with_key", rows("idempotency_key, fingerprint", fingerprints)),
        (
            "operations_fingerprint_length",
            rows("fingerprint", [size - 1, size, size + 1].map(|n| (bytes(n), n == size))),
        ),
        (
            "operations_answer_when_settled",
            rows("idempotency_key, settled_at, answer_status, answer_body", answers),
        ),
        ("operations_settled_is_nobodys", rows("settled_at, lease_until", leases)),
        ("operations_answer_is_final", rows("answer_status", finals)),
        ("operations_refund_of_its_kind", rows("refund_id, kind", refunds)),
        ("operations_key_when_asked_for", rows("idempotency_key, kind", asked)),
        ("operations_traceparent_form", rows("traceparent", forms)),
    ]
}

fn others() -> Vec<(&'static str, Twin)> {
    let types = EventType::ALL.map(|kind| (text(kind.name()), true));
    let no_types = ["", "payment", "payment.", "order.created", "payment.Created", "payment.created "]
        .map(|name| (text(name), false));
    let found = BOTH.into_iter().flat_map(|finished| {
        BOTH.map(|differences| {
            let columns = [present(finished, "timestamptz", "now()"), present(differences, "jsonb", "'{}'")];
            (columns.join(", "), finished == differences)
        })
    });
    vec![
        (
            "events_sequence_from_one",
            rows("sequence", [(0, false), (1, true)].map(|(n, taken)| (n.to_string(), taken))),
        ),
        ("events_type_form", rows("type", types.into_iter().chain(no_types))),
        ("refunds_amount_range", rows("amount", amounts())),
        ("refunds_reason_known", choice("reason", RefundReason::ALL.map(RefundReason::name))),
        ("refunds_status_known", choice("status", RefundStatus::ALL.map(RefundStatus::name))),
        (
            "refunds_failure_when_failed",
            failed(RefundStatus::ALL.map(|s| (s.name(), s == RefundStatus::Failed))),
        ),
        ("reconciliations_only_one", rows("only_one", BOTH.map(|only| (only.to_string(), only)))),
        ("reconciliations_found_when_finished", rows("finished_at, differences", found)),
    ]
}

/// The texts in an expression of SQL.
fn literals(expression: &str) -> BTreeSet<String> {
    expression.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_check_says_what_the_domain_says() -> Result<()> {
    let db = Db::new().await?;
    let twins: BTreeMap<&str, Twin> =
        merchants().into_iter().chain(payments()).chain(operations()).chain(others()).collect();
    let checks: Vec<(String, String)> = sqlx::query_as(
        "SELECT conname::text, pg_get_expr(conbin, conrelid) FROM pg_constraint
         WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY conname",
    )
    .fetch_all(&db.owner)
    .await?;
    let names: Vec<&str> = checks.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        twins.keys().copied().collect::<Vec<_>>(),
        "a CHECK without a twin, or one that is gone"
    );

    for (name, expression) in &checks {
        let Twin { columns, rows, choices } = &twins[name.as_str()];
        assert!(
            rows.iter().any(|(_, taken)| *taken) && rows.iter().any(|(_, taken)| !taken),
            "{name}: one side only"
        );
        if let Some(choices) = choices {
            assert_eq!(&literals(expression), choices, "{name}");
        }
        let values = rows.iter().enumerate().map(|(at, (row, _))| format!("({at}, {row})"));
        // a CHECK that is NULL is held
        let statement = format!(
            "SELECT ({expression}) IS NOT FALSE FROM (VALUES {}) AS r (row_number, {columns}) ORDER BY row_number",
            values.collect::<Vec<_>>().join(", ")
        );
        let judged: Vec<bool> = sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_all(&db.owner)
            .await
            .inspect_err(|_| eprintln!("{name}"))?;
        for ((row, taken), judged) in rows.iter().zip(judged) {
            assert_eq!(judged, *taken, "{name} of {row}");
        }
    }
    db.close().await
}
