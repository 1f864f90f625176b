//! The protocol as a state machine: who can do what in a state, and what the state is then.

use super::properties::{ALWAYS, Sometimes};
use super::rules::Rule;
use super::state::{
    Age, Lease, Memory, Message, Operation, Payment, Request, Stage, State, Step, Verdict, Will, Work,
};
use stateright::{Model, Property};

/// One sub-model: what clients ask for, and how much may go wrong.
#[derive(Debug, Clone, Copy)]
pub struct Scope {
    /// Its name.
    pub name: &'static str,
    /// What there is to begin with: one payment for each create, or the one that everything is about.
    pub payments: &'static [Payment],
    /// What clients ask for, each with its key.
    pub requests: &'static [Request],
    /// How many processes there are.
    pub workers: usize,
    /// How often one of them dies.
    pub crashes: u8,
    /// How often one of them is stopped.
    pub pauses: u8,
    /// Whether what a process does between two waits happens at once, unless the process is stopped. Otherwise
    /// everything else can happen in between, and there are about three times the states.
    pub in_one_go: bool,
    /// What happens in some state, to show that the faults are there.
    pub sometimes: &'static [Sometimes],
    /// The rules that can be taken away here.
    pub rules: &'static [Rule],
}

impl Scope {
    /// Whether each request makes a payment.
    pub fn is_create(&self) -> bool {
        self.requests.first() == Some(&Request::Create)
    }
}

/// The protocol, whole or without one of its rules.
#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// What is asked for, and what may go wrong.
    pub scope: Scope,
    /// The rule that was taken away.
    pub without: Option<Rule>,
}

/// Something that happens. Processes are named by their place in [`State::works`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A request with this key reaches a process. A create is written at once; for everything else the process reads
    /// the payment and decides.
    Ask(usize),
    /// A process writes what it decided.
    Claim(usize),
    /// The lease of a stopped process is over.
    LeaseEnds(usize),
    /// Time passes for an operation.
    GrowOlder(usize),
    /// The provider forgets an operation's id.
    Forget(usize),
    /// A process takes an operation that is due.
    Take(usize),
    /// A process sends a request.
    Send(usize),
    /// A process reads what the provider has.
    Read(usize),
    /// A process gives up: no answer came, or its lease does not cover a request.
    HandBack(usize),
    /// The request that a process waits for arrives, and so does its answer.
    Hear(usize, Will),
    /// A request arrives, and nobody hears the answer: late, once more, or with the answer lost.
    Arrive(usize, Message, Will),
    /// A process writes what it knows.
    Write(usize),
    /// A process dies.
    Die(usize),
    /// A process is stopped.
    Stop(usize),
    /// A stopped process goes on.
    GoOn(usize),
}

impl Action {
    /// The place of the process whose step it is.
    pub fn process(self) -> Option<usize> {
        match self {
            Self::Claim(at)
            | Self::Send(at)
            | Self::Read(at)
            | Self::HandBack(at)
            | Self::Hear(at, _)
            | Self::Write(at)
            | Self::Die(at)
            | Self::Stop(at)
            | Self::GoOn(at) => Some(at),
            Self::Ask(_)
            | Self::LeaseEnds(_)
            | Self::GrowOlder(_)
            | Self::Forget(_)
            | Self::Take(_)
            | Self::Arrive(..) => None,
        }
    }
}

impl Protocol {
    /// Whether the rule is in force.
    pub fn has(&self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// What an operation is for.
    pub fn request(&self, operation: &Operation) -> Request {
        self.scope.requests[operation.key]
    }

    /// Which payment an operation is about.
    pub fn payment_of(&self, operation: usize) -> usize {
        if self.scope.is_create() { operation } else { 0 }
    }

    /// What a running process does next.
    pub fn run(&self, state: &State, at: usize) -> Action {
        let work = &state.works[at];
        match work.stage {
            Stage::Ready(step) if step.message().is_none() => Action::Read(at),
            Stage::Ready(step) if self.may_send(state, work, step) => Action::Send(at),
            Stage::Ready(_) | Stage::Waiting(_) => Action::HandBack(at),
            Stage::Knowing(_) => Action::Write(at),
            Stage::Decided => Action::Claim(at),
        }
    }

    /// Whether time can do this.
    pub fn is_possible(&self, state: &State, action: Action) -> bool {
        match action {
            // an attempt ends within its lease, and a lease that began in one age has ended before the next but one
            Action::GrowOlder(index) => {
                let operation = &state.operations[index];
                let matters = operation.lease != Lease::Settled
                    || !operation.wire.is_empty()
                    || state.at(index).next().is_some();
                operation.age != Age::Forgotten
                    && matters
                    && state.at(index).all(|work| work.stopped || work.since == operation.age)
            }
            // what was used lately is remembered for so long that whoever works on it now has ended
            Action::Forget(index) => match state.operations[index].memory {
                Memory::Used { lately, .. } => {
                    let is_old = state.operations[index].age == Age::Forgotten;
                    is_old && (!lately || state.at(index).all(|work| work.stopped))
                }
                Memory::Free => false,
            },
            Action::LeaseEnds(index) => {
                self.has(Rule::LeaseRunsOut)
                    && state.operations[index].lease == Lease::Held
                    && state.at(index).any(|work| work.holds && work.stopped)
            }
            _ => true,
        }
    }

    /// The state after an action, with every process at the place it had. `None`: nothing changes.
    pub fn step(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        match action {
            Action::Ask(key) if self.scope.is_create() => {
                let work = self.claim(&mut next, key);
                next.works.extend(work);
            }
            Action::Ask(key) => next.works.push(Work {
                operation: key,
                holds: false,
                stopped: false,
                since: Age::Remembered,
                stage: Stage::Decided,
            }),
            Action::Claim(at) => match self.claim(&mut next, state.works[at].operation) {
                Some(work) => next.works[at] = work,
                None => drop(next.works.remove(at)),
            },
            Action::LeaseEnds(index) => next.operations[index].lease = Lease::Due,
            Action::GrowOlder(index) => self.grow_older(&mut next, index)?,
            Action::Forget(index) => forget(&mut next, index),
            Action::Take(index) => {
                next.change_token(index);
                let operation = &mut next.operations[index];
                operation.lease = Lease::Held;
                let (since, stage) = (operation.age, Stage::Ready(self.next_step(operation)));
                next.works.push(Work { operation: index, holds: true, stopped: false, since, stage });
            }
            Action::Send(at) => {
                let Stage::Ready(step) = state.works[at].stage else { return None };
                let message = step.message()?;
                let operation = &mut next.operations[state.works[at].operation];
                let is_charge = message == Message::Act && self.request(operation) == Request::Create;
                if is_charge && operation.age > Age::Charging {
                    operation.wire.put_late_charge();
                } else {
                    operation.wire.put(message);
                }
                next.works[at].stage = Stage::Waiting(step);
            }
            Action::Read(at) => {
                let Stage::Ready(step) = state.works[at].stage else { return None };
                let read = self.read(state, &state.works[at], step);
                self.go_on(&mut next, at, read);
            }
            Action::Hear(at, will) => {
                let Stage::Waiting(step) = state.works[at].stage else { return None };
                let reply = self.arrive(&mut next, state.works[at].operation, step.message()?, will);
                let heard = self.conclude(&mut next, &state.works[at], step, reply);
                self.go_on(&mut next, at, heard);
            }
            Action::HandBack(at) => self.go_on(&mut next, at, None),
            Action::Arrive(index, message, will) => {
                self.arrive(&mut next, index, message, will);
            }
            Action::Write(at) => {
                let work = next.works.remove(at);
                match work.stage {
                    Stage::Knowing(Verdict::Absent) => self.hand_back(&mut next, &work, |operation| {
                        operation.absent = operation.absent.or(Some(operation.age));
                    }),
                    Stage::Knowing(verdict) => self.settle(&mut next, &work, verdict),
                    Stage::Decided | Stage::Ready(_) | Stage::Waiting(_) => return None,
                }
            }
            Action::Die(at) => {
                next.works.remove(at);
                next.crashes -= 1;
            }
            Action::Stop(at) => {
                next.works[at].stopped = true;
                next.pauses -= 1;
            }
            Action::GoOn(at) => {
                let work = &mut next.works[at];
                let operation = &next.operations[work.operation];
                work.stopped = false;
                if !work.holds || operation.lease != Lease::Held {
                    work.since = operation.age;
                }
            }
        }
        self.tidy(&mut next);
        (next != *state).then_some(next)
    }

    /// The process goes on with this, or hands the operation back.
    fn go_on(&self, state: &mut State, at: usize, stage: Option<Stage>) {
        if let Some(stage) = stage {
            state.works[at].stage = stage;
        } else {
            let work = state.works.remove(at);
            let step = match work.stage {
                Stage::Ready(step) | Stage::Waiting(step) => Some(step),
                Stage::Decided | Stage::Knowing(_) => None,
            };
            self.hand_back(state, &work, |operation| {
                operation.intent_known |= step == Some(Step::CancelUnconfirmed);
            });
        }
    }

    fn grow_older(&self, state: &mut State, index: usize) -> Option<()> {
        let operation = &mut state.operations[index];
        operation.age = operation.age.next()?;
        let (age, lease) = (operation.age, operation.lease);
        if age == Age::Forgotten && self.request(operation) == Request::Create {
            operation.wire.lose_charge_of_window();
        }
        // only a stopped process can be at it since the age before the last: its lease is over
        let began_earlier = |work: &Work| work.holds && work.since.next() != Some(age);
        if lease == Lease::Held && state.at(index).any(began_earlier) {
            state.operations[index].lease = Lease::Due;
        }
        Some(())
    }

    /// Gives states that nobody can tell apart one form.
    fn tidy(&self, state: &mut State) {
        for index in 0..state.operations.len() {
            let is_waited_for = state.is_waited_for(index);
            let has_holder = state.at(index).any(|work| work.holds);
            let is_left = state.at(index).next().is_none();
            let operation = &mut state.operations[index];
            if operation.wire.outlives_the_id() && !is_waited_for {
                operation.wire.lose_what_has_the_id();
            }
            // the lease of somebody who died: until it is over nobody can do anything
            if operation.lease == Lease::Held && !has_holder && self.has(Rule::LeaseRunsOut) {
                operation.lease = Lease::Due;
            }
            // settled, nobody is at it any more, and what may still arrive is answered as it was or carries no id
            let changes_nothing = operation.wire.is_empty() || operation.memory != Memory::Free;
            if operation.lease == Lease::Settled && is_left && changes_nothing {
                *operation = Operation {
                    lease: Lease::Settled,
                    age: Age::Forgotten,
                    absent: operation.absent.map(|_| Age::Margin),
                    answer: operation.answer,
                    retold: operation.retold,
                    settlements: operation.settlements,
                    effects: operation.effects,
                    ..Operation::unwritten(operation.key)
                };
            }
        }
        if state.payments[0].status != super::state::Status::Processing {
            state.turned_away = false;
        }
        let operations = &state.operations;
        for work in &mut state.works {
            // it counts anew when the process goes on
            let is_covered = work.holds && operations[work.operation].lease == Lease::Held;
            if work.stopped && !is_covered {
                work.since = Age::Charging;
            }
        }
    }
}

fn forget(state: &mut State, index: usize) {
    let is_waited_for = state.is_waited_for(index);
    let operation = &mut state.operations[index];
    if is_waited_for {
        operation.wire.outlive_the_id();
    } else {
        operation.wire.lose_what_has_the_id();
    }
    // a lease is shorter than that
    let took_long = matches!(operation.memory, Memory::Used { lately: true, .. });
    if took_long && operation.lease == Lease::Held {
        operation.lease = Lease::Due;
    }
    operation.memory = Memory::Free;
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            payments: self.scope.payments.to_vec(),
            operations: (0..self.scope.requests.len()).map(Operation::unwritten).collect(),
            works: Vec::new(),
            crashes: self.scope.crashes,
            pauses: self.scope.pauses,
            turned_away: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let running = state.works.iter().position(Work::is_running);
        if let Some(at) = running.filter(|_| self.scope.in_one_go) {
            actions.push(self.run(state, at));
            if state.pauses > 0 {
                actions.push(Action::Stop(at));
            }
            return;
        }
        if state.works.len() < self.scope.workers {
            actions.extend(
                (0..self.scope.requests.len()).filter(|key| self.may_ask(state, *key)).map(Action::Ask),
            );
            let is_due = |index: &usize| state.operations[*index].lease == Lease::Due;
            actions.extend((0..state.operations.len()).filter(is_due).map(Action::Take));
        }
        for (index, operation) in state.operations.iter().enumerate() {
            if operation.lease == Lease::Unwritten {
                continue;
            }
            let of_time = [Action::LeaseEnds(index), Action::GrowOlder(index), Action::Forget(index)];
            actions.extend(of_time.into_iter().filter(|action| self.is_possible(state, *action)));
            for message in Message::ALL.into_iter().filter(|message| operation.wire.has(*message)) {
                let wills = self.wills(state, index, message).iter();
                actions.extend(wills.map(|will| Action::Arrive(index, message, *will)));
            }
        }
        for (at, work) in state.works.iter().enumerate() {
            self.actions_of(state, at, work, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = self.step(state, action)?;
        next.works.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        match self.without {
            // so that the shortest way to break just this is found
            Some(rule) => {
                let protects = rule.protects(&self.scope);
                vec![Property::always(protects.name, protects.condition)]
            }
            None => {
                let always = ALWAYS.iter().map(|it| Property::always(it.name, it.condition));
                let sometimes = self.scope.sometimes.iter();
                always.chain(sometimes.map(|it| Property::sometimes(it.name, it.condition))).collect()
            }
        }
    }
}

impl Protocol {
    /// Whether a request with this key can make a difference.
    fn may_ask(&self, state: &State, key: usize) -> bool {
        let is_decided = |work: &Work| work.stage == Stage::Decided && work.operation == key;
        if self.scope.is_create() {
            // the keys are alike until one is used, so the first is the first
            let is_first = key == 0 || state.operations[0].lease != Lease::Unwritten;
            is_first && self.free_row(state, key).is_some()
        } else {
            self.free_row(state, key).is_some()
                && self.allows(&state.payments[0], self.scope.requests[key])
                && !state.works.iter().any(is_decided)
        }
    }

    /// What can happen to a process that is not running.
    fn actions_of(&self, state: &State, at: usize, work: &Work, actions: &mut Vec<Action>) {
        if work.stopped {
            actions.push(Action::GoOn(at));
        } else {
            actions.push(self.run(state, at));
        }
        if let Stage::Waiting(step) = work.stage {
            let arrives = |message: &Message| state.operations[work.operation].wire.has(*message);
            if let Some(message) = step.message().filter(arrives) {
                let wills = self.wills(state, work.operation, message).iter();
                actions.extend(wills.map(|will| Action::Hear(at, *will)));
            }
        }
        // a process that only decided leaves nothing behind when it dies, whenever it does
        if work.stage != Stage::Decided {
            if state.crashes > 0 {
                actions.push(Action::Die(at));
            }
            if state.pauses > 0 && !work.stopped {
                actions.push(Action::Stop(at));
            }
        }
    }
}
