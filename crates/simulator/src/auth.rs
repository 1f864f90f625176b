//! Who may call (Stripe API: authentication). The control surface asks nobody.

use axum::http::{HeaderMap, header::AUTHORIZATION};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::objects::ApiError;

/// Lets a request pass or answers 401 or 403. With `only` set, that very key is accepted and no other.
pub(crate) fn check(headers: &HeaderMap, only: Option<&str>) -> Result<(), ApiError> {
    let Some(key) = api_key(headers) else {
        return Err(ApiError::unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using \
             Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        ));
    };
    let accepted = match only {
        Some(only) => key == only,
        None => key.starts_with("sk_test_") || key.starts_with("rk_test_"),
    };
    if !accepted {
        let message = format!("Invalid API Key provided: {}", masked(&key));
        return Err(ApiError::unauthorized(message));
    }
    if only.is_none() && key.starts_with("rk_test_") {
        let message = format!(
            "The provided key '{}' does not have the required permissions for this endpoint.",
            masked(&key)
        );
        return Err(ApiError::forbidden(message));
    }
    Ok(())
}

/// The key of `Bearer KEY`, or of `Basic` with the key as user name.
fn api_key(headers: &HeaderMap) -> Option<String> {
    let (scheme, credentials) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let key = if scheme.eq_ignore_ascii_case("bearer") {
        credentials.trim().to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
        decoded.split(':').next()?.to_owned()
    } else {
        return None;
    };
    (!key.is_empty()).then_some(key)
}

/// Enough of a key to recognise it: its kind and its last four characters.
fn masked(key: &str) -> String {
    let hidden = key.chars().count().saturating_sub(4);
    key.chars()
        .enumerate()
        .map(|(place, letter)| if (8..hidden).contains(&place) { '*' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn status(authorization: Option<&str>, only: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        check(&headers, only).map_or_else(|error| error.status, |()| 200)
    }

    #[test]
    fn test_keys_pass_in_both_schemes() {
        assert_eq!(status(Some("Bearer sk_test_1"), None), 200);
        assert_eq!(status(Some(&format!("Basic {}", STANDARD.encode("sk_test_1:"))), None), 200);
        assert_eq!(status(Some(&format!("Basic {}", STANDARD.encode("other:sk_test_1"))), None), 401);
        assert_eq!(status(Some("Bearer sk_live_1"), None), 401);
        assert_eq!(status(Some("Bearer rk_test_1"), None), 403);
        assert_eq!(status(None, None), 401);
    }

    #[test]
    fn a_chosen_key_is_the_only_one() {
        assert_eq!(status(Some("Bearer sk_test_1"), Some("sk_test_2")), 401);
        assert_eq!(status(Some("Bearer sk_test_2"), Some("sk_test_2")), 200);
    }

    #[test]
    fn a_refused_key_is_not_shown() {
        assert_eq!(masked("sk_live_0123456789abcd"), "sk_live_**********abcd");
    }
}
