//! Whether what is open can be settled once nothing fails any more.

use super::protocol::{Action, Protocol};
use super::state::{Lease, Stage, State, Will};

/// More steps than an operation ever needs.
const LONG: usize = 60;

/// Whether one healthy process, with time and a provider that does what it is asked for, settles all that is open.
///
/// It is asked where no process is at work, and whatever is on its way is lost. That is enough: from everywhere else
/// such a state can be reached without a fault, for running processes finish, waiting ones give up and stopped ones go
/// on.
pub fn can_be_settled(model: &Protocol, state: &State) -> bool {
    let mut now = state.clone();
    if !now.works.is_empty() {
        return true;
    }
    for operation in &mut now.operations {
        operation.wire.lose_what_has_the_id();
    }
    (0..now.operations.len()).all(|index| settle(model, &mut now, index))
}

fn settle(model: &Protocol, now: &mut State, index: usize) -> bool {
    for _ in 0..LONG {
        if !now.operations[index].is_open() {
            return true;
        }
        match healthy_step(model, now, index).and_then(|action| model.step(now, action)) {
            Some(next) => *now = next,
            None => return false,
        }
        if now.works.is_empty() && now.operations[index].is_open() {
            // the attempt brought nothing, so it takes time
            let later = [Action::Forget(index), Action::GrowOlder(index)];
            let later = later.into_iter().find(|action| model.is_possible(now, *action));
            *now = later.and_then(|action| model.step(now, action)).unwrap_or_else(|| now.clone());
        }
    }
    false
}

fn healthy_step(model: &Protocol, state: &State, index: usize) -> Option<Action> {
    let Some(work) = state.works.first() else {
        return (state.operations[index].lease == Lease::Due).then_some(Action::Take(index));
    };
    Some(match work.stage {
        Stage::Decided => Action::Claim(0),
        Stage::Ready(_) | Stage::Knowing(_) => model.run(state, 0),
        Stage::Waiting(_) => Action::Hear(0, Will::Accept),
    })
}
