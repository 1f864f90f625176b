//! A merchant's own limit, with the `RateLimit` headers (IETF draft-ietf-httpapi-ratelimit-headers).

use crate::middleware::Next;
use crate::middleware::auth::Caller;
use crate::problem::{Code, Problem};
use crate::state::App;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use domain::id::MerchantId;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::sync::Arc;

type Limiter =
    RateLimiter<MerchantId, DefaultKeyedStateStore<MerchantId>, DefaultClock, StateInformationMiddleware>;

/// So many requests per second, per merchant and process.
pub struct RateLimit {
    limiter: Limiter,
    per_second: NonZeroU32,
}

impl RateLimit {
    /// A limit; `None` for 0, which is off.
    #[must_use]
    pub fn per_second(requests: u32) -> Option<Self> {
        let per_second = NonZeroU32::new(requests)?;
        let limiter = RateLimiter::dashmap(Quota::per_second(per_second)).with_middleware();
        Some(Self { limiter, per_second })
    }

    /// Forgets merchants that have their whole limit again.
    pub fn sweep(&self) {
        self.limiter.retain_recent();
    }

    fn describe(&self, headers: &mut HeaderMap, remaining: u32, seconds: u64) {
        const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
        const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
        let policy = HeaderValue::try_from(format!("\"merchant\";q={};w=1", self.per_second));
        let limit = HeaderValue::try_from(format!("\"merchant\";r={remaining};t={seconds}"));
        if let (Ok(policy), Ok(limit)) = (policy, limit) {
            headers.insert(POLICY, policy);
            headers.insert(LIMIT, limit);
        }
    }
}

/// The layer.
pub async fn limit(State(app): State<Arc<App>>, request: Request, next: impl Next) -> Response {
    let (Some(limit), Some(caller)) = (&app.rate_limit, request.extensions().get::<Caller>()) else {
        return next.run(request).await;
    };
    match limit.limiter.check_key(&caller.merchant_id) {
        Ok(state) => {
            let mut response = next.run(request).await;
            limit.describe(response.headers_mut(), state.remaining_burst_capacity(), 1);
            response
        }
        Err(denied) => {
            let wait = denied.wait_time_from(DefaultClock::default().now());
            let seconds = wait.as_secs().saturating_add(1);
            let detail = "This merchant's limit of requests per second is reached.";
            let retry_after = u32::try_from(seconds).unwrap_or(u32::MAX);
            let mut response = Problem::passing(Code::RateLimited, detail, retry_after).into_response();
            limit.describe(response.headers_mut(), 0, seconds);
            response
        }
    }
}
