//! Which characters text may have, and where.
//!
//! Refused are control characters and line separators, private use, what Unicode has not assigned (noncharacters too), and
//! what nobody sees: format characters (General_Category Cf), Default_Ignorable code points, and four blanks that neither
//! property covers. These stand only where writing needs them:
//!
//! | characters | where | source |
//! | --- | --- | --- |
//! | ZWNJ and ZWJ | after a virama; ZWNJ also between two letters that would join | RFC 5892, appendices A.1 and A.2 |
//! | ZWJ | between the letter ra and a virama, in Bengali and Kannada | Unicode Standard, sections 12.2 and 12.8 |
//! | ZWJ | between two pictographs | UTS #51, ED-16 |
//! | VS15 and VS16 | after a pictograph or the base of a keycap | UTS #51, ED-8a and ED-9a |
//! | VS1 to VS3, VS17 to VS256 | after a Han ideograph | StandardizedVariants.txt; UTS #37 |
//! | VS1 | after a Myanmar letter: the dotted letters of Khamti, Aiton and Phake | StandardizedVariants.txt |
//! | FVS1 to FVS4 | after a Mongolian letter | Unicode Standard, section 13.5 |
//! | MVS | between a Mongolian letter and the vowel a or e | Unicode Standard, section 13.5 |
//! | tags | in the flags of England, Scotland and Wales | UTS #51, ED-14a |
//! | prepended concatenation marks | anywhere: they are seen, over numbers in Arabic and Syriac script | Unicode Standard, section 23.2 |
//!
//! A letter has at most [`MAX_MARKS`] marks.

use super::{CATEGORY, TextError};
use icu_properties::props::{
    BidiControl, BinaryProperty, CanonicalCombiningClass, DefaultIgnorableCodePoint, EmojiModifier,
    ExtendedPictographic, GeneralCategory, JoiningType, PrependedConcatenationMark, Script, UnifiedIdeograph,
};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Nonspacing and enclosing marks on one letter (General_Category Mn and Me). Vietnamese, Hebrew with vowels and accents,
/// Arabic, Tibetan and Khmer need up to five.
pub const MAX_MARKS: usize = 6;

const ZWNJ: char = '\u{200C}';
const ZWJ: char = '\u{200D}';

/// The tag sequences that are emoji: the flags of England, Scotland and Wales.
const TAG_FLAGS: [&str; 3] = [
    "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}",
    "🏴\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}",
    "🏴\u{E0067}\u{E0062}\u{E0077}\u{E006C}\u{E0073}\u{E007F}",
];

fn is<P: BinaryProperty>(character: char) -> bool {
    CodePointSetData::new::<P>().contains(character)
}

fn is_letter_of(script: Script, character: char) -> bool {
    let letter =
        matches!(CATEGORY.get(character), GeneralCategory::OtherLetter | GeneralCategory::ModifierLetter);
    letter && CodePointMapData::<Script>::new().get(character) == script
}

/// Refuses the first character that has no place where it stands.
///
/// # Errors
/// [`TextError::Forbidden`].
pub(super) fn check(text: &str) -> Result<(), TextError> {
    let characters: Vec<char> = text.chars().collect();
    let mut marks = 0_usize;
    for (index, &character) in characters.iter().enumerate() {
        // most of most text
        if matches!(character, ' '..='~') {
            marks = 0;
            continue;
        }
        let (before, from) = characters.split_at_checked(index).unwrap_or_default();
        let after = from.get(1..).unwrap_or_default();
        match CATEGORY.get(character) {
            GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark => marks += 1,
            // joins two letters, and is none
            _ if matches!(character, ZWNJ | ZWJ) => {}
            _ => marks = 0,
        }
        let too_many = || (marks > MAX_MARKS).then_some("it is one of more than 6 marks on one letter");
        if let Some(why) = objection(before, character, after).or_else(too_many) {
            return Err(TextError::Forbidden { character, index, why });
        }
    }
    Ok(())
}

/// Why a character has no place between two parts of a text, if so.
fn objection(before: &[char], character: char, after: &[char]) -> Option<&'static str> {
    match CATEGORY.get(character) {
        GeneralCategory::Control => return Some("it is a control character"),
        GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
            return Some("it ends a line or paragraph");
        }
        GeneralCategory::PrivateUse => return Some("it is for private use"),
        GeneralCategory::Unassigned | GeneralCategory::Surrogate => {
            return Some("Unicode has not assigned it");
        }
        _ => {}
    }
    let previous = before.last().copied();
    let after_one = |allowed: fn(char) -> bool| previous.is_some_and(allowed);
    let (welcome, why) = match character {
        ZWNJ => (
            after_one(is_virama) || separates_joining_letters(before, after),
            "it is invisible, and stands neither after a virama nor between letters that would join",
        ),
        ZWJ => (
            after_one(is_virama) || joins_ra_and_virama(before, after) || joins_pictographs(before, after),
            "it is invisible, and stands neither after a virama nor between two pictographs",
        ),
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => (
            after_one(match character {
                '\u{FE0E}' | '\u{FE0F}' => has_presentations,
                '\u{FE00}' => |c| is_letter_of(Script::Myanmar, c) || is::<UnifiedIdeograph>(c),
                '\u{FE01}' | '\u{FE02}' | '\u{E0100}'..='\u{E01EF}' => is::<UnifiedIdeograph>,
                _ => |_| false,
            }),
            "it is invisible, and what stands before it has no such variant",
        ),
        '\u{180B}'..='\u{180D}' | '\u{180F}' => (
            after_one(|c| is_letter_of(Script::Mongolian, c)),
            "it is invisible, and does not stand after a Mongolian letter",
        ),
        '\u{180E}' => (
            stands_before_last_vowel(before, after),
            "it is invisible, and does not stand between a Mongolian letter and the vowel a or e",
        ),
        '\u{E0020}'..='\u{E007F}' => (
            is_in_tag_flag(before, character, after),
            "it is invisible, and no part of a flag that is an emoji",
        ),
        // Braille, objects and musical notes without anything to see; annotations are format characters
        '\u{2800}' | '\u{FFFC}' | '\u{1D159}' => (false, "it is blank"),
        _ if is::<BidiControl>(character) => (false, "it changes the direction of what stands around it"),
        _ => (
            is::<PrependedConcatenationMark>(character)
                || !is::<DefaultIgnorableCodePoint>(character)
                    && CATEGORY.get(character) != GeneralCategory::Format,
            "it is invisible",
        ),
    };
    (!welcome).then_some(why)
}

fn is_virama(character: char) -> bool {
    CodePointMapData::<CanonicalCombiningClass>::new().get(character) == CanonicalCombiningClass::Virama
}

/// `(Joining_Type:{L,D})(Joining_Type:T)*(ZWNJ)(Joining_Type:T)*(Joining_Type:{R,D})`
fn separates_joining_letters(before: &[char], after: &[char]) -> bool {
    let types = CodePointMapData::<JoiningType>::new();
    let seen = |joining: &JoiningType| *joining != JoiningType::Transparent;
    let left = before.iter().rev().map(|c| types.get(*c)).find(seen);
    let right = after.iter().map(|c| types.get(*c)).find(seen);
    matches!(left, Some(JoiningType::LeftJoining | JoiningType::DualJoining))
        && matches!(right, Some(JoiningType::RightJoining | JoiningType::DualJoining))
}

/// Keeps a ra whole that would become the small sign of its cluster: the name র‍্যাচেল (Rachel).
fn joins_ra_and_virama(before: &[char], after: &[char]) -> bool {
    matches!(
        (before.last(), after.first()),
        (Some('\u{9B0}'), Some('\u{9CD}')) | (Some('\u{CB0}'), Some('\u{CCD}'))
    )
}

/// A skin tone or presentation selector may stand before the joiner.
fn joins_pictographs(before: &[char], after: &[char]) -> bool {
    let base = before.iter().rev().find(|c| **c != '\u{FE0F}' && !is::<EmojiModifier>(**c));
    let next = after.first();
    base.is_some_and(|c| is::<ExtendedPictographic>(*c))
        && next.is_some_and(|c| is::<ExtendedPictographic>(*c))
}

fn has_presentations(character: char) -> bool {
    is::<ExtendedPictographic>(character) || matches!(character, '0'..='9' | '#' | '*')
}

fn stands_before_last_vowel(before: &[char], after: &[char]) -> bool {
    let letter = before.iter().rev().find(|c| !matches!(c, '\u{180B}'..='\u{180D}' | '\u{180F}'));
    letter.is_some_and(|c| is_letter_of(Script::Mongolian, *c))
        && matches!(after.first(), Some('\u{1820}' | '\u{1821}'))
}

fn is_in_tag_flag(before: &[char], character: char, after: &[char]) -> bool {
    TAG_FLAGS.iter().any(|flag| {
        let flag: Vec<char> = flag.chars().collect();
        (1..flag.len()).any(|at| {
            let (start, end) = (flag.get(..at), flag.get(at.saturating_add(1)..));
            flag.get(at) == Some(&character)
                && start.is_some_and(|start| before.ends_with(start))
                && end.is_some_and(|end| after.starts_with(end))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Description;

    #[test]
    fn the_worlds_writing_is_welcome() {
        for text in [
            "Invoice 42",
            "Zoë O’Brien",
            "日本語テスト",
            "안녕하세요",
            "مرحبا بالعالم",
            "مُحَمَّدٌ",
            "שָׁלוֹם",
            "בְּרֵאשִׁ֖ית",
            "नमस्ते",
            "কলকাতা",
            "ਪੰਜਾਬੀ",
            "ગુજરાતી",
            "ଓଡ଼ିଆ",
            "தமிழ்",
            "తెలుగు",
            "ಕನ್ನಡ",
            "മലയാളം",
            "සිංහල",
            "ก็ ที่นี่",
            "ພາສາລາວ",
            "မြန်မာဘာသာ",
            "ភាសាខ្មែរ",
            "བོད་ཡིག",
            "བསྒྲུབས",
            "ᠮᠣᠩᠭᠣᠯ",
            "አማርኛ",
            "ქართული",
            "Հայերեն",
            "ߒߞߏ",
            "ᏣᎳᎩ",
            "𞤀𞤣𞤤𞤢𞤥",
            "ᐃᓄᒃᑎᑐᑦ",
            "ꆈꌠꁱꂷ",
            "ⵜⴰⵎⴰⵣⵉⵖⵜ",
            "ދިވެހި",
            "ܐܪܡܝܐ",
            "ᱥᱟᱱᱛᱟᱲᱤ",
            "ꦧꦱꦗꦮ",
            "ᬪᬵᬱᬩᬮᬶ",
            "ꯃꯤꯇꯩꯂꯣꯟ",
            "𑄌𑄋𑄴𑄟𑄳𑄦",
            "ᨅᨔ ᨕᨘᨁᨗ",
            "ꓡꓲ‐ꓢꓴ",
            "Tiếng Việt",
            "yorùbá ẹ̀kọ́",
            "Diné bizaad: Łį́į́ʼ",
            "٣٤ ۳۴ १२",
            "\u{600}١٢٣",
            "2H₂ + O₂ → 2H₂O",
        ] {
            check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        assert_eq!(Description::parse("e\u{301}").unwrap().as_str(), "é", "text is kept in NFC");
    }

    #[test]
    fn joiners_are_welcome_where_writing_needs_them() {
        for text in [
            // Persian: between a dual-joining letter and one that joins to the right, marks between them or not
            "می\u{200C}خواهم",
            "نمی\u{200C}دانم",
            "خانه\u{200C}ای",
            "بَ\u{200C}َب",
            // after a virama: Sinhala, Devanagari, Malayalam, Khmer, Kannada
            "ශ\u{DCA}\u{200D}රී",
            "ක\u{DCA}\u{200D}ෂ",
            "क\u{94D}\u{200D}ष",
            "क\u{94D}\u{200C}ष",
            "ന\u{D4D}\u{200D}",
            "ក\u{17D2}\u{200C}ក",
            "ರಾಜ\u{CCD}\u{200C}ಕುಮಾರ್",
            // before one
            "র\u{200D}\u{9CD}যাচেল",
            "ರ\u{200D}\u{CCD}ಯಾಂಕ್",
            // between pictographs
            "👨‍👩‍👧‍👦",
            "👩🏽‍🚀",
            "🏳️‍🌈",
            "❤️‍🔥",
            "🏃🏿‍♀️‍➡️",
        ] {
            check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        for (text, index) in [
            ("a\u{200D}b", 1),
            ("a\u{200C}b", 1),
            ("\u{200C}ب", 0),
            ("ب\u{200C}", 1),
            ("ب\u{200D}ب", 1),
            ("ب\u{200C} ب", 1),
            // dal does not join to the left
            ("د\u{200C}ب", 1),
            ("ب\u{200C}\u{200C}ب", 1),
            ("क\u{94D}\u{200D}\u{200D}ष", 3),
            ("क\u{200D}ष", 1),
            ("ক\u{200D}\u{9CD}ক", 1),
            ("👩\u{200D}", 1),
            ("\u{200D}👩", 0),
            ("👩\u{200D}a", 1),
            ("a\u{FE0F}\u{200D}👩", 1),
        ] {
            assert_eq!(refused(text), Some(index), "{text:?}");
        }
    }

    #[test]
    fn selectors_stand_after_what_has_variants() {
        for text in [
            "❤\u{FE0E}",
            "❤\u{FE0F}",
            "1\u{FE0F}\u{20E3}",
            "#\u{20E3}",
            "葛\u{E0100}飾",
            "渡邉\u{E0102}",
            "神\u{FE00}",
            "\u{1000}\u{FE00}",
            "\u{182D}\u{180B}",
            "\u{1828}\u{180E}\u{1820}",
            "\u{182D}\u{180B}\u{180E}\u{1821}",
        ] {
            check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
        for (text, index) in [
            ("a\u{FE0F}", 1),
            ("a\u{FE00}", 1),
            ("神\u{FE03}", 1),
            ("a\u{E0100}", 1),
            ("か\u{E0100}", 1),
            ("葛\u{E0100}\u{E0101}", 2),
            ("a\u{180B}", 1),
            ("\u{1820}\u{180E}a", 1),
            ("a\u{180E}\u{1820}", 1),
            ("\u{1820}\u{180E}", 1),
            ("\u{FE0F}", 0),
        ] {
            assert_eq!(refused(text), Some(index), "{text:?}");
        }
    }

    #[test]
    fn tags_are_parts_of_three_flags() {
        for flag in TAG_FLAGS {
            assert_eq!(refused(flag), None);
            assert_eq!(refused(&format!("{flag}{flag}a")), None);
            let unfinished: String = flag.chars().take(6).collect();
            assert_eq!(refused(&unfinished), Some(1));
            assert_eq!(refused(&format!("{flag}\u{E0061}")), Some(7));
            assert_eq!(refused(&flag.replace('\u{E0067}', "\u{E0061}")), Some(1));
        }
        assert_eq!(refused("🏴\u{E0061}\u{E007F}"), Some(1));
        assert_eq!(refused("a\u{E0068}\u{E0069}"), Some(1), "smuggled");
    }

    #[test]
    fn what_cannot_be_seen_is_refused() {
        let blanks =
            ['\u{115F}', '\u{1160}', '\u{17B4}', '\u{17B5}', '\u{3164}', '\u{FFA0}', '\u{2800}', '\u{FFFC}'];
        let controls = ['\0', '\t', '\n', '\r', '\u{1B}', '\u{7F}', '\u{85}', '\u{2028}', '\u{2029}'];
        let bidi =
            "\u{61C}\u{200E}\u{200F}\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}";
        let nothing = "\u{AD}\u{34F}\u{200B}\u{2060}\u{2061}\u{2064}\u{206F}\u{FEFF}\u{FFF9}\u{FFFA}\u{FFFB}\u{1D159}\u{1D173}\u{E0001}\u{E0020}\u{E007F}\u{E01F0}";
        let nobodys = "\u{378}\u{E000}\u{F8FF}\u{FDD0}\u{FFFE}\u{FFFF}\u{1FFFE}\u{F0000}\u{10FFFF}";
        for character in blanks
            .into_iter()
            .chain(controls)
            .chain(bidi.chars())
            .chain(nothing.chars())
            .chain(nobodys.chars())
        {
            for (before, index) in [("", 0), ("a", 1), ("ا", 1), ("क", 1), ("👩", 1)] {
                assert_eq!(
                    refused(&format!("{before}{character}b")),
                    Some(index),
                    "{character:?} after {before}"
                );
            }
        }
    }

    #[test]
    fn every_invisible_character_is_refused_after_a_letter() {
        let seen: Vec<char> = ('\0'..=char::MAX)
            .filter(|c| {
                let category = CATEGORY.get(*c);
                is::<DefaultIgnorableCodePoint>(*c) || category == GeneralCategory::Format || c.is_control()
            })
            .filter(|c| refused(&format!("a{c}b")).is_none())
            .collect();
        assert!(seen.iter().all(|c| is::<PrependedConcatenationMark>(*c)), "{seen:?}");
        assert_eq!(seen.len(), 13);
    }

    #[test]
    fn a_letter_has_so_many_marks() {
        for text in [
            "a\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}",
            // one after each letter of a cluster, which is one grapheme
            "र\u{94D}त\u{94D}स\u{94D}न\u{94D}य\u{941}\u{901}र\u{94D}त\u{94D}स\u{94D}न\u{94D}य",
            "👁️‍🗨️",
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
        let seven = "\u{327}\u{321}\u{334}\u{337}\u{33B}\u{349}\u{353}";
        assert_eq!(refused(&format!("Z{seven}")), Some(7));
        assert_eq!(refused(&format!("zalgo{seven}")), Some(11));
        assert_eq!(refused(&"ก\u{E47}".repeat(9)), None);
        assert_eq!(refused(&format!("ก{}", "\u{E47}".repeat(9))), Some(7));
        // a joiner does not begin a new letter
        assert_eq!(
            refused(
                "क\u{94D}\u{200D}\u{94D}\u{200D}\u{94D}\u{200D}\u{94D}\u{200D}\u{94D}\u{200D}\u{94D}\u{200D}\u{94D}"
            ),
            Some(13)
        );
        let error = check(&format!("Z{seven}")).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "U+0353 at index 7 is not allowed: it is one of more than {MAX_MARKS} marks on one letter"
            )
        );
    }

    #[test]
    fn an_error_names_the_character_its_place_and_the_rule() {
        let error = Description::parse("pay \u{202E}ee").unwrap_err();
        let expected = "U+202E at index 4 is not allowed: it changes the direction of what stands around it";
        assert_eq!(error.to_string(), expected);
        // in the text as it is kept: e and its accent are one
        let error = Description::parse("e\u{301}\0").unwrap_err();
        assert_eq!(error.to_string(), "U+0000 at index 1 is not allowed: it is a control character");
    }

    fn refused(text: &str) -> Option<usize> {
        match check(text) {
            Ok(()) => None,
            Err(TextError::Forbidden { index, .. }) => Some(index),
            Err(other) => panic!("{other}"),
        }
    }
}
