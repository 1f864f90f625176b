//! What tests and drills share: the programs, a world of their own for each, and the checker of what is left.
//!
//! A [`World`] is a database, a provider simulator and service processes, started from the same code as `make run`. Each
//! test has its own, so tests neither wait for nor disturb each other. [`World::check`] compares what the provider's
//! ledger, the database and the clients say.

mod api;
mod chart;
mod checker;
mod client;
mod collector;
mod corpora;
mod crashes;
mod crowd;
mod double_charges;
mod duel;
mod figures;
mod gauntlet;
mod it_works;
mod load;
mod mangled_names;
mod outage;
mod pressure;
mod programs;
mod race;
mod raw;
mod refund_race;
mod simulator;
mod slow;
mod statements;
mod storm;
mod tenants;
mod wire;
mod world;

pub use api::{Answer, Api, payment};
pub use chart::{Chart, Scale};
pub use checker::{Findings, History, Rule};
pub use client::{Client, Unserved};
pub use collector::Collector;
pub use corpora::{Corpora, CorporaReport, JsonFile, Positions, Texts, corpora, corpora_in_short, nfc};
pub use crashes::{Circumstance, Crash, Flow, Mortal, SPARED};
pub use crowd::Crowd;
pub use double_charges::{DoubleCharges, double_charges};
pub use duel::duel;
pub use figures::Figures;
pub use gauntlet::{Planted, gauntlet, paused};
pub use it_works::ItWorks;
pub use load::{Asked, Load, Seen, by_chance, evenly, percentile};
pub use mangled_names::{MangledNames, mangled_names};
pub use outage::Outage;
pub use pressure::{Pressure, PressureReport, Trouble, pressure};
pub use programs::{Profile, programs};
pub use race::{Contest, RaceReport, race};
pub use raw::{RawClient, RawRequest};
pub use refund_race::{RefundContest, refund_race};
pub use simulator::Simulator;
pub use slow::Slow;
pub use statements::Statement;
pub use storm::{Least, Storm, StormReport};
pub use tenants::tenants;
pub use wire::{Wire, WireAnswer, WireError, WireHead};
pub use world::{World, WorldOptions, eventually};
