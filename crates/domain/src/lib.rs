//! The rules of payments, and nothing else: no I/O, no clock, no database, no wire format.
//!
//! | module | holds |
//! | --- | --- |
//! | [`money`] | currencies and amounts in minor units |
//! | [`card`] | card numbers in text, which are refused and masked |
//! | [`text`] | one type per meaning of text; invalid values cannot be built |
//! | [`id`] | identifiers |
//! | [`payment`] | a payment, its states, and the one table of legal transitions |
//! | [`refund`] | a refund, its states and transitions |
//! | [`operation`] | work on a payment that must be finished exactly once: lease, and what to do next |
//! | [`event`] | the audit trail |
//! | [`trace`] | where something stands in a distributed trace |
//! | [`idempotency`] | the caller's key, and the fingerprint that tells one request from another |
//! | [`faults`] | points at which a build that is made for proofs can be made to fail |
//! | [`provider`] | the port to the payment provider, and its three kinds of outcome |
//! | [`reconcile`] | what differs between provider and database |
//!
//! A value of a type from here is valid. Parsing happens once, at the edge; inside nothing is checked twice.

pub mod card;
pub mod event;
pub mod faults;
pub mod id;
pub mod idempotency;
pub mod money;
pub mod operation;
pub mod payment;
pub mod provider;
pub mod reconcile;
pub mod refund;
pub mod text;
pub mod trace;
