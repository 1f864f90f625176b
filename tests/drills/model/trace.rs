//! A counterexample as a story: one short sentence for each step.

use super::protocol::{Action, Protocol};
use super::state::{
    Age, Answer, FULL, Intent, Lease, Memory, Message, Payment, Request, Stage, State, Status, Step,
    Unconfirmed, Verdict, Will, Work,
};
use stateright::Path;

/// Tells a path, from what there was before to what must not be.
///
/// The checker sorts processes, because they are alike; here each keeps its letter until it is done or dies.
pub fn tell(model: &Protocol, path: Path<State, Action>) -> Vec<String> {
    let mut letters: Vec<char> = Vec::new();
    let mut sentences = Vec::new();
    for (state, action) in path.into_vec() {
        let Some(action) = action else {
            sentences.push(format!("So: {}.", summary(model, &state)));
            break;
        };
        let Some(next) = model.step(&state, action) else { break };
        if next.works.len() > state.works.len() {
            letters.extend(('A'..='Z').find(|letter| !letters.contains(letter)));
        }
        let newest = letters.len().saturating_sub(1);
        let letter = letters.get(action.process().unwrap_or(newest)).copied().unwrap_or('A');
        sentences.push(sentence(model, &state, action, &next, letter));
        if next.works.len() < state.works.len() {
            letters.remove(action.process().unwrap_or(newest));
        }
        let mut named: Vec<(Work, char)> = next.works.into_iter().zip(letters).collect();
        named.sort_unstable();
        letters = named.into_iter().map(|(_, letter)| letter).collect();
    }
    sentences
}

fn sentence(model: &Protocol, state: &State, action: Action, next: &State, who: char) -> String {
    let of = |at: usize| {
        let work = &state.works[at];
        (name(model, state, work), work.operation)
    };
    let after = |at: usize| {
        if next.works.len() < state.works.len() { None } else { next.works.get(at).map(|work| work.stage) }
    };
    match action {
        Action::Ask(key) if model.scope.is_create() && next.turned_away && next.works == state.works => {
            format!("A request with key {} is turned away: the reference is in use", key + 1)
        }
        Action::Ask(key) if model.scope.is_create() => {
            let row = next.works.last().map_or(0, |work| work.operation) + 1;
            format!(
                "{who} takes a request with key {}: payment {row}, its operation and a lease are written",
                key + 1
            )
        }
        Action::Ask(key) => {
            format!(
                "{who} takes the {}: the payment, as {who} reads it, allows it",
                asked(model.scope.requests[key])
            )
        }
        Action::Claim(at) => match after(at) {
            Some(_) => format!("{who} writes the {} and takes its lease", of(at).0),
            None => format!("{who} cannot write the {}: the payment has moved", of(at).0),
        },
        Action::LeaseEnds(index) => format!("The lease of the {} runs out", operation(model, state, index)),
        Action::GrowOlder(index) => {
            let of = operation(model, state, index);
            match next.operations[index].age {
                Age::Charging | Age::Remembered => format!("The charge window of the {of} ends"),
                Age::Margin => format!("A lease is left until the provider may forget the id of the {of}"),
                Age::Forgotten => format!("From now on the provider may forget the id of the {of}"),
            }
        }
        Action::Forget(index) => {
            format!("The provider forgets the id of the {}", operation(model, state, index))
        }
        Action::Take(index) => {
            let stage = next.works.last().map(|work| work.stage);
            let step = match stage {
                Some(Stage::Ready(step)) => step_name(step),
                _ => "nothing",
            };
            format!("{who} takes the {}, to {step}", operation(model, state, index))
        }
        Action::Send(at) => match state.works[at].stage {
            Stage::Ready(Step::Send) => format!("{who} sends the {}", of(at).0),
            Stage::Ready(step) => format!("{who} sends a request to {}", step_name(step)),
            _ => format!("{who} sends a request"),
        },
        Action::Read(at) => {
            let payment = &state.payments[model.payment_of(of(at).1)];
            format!("{who} reads what the provider has: {}", found(after(at), payment))
        }
        Action::HandBack(at) => match state.works[at].stage {
            Stage::Waiting(_) => format!("{who} hears nothing, and hands the {} back", of(at).0),
            _ => format!("{who} has too little of its lease left to send, and hands the {} back", of(at).0),
        },
        Action::Hear(at, will) => {
            let index = of(at).1;
            let message = match state.works[at].stage {
                Stage::Waiting(step) => step.message().unwrap_or(Message::Act),
                _ => Message::Act,
            };
            format!("The provider {}, and {who} hears it", does(state, index, message, will))
        }
        Action::Arrive(index, message, will) => {
            let what = match message {
                Message::Act => format!("The {}", operation(model, state, index)),
                Message::Close => format!("The closing of the {}", operation(model, state, index)),
                Message::CancelUnconfirmed => "The cancel of the unconfirmed intent".to_owned(),
            };
            format!(
                "{what} arrives: the provider {}, and its answer is lost",
                does(state, index, message, will)
            )
        }
        Action::Write(at) => {
            let (of, index) = of(at);
            let (before, now) = (&state.operations[index], &next.operations[index]);
            let is_settled = now.settlements > before.settlements;
            match state.works[at].stage {
                Stage::Knowing(Verdict::Absent) => {
                    format!("{who} writes that the {of} was not found, and hands it back")
                }
                Stage::Knowing(verdict) if is_settled => format!("{who} settles the {of}: {}", ends(verdict)),
                _ => format!("{who} wants to settle the {of}, and nothing is written"),
            }
        }
        Action::Die(_) => format!("{who} dies"),
        Action::Stop(_) => format!("{who} is stopped"),
        Action::GoOn(_) => format!("{who} goes on"),
    }
}

/// An operation by what it does.
fn operation(model: &Protocol, state: &State, index: usize) -> String {
    match model.request(&state.operations[index]) {
        Request::Create => format!("charge of payment {}", index + 1),
        request => asked(request),
    }
}

fn name(model: &Protocol, state: &State, work: &Work) -> String {
    match work.stage {
        Stage::Decided => asked(model.scope.requests[work.operation]),
        _ => operation(model, state, work.operation),
    }
}

fn asked(request: Request) -> String {
    match request {
        Request::Create => "create".to_owned(),
        Request::Capture(amount) => format!("capture of {amount}"),
        Request::Cancel => "cancel".to_owned(),
        Request::Refund(amount) => format!("refund of {amount}"),
    }
}

fn step_name(step: Step) -> &'static str {
    match step {
        Step::Send => "send it",
        Step::Retrieve => "read the intent",
        Step::LookUp => "look it up",
        Step::Close { .. } => "close it",
        Step::Decide { .. } => "search it",
        Step::CancelUnconfirmed => "cancel the unconfirmed intent",
        Step::LookFirst => "look first whether it is done",
    }
}

fn found(stage: Option<Stage>, payment: &Payment) -> &'static str {
    let has_nothing = payment.intent == Intent::None && payment.unconfirmed == Unconfirmed::None;
    match stage {
        Some(Stage::Ready(Step::CancelUnconfirmed)) => "an intent that nobody confirmed",
        Some(Stage::Ready(_)) => "it is not done yet",
        Some(Stage::Knowing(Verdict::Absent)) => "nothing, which does not decide yet",
        Some(Stage::Knowing(Verdict::Failed)) if has_nothing => "nothing, and that decides",
        Some(Stage::Knowing(Verdict::Failed)) => "nothing that holds money",
        Some(Stage::Knowing(_)) => "it is done",
        _ => "nothing that decides",
    }
}

fn does(state: &State, index: usize, message: Message, will: Will) -> &'static str {
    match (message, state.operations[index].memory, will) {
        (Message::CancelUnconfirmed, ..) => "cancels the unconfirmed intent",
        (_, Memory::Used { by, .. }, _) if by != message => "says that the id was used for something else",
        (_, Memory::Used { .. }, _) => "knows the id, and says what it said before",
        (Message::Close, Memory::Free, _) => "takes it as a new request, which charges nothing",
        (Message::Act, Memory::Free, Will::Accept) => "does it",
        (Message::Act, Memory::Free, Will::Decline) => "refuses",
        (Message::Act, Memory::Free, Will::AcceptAndFail) => "does it, and says 500",
        (Message::Act, Memory::Free, Will::Fail) => "does nothing, and says 500",
    }
}

fn ends(verdict: Verdict) -> String {
    match verdict {
        Verdict::Captured(FULL) => "captured".to_owned(),
        Verdict::Captured(amount) => format!("captured, {amount} of {FULL}"),
        Verdict::Canceled => "canceled".to_owned(),
        Verdict::Failed => "failed".to_owned(),
        Verdict::ChangeRefused | Verdict::RefundRefused => "refused".to_owned(),
        Verdict::Refunded => "refunded".to_owned(),
        Verdict::Absent => "not found".to_owned(),
    }
}

/// What there is at the end, as far as it says anything.
fn summary(model: &Protocol, state: &State) -> String {
    let mut said = Vec::new();
    for (index, payment) in state.payments.iter().enumerate().filter(|(_, it)| it.status != Status::Unwritten)
    {
        let status = match payment.status {
            Status::Unwritten | Status::Processing => "has no outcome",
            Status::Authorized => "is authorized",
            Status::Captured => "is captured",
            Status::Canceled => "is canceled",
            Status::Failed => "is failed",
        };
        let money = match payment.intent {
            Intent::None | Intent::Declined | Intent::Canceled => "holds nothing".to_owned(),
            Intent::Held => format!("holds {FULL}"),
            Intent::Captured(amount) => format!("took {amount}"),
        };
        let refunded = match payment.refunded {
            0 => String::new(),
            amount => format!(", refunds of {amount} are written"),
        };
        said.push(format!("payment {} {status}, the provider {money} for it{refunded}", index + 1));
    }
    for (index, it) in state.operations.iter().enumerate().filter(|(_, it)| it.lease != Lease::Unwritten) {
        let times = |count| if count > 1 { "more than once" } else { "once" };
        let effects = (it.effects > 1).then(|| format!("done {}", times(it.effects)));
        let settlements = (it.settlements > 1).then(|| format!("settled {}", times(it.settlements)));
        let answer = match it.answer {
            None => "open",
            Some(Answer::Done) => "answered as done",
            Some(Answer::Refused) => "answered as refused",
            Some(Answer::Overtaken) => "answered as overtaken",
        };
        let more: Vec<String> = [effects, settlements].into_iter().flatten().collect();
        let more = if more.is_empty() { String::new() } else { format!(", and {}", more.join(" and ")) };
        said.push(format!("the {} is {answer}{more}", operation(model, state, index)));
    }
    said.join("; ")
}
