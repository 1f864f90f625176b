//! What names are asked besides: nobody may pass for somebody else.
//!
//! 1. **A word has one script** (UTS #39, section 5.1, with the augmented script sets of Japanese, Korean and Chinese). As in
//!    its level Highly Restrictive (section 5.2), Latin letters may stand beside those of these three: `SK텔레콤`.
//! 2. **A word does not look like a protected one** in other letters (UTS #39, section 4, skeletons): `раураӏ` in Cyrillic.
//!    The protected word itself, in ASCII letters of any case, is a word like any other.
//!
//! Words are those of UAX #29, cut at ASCII punctuation too: `Яндекс.Go` is two. Marks are not asked for their script. So
//! that a description can tell of anything, only names of people and merchants are asked.

use super::{CATEGORY, TextError};
use icu_properties::props::{GeneralCategory, Script};
use icu_properties::script::ScriptWithExtensions;
use std::sync::LazyLock;
use unicode_security::mixed_script::AugmentedScriptSet;
use unicode_security::skeleton;
use unicode_segmentation::UnicodeSegmentation;

/// Brands of cards and payments, and who speaks for a service. Shorter ones would meet words that mean no harm.
pub const PROTECTED: [&str; 16] = [
    "adyen",
    "alipay",
    "amex",
    "klarna",
    "maestro",
    "mastercard",
    "paypal",
    "stripe",
    "unionpay",
    "visa",
    "wechat",
    "worldpay",
    "admin",
    "administrator",
    "security",
    "support",
];

/// A Greek letter that is at home in Latin orthographies too, without a twin there: xʷməθkʷəy̓əm (Musqueam).
const BORROWED: char = 'θ';

/// As they look in lower case, in capitals, and with one capital.
static LOOKS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let looks = |word: &&str| {
        let capitals = word.to_uppercase();
        let title = capitals.chars().take(1).chain(word.chars().skip(1)).collect();
        [word.to_string(), capitals, title].map(|form: String| look(&form))
    };
    PROTECTED.iter().flat_map(looks).collect()
});

/// Words that look alike have the same.
fn look(word: &str) -> String {
    skeleton(word).flat_map(char::to_lowercase).collect()
}

/// Refuses a word that mixes scripts, or looks like a protected one.
///
/// # Errors
/// [`TextError::Forbidden`], with the character that differs from those before it, or the first that is not ASCII.
pub(super) fn check(text: &str) -> Result<(), TextError> {
    if text.is_ascii() {
        return Ok(());
    }
    for (start, word) in text.unicode_word_indices() {
        let mut index = text.get(..start).unwrap_or_default().chars().count();
        for part in word.split(|c: char| c.is_ascii_punctuation()) {
            check_word(part, index)?;
            index = index.saturating_add(part.chars().count()).saturating_add(1);
        }
    }
    Ok(())
}

fn check_word(word: &str, start: usize) -> Result<(), TextError> {
    let forbidden = |at: usize, character, why| {
        Err(TextError::Forbidden { character, index: start.saturating_add(at), why })
    };
    if let Some((at, character)) = first_of_another_script(word) {
        return forbidden(
            at,
            character,
            "its script is another than that of its word; a word is written in one",
        );
    }
    match word.chars().enumerate().find(|(_, character)| !character.is_ascii()) {
        Some((at, character)) if LOOKS.contains(&look(word)) => {
            forbidden(at, character, "its word imitates a protected name; write that in letters from a to z")
        }
        _ => Ok(()),
    }
}

fn first_of_another_script(word: &str) -> Option<(usize, char)> {
    let mut all = AugmentedScriptSet::default();
    let mut beside_latin = AugmentedScriptSet::default();
    word.chars().enumerate().find(|&(_, character)| {
        let mark = matches!(
            CATEGORY.get(character),
            GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark
        );
        if mark || character == BORROWED {
            return false;
        }
        all.intersect_with(character.into());
        if !ScriptWithExtensions::new().has_script(character, Script::Latin) {
            beside_latin.intersect_with(character.into());
        }
        let east_asian = beside_latin.jpan || beside_latin.kore || beside_latin.hanb;
        all.is_empty() && !east_asian
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Description, MerchantName, PersonName};

    fn index(name: &str) -> Option<usize> {
        assert!(Description::parse(name).is_ok(), "free text may tell of {name}");
        match (PersonName::parse(name), MerchantName::parse(name)) {
            (Ok(_), Ok(_)) => None,
            (Err(TextError::Forbidden { index, .. }), Err(TextError::Forbidden { index: other, .. })) => {
                assert_eq!(index, other);
                Some(index)
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    #[test]
    fn a_word_in_two_scripts_is_refused() {
        for (name, at) in [
            ("p\u{430}ypal", 1),
            ("Tea Shop P\u{430}ris", 10),
            ("Игор\u{3c3}", 4),
            ("Мо\u{441}квa", 5),
            ("Ivan Петроv", 10),
            ("Αpple", 1),
            ("a\u{5D0}b", 1),
            ("O'Neil L\u{435}e", 8),
            ("abc.d\u{435}f", 5),
            ("Ꭺpple", 1),
        ] {
            assert_eq!(index(name), Some(at), "{name}");
        }
    }

    #[test]
    fn a_word_that_looks_like_a_protected_one_is_refused() {
        for (name, at) in [
            // Cyrillic: paypal, VISA, AMEX
            ("\u{440}\u{430}\u{443}\u{440}\u{430}\u{4CF}", 0),
            ("The \u{474}\u{406}\u{405}\u{410} Card", 4),
            ("\u{410}\u{41C}\u{415}\u{425}", 0),
            ("my.\u{440}\u{430}\u{443}\u{440}\u{430}\u{4CF}.example", 3),
            // mathematical letters, and Latin ones that are no ASCII
            ("𝗩𝗶𝘀𝗮", 0),
            ("v\u{131}sa", 1),
        ] {
            assert_eq!(index(name), Some(at), "{name}");
        }
        // without the V
        assert_eq!(index("\u{406}\u{405}\u{410}"), None);
    }

    #[test]
    fn a_protected_word_is_a_word() {
        for name in ["Visa", "VISA", "PayPal", "Visa Mäkinen", "paypa1", "Arnex", "Admin"] {
            assert_eq!(index(name), None, "{name}");
        }
    }

    #[test]
    fn names_of_merchants_are_welcome() {
        for name in [
            "SK텔레콤",
            "KB국민은행",
            "LG 전자",
            "ソニーSony株式会社",
            "株式会社ABCマート",
            "T・ジョイ",
            "Ｊリーグ",
            "7-Eleven セブン",
            "Яндекс.Go",
            "ООО «Ромашка-Trade»",
            "Café Zoë 🎁",
            "L'Étoile d’Or",
            "Paral·lel 62",
            "H&M",
            "בית-Cafe",
            "Shop 東京",
            "𝄞 Musik",
            "№ 1 Бар",
            "2H₂O",
            "ⅩⅡ Apostel",
            "中国工商银行ICBC",
            "ㄅㄆㄇ注音",
            "Αθήνα Café",
            "xʷməθkʷəy̓əm",
        ] {
            assert_eq!(index(name), None, "{name}");
        }
    }
}
