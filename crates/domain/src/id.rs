//! Identifiers: UUIDv7 (RFC 9562, section 5.7), so that ids sort by creation time, in one type per meaning.

use time::OffsetDateTime;
use uuid::{Timestamp, Uuid};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id whose first 48 bits are the milliseconds of `at`.
            #[must_use]
            pub fn at(at: OffsetDateTime) -> Self {
                Self(v7(at))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A merchant: the tenant that owns keys, payments and everything below them.
    MerchantId
);
id!(
    /// An API key's public name. The secret is never an id.
    KeyId
);
id!(
    /// A payment.
    PaymentId
);
id!(
    /// A refund.
    RefundId
);
id!(
    /// One piece of work at the provider. Its text is the idempotency key that the provider sees, at every attempt.
    OperationId
);
id!(
    /// An entry of the audit trail.
    EventId
);

/// A W3C trace id: 16 bytes, not all zero. It ties an answer, its log lines and its events together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceId(Uuid);

impl TraceId {
    /// A random one.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads 32 lower-case hex digits that are not all zero (W3C Trace Context, section 3.2.2.3).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let lower_hex = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let id = lower_hex.then(|| Uuid::try_parse(text).ok()).flatten()?;
        Self::from_uuid(id)
    }

    /// Takes 16 bytes that are not all zero.
    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Option<Self> {
        if id.is_nil() { None } else { Some(Self(id)) }
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.simple().fmt(f)
    }
}

/// The 12 bits behind the milliseconds are their fraction (RFC 9562, section 6.2, method 3): ids of one millisecond sort by
/// time as well.
fn v7(at: OffsetDateTime) -> Uuid {
    const MILLISECOND: u32 = 1_000_000;
    let seconds = u64::try_from(at.unix_timestamp()).unwrap_or(0);
    let fraction = u128::from(at.nanosecond() % MILLISECOND) * 4096 / u128::from(MILLISECOND);
    Uuid::new_v7(Timestamp::from_unix_time(seconds, at.nanosecond(), fraction, 12))
}

/// The lowest UUIDv7 of the millisecond of `at`: where a range of ids by time begins.
#[must_use]
pub fn lowest_at(at: OffsetDateTime) -> Uuid {
    let [a, b, c, d, e, f, ..] = *v7(at).as_bytes();
    Uuid::from_bytes([a, b, c, d, e, f, 0x70, 0, 0x80, 0, 0, 0, 0, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;

    #[test]
    fn ids_sort_by_the_time_they_were_made_at() {
        let now = OffsetDateTime::from_unix_timestamp(1_800_000_000).unwrap();
        let earlier = PaymentId::at(now);
        let later = PaymentId::at(now + Duration::milliseconds(1));
        assert!(earlier < later);
        assert_ne!(earlier, PaymentId::at(now), "two ids of one instant differ");
        for microseconds in 1..999 {
            let before = PaymentId::at(now + Duration::microseconds(microseconds));
            assert!(before < PaymentId::at(now + Duration::microseconds(microseconds + 1)), "{microseconds}");
        }
    }

    #[test]
    fn trace_ids_are_read_as_the_standard_has_them() {
        let good = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(TraceId::parse(good).unwrap().to_string(), good);
        for bad in ["", "4bf9", "00000000000000000000000000000000", "4BF92F3577B34DA6A3CE929D0E0E4736"] {
            assert_eq!(TraceId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_range_begins_at_its_millisecond() {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_800_000_000_123_456_789).unwrap();
        assert!(lowest_at(at) <= PaymentId::at(at).0);
        assert!(lowest_at(at) > PaymentId::at(at - Duration::milliseconds(1)).0);
    }
}
