//! Card numbers in text, so that they can be refused before anything keeps them (PCI DSS 4.0, requirement 3), and masked
//! where text may be seen.
//!
//! # What is one
//!
//! 13 to 19 decimal digits of any script (Unicode General_Category Nd, full-width ones among them) that begin as the numbers
//! of an issuer do ([`issuers`]), are as long as its numbers are, and end with the right check digit (ISO/IEC 7812-1, annex
//! B, "Luhn"). They may be written in groups, with up to three blanks, hyphens, dashes or minus signs between two groups.
//! A number begins and ends where a group does, and letters may stand beside it: `card4111111111111111x` holds one, an
//! unbroken run of twenty digits holds none. Marks and characters that cannot be seen do not part digits.
//!
//! # What is none, though its digits would do
//!
//! | what | its shape | why no card number looks like it |
//! | --- | --- | --- |
//! | UUID (RFC 9562) | 8-4-4-4-12 hexadecimal digits, version 1 to 8, variant 8 to b, nothing beside it | five groups, 32 digits |
//! | trace id, digest, cursor | a word of 32, 40, 48, 56, 64, 96 or 128 hexadecimal digits, letters in one case | it has letters among its digits |
//! | ULID | a word of 26 characters of Crockford's base 32, the first 0 to 7, not 13 digits in front | as above; 13 digits in front are rather a number with something behind it |
//! | date | groups of 4-2-2 or 2-2-4 digits with a year from 1900 to 2199, a month and a day | no network prints groups of 2-2 |
//! | telephone number (E.164) | `+` directly in front, at most 15 digits | nobody writes `+` in front of a card number |
//! | time, telephone number | 13 or 14 digits of which a group but the last has one or two digits | these are printed in groups of three and more; one digit each is found nevertheless |
//!
//! # How often it is wrong
//!
//! Never on 1,000,000 UUIDs, ULIDs, points in time and numbers of up to 12 digits each. Times of one number are those from
//! September 2001 to September 2039 in seconds, milli-, micro- or nanoseconds: before and after they begin as the numbers of
//! issuers do. Longer numbers that are no cards cannot be told from those that are: one of ten ends with the right check
//! digit by chance, and it depends on its length how many issuers begin as it does. Of random numbers are refused:
//!
//! | digits | 13 | 14 | 15 | 16 | 17 | 18 | 19 |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | refused | 1.7 % | 1.0 % | 1.2 % | 3.8 % | 1.5 % | 1.5 % | 2.6 % |
//!
//! An unbroken number that begins with 0, 1, 20, 21 or 7 is never refused, so none that begins with the year, in whatever form
//! (`ORD-2026-01234567`, `2026112400001234`); and any number is safe that has a letter after every twelve digits.

pub mod issuers;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};
use issuers::{MAX_DIGITS, MIN_DIGITS, PREFIX_DIGITS, issues};
use std::borrow::Cow;
use std::ops::{Range, RangeInclusive};
use std::sync::LazyLock;

/// Two groups of one number have at most so many separators between them.
const MAX_SEPARATORS: usize = 3;
/// The most digits of a telephone number (ITU-T E.164, section 6).
const MAX_PHONE_DIGITS: usize = 15;
/// How many hexadecimal digits digests and ids have.
const HEX_LENGTHS: [usize; 7] = [32, 40, 48, 56, 64, 96, 128];

/// The first card number in a text, as a range of bytes.
///
/// ```
/// use domain::card;
/// assert_eq!(card::find("order 20261124 4111 1111 1111 1111"), Some(15..34));
/// assert_eq!(card::find("4111 1111 1111 1112"), None);
/// ```
#[must_use]
pub fn find(text: &str) -> Option<Range<usize>> {
    let digits = Digits::of(text)?;
    (0..digits.groups.len()).find_map(|first| {
        let last = digits.card_from(first)?;
        Some(digits.groups.get(first)?.bytes.start..digits.groups.get(last)?.bytes.end)
    })
}

/// A text without its card numbers: each of their digits is a `*`, and none is left. What is returned holds none.
///
/// ```
/// use domain::card;
/// assert_eq!(card::mask("4111 1111 1111 1111 by 12/30"), "**** **** **** **** by 12/30");
/// ```
#[must_use]
pub fn mask(text: &str) -> Cow<'_, str> {
    let Some(digits) = Digits::of(text) else { return Cow::Borrowed(text) };
    let mut masked = String::new();
    let (mut kept, mut to_mask) = (0, 0);
    for (at, group) in digits.groups.iter().enumerate() {
        // numbers may overlap; then all of them are masked
        to_mask = digits.card_from(at).map_or(to_mask, |last| to_mask.max(last.saturating_add(1)));
        if at < to_mask {
            masked.push_str(text.get(kept..group.bytes.start).unwrap_or_default());
            let written = text.get(group.bytes.clone()).unwrap_or_default().chars();
            masked.extend(written.map(|c| if matches!(kind(c), Kind::Digit(_)) { '*' } else { c }));
            kept = group.bytes.end;
        }
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(text.get(kept..).unwrap_or_default());
    Cow::Owned(masked)
}

/// What a character is to a number.
enum Kind {
    Digit(u8),
    Separator,
    /// It is not seen, or only together with what it stands on.
    Transparent,
    Other,
}

fn kind(character: char) -> Kind {
    if character.is_ascii() {
        return match character {
            '0'..='9' => Kind::Digit(ascii_value(character)),
            '-' => Kind::Separator,
            _ if character.is_ascii_whitespace() => Kind::Separator,
            _ => Kind::Other,
        };
    }
    if character == '\u{2212}' {
        return Kind::Separator;
    }
    match CodePointMapData::<GeneralCategory>::new().get(character) {
        GeneralCategory::DecimalNumber => Kind::Digit(value(character)),
        GeneralCategory::DashPunctuation
        | GeneralCategory::SpaceSeparator
        | GeneralCategory::LineSeparator
        | GeneralCategory::ParagraphSeparator => Kind::Separator,
        GeneralCategory::NonspacingMark | GeneralCategory::EnclosingMark | GeneralCategory::Format => {
            Kind::Transparent
        }
        _ if CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character) => Kind::Transparent,
        _ => Kind::Other,
    }
}

fn ascii_value(digit: char) -> u8 {
    u8::try_from(digit).unwrap_or(b'0').saturating_sub(b'0')
}

/// What a digit of any script counts. Digits come in runs of ten, from 0 to 9 (Unicode character encoding stability
/// policies, "Numeric values"), and some runs touch.
fn value(digit: char) -> u8 {
    static RUNS: LazyLock<Vec<RangeInclusive<u32>>> = LazyLock::new(|| {
        let categories = CodePointMapData::<GeneralCategory>::new();
        categories.iter_ranges_for_value(GeneralCategory::DecimalNumber).collect()
    });
    let code = u32::from(digit);
    let run = RUNS.partition_point(|run| *run.end() < code);
    let zero = RUNS.get(run).map_or(code, |run| *run.start());
    u8::try_from(code.saturating_sub(zero) % 10).unwrap_or_default()
}

/// Whether enough digits follow each other, told without a look at characters: every request passes through here, and most
/// text ends here.
fn may_hold_a_number(text: &str) -> bool {
    let mut halves = 0_usize;
    text.bytes().any(|byte| {
        halves = match byte {
            b'0'..=b'9' => halves.saturating_add(2),
            // a digit of any other script has two bytes or more
            0x80.. => halves.saturating_add(1),
            b'-' => halves,
            _ if byte.is_ascii_whitespace() => halves,
            _ => 0,
        };
        halves >= 2 * MIN_DIGITS
    })
}

/// Digits with nothing that can be seen between them.
struct Group {
    /// Where they stand in the text.
    bytes: Range<usize>,
    /// Where they stand among all digits.
    digits: Range<usize>,
    /// How many separators and nothing else are between it and the group before; `None` if there is something else.
    separators: Option<usize>,
}

/// The digits of a text.
struct Digits<'t> {
    text: &'t str,
    values: Vec<u8>,
    groups: Vec<Group>,
}

impl<'t> Digits<'t> {
    /// `None` if no number can be there.
    fn of(text: &'t str) -> Option<Self> {
        if !may_hold_a_number(text) {
            return None;
        }
        let mut digits = Self { text, values: Vec::new(), groups: Vec::new() };
        let mut open = false;
        let mut separators = None;
        for (at, character) in text.char_indices() {
            match kind(character) {
                Kind::Digit(value) => {
                    digits.push(value, at..at.saturating_add(character.len_utf8()), open, separators);
                    (open, separators) = (true, Some(0));
                }
                Kind::Separator => {
                    open = false;
                    separators = separators.map(|count: usize| count.saturating_add(1));
                }
                Kind::Transparent => {}
                Kind::Other => (open, separators) = (false, None),
            }
        }
        Some(digits)
    }

    fn push(&mut self, value: u8, bytes: Range<usize>, open: bool, separators: Option<usize>) {
        let at = self.values.len();
        self.values.push(value);
        let end = self.values.len();
        match self.groups.last_mut() {
            Some(group) if open => (group.bytes.end, group.digits.end) = (bytes.end, end),
            _ => self.groups.push(Group { bytes, digits: at..end, separators }),
        }
    }

    /// The last group of the longest card number that begins with this one.
    fn card_from(&self, first: usize) -> Option<usize> {
        let groups = self.groups.get(first..)?;
        let start = groups.first()?.digits.start;
        let prefix = self.number(start..start.saturating_add(PREFIX_DIGITS))?;
        let mut longest = None;
        let mut luhn = Luhn::default();
        for (group, last) in groups.iter().zip(first..) {
            if last > first && group.separators.is_none_or(|count| count > MAX_SEPARATORS) {
                break;
            }
            let length = group.digits.end.saturating_sub(start);
            if length > MAX_DIGITS {
                break;
            }
            luhn.extend(self.values.get(group.digits.clone()).unwrap_or_default());
            if length >= MIN_DIGITS
                && luhn.is_right()
                && issues(prefix, length)
                && !self.is_something_else(first, last, length)
            {
                longest = Some(last);
            }
        }
        longest
    }

    fn number(&self, digits: Range<usize>) -> Option<u32> {
        let digits = self.values.get(digits)?.iter();
        Some(digits.fold(0, |number: u32, digit| number.wrapping_mul(10).wrapping_add(u32::from(*digit))))
    }

    /// The exceptions: see the table above.
    fn is_something_else(&self, first: usize, last: usize, length: usize) -> bool {
        let groups = self.groups.get(first..=last).unwrap_or_default();
        self.is_phone(first, length)
            || is_broken_up(groups, length)
            || self.holds_date(first, last)
            || groups.iter().any(|group| self.is_in_identifier(group))
    }

    fn is_phone(&self, first: usize, length: usize) -> bool {
        let before = self.groups.get(first).and_then(|group| self.text.get(..group.bytes.start));
        let before = before.and_then(|before| before.strip_suffix('+'));
        // what is glued to a word is rather the blank of a form than the sign of a telephone number
        length <= MAX_PHONE_DIGITS && before.is_some_and(|before| !before.ends_with(char::is_alphanumeric))
    }

    /// Whether a date is among these groups, or ends among them. One that only begins there is a month of expiry behind
    /// a number.
    fn holds_date(&self, first: usize, last: usize) -> bool {
        let whole = first..=last.saturating_sub(2);
        let ends = first.saturating_sub(2)..first;
        ends.chain(whole).any(|at| self.is_date(at))
    }

    fn is_date(&self, first: usize) -> bool {
        let Some([a, b, c]) = self.groups.get(first..first.saturating_add(3)) else { return false };
        let written =
            [a, b, c].map(|group| (group.digits.len(), self.number(group.digits.clone()).unwrap_or(0)));
        let day_and_month =
            |a: u32, b: u32| (1..=31).contains(&a) && (1..=31).contains(&b) && (a <= 12 || b <= 12);
        let joined = b.separators == Some(1) && c.separators == Some(1);
        joined
            && match written {
                [(4, year), (2, a), (2, b)] | [(2, a), (2, b), (4, year)] => {
                    (1900..=2199).contains(&year) && day_and_month(a, b)
                }
                _ => false,
            }
    }

    /// Whether a group is part of a UUID, ULID, trace id or digest.
    fn is_in_identifier(&self, group: &Group) -> bool {
        let text = self.text.as_bytes();
        let longest = HEX_LENGTHS.into_iter().max().unwrap_or_default();
        // a longer word is none, and how long it is does not matter
        let before = text.get(..group.bytes.start).unwrap_or_default().iter().rev().take(longest);
        let after = text.get(group.bytes.end..).unwrap_or_default().iter().take(longest);
        let start =
            group.bytes.start.saturating_sub(before.take_while(|b| b.is_ascii_alphanumeric()).count());
        let end = group.bytes.end.saturating_add(after.take_while(|b| b.is_ascii_alphanumeric()).count());
        let word = text.get(start..end).unwrap_or_default();
        if is_hex_identifier(word) || is_ulid(word) {
            return true;
        }
        let word_starts = |at: usize| {
            at.checked_sub(1).and_then(|at| text.get(at)).is_none_or(|b| !b.is_ascii_alphanumeric())
        };
        (group.bytes.end.saturating_sub(UUID_LENGTH)..=start).any(|from| {
            let to = from.saturating_add(UUID_LENGTH);
            word_starts(from)
                && text.get(from..to).is_some_and(is_uuid)
                && text.get(to).is_none_or(|b| !b.is_ascii_alphanumeric())
        })
    }
}

fn is_hex_identifier(word: &[u8]) -> bool {
    let lower = word.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let upper = word.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    HEX_LENGTHS.contains(&word.len()) && (lower || upper)
}

fn is_ulid(word: &[u8]) -> bool {
    let base32 = |b: &u8| b.is_ascii_alphanumeric() && !b"ILOU".contains(&b.to_ascii_uppercase());
    word.len() == 26
        && matches!(word.first(), Some(b'0'..=b'7'))
        && word.iter().all(base32)
        && !word.iter().take(MIN_DIGITS).all(u8::is_ascii_digit)
}

const UUID_LENGTH: usize = 36;

fn is_uuid(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        14 => matches!(byte, b'1'..=b'8'),
        19 => matches!(byte, b'8' | b'9' | b'a' | b'b' | b'A' | b'B'),
        _ => byte.is_ascii_hexdigit(),
    })
}

/// Whether so few digits are written as no card's are.
fn is_broken_up(groups: &[Group], length: usize) -> bool {
    let but_the_last = groups.split_last().map_or(&[][..], |(_, rest)| rest);
    let single = groups.iter().all(|group| group.digits.len() == 1);
    length <= 14 && !single && but_the_last.iter().any(|group| group.digits.len() < 3)
}

/// The check digit of a number that grows (ISO/IEC 7812-1, annex B). Every second digit counts double, from the last but one
/// on, and which these are is known only at the end: so both sums are kept.
#[derive(Default)]
struct Luhn {
    /// The sum if the number ends here ...
    ends: u32,
    /// ... and if one more digit follows.
    goes_on: u32,
}

impl Luhn {
    fn extend(&mut self, digits: &[u8]) {
        for digit in digits.iter().copied().map(u32::from) {
            let doubled = digit.wrapping_mul(2);
            let doubled = if doubled > 9 { doubled.wrapping_sub(9) } else { doubled };
            (self.ends, self.goes_on) = (self.goes_on.wrapping_add(digit), self.ends.wrapping_add(doubled));
        }
    }

    const fn is_right(&self) -> bool {
        self.ends.is_multiple_of(10)
    }
}
