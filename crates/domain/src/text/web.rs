//! URLs: absolute ones, as the WHATWG URL Standard reads them, because a browser will.
//!
//! | part | rule | source |
//! | --- | --- | --- |
//! | the whole | at most 2,048 bytes of UTF-8, in NFC; kept as it was written | RFC 9110, section 4.1, asks for 8,000 at least of servers, not of everything in between |
//! | scheme | `https`, or `http` to the loopback host; then `//` | RFC 9110, section 4.2; URL Standard, section 4.3 |
//! | user | none: what stands before an `@` passes for the host | RFC 9110, section 4.2.4; RFC 3986, section 7.6 |
//! | host | a name of the DNS, at most 63 bytes between two dots and 253 together in its ASCII form, or an IP address | RFC 1035, section 2.3.4; URL Standard, section 3.5 |
//! | loopback | `localhost`, `127.0.0.0/8`, `[::1]` | RFC 6761, section 6.3; RFC 1122, section 3.2.1.3; RFC 4291, section 2.5.3 |
//! | anywhere | no blank and no backslash: browsers drop the one and read the other as a slash | RFC 3986, appendix A; URL Standard, section 4.4 |

use super::{BYTES, Length, TextError, bounded_nfc, characters, forbid};
use idna::uts46::verify_dns_length;
use url::{Host, Url};

pub(super) fn return_url(text: &str, length: Length) -> Result<String, TextError> {
    const WRONG: TextError =
        TextError::Unsupported("must be an absolute https URL, or http to the loopback host");
    let nfc = bounded_nfc(text, length.max_bytes)?;
    length.check(nfc.len(), BYTES)?;
    characters::check(&nfc)?;
    forbid(&nfc, char::is_whitespace, "a URL has no blanks")?;
    forbid(&nfc, |character| character == '\\', "a URL has no backslashes")?;
    let (_, rest) = nfc.split_once("://").ok_or(WRONG)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(TextError::Unsupported("must not hold a user name or password"));
    }
    let url = Url::parse(&nfc).map_err(|_| WRONG)?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) if !verify_dns_length(name, true) => return Err(WRONG),
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(WRONG),
    };
    // a URL without an authority is given what follows as one
    let accepted = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    if accepted && !authority.is_empty() { Ok(nfc) } else { Err(WRONG) }
}

#[cfg(test)]
mod tests {
    use crate::text::ReturnUrl;

    #[test]
    fn pages_to_come_back_to_are_welcome() {
        for good in [
            "https://shop.example/back?order=1#done",
            "HTTPS://Shop.Example:8443/",
            "https://shop.example",
            "https://my_shop.example/@user",
            "https://müller.example/größe?q=é",
            "https://例子.测试/",
            "https://192.0.2.1/",
            "https://[2001:db8::1]/",
            "https://shop.example/{ID}",
            "https://shop.example/%E2%80%AE",
            "http://localhost:3000/x",
            "http://127.0.0.1/",
            "http://127.8.8.8/",
            "http://[::1]:8080/",
        ] {
            assert_eq!(ReturnUrl::parse(good).map(|url| url.as_str().to_owned()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            "",
            "/back",
            "//shop.example/back",
            "shop.example",
            "http://shop.example/",
            "http://localhost.example/",
            "http://127.0.0.1.example/",
            "ftp://x/",
            "javascript:alert(1)",
            "javascript://shop.example/%0Aalert(1)",
            "data:text/html,x",
            "https:shop.example",
            "https:/shop.example",
            "https:///shop.example",
            "https://",
            "https://?q",
            "https://u:p@x/",
            "https://u@x/",
            "https://@x/",
            "https://shop.example@evil.example/",
            "https://x\\@evil.example/",
            "https://x/a b",
            "https://x/\ta",
            "https://x/\u{3000}",
            "https://x/\u{202E}",
            "https://x:99999/",
            "https://exa<mple/",
            "https://a..b/",
            &format!("https://{}.example/", "a".repeat(64)),
        ] {
            assert!(ReturnUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
