//! What a process does: decides, writes, takes the next step, concludes. Each function is named as what it stands for.

use super::protocol::Protocol;
use super::rules::Rule;
use super::state::{
    Age, Answer, FULL, Intent, Lease, Operation, Payment, Reply, Request, Stage, State, Status, Step,
    Unconfirmed, Verdict, Work,
};

impl Protocol {
    /// Where an operation with this key would be written. `None`: the key is known.
    pub fn free_row(&self, state: &State, key: usize) -> Option<usize> {
        let is_free = |index: &usize| state.operations[*index].lease == Lease::Unwritten;
        if self.has(Rule::OperationsIdempotencyKey) {
            Some(key).filter(is_free)
        } else {
            (0..state.operations.len()).find(is_free)
        }
    }

    /// Whether the payment, as a process reads it, allows what is asked for.
    pub fn allows(&self, payment: &Payment, request: Request) -> bool {
        match request {
            Request::Create => true,
            Request::Capture(_) | Request::Cancel => {
                payment.status == Status::Authorized && payment.pending.is_none()
            }
            Request::Refund(amount) => {
                payment.status == Status::Captured && payment.refunded + amount <= payment.captured
            }
        }
    }

    /// Whether the statement that claims finds the payment as it has to be. Without its guard it still finds what the
    /// CHECKs of the table ask for.
    fn fits(&self, payment: &Payment, request: Request) -> bool {
        match request {
            Request::Capture(_) | Request::Cancel if !self.has(Rule::ClaimStepGuard) => {
                payment.status == Status::Authorized
            }
            Request::Refund(_) if !self.has(Rule::ClaimRefundGuard) => payment.status == Status::Captured,
            _ => self.allows(payment, request),
        }
    }

    /// `claim_payment`, `claim_step`, `claim_refund`: the operation, its lease and what the payment's row says of it,
    /// in one statement. `None`: the key is known, or the payment is not as it has to be; nothing is written.
    pub fn claim(&self, state: &mut State, key: usize) -> Option<Work> {
        let index = self.free_row(state, key)?;
        let request = self.scope.requests[key];
        let is_living = state.payments.iter().any(|payment| payment.status.is_living());
        if request == Request::Create && is_living && self.has(Rule::PaymentsLiveReferenceKey) {
            state.turned_away = true;
            return None;
        }
        let payment = &mut state.payments[self.payment_of(index)];
        if !self.fits(payment, request) {
            return None;
        }
        match request {
            Request::Create => payment.status = Status::Processing,
            Request::Capture(_) | Request::Cancel => payment.pending = request.pending(),
            Request::Refund(amount) => payment.refunded += amount,
        }
        let age = if request == Request::Create { Age::Charging } else { Age::Remembered };
        state.operations[index] = Operation { lease: Lease::Held, age, ..Operation::unwritten(key) };
        Some(Work {
            operation: index,
            holds: true,
            stopped: false,
            since: age,
            stage: Stage::Ready(Step::Send),
        })
    }

    /// `next_step` of a charge; `looks_first` of everything else.
    pub fn next_step(&self, operation: &Operation) -> Step {
        let from = |margin| if self.has(margin) { Age::Margin } else { Age::Forgotten };
        if self.request(operation) != Request::Create {
            let is_forgotten = operation.age >= from(Rule::LooksFirstMargin);
            let looks = self.has(Rule::LooksFirst) && (is_forgotten || operation.server_errors);
            return if looks { Step::LookFirst } else { Step::Send };
        }
        let absent_before = is_a_lease_ago(operation);
        if operation.intent_known {
            Step::Retrieve
        } else if operation.age >= from(Rule::NextStepMargin) {
            Step::Decide { absent_before }
        } else if operation.age >= Age::Remembered {
            if self.has(Rule::StepClose) {
                Step::Close { absent_before }
            } else {
                Step::Decide { absent_before }
            }
        } else if operation.server_errors {
            Step::LookUp
        } else {
            Step::Send
        }
    }

    /// `may_send`, and for a charge `charging_lease`.
    pub fn may_send(&self, state: &State, work: &Work, step: Step) -> bool {
        let operation = &state.operations[work.operation];
        let is_covered = work.holds && operation.lease == Lease::Held;
        let is_charge = step == Step::Send && self.request(operation) == Request::Create;
        let in_window = !is_charge || operation.age == Age::Charging || !self.has(Rule::ChargingLease);
        !self.has(Rule::MaySend) || is_covered && in_window
    }

    /// Reads what the provider has. `None`: nothing that says anything, and the operation is handed back.
    pub fn read(&self, state: &State, work: &Work, step: Step) -> Option<Stage> {
        let operation = &state.operations[work.operation];
        let payment = &state.payments[self.payment_of(work.operation)];
        match self.request(operation) {
            Request::Create => self.find(payment, step),
            Request::Refund(_) if operation.effects > 0 => Some(Stage::Knowing(Verdict::Refunded)),
            Request::Refund(_) => Some(Stage::Ready(Step::Send)),
            Request::Capture(_) | Request::Cancel => Some(match payment.intent {
                Intent::Captured(_) | Intent::Canceled => Stage::Knowing(verdict_of(payment.intent)),
                _ => Stage::Ready(Step::Send),
            }),
        }
    }

    /// Searches a charge, or reads the intent that closing made. A search prefers what the charge itself made.
    fn find(&self, payment: &Payment, step: Step) -> Option<Stage> {
        let charged = match payment.intent {
            Intent::None => None,
            intent => Some(Stage::Knowing(verdict_of(intent))),
        };
        let unconfirmed = match payment.unconfirmed {
            Unconfirmed::None => None,
            Unconfirmed::Open => Some(Stage::Ready(Step::CancelUnconfirmed)),
            Unconfirmed::Canceled => Some(Stage::Knowing(Verdict::Failed)),
        };
        let absent = match step {
            Step::Decide { absent_before } if absent_before || !self.has(Rule::IsAbsent) => {
                Some(Stage::Knowing(Verdict::Failed))
            }
            Step::Decide { .. } => Some(Stage::Knowing(Verdict::Absent)),
            _ => None,
        };
        charged.filter(|_| step != Step::Retrieve).or(unconfirmed).or(absent)
    }

    /// What follows from an answer. `None`: nothing is known, and the operation is handed back.
    pub fn conclude(&self, state: &mut State, work: &Work, step: Step, reply: Reply) -> Option<Stage> {
        let payment = &state.payments[self.payment_of(work.operation)];
        let verdict = match (step, self.request(&state.operations[work.operation]), reply) {
            (Step::CancelUnconfirmed, ..) => Verdict::Failed,
            (Step::Close { .. }, _, Reply::Done) => return Some(Stage::Ready(Step::CancelUnconfirmed)),
            // it had been executed, so that it can be found
            (Step::Close { absent_before }, ..) => return Some(Stage::Ready(Step::Decide { absent_before })),
            (_, _, Reply::ServerError) => {
                state.operations[work.operation].server_errors |= work.holds;
                return None;
            }
            (_, _, Reply::OtherParameters) => return None,
            (_, Request::Create, Reply::Done) => Verdict::Captured(FULL),
            (_, Request::Create, _) => Verdict::Failed,
            (_, Request::Refund(_), Reply::Done) => Verdict::Refunded,
            (_, Request::Refund(_), _) => Verdict::RefundRefused,
            (_, Request::Capture(_) | Request::Cancel, Reply::Refused) => Verdict::ChangeRefused,
            // done, or in another state for good: the intent says what it is
            (_, Request::Capture(_) | Request::Cancel, _) => verdict_of(payment.intent),
        };
        Some(Stage::Knowing(verdict))
    }

    /// `pause`, by the last token only: anybody may take the operation again, with what was learnt.
    pub fn hand_back(&self, state: &mut State, work: &Work, learn: impl FnOnce(&mut Operation)) {
        if work.holds {
            let operation = &mut state.operations[work.operation];
            learn(operation);
            operation.lease = Lease::Due;
            state.change_token(work.operation);
        }
    }

    /// `settle`, `settle_refund`: the operation's end and answer, and the payment's new state, in one statement.
    /// Nothing is written by a token that is not the last, or if the payment is not in the state that the step starts
    /// from.
    pub fn settle(&self, state: &mut State, work: &Work, verdict: Verdict) {
        let before = state.operations[work.operation];
        let request = self.request(&before);
        let payment = &mut state.payments[self.payment_of(work.operation)];
        let stands = match request {
            Request::Create => payment.status == Status::Processing,
            Request::Capture(_) | Request::Cancel => {
                payment.status == Status::Authorized && payment.pending == request.pending()
            }
            Request::Refund(_) => before.answer.is_none(),
        };
        if !stands || !work.holds && self.has(Rule::SettleToken) {
            return;
        }
        let answer = match (verdict, request) {
            (Verdict::Captured(_), Request::Cancel) | (Verdict::Canceled, Request::Capture(_)) => {
                Answer::Overtaken
            }
            (Verdict::Captured(_) | Verdict::Canceled | Verdict::Refunded, _) => Answer::Done,
            _ => Answer::Refused,
        };
        match (verdict, request) {
            (Verdict::Captured(amount), _) => {
                *payment = Payment { status: Status::Captured, captured: amount, pending: None, ..*payment };
            }
            (Verdict::Canceled, _) => {
                *payment = Payment { status: Status::Canceled, pending: None, ..*payment };
            }
            (Verdict::Failed, _) => payment.status = Status::Failed,
            (Verdict::ChangeRefused, _) => payment.pending = None,
            (Verdict::RefundRefused, Request::Refund(amount)) => payment.refunded -= amount,
            _ => {}
        }
        state.operations[work.operation] = Operation {
            lease: Lease::Settled,
            answer: Some(answer),
            retold: before.retold || before.answer.is_some_and(|told| told != answer),
            settlements: (before.settlements + 1).min(2),
            ..before
        };
        state.change_token(work.operation);
    }
}

/// Whether the first search in vain was a lease ago. The margin is exactly a lease long; every other age is longer, and
/// that the same age can also be too short for it changes nothing: then the search is only repeated.
fn is_a_lease_ago(operation: &Operation) -> bool {
    operation.absent.is_some_and(|since| since != Age::Margin || operation.age > Age::Margin)
}

/// What an intent that has come to its end means.
fn verdict_of(intent: Intent) -> Verdict {
    match intent {
        Intent::Captured(amount) => Verdict::Captured(amount),
        Intent::Canceled => Verdict::Canceled,
        Intent::None | Intent::Declined | Intent::Held => Verdict::Failed,
    }
}
