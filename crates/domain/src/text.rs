//! Text that people write, in one type per meaning. A value is in NFC (UAX #15), bounded in graphemes (UAX #29) and
//! bytes, and holds nothing that is invisible, reorders its surroundings, or that PostgreSQL would refuse.

use email_address::{EmailAddress, Options};
use icu_normalizer::ComposingNormalizer;
use icu_properties::props::{
    DefaultIgnorableCodePoint, EmojiModifier, ExtendedPictographic, GeneralCategory,
};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_segmentation::UnicodeSegmentation;
use url::Url;

/// Why text was refused. It names the rule and the place, never the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Shorter than allowed.
    #[error("must have at least {min} characters")]
    TooShort {
        /// Graphemes.
        min: usize,
    },
    /// Longer than allowed.
    #[error("must have at most {max} {unit}; it has {actual}")]
    TooLong {
        /// In `unit`.
        max: usize,
        /// In `unit`.
        actual: usize,
        /// What is counted.
        unit: &'static str,
    },
    /// A character that has no place here.
    #[error("U+{:04X} at index {index} is not allowed: {why}", u32::from(*character))]
    Forbidden {
        /// Which.
        character: char,
        /// How many characters of the NFC text are before it.
        index: usize,
        /// What kind of character it is.
        why: &'static str,
    },
    /// Readable, but not what the field takes.
    #[error("{0}")]
    Unsupported(&'static str),
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $parse:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Checks text and brings it into its published form.
            ///
            /// # Errors
            /// The first rule it breaks.
            pub fn parse(text: &str) -> Result<Self, TextError> {
                $parse(text).map(Self)
            }

            /// Takes what was accepted before. Unicode moves on; stored text is never judged again.
            #[must_use]
            pub const fn from_stored(text: String) -> Self {
                Self(text)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Without the text: it may be personal data, and what is debugged ends in a log.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({} bytes)", stringify!($name), self.0.len())
            }
        }
    };
}

text!(
    /// The merchant's order number: 1 to 100 graphemes.
    Reference, reference
);
text!(
    /// What a payment is for: 1 to 500 graphemes.
    Description, description
);
text!(
    /// A person's name: 1 to 200 graphemes.
    PersonName, person_name
);
text!(
    /// An e-mail address of at most 254 bytes (RFC 5321, section 4.5.3.1.3), also international (RFC 6531).
    Email, email
);
text!(
    /// An absolute https URL, or http to the loopback host; at most 2,048 bytes.
    ReturnUrl, return_url
);
text!(
    /// 2 to 18 ASCII characters with at least one letter, without `< > \ ' " *` (Stripe, "Statement descriptors").
    StatementDescriptor, statement_descriptor
);
text!(
    /// The provider's token of a card: `pm_` and 1 to 100 letters, digits or underscores.
    PaymentMethod, payment_method
);
text!(
    /// The name of a merchant's note: 1 to 40 graphemes.
    MetadataKey, metadata_key
);
text!(
    /// The text of a merchant's note: 0 to 500 graphemes.
    MetadataValue, metadata_value
);

/// Bounds in graphemes; eight bytes each are allowed on the whole.
struct Bounds {
    min: usize,
    max: usize,
}

const BYTES_PER_GRAPHEME: usize = 8;
/// More marks on one letter than any living language writes.
const MAX_MARKS: usize = 6;

fn reference(text: &str) -> Result<String, TextError> {
    clean(text, &Bounds { min: 1, max: 100 })
}

fn description(text: &str) -> Result<String, TextError> {
    clean(text, &Bounds { min: 1, max: 500 })
}

fn person_name(text: &str) -> Result<String, TextError> {
    clean(text, &Bounds { min: 1, max: 200 })
}

fn metadata_key(text: &str) -> Result<String, TextError> {
    clean(text, &Bounds { min: 1, max: 40 })
}

fn metadata_value(text: &str) -> Result<String, TextError> {
    clean(text, &Bounds { min: 0, max: 500 })
}

fn email(text: &str) -> Result<String, TextError> {
    let options = Options::default().without_display_text().without_domain_literal();
    let nfc = bounded_nfc(text, 254)?;
    forbid_invisible(&nfc)?;
    match EmailAddress::parse_with_options(&nfc, options) {
        Ok(_) => Ok(nfc),
        Err(_) => Err(TextError::Unsupported("is not an e-mail address like name@example.org")),
    }
}

fn return_url(text: &str) -> Result<String, TextError> {
    const WRONG: TextError =
        TextError::Unsupported("must be an absolute https URL, or http to the loopback host");
    let nfc = bounded_nfc(text, 2048)?;
    forbid_invisible(&nfc)?;
    // the parser drops blanks and line ends in silence
    if let Some((index, character)) = nfc.chars().enumerate().find(|(_, c)| c.is_whitespace()) {
        return Err(TextError::Forbidden { character, index, why: "a URL has no blanks" });
    }
    let url = Url::parse(&nfc).map_err(|_| WRONG)?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(WRONG),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(TextError::Unsupported("must not hold a user name or password"));
    }
    if url.scheme() == "https" || (url.scheme() == "http" && loopback) { Ok(nfc) } else { Err(WRONG) }
}

fn statement_descriptor(text: &str) -> Result<String, TextError> {
    const WHY: &str = "a statement has ASCII only, and none of < > \\ ' \" *";
    let length = text.chars().count();
    if length > 18 {
        return Err(TextError::TooLong { max: 18, actual: length, unit: "characters" });
    }
    let forbidden = |c: &char| !matches!(c, ' '..='~') || "<>\\'\"*".contains(*c);
    if let Some((index, character)) = text.chars().enumerate().find(|(_, c)| forbidden(c)) {
        return Err(TextError::Forbidden { character, index, why: WHY });
    }
    if length < 2 {
        return Err(TextError::TooShort { min: 2 });
    }
    if !text.bytes().any(|b| b.is_ascii_alphabetic()) {
        return Err(TextError::Unsupported("must have at least one letter"));
    }
    Ok(text.to_owned())
}

fn payment_method(text: &str) -> Result<String, TextError> {
    let token = text.strip_prefix("pm_").ok_or(TextError::Unsupported(
        "must be a token of the provider, such as pm_card_visa; never a card number",
    ))?;
    let length = token.chars().count();
    if length > 100 {
        return Err(TextError::TooLong { max: 103, actual: length.saturating_add(3), unit: "characters" });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if let Some((index, character)) = text.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        return Err(TextError::Forbidden {
            character,
            index,
            why: "a token has letters, digits and underscores",
        });
    }
    if token.is_empty() {
        return Err(TextError::TooShort { min: 4 });
    }
    Ok(text.to_owned())
}

fn bounded_nfc(text: &str, max_bytes: usize) -> Result<String, TextError> {
    let within = |text: &str| match text.len() {
        length if length > max_bytes => {
            Err(TextError::TooLong { max: max_bytes, actual: length, unit: "bytes" })
        }
        _ => Ok(()),
    };
    // before any work that grows with the text, and again because NFC can be longer than what it was made of
    within(text)?;
    let nfc = ComposingNormalizer::new_nfc().normalize(text).into_owned();
    within(&nfc)?;
    Ok(nfc)
}

fn clean(text: &str, bounds: &Bounds) -> Result<String, TextError> {
    let nfc = bounded_nfc(text, bounds.max.saturating_mul(BYTES_PER_GRAPHEME))?;
    let length = nfc.graphemes(true).count();
    if length > bounds.max {
        return Err(TextError::TooLong { max: bounds.max, actual: length, unit: "characters" });
    }
    if length < bounds.min {
        return Err(TextError::TooShort { min: bounds.min });
    }
    forbid_invisible(&nfc)?;
    if length > 0 && nfc.chars().all(char::is_whitespace) {
        return Err(TextError::Unsupported("must have something to see"));
    }
    Ok(nfc)
}

/// The three tag sequences that are emoji: the flags of England, Scotland and Wales.
const TAG_FLAGS: [&str; 3] = ["gbeng", "gbsct", "gbwls"];

fn forbid_invisible(text: &str) -> Result<(), TextError> {
    let mut index = 0;
    for grapheme in text.graphemes(true) {
        let characters: Vec<char> = grapheme.chars().collect();
        let mut marks = 0_usize;
        for (at, &character) in characters.iter().enumerate() {
            if let Some(why) = objection(&characters, at, character, &mut marks) {
                return Err(TextError::Forbidden { character, index, why });
            }
            index += 1;
        }
    }
    Ok(())
}

/// Why a character of a grapheme has no place in text, if so.
fn objection(grapheme: &[char], at: usize, character: char, marks: &mut usize) -> Option<&'static str> {
    const INVISIBLE: &str = "it is invisible or changes the direction of its surroundings";
    let category = CodePointMapData::<GeneralCategory>::new();
    let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
    let pictograph = CodePointSetData::new::<ExtendedPictographic>();
    let modifier = CodePointSetData::new::<EmojiModifier>();

    match category.get(character) {
        GeneralCategory::Control | GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
            return Some("it is a control character");
        }
        GeneralCategory::PrivateUse | GeneralCategory::Surrogate | GeneralCategory::Unassigned => {
            return Some("it is not assigned by Unicode");
        }
        GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark => {
            *marks += 1;
            if *marks > MAX_MARKS {
                return Some("it is one of too many marks on one letter");
            }
        }
        _ => {}
    }

    let (before, after) = grapheme.split_at_checked(at)?;
    let previous = before.last().copied();
    let welcome = match character {
        // joins two pictographs; a skin tone or presentation selector may stand before it
        '\u{200D}' => {
            let next = after.get(1).is_some_and(|c| pictograph.contains(*c));
            let base = before.iter().rev().find(|c| **c != '\u{FE0F}' && !modifier.contains(**c));
            next && base.is_some_and(|c| pictograph.contains(*c))
        }
        // text or emoji presentation, behind a pictograph or the base of a keycap
        '\u{FE0E}' | '\u{FE0F}' => {
            previous.is_some_and(|c| pictograph.contains(c) || matches!(c, '0'..='9' | '#' | '*'))
        }
        '\u{E0020}'..='\u{E007F}' => is_tag_flag(grapheme),
        // annotations and the blank of Braille: not ignorable by property, yet nothing to see
        '\u{FFF9}'..='\u{FFFB}' | '\u{2800}' => false,
        // numbers and verses in Arabic and Syriac script are written with format characters
        '\u{0600}'..='\u{0605}' | '\u{06DD}' | '\u{070F}' | '\u{08E2}' => true,
        _ => !ignorable.contains(character) && category.get(character) != GeneralCategory::Format,
    };
    (!welcome).then_some(INVISIBLE)
}

fn is_tag_flag(grapheme: &[char]) -> bool {
    let ['\u{1F3F4}', tags @ .., '\u{E007F}'] = grapheme else { return false };
    let letters: String =
        tags.iter().filter_map(|c| char::from_u32(u32::from(*c).wrapping_sub(0xE0000))).collect();
    TAG_FLAGS.contains(&letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn clean(text: &str) -> Result<String, TextError> {
        description(text)
    }

    #[test]
    fn the_worlds_writing_is_welcome() {
        for text in [
            "Invoice 42",
            "Zoë",
            "日本語テスト",
            "안녕",
            "مرحبا",
            "שלום",
            "नमस्ते",
            "ก็",
            "Tiếng Việt",
            "O’Brien",
            "👨‍👩‍👧‍👦",
            "🏳️‍🌈",
            "👩🏽‍🚀",
            "🏴\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}",
            "1️⃣",
            "🇫🇷",
            "❤️‍🔥",
        ] {
            assert_eq!(clean(text), Ok(ComposingNormalizer::new_nfc().normalize(text).into_owned()));
        }
        assert_eq!(clean("e\u{301}"), Ok("é".to_owned()), "text is kept in NFC");
    }

    #[test]
    fn what_cannot_be_seen_is_refused() {
        for text in [
            "a\0b",
            "a\nb",
            "a\u{7f}",
            "a\u{85}b",
            "a\u{2028}b",
            "a\u{202E}b",
            "a\u{2066}b",
            "a\u{200B}b",
            "a\u{FEFF}b",
            "a\u{AD}b",
            "a\u{200D}b",
            "a\u{FE0F}",
            "a\u{E0100}",
            "a\u{E0061}",
            "🏴\u{E0061}\u{E007F}",
            "\u{3164}",
            "\u{2800}",
            "a\u{034F}b",
            "a\u{E000}",
            "a\u{0378}",
            "a\u{FFFF}",
            "Z\u{337}\u{322}\u{327}\u{361}\u{31b}\u{349}\u{353}",
        ] {
            assert!(matches!(clean(text), Err(TextError::Forbidden { .. })), "{text:?}");
        }
        assert!(matches!(clean(" \u{3000}"), Err(TextError::Unsupported(_))));
    }

    #[test]
    fn an_error_names_the_place() {
        let error = clean("pay\u{202E}ee").unwrap_err();
        assert!(error.to_string().starts_with("U+202E at index 3 is not allowed"));
    }

    #[test]
    fn lengths_are_counted_in_what_people_see() {
        assert!(description(&"é".repeat(500)).is_ok());
        assert!(matches!(
            description(&"é".repeat(501)),
            Err(TextError::TooLong { max: 500, actual: 501, .. })
        ));
        assert!(matches!(description(""), Err(TextError::TooShort { min: 1 })));
        assert!(metadata_value("").is_ok());
        // a family is 25 bytes: the byte bound ends it first
        assert!(matches!(
            description(&"👨‍👩‍👧‍👦".repeat(200)),
            Err(TextError::TooLong { max: 4000, unit: "bytes", .. })
        ));
    }

    #[test]
    fn addresses_and_urls() {
        for good in ["name@example.org", "Jörg@müller.example", "δοκιμή@παράδειγμα.ελ"] {
            assert!(email(good).is_ok(), "{good}");
        }
        for bad in
            ["", "name", "name@", "@example.org", "N <n@example.org>", "a b@example.org", "a@[127.0.0.1]"]
        {
            assert!(email(bad).is_err(), "{bad}");
        }
        for good in [
            "https://shop.example/back?order=1",
            "http://localhost:3000/x",
            "http://127.0.0.1/",
            "http://[::1]/",
        ] {
            assert!(return_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/back",
            "http://shop.example/",
            "ftp://x/",
            "javascript:alert(1)",
            "https://u:p@x/",
            "https://x/a b",
            "https://x/\ta",
        ] {
            assert!(return_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_provider_prints_and_takes() {
        assert!(statement_descriptor("SHOP 42").is_ok());
        for bad in ["A", "42", "SHOP*42", "SHÖP", "ABCDEFGHIJKLMNOPQRS", "a\nb"] {
            assert!(statement_descriptor(bad).is_err(), "{bad}");
        }
        assert!(payment_method("pm_card_visa").is_ok());
        for bad in ["pm_", "card_visa", "pm_a-b", "4242424242424242", &format!("pm_{}", "a".repeat(101))] {
            assert!(payment_method(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered_and_what_is_accepted_stays_as_it_is(text: String) {
            for parse in [reference, description, person_name, metadata_key, metadata_value, email, return_url,
                          statement_descriptor, payment_method] {
                if let Ok(accepted) = parse(&text) {
                    prop_assert_eq!(parse(&accepted), Ok(accepted.clone()));
                    prop_assert!(!accepted.contains('\0'));
                }
            }
        }
    }
}
