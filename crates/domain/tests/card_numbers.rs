//! Card numbers in text: every one is found in whatever writing, and how often something else is taken for one.

use domain::card::issuers::{ISSUERS, Issuer, MAX_DIGITS};
use domain::card::{find, mask};
use proptest::prelude::*;
use proptest::sample::select;
use std::fmt::Write as _;
use time::{Duration, OffsetDateTime};
use uuid::{Builder, Uuid};

/// Numbers that networks and providers publish for tests.
const PUBLISHED: [&str; 24] = [
    "4111111111111111",
    "4242424242424242",
    "4000056655665556",
    "4222222222222",
    "4000000000000000006",
    "5555555555554444",
    "5105105105105100",
    "2223003122003222",
    "2720992593319364",
    "378282246310005",
    "371449635398431",
    "6011111111111117",
    "6011000990139424",
    "6500000000000002",
    "30569309025904",
    "38520000023237",
    "36227206271667",
    "3566002020360505",
    "3530111333300000",
    "6200000000000005",
    "6205500000000000004",
    "6759649826438453",
    "6304000000000000",
    "2200000000000004",
];

/// With the digit that makes it right behind it.
fn with_check_digit(number: &str) -> String {
    let doubled = |digit: u32| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let digits = number.chars().rev().filter_map(|c| c.to_digit(10));
    let sum: u32 =
        digits.enumerate().map(|(at, digit)| if at % 2 == 0 { doubled(digit) } else { digit }).sum();
    format!("{number}{}", (10 - sum % 10) % 10)
}

fn a_card() -> impl Strategy<Value = String> {
    let of_issuer = |issuer: Issuer| {
        let rest = proptest::collection::vec(0..10_u8, MAX_DIGITS);
        (issuer.from..=issuer.to, rest, select(issuer.lengths)).prop_map(|(prefix, rest, length)| {
            let mut number = prefix.to_string();
            number.extend(rest.iter().take(length - 7).map(|digit| char::from(b'0' + digit)));
            with_check_digit(&number)
        })
    };
    select(ISSUERS.to_vec()).prop_flat_map(of_issuer)
}

/// Zeros of scripts: ASCII, full-width, Arabic, Persian, Devanagari, Bengali, Thai, and two of mathematics that touch.
const ZEROS: [char; 9] = ['0', '０', '٠', '۰', '०', '০', '๐', '𝟎', '𝟘'];
const SEPARATORS: [&str; 12] =
    [" ", "-", "  ", " - ", "\u{a0}", "\u{2009}", "\u{3000}", "\u{2010}", "\u{2013}", "\u{2212}", "－", "\t"];
/// How many digits a group has.
const GROUPS: [&[usize]; 8] =
    [&[19], &[4, 4, 4, 4, 3], &[4, 6, 9], &[6, 13], &[8, 8, 3], &[3, 3, 3, 3, 3, 4], &[1; 19], &[5, 5, 5, 4]];
/// What may stand in front of a number ...
const BEFORE: [&str; 10] =
    ["", "card", "PAN:", "№", "order 20261124 ", "2026-11-24 ", "x", "卡号：", ", ", "é"];
/// ... and behind it.
const AFTER: [&str; 6] = ["", "x", ".", " 12/30", "号", " by Zoë"];

/// A number in a writing that people or programs use.
fn a_writing() -> impl Strategy<Value = (String, String)> {
    (a_card(), select(&ZEROS), select(&GROUPS), select(&SEPARATORS), select(&BEFORE), select(&AFTER))
        .prop_map(|(card, zero, groups, separator, before, after)| {
            let mut written = String::new();
            let mut digits = card.chars().filter_map(|digit| digit.to_digit(10)).peekable();
            for length in groups {
                if !written.is_empty() && digits.peek().is_some() {
                    written.push_str(separator);
                }
                let group = digits.by_ref().take(*length);
                written.extend(group.filter_map(|digit| char::from_u32(u32::from(zero) + digit)));
            }
            (format!("{before}{written}{after}"), written)
        })
}

fn digits_of(text: &str) -> usize {
    text.chars().filter(|c| c.is_numeric()).count()
}

#[test]
fn what_is_published_for_tests_is_found() {
    for number in PUBLISHED {
        assert_eq!(find(number), Some(0..number.len()), "{number}");
        let keycaps: String = number.chars().flat_map(|digit| [digit, '\u{fe0f}', '\u{20e3}']).collect();
        let hidden: String = number.chars().flat_map(|digit| [digit, '\u{200b}']).collect();
        for text in [&format!("card{number}x"), &format!("id-{number}-7"), &keycaps, &hidden] {
            assert!(find(text).is_some(), "{text}");
        }
        let last = number.chars().last().and_then(|digit| digit.to_digit(10)).unwrap_or_default();
        let wrong = format!("{}{}", &number[..number.len() - 1], (last + 1) % 10);
        assert_eq!(find(&wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_no_card_number_is_left_alone() {
    for text in [
        "",
        "4111111111111112",
        // no issuer, too short, too long
        "1111111111111117",
        "9999999999999995",
        "411111111111116",
        "41111111111111111111",
        // parted by something else
        "4111.1111.1111.1111",
        "4111/1111/1111/1111",
        "4111    1111    1111    1111",
        "41111111a11111111",
        // the exceptions
        "41111111-1111-4111-8111-111111111111",
        "order:41111111-1111-4111-8111-111111111111-2",
        "注文41111111-1111-4111-8111-111111111111",
        "4111111111111111abcdefabcdefabcd",
        "01K4111111111111111ABCDEFG",
        "30-01-2026 12-34-56",
        "22-04-2026 12345674",
        "+3782 822463 10005",
        "30 56 93 09 02 59 04",
    ] {
        assert_eq!(find(text), None, "{text}");
        assert_eq!(mask(text), text);
    }
}

#[test]
fn an_exception_is_no_wider_than_its_shape() {
    for text in [
        "41111111-1111-4111-8111-111111111111 4111 1111 1111 1111",
        "4111-1111-1111-1111-8111",
        // another version, another variant, something beside it
        "41111111-1111-1111-0111-111111111111",
        "41111111-1111-1111-8111-1111111111110",
        "4111111111111111abcdefabcdefabcde",
        "4111111111111111abcdefABCDEFABCD",
        "4111111111111111EXP1226CVV",
        "2026-11-24 4111 1111 1111 1111",
        "2026 11 24 4111 1111 1111 1111",
        "3528 0000 0000 2000 03 12/30",
        "+4111111111111111",
        "a+378282246310005",
        "+49 1512 3456789, 4111 1111 1111 1111",
    ] {
        assert!(find(text).is_some(), "{text}");
        assert_eq!(find(&mask(text)), None, "{text}");
    }
}

#[test]
fn masked_text_shows_where_a_number_was() {
    for (text, masked) in [
        ("4111 1111 1111 1111", "**** **** **** ****"),
        ("a 4111-1111-1111-1111, b 378282246310005!", "a ****-****-****-****, b ***************!"),
        ("４１１１１１１１１１１１１１１１ é", "**************** é"),
        ("order 20261124 4111 1111 1111 1111", "order 20261124 **** **** **** ****"),
        ("nothing", "nothing"),
    ] {
        assert_eq!(mask(text), masked);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_number_of_every_issuer_is_found_in_every_writing((text, written) in a_writing()) {
        prop_assert!(find(&text).is_some(), "{}", text);
        let masked = mask(&text);
        prop_assert_eq!(find(&masked), None);
        prop_assert!(digits_of(&masked) <= digits_of(&text) - digits_of(&written), "{} of {}", masked, text);
    }

    #[test]
    fn any_text_is_answered(text: String) {
        prop_assert_eq!(find(&text).is_some(), mask(&text) != text);
    }

    #[test]
    fn text_of_little_else_than_digits_is_answered(text in "[0-9٠-٩４ +\\-\u{200d}\u{301}aF]{0,200}") {
        let found = find(&text);
        prop_assert!(found.clone().is_none_or(|at| text.get(at).is_some()));
        let masked = mask(&text);
        prop_assert_eq!(found.is_some(), masked != text);
        prop_assert_eq!(find(&masked), None);
        prop_assert_eq!(masked.chars().count(), text.chars().count());
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014): the same numbers in every run, and fast without optimisation.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next().to_be_bytes()[0])
    }

    fn digits(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'0' + self.next().to_be_bytes()[0] % 10)).collect()
    }
}

const MANY: u64 = 1_000_000;

/// How many of many texts are taken for card numbers, and one of them.
fn alarms(count: u64, seed: u64, mut make: impl FnMut(&mut Random, u64, &mut String)) -> (u64, String) {
    let mut random = Random(seed);
    let (mut text, mut alarms, mut example) = (String::new(), 0, String::new());
    for at in 0..count {
        text.clear();
        make(&mut random, at, &mut text);
        if find(&text).is_some() {
            alarms += 1;
            example.clone_from(&text);
        }
    }
    (alarms, example)
}

const NONE: (u64, String) = (0, String::new());

fn write_uuid(uuid: Uuid, at: u64, text: &mut String) {
    let _ = match at % 4 {
        0 | 1 => write!(text, "{}", uuid.hyphenated()),
        2 => write!(text, "{}", uuid.simple()),
        _ => write!(text, "{:X}", uuid.hyphenated()),
    };
}

#[test]
fn a_random_uuid_is_none() {
    let found = alarms(MANY, 4, |random, at, text| {
        write_uuid(Builder::from_random_bytes(random.bytes()).into_uuid(), at, text);
    });
    assert_eq!(found, NONE);
}

#[test]
fn a_uuid_of_a_moment_is_none() {
    let found = alarms(MANY, 7, |random, at, text| {
        let millis = random.below(1 << 42);
        write_uuid(Builder::from_unix_timestamp_millis(millis, &random.bytes()).into_uuid(), at, text);
    });
    assert_eq!(found, NONE);
}

#[test]
fn a_ulid_is_none() {
    const CROCKFORD: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let found = alarms(MANY, 26, |random, at, text| {
        // half of them from 1970 to 2109
        let high = u128::from(if at % 2 == 0 { random.next() >> 22 << 16 } else { random.next() });
        let ulid = high << 64 | u128::from(random.next());
        text.extend((0..26).rev().map(|at| {
            let digit = usize::try_from(ulid >> (5 * at) & 31).unwrap_or_default();
            char::from(CROCKFORD[digit])
        }));
        if at % 3 == 0 {
            text.make_ascii_lowercase();
        }
    });
    assert_eq!(found, NONE);
}

/// A point in time, in one of the forms in use.
fn write_time(random: &mut Random, form: u64, text: &mut String) {
    const FROM: i64 = 1_000_000_000; // 2001-09-09: in milliseconds it has 13 digits from here on
    const TO: u64 = 2_199_999_999; // 2039-09-18: afterwards microseconds begin as a card of Mir does
    let seconds = FROM.saturating_add_unsigned(random.below(TO - FROM.unsigned_abs()));
    let nanos = random.below(1_000_000_000);
    // what is written as a date may be of any decade
    let moment = OffsetDateTime::UNIX_EPOCH + Duration::seconds(seconds * 3 - FROM * 3);
    let (y, mo, d) = (moment.year(), u8::from(moment.month()), moment.day());
    let (h, mi, s) = (moment.hour(), moment.minute(), moment.second());
    let (millis, micros) = (nanos / 1_000_000, nanos / 1_000);
    let zone = random.below(14);
    let _ = match form {
        0 => write!(text, "{y}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{micros:06}Z"),
        1 => write!(text, "{y}-{mo:02}-{d:02}T{h:02}:{mi:02}:{s:02}.{nanos:09}-{zone:02}:00"),
        2 => write!(text, "{y}-{mo:02}-{d:02}t{h:02}:{mi:02}:{s:02}+{zone:02}:30"),
        3 => write!(text, "{y}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}"),
        4 => write!(text, "{y}-{mo:02}-{d:02} {h:02}:{mi:02}:{s:02}.{millis:03} +{zone:02}00"),
        5 => write!(text, "{y}{mo:02}{d:02}{h:02}{mi:02}{s:02}"),
        6 => write!(text, "{y}{mo:02}{d:02}{h:02}{mi:02}{s:02}{millis:03}"),
        7 => write!(text, "{y}{mo:02}{d:02}T{h:02}{mi:02}{s:02}.{micros:06}Z"),
        8 => write!(text, "{y}{mo:02}{d:02}-{h:02}{mi:02}{s:02}-{micros:06}"),
        9 => write!(text, "{y}-{mo:02}-{d:02} {h:02}-{mi:02}-{s:02}-{millis:03}"),
        10 => write!(text, "{d:02}-{mo:02}-{y} {h:02}-{mi:02}-{s:02}"),
        11 => write!(text, "{mo:02}-{d:02}-{y} {h:02}-{mi:02}-{s:02}-{millis:03}"),
        12 => write!(text, "{d:02}.{mo:02}.{y}, {h:02}:{mi:02}:{s:02}"),
        13 => write!(text, "{seconds}"),
        14 => write!(text, "{seconds}{millis:03}"),
        15 => write!(text, "{seconds}{micros:06}"),
        16 => write!(text, "{seconds}{nanos:09}"),
        _ => write!(text, "{seconds}.{nanos:09}"),
    };
}

#[test]
fn a_point_in_time_is_none() {
    assert_eq!(alarms(MANY, 1970, |random, at, text| write_time(random, at % 18, text)), NONE);
}

#[test]
fn a_number_of_up_to_twelve_digits_is_none() {
    let found = alarms(MANY, 12, |random, at, text| {
        let _ = write!(text, "{}", random.below(10_u64.pow(u32::try_from(at % 12).unwrap_or_default() + 1)));
    });
    assert_eq!(found, NONE);
}

/// What the module's documentation tells, in per mille.
#[test]
fn longer_numbers_are_taken_for_cards_as_often_as_is_said() {
    const TOLD: [(usize, u64); 7] = [(13, 17), (14, 10), (15, 12), (16, 38), (17, 15), (18, 15), (19, 26)];
    const COUNT: u64 = MANY / 5;
    for (length, told) in TOLD {
        let (alarms, _) = alarms(COUNT, 99, |random, _, text| text.push_str(&random.digits(length)));
        let off_by = alarms.abs_diff(told * COUNT / 1000);
        assert!(off_by <= COUNT / 1000, "{length} digits: {alarms} of {COUNT}");
    }
    for safe in ["0", "1", "20", "21", "7"] {
        assert!(ISSUERS.iter().all(|issuer| !issuer.from.to_string().starts_with(safe)), "{safe}");
    }
}

#[test]
fn order_numbers_with_letters_or_the_year_in_front_are_none() {
    let found = alarms(MANY, 8, |random, at, text| {
        let (short, long) = (random.digits(8), random.digits(12));
        let _ = match at % 5 {
            0 => write!(text, "ORD-2026-{short}"),
            1 => write!(text, "INV/2026/11/{long}"),
            2 => write!(text, "2026-11-24-{short}"),
            3 => write!(text, "20261124{short}"),
            _ => write!(text, "{long}A{long}"),
        };
    });
    assert_eq!(found, NONE);
}
