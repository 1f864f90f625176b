//! Who asks: `Authorization: Bearer <api key>` (RFC 6750). Every cause of a 401 is answered alike.

use crate::app::merchants::ApiKey;
use crate::middleware::Next;
use crate::problem::{Code, Problem};
use crate::state::App;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use domain::id::{KeyId, MerchantId};
use persistence::merchants::{Scope, ValidKey};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// How long a key is taken as valid without asking the database. A revoked key is dead after this.
pub const REMEMBERED_FOR: Duration = Duration::from_secs(3);
/// How many keys are remembered.
const REMEMBERED: u64 = 10_000;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// Whose data it may see.
    pub merchant_id: MerchantId,
    /// The key it used.
    pub key_id: KeyId,
}

/// Keys that were valid a moment ago, so that a payment costs no query for its key.
pub struct KeyCache(moka::future::Cache<(MerchantId, [u8; 32]), ValidKey>);

impl Default for KeyCache {
    fn default() -> Self {
        Self(moka::future::Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build())
    }
}

/// The layer.
///
/// # Errors
/// 401 without a valid key, 403 for a key that may not do this.
pub async fn authenticate(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: impl Next,
) -> Result<Response, Problem> {
    let key = bearer(request.headers()).and_then(ApiKey::parse).ok_or_else(unauthorized)?;
    let id = (key.merchant_id(), key.secret_hash());
    let valid = match app.keys.0.get(&id).await {
        Some(valid) => valid,
        None => {
            // one look for all that ask at once; unknown keys are not remembered: there are more of them than memory
            let looked_up = app.keys.0.try_get_with(id, async {
                let _place = app.admission.look_up_key()?;
                app.store.find_key(id.0, &id.1).await?.ok_or_else(unauthorized)
            });
            looked_up.await.map_err(|problem| Problem::clone(&problem))?
        }
    };
    if valid.expires_at.is_some_and(|end| end <= OffsetDateTime::now_utc()) {
        return Err(unauthorized());
    }
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if valid.scope == Scope::Read && !reads {
        return Err(Problem::new(Code::Forbidden, "This key may only read. Use one with the scope write."));
    }
    request.extensions_mut().insert(Caller { merchant_id: id.0, key_id: valid.key_id });
    Ok(next.run(request).await)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let (scheme, token) = line.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

fn unauthorized() -> Problem {
    Problem::new(Code::Unauthorized, "Send a valid API key as Authorization: Bearer <key>.")
        .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}
