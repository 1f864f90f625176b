//! What the provider does with a request that arrives: as often as it arrives, under an id that it remembers or does
//! not.

use super::protocol::Protocol;
use super::rules::Rule;
use super::state::{Age, Amount, Intent, Memory, Message, Reply, Request, State, Unconfirmed, Will};

impl Protocol {
    /// What the provider may do with a request: it has a choice only where it does not know the id.
    pub fn wills(&self, state: &State, index: usize, message: Message) -> &'static [Will] {
        let is_known = matches!(state.operations[index].memory, Memory::Used { .. });
        if is_known || message != Message::Act { &[Will::Accept] } else { &Will::ALL }
    }

    /// A request arrives.
    pub fn arrive(&self, state: &mut State, index: usize, message: Message, will: Will) -> Reply {
        if message == Message::CancelUnconfirmed {
            state.operations[index].wire.take(message);
            state.payments[self.payment_of(index)].unconfirmed = Unconfirmed::Canceled;
            return Reply::Done;
        }
        if !self.has(Rule::OperationIdAsProviderKey) {
            // with a key of its own each attempt is executed, once
            state.operations[index].wire.take(message);
            return self.execute(state, index, message, will);
        }
        if let Memory::Used { by, with, .. } = state.operations[index].memory {
            return if by == message { with } else { Reply::OtherParameters };
        }
        let with = self.execute(state, index, message, will);
        let operation = &mut state.operations[index];
        operation.memory = Memory::Used { by: message, with, lately: operation.age >= Age::Margin };
        with
    }

    fn execute(&self, state: &mut State, index: usize, message: Message, will: Will) -> Reply {
        let given_back = self.given_back(state);
        let request = self.request(&state.operations[index]);
        let payment = &mut state.payments[self.payment_of(index)];
        if message == Message::Close {
            payment.unconfirmed = Unconfirmed::Open;
            return Reply::Done;
        }
        let after = match (request, payment.intent) {
            (Request::Create, _) => Intent::Captured(super::state::FULL),
            (Request::Capture(amount), Intent::Held) => Intent::Captured(amount),
            (Request::Cancel, Intent::Held) => Intent::Canceled,
            (Request::Capture(_) | Request::Cancel, _) => return Reply::UnexpectedState,
            (Request::Refund(amount), intent @ Intent::Captured(captured))
                if given_back + amount <= captured =>
            {
                intent
            }
            (Request::Refund(_), _) => return Reply::Refused,
        };
        if will.does_it() {
            payment.intent = after;
            let effects = &mut state.operations[index].effects;
            *effects = (*effects + 1).min(2);
        } else if request == Request::Create && payment.intent == Intent::None && will == Will::Decline {
            payment.intent = Intent::Declined;
        }
        match will {
            Will::Accept => Reply::Done,
            Will::Decline => Reply::Refused,
            Will::AcceptAndFail | Will::Fail => Reply::ServerError,
        }
    }

    /// So much was given back. A provider gives back no more than it took, whoever asks.
    fn given_back(&self, state: &State) -> Amount {
        let of = |operation: &super::state::Operation| match self.request(operation) {
            Request::Refund(amount) => amount * operation.effects,
            _ => 0,
        };
        state.operations.iter().map(of).sum()
    }
}
