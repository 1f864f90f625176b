//! The same checks on less: what a pull request waits for is a minute and not the whole model. The drill has all of it.

use super::protocol::{Protocol, Scope};
use super::state::{Age, Operation, Payment, Request, Step};
use super::{properties, scopes, take_away};
use domain::operation::{self, Progress, Windows};
use stateright::{Checker, Model};
use std::collections::BTreeSet;
use std::time::Duration;

/// Every scope twice: with all it asks for and a crash, and with the first that it asks for and a pause as well.
fn small() -> Vec<Scope> {
    let create: (&[Payment], &[Request]) = (&[Payment::NONE], &[Request::Create]);
    let change: (&[Payment], &[Request]) = (&[Payment::HELD], &[Request::Capture(2), Request::Cancel]);
    let refund: (&[Payment], &[Request]) = (&[Payment::HELD], &[Request::Capture(3), Request::Refund(1)]);
    let two: (&[Payment], &[Request]) = (&[Payment::MOVED], &[Request::Refund(1)]);
    let fewer = scopes::ALL.into_iter().zip([create, change, refund, two]);
    let all = scopes::ALL.map(|scope| Scope { workers: 2, crashes: 1, pauses: 0, in_one_go: true, ..scope });
    let stopped = fewer.map(|(scope, (payments, requests))| Scope {
        payments,
        requests,
        workers: 2,
        crashes: 1,
        pauses: 1,
        in_one_go: true,
        ..scope
    });
    all.into_iter().chain(stopped).collect()
}

#[test]
fn nothing_is_broken_and_every_fault_happens() {
    let mut happened = BTreeSet::new();
    for scope in small() {
        let checker = Protocol { scope, without: None }.checker().spawn_bfs().join();
        let discoveries = checker.discoveries();
        for it in properties::ALWAYS {
            assert!(!discoveries.contains_key(it.name), "{}: {} is broken", scope.name, it.name);
        }
        happened.extend(discoveries.into_keys().map(|name| (scope.name, name)));
    }
    for scope in scopes::ALL {
        for it in scope.sometimes {
            assert!(happened.contains(&(scope.name, it.name)), "{}: never {}", scope.name, it.name);
        }
    }
}

#[test]
fn without_any_rule_the_checker_finds_what_it_protects_broken() {
    for scope in scopes::ALL {
        let scope = Scope { workers: 2, crashes: 1, in_one_go: true, ..scope };
        for rule in scope.rules {
            let (figures, story) = take_away(scope, *rule).unwrap();
            figures
                .verdict()
                .unwrap_or_else(|error| panic!("{} without {}: {error}", scope.name, rule.name()));
            assert!(story.len() > 2, "{}: no story: {story:?}", rule.name());
        }
    }
}

/// The service's own numbers do not matter, only their order.
const WINDOWS: Windows = Windows {
    lease: Duration::from_secs(15),
    charge: Duration::from_secs(30 * 60),
    key_retention: Duration::from_secs(24 * 3600),
    attempt: Duration::from_secs(5),
    action: Duration::from_secs(3600),
};

/// When each age begins, and its last second.
fn seconds(age: Age) -> [u64; 2] {
    match age {
        Age::Charging => [0, 30 * 60 - 1],
        Age::Remembered => [30 * 60, 24 * 3600 - 16],
        Age::Margin => [24 * 3600 - 15, 24 * 3600 - 1],
        Age::Forgotten => [24 * 3600, 48 * 3600],
    }
}

const AGES: [Age; 4] = [Age::Charging, Age::Remembered, Age::Margin, Age::Forgotten];

fn progress(age: u64, server_errors: bool) -> Progress {
    let server_errors = if server_errors { operation::LOOK_UP_AFTER } else { 0 };
    Progress { age: Duration::from_secs(age), server_errors, ..Progress::default() }
}

#[test]
fn the_model_takes_the_steps_that_the_service_takes() {
    let of = |scope| Protocol { scope, without: None };
    let (create, refund) = (of(scopes::CREATE), of(scopes::REFUND));
    for age in AGES {
        for (server_errors, intent_known) in [(false, false), (false, true), (true, false), (true, true)] {
            let it = Operation { age, server_errors, intent_known, ..Operation::unwritten(0) };
            for second in seconds(age) {
                let progress = progress(second, server_errors);
                let step = match operation::next_step(&progress, intent_known, &WINDOWS) {
                    operation::Step::Send => Step::Send,
                    operation::Step::Retrieve => Step::Retrieve,
                    operation::Step::LookUp => Step::LookUp,
                    operation::Step::Close => Step::Close { absent_before: false },
                    operation::Step::Decide => Step::Decide { absent_before: false },
                };
                assert_eq!(create.next_step(&it), step, "a charge of {second} s, {progress:?}");
                let looks = operation::looks_first(&progress, &WINDOWS);
                let step = if looks { Step::LookFirst } else { Step::Send };
                assert_eq!(refund.next_step(&it), step, "a refund of {second} s, {progress:?}");
            }
        }
    }
}

#[test]
fn the_model_takes_for_absent_what_the_service_takes_for_absent() {
    let model = Protocol { scope: scopes::CREATE, without: None };
    for (index, since) in AGES.into_iter().enumerate().skip(2) {
        for age in &AGES[index..] {
            let it = Operation { age: *age, absent: Some(since), ..Operation::unwritten(0) };
            let absent_before = model.next_step(&it) == Step::Decide { absent_before: true };
            // the longest that it can have been
            let absent_for = Some(Duration::from_secs(seconds(*age)[1] - seconds(since)[0]));
            let progress = Progress { absent_for, ..progress(seconds(*age)[1], false) };
            assert_eq!(absent_before, operation::is_absent(&progress, &WINDOWS), "{since:?}, {age:?}");
        }
    }
}
