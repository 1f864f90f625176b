//! Input that is hard to read: what once broke somebody's login, and what is one step away from being right.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Pieces of text with a meaning of their own somewhere.
const PIECES: [&str; 56] = [
    "",
    " ",
    "a",
    "Z",
    "0",
    "_",
    "-",
    ".",
    "@",
    "/",
    ":",
    "\\",
    "\"",
    "'",
    "<",
    "%",
    "pm_",
    "https://",
    "http://localhost",
    "xn--",
    "example.org",
    "\0",
    "\n",
    "\t",
    "\u{7f}",
    "\u{85}",
    "\u{a0}",
    "\u{ad}",
    // marks, joiners, selectors
    "\u{301}",
    "\u{337}",
    "\u{34f}",
    "\u{200b}",
    "\u{200c}",
    "\u{200d}",
    "\u{fe0e}",
    "\u{fe0f}",
    "\u{20e3}",
    "\u{e0100}",
    // direction
    "\u{202e}",
    "\u{2066}",
    "\u{2069}",
    "\u{200f}",
    "\u{61c}",
    // fillers, annotations, tags, the ends of the planes
    "\u{115f}",
    "\u{3164}",
    "\u{2800}",
    "\u{fff9}",
    "\u{feff}",
    "\u{e0067}",
    "\u{e007f}",
    "\u{ffff}",
    "\u{fdd0}",
    "\u{10ffff}",
    "\u{e000}",
    "\u{378}",
    "\u{1f3f4}",
];

/// Words of people, in many scripts, and emoji.
const WORDS: [&str; 30] = [
    "Zoë",
    "O\u{2019}Brien",
    "ʻOkina",
    "東京タワー",
    "안녕",
    "한",
    "مرحبا",
    "שלום",
    "می\u{200c}خواهم",
    "क\u{94d}\u{200d}ष",
    "ශ\u{dca}\u{200d}රී",
    "ខ្មែរ",
    "ก็",
    "Tiếng",
    "ﷺ",
    "Ω",
    "ǅ",
    "ß",
    "İ",
    "раураl",
    "👨‍👩‍👧‍👦",
    "👩🏽‍🚀",
    "🏳️‍🌈",
    "🇫🇷",
    "1️⃣",
    "❤️‍🔥",
    "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f}",
    "４２４２",
    "٤٢٤٢",
    "4242 4242-4242",
];

/// Text, from nothing to far over every limit.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        3 => select(&PIECES[..]).prop_map(str::to_owned),
        3 => select(&WORDS[..]).prop_map(str::to_owned),
        2 => any::<char>().prop_map(String::from),
        1 => "[ -~]{1,20}",
        1 => "\\p{Mn}{1,9}|\\p{So}|\\p{Cf}|\\p{Lo}{1,5}",
        1 => (0x1f000..0x1fb00_u32).prop_map(|code| char::from_u32(code).map_or_else(String::new, String::from)),
    ];
    let short = vec(piece.clone(), 0..12).prop_map(|pieces| pieces.concat());
    // around the limits
    let long = (
        piece,
        select(&[17_usize, 18, 39, 40, 41, 99, 100, 101, 199, 200, 201, 499, 500, 501, 3000][..]),
        "[a-z]{0,3}",
    )
        .prop_map(|(piece, count, more)| piece.repeat(count) + &more);
    let address = (vec(select(&WORDS[..]), 0..4), vec("[a-zé.-]{0,70}", 0..5))
        .prop_map(|(local, labels)| format!("{}@{}", local.concat(), labels.join(".")));
    let url = (
        select(&["https://", "http://", "HTTPS://", "https:", "//", ""][..]),
        "[a-z0-9.:@\\[\\]-]{0,30}",
        vec(select(&PIECES[..]), 0..6),
    )
        .prop_map(|(scheme, host, rest)| format!("{scheme}{host}/{}", rest.concat()));
    prop_oneof![6 => short, 2 => long, 1 => address, 1 => url]
}

/// Values of `Idempotency-Key`.
pub(crate) fn key() -> impl Strategy<Value = Vec<u8>> {
    let near = vec(select(&b"ab0-;,= \t\"\"\\\\"[..]), 0..12);
    let string = near.clone().prop_map(|inner| [b"\"", inner.as_slice(), b"\""].concat());
    let long = (250..260_usize, any::<bool>(), vec(select(&b"x\"\\"[..]), 0..4)).prop_map(
        |(length, quoted, more)| {
            let key = [vec![b'k'; length], more].concat();
            if quoted { [b"\"", key.as_slice(), b"\""].concat() } else { key }
        },
    );
    prop_oneof![2 => near, 3 => string, 1 => long, 1 => vec(any::<u8>(), 0..300), 1 => text().prop_map(String::into_bytes)]
}

/// Query strings of lists.
pub(crate) fn query() -> impl Strategy<Value = String> {
    const NAMES: [&str; 10] =
        ["limit", "cursor", "status", "open", "reference", "created_from", "created_to", "limti", "Open", ""];
    let name = prop_oneof![4 => select(&NAMES[..]).prop_map(str::to_owned), 1 => text().prop_map(|name| encoded(&name)), 1 => "[!-~]{0,9}"];
    const VALUES: [&str; 21] = [
        "",
        "1",
        "100",
        "101",
        "-1",
        "1e3",
        "99999999999999999999",
        "captured",
        "failed",
        "true",
        "TRUE",
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00+01:00",
        "+99999-01-01T00:00:00Z",
        "0000-01-01T00:00:00-23:59",
        "9999-12-31T23:59:60Z",
        "%",
        "%zz",
        "%ff",
        "%00",
        "%f0%9f%98%80",
    ];
    let value = prop_oneof![
        4 => select(&VALUES[..]).prop_map(str::to_owned),
        1 => "[0-9a-f]{32}[0-9a-f]{0,17}",
        1 => text().prop_map(|text| encoded(&text)),
        1 => text(),
    ];
    let pairs = vec((name, value), 0..8).prop_map(|pairs| {
        pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
    });
    prop_oneof![5 => pairs, 1 => text()]
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
