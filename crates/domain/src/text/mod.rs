//! Text that people write, in one type per meaning.
//!
//! A value is in NFC (UAX #15), bounded in graphemes (UAX #29) and bytes, and holds nothing that is invisible, reorders its
//! surroundings, or that PostgreSQL would refuse. Text is judged in this order, and the first rule it breaks is told:
//!
//! 1. bytes, before any work that grows with the text;
//! 2. NFC, and bytes again, because NFC can be longer than what it was made of;
//! 3. graphemes, which is what people count;
//! 4. every character, and what stands around it: see [`characters`];
//! 5. something to see;
//! 6. what the type itself asks: see [`names`], [`email`], [`web`] and [`provider`].

pub mod characters;
pub mod email;
pub mod names;
pub mod provider;
pub mod web;

use icu_normalizer::ComposingNormalizer;
use icu_properties::props::{GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointMapDataBorrowed};
use unicode_segmentation::UnicodeSegmentation;

/// Why text was refused. It names the rule, the length or the place, never the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Shorter than allowed.
    #[error("must have at least {min} {unit}; it has {actual}")]
    TooShort {
        /// In `unit`.
        min: usize,
        /// In `unit`.
        actual: usize,
        /// What is counted.
        unit: &'static str,
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

/// How long text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Length {
    /// The least, in the unit of the type.
    pub min: usize,
    /// The most, in the unit of the type: graphemes, or bytes of an address or URL.
    pub max: usize,
    /// The most, in bytes of UTF-8.
    pub max_bytes: usize,
}

impl Length {
    /// A grapheme has no most bytes of its own, so the whole text has: eight for each that it may have.
    const BYTES_PER_GRAPHEME: usize = 8;

    const fn graphemes(min: usize, max: usize) -> Self {
        Self { min, max, max_bytes: max.saturating_mul(Self::BYTES_PER_GRAPHEME) }
    }

    /// Also of ASCII, where a byte is a character.
    const fn bytes(min: usize, max: usize) -> Self {
        Self { min, max, max_bytes: max }
    }

    const fn check(self, actual: usize, unit: &'static str) -> Result<(), TextError> {
        if actual > self.max {
            return Err(TextError::TooLong { max: self.max, actual, unit });
        }
        if actual < self.min {
            return Err(TextError::TooShort { min: self.min, actual, unit });
        }
        Ok(())
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $length:expr, $parse:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// How long it may be.
            pub const LENGTH: Length = $length;

            /// Checks text and brings it into its published form.
            ///
            /// # Errors
            /// The first rule it breaks.
            pub fn parse(text: &str) -> Result<Self, TextError> {
                $parse(text, Self::LENGTH).map(Self)
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
    Reference, Length::graphemes(1, 100), free
);
text!(
    /// What a payment is for: 1 to 500 graphemes.
    Description, Length::graphemes(1, 500), free
);
text!(
    /// A person's name: 1 to 200 graphemes. No word mixes scripts or imitates a protected word ([`names`]).
    PersonName, Length::graphemes(1, 200), name
);
text!(
    /// A merchant's name: 1 to 200 graphemes. No word mixes scripts or imitates a protected word ([`names`]).
    MerchantName, Length::graphemes(1, 200), name
);
text!(
    /// An e-mail address of at most 254 bytes (RFC 5321, section 4.5.3.1.3, and its erratum 1690), also international
    /// (RFC 6531).
    Email, Length::bytes(1, 254), email::address
);
text!(
    /// An absolute https URL, or http to the loopback host; at most 2,048 bytes.
    ReturnUrl, Length::bytes(1, 2048), web::return_url
);
text!(
    /// 2 to 18 ASCII characters with at least one letter, without `< > \ ' " *` (Stripe, "Statement descriptors").
    StatementDescriptor, Length::bytes(2, 18), provider::statement_descriptor
);
text!(
    /// The provider's token of a card: `pm_` and 1 to 100 letters, digits or underscores.
    PaymentMethod, Length::bytes(4, 103), provider::payment_method
);
text!(
    /// The name of a merchant's note: 1 to 40 graphemes.
    MetadataKey, Length::graphemes(1, 40), free
);
text!(
    /// The text of a merchant's note: 0 to 500 graphemes.
    MetadataValue, Length::graphemes(0, 500), free
);

const CHARACTERS: &str = "characters";
const BYTES: &str = "bytes";
const CATEGORY: CodePointMapDataBorrowed<'static, GeneralCategory> = CodePointMapData::new();

/// Text that nobody is named by.
fn free(text: &str, length: Length) -> Result<String, TextError> {
    let nfc = bounded_nfc(text, length.max_bytes)?;
    // most of most text: each byte is a grapheme, and none is forbidden
    let is_plain = nfc.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let graphemes = if is_plain { nfc.len() } else { nfc.graphemes(true).count() };
    length.check(graphemes, CHARACTERS)?;
    if !is_plain {
        characters::check(&nfc)?;
    }
    // a mark is something on a letter; alone it is next to nothing
    let seen = |c: char| !c.is_whitespace() && !GeneralCategoryGroup::Mark.contains(CATEGORY.get(c));
    if graphemes > 0 && !nfc.chars().any(seen) {
        return Err(TextError::Unsupported("must have something to see"));
    }
    Ok(nfc)
}

/// Text that somebody is known by, and could be mistaken for somebody else.
fn name(text: &str, length: Length) -> Result<String, TextError> {
    let nfc = free(text, length)?;
    names::check(&nfc)?;
    Ok(nfc)
}

fn bounded_nfc(text: &str, max: usize) -> Result<String, TextError> {
    let bounds = Length::bytes(0, max);
    bounds.check(text.len(), BYTES)?;
    let nfc = ComposingNormalizer::new_nfc().normalize(text).into_owned();
    bounds.check(nfc.len(), BYTES)?;
    Ok(nfc)
}

/// Refuses the first character that `forbidden` says.
fn forbid(text: &str, forbidden: impl Fn(char) -> bool, why: &'static str) -> Result<(), TextError> {
    match text.chars().enumerate().find(|(_, character)| forbidden(*character)) {
        Some((index, character)) => Err(TextError::Forbidden { character, index, why }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_are_what_the_constants_say() {
        let letters: fn(usize) -> String = |n| "a".repeat(n);
        // a name of the DNS has at most 63 characters between two dots
        let address: fn(usize) -> String = |n| {
            let domain = ["b".repeat(63), "b".repeat(63), "b".repeat(n - 193)].join(".");
            format!("{}@{domain}", "a".repeat(64))
        };
        let url: fn(usize) -> String = |n| format!("https://a/{}", "a".repeat(n - 10));
        let token: fn(usize) -> String = |n| format!("pm_{}", "a".repeat(n - 3));
        let texts = [letters, letters, letters, letters, address, url, letters, token, letters, letters];
        for ((length, parse), text) in LENGTHS.into_iter().zip(ALL).zip(texts) {
            assert!(parse(&text(length.max)).is_ok());
            assert!(
                matches!(parse(&text(length.max + 1)), Err(TextError::TooLong { max, .. }) if max == length.max)
            );
        }
        for (length, parse, start) in
            [0, 1, 2, 3, 6, 7, 8, 9].map(|at| (LENGTHS[at], ALL[at], if at == 7 { "pm_" } else { "" }))
        {
            let least = format!("{start}{}", "a".repeat(length.min - start.len()));
            assert!(parse(&least).is_ok());
            if let Some(shorter) = least.get(1..).filter(|_| start.is_empty()) {
                assert!(matches!(parse(shorter), Err(TextError::TooShort { min, .. }) if min == length.min));
            }
        }
        assert!(matches!(PaymentMethod::parse("pm_"), Err(TextError::TooShort { min: 4, actual: 3, .. })));
        for parse in [ALL[4], ALL[5]] {
            assert!(matches!(parse(""), Err(TextError::TooShort { min: 1, actual: 0, .. })));
        }
    }

    #[test]
    fn lengths_are_counted_in_what_people_see() {
        assert!(Description::parse(&"é".repeat(500)).is_ok());
        let error = Description::parse(&"é".repeat(501)).unwrap_err();
        assert_eq!(error.to_string(), "must have at most 500 characters; it has 501");
        let error = Description::parse("").unwrap_err();
        assert_eq!(error.to_string(), "must have at least 1 characters; it has 0");
        assert!(MetadataValue::parse("").is_ok());
        // a family is 25 bytes: the byte bound ends it first
        let error = Description::parse(&"👨‍👩‍👧‍👦".repeat(200)).unwrap_err();
        assert_eq!(error.to_string(), "must have at most 4000 bytes; it has 5000");
    }

    #[test]
    fn bytes_are_counted_before_and_after_nfc() {
        // one character of three bytes, nine bytes in NFC
        let grows = "\u{FB2C}";
        assert_eq!(ComposingNormalizer::new_nfc().normalize(grows).len(), 6);
        let most = MetadataKey::LENGTH.max_bytes;
        let error = MetadataKey::parse(&grows.repeat(most / 3)).unwrap_err();
        assert_eq!(error, TextError::TooLong { max: most, actual: most / 3 * 6, unit: BYTES });
        // too long as it came, although its NFC would not be
        let shrinks = "e\u{301}";
        let error = MetadataKey::parse(&shrinks.repeat(most / 2)).unwrap_err();
        assert_eq!(error, TextError::TooLong { max: most, actual: most / 2 * 3, unit: BYTES });
    }

    #[test]
    fn there_is_something_to_see() {
        for blank in [" ", "\u{3000}", " \u{A0}\u{2003}", "\u{301}", " \u{301}", "\u{94D}\u{93E}", "\u{20E3}"]
        {
            assert!(matches!(Description::parse(blank), Err(TextError::Unsupported(_))), "{blank:?}");
        }
        for seen in [".", " a ", "e\u{301}", "\u{6DD}", "🎁", "\u{FFFD}"] {
            assert!(Description::parse(seen).is_ok(), "{seen:?}");
        }
    }

    #[test]
    fn debugging_does_not_show_the_text() {
        assert_eq!(format!("{:?}", PersonName::parse("Zoë").unwrap()), "PersonName(4 bytes)");
    }

    #[test]
    fn stored_text_is_never_judged_again() {
        // not assigned, and perhaps accepted once by another version of Unicode
        let stored = "\u{378}\u{202E}";
        assert!(PersonName::parse(stored).is_err());
        assert_eq!(PersonName::from_stored(stored.to_owned()).as_str(), stored);
    }

    type Parse = fn(&str) -> Result<String, TextError>;

    /// Every type.
    const ALL: [Parse; 10] = [
        |text| Reference::parse(text).map(|text| text.0),
        |text| Description::parse(text).map(|text| text.0),
        |text| PersonName::parse(text).map(|text| text.0),
        |text| MerchantName::parse(text).map(|text| text.0),
        |text| Email::parse(text).map(|text| text.0),
        |text| ReturnUrl::parse(text).map(|text| text.0),
        |text| StatementDescriptor::parse(text).map(|text| text.0),
        |text| PaymentMethod::parse(text).map(|text| text.0),
        |text| MetadataKey::parse(text).map(|text| text.0),
        |text| MetadataValue::parse(text).map(|text| text.0),
    ];

    const LENGTHS: [Length; 10] = [
        Reference::LENGTH,
        Description::LENGTH,
        PersonName::LENGTH,
        MerchantName::LENGTH,
        Email::LENGTH,
        ReturnUrl::LENGTH,
        StatementDescriptor::LENGTH,
        PaymentMethod::LENGTH,
        MetadataKey::LENGTH,
        MetadataValue::LENGTH,
    ];

    /// Characters that some rule is about, among any others, and the frames that addresses and URLs need.
    fn texts() -> impl Strategy<Value = String> {
        let character = prop_oneof![
            any::<char>(),
            prop::sample::select(
                "aZ0 ._-@\"'é\u{301}\u{308}ßаΑθ한中ا\u{644}\u{915}\u{94D}\u{9B0}\u{9CD}\u{1820}\u{180B}\u{180E}\u{200B}\u{200C}\u{200D}\
                 \u{202E}\u{2066}\u{2800}\u{3164}\u{FE00}\u{FE0F}\u{E0100}\u{E0067}\u{E007F}👩🏽🏴🇫🇷\u{20E3}\0\n\u{FFFE}\u{E000}\u{378}\u{FB2C}"
                    .chars()
                    .collect::<Vec<_>>()
            ),
        ];
        let text = prop::collection::vec(character, 0..24).prop_map(String::from_iter);
        (prop::sample::select(vec!["", "a@", "https://", "https://a/", "pm_"]), text, "(@b\\.org)?")
            .prop_map(|(start, text, end)| format!("{start}{text}{end}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_text_is_answered_and_what_is_accepted_stays_as_it_is(text in texts()) {
            for parse in ALL {
                if let Ok(accepted) = parse(&text) {
                    prop_assert_eq!(parse(&accepted), Ok(accepted.clone()));
                    prop_assert_eq!(&accepted, &ComposingNormalizer::new_nfc().normalize(&text));
                    prop_assert!(!accepted.contains('\0'));
                }
            }
        }

        #[test]
        fn an_error_never_has_the_text(secret in "[a-z]{12}") {
            let text = format!("{secret}\u{202E}");
            for parse in ALL {
                let error = parse(&text).unwrap_err();
                let told = format!("{error} {error:?}");
                prop_assert!(!told.contains(&secret));
            }
        }
    }
}
