//! E-mail addresses: `Mailbox` of RFC 5321, section 4.1.2, as RFC 6531, section 3.3, extends it.
//!
//! | part | rule | source |
//! | --- | --- | --- |
//! | the whole | at most 254 bytes of UTF-8, in NFC | RFC 5321, section 4.5.3.1.3, and erratum 1690 of RFC 3696; RFC 6532, section 3.1 |
//! | before the last `@` | at most 64 bytes | RFC 5321, section 4.5.3.1.1 |
//! | | a dot-string: ``A-Z a-z 0-9 ! # $ % & ' * + - / = ? ^ _ ` { \| } ~``, anything beyond ASCII, single dots between | RFC 5321, section 4.1.2; RFC 6531, section 3.3 |
//! | | no quoted string: no host should have mailboxes that need one | RFC 5321, section 4.1.2, last paragraph |
//! | after it | names of letters, digits and inner hyphens, 1 to 63 bytes each and 253 together, in their ASCII form | RFC 5321, section 2.3.5; RFC 1035, section 2.3.4; UTS #46 with STD3 rules |
//! | | no address in brackets: a merchant's customer has a domain | RFC 5321, section 4.1.3 |
//!
//! No comment, no display name, no blank, and nothing that is refused in other text. An address is kept as it was written: the
//! case before the `@` belongs to its host (RFC 5321, section 2.4).

use super::{BYTES, Length, TextError, bounded_nfc, characters, forbid};
use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// Before the `@`, in bytes.
pub const MAX_LOCAL_PART: usize = 64;

pub(super) fn address(text: &str, length: Length) -> Result<String, TextError> {
    const WRONG: TextError = TextError::Unsupported("is not an e-mail address like name@example.org");
    let nfc = bounded_nfc(text, length.max_bytes)?;
    length.check(nfc.len(), BYTES)?;
    characters::check(&nfc)?;
    forbid(&nfc, char::is_whitespace, "an e-mail address has no blanks")?;
    let (local, domain) = nfc.rsplit_once('@').ok_or(WRONG)?;
    if local.starts_with('"') {
        return Err(TextError::Unsupported("must not be quoted before the @"));
    }
    if domain.starts_with('[') {
        return Err(TextError::Unsupported("must have a domain name, not an address in brackets"));
    }
    let bounds = Length::bytes(0, MAX_LOCAL_PART);
    bounds.check(local.len(), "bytes before the @")?;
    if !local.split('.').all(is_atom) {
        return Err(WRONG);
    }
    let names = Uts46::new();
    match names.to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify) {
        Ok(_) => Ok(nfc),
        Err(_) => Err(TextError::Unsupported(
            "must have a domain name of letters, digits and inner hyphens after the @",
        )),
    }
}

/// `Atom` of RFC 5321, with the `UTF8-non-ascii` of RFC 6531.
fn is_atom(text: &str) -> bool {
    let atext = |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "!#$%&'*+-/=?^_`{|}~".contains(c);
    !text.is_empty() && text.chars().all(atext)
}

#[cfg(test)]
mod tests {
    use crate::text::{Email, TextError};

    #[test]
    fn addresses_of_the_world_are_welcome() {
        let longest = format!("{}@{}.{}.{}", "a".repeat(64), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert_eq!(longest.len(), 254);
        for good in [
            "name@example.org",
            "a@b",
            "first.last+tag@sub.example.co.uk",
            "!#$%&'*+-/=?^_`{|}~@example.org",
            "O’Brien@example.org",
            "Jörg@müller.example",
            "δοκιμή@παράδειγμα.ελ",
            "用户@例子.广告",
            "अजय@डाटा.भारत",
            "квіточка@пошта.укр",
            "ñoñó@example.com",
            "अर्चना@डाटा.भारत",
            "🎁@example.org",
            "name@xn--mller-kva.example",
            "name@r3---sn.example",
            "name@1-2-3.example",
            "می\u{200C}خواهم@example.org",
            &longest,
        ] {
            assert_eq!(Email::parse(good).map(|email| email.as_str().to_owned()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long_label = format!("a@{}.org", "b".repeat(64));
        // 63 bytes as written, more in ASCII
        let long_in_ascii = format!("a@{}.org", "ü".repeat(60));
        for bad in [
            "name",
            "@",
            "name@",
            "@example.org",
            "N <n@example.org>",
            "<n@example.org>",
            "n@example.org (comment)",
            "n(comment)@example.org",
            "a@b@example.org",
            ".a@example.org",
            "a.@example.org",
            "a..b@example.org",
            "a,b@example.org",
            "\"a b\"@example.org",
            "\"ab\"@example.org",
            "a@[127.0.0.1]",
            "a@[IPv6:::1]",
            "a@-b.org",
            "a@b-.org",
            "a@b..c",
            "a@.b",
            "a@b.",
            "a@b_c.org",
            "a@b!.org",
            "a@xn--a.org",
            "a@b\u{200D}c.org",
            &long_label,
            &long_in_ascii,
        ] {
            assert!(
                matches!(Email::parse(bad), Err(TextError::Unsupported(_) | TextError::Forbidden { .. })),
                "{bad}"
            );
        }
    }

    #[test]
    fn an_error_says_what_is_wrong() {
        for (bad, message) in [
            ("", "must have at least 1 bytes; it has 0"),
            ("a b@example.org", "U+0020 at index 1 is not allowed: an e-mail address has no blanks"),
            ("a\u{3000}b@example.org", "U+3000 at index 1 is not allowed: an e-mail address has no blanks"),
            (
                &format!("{}@example.org", "é".repeat(33)),
                "must have at most 64 bytes before the @; it has 66",
            ),
            (&format!("a@{}", "b".repeat(253)), "must have at most 254 bytes; it has 255"),
        ] {
            assert_eq!(Email::parse(bad).unwrap_err().to_string(), message);
        }
        let blank = Email::parse("a\u{202E}b@example.org").unwrap_err().to_string();
        assert!(blank.starts_with("U+202E at index 1"), "{blank}");
    }
}
