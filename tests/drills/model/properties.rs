//! What must hold in every state, and what must happen in some: a model without faults would keep every promise.

use super::protocol::Protocol;
use super::recovery;
use super::state::{
    Answer, Intent, Lease, Memory, Message, Operation, Payment, Request, Stage, State, Status,
};

/// Whether something is so.
pub type Condition = fn(&Protocol, &State) -> bool;

/// Something that holds in every state.
#[derive(Debug, Clone, Copy)]
pub struct Always {
    /// What.
    pub name: &'static str,
    /// Whether it does.
    pub condition: Condition,
}

/// Something that is so in some state.
#[derive(Debug, Clone, Copy)]
pub struct Sometimes {
    /// What.
    pub name: &'static str,
    /// Whether it is.
    pub condition: Condition,
}

/// No payment is charged twice.
pub const ONE_CHARGE: Always = Always {
    name: "at most one charge per payment",
    condition: |model, state| {
        every(model, state, |_, operation, request| request != Request::Create || operation.effects <= 1)
    },
};

/// No two living payments have one reference.
pub const ONE_LIVING_PAYMENT: Always = Always {
    name: "at most one living payment per reference",
    condition: |_, state| state.payments.iter().filter(|payment| payment.status.is_living()).count() <= 1,
};

/// No capture, cancel or refund is done twice.
pub const ONE_EFFECT: Always = Always {
    name: "at most one effect per capture, cancel and refund",
    condition: |model, state| {
        every(model, state, |_, operation, request| request == Request::Create || operation.effects <= 1)
    },
};

/// No more is refunded than was captured, open refunds included.
pub const REFUNDS_WITHIN_CAPTURE: Always = Always {
    name: "refunds within what was captured",
    condition: |_, state| state.payments.iter().all(|payment| payment.refunded <= payment.captured),
};

/// What was shown as failed, canceled or refused moved no money, and never will: this holds in every later state, too.
pub const NOTHING_ENDED_HOLDS_MONEY: Always = Always {
    name: "nothing failed, canceled or refused holds money",
    condition: |model, state| {
        let is_empty = |payment: &Payment| !matches!(payment.intent, Intent::Held | Intent::Captured(_));
        let ended = |payment: &&Payment| matches!(payment.status, Status::Failed | Status::Canceled);
        state.payments.iter().filter(ended).all(is_empty)
            && every(model, state, |_, operation, _| {
                operation.answer != Some(Answer::Refused) || operation.effects == 0
            })
    },
};

/// What was acknowledged is at the provider, for the same amount.
pub const SUCCESS_HAS_ITS_MONEY: Always = Always {
    name: "a success has its money",
    condition: |model, state| {
        let has_money = |payment: &Payment| match payment.status {
            Status::Captured => payment.intent == Intent::Captured(payment.captured),
            _ => true,
        };
        state.payments.iter().all(has_money)
            && every(model, state, |payment, operation, request| {
                let is_same = match request {
                    Request::Create => payment.captured == super::state::FULL,
                    Request::Capture(amount) => payment.captured == amount,
                    Request::Cancel | Request::Refund(_) => true,
                };
                operation.answer != Some(Answer::Done) || operation.effects >= 1 && is_same
            })
    },
};

/// Every operation is settled once, by one event.
pub const ONE_SETTLEMENT: Always = Always {
    name: "one settlement per operation",
    condition: |model, state| every(model, state, |_, operation, _| operation.settlements <= 1),
};

/// Whoever asks again with a key hears the same again.
pub const ONE_ANSWER: Always = Always {
    name: "one answer per key",
    condition: |model, state| {
        let answered = |key: usize| {
            state
                .operations
                .iter()
                .filter(|operation| operation.key == key && operation.answer.is_some())
                .count()
        };
        every(model, state, |_, operation, _| !operation.retold)
            && (0..model.scope.requests.len()).all(|key| answered(key) <= 1)
    },
};

/// Captures and cancels of a payment go one after the other.
pub const ONE_OPEN_CHANGE: Always = Always {
    name: "at most one open capture or cancel",
    condition: |model, state| {
        let is_change = |operation: &&Operation| model.request(operation).pending().is_some();
        state.operations.iter().filter(|operation| operation.is_open()).filter(is_change).count() <= 1
    },
};

/// When nothing fails any more, everything that is open can be settled.
pub const CAN_BE_SETTLED: Always =
    Always { name: "what is open can be settled once faults end", condition: recovery::can_be_settled };

/// Everything that always holds.
pub const ALWAYS: [Always; 10] = [
    ONE_CHARGE,
    ONE_LIVING_PAYMENT,
    ONE_EFFECT,
    REFUNDS_WITHIN_CAPTURE,
    NOTHING_ENDED_HOLDS_MONEY,
    SUCCESS_HAS_ITS_MONEY,
    ONE_SETTLEMENT,
    ONE_ANSWER,
    ONE_OPEN_CHANGE,
    CAN_BE_SETTLED,
];

/// Whether it holds of every operation that is written.
fn every(model: &Protocol, state: &State, holds: impl Fn(&Payment, &Operation, Request) -> bool) -> bool {
    let written = state.operations.iter().enumerate().filter(|(_, it)| it.lease != Lease::Unwritten);
    written.into_iter().all(|(index, operation)| {
        holds(&state.payments[model.payment_of(index)], operation, model.request(operation))
    })
}

/// No crash is the end.
pub const SETTLED_AFTER_ALL_DEATHS: Sometimes = Sometimes {
    name: "every crash was used, and something is settled",
    condition: |_, state| {
        state.crashes == 0 && state.operations.iter().any(|operation| operation.lease == Lease::Settled)
    },
};

/// Somebody else works on what a stopped process had.
pub const TAKEN_OVER: Sometimes = Sometimes {
    name: "taken over from a stopped process",
    condition: |_, state| {
        let has_another = |index: usize| state.at(index).any(|other| other.holds && !other.stopped);
        state.works.iter().any(|work| work.stopped && !work.holds && has_another(work.operation))
    },
};

/// A process was stopped past its lease, somebody else took the operation, and it goes on with what it knew.
pub const GOES_ON_TOO_LATE: Sometimes = Sometimes {
    name: "a process goes on after its lease was taken",
    condition: |_, state| {
        let knows = |stage| matches!(stage, Stage::Knowing(_));
        state.works.iter().any(|work| !work.stopped && !work.holds && knows(work.stage))
    },
};

/// The provider did it, and every process that asked for it is gone.
pub const DONE_UNKNOWN: Sometimes = Sometimes {
    name: "done at the provider, and nobody knows",
    condition: |_, state| {
        let is_done = |operation: &Operation| operation.effects == 1 && operation.lease == Lease::Due;
        state.works.is_empty() && state.operations.iter().any(is_done)
    },
};

/// The provider has forgotten what it did.
pub const ID_FORGOTTEN: Sometimes = Sometimes {
    name: "the provider forgot the id of what it did",
    condition: |_, state| {
        let is_forgotten = |operation: &Operation| {
            operation.is_open() && operation.effects == 1 && operation.memory == Memory::Free
        };
        state.operations.iter().any(is_forgotten)
    },
};

/// A charge arrives after its id was taken.
pub const CLOSED_IN_TIME: Sometimes = Sometimes {
    name: "closed while the charge is on its way",
    condition: |_, state| {
        let is_closed = |memory| matches!(memory, Memory::Used { by: Message::Close, .. });
        state.operations.iter().any(|it| it.wire.has(Message::Act) && is_closed(it.memory))
    },
};

/// Searching has decided.
pub const FAILED_BY_SEARCHING: Sometimes = Sometimes {
    name: "failed because two searches found nothing",
    condition: |_, state| {
        state.operations.iter().any(|it| it.answer == Some(Answer::Refused) && it.absent.is_some())
    },
};

/// Two keys race for the reference, and one loses.
pub const TURNED_AWAY: Sometimes = Sometimes {
    name: "a second key is turned away while the payment lives",
    condition: |_, state| state.turned_away,
};

/// Two processes have read the same payment, and both want to write.
pub const DECIDED_AT_ONCE: Sometimes = Sometimes {
    name: "two requests decide on the same payment",
    condition: |_, state| state.works.iter().filter(|work| work.stage == Stage::Decided).count() >= 2,
};

/// The reference is free again when its payment has failed.
pub const REFERENCE_USED_AGAIN: Sometimes = Sometimes {
    name: "captured for a reference whose first payment failed",
    condition: |_, state| {
        let has = |status| state.payments.iter().any(|payment| payment.status == status);
        has(Status::Failed) && has(Status::Captured)
    },
};

/// What was refused can be asked for again, with another key.
pub const CAPTURED_AT_LAST: Sometimes = Sometimes {
    name: "captured after a capture was refused",
    condition: |model, state| {
        let is_refused = |it: &Operation| {
            matches!(model.request(it), Request::Capture(_)) && it.answer == Some(Answer::Refused)
        };
        state.payments[0].status == Status::Captured && state.operations.iter().any(is_refused)
    },
};

/// Money goes back.
pub const REFUNDED: Sometimes = Sometimes {
    name: "refunded",
    condition: |model, state| {
        let is_refunded = |it: &Operation| {
            matches!(model.request(it), Request::Refund(_)) && it.answer == Some(Answer::Done)
        };
        state.operations.iter().any(is_refunded)
    },
};

/// Two operations of one payment have a lease, or wait for one.
pub const BOTH_OPEN: Sometimes = Sometimes {
    name: "both are open",
    condition: |_, state| state.operations.iter().filter(|operation| operation.is_open()).count() == 2,
};
