//! Work on a payment that must be finished exactly once, whoever finishes it.

use crate::event::Actor;
use crate::id::{MerchantId, OperationId, PaymentId, RefundId};
use crate::payment::Payment;
use crate::refund::Refund;
use crate::trace::TraceContext;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

/// The right to work on an operation until a moment. It is lost by time alone, so a process that died gives it back
/// without doing anything; the token tells the database apart who holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The end by the database's clock, which is also the fencing token: every later lease ends later.
    pub token: OffsetDateTime,
    /// When it was asked for.
    pub taken: Instant,
    /// The end by this process's monotonic clock, which never jumps. Measured from before the lease was asked for, so
    /// it is never later than the database's.
    pub ends: Instant,
}

impl Lease {
    /// A lease for `long` that the database wrote as `token`.
    #[must_use]
    pub fn new(token: OffsetDateTime, taken: Instant, long: Duration) -> Self {
        Self { token, taken, ends: taken.checked_add(long).unwrap_or(taken) }
    }

    /// The same lease, which the database has prolonged: `long` from `asked` on, written as `token`.
    #[must_use]
    pub fn prolonged(&self, token: OffsetDateTime, asked: Instant, long: Duration) -> Self {
        Self { taken: self.taken, ..Self::new(token, asked, long) }
    }

    /// The same lease, for something that must not be done later than `long` after it was taken.
    #[must_use]
    pub fn capped(&self, long: Duration) -> Self {
        let cap = self.taken.checked_add(long).unwrap_or(self.ends);
        Self { ends: self.ends.min(cap), ..*self }
    }

    /// Whether something that may take `long` would end within the lease.
    #[must_use]
    pub fn covers(&self, now: Instant, long: Duration) -> bool {
        now.checked_add(long).is_some_and(|end| end < self.ends)
    }
}

/// What an operation does at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperationKind {
    /// The first charge of a payment.
    Charge,
    /// The capture that the payment's state names.
    Capture,
    /// The cancel that the payment's state names.
    Cancel,
    /// A refund.
    Refund(RefundId),
    /// Nobody asked for it: looks whether the provider has moved on with a payment that waits for the customer or is
    /// only held.
    WatchPayment,
    /// Nobody asked for it: looks whether the bank takes a refund back.
    WatchRefund(RefundId),
}

impl OperationKind {
    /// The name of every kind there is.
    pub const NAMES: [&str; 6] = ["charge", "capture", "cancel", "refund", "watch_payment", "watch_refund"];

    /// The name in the database.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Capture => "capture",
            Self::Cancel => "cancel",
            Self::Refund(_) => "refund",
            Self::WatchPayment => "watch_payment",
            Self::WatchRefund(_) => "watch_refund",
        }
    }

    /// Reads a name, and the refund that some kinds have.
    #[must_use]
    pub fn parse(name: &str, refund: Option<RefundId>) -> Option<Self> {
        match (name, refund) {
            ("charge", None) => Some(Self::Charge),
            ("capture", None) => Some(Self::Capture),
            ("cancel", None) => Some(Self::Cancel),
            ("refund", Some(id)) => Some(Self::Refund(id)),
            ("watch_payment", None) => Some(Self::WatchPayment),
            ("watch_refund", Some(id)) => Some(Self::WatchRefund(id)),
            _ => None,
        }
    }

    /// The refund it is about.
    #[must_use]
    pub const fn refund(self) -> Option<RefundId> {
        match self {
            Self::Refund(id) | Self::WatchRefund(id) => Some(id),
            Self::Charge | Self::Capture | Self::Cancel | Self::WatchPayment => None,
        }
    }
}

/// An operation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its id, and the idempotency key that the provider sees.
    pub id: OperationId,
    /// Whose it is.
    pub merchant_id: MerchantId,
    /// What it is about.
    pub payment_id: PaymentId,
    /// What it does.
    pub kind: OperationKind,
    /// Who asked for it.
    pub actor: Actor,
    /// Where the request that asked for it stands in its trace.
    pub trace: TraceContext,
    /// When it was written, by the database's clock.
    pub created_at: OffsetDateTime,
    /// How far it got.
    pub progress: Progress,
}

/// An operation under a lease, and what it is about as it stood when the lease was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leased {
    /// What is to be done.
    pub operation: Operation,
    /// The right to do it.
    pub lease: Lease,
    /// The payment.
    pub payment: Payment,
    /// The refund, if the operation is about one.
    pub refund: Option<Refund>,
}

/// How far an operation got, as far as it matters for what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Attempts that ended without an outcome.
    pub attempts: u32,
    /// 5xx answers to the operation's key, [`LOOK_UP_AFTER`] at most.
    pub server_errors: u8,
    /// How old the operation is, by the database's clock.
    pub age: Duration,
    /// How long ago a look-up found nothing for the first time after the charge could no longer execute.
    pub absent_for: Option<Duration>,
    /// Whether a contradiction was recorded.
    pub contradicted: bool,
}

/// After so many 5xx for one key the provider's answer is taken as stored, and the outcome is looked up.
pub const LOOK_UP_AFTER: u8 = 3;

/// The times that decide what may be done to an open charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// How long a process owns an operation.
    pub lease: Duration,
    /// No attempt to charge begins later than this after the operation was written.
    pub charge: Duration,
    /// How long the provider remembers a key.
    pub key_retention: Duration,
    /// How long one attempt at the provider takes at most.
    pub attempt: Duration,
    /// How long a payment waits for the customer.
    pub action: Duration,
}

impl Windows {
    /// The lease within which the charge may be sent: an attempt that begins in time may end after the window.
    #[must_use]
    pub fn charging_lease(&self, lease: &Lease, progress: &Progress) -> Lease {
        lease.capped(self.charge.saturating_sub(progress.age).saturating_add(self.attempt))
    }
}

/// The next thing to do about an open charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Send the charge, the first time or again: the provider's key makes that one charge.
    Send,
    /// Read the intent that is known.
    Retrieve,
    /// Search it; finding nothing proves nothing, because the charge may still arrive.
    LookUp,
    /// Take the key, so that the charge can never execute; then search it if it already had.
    Close,
    /// The provider may have forgotten the key, and whatever was sent has arrived long ago: searching decides.
    Decide,
}

/// What to do next about an open charge.
#[must_use]
pub fn next_step(progress: &Progress, intent_known: bool, windows: &Windows) -> Step {
    // a lease of margin: a closing request that is on its way when the provider forgets the key would find it free
    let forgotten = progress.age.saturating_add(windows.lease) >= windows.key_retention;
    if intent_known {
        Step::Retrieve
    } else if forgotten {
        Step::Decide
    } else if progress.age >= windows.charge {
        Step::Close
    } else if progress.server_errors >= LOOK_UP_AFTER {
        Step::LookUp
    } else {
        Step::Send
    }
}

/// Whether a charge that can no longer execute, and that a search just did not find, may be given up: it was not
/// found once before, and that was at least a lease ago, so a search that was itself late cannot be both.
#[must_use]
pub fn is_absent(progress: &Progress, windows: &Windows) -> bool {
    progress.absent_for.is_some_and(|since| since >= windows.lease)
}

/// Whether a capture, cancel or refund looks what the provider has before it is sent again: its key brings a stored
/// error for ever, or the provider may have forgotten the key, and the same request would be a second one.
#[must_use]
pub fn looks_first(progress: &Progress, windows: &Windows) -> bool {
    let forgotten = progress.age.saturating_add(windows.lease) >= windows.key_retention;
    forgotten || progress.server_errors >= LOOK_UP_AFTER
}

/// How long a refund that succeeded is watched: a bank that cannot place the money returns it within this (Stripe,
/// "Refunds", failed refunds: up to 30 days).
pub const REFUND_WATCHED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long to rest before asking again about what somebody is about to end: a customer who confirms, a provider that
/// works on it. The longer it took already, the longer.
#[must_use]
pub fn rest_while_waiting(age: Duration) -> Duration {
    (age / 8).clamp(Duration::from_millis(500), Duration::from_secs(30))
}

/// How long to rest before looking again at what may change in days: a hold that expires, a refund that comes back.
/// That is about forty looks in a week.
#[must_use]
pub fn rest_of_watch(age: Duration) -> Duration {
    (age / 2).clamp(Duration::from_secs(1), Duration::from_secs(12 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WINDOWS: Windows = Windows {
        lease: Duration::from_secs(15),
        charge: Duration::from_secs(30 * 60),
        key_retention: Duration::from_secs(24 * 3600),
        attempt: Duration::from_secs(5),
        action: Duration::from_secs(3600),
    };

    fn step(age: u64, server_errors: u8, intent_known: bool) -> Step {
        let progress = Progress { age: Duration::from_secs(age), server_errors, ..Progress::default() };
        next_step(&progress, intent_known, &WINDOWS)
    }

    #[test]
    fn a_charge_is_sent_until_its_window_ends() {
        assert_eq!(step(0, 0, false), Step::Send);
        assert_eq!(step(1799, 2, false), Step::Send);
        assert_eq!(step(1800, 0, false), Step::Close);
    }

    #[test]
    fn three_server_errors_are_taken_as_stored() {
        assert_eq!(step(1, 3, false), Step::LookUp);
        assert_eq!(step(1800, 3, false), Step::Close, "closing also ends what was looked up in vain");
    }

    #[test]
    fn a_known_intent_is_only_read() {
        assert_eq!(step(1, 0, true), Step::Retrieve);
        assert_eq!(step(48 * 3600, 3, true), Step::Retrieve);
    }

    #[test]
    fn a_key_that_may_be_forgotten_is_never_posted_again() {
        assert_eq!(step(24 * 3600 - 16, 0, false), Step::Close);
        assert_eq!(step(24 * 3600 - 15, 0, false), Step::Decide);
    }

    #[test]
    fn a_key_that_no_longer_helps_is_looked_behind() {
        let looks = |age, server_errors| {
            let progress = Progress { age: Duration::from_secs(age), server_errors, ..Progress::default() };
            looks_first(&progress, &WINDOWS)
        };
        assert!(!looks(3600, 2));
        assert!(looks(1, 3));
        assert!(!looks(24 * 3600 - 16, 0));
        assert!(looks(24 * 3600 - 15, 0));
    }

    #[test]
    fn a_watch_rests_longer_the_longer_nothing_happens() {
        let seconds = Duration::from_secs;
        assert_eq!(rest_while_waiting(seconds(0)), Duration::from_millis(500));
        assert_eq!(rest_while_waiting(seconds(80)), seconds(10));
        assert_eq!(rest_while_waiting(seconds(3600)), seconds(30));
        assert_eq!(rest_of_watch(seconds(0)), seconds(1));
        assert_eq!(rest_of_watch(REFUND_WATCHED_FOR), seconds(12 * 3600));
        let (mut age, mut looks) = (seconds(0), 0);
        while age < seconds(7 * 24 * 3600) {
            age += rest_of_watch(age);
            looks += 1;
        }
        assert!((30..=45).contains(&looks), "{looks}");
    }

    #[test]
    fn kinds_are_read_back() {
        let id = RefundId(uuid::Uuid::nil());
        for kind in [
            OperationKind::Charge,
            OperationKind::Capture,
            OperationKind::Cancel,
            OperationKind::Refund(id),
            OperationKind::WatchPayment,
            OperationKind::WatchRefund(id),
        ] {
            assert_eq!(OperationKind::parse(kind.name(), kind.refund()), Some(kind));
            assert!(OperationKind::NAMES.contains(&kind.name()));
        }
        assert_eq!(OperationKind::parse("refund", None), None);
        assert_eq!(OperationKind::parse("charge", Some(id)), None);
    }

    #[test]
    fn absence_takes_two_searches_a_lease_apart() {
        let absent = |seconds: Option<u64>| {
            let progress = Progress { absent_for: seconds.map(Duration::from_secs), ..Progress::default() };
            is_absent(&progress, &WINDOWS)
        };
        assert!(!absent(None));
        assert!(!absent(Some(14)));
        assert!(absent(Some(15)));
    }

    #[test]
    fn a_lease_covers_what_ends_before_it() {
        let now = Instant::now();
        let lease = Lease::new(OffsetDateTime::UNIX_EPOCH, now, Duration::from_secs(10));
        assert!(lease.covers(now, Duration::from_secs(9)));
        assert!(!lease.covers(now, Duration::from_secs(10)));
        assert!(!lease.covers(now, Duration::MAX));
    }

    #[test]
    fn no_attempt_begins_after_the_window_however_long_the_lease() {
        let now = Instant::now();
        let lease = Lease::new(OffsetDateTime::UNIX_EPOCH, now, WINDOWS.lease);
        let begins = |age: u64, after: u64| {
            let progress = Progress { age: Duration::from_secs(age), ..Progress::default() };
            let lease = WINDOWS.charging_lease(&lease, &progress);
            lease.covers(now + Duration::from_secs(after), WINDOWS.attempt)
        };
        assert!(begins(0, 9));
        assert!(!begins(0, 10), "an attempt must end within the lease");
        assert!(begins(1795, 4));
        assert!(!begins(1795, 5), "the window has ended");
    }

    proptest! {
        #[test]
        fn nothing_is_sent_outside_the_window(age in 0..200_000u64, errors in 0..5u8, known: bool) {
            if age >= 1800 {
                prop_assert_ne!(step(age, errors, known), Step::Send);
            }
        }
    }
}
