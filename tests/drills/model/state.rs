//! What there is at one moment: rows, requests on their way, what the provider has and remembers, and who works on
//! what.

/// Minor units. The model's payments are for [`FULL`].
pub type Amount = u8;

/// What every payment of the model is for.
pub const FULL: Amount = 3;

/// What a client asks for. Each request has a key of its own, and is sent as often as the client likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// A payment on the one reference there is, whose money moves at once.
    Create,
    /// A capture of so much.
    Capture(Amount),
    /// A cancel.
    Cancel,
    /// A refund of so much.
    Refund(Amount),
}

impl Request {
    /// What the payment's row names while it has no outcome.
    pub fn pending(self) -> Option<Pending> {
        match self {
            Self::Capture(_) => Some(Pending::Capture),
            Self::Cancel => Some(Pending::Cancel),
            Self::Create | Self::Refund(_) => None,
        }
    }
}

/// How old an operation is, as far as anything depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Age {
    /// Within the charge window. What is no charge never is.
    Charging,
    /// Past it, and more than a lease before the provider may forget the operation's id. Hours long.
    Remembered,
    /// The last lease before that, and exactly as long.
    Margin,
    /// The provider may have forgotten the id. For ever.
    Forgotten,
}

impl Age {
    /// The next one.
    pub fn next(self) -> Option<Self> {
        match self {
            Self::Charging => Some(Self::Remembered),
            Self::Remembered => Some(Self::Margin),
            Self::Margin => Some(Self::Forgotten),
            Self::Forgotten => None,
        }
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// The payments. Each create has one; everything else is about the only one.
    pub payments: Vec<Payment>,
    /// The operations, one for each request.
    pub operations: Vec<Operation>,
    /// What processes are at, sorted: which of them it is makes no difference.
    pub works: Vec<Work>,
    /// How many processes may still die.
    pub crashes: u8,
    /// How many may still be stopped.
    pub pauses: u8,
    /// Whether a key was turned away because another one's payment lives. Forgotten when that payment has its outcome.
    pub turned_away: bool,
}

impl State {
    /// Who is at an operation. Who has only decided to write one is not.
    pub fn at(&self, operation: usize) -> impl Iterator<Item = &Work> {
        self.works.iter().filter(move |work| work.operation == operation && work.stage != Stage::Decided)
    }

    /// Whether an attempt of the operation is not over yet. An attempt ends within its lease, so whoever was stopped
    /// past that does not wait any more.
    pub fn is_waited_for(&self, operation: usize) -> bool {
        let waits = |work: &Work| work.holds && !work.stopped && matches!(work.stage, Stage::Waiting(_));
        self.operations[operation].lease == Lease::Held && self.at(operation).any(waits)
    }

    /// The operation's token changes: what others hold is worth nothing.
    pub fn change_token(&mut self, operation: usize) {
        for work in self.works.iter_mut().filter(|work| work.operation == operation) {
            work.holds = false;
        }
    }
}

/// A payment's row, and what the provider has of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Payment {
    /// Its status.
    pub status: Status,
    /// The capture or cancel that has no outcome yet.
    pub pending: Option<Pending>,
    /// So much was captured.
    pub captured: Amount,
    /// So much was refunded, open refunds included.
    pub refunded: Amount,
    /// The provider's intent, made by a charge.
    pub intent: Intent,
    /// The provider's other intent, made by closing the charge.
    pub unconfirmed: Unconfirmed,
}

impl Payment {
    /// No row, and nothing at the provider.
    pub const NONE: Self = Self {
        status: Status::Unwritten,
        pending: None,
        captured: 0,
        refunded: 0,
        intent: Intent::None,
        unconfirmed: Unconfirmed::None,
    };
    /// A payment whose money is held.
    pub const HELD: Self = Self { status: Status::Authorized, intent: Intent::Held, ..Self::NONE };
    /// A payment that was captured.
    pub const MOVED: Self =
        Self { status: Status::Captured, captured: FULL, intent: Intent::Captured(FULL), ..Self::NONE };
}

/// Where a payment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// There is no row.
    Unwritten,
    /// No outcome yet.
    Processing,
    /// The money is held.
    Authorized,
    /// The money moved.
    Captured,
    /// The hold was released.
    Canceled,
    /// Ended without money.
    Failed,
}

impl Status {
    /// Whether it keeps others from the reference.
    pub fn is_living(self) -> bool {
        matches!(self, Self::Processing | Self::Authorized | Self::Captured)
    }
}

/// A capture or cancel without an outcome, as the payment's row names it: not which one, only what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pending {
    /// A capture.
    Capture,
    /// A cancel.
    Cancel,
}

/// What a charge made at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// Nothing.
    None,
    /// Nothing that holds money.
    Declined,
    /// Money is held.
    Held,
    /// So much money moved.
    Captured(Amount),
    /// The money was released.
    Canceled,
}

/// What closing a charge made at the provider. It never holds money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unconfirmed {
    /// Nothing.
    None,
    /// An intent.
    Open,
    /// An intent that was canceled.
    Canceled,
}

/// An operation's row, the requests with its id that are on their way, and what the provider remembers of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation {
    /// The caller's key: the number of its request.
    pub key: usize,
    /// Whose it is.
    pub lease: Lease,
    /// How old it is.
    pub age: Age,
    /// Whether the provider answered with a stored server error.
    pub server_errors: bool,
    /// How old it was when a search first did not find what can no longer execute.
    pub absent: Option<Age>,
    /// Whether the intent that closing made is known, and is to be canceled.
    pub intent_known: bool,
    /// What was answered.
    pub answer: Option<Answer>,
    /// Whether something else was answered before.
    pub retold: bool,
    /// How often it was settled; 2 is "more than once".
    pub settlements: u8,
    /// The requests on their way.
    pub wire: Wire,
    /// What the provider remembers of its id.
    pub memory: Memory,
    /// How often the provider did what it is for; 2 is "more than once".
    pub effects: u8,
}

impl Operation {
    /// What is not there yet.
    pub const fn unwritten(key: usize) -> Self {
        Self {
            key,
            lease: Lease::Unwritten,
            age: Age::Charging,
            server_errors: false,
            absent: None,
            intent_known: false,
            answer: None,
            retold: false,
            settlements: 0,
            wire: Wire(0),
            memory: Memory::Free,
            effects: 0,
        }
    }

    /// Whether somebody still has to do something about it.
    pub fn is_open(&self) -> bool {
        matches!(self.lease, Lease::Held | Lease::Due)
    }
}

/// Whose an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lease {
    /// There is no row.
    Unwritten,
    /// Somebody's.
    Held,
    /// Anybody's. The last holder's token still fits, until somebody takes a new one.
    Due,
    /// Nobody's, for ever: it is settled.
    Settled,
}

/// What a caller is told in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    /// 200, 201: it was done.
    Done,
    /// 402: it was not, and never will be.
    Refused,
    /// 409: the payment had moved on at the provider.
    Overtaken,
}

/// Requests on their way: each may arrive never, once, or several times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Wire(u8);

/// A request that changes something at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Message {
    /// What the operation is for.
    Act,
    /// A charge without confirmation, under the charge's id.
    Close,
    /// Cancels the intent that closing made. It carries no id: twice is the same as once.
    CancelUnconfirmed,
}

impl Message {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Act, Self::Close, Self::CancelUnconfirmed];
}

impl Wire {
    const LATE_CHARGE: u8 = 8;
    const OUTLIVES_ID: u8 = 16;

    const fn bits(message: Message) -> u8 {
        match message {
            Message::Act => 1 | Self::LATE_CHARGE,
            Message::Close => 2,
            Message::CancelUnconfirmed => 4,
        }
    }

    /// Sends a request.
    pub fn put(&mut self, message: Message) {
        self.0 |= Self::bits(message) & !Self::LATE_CHARGE;
    }

    /// Sends a charge after its window.
    pub fn put_late_charge(&mut self) {
        self.0 |= Self::LATE_CHARGE;
    }

    /// Whether such a request is on its way.
    pub const fn has(self, message: Message) -> bool {
        self.0 & Self::bits(message) != 0
    }

    /// Takes a request away.
    pub fn take(&mut self, message: Message) {
        self.0 &= !Self::bits(message);
    }

    /// A charge that left within its window has arrived by now, or never will.
    pub fn lose_charge_of_window(&mut self) {
        self.0 &= Self::LATE_CHARGE | !Self::bits(Message::Act);
    }

    /// The provider has forgotten the id: what carries it has arrived by now, or never will.
    pub fn lose_what_has_the_id(&mut self) {
        self.0 &= Self::bits(Message::CancelUnconfirmed);
    }

    /// The provider has forgotten the id while somebody waits for a request that carries it: that one may arrive.
    pub fn outlive_the_id(&mut self) {
        self.0 |= Self::OUTLIVES_ID;
    }

    /// Whether it arrives only as long as somebody waits.
    pub const fn outlives_the_id(self) -> bool {
        self.0 & Self::OUTLIVES_ID != 0
    }

    /// Whether nothing is on its way.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// What the provider remembers of an operation's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Memory {
    /// Nothing, or nothing any more.
    Free,
    /// It was used.
    Used {
        /// By this request.
        by: Message,
        /// Which was answered so, and is so whenever it comes again.
        with: Reply,
        /// In the operation's last two ages: so it is remembered for as long again.
        lately: bool,
    },
}

/// What the provider answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// Done.
    Done,
    /// 400, 402: not done.
    Refused,
    /// 500, stored: nobody can tell.
    ServerError,
    /// 400: the intent is in no state for it.
    UnexpectedState,
    /// 400: the id was used by another request.
    OtherParameters,
}

/// What the provider does with an id that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Will {
    /// What it is asked for.
    Accept,
    /// Nothing, and says so.
    Decline,
    /// What it is asked for, and answers with a server error now and later.
    AcceptAndFail,
    /// Nothing, and answers with a server error now and later.
    Fail,
}

impl Will {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Accept, Self::Decline, Self::AcceptAndFail, Self::Fail];

    /// Whether it does what it is asked for.
    pub const fn does_it(self) -> bool {
        matches!(self, Self::Accept | Self::AcceptAndFail)
    }
}

/// What a process is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Work {
    /// The operation.
    pub operation: usize,
    /// Whether its row still has this process's token.
    pub holds: bool,
    /// Whether the process is stopped.
    pub stopped: bool,
    /// How old the operation was when the process took it, or went on after it had lost it.
    pub since: Age,
    /// How far the process is.
    pub stage: Stage,
}

impl Work {
    /// Whether the process does its next step at once: it waits for nothing, and is not stopped.
    pub fn is_running(&self) -> bool {
        !self.stopped && matches!(self.stage, Stage::Ready(_) | Stage::Knowing(_))
    }
}

/// How far a process is with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// It has read the payment, which allows what is asked for, and has written nothing yet.
    Decided,
    /// About to ask the provider.
    Ready(Step),
    /// A request has left.
    Waiting(Step),
    /// It knows what to write.
    Knowing(Verdict),
}

/// A step at the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Send what the operation is for.
    Send,
    /// Read the intent that closing made.
    Retrieve,
    /// Search the charge, which may still arrive.
    LookUp,
    /// Take the charge's id.
    Close {
        /// Whether a search found nothing, a lease ago.
        absent_before: bool,
    },
    /// Search the charge, which can no longer execute.
    Decide {
        /// Whether a search found nothing, a lease ago.
        absent_before: bool,
    },
    /// Cancel the intent that closing made.
    CancelUnconfirmed,
    /// Look whether the capture, cancel or refund is done already.
    LookFirst,
}

impl Step {
    /// What it sends. `None`: it only reads.
    pub const fn message(self) -> Option<Message> {
        match self {
            Self::Send => Some(Message::Act),
            Self::Close { .. } => Some(Message::Close),
            Self::CancelUnconfirmed => Some(Message::CancelUnconfirmed),
            Self::Retrieve | Self::LookUp | Self::Decide { .. } | Self::LookFirst => None,
        }
    }
}

/// What a process is about to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// So much money moved.
    Captured(Amount),
    /// The money was released.
    Canceled,
    /// The charge came to nothing.
    Failed,
    /// The capture or cancel was refused.
    ChangeRefused,
    /// The refund was made.
    Refunded,
    /// The refund was refused.
    RefundRefused,
    /// It can no longer execute, and was not found: one search more has to say the same.
    Absent,
}
