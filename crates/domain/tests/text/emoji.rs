//! Every emoji that is recommended for general interchange (RGI), whatever it is made of.

use domain::text::{Description, Length, PersonName, TextError};
use unicode_segmentation::UnicodeSegmentation;

type Parse = fn(&str) -> Result<String, TextError>;

const TYPES: [(Length, Parse); 2] = [
    (PersonName::LENGTH, |text| PersonName::parse(text).map(|text| text.as_str().to_owned())),
    (Description::LENGTH, |text| Description::parse(text).map(|text| text.as_str().to_owned())),
];

fn all() -> Vec<&'static str> {
    let tones = |emoji: &'static emojis::Emoji| {
        let tones: Vec<_> = emoji.skin_tones().map_or_else(|| vec![emoji], Iterator::collect);
        tones.into_iter().map(emojis::Emoji::as_str)
    };
    let mut all: Vec<&str> = emojis::iter().flat_map(tones).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn every_emoji_is_one_character_and_welcome() {
    let all = all();
    assert!(all.len() >= 3_944, "there are fewer than in Unicode 17: {}", all.len());
    for emoji in &all {
        assert_eq!(emoji.graphemes(true).count(), 1, "{emoji}");
        for (_, parse) in TYPES {
            for text in [
                (*emoji).to_owned(),
                format!("Zoë {emoji}"),
                format!("{emoji}{emoji}{emoji}"),
                format!("a{emoji}b"),
            ] {
                assert_eq!(parse(&text), Ok(text.clone()));
            }
        }
    }
    for form in ["👩🏽‍🚀", "🇫🇷", "🏴\u{E0067}\u{E0062}\u{E0065}\u{E006E}\u{E0067}\u{E007F}", "#️⃣", "👨🏻‍❤️‍💋‍👨🏿"]
    {
        assert!(all.contains(&form), "{form}");
    }
}

/// Three characters before the limit, to three beyond it: what counts is graphemes, and then bytes.
#[test]
fn every_emoji_counts_as_one_at_the_limit() {
    for emoji in all() {
        for (length, parse) in TYPES {
            for total in length.max - 3..=length.max + 3 {
                let text = format!("{}{emoji}", "a".repeat(total - 1));
                let expected = match total > length.max {
                    true => Err(TextError::TooLong { max: length.max, actual: total, unit: "characters" }),
                    false => Ok(text.clone()),
                };
                assert_eq!(parse(&text), expected, "{emoji} {total}");
            }
        }
    }
}

/// As many of one emoji as the bytes take, and one more.
#[test]
fn every_emoji_counts_its_bytes_at_the_limit() {
    let (length, parse) = TYPES[0];
    for emoji in all() {
        let most = length.max_bytes / emoji.len();
        for count in [most, most + 1] {
            let text = emoji.repeat(count);
            let expected = if text.len() > length.max_bytes {
                Err(TextError::TooLong { max: length.max_bytes, actual: text.len(), unit: "bytes" })
            } else if count > length.max {
                Err(TextError::TooLong { max: length.max, actual: count, unit: "characters" })
            } else {
                Ok(text.clone())
            };
            assert_eq!(parse(&text), expected, "{emoji} {count}");
        }
    }
}
