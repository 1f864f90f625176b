//! The texts and files that are sent: public corpora, from crates and from a folder.

use anyhow::{Context, Result, ensure};
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use unicode_normalization::UnicodeNormalization;

/// What would end a log line and begin another, an answer's header, or a terminal's line, if anybody wrote it there.
pub(super) const FORGERIES: [&str; 8] = [
    "order\n{\"level\":\"ERROR\",\"message\":\"forged\"}",
    "order\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}",
    "order\"}\n{\"message\":\"forged\",\"x\":\"",
    "order\r\nSet-Cookie: forged=1\r\n\r\nforged",
    "order\u{85}forged",
    "order\u{2028}forged",
    "order\u{1b}[2K\rforged",
    "order\\n{\"message\":\"forged\"}",
];

/// Texts of one kind. No two are the same once they are in NFC.
#[derive(Debug, Clone)]
pub struct Texts {
    /// What they are.
    pub name: &'static str,
    /// In the order of their source.
    pub texts: Vec<String>,
}

impl Texts {
    fn new(name: &'static str, texts: impl IntoIterator<Item = String>) -> Self {
        let mut seen = HashSet::new();
        let texts = texts.into_iter().filter(|text| seen.insert(nfc(text)));
        Self { name, texts: texts.collect() }
    }

    fn and(self, more: impl IntoIterator<Item = String>) -> Self {
        Self::new(self.name, self.texts.into_iter().chain(more))
    }
}

/// A file of JSONTestSuite.
#[derive(Debug, Clone)]
pub struct JsonFile {
    /// `y_` must be read, `n_` must not, `i_` may be.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Everything that is sent.
#[derive(Debug, Clone)]
pub struct Corpora {
    /// The Big List of Naughty Strings, and what would forge a line.
    pub naughty: Texts,
    /// Every emoji that is recommended for general interchange (RGI, UTS #51), in all skin tones.
    pub emoji: Texts,
    /// Emoji without the presentation selectors that they should have.
    pub unqualified: Texts,
    /// JSONTestSuite, if there is a folder.
    pub json: Vec<JsonFile>,
}

impl Corpora {
    /// What crates carry.
    #[must_use]
    pub fn of_crates() -> Self {
        let naughty = naughty_strings::BLNS.iter().copied().chain(FORGERIES);
        Self {
            naughty: Texts::new("naughty", naughty.map(str::to_owned)),
            emoji: Texts::new("emoji", emoji_of_crate().map(str::to_owned)),
            unqualified: Texts::new("unqualified", []),
            json: Vec::new(),
        }
    }

    /// And what a folder has: `naughty/blns.json`, `emoji/emoji-test.txt`, `json/*.json`.
    ///
    /// # Errors
    /// One of them is missing or cannot be read.
    pub fn and_of_folder(mut self, folder: &Path) -> Result<Self> {
        let read = |path: &str| {
            let path = folder.join(path);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        let list: Vec<String> = serde_json::from_str(&read("naughty/blns.json")?)?;
        let emoji = read_emoji(&read("emoji/emoji-test.txt")?)?;
        let of = |wanted: &'static [&'static str]| {
            let listed = emoji.iter().filter(move |(status, _)| wanted.contains(&status.as_str()));
            listed.map(|(_, text)| text.clone())
        };
        self.naughty = self.naughty.and(list);
        self.emoji = self.emoji.and(of(&["fully-qualified", "component"]));
        self.unqualified = Texts::new("unqualified", of(&["minimally-qualified", "unqualified"]));
        let mut files: Vec<_> =
            fs::read_dir(folder.join("json"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.sort();
        for path in files {
            let name = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            if name.ends_with(".json") {
                self.json.push(JsonFile { name, bytes: fs::read(&path)? });
            }
        }
        ensure!(!self.json.is_empty(), "no *.json in {}", folder.join("json").display());
        Ok(self)
    }
}

/// The published form of text.
#[must_use]
pub fn nfc(text: &str) -> String {
    // another implementation than the service's
    text.nfc().collect()
}

/// The crate lists most of them once; the other skin tones are asked for.
fn emoji_of_crate() -> impl Iterator<Item = &'static str> {
    emojis::iter().flat_map(|emoji| {
        let tones = emoji.skin_tones().into_iter().flatten().map(emojis::Emoji::as_str);
        std::iter::once(emoji.as_str()).chain(tones)
    })
}

/// Status and text of every line of `emoji-test.txt` (UTS #51).
fn read_emoji(list: &str) -> Result<Vec<(String, String)>> {
    let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (points, rest) = line.split_once(';').with_context(|| format!("no emoji: {line}"))?;
            let status = rest.split('#').next().unwrap_or_default().trim().to_owned();
            let text = points.split_whitespace().map(|point| {
                let point = u32::from_str_radix(point, 16)?;
                char::from_u32(point).with_context(|| format!("no character: {point:x}"))
            });
            Ok((status, text.collect::<Result<String>>()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crates_have_what_their_names_say() {
        let corpora = Corpora::of_crates();
        let (naughty, emoji) = (&corpora.naughty.texts, &corpora.emoji.texts);
        for text in ["", "\u{feff}", "null", "🏳0🌈\u{fe0f}", FORGERIES[0]] {
            assert!(naughty.iter().any(|other| other == text), "{text:?}");
        }
        for text in [
            "😀",
            "👩🏽\u{200d}🚀",
            "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
            "1\u{fe0f}\u{20e3}",
            "🇫🇷",
        ] {
            assert!(emoji.iter().any(|other| other == text), "{text}");
        }
        assert!(naughty.len() > 400 && emoji.len() > 3_900, "{} {}", naughty.len(), emoji.len());
        let different: HashSet<String> = emoji.iter().map(|text| nfc(text)).collect();
        assert_eq!(different.len(), emoji.len());
    }

    #[test]
    fn the_list_of_emoji_is_read() {
        let list = "# a comment\n\n1F469 200D 1F680 ; fully-qualified # x E4.0 woman astronaut\n263A ; unqualified # y\n";
        let expected = [("fully-qualified", "👩\u{200d}🚀"), ("unqualified", "\u{263a}")];
        let expected = expected.map(|(status, text)| (status.to_owned(), text.to_owned()));
        assert_eq!(read_emoji(list).unwrap(), expected);
        assert!(read_emoji("110000 ; fully-qualified # z").is_err());
    }
}
