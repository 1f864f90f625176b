//! Text on its way into PostgreSQL and back.

use super::*;
use domain::text::{Description, Email, PersonName, ReturnUrl, StatementDescriptor, TextError};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

/// So many texts of each type.
const TEXTS: usize = 2_000;

/// What could go wrong on the way: escapes of SQL, JSON and LIKE, the ends of every length in UTF-8, joiners, selectors,
/// both directions, emoji; and whatever else there is.
fn pieces() -> impl Strategy<Value = String> {
    let chosen = prop::sample::select(vec![
        "a",
        " ",
        "'",
        "\"",
        "\\",
        "\\u0000",
        "\\x00",
        "$1",
        "$$",
        "%",
        "_",
        "--",
        ";",
        "{",
        "}",
        "[",
        ",",
        ":",
        "null",
        "\u{7E}",
        "\u{A0}",
        "\u{7FF}",
        "\u{800}",
        "\u{FFFD}",
        "\u{D7A3}",
        "\u{10400}",
        "\u{2FA1D}",
        "e\u{301}",
        "\u{1E9E}",
        "İ",
        "ǆ",
        "ﬁ",
        "क\u{94D}\u{200D}ष",
        "می\u{200C}خواهم",
        "שָׁלוֹם",
        "葛\u{E0100}",
        "👨‍👩‍👧‍👦",
        "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
        "1️⃣",
        "🇫🇷",
    ]);
    let piece = prop_oneof![4 => chosen.prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from)];
    prop::collection::vec(piece, 1..20).prop_map(|pieces| pieces.concat())
}

/// Texts, the same ones every time.
struct Texts(TestRunner);

impl Texts {
    fn new() -> Self {
        Self(TestRunner::deterministic())
    }

    /// One that a type accepts.
    fn accepted<T>(
        &mut self,
        strategy: &impl Strategy<Value = String>,
        parse: impl Fn(&str) -> Result<T, TextError>,
    ) -> T {
        loop {
            if let Ok(text) = parse(&strategy.new_tree(&mut self.0).unwrap().current()) {
                return text;
            }
        }
    }
}

fn addresses() -> impl Strategy<Value = String> {
    pieces().prop_map(|text| format!("{text}@müller.example"))
}

fn urls() -> impl Strategy<Value = String> {
    pieces().prop_map(|text| format!("https://shop.example/{text}"))
}

#[tokio::test]
async fn what_a_type_accepts_comes_back_equal() -> Result<()> {
    let db = Db::new().await?;
    let mut source = Texts::new();
    let mut texts: Vec<String> = Vec::new();
    macro_rules! kinds {
        ($($name:ident: $strategy:expr;)*) => {
            $(let strategy = $strategy;
            texts.extend((0..TEXTS).map(|_| source.accepted(&strategy, $name::parse).as_str().to_owned()));)*
        };
    }
    kinds! {
        Reference: pieces();
        Description: pieces();
        PersonName: pieces();
        MerchantName: pieces();
        MetadataKey: pieces();
        MetadataValue: pieces();
        Email: addresses();
        ReturnUrl: urls();
        StatementDescriptor: "[ -~]{2,18}";
        PaymentMethod: "pm_[A-Za-z0-9_]{1,100}";
    }
    let objects: Vec<Value> = texts.iter().map(|text| json!({ text: text })).collect();
    sqlx::query("CREATE TABLE kept (at bigint, text text, object jsonb)").execute(&db.owner).await?;
    sqlx::query("INSERT INTO kept SELECT at, t, o FROM unnest($1::text[], $2::jsonb[]) WITH ORDINALITY AS u (t, o, at)")
        .bind(&texts)
        .bind(&objects)
        .execute(&db.owner)
        .await?;
    let kept: Vec<(String, Value, bool)> =
        sqlx::query_as("SELECT text, object, text IS NFC NORMALIZED FROM kept ORDER BY at")
            .fetch_all(&db.owner)
            .await?;
    assert_eq!(kept.len(), 10 * TEXTS);
    for ((text, object), (kept_text, kept_object, _)) in texts.iter().zip(&objects).zip(&kept) {
        assert_eq!((text, object), (kept_text, kept_object));
    }
    let not_nfc: Vec<&String> = kept.iter().filter(|(_, _, nfc)| !nfc).map(|(text, ..)| text).collect();
    assert!(not_nfc.is_empty(), "PostgreSQL has another NFC of {not_nfc:?}");
    db.close().await
}

#[tokio::test]
async fn a_payment_of_any_text_comes_back_as_it_was_written() -> Result<()> {
    let db = Db::new().await?;
    let mut source = Texts::new();
    let merchant_id = merchant();
    for at in 0..50 {
        let mut payment = new_payment(merchant_id, "order-1");
        // no two have the same
        let reference = pieces().prop_map(|text| format!("{at} {text}"));
        payment.request.reference = source.accepted(&reference, Reference::parse);
        payment.request.description = Some(source.accepted(&pieces(), Description::parse));
        payment.request.customer = Customer {
            name: Some(source.accepted(&pieces(), PersonName::parse)),
            email: Some(source.accepted(&addresses(), Email::parse)),
        };
        payment.request.return_url = Some(source.accepted(&urls(), ReturnUrl::parse));
        payment.request.metadata.insert(
            source.accepted(&pieces(), MetadataKey::parse),
            source.accepted(&pieces(), MetadataValue::parse),
        );
        claimed(&db.store, &payment, &format!("k{at}")).await?;
        assert_eq!(db.store.find_payment(merchant_id, payment.id).await?, Some(payment.clone()));
        let found = Filter {
            statuses: Status::ALL.to_vec(),
            open: false,
            reference: Some(payment.request.reference.clone()),
            created_from: None,
            created_to: None,
        };
        assert_eq!(db.store.list_payments(merchant_id, &found, None, 2).await?, [payment]);
    }
    db.close().await
}

/// Unicode moves on, and rules become stricter: what was accepted once is shown for ever.
#[tokio::test]
async fn stored_text_is_never_judged_again() -> Result<()> {
    let db = Db::new().await?;
    let payment = new_payment(merchant(), "order-1");
    claimed(&db.store, &payment, "k").await?;
    // not assigned; invisible; in two scripts; not in NFC; no address
    let old = "\u{378}\u{202E}p\u{430}ypal e\u{301}";
    assert!(
        Description::parse(old).is_err() && PersonName::parse(old).is_err() && Email::parse(old).is_err()
    );
    sqlx::query(
        "UPDATE payments SET reference = $1, live_reference = $1, description = $1, customer_name = $1, customer_email = $1,
             statement_descriptor = $1, return_url = $1, payment_method = $1, metadata = jsonb_build_object($1::text, $1)",
    )
    .bind(old)
    .execute(&db.owner)
    .await?;
    let old = || old.to_owned();
    let request = NewPayment {
        reference: Reference::from_stored(old()),
        description: Some(Description::from_stored(old())),
        customer: Customer {
            name: Some(PersonName::from_stored(old())),
            email: Some(Email::from_stored(old())),
        },
        statement_descriptor: Some(StatementDescriptor::from_stored(old())),
        return_url: Some(ReturnUrl::from_stored(old())),
        payment_method: PaymentMethod::from_stored(old()),
        metadata: Metadata::from([(MetadataKey::from_stored(old()), MetadataValue::from_stored(old()))]),
        ..payment.request.clone()
    };
    let found = db.store.find_payment(payment.merchant_id, payment.id).await?;
    assert_eq!(found.map(|payment| payment.request), Some(request));
    db.close().await
}
