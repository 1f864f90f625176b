//! The checker is checked: a story in which nothing is wrong, and for every rule a lie that only breaks this one or is
//! at least caught by it.

use super::*;
use serde_json::json;

/// The three witnesses of a payment of 10 euros, captured, with 4 refunded.
struct Story {
    ledger: Ledger,
    database: Database,
    attempts: Vec<Attempt>,
}

impl Story {
    fn new() -> Self {
        let ledger = json!({
            "charges": [{
                "payment_intent": "pi_1", "payment_id": "pay", "amount": 1000, "amount_captured": 1000,
                "amount_refunded": 400, "currency": "eur", "status": "succeeded", "idempotency_keys": ["op"],
                "refunds": [{ "refund_id": "ref", "amount": 400, "status": "succeeded" }],
            }],
            "entries": [
                { "kind": "authorize", "payment_intent": "pi_1", "payment_id": "pay", "amount": 1000 },
                { "kind": "capture", "payment_intent": "pi_1", "payment_id": "pay", "amount": 1000 },
                { "kind": "refund", "payment_intent": "pi_1", "payment_id": "pay", "refund_id": "ref", "amount": 400 },
            ],
        });
        let text = str::to_owned;
        let paid = json!({ "id": "pay", "status": "captured", "amount": 1000, "currency": "EUR" });
        let refunded = json!({ "id": "ref", "payment_id": "pay", "status": "succeeded", "amount": 400 });
        let event = |sequence, kind: &str, refund: Option<&str>| EventRow {
            merchant_id: text("m"),
            payment_id: text("pay"),
            sequence,
            kind: text(kind),
            refund_id: refund.map(text),
            in_order: true,
        };
        let operation = |key: &str, kind: &str, answer: &Value| OperationRow {
            merchant_id: text("m"),
            key: text(key),
            payment_id: text("pay"),
            kind: text(kind),
            progress: String::new(),
            answer: Some((201, answer.to_string().into_bytes())),
        };
        let attempt = |key: &str, path: &str, body: Value, answer: &Value| Attempt {
            api_key: text("sk"),
            key: text(key),
            path: text(path),
            body,
            answer: Some((201, answer.to_string().into_bytes())),
            location: text("/somewhere"),
        };
        let asked = json!({ "amount": 1000, "currency": "EUR" });
        Self {
            ledger: Ledger::read(&ledger).unwrap(),
            database: Database {
                payments: vec![PaymentRow {
                    merchant_id: text("m"),
                    id: text("pay"),
                    reference: text("order"),
                    status: text("captured"),
                    amount: 1000,
                    captured: 1000,
                    refunded: 400,
                    currency: text("EUR"),
                    last_event: 4,
                }],
                refunds: vec![RefundRow {
                    merchant_id: text("m"),
                    id: text("ref"),
                    payment_id: text("pay"),
                    amount: 400,
                    status: text("succeeded"),
                }],
                operations: vec![operation("k1", "charge", &paid), operation("k2", "refund", &refunded)],
                events: vec![
                    event(1, "payment.created", None),
                    event(2, "payment.captured", None),
                    event(3, "refund.created", Some("ref")),
                    event(4, "refund.succeeded", Some("ref")),
                ],
            },
            attempts: vec![
                attempt("k1", "/v1/payments", asked.clone(), &paid),
                attempt("k1", "/v1/payments", asked, &paid),
                attempt("k2", "/v1/payments/pay/refunds", json!({ "amount": 400 }), &refunded),
            ],
        }
    }

    fn findings(&self) -> Findings {
        check(&self.ledger, &self.database, &self.attempts)
    }

    /// Changes what was shown in an answer.
    fn show(&mut self, attempt: usize, field: &str, value: Value) {
        let (_, body) = self.attempts[attempt].answer.as_mut().unwrap();
        let mut json: Value = serde_json::from_slice(body).unwrap();
        json[field] = value;
        *body = json.to_string().into_bytes();
    }
}

#[test]
fn a_story_in_which_nothing_is_wrong_passes() {
    let findings = Story::new().findings();
    findings.verdict().unwrap();
    assert_eq!((findings.payments, findings.charges, findings.attempts), (1, 1, 3));
}

#[test]
fn every_rule_finds_its_lie() {
    type Lie = fn(&mut Story);
    let lies: [(Rule, &str, Lie); 32] = [
        (Rule::OneCharge, "a second charge of the payment", |s| {
            let charge = Charge {
                payment_intent: "pi_2".to_owned(),
                idempotency_keys: Vec::new(),
                ..s.ledger.charges[0].clone()
            };
            s.ledger.charges.push(charge);
        }),
        (Rule::OneCharge, "a key with two charges", |s| {
            let charge =
                Charge { payment_intent: "pi_2".to_owned(), payment_id: None, ..s.ledger.charges[0].clone() };
            s.ledger.charges.push(charge);
        }),
        (Rule::OneEffect, "captured twice", |s| s.ledger.entries.insert(2, s.ledger.entries[1].clone())),
        (Rule::OneEffect, "refunded twice", |s| s.ledger.entries.push(s.ledger.entries[2].clone())),
        (Rule::OneLivingPayment, "two living payments of a reference", |s| {
            let row = PaymentRow { id: "pay2".to_owned(), ..s.database.payments[0].clone() };
            s.database.payments.push(row);
        }),
        (Rule::SuccessIsCharged, "captured without a charge", |s| s.ledger.charges.clear()),
        (Rule::SuccessIsCharged, "another amount", |s| s.ledger.charges[0].amount = 999),
        (Rule::SuccessIsCharged, "another amount captured", |s| s.ledger.charges[0].amount_captured = 999),
        (Rule::SuccessIsCharged, "another currency", |s| s.ledger.charges[0].currency = "usd".to_owned()),
        (Rule::SuccessIsCharged, "canceled at the provider", |s| {
            s.ledger.charges[0].status = "canceled".to_owned()
        }),
        (Rule::SuccessIsCharged, "shown, and no row", |s| s.database.payments.clear()),
        (Rule::SuccessIsCharged, "shown for another amount than asked", |s| {
            s.attempts[0].body = json!({ "amount": 1, "currency": "EUR" })
        }),
        (Rule::SuccessIsCharged, "captured for what nobody asked", |s| {
            let path = "/v1/payments/pay/capture".to_owned();
            let answer = Some((202, s.attempts[0].answer.clone().unwrap().1));
            let body = json!({ "amount": 1 });
            s.attempts.push(Attempt { path, key: "k3".to_owned(), body, answer, ..s.attempts[0].clone() });
        }),
        (Rule::SuccessIsCharged, "a refund that is not there", |s| s.ledger.charges[0].refunds.clear()),
        (Rule::FailureHoldsNothing, "failed here, charged there", |s| {
            s.database.payments[0].status = "failed".to_owned()
        }),
        (Rule::FailureHoldsNothing, "once shown as failed", |s| s.show(0, "status", json!("failed"))),
        (Rule::FailureHoldsNothing, "a refund once shown as failed", |s| {
            s.show(2, "status", json!("failed"))
        }),
        (Rule::FailureHoldsNothing, "a refund that failed here", |s| {
            s.database.refunds[0].status = "failed".to_owned()
        }),
        (Rule::NoUnknownCharge, "a charge of no payment", |s| {
            s.ledger.charges[0].payment_id = Some("else".to_owned())
        }),
        (Rule::NoUnknownCharge, "a refund of nobody", |s| s.ledger.charges[0].refunds[0].refund_id = None),
        (Rule::NothingOpen, "an operation without an end", |s| s.database.operations[0].answer = None),
        (Rule::OneAnswer, "another stored answer", |s| {
            s.database.operations[0].answer = Some((201, b"{}".to_vec()))
        }),
        (Rule::OneAnswer, "two settled answers", |s| s.show(1, "updated_at", json!("later"))),
        (Rule::OneAnswer, "two requests of a key", |s| {
            s.attempts[1].body = json!({ "amount": 1000, "currency": "EUR", "reference": "x" })
        }),
        (Rule::OneAnswer, "two operations of a key", |s| {
            s.database.operations.push(s.database.operations[0].clone())
        }),
        (Rule::RefundsWithinCaptures, "refunded before it was captured", |s| s.ledger.entries.swap(1, 2)),
        (Rule::RefundsWithinCaptures, "a sum without its parts", |s| s.database.payments[0].refunded = 500),
        (Rule::RefundsWithinCaptures, "another sum at the provider", |s| {
            s.ledger.charges[0].amount_refunded = 500
        }),
        (Rule::WholeTrail, "a gap", |s| _ = s.database.events.remove(1)),
        (Rule::WholeTrail, "an illegal step", |s| s.database.events[1].kind = "payment.canceled".to_owned()),
        (Rule::NoStranger, "a refund of another merchant's payment", |s| {
            s.database.refunds[0].merchant_id = "n".to_owned()
        }),
        (Rule::NoFault, "a 500", |s| s.attempts[1].answer = Some((500, Vec::new()))),
    ];
    for (rule, what, lie) in lies {
        let mut story = Story::new();
        lie(&mut story);
        let findings = story.findings();
        assert!(findings.count(rule) > 0, "{what}: {findings}");
    }
    for rule in Rule::ALL {
        assert!(lies.iter().any(|(tested, ..)| *tested == rule), "{rule:?} is not tested");
    }
}
