//! Faults that a build can be asked for, to prove that they are survived or noticed: the process ends or stands still at
//! a point, or one rule is not kept.
//!
//! They exist in builds with the feature `faults` alone, which no release can have. There the variable `FAILPOINTS` says
//! what happens where, in the language of the crate `fail`:
//!
//! ```text
//! FAILPOINTS="before settle payment=1*off->1*return(abort)"    dies before the second settlement
//! FAILPOINTS="after /v1/refunds=1*return(stop)"                stands still, as if paused, once the refund was answered
//! FAILPOINTS="lease ignored=return"                            is the program that somebody wrote who forgot the lease
//! ```
//!
//! Without the feature, [`point`] is nothing and [`planted`] is false.

#[cfg(all(feature = "faults", not(debug_assertions)))]
compile_error!("`faults` is for proofs: a release must not have points at which it can be made to fail");

/// A rule that is not kept: what a careful person writes who has not met the case yet. Each is caught by the checker in
/// one run (`drill bugs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// No answer in time counts as a no. The charge that was executed all the same belongs to a failed payment.
    FailedOnTimeout,
    /// A look-up that finds nothing counts as a no. The request was still on its way, and charges a failed payment.
    AbsenceIsProof,
    /// The provider is asked without an idempotency key. A second attempt is a second charge.
    NoProviderKey,
    /// Every attempt has a key of its own. A second attempt is a second charge.
    NewKeyOnRetry,
    /// The caller is answered whether or not the settlement was committed. What it was told is not what is stored.
    AnswerBeforeCommit,
    /// What is left is read first, and written later as what it will be. Two refunds at once take the same money.
    RefundWithoutGuard,
    /// The event is a statement of its own, after the commit. A process that dies in between leaves a gap.
    EventOutsideTransaction,
    /// Whoever holds an operation sends, however long ago it was leased. Somebody who was paused charges a second time,
    /// when the provider has forgotten the first.
    LeaseIgnored,
    /// A known key is answered without a look at what it is used for. A charge of another amount is acknowledged.
    FingerprintIgnored,
    /// A capture takes everything, whatever was asked for.
    WrongAmountOnCapture,
    /// What is too old for the provider to remember its key is sent once more instead of searched.
    PostsInsteadOfLooking,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::FailedOnTimeout,
        Self::AbsenceIsProof,
        Self::NoProviderKey,
        Self::NewKeyOnRetry,
        Self::AnswerBeforeCommit,
        Self::RefundWithoutGuard,
        Self::EventOutsideTransaction,
        Self::LeaseIgnored,
        Self::FingerprintIgnored,
        Self::WrongAmountOnCapture,
        Self::PostsInsteadOfLooking,
    ];

    /// The name in `FAILPOINTS`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailedOnTimeout => "failed on timeout",
            Self::AbsenceIsProof => "absence is proof",
            Self::NoProviderKey => "no provider key",
            Self::NewKeyOnRetry => "new key on retry",
            Self::AnswerBeforeCommit => "answer before commit",
            Self::RefundWithoutGuard => "refund without guard",
            Self::EventOutsideTransaction => "event outside transaction",
            Self::LeaseIgnored => "lease ignored",
            Self::FingerprintIgnored => "fingerprint ignored",
            Self::WrongAmountOnCapture => "wrong amount on capture",
            Self::PostsInsteadOfLooking => "posts instead of looking",
        }
    }
}

/// On which side of something that changes state a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing has happened yet.
    Before,
    /// It has happened, and nobody here has acted on it yet.
    After,
}

#[cfg(feature = "faults")]
mod asked_for {
    use super::{Bug, When};
    use nix::sys::signal::{Signal, raise};

    /// What `FAILPOINTS` says, for as long as this lives.
    pub struct Faults {
        _scenario: fail::FailScenario<'static>,
    }

    impl Faults {
        /// Reads `FAILPOINTS`.
        #[must_use]
        pub fn from_environment() -> Self {
            Self { _scenario: fail::FailScenario::setup() }
        }
    }

    /// A point before or after something that changes state.
    pub fn point(when: When, what: &str) {
        let when = match when {
            When::Before => "before",
            When::After => "after",
        };
        act(&format!("{when} {what}"));
    }

    fn act(name: &str) {
        fail::fail_point!(name, |action| match action.as_deref() {
            // as a paused machine: the process goes on from here when somebody says so
            Some("stop") => _ = raise(Signal::SIGSTOP),
            _ => std::process::abort(),
        });
    }

    /// Whether the rule is not kept this time.
    #[must_use]
    pub fn planted(bug: Bug) -> bool {
        fail::fail_point!(bug.name(), |_| true);
        false
    }
}

#[cfg(not(feature = "faults"))]
mod asked_for {
    use super::{Bug, When};

    /// Nothing can be asked for.
    pub struct Faults;

    impl Faults {
        /// Reads nothing.
        #[must_use]
        pub const fn from_environment() -> Self {
            Self
        }
    }

    /// A point before or after something that changes state: nothing, in this build.
    #[inline]
    pub const fn point(_when: When, _what: &str) {}

    /// Whether the rule is not kept: never, in this build.
    #[inline]
    #[must_use]
    pub const fn planted(_bug: Bug) -> bool {
        false
    }
}

pub use asked_for::{Faults, planted, point};
